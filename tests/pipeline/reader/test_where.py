"""Conditions on the manifest: DuckDB answers the same ones, and a line says what can't be read."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from pipeline.reader.where import Where
from schemas.errors import UserError
from schemas.manifest import MANIFEST_SCHEMA

ROWS = 200


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Nulls wherever a column may hold them."""
    rng = np.random.default_rng(4)
    columns = {
        "writer": [f"{number}" for number in rng.integers(1000, 1010, ROWS)],
        "char": [None if number == 3 else "一二三'"[number] for number in rng.integers(0, 4, ROWS)],
        "ink_fraction": [None if value > 0.9 else float(np.float32(round(value, 1))) for value in rng.random(ROWS)],
        "width": [None if value == 0 else int(value) for value in rng.integers(0, 5, ROWS)],
        "bitmap_digest": [int(value) for value in rng.integers(0, 1 << 63, ROWS)],
    }
    return pa.table(columns, pa.schema([MANIFEST_SCHEMA.field(name) for name in columns]))


@pytest.mark.parametrize(
    "text",
    [
        "writer < '1005' AND ink_fraction > 0.5",
        "writer<'1005'or width>=3 and not char = '二'",
        "NOT (writer = '1001' OR width != 2)",
        "ink_fraction BETWEEN 0.2 AND 0.4",
        "ink_fraction NOT BETWEEN 0.2 AND 4e-1 AND width <> 1",
        "char IN ('一', '二')",
        "char NOT IN ('一', '''')",
        "char IS NULL OR width IS NOT NULL",
        "NOT char = '一'",
        "NOT NOT (width == 1)",
        "(width = 1 OR width = 2) AND (char IS NULL)",
        "bitmap_digest > 4611686018427387905",
        "writer = ''",
        "ink_fraction = 0.3",
        "width > +1 AND ink_fraction < .5",
    ],
)
def test_duckdb_chooses_the_same_rows(rows: pa.Table, text: str) -> None:
    import duckdb

    where = Where(text)
    # A literal of DuckDB's is a decimal, compared as double: the manifest's float32 are what a literal is taken for.
    sql = re.sub(r"(?<![\w'])(\d*\.\d+|\d+e-?\d+)", r"(\1)::FLOAT", text)
    numbered = rows.append_column("n", pa.array(range(ROWS)))
    found = duckdb.sql(f"SELECT n FROM numbered WHERE {sql} ORDER BY n").fetchall()
    assert where.filter(numbered)["n"].to_pylist() == [n for (n,) in found]
    assert set(where.columns) == {name for name in rows.column_names if name in text}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a column at character 1, found the end"),
        ("writer", "expected a comparison: .* at character 7, found the end"),
        ("writer < 1100", r"expected a text in '…', which writer holds at character 10, found 1100"),
        ("width < '3'", "expected a number, which width holds at character 9, found '3'"),
        ("width < 3.5", "expected a number that uint16 holds, as width is at character 9, found 3.5"),
        ("width > -1", "expected a number that uint16 holds"),
        ("width < 70000", "expected a number that uint16 holds"),
        ("ink > 0.5", r"expected a column of the manifest \(sample_id, .*\) at character 1, found ink"),
        ("width = 1 AND", "expected a column at character 14, found the end"),
        ("width = 1 width = 2", "expected AND, OR or the end at character 11, found width"),
        ("(width = 1", r"expected \) at character 11, found the end"),
        ("width = 1; DROP TABLE manifest", "expected AND, OR or the end at character 10, found ;"),
        ("char LIKE '%'", "expected a comparison: .* found LIKE"),
        ("char NOT = '一'", "expected BETWEEN or IN at character 10, found ="),
        ("char = '一", "expected a text in '…', which char holds at character 8, found '"),
        ("width = 12px", "expected a number, which width holds at character 9, found 1"),
        ("width = width", "expected a number, which width holds at character 9, found width"),
        ("width IS 3", "expected NULL at character 10, found 3"),
        ("width IN ()", r"expected a number, which width holds at character 11, found \)"),
    ],
)
def test_what_cant_be_read_is_said_in_a_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^where {re.escape(text)}: {says}.*; for instance ") as caught:
        Where(text)
    assert "\n" not in str(caught.value)
