"""Conversion: records/s and peak memory by input size, beside a plain multiprocessing script.

    python benchmarks/convert.py                                   45 k, 180 k and 720 k records
    python benchmarks/convert.py --records 180000 --json out.json

Both sides run as whole processes, in turn, several times; the ratio is that of their medians. The input is what
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

from process_tree import Measured, measure

SIZES = (45_000, 180_000, 720_000)
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


def _compare(size: int, repeats: int, work: Path) -> dict[str, object]:
    members = max(1, round(size / _MEMBER_RECORDS))
    source = _make_input(members, work)
    shards = max(2, members // 4)
    ours = [sys.executable, "-m", "pipeline.convert", "--runner=DirectRunner", f"--input={source}"]
    plain = [sys.executable, str(Path(__file__).with_name("plain_convert.py")), f"--input={source}"]
    runs: dict[str, list[Measured]] = {"ours": [], "plain": []}
    for _ in range(repeats):
        runs["ours"].append(_run([*ours, f"--num_shards=train={shards}"], work / "out"))
        runs["plain"].append(_run([*plain, f"--num_shards={shards}"], work / "out"))
    records = members * _MEMBER_RECORDS
    row: dict[str, object] = {"records": records}
    for side, measured in runs.items():
        seconds = statistics.median(one.seconds for one in measured)
        row[side] = {
            "records_per_second": round(records / seconds),
            "seconds": [round(one.seconds, 2) for one in measured],
            "largest_process_mb": round(statistics.median(one.largest_bytes for one in measured) / 1e6),
            "all_processes_mb": round(statistics.median(one.tree_bytes for one in measured) / 1e6),
        }
        row[f"{side}_rate"] = records / seconds
    row["ratio"] = round(row["ours_rate"] / row["plain_rate"], 3)  # type: ignore[operator]
    return row


def _run(command: list[str], output: Path) -> Measured:
    shutil.rmtree(output, ignore_errors=True)
    return measure([*command, f"--output={output}"])


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


def _print_table(rows: list[dict[str, object]]) -> None:
    print(f"{'records':>10} {'ours':>10} {'plain':>10} {'ratio':>7} {'largest process':>16} {'all processes':>14}")
    print(f"{'':>10} {'records/s':>10} {'records/s':>10} {'':>7} {'MB':>16} {'MB':>14}")
    for row in rows:
        ours, plain = row["ours"], row["plain"]
        assert isinstance(ours, dict)
        assert isinstance(plain, dict)
        print(
            f"{row['records']:>10,} {ours['records_per_second']:>10,} {plain['records_per_second']:>10,} "
            f"{row['ratio']:>7} {ours['largest_process_mb']:>16,} {ours['all_processes_mb']:>14,}"
        )


if __name__ == "__main__":
    main()
