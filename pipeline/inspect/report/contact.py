"""The report's pictures: contact sheets by character and by writer, the six steps, and the records to look at twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.inspect.facts import Facts
from pipeline.inspect.manifest import Inspected, Row
from pipeline.inspect.pictures.steps import Picture
from pipeline.inspect.pictures.stored import read_sample
from pipeline.inspect.report.page import folded, image, section, steps_row, text
from pipeline.inspect.show import describe, pictures_of
from schemas.errors import UserError
from schemas.manifest import REJECT_REASONS

CHARACTERS, PER_CHARACTER = 36, 8
WRITERS, PER_WRITER = 16, 10
STEPPED = 5
PER_GROUP = 8
_TILE = 64  # pixels; a sample of the usual size as it is
_STEP = 96

_EXTREMES = {
    "largest bitmaps": "bitmap_digest IS NOT NULL ORDER BY width::INTEGER * height DESC",
    "smallest bitmaps": "bitmap_digest IS NOT NULL ORDER BY width::INTEGER * height",
    "most ink": "ink_fraction IS NOT NULL ORDER BY ink_fraction DESC",
    "least ink": "ink_fraction IS NOT NULL ORDER BY ink_fraction",
    "most elongated": "width > 0 AND height > 0 ORDER BY greatest(width / height, height / width) DESC",
}


class Contact:
    """Draws the pictures of a data set; what can't be read is left out, and the report says so."""

    def __init__(self, inspected: Inspected, against: Sequence[str]) -> None:
        self.inspected = inspected
        self.against = against
        self.unread: list[str] = []

    def by_character(self) -> str:
        """Some samples each of the rarest characters and of others from all over the class list."""
        counted = self.inspected.query(
            "SELECT label, any_value(char), count(*) AS records FROM manifest WHERE status = 'kept' "
            "GROUP BY label ORDER BY records, label"
        )
        rare = counted[: CHARACTERS // 3]
        others = sorted(counted[len(rare) :])
        chosen = [*rare, *_spread_out(others, CHARACTERS - len(rare))]
        samples = self._samples("label", [label for label, _, _ in chosen], PER_CHARACTER)
        cards = [
            f'<div class="card"><p><span class="glyph">{text(char or "?")}</span> '
            f"<small>label {label}, {records:,} kept</small></p>{self._tiles(samples.get(label, []))}</div>"
            for label, char, records in chosen
        ]
        note = f"The {len(rare)} rarest characters, then others from all over the class list, as the shards hold them."
        return section(
            "characters", "By character", f'<p class="soft">{note}</p><div class="sheet">{"".join(cards)}</div>'
        )

    def by_writer(self) -> str:
        counted = self.inspected.query(
            "SELECT writer, split, count(*) FROM manifest WHERE status = 'kept' GROUP BY ALL ORDER BY split, writer"
        )
        chosen = _spread_out(counted, WRITERS)
        samples = self._samples("writer", [writer for writer, _, _ in chosen], PER_WRITER)
        cards = [
            f'<div class="card"><p><b>{text(writer)}</b> <small>{text(split)}, {records:,} kept</small></p>'
            f"{self._tiles([row for row in samples.get(writer, []) if row.split == split])}</div>"
            for writer, split, records in chosen
        ]
        return section("writers", "By writer", f'<div class="sheet">{"".join(cards)}</div>')

    def six_steps(self) -> str:
        # By digest: the same few each time, from all over the set.
        rows = self.inspected.rows(f"WHERE status = 'kept' ORDER BY bitmap_digest, sample_id LIMIT {STEPPED}")
        drawn, lost = pictures_of(self.inspected, rows, self.against)
        shown = [
            f'<div class="card"><small>{text(describe(row))}</small>{steps_row(drawn[row.sample_id], _STEP)}</div>'
            for row in rows
            if row.sample_id in drawn
        ]
        return section(
            "steps",
            "From the archive to the sample",
            _lost_note(lost),
            f'<div class="stack">{"".join(shown)}</div>',
            self._unread_note(),
        )

    def suspicious(self, facts: Facts) -> str:
        """Groups of records to look at twice, each record with its pictures behind a click."""
        groups: list[tuple[str, list[Row]]] = []
        if facts.identical.across:
            names = [n for first, last, _ in facts.identical.examples[: PER_GROUP // 2] for n in (first, last)]
            groups.append(
                (f"identical bitmaps in more than one split ({facts.identical.across:,})", self.inspected.named(names))
            )
        counts = self.inspected.query(
            "SELECT reason, count(*) FROM manifest WHERE status = 'rejected' GROUP BY reason ORDER BY reason"
        )
        for reason, count in counts:
            meaning = REJECT_REASONS.get(reason, "")
            rows = self._rows("status = 'rejected' AND reason = ? ORDER BY member, record_index", [reason])
            groups.append((f"rejected, {reason} ({count:,}): {meaning}", rows))
        groups += [(f"the {PER_GROUP} {name}", self._rows(rest)) for name, rest in _EXTREMES.items()]
        groups = [(title, rows) for title, rows in groups if rows]
        drawn, lost = pictures_of(self.inspected, [row for _, rows in groups for row in rows], self.against)
        parts = [_lost_note(lost)]
        for title, rows in groups:
            inside = "".join(self._record(row, drawn.get(row.sample_id, [])) for row in rows)
            parts.append(folded(title, f'<div class="group">{inside}</div>'))
        return section("suspicious", "Records to look at twice", *parts)

    def _record(self, row: Row, pictures: Sequence[Picture]) -> str:
        size = "" if row.width is None else f", {row.width} × {row.height} px"
        ink = "" if row.ink_fraction is None else f", ink {row.ink_fraction:.1%}"
        fate = row.status if row.reason is None else f"{row.status}, {row.reason}"
        thumbnail = image(pictures[0].image, row.char or "?", _TILE) if pictures else ""
        facts = (
            f"{text(row.char or '?')} <code>{text(row.sample_id)}</code><br><small>{text(fate + size + ink)}</small>"
        )
        inside = steps_row(pictures, _STEP) if pictures else "<p>Its bitmap can't be read.</p>"
        return (
            f'<details class="record"><summary>{thumbnail}<span>{facts}</span></summary>{inside}'
            f"<small>{text(describe(row))}</small></details>"
        )

    def _tiles(self, rows: Sequence[Row]) -> str:
        shown = []
        for row in rows:
            try:
                shown.append(image(read_sample(self.inspected, row), f"{row.char or '?'} {row.sample_id}", _TILE))
            except UserError as error:
                self.unread.append(str(error))
        return f'<div class="tiles">{"".join(shown)}</div>'

    def _unread_note(self) -> str:
        if not self.unread:
            return ""
        return f'<p class="alarm">{len(self.unread):,} samples can\'t be read: {text(self.unread[0])}</p>'

    def _samples(self, column: str, values: Sequence[Any], most: int) -> dict[Any, list[Row]]:
        """Value of the column -> at most that many kept rows of each split that have it."""
        if not values:
            return {}
        marks = ", ".join("?" for _ in values)
        each = "split, writer" if column == "writer" else column
        rows = self.inspected.rows(
            f"WHERE status = 'kept' AND {column} IN ({marks}) QUALIFY row_number() OVER "
            f"(PARTITION BY {each} ORDER BY bitmap_digest, sample_id) <= {most} ORDER BY bitmap_digest, sample_id",
            values,
        )
        found: dict[Any, list[Row]] = {}
        for row in rows:
            found.setdefault(getattr(row, column), []).append(row)
        return found

    def _rows(self, condition: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self.inspected.rows(f"WHERE {condition}, sample_id LIMIT {PER_GROUP}", parameters)


def _spread_out(items: Sequence[Any], most: int) -> list[Any]:
    """At most that many of the items, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _lost_note(lost: Sequence[str]) -> str:
    if not lost:
        return ""
    more = f" (and {len(lost) - 1:,} more like it)" if len(lost) > 1 else ""
    return f'<p class="soft">Not every original is at hand: {text(lost[0])}{more}.</p>'
