"""The manifest of a data set as one DuckDB view, called `manifest`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline import storage
from schemas.dataset import (
    CARD,
    MANIFEST_FOLDER,
    SPLITS,
    Card,
    manifest_part_name,
    parse_card,
    shard_name,
)
from schemas.errors import UserError, explained, printable

if TYPE_CHECKING:
    import duckdb

VIEW = "manifest"


@dataclass(frozen=True)
class Row:
    """What pictures need of a manifest's row; the names are the columns'."""

    sample_id: str
    split: str
    status: str
    reason: str | None
    label: int | None
    char: str | None
    tag: str | None
    writer: str
    archive: str
    member: str
    record_index: int
    source_offset: int
    source_bytes: int
    width: int | None
    height: int | None
    ink_fraction: float | None
    bitmap_digest: int | None
    shard: str | None
    shard_offset: int | None
    shard_bytes: int | None
    shard_crc32c: int | None


COLUMNS = ", ".join(field.name for field in fields(Row))


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
        return [Row(*values) for values in self.query(f"SELECT {COLUMNS} FROM {VIEW} {rest}", parameters)]

    def shard_path(self, row: Row) -> str:
        """Where the row's shard lies. Raises UserError for a shard that isn't on the card: others are never opened."""
        count = len(self.card.splits[row.split].shards)
        if row.shard not in {shard_name(row.split, index, count) for index in range(count)}:
            raise UserError(
                f"{self.folder}: {row.sample_id}: expected a shard of the card, found {row.shard!r}; {VERIFY}"
            )
        return storage.join(self.folder, row.shard)


_SEALED_MEMORY = "4GB"  # a careless join fails instead of taking the machine's
VERIFY = "python -m pipeline.verify says what is damaged"


def open_dataset(folder: str) -> Inspected:
    """The data set in `folder`, ready for queries of ours. Raises UserError where there is none."""
    return open_beside([folder])[0]


def open_beside(folders: Sequence[str]) -> list[Inspected]:
    """Several data sets in one connection: views `manifest`, `manifest_1`, …"""
    connection = _connect()
    opened = []
    for number, folder in enumerate(folders):
        folder = folder.rstrip("/") or "/"
        card = read_card(folder)
        name = f"{VIEW}_{number}" if number else VIEW
        paths = part_paths(card, folder)
        with explained_duckdb(folder):
            if storage.of(folder).is_remote:
                connection.register(name, _read_remote(paths))
            else:
                literals = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
                connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{literals}])")
        opened.append(Inspected(folder, card, connection))
    return opened


def open_sealed(folder: str) -> Inspected:
    """The same for a stranger's SQL: it sees the view, no file, no network and no setting.

    Arrow reads the files here. If DuckDB did, it would have to be allowed their paths, and then `COPY … TO` could
    overwrite them.
    """
    folder = folder.rstrip("/") or "/"
    card = read_card(folder)
    connection = _connect()
    paths = part_paths(card, folder)
    connection.register(VIEW, _read_remote(paths) if storage.of(folder).is_remote else _local_dataset(folder, paths))
    limits = f"memory_limit = '{_SEALED_MEMORY}'"
    for setting in (limits, "temp_directory = ''", "enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"SET {setting}")
    return Inspected(folder, card, connection)


def read_card(folder: str) -> Card:
    """The card of a data set, here or behind a URL. Raises UserError if there is none."""
    path = storage.join(folder, CARD)
    with explained(f"read {path}"):
        content = storage.read_if_there(path)
    if content is None:
        raise UserError(
            f"{folder}: expected {CARD}, found none; the conversion isn't finished, or this is another folder"
        )
    card = parse_card(content, path)
    foreign = [name for name in card.splits if name not in SPLITS]
    if foreign:  # it would become part of paths
        raise UserError(f"{path}: expected the splits {', '.join(SPLITS)}, found {foreign[0]!r}; convert again")
    return card


def part_paths(card: Card, folder: str) -> list[str]:
    """Every part of the manifest, under the only name it can have. Raises UserError if one is missing."""
    paths = [
        storage.join(folder, manifest_part_name(name, index, len(split.shards)))
        for name, split in card.splits.items()
        for index in range(len(split.shards))
    ]
    with explained(f"read {folder}"):
        there = {file.path for file in storage.list_folder(storage.join(folder, MANIFEST_FOLDER))}
    for path in paths:
        if path not in there:
            raise UserError(f"{path}: expected a part of the manifest, found none; restore it, or convert again")
    return paths


@contextlib.contextmanager
def explained_duckdb(where: str, advice: str = VERIFY) -> Iterator[None]:
    """What DuckDB complains about becomes the one line of a UserError."""
    duckdb = _import_duckdb()
    try:
        yield
    except duckdb.Error as error:
        # Below the first line it draws an arrow under a copy of the query.
        raise UserError(f"{where}: {printable(str(error).splitlines()[0])}; {advice}") from error


def _connect() -> duckdb.DuckDBPyConnection:
    connection = _import_duckdb().connect(":memory:")
    # A name in SQL is never a variable of this program.
    connection.execute("SET python_enable_replacements = false")
    return connection


def _import_duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        _no_duckdb()
    return duckdb


def _no_duckdb() -> NoReturn:
    raise UserError(
        "expected DuckDB, which looks through the manifest, found it missing; install it with: "
        "pip install '.[inspect]', or pip install duckdb"
    ) from None


def _local_dataset(folder: str, paths: Sequence[str]) -> Any:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    try:
        for path in paths:
            pq.read_metadata(path)  # a part that is none should be heard of before its rows are
        return ds.dataset(list(paths), format="parquet")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{folder}: {str(error).splitlines()[0]}; {VERIFY}") from error


def _read_remote(paths: Sequence[str]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in paths:
        with explained(f"read {path}"):
            tables.append(pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read())
    return pa.concat_tables(tables)
