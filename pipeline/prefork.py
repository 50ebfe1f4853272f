"""The process that workers are forked from: started before this one imports Beam, so that both import at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")


def start() -> None:
    """Starts the process; a second call does nothing."""
    CONTEXT.set_forkserver_preload(["pipeline.preloaded"])
    forkserver.ensure_running()
