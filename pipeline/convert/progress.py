"""What a conversion tells: how far it is, and a summary at its end.

A runner blocks until the end, so progress is seen from beside it: receipts appear meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import storage
from pipeline.convert.direct import compiling
from pipeline.shards import staging
from pipeline.source.losses import loss_lines
from schemas.command import print_whole
from schemas.dataset import Card, Split
from schemas.errors import UserError
from schemas.manifest import DROP_REASONS, REJECT_REASONS

if TYPE_CHECKING:
    from pipeline.convert.plan import Conversion

_STORE_SECONDS = 10.0  # between two looks at a store, each of which is a request
_MOST_SHARE = 0.05  # of the time goes into looking, however many pieces there are
_COMPILE_SECONDS = 1.0  # less is no silence
_CONVERT_SHARE = 0.6  # of the whole time, on average; the rest goes into writing the shards


@dataclass(frozen=True)
class Reading:
    """One look at the staging folder."""

    records: int
    fraction: float
    """Of the whole job, 0 to 1."""
    rate: float
    """Records a second since the start; what an earlier, interrupted run had done doesn't count."""
    seconds: float
    left: float | None
    """Seconds, at the pace until now; None where there is none yet."""


class Meter:
    """Counts what the receipts in the staging folder say is done of a job."""

    def __init__(self, job: Conversion) -> None:
        self.job = job
        self.folders = {job.pieces, job.private, *filter(None, [job.kept])}
        self.interval = _STORE_SECONDS if storage.of(job.staging).is_remote else 0.0
        self.num_shards = sum(job.config.num_shards.values())
        self.started = time.monotonic()
        self.records = self.reused = self.bytes = self.shards = 0
        self.seen: set[str] = set()
        self.uncompiled = ""
        """Why the six steps aren't compiled where a chunk was converted."""
        self.begun = 0.0
        first = self.read()
        self.reused, self.begun = first.records, first.fraction

    def read(self) -> Reading:
        for folder in self.folders:
            for name in staging.receipts(folder) - self.seen:
                self.seen.add(name)
                self._count(folder, name)
        converted = min(1.0, self.bytes / max(1, self.job.source_bytes))
        written = min(1.0, self.shards / max(1, self.num_shards))
        fraction = _CONVERT_SHARE * converted + (1 - _CONVERT_SHARE) * written
        seconds = time.monotonic() - self.started
        rate = (self.records - self.reused) / seconds if seconds else 0.0
        done = fraction - self.begun
        return Reading(self.records, fraction, rate, seconds, seconds * (1 - fraction) / done if done > 0 else None)

    def _count(self, folder: str, name: str) -> None:
        """Adds what its piece is, unless that is another job's."""
        if name.startswith("shard-"):
            self.shards += name.endswith(f"-{self.job.digest}.json")
            return
        receipt = staging.read_receipt(storage.join(folder, name).removesuffix(".json")) or {}
        if receipt.get("source") in self.job.sources:
            self.records += sum(receipt["counts"].values())
            self.bytes += receipt["source_bytes"]
            self.uncompiled = self.uncompiled or receipt.get("uncompiled", "")


class Display(Protocol):
    interval: float
    """Seconds between two looks."""

    def show(self, reading: Reading) -> None: ...

    def close(self) -> None: ...


class Bar:
    """A progress bar, for a terminal."""

    interval = 0.5

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn(
                "{task.percentage:>3.0f} %  {task.fields[records]:,} records  {task.fields[rate]:,.0f} records/s  "
            ),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self.task: TaskID = self.progress.add_task("Converting", total=1.0, records=0, rate=0.0)
        self.progress.start()

    def show(self, reading: Reading) -> None:
        self.progress.update(self.task, completed=reading.fraction, records=reading.records, rate=reading.rate)

    def close(self) -> None:
        self.progress.stop()


class Lines:
    """A line now and then, for a log."""

    interval = 10.0

    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, reading: Reading) -> None:
        self.console.print(
            f"{reading.fraction:4.0%}  {reading.records:,} records  {reading.rate:,.0f} records/s  "
            f"{'' if reading.left is None else f'{reading.left:,.0f} s left'}".rstrip(),
            highlight=False,
        )

    def close(self) -> None:
        pass


@contextmanager
def shown(meter: Meter, console: Console) -> Iterator[None]:
    """Shows the meter's readings while the block runs."""
    display: Display = Bar(console) if console.is_terminal else Lines(console)
    stop = threading.Event()
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            console.print(line)

    def look() -> Reading:
        reading = meter.read()
        if meter.uncompiled:
            tell(
                f"the six steps aren't compiled ({meter.uncompiled}): the same bytes, at a fraction of the speed; "
                "install the pinned numba to mend that"
            )
        return reading

    def watch() -> None:
        looked, took = time.monotonic(), 0.0
        while not stop.wait(min(display.interval, _COMPILE_SECONDS / 2)):
            seconds, is_kept = compiling() or (0.0, True)
            if seconds > _COMPILE_SECONDS:
                how = "once on this machine" if is_kept else "every time, since Numba finds no folder to keep them in"
                tell(f"compiling the steps, {how}")
            began = time.monotonic()
            if began - looked >= max(display.interval, meter.interval, took / _MOST_SHARE):
                with contextlib.suppress(UserError):  # a store that doesn't answer now: the conversion hears of it too
                    display.show(look())
                looked = time.monotonic()
                took = looked - began

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if not meter.interval:  # where a look is no request, the last receipts are seen too
            look()
        display.close()


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
    print_whole(console, table)
    for reason, meaning in {**DROP_REASONS, **REJECT_REASONS}.items():
        if any(reason in of.dropped or reason in of.rejected for of in counts):
            console.print(f"{reason}: {meaning}")
    for line in loss_lines(card):
        console.print(line)
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
