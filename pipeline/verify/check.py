"""A whole data set: the card, the files, every shard in a process of its own, and what all of them add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.verify import card as card_checks
from pipeline.verify.findings import Finding, Findings
from pipeline.verify.ledger import Tally, gaps
from pipeline.verify.rows import Part
from pipeline.verify.shard import ShardJob, ShardReport, check_shard
from schemas.classes import ClassList
from schemas.dataset import CARD, SPLITS, Card, DamagedCard, MemberInput, parse_card
from schemas.errors import UserError, explained

SMALL_BYTES = 32 << 20  # 32 MiB: less is checked before a second process has started

Advance = Callable[[int], None]
"""Told how many bytes have been checked since the last call."""
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass
class Report:
    """What is wrong with a data set, and how much of it was looked at."""

    findings: list[Finding] = field(default_factory=list)
    card: Card | None = None
    records: int = 0
    shards: int = 0
    bytes: int = 0
    has_rows: bool = False
    """Whether every manifest part could be read."""
    recomputed: int = 0
    """Records that were made again from the archives."""


def open_dataset(folder: str) -> tuple[Card | None, bytes, list[Finding]]:
    """(the card, its bytes, what is wrong with it); no card if it is too damaged to go on.

    Raises UserError where there is no data set to check: no folder, no card, another format version.
    """
    path = storage.join(folder, CARD)
    with explained(f"read {path}"):
        content = storage.read_if_there(path)
        if content is None:
            if not storage.of(folder).is_remote and not storage.exists(folder):
                raise UserError(f"{folder}: expected the folder of a data set, found none; check the path")
            raise UserError(
                f"{folder}: expected {CARD}, found none; the conversion isn't finished, run its command again"
            )
    try:
        return parse_card(content, path), content, []
    except DamagedCard as error:
        what = str(error).removeprefix(f"{path}: ")
        return None, content, [Finding(CARD, f"{what}; the other files can't be checked without it")]


def check_dataset(folder: str, processes: int, advance: Advance = lambda _: None) -> Report:
    """Checks everything that needs no archive. Raises UserError where there is no data set to check."""
    card, content, findings = open_dataset(folder)
    if card is None:
        return Report(findings)
    report = Report([*findings, *card_checks.check_card(card, content)], card)
    classes = card_checks.read_classes(card, folder)
    report.findings += card_checks.check_files(card, classes, folder)
    jobs = _shard_jobs(card, classes, folder)
    report.bytes = sum(_size(job) for job in jobs)
    with pool(processes if report.bytes > SMALL_BYTES else 1) as executor:
        results: dict[str, list[ShardReport]] = {split: [] for split in card.splits}
        for job, result in run(executor, check_shard, jobs):
            results[job.part.split].append(result)
            report.findings += result.findings
            report.shards += 1
            report.records += job.file.manifest_rows
            advance(_size(job))
    # What is missing in the others was said already.
    complete = {
        name: of_split
        for name, of_split in results.items()
        if len(of_split) == len(card.splits[name].shards) and all(result.has_rows for result in of_split)
    }
    report.has_rows = complete.keys() == card.splits.keys()
    report.findings += card_checks.check_totals(card, complete)
    report.findings += _check_ledger(card, complete, folder)
    return report


def pool(processes: int) -> Any:
    """An executor of that many processes; None, in a context, for one: then this process does the work."""
    if processes == 1:
        return _no_pool()
    return ProcessPoolExecutor(processes, get_context("spawn"), storage.use_flags, (storage.used_flags(),))


def run(
    executor: Executor | None, work: Callable[[_Job], _Result], jobs: Sequence[_Job]
) -> Iterator[tuple[_Job, _Result]]:
    """(job, result) of every job: in the jobs' order without an executor, as they are done with one."""
    if executor is None:
        for job in jobs:
            yield job, work(job)
        return
    futures = {executor.submit(work, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process was killed from outside, perhaps because memory ran out; run again with fewer --processes"
        ) from error
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def _no_pool() -> Iterator[None]:
    yield None


def _shard_jobs(card: Card, classes: ClassList | None, folder: str) -> list[ShardJob]:
    jobs = []
    for name, split in card.splits.items():
        members: dict[str, MemberInput] = {entry.member: entry for entry in card.inputs if entry.split == name}
        for index, file in enumerate(split.shards):
            names = card_checks.names_of(name, index, len(split.shards))
            if name not in SPLITS or (file.path, file.manifest_path) != names:
                continue  # it could lead anywhere
            part = Part(name, index, len(split.shards), file.path, members, classes)
            jobs.append(ShardJob(folder, file, part, card.image_size, card.image_encoding))
    return jobs


def _size(job: ShardJob) -> int:
    return job.file.bytes + job.file.manifest_bytes


def _check_ledger(card: Card, results: dict[str, list[ShardReport]], folder: str) -> list[Finding]:
    """Every byte of every member in exactly one row; where it isn't so, the parts are read again to say where."""
    findings: list[Finding] = []
    for split, reports in results.items():
        for entry in (entry for entry in card.inputs if entry.split == split):
            tally = sum((report.tallies[entry.member] for report in reports if entry.member in report.tallies), Tally())
            if not tally.tiles(entry.bytes):
                where = Findings(f"{entry.member} of {entry.archive}")
                paths = (storage.join(folder, shard.manifest_path) for shard in card.splits[split].shards)
                for gap in gaps(map(_read_rows, paths), entry.member, entry.bytes):
                    where.add(f"{gap}; convert again")
                findings += where.all()
    return findings


def _read_rows(path: str) -> pa.Table:
    with explained(f"read {path}"):
        return pq.ParquetFile(pa.BufferReader(storage.read_bytes(path))).read()
