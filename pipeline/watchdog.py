"""Ends the command when a worker process of DirectRunner is killed: Beam's driver would wait for it forever."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import psutil

EXIT_WORKER_LOST = 1
_BEAM_THREAD = "run_worker"  # waits for the worker's end, and raises if that isn't a good one
_BEAM_ERROR = re.compile(r"Worker subprocess exited with return code (-?\d+)")


@contextlib.contextmanager
def watching(cleanup: Callable[[], None]) -> Iterator[None]:
    """While the block runs, a lost worker ends this process with one line, after `cleanup`."""
    earlier = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        lost = _BEAM_ERROR.fullmatch(str(args.exc_value))
        if args.thread is None or args.thread.name != _BEAM_THREAD or lost is None:
            earlier(args)
            return
        print(f"pipeline.convert: {_explain(int(lost[1]))}", file=sys.stderr, flush=True)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
        cleanup()
        os._exit(EXIT_WORKER_LOST)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = earlier


def _explain(status: int) -> str:
    if status >= 0:
        return f"a worker process ended with exit status {status}; the same command goes on from where it stopped"
    name = signal.Signals(-status).name
    advice = " (out of memory? try --direct_num_workers with fewer)" if -status == signal.SIGKILL else ""
    return f"a worker process was killed by {name}{advice}; the same command goes on from where it stopped"
