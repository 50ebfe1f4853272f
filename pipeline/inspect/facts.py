"""The figures of a data set: what the card says, and what the manifest's rows add to it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.inspect.manifest import Inspected
from pipeline.source.losses import loss_lines, passed_over_lines
from schemas.dataset import Counts

EXTREMES = 8
"""Characters, writers or records that are named as examples of something."""


@dataclass(frozen=True)
class Spread:
    """Of a measure of the records that have it."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class SplitFacts:
    counts: Counts
    characters: int
    writers: int
    shards: int
    source_bytes: int
    """Of its members, not compressed."""
    shard_bytes: int
    manifest_bytes: int
    records_per_character: Spread | None
    """Of the kept ones, among the characters there are."""
    width_pixels: Spread | None
    height_pixels: Spread | None
    ink_percent: Spread | None


@dataclass(frozen=True)
class MissingCharacters:
    """A writer who lacks characters that others of the split wrote."""

    split: str
    writer: str
    characters: int
    """How many."""
    examples: str


@dataclass(frozen=True)
class Identical:
    """Kept records whose bitmaps are equal, pixel by pixel."""

    within: dict[str, int]
    """Split -> records that repeat another one of the split."""
    across: int
    """Bitmaps in more than one split: what is learnt from one is tested with itself."""
    labelled_differently: int
    """Bitmaps with more than one label."""
    examples: list[tuple[str, str, int]]
    """(sample_id, another one, how many there are) of equal bitmaps, those across splits first."""


@dataclass(frozen=True)
class Facts:
    splits: dict[str, SplitFacts]
    rarest: list[tuple[str, int]]
    """(character, kept records), fewest first."""
    commonest: list[tuple[str, int]]
    without_records: int
    """Classes of the class list that no kept record has."""
    writers_with_gaps: dict[str, int]
    """Split -> writers who lack characters that others of the split wrote."""
    missing: list[MissingCharacters]
    """Those who lack most."""
    identical: Identical
    shared_writers: list[tuple[str, str]]
    """(writer, splits) of writers in more than one split."""
    losses: list[str]
    """A line for each way in which members gave less than they might have."""
    passed_over: list[str]
    """What the inputs held beside GNT."""


def gather(inspected: Inspected) -> Facts:
    """Every figure of the summary, from a handful of passes over the manifest."""
    counted = inspected.query(
        "SELECT label, any_value(char), count(*) AS records FROM manifest WHERE status = 'kept' "
        "GROUP BY label ORDER BY records, label"
    )
    characters = [(_name(char, label), records) for label, char, records in counted]
    gaps, missing = _missing(inspected)
    shared = inspected.query(
        "SELECT writer, string_agg(DISTINCT split, ', ' ORDER BY split) FROM manifest "
        "GROUP BY writer HAVING count(DISTINCT split) > 1 ORDER BY writer"
    )
    return Facts(
        splits=_split_facts(inspected),
        rarest=characters[:EXTREMES],
        commonest=characters[::-1][:EXTREMES],
        without_records=inspected.card.class_count - len(characters),
        writers_with_gaps=gaps,
        missing=missing,
        identical=_identical(inspected),
        shared_writers=shared,
        losses=loss_lines(inspected.card),
        passed_over=passed_over_lines(inspected.card),
    )


def _split_facts(inspected: Inspected) -> dict[str, SplitFacts]:
    bitmaps = "manifest WHERE bitmap_digest IS NOT NULL"
    spreads = {
        "records_per_character": _spread(
            inspected, "n", "(SELECT split, count(*) AS n FROM manifest WHERE status = 'kept' GROUP BY split, label)"
        ),
        "width_pixels": _spread(inspected, "width", bitmaps),
        "height_pixels": _spread(inspected, "height", bitmaps),
        "ink_percent": _spread(inspected, "100.0 * ink_fraction", bitmaps),
    }
    return {
        name: SplitFacts(
            counts=split.counts,
            characters=split.characters,
            writers=split.writers,
            shards=len(split.shards),
            source_bytes=sum(entry.bytes for entry in inspected.card.inputs if entry.split == name),
            shard_bytes=sum(shard.bytes for shard in split.shards),
            manifest_bytes=sum(shard.manifest_bytes for shard in split.shards),
            **{measure: by_split.get(name) for measure, by_split in spreads.items()},
        )
        for name, split in inspected.card.splits.items()
    }


def _spread(inspected: Inspected, measure: str, rows: str) -> dict[str, Spread]:
    """By split, where any of the rows has that measure."""
    found = inspected.query(
        f"SELECT split, min({measure}), median({measure}), max({measure}) FROM {rows} "
        f"GROUP BY split HAVING count({measure}) > 0"
    )
    return {split: Spread(*map(float, values)) for split, *values in found}


def _missing(inspected: Inspected) -> tuple[dict[str, int], list[MissingCharacters]]:
    """How many writers of each split lack some of its characters, and those who lack most."""
    highest = max(1, inspected.card.class_count - 1)
    lacking = inspected.query(
        f"SELECT split, writer, bit_count(bitstring_agg(label, 0, {highest})) AS characters FROM manifest "
        "WHERE status = 'kept' GROUP BY split, writer ORDER BY characters, split, writer"
    )
    there = {name: split.characters for name, split in inspected.card.splits.items()}
    lacking = [(split, writer, there[split] - found) for split, writer, found in lacking if found < there[split]]
    lacking.sort(key=lambda row: -row[2])
    worst = []
    for split, writer, count in lacking[:EXTREMES]:
        names = inspected.query(
            "SELECT label, any_value(char) FROM manifest WHERE status = 'kept' AND split = ? AND label NOT IN "
            "(SELECT label FROM manifest WHERE status = 'kept' AND split = ? AND writer = ?) "
            f"GROUP BY label ORDER BY label LIMIT {EXTREMES}",
            [split, split, writer],
        )
        examples = "".join(_name(char, label) for label, char in names)
        worst.append(MissingCharacters(split, writer, count, examples + ("…" if count > len(names) else "")))
    gaps = {name: sum(split == name for split, _, _ in lacking) for name in inspected.card.splits}
    return gaps, worst


def _identical(inspected: Inspected) -> Identical:
    repeated = "SELECT bitmap_digest FROM manifest WHERE status = 'kept' GROUP BY bitmap_digest HAVING count(*) > 1"
    inspected.query(
        "CREATE OR REPLACE TEMP TABLE twin AS SELECT bitmap_digest, split, label, sample_id FROM manifest "
        f"SEMI JOIN ({repeated}) USING (bitmap_digest) WHERE status = 'kept'"
    )
    within = dict(
        inspected.query(
            "SELECT split, sum(n - 1)::BIGINT FROM "
            "(SELECT split, count(*) AS n FROM twin GROUP BY split, bitmap_digest) GROUP BY split HAVING sum(n - 1) > 0"
        )
    )
    ((across, labelled_differently),) = inspected.query(
        "SELECT count(*) FILTER (splits > 1), count(*) FILTER (labels > 1) FROM "
        "(SELECT count(DISTINCT split) AS splits, count(DISTINCT label) AS labels FROM twin GROUP BY bitmap_digest)"
    )
    examples = inspected.query(
        "SELECT min(sample_id) AS first, max(sample_id), count(*) FROM twin GROUP BY bitmap_digest "
        f"ORDER BY count(DISTINCT split) DESC, first LIMIT {EXTREMES}"
    )
    ordered = {name: within.get(name, 0) for name in inspected.card.splits}
    return Identical(ordered, across, labelled_differently, examples)


def _name(char: str | None, label: int) -> str:
    return char or f"label {label}"
