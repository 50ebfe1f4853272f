"""--sql: someone's question to the manifest, answered as a table, as CSV or as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

from rich.table import Table
from rich.text import Text

from pipeline.inspect.manifest import explained_duckdb, fetched, open_sealed
from schemas.command import can_hold_any_text, make_console, print_whole
from schemas.errors import UserError, printable

MOST_TABLE_ROWS = 500
"""What a table on a terminal shows; the other formats give every row."""
_Rows = Iterator[tuple[Any, ...]]
_ADVICE = "the only view is manifest, DESCRIBE manifest lists its columns; no file can be read or written"


def print_answer(folder: str, sql: str, style: str, out: TextIO) -> None:
    """Runs `sql` over the manifest and prints what it gives. Raises UserError for SQL that can't be run."""
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--sql: expected UTF-8, found something else at character {error.start:,}") from error
    inspected = open_sealed(folder)
    with explained_duckdb("--sql", _ADVICE):
        result = inspected.connection.execute(sql)
        if result is None or result.description is None:
            raise UserError(f"--sql: expected a question, found none in {sql!r}; for instance SELECT * FROM manifest")
        names = [str(column[0]) for column in result.description]
        _STYLES[style](names, fetched(result), out)


def _print_csv(names: Sequence[str], rows: _Rows, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def _print_json(names: Sequence[str], rows: _Rows, out: TextIO) -> None:
    """An array with an object a line, so that a large answer needn't fit into memory."""
    separator, in_ascii = "[", not can_hold_any_text(out)
    for row in rows:
        fields = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        out.write(f"{separator}\n {json.dumps(fields, ensure_ascii=in_ascii, default=str)}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def _print_table(names: Sequence[str], rows: _Rows, out: TextIO) -> None:
    shown = list(islice(rows, MOST_TABLE_ROWS))
    more = sum(1 for _ in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        is_number = any(isinstance(row[index], int | float) for row in shown)
        table.add_column(Text(printable(name)), justify="right" if is_number else "left", no_wrap=True)
    for row in shown:
        table.add_row(*(Text(_shown(value)) for value in row))
    console = make_console(out)
    print_whole(console, table)
    if more:
        console.print(f"… and {more:,} more rows; add LIMIT, or take --format csv or json for all")


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, but for what it holds as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value))


_STYLES = {"table": _print_table, "csv": _print_csv, "json": _print_json}
