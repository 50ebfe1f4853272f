"""`diff`: what differs between two data sets, record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import numpy as np

from pipeline.inspect.manifest import COLUMNS, Inspected, Row, explained_duckdb, fetched, open_beside
from pipeline.inspect.pictures.stored import read_sample
from schemas.command import can_hold_any_text
from schemas.dataset import Card
from schemas.errors import printable

MOST_EXAMPLES = 5

# kind -> (condition, what the examples show of A, of B). A row stands in `apart` if any condition holds.
_KINDS = {
    "records only in A": ("in_a AND NOT in_b", "a_status", "NULL"),
    "records only in B": ("in_b AND NOT in_a", "NULL", "b_status"),
    "status or reason": (
        "in_a AND in_b AND (a_status IS DISTINCT FROM b_status OR a_reason IS DISTINCT FROM b_reason)",
        "concat_ws(' ', a_status, a_reason)",
        "concat_ws(' ', b_status, b_reason)",
    ),
    "labels": (
        "in_a AND in_b AND a_label IS DISTINCT FROM b_label",
        "concat_ws(' ', a_label, a_char)",
        "concat_ws(' ', b_label, b_char)",
    ),
    "original bitmaps": (
        "in_a AND in_b AND a_bitmap_digest IS DISTINCT FROM b_bitmap_digest",
        "printf('%x', a_bitmap_digest)",
        "printf('%x', b_bitmap_digest)",
    ),
}
_COMPARED = ("status", "reason", "label", "char", "bitmap_digest", "shard_crc32c")


@dataclass(frozen=True)
class Difference:
    kind: str
    count: int
    examples: list[str]
    """The first ones, in the order of split, member and record."""


def print_differences(folder_a: str, folder_b: str, style: str, out: TextIO) -> bool:
    """Prints what differs, and returns whether anything does."""
    a, b = open_beside([folder_a, folder_b])
    found = differences(a, b)
    if style == "json":
        fields_ = {"a": a.folder, "b": b.folder, "differences": [asdict(one) for one in found]}
        out.write(json.dumps(fields_, ensure_ascii=not can_hold_any_text(out), indent=1) + "\n")
        return bool(found)
    for one in found:
        print(f"{one.kind}: {one.count:,}", file=out)
        for example in one.examples:
            print(f"  {printable(example)}", file=out)
        if one.count > len(one.examples):
            print(f"  … and {one.count - len(one.examples):,} more", file=out)
    if not found:
        print("the same settings, records, labels and pixels", file=out)
    return bool(found)


def differences(a: Inspected, b: Inspected) -> list[Difference]:
    """What differs between two data sets that open_beside opened together, settings first."""
    found = []
    settings = list(_different_settings(a.card, b.card))
    if settings:
        found.append(Difference("settings", len(settings), settings))
    _join(a)
    for kind, (condition, of_a, of_b) in _KINDS.items():
        ((count,),) = a.query(f"SELECT count(*) FROM apart WHERE {condition}")
        rows = a.query(
            f"SELECT sample_id, {of_a}, {of_b} FROM apart WHERE {condition} "
            f"ORDER BY split, member, record_index LIMIT {MOST_EXAMPLES}"
        )
        if count:
            found.append(Difference(kind, count, [_example(*row) for row in rows]))
    pixels = _different_pixels(a, b)
    return [*found, pixels] if pixels.count else found


def _join(a: Inspected) -> None:
    columns = ", ".join(f"a.{name} AS a_{name}, b.{name} AS b_{name}" for name in _COMPARED)
    unequal = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in _COMPARED)
    a.query(
        "CREATE OR REPLACE TEMP TABLE apart AS SELECT sample_id, coalesce(a.split, b.split) AS split, "
        "coalesce(a.member, b.member) AS member, coalesce(a.record_index, b.record_index) AS record_index, "
        f"a.status IS NOT NULL AS in_a, b.status IS NOT NULL AS in_b, {columns} "
        f"FROM manifest AS a FULL JOIN manifest_1 AS b USING (sample_id) WHERE {unequal}"
    )


def _different_pixels(a: Inspected, b: Inspected) -> Difference:
    """The kept records of both whose samples aren't equal, pixel by pixel."""
    count = 0
    examples: list[str] = []
    for row_a, row_b in _suspects(a, b):
        if _are_equal(a, row_a, b, row_b):
            continue
        count += 1
        if len(examples) < MOST_EXAMPLES:
            examples.append(row_a.sample_id)
    return Difference("pixels", count, examples)


def _suspects(a: Inspected, b: Inspected) -> Iterator[tuple[Row, Row]]:
    """The rows of both whose Examples differ; the same Example has the same checksum."""
    columns = ", ".join(f"{table}.{name}" for table in ("a", "b") for name in COLUMNS)
    with explained_duckdb(f"{a.folder}, {b.folder}"):
        result = a.connection.execute(
            f"SELECT {columns} FROM (SELECT sample_id FROM apart WHERE a_status = 'kept' AND b_status = 'kept' "
            "AND a_shard_crc32c <> b_shard_crc32c) JOIN manifest AS a USING (sample_id) "
            "JOIN manifest_1 AS b USING (sample_id) ORDER BY a.split, a.member, a.record_index"
        )
        for values in fetched(result):
            yield Row(values[: len(COLUMNS)]), Row(values[len(COLUMNS) :])


def _are_equal(a: Inspected, row_a: Row, b: Inspected, row_b: Row) -> bool:
    if a.card.image_size != b.card.image_size:
        return False
    if a.card.image_encoding == b.card.image_encoding == "raw" and row_a.label == row_b.label:
        return False  # nothing else in the Example could differ
    return np.array_equal(read_sample(a, row_a), read_sample(b, row_b))


def _different_settings(a: Card, b: Card) -> Iterator[str]:
    of_a, of_b = settings_of(a), settings_of(b)
    for name in sorted({*of_a, *of_b}):
        if of_a.get(name) != of_b.get(name):
            yield f"{name}: {of_a.get(name, 'none')} | {of_b.get(name, 'none')}"


def settings_of(card: Card) -> dict[str, Any]:
    """Every setting on the card, as name.name -> value; where the archives lay is none."""
    names = ("format_version", "config", "class_count", "class_digest", "libraries")
    return _flat({name: getattr(card, name) for name in names})


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _example(sample_id: str, of_a: object, of_b: object) -> str:
    shown = [str(value) for value in (of_a, of_b) if value is not None]
    return f"{sample_id}: {' | '.join(shown)}"
