"""Random combinations of flags, environments and inputs: none may end in a traceback, hang, or destroy a file.

    python benchmarks/combinations.py --work DIR
    python benchmarks/combinations.py --work DIR --keep --show --seeds 17

Each seed draws a command, its flags (good, borderline and absurd values, by the commands' own parsers), the
environment, what goes in and where it shall write, and runs it as a process of its own in a copy of a folder full of
archives, data sets, runs and documents. Afterwards: is every file that was there before as it was, but for what the
command had made itself; is the exit status a documented one, with a reason in a line; did it end in time; is a
process or a temporary file left?

As root each of the parallel trials runs as a user of its own, who may write nothing elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from combining import box as boxes
from combining.draw import KINDS, MODEL, Trial, draw
from combining.run import Ended, run, spoken

from schemas import command

OWN = {
    "convert": r"sets/unfinished/",
    "train": r"runs/",
    "evaluate": r"runs/[^/]+/(evaluation.parquet|calibration.json)",
    "report": r"runs/[^/]+/report.html",
    "export": r"runs/[^/]+/saved_model/",
    "inspect": r"out/report.html",
}
"""Command -> what it may change of what was there before: what it made itself at an earlier time."""
STATUSES = {0, *(value for name, value in vars(command).items() if name.startswith("EXIT_"))}
MOST_LINES = {"pipeline": 3, "model": 6}
"""On stderr, of a command that refuses."""
SORTS = (
    *("traceback", "hangs", "destroyed", "rewritten", "status", "wordy", "silent", "left behind", "temporary", "tilde"),
    "memory",
)
_BROKEN = r"Traceback \(most recent|^Exception ignored|^Fatal Python error|terminate called|^\w*(?:Error|Exception): "
_LAST_WORDS = r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*"
_FIRST_USER = 61_000
_SHOWN_CHARACTERS = 4_000

State = dict[str, tuple[str, str, int]]
"""Path in the box -> (kind, digest or target, modification time)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:2000", metavar="A:B", help="or one seed (default: 0:2000)")
    parser.add_argument("--work", type=Path, help="the folder of the trials (default: one that is deleted afterwards)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a line of JSON for each trial; seeds that are there are left out")
    parser.add_argument("--keep", action="store_true", help="keep the folders of trials that failed")
    parser.add_argument("--show", action="store_true", help="print what each trial printed")
    parser.add_argument("--dry", action="store_true", help="only print what would be run")
    arguments = parser.parse_args()
    first, _, end = arguments.seeds.partition(":")
    seeds = range(int(first), int(end) if end else int(first) + 1)
    if arguments.dry:
        for seed in seeds:
            print(seed, spoken(draw(seed), Path("BOX")))
        return
    log = arguments.log
    done = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log and log.exists() else []
    known = {one["seed"] for one in done}
    with contextlib.ExitStack() as stack:
        work = (arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o755)
        trial = partial(one_trial, prepared(work), work, arguments.keep)
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(arguments.processes))
        for result in pool.imap_unordered(trial, [seed for seed in seeds if seed not in known]):
            done.append(result)
            if log:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            if result["failures"] or arguments.show:
                show(result, work, everything=arguments.show)
    summarise(done)
    sys.exit(any(one["failures"] for one in done))


def prepared(work: Path) -> Path:
    """The folder that every trial gets a copy of, made anew where the product has changed."""
    store = work / f"store-{boxes.version()}"
    if not store.exists():
        print("making what the trials need …", flush=True)
        packages = [boxes.ROOT / name for name in boxes.PACKAGES]
        subprocess.run([sys.executable, "-m", "compileall", "-q", *packages], check=True)
        making = work / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        boxes.fill(making, user_of(0))
        making.rename(store)
    return store


def user_of(slot: int) -> int | None:
    """Of one of the parallel trials, where we are root: one without root's rights."""
    return _FIRST_USER + slot if os.geteuid() == 0 else None


def one_trial(store: Path, work: Path, keep: bool, seed: int) -> dict[str, Any]:
    """Draws a combination, runs it in a box of its own, and looks at what became of it."""
    trial, box = draw(seed), work / f"{seed:06}"
    user = user_of(multiprocessing.current_process()._identity[0])
    shutil.rmtree(box, ignore_errors=True)
    subprocess.run(["cp", "-a", store, box], check=True)
    rng = random.Random(seed)
    for folder in trial.spoilt:
        boxes.spoil(box, folder, rng)
    if user is not None:
        boxes.own(box, user)
    (box / "out" / "locked").chmod(0o555)
    before = state_of(box)
    ended = run(trial, box, user)
    failures = [*ended.failures, *judged(trial, ended), *harm(trial, before, state_of(box))]
    if not (keep and failures):
        shutil.rmtree(box)
    return {
        "seed": seed,
        "kind": trial.kind,
        "command": spoken(trial, box),
        "status": ended.status,
        "seconds": round(ended.seconds, 2),
        "peak_mb": ended.peak_bytes >> 20,
        "stdout": ended.stdout[-_SHOWN_CHARACTERS:],
        "stderr": ended.stderr[-_SHOWN_CHARACTERS:],
        "failures": failures,
    }


