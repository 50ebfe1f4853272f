"""What a finished conversion says at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from schemas.dataset import Card, Counts
from schemas.manifest import DROP_REASONS, REJECT_REASONS

_COLUMNS = ("records read", "kept", "dropped", "rejected", "characters", "writers", "shards", "bytes", "records/s")


def print_summary(card: Card, output: str, seconds: float, console: Console) -> None:
    """A table by split, the reasons for what was not kept, and where the data set is."""
    table = Table("split", box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, split in card.splits.items():
        counts = split.counts
        figures = (
            counts.read,
            counts.kept,
            sum(counts.dropped.values()),
            sum(counts.rejected.values()),
            split.characters,
            split.writers,
            len(split.shards),
            sum(shard.bytes + shard.manifest_bytes for shard in split.shards),
            round(counts.read / seconds),
        )
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    console.print(table)
    for name, split in card.splits.items():
        for line in _reasons(split.counts):
            console.print(f"{name}: {line}", highlight=False)
    read = sum(split.counts.read for split in card.splits.values())
    console.print(f"{output}: {read:,} records in {seconds:,.1f} s, {read / seconds:,.0f} records/s", highlight=False)


def _reasons(counts: Counts) -> list[str]:
    dropped = [f"{n:,} dropped, {reason}: {DROP_REASONS[reason]}" for reason, n in counts.dropped.items()]
    rejected = [f"{n:,} rejected, {reason}: {REJECT_REASONS[reason]}" for reason, n in counts.rejected.items()]
    return dropped + rejected
