"""Runs a command and says how long it took and how much memory it and its processes held."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    seconds: float
    """From start to end of the whole process."""
    largest_bytes: int
    """Peak resident memory of the process that held most."""
    tree_bytes: int
    """Peak of the resident memory of all its processes together; shared pages count in each."""
    output: str


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Runs `command` to its end, in this process's environment unless another is given.

    Raises CalledProcessError with its output if that isn't a good one.
    """
    peaks = {"largest": 0, "tree": 0}
    began = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        done = threading.Event()

        def watch() -> None:
            root = psutil.Process(process.pid)
            while not done.wait(_POLL_SECONDS):
                sizes = []
                with contextlib.suppress(psutil.Error):
                    for one in (root, *root.children(recursive=True)):
                        with contextlib.suppress(psutil.Error):
                            sizes.append(one.memory_info().rss)
                peaks["largest"] = max(peaks["largest"], *sizes, 0)
                peaks["tree"] = max(peaks["tree"], sum(sizes))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Measured(seconds, peaks["largest"], peaks["tree"], output)