def state_of(box: Path) -> State:
    found: State = {}
    root = os.fsencode(box)
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "special"
            content, when = "", 0
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    kind, content, when = "file", hashlib.file_digest(file, "sha1").hexdigest(), status.st_mtime_ns
            elif stat.S_ISLNK(status.st_mode):
                kind, content = "link", os.fsdecode(os.readlink(path))
            found[os.fsdecode(os.path.relpath(path, root))] = (kind, content, when)
    return found


def judged(trial: Trial, ended: Ended) -> list[str]:
    """What is wrong with the way it ended, and with what it said."""
    failures = []
    by_signal = {-number: 128 + number for _, number, _ in trial.signals}
    both = ended.stdout + ended.stderr
    is_too_early = ended.status in by_signal and f'File "{boxes.ROOT}' not in both  # Python itself was starting
    if re.search(_BROKEN, both, re.MULTILINE) and not is_too_early:
        failures.append(f"traceback: {(re.findall(_LAST_WORDS, both, re.MULTILINE) or ['?'])[-1][:150]}")
    if by_signal.get(ended.status, ended.status) not in STATUSES and not ended.failures:
        failures.append(f"status: {ended.status}")
    if trial.stderr == "read":
        lines = ended.stderr.strip().splitlines()
        most = MOST_LINES["model" if trial.command in MODEL else "pipeline"]
        # sample names each of its flags, predict each record of a .gnt that it can't read.
        if ended.status == 2 and trial.command not in ("sample", "predict") and len(lines) > most:
            failures.append(f"wordy: {len(lines)} lines on stderr")
        if ended.status > 1 and trial.stdout == "read" and not both.strip():
            failures.append("silent")
    return failures


def harm(trial: Trial, before: State, after: State) -> list[str]:
    """What is no longer as it was, and what shouldn't have been left."""
    failures = []
    own = OWN.get(trial.command, "(?!)")
    for name, (kind, content, when) in before.items():
        # Of what it keeps for the next process a library may make a newer version.
        if name.startswith(("tmp/", "home/.cache/")) or (re.match(own, name) and boxes.NOTES not in name):
            continue
        if name not in after:
            failures.append(f"destroyed: {name} is gone")
        elif after[name][:2] != (kind, content):
            failures.append(f"destroyed: {name}, {kind}, is now {after[name][0]}")
        elif after[name][2] != when and not name.startswith("home/."):
            failures.append(f"rewritten: {name}")
    new = after.keys() - before.keys()
    left = [name for name in new if name.startswith("tmp/") and not name.startswith("tmp/long")]
    left += [name for name in new if re.search(r"\.tmp-[0-9a-f]{8}", name)]
    failures += [f"temporary: {name}" for name in left[:2]]
    failures += [f"tilde: {name}" for name in new if re.search(r"(^|/)~", name)][:1]
    return failures


def show(result: Mapping[str, Any], work: Path, *, everything: bool) -> None:
    head = f"seed {result['seed']}, {result['kind']}: status {result['status']}, {result['seconds']} s"
    print(f"\n{head}, {result['peak_mb']:,} MB; {'; '.join(result['failures']) or 'no failure'}")
    print(f"  {result['command']}")
    print(f"  python benchmarks/combinations.py --work {work} --keep --show --seeds {result['seed']}")
    for name in ("stdout", "stderr"):
        lines = result[name].strip().splitlines()
        for line in lines if everything else lines[-3:]:
            print(f"  {name}: {line[:300]}")
    sys.stdout.flush()


def summarise(results: Sequence[Mapping[str, Any]]) -> None:
    """The table by kind."""
    print(f"\n{'':22}{'trials':>6}{'0':>6}{'1':>6}{'2':>6}{'other':>7}" + "".join(f"{sort:>12}" for sort in SORTS))
    for kind in (*KINDS, "all"):
        of_kind = [one for one in results if kind in (one["kind"], "all")]
        by_status = Counter(one["status"] for one in of_kind)
        other = len(of_kind) - sum(by_status[status] for status in (0, 1, 2))
        row = [f"{kind:22}{len(of_kind):>6,}", *(f"{by_status[status]:>6,}" for status in (0, 1, 2)), f"{other:>7,}"]
        print("".join(row + [f"{_count(of_kind, sort):>12,}" for sort in SORTS]))
    if results:
        slowest = max(results, key=lambda one: one["seconds"])
        largest = max(results, key=lambda one: one["peak_mb"])
        print(f"the slowest: {slowest['seconds']} s, seed {slowest['seed']}", end="; ")
        print(f"the largest: {largest['peak_mb']:,} MB, seed {largest['seed']}")


def _count(results: Iterable[Mapping[str, Any]], sort: str) -> int:
    return sum(any(failure.startswith(sort) for failure in one["failures"]) for one in results)


if __name__ == "__main__":
    main()
