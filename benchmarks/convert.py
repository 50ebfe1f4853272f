"""Conversion: records/s, peak memory and bytes written by input size, beside a plain script and the steps' floor.

    python benchmarks/convert.py                                   45 k, 180 k, 720 k and 1.17 M records
    python benchmarks/convert.py --records 180000 --json out.json

The sides run as whole processes, in turn, several times; the ratios are those of their medians. The input is what
pipeline.sample draws for 12 writers, under as many names as it takes: the pixels repeat, the work doesn't.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from process_tree import Measured, measure

SIZES = (45_000, 180_000, 720_000, 1_170_000)  # the last is HWDB1.1's
_MEMBER_RECORDS = 3_777  # pipeline.sample's, with all 3,755 characters and 22 symbols


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, action="append", help="input size; may be repeated")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    parser.add_argument("--work", type=Path, help="folder for input and output (default: a temporary one)")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="convert-benchmark-"))
    rows = [_compare(size, arguments.repeats, work) for size in arguments.records or SIZES]
    _print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": os.cpu_count(), "sizes": rows}, indent=1) + "\n")
    if not arguments.work:
        shutil.rmtree(work)


def _compare(size: int, repeats: int, work: Path) -> dict[str, Any]:
    members = max(1, round(size / _MEMBER_RECORDS))
    source = _make_input(members, work)
    shards = max(2, members // 4)
    here, python = Path(__file__).parent, sys.executable
    output, count = f"--output={work / 'out'}", f"--num_shards={shards}"
    ours = [python, "-m", "pipeline.convert", "--runner=DirectRunner", output, f"--num_shards=train={shards}"]
    commands = {
        "ours": [*ours, f"--input={source}"],
        "plain": [python, str(here / "plain_convert.py"), f"--input={source}", output, count],
        "floor": [python, str(here / "floor_convert.py"), f"--input={source}"],
    }
    runs: dict[str, list[Measured]] = {side: [] for side in commands}
    written: dict[str, int] = {}
    for _ in range(repeats):
        for side, command in commands.items():
            shutil.rmtree(work / "out", ignore_errors=True)
            runs[side].append(measure(command))
            written[side] = sum(path.stat().st_size for path in (work / "out").rglob("*") if path.is_file())
    records = members * _MEMBER_RECORDS
    row: dict[str, Any] = {"records": records}
    for side, measured in runs.items():
        seconds = statistics.median(one.seconds for one in measured)
        row[side] = {
            "records_per_second": round(records / seconds),
            "seconds": [round(one.seconds, 2) for one in measured],
            "largest_process_mb": round(statistics.median(one.largest_bytes for one in measured) / 1e6),
            "all_processes_mb": round(statistics.median(one.tree_bytes for one in measured) / 1e6),
            "written_mb": round(written[side] / 1e6),
        }
    for side in ("plain", "floor"):
        row[f"of_{side}"] = round(row["ours"]["records_per_second"] / row[side]["records_per_second"], 3)
    return row


def _make_input(members: int, work: Path) -> Path:
    """A folder of `members` links to the sample's files, each under a name of its own."""
    sample = work / "sample"
    if not sample.exists():
        measure([sys.executable, "-m", "pipeline.sample", f"--output={sample}", "--writers=12", "--characters=3755"])
    files = sorted(sample.rglob("*.gnt"))
    folder = work / f"input-{members}"
    folder.mkdir(exist_ok=True)
    for number in range(members):
        link = folder / f"{number + 10_001}-c.gnt"
        if not link.exists():
            os.link(files[number % len(files)], link)
    return folder


def _print_table(rows: list[dict[str, Any]]) -> None:
    sides = ("ours", "plain", "floor")
    print(f"{'records':>10}" + "".join(f"{side:>10}" for side in sides) + f"{'largest':>10}{'all':>8}{'written':>9}")
    print(f"{'':>10}" + f"{'records/s':>10}" * 3 + f"{'MB':>10}{'MB':>8}{'MB':>9}   of plain, of floor")
    for row in rows:
        ours = row["ours"]
        rates = "".join(f"{row[side]['records_per_second']:>10,}" for side in sides)
        memory = f"{ours['largest_process_mb']:>10,}{ours['all_processes_mb']:>8,}{ours['written_mb']:>9,}"
        print(f"{row['records']:>10,}{rates}{memory}   {row['of_plain']}, {row['of_floor']}")


if __name__ == "__main__":
    main()
