"""The workers of TF_CONFIG: a spec that makes sense, and a meeting of all of them before TensorFlow joins them.

TensorFlow waits for a worker that isn't there without a word, without end and deaf to signals, and lets workers train
side by side that were given different flags. So they meet first: all send what they are about to do to the first one,
which sends all of it back to each.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.command import EXIT_RUN_LOST
from schemas.errors import UserError

WAIT_SECONDS = 600.0
_QUIET_SECONDS = 3.0  # before a wait is worth a line
_POLL_SECONDS = 0.2
_RETRY_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_MOST_BYTES = 1 << 20  # of what a worker says
_JOBS = ("chief", "worker")
_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'

Description = dict[str, Any]


class WorkerLost(UserError):
    """Neither the input nor the flags are to blame; the same command goes on."""

    exit_status = EXIT_RUN_LOST


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, in the order of their numbers: the chief first, if there is one."""

    tasks: tuple[tuple[str, int], ...]
    addresses: tuple[str, ...]
    """HOST:PORT of each."""
    own: int

    def name(self, number: int) -> str:
        job, index = self.tasks[number]
        return f"{job} {index}"

    def place(self, number: int) -> tuple[str, int]:
        """Host and port."""
        return _split(self.addresses[number])


def parse_cluster(text: str | None) -> Cluster | None:
    """What TF_CONFIG says; None where it names no other worker. Raises UserError."""
    if not (text or "").strip():
        return None
    try:
        spec = json.loads(str(text))
    except ValueError as error:
        raise _bad(f"expected JSON, for instance {_EXAMPLE}, found {str(text)[:80]!r} ({error})") from error
    if not isinstance(spec, dict):
        raise _bad(f"expected JSON with cluster and task, for instance {_EXAMPLE}, found {str(text)[:80]!r}")
    jobs, task = spec.get("cluster") or {}, spec.get("task") or {}
    if not jobs and not task:
        return None
    if not jobs or not isinstance(jobs, dict):
        raise _bad(f"expected cluster with the addresses of all workers, found {jobs!r}; for instance {_EXAMPLE}")
    if not task or not isinstance(task, dict):
        raise _bad(f"expected task with the type and index of this worker, found {task!r}; for instance {_EXAMPLE}")
    unknown = sorted(str(job) for job in jobs if job not in _JOBS)
    if unknown:
        raise _bad(
            f"cluster: expected chief and worker, found {', '.join(unknown)}; every process here trains, and the first "
            "one evaluates for all; leave the others out"
        )
    tasks, addresses = [], []
    for job in _JOBS:
        listed = jobs.get(job, [])
        if not isinstance(listed, list):
            raise _bad(f"cluster: expected a list of HOST:PORT for {job}, found {listed!r}")
        tasks += [(job, index) for index in range(len(listed))]
        addresses += listed
    for address in addresses:
        _check_address(address)
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise _bad(f"cluster: {twice[0]} stands there twice; every worker needs an address of its own")
    if sum(job == "chief" for job, _ in tasks) > 1:
        raise _bad("cluster: expected one chief at most; the others are workers")
    return _own_place(tuple(tasks), tuple(addresses), task)


def _own_place(tasks: tuple[tuple[str, int], ...], addresses: tuple[str, ...], task: Mapping[str, Any]) -> Any:
    job, index = task.get("type"), task.get("index")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if job not in _JOBS:
        raise _bad(
            f"task: expected type chief or worker, found {job!r}; the training evaluates by itself, and has no "
            "parameter servers"
        )
    counted = sum(one == job for one, _ in tasks)
    if not isinstance(index, int) or isinstance(index, bool) or (job, index) not in tasks:
        raise _bad(f"task: expected an index from 0 to less than the {counted} {job}(s) of cluster, found {index!r}")
    return Cluster(tasks, addresses, tasks.index((job, index))) if len(tasks) > 1 else None


def _check_address(address: Any) -> None:
    if isinstance(address, str):
        host, port = _split(address)
        if host and "/" not in address and 0 < port < 1 << 16:
            return
    raise _bad(f"cluster: expected HOST:PORT, the port from 1 to 65535, found {address!r}")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if port.isascii() and port.isdecimal() else 0


def _bad(what: str) -> UserError:
    return UserError(f"TF_CONFIG: {what}; or unset it to train on this machine alone")


def meet(cluster: Cluster, own: Description, *, wait_seconds: float = WAIT_SECONDS) -> None:
    """Waits for all workers, and compares what they are about to do. Raises UserError, the same on every worker.

    `own` is JSON. A wait of more than a few seconds is said, and whom it is for; a signal's handler can end it.
    """
    listener = _listening(cluster)
    try:
        waiting = _Waiting(cluster, wait_seconds)
        found = _gathered(cluster, own, listener, waiting) if cluster.own == 0 else _sent(cluster, own, waiting)
    finally:
        listener.close()
    check_alike(cluster, found)


def check_alike(cluster: Cluster, found: list[Description]) -> None:
    """Raises UserError, naming what differs, unless all workers say the same."""
    differing = []
    for name in dict.fromkeys(name for one in found for name in one):
        values = [one.get(name) for one in found]
        for number, value in enumerate(values):
            if value != values[0]:
                differing.append(f"{name} is {values[0]} on {cluster.name(0)}, {value} on {cluster.name(number)}")
                break
    if differing:
        raise UserError(
            f"TF_CONFIG: the workers weren't started alike: {'; '.join(differing)}; give all of them the same command, "
            "the same data set and a --model_dir that they share"
        )


