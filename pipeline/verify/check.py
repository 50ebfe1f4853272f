"""A whole data set: the card, the files, every shard in a process of its own, what all add up to; or its export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

from pipeline import storage
from pipeline.reader.dataset import preprocess_config, read_card, read_file, read_rows
from pipeline.verify import card as card_checks
from pipeline.verify.findings import Finding, Findings
from pipeline.verify.ledger import Tally, gaps
from pipeline.verify.rows import ShardJob
from pipeline.verify.shard import ShardReport, check_shard
from schemas.classes import ClassList
from schemas.command.outputs import read_sums
from schemas.dataset import CARD, Card, DamagedCard
from schemas.errors import UserError, explained, printable
from schemas.machine import is_litter

SUMS = "SHA256SUMS"
"""Of an export: what sha256sum writes, of every other file; it is written last."""
_AGAIN = "copy it again, or export again: the same data set gives the same bytes"

SMALL_BYTES = 32 << 20  # 32 MiB: less is checked before a second process has started

Advance = Callable[[int, int], None]
"""Told how much (bytes, or records) has been checked since the last call, and how much there is in all."""
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass
class Report:
    """What is wrong with a data set, and how much of it was looked at."""

    folder: str
    findings: list[Finding] = field(default_factory=list)
    card: Card | None = None
    """None if it is too damaged to go on."""
    classes: ClassList | None = None
    """None if both files that hold it are damaged."""
    records: int = 0
    shards: int = 0
    bytes: int = 0
    has_rows: bool = False
    """Whether every manifest part could be read."""
    recomputed: int = 0
    """Records that were made again from the archives."""


def check_dataset(folder: str, processes: int, advance: Advance = lambda _, __: None) -> Report:
    """Checks everything that needs no archive. Raises UserError where there is no data set to check."""
    report = Report(folder)
    try:
        card, content = read_card(folder)
    except DamagedCard as error:
        what = str(error).removeprefix(f"{storage.join(folder, CARD)}: ")
        report.findings.append(Finding(CARD, f"{what}; the other files can't be checked without it"))
        return report
    report.card, report.classes = card, card_checks.read_classes(card, folder)
    report.findings += card_checks.check_card(card, content)
    report.findings += card_checks.check_files(card, report.classes, folder)
    jobs = list(_shard_jobs(card, report.classes, folder))
    report.bytes = sum(job.bytes for job in jobs)
    results: dict[str, list[ShardReport]] = {split: [] for split in card.splits}
    with pool(processes if report.bytes > SMALL_BYTES else 1) as executor:
        for job, result in run(executor, check_shard, jobs):
            results[job.split].append(result)
            report.findings += result.findings
            report.shards += 1
            report.records += job.file.manifest_rows
            advance(job.bytes, report.bytes)
    # What is missing in the others was said already.
    complete = {name: of_split for name, of_split in results.items() if all(result.has_rows for result in of_split)}
    report.has_rows = complete.keys() == card.splits.keys()
    report.findings += card_checks.check_totals(card, complete)
    report.findings += _check_ledger(card, complete, folder)
    return report


def check_export(folder: str) -> tuple[list[Finding], int, int] | None:
    """What is wrong with the files of an export, how many there are, and their bytes; None where there is no export."""
    content = read_file(folder, SUMS)
    if content is None:
        return None
    try:
        digests = read_sums(content.decode())
    except ValueError:
        return [Finding(SUMS, f"expected a SHA-256 and a name on each line, found something else; {_AGAIN}")], 0, 0
    with explained(f"read {folder}"):
        there = {file.path.removeprefix(folder).lstrip("/"): file.size_bytes for file in storage.find(folder)}
    findings = []
    for name, digest in digests.items():
        if name not in there:
            findings.append(Finding(name, f"expected the file that {SUMS} lists, found none; {_AGAIN}"))
            continue
        try:
            found = _sha256(storage.join(folder, name))
        except UserError as error:
            findings.append(Finding(name, str(error)))
            continue
        if found != digest:
            findings.append(Finding(name, f"expected SHA-256 {digest}, found {found}; {_AGAIN}"))
    foreign = [name for name in there if name not in digests and name != SUMS and not is_litter(name)]
    only = f"expected only what {SUMS} lists, found this file; move it away"
    findings += [Finding(printable(name), only) for name in foreign]
    return findings, len(digests), sum(there.get(name, 0) for name in digests)


def pool(processes: int) -> Any:
    """An executor of that many processes; None, in a context, for one: then this process does the work."""
    if processes == 1:
        return nullcontext()
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


def _shard_jobs(card: Card, classes: ClassList | None, folder: str) -> Iterator[ShardJob]:
    try:
        steps = preprocess_config(card)
    except UserError:
        steps = None
    fraction = card.config.get("sample_fraction")
    fraction = fraction if isinstance(fraction, int | float) and 0 < fraction <= 1 else None
    for name, split in card.splits.items():
        members = {entry.member: entry for entry in card.inputs if entry.split == name}
        for index, file in enumerate(split.shards):
            of_card = (file, members, classes, card.image_size, card.image_encoding, steps, fraction)
            yield ShardJob(folder, name, index, len(split.shards), *of_card)


def _check_ledger(card: Card, results: dict[str, list[ShardReport]], folder: str) -> list[Finding]:
    """Every byte of every member in exactly one row; where it isn't so, the parts are read again to say where."""
    findings: list[Finding] = []
    for split, reports in results.items():
        for entry in (entry for entry in card.inputs if entry.split == split):
            tally = sum((report.tallies[entry.member] for report in reports if entry.member in report.tallies), Tally())
            if not tally.tiles(entry.bytes):
                where = Findings(f"{entry.member} of {entry.archive}")
                paths = (storage.join(folder, shard.manifest_path) for shard in card.splits[split].shards)
                for gap in gaps(map(read_rows, paths), entry.member, entry.bytes):
                    where.add(f"{gap}; convert again")
                findings += where.all()
    return findings


def _sha256(path: str) -> str:
    with explained(f"read {path}"), storage.open_read(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
