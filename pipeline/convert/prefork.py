"""The process that workers are forked from: started before this one imports Beam, so that both import at once."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker

CONTEXT = multiprocessing.get_context("forkserver")


def start() -> None:
    """Starts the process; a second call does nothing."""
    CONTEXT.set_forkserver_preload(["pipeline.convert.preloaded"])
    resource_tracker.ensure_running()  # here, for it would lift the block below
    # Ctrl-C reaches this whole group of processes, and would be a traceback of one that is only starting.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
