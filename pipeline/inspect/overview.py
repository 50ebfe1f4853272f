"""The summary on the terminal, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TextIO

from rich.table import Table
from rich.text import Text

from pipeline.inspect.facts import EXTREMES, Facts, SplitFacts, Spread, gather
from pipeline.inspect.manifest import Inspected
from pipeline.inspect.official import checksum_lines, official_lines
from schemas.command import can_hold_any_text, make_console, print_whole
from schemas.errors import printable
from schemas.manifest import DROP_REASONS, REJECT_REASONS


def print_overview(inspected: Inspected, style: str, against: Sequence[str] | None, out: TextIO) -> None:
    """Prints the summary as a table or as JSON; with `against` the archives' checksums too."""
    facts = gather(inspected)
    official = official_lines(inspected.card)
    if against is not None:
        official += checksum_lines(inspected.card, against)
    if style == "json":
        fields = {"folder": inspected.folder, **asdict(facts), "official": official}
        out.write(json.dumps(fields, ensure_ascii=not can_hold_any_text(out), indent=1) + "\n")
        return
    console = make_console(out)
    console.print(Text(printable(_title(inspected)), style="bold"))
    print_whole(console, _split_table(facts.splits))
    console.print("¹ least … median … most")
    reasons = {reason for one in facts.splits.values() for reason in (*one.counts.dropped, *one.counts.rejected)}
    for reason, meaning in {**DROP_REASONS, **REJECT_REASONS}.items():
        if reason in reasons:
            console.print(f"{reason}: {meaning}")
    for title, lines in findings(facts, official):
        console.print(Text.assemble((f"\n{title}: ", "bold"), printable(lines[0])))
        for line in lines[1:]:
            console.print(Text(f"  {printable(line)}"))


def _title(inspected: Inspected) -> str:
    card = inspected.card
    return (
        f"{inspected.folder}: format {card.format_version}, images {card.image_size} × {card.image_size} "
        f"{card.image_encoding}, {card.class_count:,} classes"
    )


def _split_table(splits: Mapping[str, SplitFacts]) -> Table:
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for name in splits:
        table.add_column(Text(name), justify="right", no_wrap=True)

    def row(title: str, figure: Callable[[SplitFacts], object]) -> None:
        figures = [figure(one) for one in splits.values()]
        table.add_row(Text(printable(title)), *(f"{n:,}" if isinstance(n, int) else str(n) for n in figures))

    def counts(title: str, of: Callable[[SplitFacts], Mapping[str, int]]) -> None:
        row(title, lambda one: sum(of(one).values()))
        for reason in sorted({reason for one in splits.values() for reason in of(one)}):
            row(f"  {reason}", lambda one, reason=reason: of(one).get(reason, 0))  # type: ignore[misc]

    row("records read", lambda one: one.counts.read)
    row("kept", lambda one: one.counts.kept)
    counts("dropped", lambda one: one.counts.dropped)
    counts("rejected", lambda one: one.counts.rejected)
    row("characters", lambda one: one.characters)
    row("writers", lambda one: one.writers)
    row("records a character ¹", lambda one: _range(one.records_per_character))
    row("width, pixels ¹", lambda one: _range(one.width_pixels))
    row("height, pixels ¹", lambda one: _range(one.height_pixels))
    row("ink, % of pixels ¹", lambda one: _range(one.ink_percent, digits=1))
    row("source bytes", lambda one: one.source_bytes)
    row("shard bytes", lambda one: one.shard_bytes)
    row("manifest bytes", lambda one: one.manifest_bytes)
    row("shards", lambda one: one.shards)
    return table


def findings(facts: Facts, official: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(title, lines) of what doesn't fit into a column for each split."""
    without = f"; classes without a record: {facts.without_records:,}" if facts.without_records else ""
    return [
        ("rarest characters", [_counted(facts.rarest) + without]),
        ("commonest characters", [_counted(facts.commonest)]),
        ("writers with missing characters", _missing(facts)),
        ("identical bitmaps", _identical(facts)),
        ("writers in more than one split", [_shared(facts)]),
        ("lost", facts.losses if len(facts.losses) == 1 else ["", *facts.losses] if facts.losses else ["nothing"]),
        ("passed over", facts.passed_over),
        ("published archives", list(official) if len(official) == 1 else ["", *official]),
    ]


def _missing(facts: Facts) -> list[str]:
    if not facts.missing:
        return ["none"]
    gaps = [f"{n:,} of {facts.splits[name].writers:,} in {name}" for name, n in facts.writers_with_gaps.items() if n]
    lines = [f"{one.split}/{one.writer} lacks {one.characters:,}: {one.examples}" for one in facts.missing]
    return [", ".join(gaps), *lines]


def _identical(facts: Facts) -> list[str]:
    identical = facts.identical
    if not identical.examples:
        return ["none among the kept records"]
    parts = [f"in {name} {n:,} records repeat another" for name, n in identical.within.items() if n]
    if identical.labelled_differently:
        parts.append(f"bitmaps with more than one label: {identical.labelled_differently:,}")
    if identical.across:
        parts.insert(0, f"LEAK, bitmaps in more than one split: {identical.across:,}")
    lines = [f"{first} = {last}{f' ({n:,} records)' if n > 2 else ''}" for first, last, n in identical.examples]
    return ["; ".join(parts), *lines]


def _shared(facts: Facts) -> str:
    if not facts.shared_writers:
        return "none"
    some = "; ".join(f"{writer} in {splits}" for writer, splits in facts.shared_writers[:EXTREMES])
    more = len(facts.shared_writers) - EXTREMES
    return f"{len(facts.shared_writers):,}: {some}{f' and {more:,} more' if more > 0 else ''}"


def _counted(characters: Sequence[tuple[str, int]]) -> str:
    return "  ".join(f"{character} {records:,}" for character, records in characters) or "none"


def _range(spread: Spread | None, digits: int = 0) -> str:
    if spread is None:
        return "–"
    least, median, most = (f"{value:,.{digits}f}" for value in (spread.least, spread.median, spread.most))
    return f"{least} … {median} … {most}"
