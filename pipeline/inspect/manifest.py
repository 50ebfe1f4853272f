"""The manifest of a data set as one DuckDB view, called `manifest`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.reader.dataset import read_card, read_rows
from schemas.dataset import MANIFEST_FOLDER, Card
from schemas.errors import UserError, explained, printable
from schemas.manifest import MANIFEST_SCHEMA

COMMAND = "pipeline.inspect"
VIEW = "manifest"
COLUMNS = MANIFEST_SCHEMA.names
VERIFY = "python -m pipeline.verify says what is damaged"
_BATCH_ROWS = 10_000
_SEALED_MEMORY = "4GB"  # a careless join fails instead of taking the machine's


class Row(SimpleNamespace):
    """A row of the manifest: an attribute for each of its COLUMNS."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__(**dict(zip(COLUMNS, values, strict=True)))


@dataclass(frozen=True)
class Inspected:
    """A data set that is being looked at."""

    folder: str
    card: Card
    connection: Any
    """A duckdb.DuckDBPyConnection with the view `manifest`."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of a query of ours."""
        with explained_duckdb(self.folder):
            found: list[tuple[Any, ...]] = self.connection.execute(sql, list(parameters)).fetchall()
        return found

    def rows(self, rest: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows that `rest` (from WHERE on) chooses."""
        return [Row(values) for values in self.query(f"SELECT {', '.join(COLUMNS)} FROM {VIEW} {rest}", parameters)]

    def named(self, sample_ids: Sequence[str]) -> list[Row]:
        """Those of the records that there are, the same order each time."""
        marks = ", ".join("?" for _ in sample_ids)
        return self.rows(f"WHERE sample_id IN ({marks}) ORDER BY bitmap_digest, sample_id", sample_ids)


def open_dataset(folder: str) -> Inspected:
    """The data set in `folder`, ready for queries of ours. Raises UserError where there is none."""
    return open_beside([folder])[0]


def open_beside(folders: Sequence[str]) -> list[Inspected]:
    """Several data sets in one connection: views `manifest`, `manifest_1`, …"""
    connection = _connect()
    opened = []
    for number, folder in enumerate(folders):
        card, paths = _find_parts(folder)
        name = f"{VIEW}_{number}" if number else VIEW
        with explained_duckdb(folder):
            if storage.of(folder).is_remote:
                connection.register(name, _read_parts(folder, paths))
            else:
                literals = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
                connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{literals}])")
        opened.append(Inspected(folder.rstrip("/") or "/", card, connection))
    return opened


def open_sealed(folder: str) -> Inspected:
    """The same for a stranger's SQL: it sees the view, no file, no network and no setting.

    Arrow reads the files here. If DuckDB did, it would have to be allowed their paths, and then `COPY … TO` could
    overwrite them.
    """
    card, paths = _find_parts(folder)
    connection = _connect()
    connection.register(VIEW, _read_parts(folder, paths))
    limits = f"memory_limit = '{_SEALED_MEMORY}'"
    for setting in (limits, "temp_directory = ''", "enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"SET {setting}")
    return Inspected(folder, card, connection)


def fetched(result: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a DuckDB result, never all of them in memory."""
    return chain.from_iterable(iter(lambda: result.fetchmany(_BATCH_ROWS), []))


@contextlib.contextmanager
def explained_duckdb(where: str, advice: str = VERIFY) -> Iterator[None]:
    """What DuckDB complains about becomes the one line of a UserError."""
    duckdb = _import_duckdb()
    try:
        yield
    except duckdb.Error as error:
        # Below the first line it draws an arrow under a copy of the query.
        raise UserError(f"{where}: {printable(str(error).splitlines()[0])}; {advice}") from error


def _find_parts(folder: str) -> tuple[Card, list[str]]:
    """The card, and where every part of the manifest lies. Raises UserError if one is missing."""
    folder = folder.rstrip("/") or "/"
    card, _ = read_card(folder)
    with explained(f"read {folder}"):
        there = {file.path for file in storage.list_folder(storage.join(folder, MANIFEST_FOLDER))}
    paths = [storage.join(folder, shard.manifest_path) for split in card.splits.values() for shard in split.shards]
    for path in paths:
        if path not in there:
            raise UserError(f"{path}: expected a part of the manifest, found none; restore it, or convert again")
    return card, paths


def _connect() -> Any:
    connection = _import_duckdb().connect(":memory:")
    # A name in SQL is never a variable of this program.
    connection.execute("SET python_enable_replacements = false")
    return connection


def _import_duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise UserError(
            "expected DuckDB, which looks through the manifest, found it missing; install it with: "
            "pip install '.[inspect]', or pip install duckdb"
        ) from None
    return duckdb


def _read_parts(folder: str, paths: Sequence[str]) -> Any:
    """Arrow's view of all of them."""
    import pyarrow.dataset as ds  # with pandas in its wake, which the summary needn't wait for

    try:
        if storage.of(folder).is_remote:
            return pa.concat_tables(map(read_rows, paths))
        for path in paths:
            pq.read_metadata(path)  # a part that is none should be heard of before its rows are
        return ds.dataset(list(paths), format="parquet")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder}: {str(error).splitlines()[0]}; {VERIFY}") from error
