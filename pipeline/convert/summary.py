"""What a finished conversion says at its end."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from schemas.dataset import Card, Split
from schemas.manifest import DROP_REASONS, REJECT_REASONS


def print_summary(card: Card, output: str, seconds: float, console: Console) -> None:
    """A column for each split: what became of its records, and why some weren't kept."""
    splits = card.splits
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for name in splits:
        table.add_column(name, justify="right", no_wrap=True)

    def row(title: str, figures: list[int]) -> None:
        table.add_row(title, *(f"{figure:,}" for figure in figures))

    counts = [split.counts for split in splits.values()]
    row("records read", [of.read for of in counts])
    row("kept", [of.kept for of in counts])
    row("dropped", [sum(of.dropped.values()) for of in counts])
    for reason in _reasons([of.dropped for of in counts]):
        row(f"  {reason}", [of.dropped.get(reason, 0) for of in counts])
    row("rejected", [sum(of.rejected.values()) for of in counts])
    for reason in _reasons([of.rejected for of in counts]):
        row(f"  {reason}", [of.rejected.get(reason, 0) for of in counts])
    row("characters", [split.characters for split in splits.values()])
    row("writers", [split.writers for split in splits.values()])
    row("shards", [len(split.shards) for split in splits.values()])
    row("bytes", [_bytes(split) for split in splits.values()])
    row("records/s", [round(of.read / seconds) for of in counts])
    console.print(table)
    for reason, meaning in {**DROP_REASONS, **REJECT_REASONS}.items():
        if any(reason in of.dropped or reason in of.rejected for of in counts):
            console.print(f"{reason}: {meaning}", highlight=False)
    read = sum(of.read for of in counts)
    console.print(
        f"{output}: {read:,} records in {seconds:,.1f} s, {read / seconds:,.0f} records/s",
        highlight=False,
        markup=False,
    )


def _reasons(by_split: list[Mapping[str, int]]) -> list[str]:
    return sorted({reason for reasons in by_split for reason in reasons})


def _bytes(split: Split) -> int:
    return sum(shard.bytes + shard.manifest_bytes for shard in split.shards)
