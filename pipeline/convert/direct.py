"""How DirectRunner uses this machine, decided before Beam is imported; and the process its workers are forked from.

Beam starts each worker as a new Python, which imports Beam for seconds on a core that could convert. Here one process
imports everything while this one does, and forks as many workers as are asked for. It belongs to one conversion, and
ends with it: whatever program calls a conversion keeps its own processes, and its main module isn't run again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from typing import Any

from schemas.errors import EngineError, StartError, UserError, explained
from schemas.machine import available_cores

_WORKER_BYTES = 32 << 20  # 32 MiB, as a chunk has at most: for less another worker isn't worth its start
_SERVE = (
    "import sys; sys.path[:] = {path!r}; from pipeline.convert.workers.preloaded import serve; serve({socket}, {alive})"
)


@dataclass(frozen=True)
class LocalPlan:
    """Beam's --direct_running_mode and --direct_num_workers, both settled."""

    mode: str
    """Beam's, or "pools": workers of other machines' pools."""
    workers: int


class Pools:
    """Where DirectRunner's workers come from if not from this machine: `hwdb workers` of several, in turn."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self.addresses = addresses
        self.loss: UserError | None = None
        """What became of the first worker that was lost."""
        self._turns = itertools.cycle(addresses)

    def next_address(self) -> tuple[str, int]:
        return next(self._turns)


def named_pools(flags: Sequence[str]) -> Pools | None:
    """The pools that Beam's flags for workers elsewhere name, for DirectRunner. Raises UserError."""
    asked = _asked(flags, "--environment_type", "--environment_config")
    if asked.environment_type is None:
        return None
    words = [word.strip().rpartition(":") for word in (asked.environment_config or "").split(",")]
    addresses = [(host.strip("[]"), int(port)) for host, _, port in words if host and port.isdecimal()]
    if asked.environment_type.upper() != "EXTERNAL" or len(addresses) < len(words):
        raise UserError(
            f"--environment_type={asked.environment_type} --environment_config={asked.environment_config}: expected "
            "EXTERNAL and HOST:PORT[,HOST:PORT…], pools that hwdb workers started; leave both out to use this machine"
        )
    return Pools(addresses)


def is_direct(runner: str) -> bool:
    return runner.lower().rpartition(".")[2] == "directrunner"


def may_fork(flags: Sequence[str]) -> bool:
    """Whether workers will be processes: it depends on no input."""
    return plan_local(flags, 0).mode == "multi_processing"


