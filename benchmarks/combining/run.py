"""Runs one combination as a process of its own, and says how it ended, what it printed and what it left running."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from combining import box as boxes
from combining.draw import Trial, placed

BOUND_SECONDS, COMPUTING_SECONDS = 60, 150
"""Until a command that waits is given up; of the processor, until one that computes is."""
_SIGNAL_SECONDS, _SIGNAL_COMPUTING_SECONDS = 30, 120
"""From a signal on, for one that waits and for any: other work on the machine makes them slow."""
_BUSY_SHARE = 0.1
"""Of the moments one looks at a command that computes, however slowly, it wants a processor in more than these."""
_GRACE_SECONDS = 15
_MOST_BYTES = 4 << 30  # 4 GiB, of a command and its processes
_MARK = "HWDB_COMBINATION"


@dataclass
class Ended:
    """How a trial ended."""

    status: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    """Resident, of all its processes."""
    stdout: str = ""
    stderr: str = ""
    failures: list[str] = field(default_factory=list)
    """What was seen to go wrong while it ran."""


def run(trial: Trial, box: Path, user: int | None) -> Ended:
    """Runs the command to its end, or to its bound."""
    folder = box / (trial.folder if trial.folder != "gone" else "out/gone")
    folder.mkdir(exist_ok=True)
    ended = Ended()
    with contextlib.ExitStack() as stack:
        texts = {name: stack.enter_context(tempfile.TemporaryFile()) for name in ("stdout", "stderr")}
        with contextlib.ExitStack() as open_streams:
            streams: dict[str, Any] = {"stdin": open_streams.enter_context(_stdin(trial.stdin))}
            for name, text in texts.items():
                streams[name] = open_streams.enter_context(_stream(getattr(trial, name), text))
            began = time.monotonic()
            process = psutil.Popen(
                boxes.started(user, *words(trial, box)),
                cwd=folder,
                env=_environment(trial, box),
                start_new_session=True,
                umask=trial.umask,
                preexec_fn=_before_exec(trial, folder),
                **streams,
            )
            with contextlib.suppress(OSError):  # when memory runs out the kernel shall take this one
                Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
            _wait(trial, process, began, ended)
            ended.seconds = time.monotonic() - began
            ended.status = process.returncode
            left = _strays(trial.seed)
            if left:
                names = ", ".join(sorted(left.values()))
                ended.failures.append(f"left behind: {len(left)} processes: {names[:100]}")
            for one in left:
                with contextlib.suppress(psutil.Error):
                    one.kill()
        ended.stdout, ended.stderr = (_read(texts[name]) for name in ("stdout", "stderr"))
    return ended


def _before_exec(trial: Trial, folder: Path) -> Callable[[], None]:
    closed = [number for number, name in enumerate(("stdin", "stdout", "stderr")) if getattr(trial, name) == "closed"]

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, most in trial.limits.items():
            resource.setrlimit(getattr(resource, name), (most, most))
        if trial.folder == "gone":
            os.rmdir(folder)
        for number in closed:
            os.close(number)

    return prepare


def _wait(trial: Trial, process: psutil.Popen, began: float, ended: Ended) -> None:
    """Until the command has ended, or is killed for one of the reasons for which it may be."""
    pending, busy, signalled = list(trial.signals), 1.0, 0.0
    while process.poll() is None:
        time.sleep(0.05 if time.monotonic() - began < 5 else 0.3)
        now = time.monotonic()
        while pending and now - began >= pending[0][0]:
            _, number, to_group = pending.pop(0)
            signalled = signalled or now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number) if to_group else os.kill(process.pid, number)
        bytes_now, seconds_now, wants_processor = _measured(process)
        ended.peak_bytes = max(ended.peak_bytes, bytes_now)
        busy += 0.04 * (wants_processor - busy)  # over half a minute, once it has been looked at less often
        unheard = now - signalled if signalled else 0.0
        if bytes_now > _MOST_BYTES:
            reason = f"memory: {bytes_now >> 20:,} MB"
        elif unheard > (_SIGNAL_SECONDS if busy < _BUSY_SHARE else _SIGNAL_COMPUTING_SECONDS):
            reason = f"hangs: {trial.signals[0][1].name} was not answered in {unheard:.0f} s"
        elif seconds_now > COMPUTING_SECONDS or (now - began > BOUND_SECONDS and busy < _BUSY_SHARE):
            reason = f"hangs: given up after {now - began:.0f} s, {seconds_now:.0f} s of the processor"
        else:
            continue
        ended.failures.append(reason)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait()


def _measured(process: psutil.Popen) -> tuple[int, float, bool]:
    """Memory and seconds of the processor of a process and its children, and whether a thread of theirs wants one."""
    memory, seconds, wants = 0, 0.0, False
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                memory += one.memory_info().rss
                seconds += sum(one.cpu_times()[:2])
                for thread in Path(f"/proc/{one.pid}/task").iterdir():
                    wants |= (thread / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] in "RD"
    return memory, seconds, wants


def _strays(seed: int) -> dict[psutil.Process, str]:
    """Processes of the trial that are there still when patience is at its end."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while True:
        found = {}
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get(_MARK) == str(seed) and one.status() != psutil.STATUS_ZOMBIE:
                    found[one] = one.name()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def words(trial: Trial, box: Path) -> list[bytes]:
    return [placed(word, str(box)) if trial.is_absolute else os.fsencode(word) for word in trial.arguments]


