"""How far a conversion is, seen from beside it: a runner blocks until the end, but receipts appear meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline import storage
from pipeline.shards import staging
from schemas.errors import UserError

_STORE_SECONDS = 10.0  # between two looks at a store, each of which is a request
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


class Meter:
    """Counts what the receipts in a staging folder say is done."""

    def __init__(self, folder: str, source_bytes: int, num_shards: int) -> None:
        self.folder = folder
        self.interval = _STORE_SECONDS if storage.is_remote(folder) else 0.0
        self.source_bytes = source_bytes
        self.num_shards = num_shards
        self.started = time.monotonic()
        self.records = self.reused = self.bytes = self.shards = 0
        self.seen: set[str] = set()
        self.reused = self.read().records

    def read(self) -> Reading:
        for file in storage.list_folder(self.folder):
            if file.path in self.seen or not file.path.endswith(".json"):
                continue
            self.seen.add(file.path)
            receipt = staging.read_receipt(file.path.removesuffix(".json")) or {}
            if "records" in receipt:
                self.records += receipt["records"]
                self.bytes += receipt["source_bytes"]
            else:
                self.shards += 1
        converted = min(1.0, self.bytes / max(1, self.source_bytes))
        written = min(1.0, self.shards / max(1, self.num_shards))
        fraction = _CONVERT_SHARE * converted + (1 - _CONVERT_SHARE) * written
        seconds = time.monotonic() - self.started
        rate = (self.records - self.reused) / seconds if seconds else 0.0
        return Reading(self.records, fraction, rate, seconds)


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
        left = reading.seconds * (1 - reading.fraction) / reading.fraction if reading.fraction else 0
        self.console.print(
            f"{reading.fraction:4.0%}  {reading.records:,} records  {reading.rate:,.0f} records/s  "
            f"{f'{left:,.0f} s left' if reading.fraction else ''}".rstrip(),
            highlight=False,
        )

    def close(self) -> None:
        pass


@contextmanager
def shown(meter: Meter, console: Console) -> Iterator[None]:
    """Shows the meter's readings while the block runs."""
    display: Display = Bar(console) if console.is_terminal else Lines(console)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(max(display.interval, meter.interval)):
            with contextlib.suppress(UserError):  # a store that doesn't answer now: the conversion hears of it too
                display.show(meter.read())

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        display.close()
