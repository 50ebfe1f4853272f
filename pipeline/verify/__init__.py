"""python -m pipeline.verify: is a data set what its conversion wrote, down to the last byte?"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline import storage
from schemas.command import EXIT_DIFFERENT, Parser, at_least, path_or_url, prints_its_product, run_command
from schemas.dataset import CARD
from schemas.errors import UserError
from schemas.machine import available_cores

if TYPE_CHECKING:
    from pipeline.verify.check import Advance
    from pipeline.verify.findings import Finding

_UNCHECKED = (
    "the archives weren't looked at: whether a bitmap_digest, and an ink_fraction, a crop, a width and a height that "
    "fit together, are a bitmap's own, --against [SPLIT=]PATH tells"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0 if the data set is intact, 1 with findings, 2 if there is none."""
    return run_command("pipeline.verify", lambda: verify(_parse(sys.argv[1:] if argv is None else argv)))


def verify(arguments: argparse.Namespace) -> int:
    """Checks the data set and prints what was found. Raises UserError where there is nothing to check."""
    # Arrow and OpenCV take a second to import: --help and a misspelt flag needn't wait for them.
    from pipeline.source.archives import parse_input
    from pipeline.verify.check import check_dataset, check_export
    from pipeline.verify.sources import Selection, check_sources

    prints_its_product()
    started = time.monotonic()
    folder: str = arguments.folder.rstrip("/") or "/"
    exported = None if storage.exists(storage.join(folder, CARD)) else check_export(folder)
    if exported is not None and arguments.against:
        raise UserError(f"{folder}: expected a data set for --against, found its export; name the data set it is of")
    if exported is not None:
        return _said_of_export(folder, *exported, time.monotonic() - started)
    inputs = [parse_input(argument, "--against") for argument in arguments.against]
    selection = Selection(None if arguments.all else arguments.sample, arguments.seed)
    with progress() as advance:
        report = check_dataset(folder, arguments.processes, advance("Checking"))
        can_recompute = bool(report.card and report.classes and report.has_rows)
        if inputs and can_recompute:
            check_sources(report, inputs, selection, arguments.processes, advance("Recomputing"))
    for finding in report.findings:
        print(finding)
    if inputs and not can_recompute:
        print(f"{folder}: the archives were not looked at; mend the class list and the manifest first")
    seconds = time.monotonic() - started
    size = f"{report.records:,} records in {report.shards:,} shards, {report.bytes:,} bytes"
    made = f", {report.recomputed:,} records made again from the archives" if inputs else ""
    state = f"{len(report.findings):,} findings" if report.findings else "intact"
    print(f"{folder}: {state}; {size}{made}, {seconds:,.1f} s, {report.bytes / seconds / 1e6:,.0f} MB/s")
    if report.card and not inputs:
        print(f"  {_UNCHECKED}")
    return EXIT_DIFFERENT if report.findings else 0


def _said_of_export(folder: str, findings: Sequence[Finding], files: int, size: int, seconds: float) -> int:
    for finding in findings:
        print(finding)
    state = f"{len(findings):,} findings" if findings else "intact"
    print(f"{folder}: {state}; an export of {files:,} files, {size:,} bytes, {seconds:,.1f} s")
    return EXIT_DIFFERENT if findings else 0


@contextmanager
def progress() -> Iterator[Callable[[str], Advance]]:
    """What each stage tells its advance, as a bar on a terminal; nothing in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:11}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    left = (TimeRemainingColumn(elapsed_when_finished=True), TextColumn("left"))
    with Progress(*columns, *left, console=console, transient=True, disable=not console.is_terminal) as bar:

        def stage(name: str) -> Advance:
            task = bar.add_task(name, total=None)
            return lambda n, total: bar.update(task, advance=n, total=total)

        yield stage


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        "pipeline.verify",
        "Checks a data set against its card, its manifest and, if asked to, the archives it came from. "
        "Ends with status 0 if it is intact, 1 with a list of what isn't, 2 if there is no finished data set.",
        epilog="--s3_endpoint_url=URL and its kin lead to a store that isn't Amazon's: docs/object-storage.md.",
    )
    add = parser.add_argument
    add(
        "folder",
        type=path_or_url,
        metavar="DIR",
        help="the folder of a data set or of its export as Parquet, or its URL",
    )
    add(
        "--against",
        type=path_or_url,
        nargs="+",
        action="extend",
        default=[],
        metavar="[SPLIT=]PATH",
        help="go back to these archives too (as in convert's --input) and make records again",
    )
    add("--all", action="store_true", help="with --against: every record, not a sample")
    add("--sample", type=int, default=200, metavar="N", help="with --against: N records of each member (default: 200)")
    add("--seed", type=int, default=0, help="with --against: another seed draws another sample (default: 0)")
    add("--processes", type=int, default=available_cores(), metavar="N", help="default: one a core, here %(default)s")
    arguments = parser.parse_args(storage.take_flags(argv))
    at_least(1, "--sample", arguments.sample)
    at_least(1, "--processes", arguments.processes)
    if not -(2**63) <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: expected a number of 64 bits")
    if arguments.all and not arguments.against:
        raise UserError("--all: expected --against PATH with it; the archives are what the records are made from")
    return arguments