def plan_local(flags: Sequence[str], source_bytes: int) -> LocalPlan:
    """A process for each core that the input suffices for, unless Beam's own flags say otherwise.

    Even if that is one: where there is a second core, a process of its own gets ready while the driver does.
    """
    asked = _asked(flags, "--direct_running_mode", "--direct_num_workers")
    if str(asked.direct_num_workers).startswith("-"):
        raise UserError(f"--direct_num_workers {asked.direct_num_workers}: expected 0 (all cores) or more")
    # What isn't a number is refused by Beam's own parser later.
    number = int(asked.direct_num_workers) if str(asked.direct_num_workers).isdecimal() else None
    pools = named_pools(flags)
    if pools is not None:
        return LocalPlan("pools", number or len(pools.addresses))
    alone = (number or available_cores()) == 1
    mode = asked.direct_running_mode or ("in_memory" if alone else "multi_processing")
    if mode == "in_memory":
        return LocalPlan(mode, number or 1)
    if number is None:
        number = min(available_cores(), 1 + source_bytes // _WORKER_BYTES)
    return LocalPlan(mode, number or available_cores())


def _asked(flags: Sequence[str], *names: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(name)
    try:
        return parser.parse_known_args(list(flags))[0]
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; give every flag its value") from error


class Absent(MetaPathFinder):
    """What Beam and Arrow import only because it is installed isn't found: for a process that is ours alone."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name in ("pandas", "pymongo", "bson"):
            raise ModuleNotFoundError(f"{name} is of no use here", name=name)


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_direct: list[dict[str, str | None]] = []
_direct_lock = threading.Lock()


@contextlib.contextmanager
def loopback_without_proxy() -> Iterator[None]:
    """What this process and its children say to each other goes through no proxy, whatever the environment names.

    gRPC takes http_proxy for its own channels on the loopback, too. Afterwards the environment is what it was.
    """
    with _direct_lock:
        names = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
        _direct.append({name: os.environ.get(name) for name in names} if not _direct else _direct[0])
        given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        for name in names:
            hosts = [host.strip() for host in (os.environ.get(name) or given).split(",")]
            # Alone, a * is everything to all but gRPC.
            if name == "no_grpc_proxy" or hosts != ["*"]:
                os.environ[name] = ",".join(dict.fromkeys([*filter(None, hosts), *_LOOPBACK]))
    try:
        yield
    finally:
        with _direct_lock:
            before = _direct.pop()
            for name, value in before.items() if not _direct else ():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


class Worker:
    """A forked process."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.status = 0
        """As os.waitstatus_to_exitcode gives it, once it has ended."""
        self.asked = time.monotonic()


class ForkServer:
    """The process that workers are forked from, and what is known of them."""

    def __init__(self) -> None:
        self.loss: UserError | None = None
        """What became of the first worker that ended before its time, or never came."""
        self.phase, self.since = "importing", time.monotonic()
        """What the process does, "importing", "compiling" or "forking", and since when."""
        self.keeps_compiled = True
        self.ended = threading.Event()
        """Set once the process has ended."""
        self._workers: list[Worker] = []
        self._socket, theirs = socket.socketpair()
        # Whoever holds the other end of this pipe sees it closed when this process is gone, however it went.
        alive, self._alive = os.pipe()
        with explained("make a temporary file"):
            self._words = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - a thread may still read it when the server is closed
        serve = _SERVE.format(path=sys.path, socket=theirs.fileno(), alive=alive)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", serve],
                pass_fds=(theirs.fileno(), alive),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
            )
        except (OSError, TypeError) as error:  # a program that Python is a part of may name none, or itself
            os.close(self._alive)
            raise StartError(f"a worker process couldn't start ({error}); mend that, or {_WITHOUT}") from error
        finally:
            theirs.close()
            os.close(alive)
        _servers.append(self)
        threading.Thread(target=self._listen, name="fork server", daemon=True).start()

    def start(self, environment: Mapping[str, str]) -> Worker:
        """Forks a worker with the environment that Beam's harness asks for."""
        worker = Worker()
        self._workers.append(worker)
        try:
            self._socket.sendall(json.dumps(environment).encode() + b"\n")
        except OSError:
            self._process.wait()
            self._end(worker)
        return worker

    def lose(self, worker: Worker, *, connected: bool) -> None:
        """Ends every other worker as well, because this one has ended before its time, or hasn't come in time."""
        self.loss = self.loss or self._explain(worker, connected)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends the process and every worker there still is."""
        _servers.remove(self)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        os.close(self._alive)
        if self.phase == "forking":  # it ends its workers, a stopped one too
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_SECONDS)
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("r") as lines:
            for line in lines:
                what, value = json.loads(line)
                if isinstance(what, str):
                    self.phase, self.since, self.keeps_compiled = what, time.monotonic(), value
                else:
                    self._workers[what].status = value
                    self._workers[what].ended.set()
        self._process.wait()
        for worker in self._workers:
            self._end(worker)
        self.ended.set()

    def _end(self, worker: Worker) -> None:
        """Says that a worker has ended with the process it was to be forked from."""
        if not worker.ended.is_set():
            worker.status = self._process.returncode
            worker.ended.set()

    def _explain(self, worker: Worker, connected: bool) -> UserError:
        if not worker.ended.is_set():
            what = "is still importing" if self.phase == "importing" else "hasn't answered"
            seconds = time.monotonic() - max(self.since, worker.asked)
            return StartError(f"a worker process {what} after {seconds:.0f} s; {_WITHOUT}")
        how = self.how_ended(worker.status)
        if connected or worker.status < 0:
            advice = " (out of memory? fewer --direct_num_workers need less)" if "SIGKILL" in how else ""
            return EngineError(f"a worker process {how}{advice}")
        return StartError(f"a worker process couldn't start: it {how}; mend that, or {_WITHOUT}")

    def how_ended(self, status: int | None = None) -> str:
        """The signal that killed a worker, or its exit status and last words; without a status the process itself."""
        if status is None:
            status = self._process.returncode
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        self._words.seek(0)
        words = self._words.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"ended with exit status {status}{f' ({words})' if words else ''}"


_WITHOUT = "do without by --direct_num_workers=1"
_CLOSE_SECONDS = 2.0
_servers: list[ForkServer] = []


def compiling() -> tuple[float, bool] | None:
    """For how many seconds a process of this one's conversions has been compiling, and whether that will be kept."""
    begun = [(server.since, server.keeps_compiled) for server in _servers if server.phase == "compiling"]
    jit: Any = sys.modules.get("pipeline.steps.jit")  # which imports Numba, and may be about to
    since = getattr(jit, "compiling_since", None)
    if since is not None:
        begun.append((since, jit.is_kept))
    return (time.monotonic() - begun[0][0], begun[0][1]) if begun else None
