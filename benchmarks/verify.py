"""verify: does it find every one of 1,000 single-byte changes, and how fast is it?

    python benchmarks/verify.py DIR
    python benchmarks/verify.py DIR --changes 1000 --repeats 3 --json out.json

DIR is a data set, best a small one for the changes: each is one byte of one file of a copy, chosen at random, half of
them among all bytes, half among all files. The rate is that of the whole command, imports and all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from pipeline.verify.check import check_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a data set")
    parser.add_argument("--changes", type=int, default=1_000, help="single-byte changes (default: 1,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs on the intact set (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    seconds = statistics.median(_seconds(folder) for _ in range(arguments.repeats)) if arguments.repeats else None
    found = named = 0
    if arguments.changes:
        cores = os.cpu_count() or 1
        shares = [range(core, arguments.changes, cores) for core in range(cores)]
        with ProcessPoolExecutor(cores) as pool:
            for counted in pool.map(partial(_change, folder, arguments.seed), shares):
                found, named = found + counted[0], named + counted[1]
    figures = {
        "bytes": size,
        "seconds, median": seconds and round(seconds, 2),
        "MB/s": seconds and round(size / seconds / 1e6, 1),
        "changes": arguments.changes,
        "found": found,
        "found in the right file": named,
        "cores": os.cpu_count(),
    }
    for name, value in figures.items():
        print(f"{name:28} {value if value is not None else '–':>16}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(named != arguments.changes)


def _seconds(folder: Path) -> float:
    """Of one run of the command on the intact set. Raises if it finds anything."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipeline.verify", folder], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _change(folder: Path, seed: int, numbers: range) -> tuple[int, int]:
    """(changes found, changes found in the file they are in) of these changes."""
    found = named = 0
    with tempfile.TemporaryDirectory() as work:
        copy = Path(shutil.copytree(folder, Path(work) / "copy"))
        paths = sorted(path for path in copy.rglob("*") if path.is_file())
        sizes = [path.stat().st_size for path in paths]
        for number in numbers:
            rng = random.Random(f"{seed} {number}")
            (path,) = rng.choices(paths, sizes if number % 2 else None)
            at = rng.randrange(path.stat().st_size)
            before = path.read_bytes()[at]
            after = before ^ rng.randrange(1, 256)
            _put(path, at, after)
            files = {finding.path for finding in check_dataset(str(copy), 1).findings}
            _put(path, at, before)
            found += bool(files)
            named += str(path.relative_to(copy)) in files
            if str(path.relative_to(copy)) not in files:
                print(f"not found: {path.relative_to(copy)}, byte {at:,}: {before} -> {after}")
        if check_dataset(str(copy), 1).findings:
            raise RuntimeError("the copy isn't as it was")
    return found, named


def _put(path: Path, at: int, value: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes([value]))


if __name__ == "__main__":
    main()