class _Waiting:
    """How long a worker has waited, and the lines about it."""

    def __init__(self, cluster: Cluster, most_seconds: float) -> None:
        self._cluster = cluster
        self._begun = time.monotonic()
        self._most = most_seconds
        self._said: list[int] = []

    def on(self, missing: list[int], why: str = "") -> None:
        """Raises UserError where the wait has been long enough."""
        waited = time.monotonic() - self._begun
        names = ", ".join(f"{self._cluster.name(number)} at {self._cluster.addresses[number]}" for number in missing)
        if waited >= self._most:
            raise UserError(
                f"TF_CONFIG: {names} didn't come within {_minutes(self._most)}{why}; run the same command there at the "
                "same time, or mend its address"
            )
        if missing != self._said and waited >= min(_QUIET_SECONDS, self._most / 2):
            print(f"waiting for {names}, {_minutes(self._most)} at most", flush=True)
            self._said = missing


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def _listening(cluster: Cluster) -> socket.socket:
    """The socket of this worker's port, which nobody else has then."""
    host, port = cluster.place(cluster.own)
    both = ":" in host and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
    except OSError as error:
        mend = "end what has it, perhaps this worker's last start, or choose another port"
        if error.errno in (errno.EACCES, errno.EPERM):
            mend = "choose one above 1023"
        raise UserError(
            f"TF_CONFIG: {cluster.name(cluster.own)} can't listen on port {port} ({os.strerror(error.errno or 0)}); "
            f"{mend} on every worker"
        ) from error


def _gathered(cluster: Cluster, own: Description, listener: socket.socket, waiting: _Waiting) -> list[Description]:
    """The first worker's part: what all say, sent back to each."""
    said: dict[int, Description] = {0: json.loads(json.dumps(own))}
    heard: dict[socket.socket, bytes] = {}
    numbers: dict[socket.socket, int] = {}
    try:
        while len(said) < len(cluster.tasks):
            waiting.on([number for number in range(len(cluster.tasks)) if number not in said])
            for ready in select.select([listener, *heard], [], [], _POLL_SECONDS)[0]:
                if ready is listener:
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    heard[connection] = b""
                    continue
                part = b""
                with contextlib.suppress(OSError):
                    part = ready.recv(1 << 16)
                heard[ready] += part
                number, says = _line_in(heard[ready], cluster)
                if number and number in said and part:
                    with contextlib.suppress(OSError):
                        ready.sendall(json.dumps(f"{cluster.name(number)} has come already").encode() + b"\n")
                elif part and number:
                    numbers[ready], said[number] = number, says
                    continue
                if not part or heard[ready].endswith(b"\n") or len(heard[ready]) > _MOST_BYTES:
                    said.pop(numbers.pop(ready, -1), None)  # a worker that went; or none of ours
                    del heard[ready]
                    ready.close()
        found = [said[number] for number in range(len(cluster.tasks))]
        answer = json.dumps(found).encode() + b"\n"
        for connection in numbers:
            connection.settimeout(_CONNECT_SECONDS)
            with contextlib.suppress(OSError):  # it has gone this very moment, and is missed soon enough
                connection.sendall(answer)
        return found
    finally:
        for connection in heard:
            connection.close()


def _line_in(heard: bytes, cluster: Cluster) -> tuple[int, Description]:
    """The number of the worker that a whole line comes from, and what it says; 0 if it is no such line."""
    if heard.endswith(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(heard)
            if 0 < line["worker"] < len(cluster.tasks):
                return int(line["worker"]), dict(line["says"])
    return 0, {}


def _sent(cluster: Cluster, own: Description, waiting: _Waiting) -> list[Description]:
    """Every other worker's part: what it says sent to the first, and the answer."""
    why = ""
    line = json.dumps({"worker": cluster.own, "says": own}).encode() + b"\n"
    while True:
        waiting.on([0], why)
        try:
            with socket.create_connection(cluster.place(0), _CONNECT_SECONDS) as connection:
                connection.sendall(line)
                found = json.loads(_answer(connection, waiting))
        except (OSError, ValueError) as error:  # not there yet; or its last start, for which TensorFlow answers
            why = f" ({getattr(error, 'strerror', None) or 'what answers there is no worker that waits'})"
            time.sleep(_RETRY_SECONDS)
            continue
        if isinstance(found, str):
            raise UserError(f"TF_CONFIG: {found}; give every worker an index of its own")
        return list(found)


def _answer(connection: socket.socket, waiting: _Waiting) -> bytes:
    """The line of the first worker, which comes when the last one has; less if that isn't what answers."""
    heard = b""
    while len(heard) <= _MOST_BYTES and not heard.endswith(b"\n") and heard[:1] in (b"", b"[", b'"'):
        if not select.select([connection], [], [], _POLL_SECONDS)[0]:
            waiting.on([0], " with all the others")
            continue
        part = connection.recv(1 << 16)
        if not part:
            break
        heard += part
    return heard