def spoken(trial: Trial, box: Path) -> str:
    """The command as one would type it in the box, and what can't be typed as a comment."""
    parts = [f"cd {shlex.quote(trial.folder)};"] if trial.folder != "." else []
    for name, value in trial.environment.items():
        parts.append(f"{name}= " if value is None else f"{name}={shlex.quote(value)}")
    for word in ("python", *words(trial, box)):
        text = shlex.quote(os.fsdecode(word)).encode("utf-8", "backslashreplace").decode()
        parts.append(text if len(text) < 300 else f"{text[:100]}…")
    streams = {"stdin": trial.stdin, "stdout": trial.stdout, "stderr": trial.stderr}
    notes = [f"{name} {kind}" for name, kind in streams.items() if kind not in ("read", "null")]
    notes += [f"{number.name} after {at:.1f} s{' to the group' * group}" for at, number, group in trial.signals]
    notes += [f"{name} {most}" for name, most in trial.limits.items()]
    notes += [f"umask {trial.umask:03o}"] * (trial.umask != 0o022)
    return " ".join(parts) + (f"  # {', '.join(notes)}" if notes else "")


def _environment(trial: Trial, box: Path) -> dict[str, bytes]:
    changed = {name: value if value is None else placed(value, str(box)) for name, value in trial.environment.items()}
    folder = changed.get("TMPDIR") or b""
    if b"/tmp/long" in folder:
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o777)
    plain = {name: os.fsencode(value) for name, value in boxes.environment(box).items()}
    together = {**plain, **changed, _MARK: str(trial.seed).encode()}
    return {name: value for name, value in together.items() if value is not None}


@contextlib.contextmanager
def _stdin(kind: str) -> Iterator[int]:
    if kind != "silent":
        yield subprocess.DEVNULL
        return
    ours, theirs = os.pipe()
    yield ours
    os.close(ours)
    os.close(theirs)


@contextlib.contextmanager
def _stream(kind: str, text: IO[bytes]) -> Iterator[Any]:
    """What a command writes to; `text` gets what a reader reads of it."""
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
        reader.join(_GRACE_SECONDS)
        os.close(ours)
    else:
        program = {"read": ["cat"], "head": ["head", "-n", "1"], "gone": ["true"]}[kind]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=text) as process:
            yield process.stdin


def _drain(descriptor: int, text: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 1 << 16):
            text.write(data)


def _read(text: IO[bytes]) -> str:
    text.seek(0)
    return text.read(1 << 20).decode("utf-8", "backslashreplace")
