"""The process that workers are forked from: it imports everything once, for all of them.

A line on its socket is the environment of a worker to fork; it answers [number, exit status] when one has ended.
Nothing else imports this.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import sys

from pipeline.convert.direct import Absent


def serve(socket_number: int, alive: int) -> None:
    """Forks workers until the conversion's process closes its end of the socket, or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver hears it too, and ends what it has started
    connection = socket.socket(fileno=socket_number)
    _preload(connection)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    numbers: dict[int, int] = {}  # of the workers there are, by process
    begun, asked = 0, b""
    while True:
        ready, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 10)
            for process, status in _ended():
                connection.sendall(json.dumps([numbers.pop(process), status]).encode() + b"\n")
        if connection.fileno() in ready:
            data = connection.recv(1 << 16)
            if not data:
                break
            *lines, asked = (asked + data).split(b"\n")
            for line in lines:
                process = os.fork()
                if not process:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    connection.close()
                    _work(json.loads(line), alive)
                numbers[process] = begun
                begun += 1
    for process in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    os._exit(0)


def _preload(connection: socket.socket) -> None:
    gc.disable()
    sys.meta_path.insert(0, Absent())
    logging.disable(logging.CRITICAL)  # Beam warns while it is imported, and this process prints for nobody
    import pyarrow
    import pyarrow.compute  # for writing shards: each worker would import it for itself

    import pipeline.convert.transforms
    import pipeline.convert.workers.forked  # noqa: F401
    from pipeline.shards import packing
    from pipeline.shards.tfrecord import layout
    from pipeline.steps import jit, kernels

    pyarrow.array([0])  # looks for pandas, the first time it is given a list
    compiled = (kernels.KERNELS, packing.KERNELS, layout.KERNELS)
    if not all(each.loads_in_a_moment() for each in compiled):
        connection.sendall(json.dumps(["compiling", jit.is_kept]).encode() + b"\n")
    for each in compiled:
        each.failure()
    gc.freeze()  # nobody looks for garbage among what was imported to stay
    gc.enable()
    connection.sendall(json.dumps(["forking", jit.is_kept]).encode() + b"\n")


def _ended() -> list[tuple[int, int]]:
    """(process, exit status) of the children that have ended since the last call."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            ended.append((process, os.waitstatus_to_exitcode(status)))
    return ended


def _work(environment: dict[str, str], alive: int) -> None:
    """A worker's whole life; it doesn't return."""
    from pipeline.convert.workers.forked import explained_start, work

    try:
        work(environment, alive)
    except BaseException as error:
        os.write(2, f"{explained_start(error)}\n".encode(errors="replace"))
        os._exit(1)
    os._exit(0)
