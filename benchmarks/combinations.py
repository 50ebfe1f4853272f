"""Random combinations of flags, environments and inputs: none may end in a traceback, hang, or destroy a file.

    python benchmarks/combinations.py --work DIR
    python benchmarks/combinations.py --work DIR --seeds 17

Each seed draws a command of every kind, its flags (good, borderline and absurd values, by the commands' own parsers), the
environment, what goes in and where it shall write, and runs it as a process of its own in a copy of a folder full of
archives, data sets, runs and documents. Afterwards: is every file that was there before as it was, but for what the command
had made itself; is the exit status a documented one, with a reason in a line; did it end in time; is a process or a
temporary file left? As root each of the parallel trials runs as a user of its own, who has no rights elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / "helpers"), str(Path(__file__).resolve().parent)]

import combinations_box as boxes
from combinations_draw import KINDS, OWN, Trial, draw, placed

BOUND_SECONDS, COMPUTING_SECONDS = 60, 180
"""Until a command that waits is given up, and one that computes: other work on the machine makes it slow."""
SIGNAL_SECONDS = 30
GRACE_SECONDS = 5
MOST_BYTES = 4 << 30  # 4 GiB, of a command and its processes
MOST_LINES = {"pipeline": 3, "model": 6}
STATUSES = {0, 1, 2, 130, 143}
_MARK = "HWDB_COMBINATION"
_FIRST_USER = 61_000

State = dict[bytes, tuple[str, str]]
"""Path in the box -> (kind, digest or target)."""


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
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o755)
        store = prepared(work.resolve())
        done = [json.loads(line) for line in arguments.log.read_text().splitlines()] if arguments.log and arguments.log.exists() else []
        left = [seed for seed in seeds if seed not in {one["seed"] for one in done}]
        with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
            for result in pool.imap_unordered(partial(one_trial, store, work.resolve(), arguments.keep), left):
                done.append(result)
                if arguments.log:
                    with arguments.log.open("a") as log:
                        log.write(json.dumps(result) + "\n")
                if result["failures"] or arguments.show:
                    shown(result, work, arguments.show)
    sys.exit(summary(done))


def prepared(work: Path) -> Path:
    """The folder that every trial gets a copy of, made anew where the product has changed."""
    store = work / f"store-{boxes.version()}"
    if not store.exists():
        print("making what the trials need …", flush=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", *(boxes.ROOT / name for name in ("pipeline", "model", "schemas"))], check=True)
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
    trial, slot = draw(seed), (multiprocessing.current_process()._identity or (1,))[0] - 1
    box = work / f"{seed:06}"
    shutil.rmtree(box, ignore_errors=True)
    subprocess.run(["cp", "-a", store, box], check=True)
    rng = boxes.random.Random(seed)
    for folder in trial.spoilt:
        boxes.spoil_member(box, rng) if folder == "in/mutated" else boxes.spoil(box, folder, rng)
    user = user_of(slot)
    if user is not None:
        boxes.own(box, user)
    (box / "out" / "locked").chmod(0o555)
    before = state(box)
    ended = run(trial, box, user)
    failures = [*ended.pop("failures"), *judged(trial, ended, before, state(box))]
    result = {"seed": seed, "kind": trial.kind, "command": spoken(trial, box), "failures": failures, **ended}
    if not (keep and failures):
        shutil.rmtree(box)
    return result


def run(trial: Trial, box: Path, user: int | None) -> dict[str, Any]:
    """Runs the command to its end, or to its bound."""
    folder = box / (trial.folder if trial.folder != "gone" else "out/gone")
    folder.mkdir(exist_ok=True)
    failures: list[str] = []
    texts = {name: tempfile.TemporaryFile() for name in ("stdout", "stderr")}
    with contextlib.ExitStack() as stack:
        streams = {name: stack.enter_context(stream(getattr(trial, name), text)) for name, text in texts.items()}
        closed = [number for number, name in enumerate(("stdin", "stdout", "stderr")) if getattr(trial, name) == "closed"]
        silent = os.pipe() if trial.stdin == "silent" else None

        def before_exec() -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for name, most in trial.limits.items():
                resource.setrlimit(getattr(resource, name), (most, most))
            if trial.folder == "gone":
                os.rmdir(folder)
            for number in closed:
                os.close(number)

        began = time.monotonic()
        process = psutil.Popen(
            boxes.started(user, *words(trial, box)), cwd=folder, env=environment(trial, box), start_new_session=True, umask=trial.umask,
            stdin=silent[0] if silent else subprocess.DEVNULL, **streams, preexec_fn=before_exec,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        peak = wait(trial, process, began, failures)
        seconds = time.monotonic() - began
        left = strays(trial.seed, GRACE_SECONDS)
        if left:
            failures.append(f"left behind: {len(left)} processes, the first {left[0].name()}")
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        for descriptor in silent or ():
            os.close(descriptor)
    printed = {name: _text(text) for name, text in texts.items()}
    return {"status": process.returncode, "seconds": round(seconds, 2), "peak_mb": peak >> 20, **printed, "failures": failures}


def wait(trial: Trial, process: psutil.Popen, began: float, failures: list[str]) -> int:
    """Until the command has ended; returns the peak of its memory."""
    pending, peak, used, idle_since, last_signal = list(trial.signals), 0, 0.0, began, None
    while process.poll() is None:
        time.sleep(0.05 if time.monotonic() - began < 5 else 0.3)
        now = time.monotonic()
        while pending and now - began >= pending[0][0]:
            _, number, group = pending.pop(0)
            last_signal = last_signal or now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number) if group else os.kill(process.pid, number)
        bytes_now, used_now = measured(process)
        peak = max(peak, bytes_now)
        if used_now - used > 0.2 * (now - idle_since) and now - idle_since > 5:
            used, idle_since = used_now, now
        waits = now - began > BOUND_SECONDS and now - idle_since > 20
        unheard = last_signal is not None and now - last_signal > SIGNAL_SECONDS
        if bytes_now > MOST_BYTES:
            failures.append(f"memory: {bytes_now >> 20:,} MB")
        elif unheard:
            failures.append(f"hangs: {trial.signals[0][1].name} was not answered in {SIGNAL_SECONDS} s")
        elif waits or now - began > COMPUTING_SECONDS:
            failures.append(f"hangs: {now - began:.0f} s, {used_now:.0f} s of them computing")
        else:
            continue
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait()
    return peak


def measured(process: psutil.Popen) -> tuple[int, float]:
    """Memory and seconds of the processor of a process and its children."""
    memory, seconds = 0, 0.0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory, times = memory + one.memory_info().rss, one.cpu_times()
                seconds += sum(times[:4])
    return memory, seconds


def strays(seed: int, patience: float) -> list[psutil.Process]:
    """Processes of the trial that are there still when the patience is at its end."""
    deadline = time.monotonic() + patience
    while True:
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get(_MARK) == str(seed) and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def words(trial: Trial, box: Path) -> list[bytes]:
    return [placed(word, str(box)) if trial.is_absolute else os.fsencode(word) for word in trial.arguments]


def environment(trial: Trial, box: Path) -> dict[str, bytes]:
    changed = {name: value if value is None else placed(value, str(box)) for name, value in trial.environment.items()}
    if b"/tmp/long" in (changed.get("TMPDIR") or b""):
        os.makedirs(changed["TMPDIR"], mode=0o777, exist_ok=True)
        os.chmod(changed["TMPDIR"], 0o777)
    plain = {name: os.fsencode(value) for name, value in boxes.environment(box).items()}
    return {name: value for name, value in {**plain, **changed, _MARK: str(trial.seed).encode()}.items() if value is not None}


def spoken(trial: Trial, box: Path) -> str:
    """The command as one would type it."""
    marks = {"stdout": {"closed": ">&-", "full": ">/dev/full", "head": "| head -1", "gone": "| true", "terminal": ""}}
    parts = [f"env -u {name}" if value is None else f"{name}={shlex.quote(value)}" for name, value in trial.environment.items()]
    parts += [f"cd {shlex.quote(trial.folder)};"] if trial.folder != "." else []
    parts += ["python", *(shlex.quote(os.fsdecode(word)).encode("utf-8", "backslashreplace").decode()[:300] for word in words(trial, box))]
    notes = [f"{name} {value}" for name, value in (("stdin", trial.stdin), ("stdout", trial.stdout), ("stderr", trial.stderr)) if value not in ("read", "null")]
    notes += [f"{number.name} after {moment:.1f} s{' to the group' * group}" for moment, number, group in trial.signals]
    notes += [f"{name} {most}" for name, most in trial.limits.items()] + [f"umask {trial.umask:03o}"] * (trial.umask != 0o022)
    del marks
    return " ".join(parts) + (f"  # {', '.join(notes)}" if notes else "")


@contextlib.contextmanager
def stream(kind: str, text: Any) -> Iterator[Any]:
    """What stands for a command's stdout or stderr."""
    if kind == "closed":
        yield None
    elif kind == "full":
        with open("/dev/full", "wb") as full:
            yield full
    elif kind == "terminal":
        ours, theirs = pty.openpty()
        reader = threading.Thread(target=_drain, args=(ours, text))
        reader.start()
        yield theirs
        os.close(theirs)
        reader.join(5)
        os.close(ours)
    else:
        program = {"read": ["cat"], "head": ["head", "-n", "1"], "gone": ["true"]}[kind]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=text) as reader:
            yield reader.stdin


