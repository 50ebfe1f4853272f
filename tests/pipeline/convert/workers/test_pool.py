"""A pool's workers belong to the engine that asked for them, however it numbers them, and end with it."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2 as fn
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from engines import cluster, environment, wait_for
from places import ROOT

from pipeline.convert.direct import ForkServer
from pipeline.convert.workers import PoolSettings, main, pool

pytestmark = pytest.mark.engine
SECONDS = 60


class Engine(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """What a TaskManager is to a pool: it asks for a worker, and has a control channel to it."""

    def __init__(self, pool_port: int) -> None:
        self.channel = grpc.insecure_channel(f"localhost:{pool_port}")
        self.pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(self.channel)
        self.server = grpc.server(ThreadPoolExecutor(4))
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self.server)
        self.url = f"localhost:{self.server.add_insecure_port('localhost:0')}"
        self.server.start()
        self.requests: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()

    def Control(self, answers: Any, context: Any) -> Iterator[Any]:
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()
        context.add_callback(lambda: self.requests.put(None))
        while (request := self.requests.get()) is not None:
            yield request

    def _read(self, answers: Any) -> None:
        try:
            for answer in answers:
                self.answers.put(answer)
        except grpc.RpcError:
            pass
        self.answers.put(None)

    def start(self, worker: str) -> str:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.url)
        request = fn.StartWorkerRequest(worker_id=worker, control_endpoint=control)
        return str(self.pool.StartWorker(request, timeout=SECONDS).error)

    def has_worker(self) -> bool:
        """Whether a worker answers; a channel that it has closed says no."""
        asked = fn.InstructionRequest(instruction_id="ask", harness_monitoring_infos=fn.HarnessMonitoringInfosRequest())
        self.requests.put(asked)
        return self.answers.get(timeout=SECONDS) is not None

    def stop(self, worker: str) -> None:
        """As Flink's Java does it: the control channel first."""
        self.requests.put(None)
        self.pool.StopWorker(fn.StopWorkerRequest(worker_id=worker), timeout=SECONDS)

    def close(self) -> None:
        self.channel.close()
        self.requests.put(None)
        self.server.stop(None).wait()


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def ours(forks: ForkServer) -> Iterator[int]:
    """The port of our pool, in this process."""
    port = cluster.free_port()
    with pool._Pool(forks, PoolSettings(port=port, processes=2), lambda _: None):
        yield port


@pytest.fixture
def theirs() -> Iterator[int]:
    """The port of Beam's, its workers threads: they are stopped by the same number as its processes are."""
    address, server = BeamFnExternalWorkerPoolServicer.start()
    yield int(address.rpartition(":")[2])
    server.stop(None).wait()


def workers_of(forks: ForkServer) -> list[psutil.Process]:
    return psutil.Process(forks._process.pid).children()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of Beam's threads
@pytest.mark.parametrize(("whose", "lives"), [("theirs", False), ("ours", True)])
def test_stopping_a_worker_leaves_anothers_of_the_same_number_alone(
    whose: str, lives: bool, request: pytest.FixtureRequest
) -> None:
    port = request.getfixturevalue(whose)
    one, other = Engine(port), Engine(port)
    try:
        assert (one.start("1-1"), other.start("1-1")) == ("", "")
        assert one.has_worker()
        assert other.has_worker()
        one.stop("1-1")
        assert one.answers.get(timeout=SECONDS) is None
        assert other.has_worker() == lives
    finally:
        one.close()
        other.close()


def test_a_worker_ends_with_its_engine_and_makes_room(
    ours: int, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_ROOM_SECONDS", 0.2)
    wait_for(lambda: not workers_of(forks))
    first, second, third = Engine(ours), Engine(ours), Engine(ours)
    try:
        assert (first.start("1-1"), second.start("1-1")) == ("", "")
        assert first.has_worker()
        assert second.has_worker()
        assert "expected room for another worker, found all 2 at work; start it with more" in third.start("1-1")
        first.close()
        wait_for(lambda: len(workers_of(forks)) == 1)
        assert third.start("1-1") == ""
        assert third.has_worker()
        assert second.has_worker()
    finally:
        for engine in (second, third):
            engine.close()
    wait_for(lambda: not workers_of(forks))


def test_a_lost_worker_is_said_with_its_engine(forks: ForkServer) -> None:
    said: list[str] = []
    port = cluster.free_port()
    with pool._Pool(forks, PoolSettings(port=port, processes=1), said.append):
        engine = Engine(port)
        engine.start("7")
        assert engine.has_worker()
        workers_of(forks)[0].kill()
        wait_for(lambda: len(said) == 3)
        engine.close()
    assert said[0] == f"--environment_type=EXTERNAL --environment_config=localhost:{port}"
    assert said[2].endswith(f"worker 7 of {engine.url} was killed by SIGKILL")


def test_the_command_ends_with_all_it_has_started(capsys: pytest.CaptureFixture[str]) -> None:
    port = cluster.free_port()
    command = [sys.executable, "-m", "pipeline.convert.workers", f"--port={port}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"--environment_type=EXTERNAL --environment_config=localhost:{port}\n"
    engine = Engine(port)
    engine.start("1-1")
    assert engine.has_worker()
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 2
    assert main([f"--port={port}"]) == 2
    assert f"--port {port}: expected a free port at localhost, found none" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    engine.close()
    assert (process.returncode, err) == (143, "pipeline.convert.workers: ended by SIGTERM\n")
    assert not psutil.wait_procs(family, timeout=10)[1]
