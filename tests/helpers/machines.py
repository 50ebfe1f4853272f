"""Several machines on one: worker pools in network namespaces of their own, between which a cable can be pulled.

Where the kernel lets us have none, each pool has an address of the loopback instead, and a pulled cable is a pool whose
machine is said to be silent: what is done about that is tested all the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from engines import cluster, environment

from pipeline.convert.workers import forked


@dataclass
class Machine:
    """A pool, and what it runs on."""

    name: str
    """Of the namespace; empty on the loopback."""
    address: str
    coordinator: str
    """The address at which the machine sees this one."""
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.port = cluster.free_port()
        inside = ["ip", "netns", "exec", self.name] if self.name else []
        pool = ["-m", "pipeline.convert.workers", f"--host={self.address}", f"--port={self.port}", "--processes=2"]
        self.process = subprocess.Popen(
            [*inside, sys.executable, *pool],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def wait(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline().endswith(f"--environment_config={self.address}:{self.port}\n")

    def kill(self) -> None:
        """SIGKILL for the pool; what it has started must see to its own end."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        assert not psutil.wait_procs(family, timeout=15)[1], "a worker outlived its pool"
        self.process = None

    def cut(self, patches: pytest.MonkeyPatch) -> None:
        if self.name:
            _ip("-n", self.name, "link", "set", "eth0", "down")
        else:
            patches.setattr(forked._PooledWorkerHandler, "_answers", lambda worker: worker._pool[0] != self.address)

    def heal(self, patches: pytest.MonkeyPatch) -> None:
        patches.undo()
        if self.name:
            _ip("-n", self.name, "link", "set", "eth0", "up")
            _ip("-n", self.name, "route", "add", "default", "via", self.coordinator)


@contextlib.contextmanager
def running(count: int) -> Iterator[list[Machine]]:
    """So many machines, each with its pool."""
    with contextlib.ExitStack() as stack:
        machines = [stack.enter_context(_machine(number)) for number in range(count)]
        for machine in machines:
            machine.start()
            stack.callback(_end, machine)
        for machine in machines:
            machine.wait()
        yield machines


@contextlib.contextmanager
def _machine(number: int) -> Iterator[Machine]:
    own = os.getpid()  # somebody else may run this test on the same machine
    name, outside = f"hwdb-{own}-{number}", f"hw{own % 1_000_000}-{number}"
    net = f"10.{200 + own % 50}.{own // 50 % 64 * 4 + number}"
    here, there = f"{net}.1", f"{net}.2"
    try:
        if shutil.which("ip") is None:
            raise OSError("no iproute2")
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", name, "addr", "add", f"{there}/30", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "route", "add", "default", "via", here)
        machine = Machine(name, there, here)
    except (OSError, subprocess.CalledProcessError):
        machine = Machine("", f"127.0.0.{2 + number}", "127.0.0.1")
    try:
        yield machine
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _end(machine: Machine) -> None:
    if machine.process is not None:
        machine.process.terminate()
        machine.process.communicate(timeout=30)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