def _drain(descriptor: int, text: Any) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 1 << 16):
            text.write(data)


def _text(file: Any) -> str:
    with file:
        file.seek(0)
        return str(file.read(1 << 20).decode("utf-8", "backslashreplace"))


def state(box: Path) -> State:
    """Everything in the box but the folder for temporary files, whose own content is asked for alone."""
    found: State = {}
    root = os.fsencode(box)
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    entry = ("file", f"{hashlib.file_digest(file, 'sha1').hexdigest()} {status.st_mtime_ns}")
            elif stat.S_ISLNK(status.st_mode):
                entry = ("link", os.fsdecode(os.readlink(path)))
            else:
                entry = ("folder" if stat.S_ISDIR(status.st_mode) else "special", "")
            found[os.path.relpath(path, root)] = entry
    return found


def judged(trial: Trial, ended: Mapping[str, Any], before: State, after: State) -> list[str]:
    failures = []
    killed = {-number: 128 + number for _, number, _ in trial.signals}
    printed = ended["stdout"] + ended["stderr"]
    status, package = ended["status"], "model" if "model" in str(trial.arguments[1]) else "pipeline"
    too_early = status in killed and f'File "{boxes.ROOT}' not in printed  # a signal while Python itself starts
    if not too_early and re.search(r"Traceback \(most recent|^Exception ignored|Fatal Python error|terminate called|^\w*(Error|Exception): ", printed, re.MULTILINE):
        failures.append("traceback: " + (re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*", printed, re.MULTILINE) or ["?"])[-1][:150])
    if killed.get(status, status) not in STATUSES and not (status == -9 and ended.get("gave_up")):
        failures.append(f"status: {status}")
    lines = ended["stderr"].strip().splitlines()
    if status == 2 and trial.kind != "sample" and trial.stderr == "read" and len(lines) > MOST_LINES[package]:
        failures.append(f"wordy: {len(lines)} lines on stderr")
    if status not in (0, 1) and status > 0 and not printed.strip() and trial.stdout == trial.stderr == "read":
        failures.append("silent")
    own = OWN.get(trial.kind.split()[0], "(?!)")
    for path, entry in before.items():
        name, now = os.fsdecode(path), after.get(path)
        is_own = re.match(own, name) and boxes.NOTES not in name
        if entry != now and not is_own and not name.startswith("tmp/") and not _same_bytes(entry, now):
            failures.append(f"destroyed: {name}" + ("" if now is None else f" is {now[0]}" if now[0] != entry[0] else ", changed"))
        elif entry != now and not is_own and now is not None and entry[0] == "file" and not name.startswith(("tmp/", "home/.")):
            failures.append(f"rewritten: {name}")
    new = [os.fsdecode(path) for path in after.keys() - before.keys()]
    failures += [f"temporary: {name}" for name in new if name.startswith("tmp/") and not name.startswith("tmp/long") or re.search(r"\.tmp-[0-9a-f]{8}", name)][:2]
    failures += [f"tilde: {name}" for name in new if re.search(r"(^|/)~", name)][:1]
    return failures


def _same_bytes(before: tuple[str, str], after: tuple[str, str] | None) -> bool:
    return after is not None and after[0] == before[0] and after[1].split()[:1] == before[1].split()[:1]


def shown(result: Mapping[str, Any], work: Path, everything: bool) -> None:
    print(f"\nseed {result['seed']}, {result['kind']}, status {result['status']}, {result['seconds']} s, {result['peak_mb']} MB: " + "; ".join(result["failures"]))
    print(f"  {result['command']}")
    print(f"  python benchmarks/combinations.py --work {work} --keep --show --seeds {result['seed']}", flush=True)
    for name in ("stdout", "stderr"):
        lines = result[name].strip().splitlines()
        for line in lines if everything else lines[-3:]:
            print(f"  {name}: {line[:300]}")


def summary(results: list[dict[str, Any]]) -> int:
    """The table by kind; returns how many trials failed."""
    sorts = ("traceback", "hangs", "destroyed", "rewritten", "status", "wordy", "silent", "left behind", "temporary", "tilde", "memory")
    print("\n" + f"{'':20}{'trials':>8}{'ended 0':>9}{'1':>6}{'2':>6}{'other':>7}" + "".join(f"{sort:>12}" for sort in sorts))
    for kind in (*KINDS, "all"):
        of_kind = [one for one in results if kind in (one["kind"], "all")]
        statuses = Counter(one["status"] if one["status"] in (0, 1, 2) else "other" for one in of_kind)
        failed = [sum(any(failure.startswith(sort) for failure in one["failures"]) for one in of_kind) for sort in sorts]
        print(f"{kind:20}{len(of_kind):>8,}{statuses[0]:>9,}{statuses[1]:>6,}{statuses[2]:>6,}{statuses['other']:>7,}" + "".join(f"{count:>12,}" for count in failed))
    slowest = max(results, key=lambda one: one["seconds"])
    print(f"the slowest: {slowest['seconds']} s, seed {slowest['seed']}; the largest: {max(one['peak_mb'] for one in results):,} MB")
    return sum(bool(one["failures"]) for one in results)


if __name__ == "__main__":
    main()
