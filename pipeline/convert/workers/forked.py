"""Worker processes for DirectRunner, forked here or asked of pools, and watched; and what each of them does.

Beam starts each worker as a new Python, and its driver waits forever for one that has ended. What stands here reaches
into Beam (tried with 2.77); where its names have moved, Beam's own workers do the same in this process.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from typing import Any

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    endpoints_pb2,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.runners.worker.channel_factory import GRPCChannelFactory
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipeline.convert.direct import ForkServer, Pools
from pipeline.convert.workers.handing_out import GreedyRunner
from schemas.errors import EngineError, StartError

_FINISH_SECONDS = 10.0  # for a worker to end after Beam has told it to
_AGAIN_SECONDS = 0.1
_PATIENCE = {"importing": 120.0, "compiling": 600.0, "forking": 90.0}
"""By what the fork server does: seconds for it to go on, and at last for a worker to connect.

The driver has imported the same before it asks for a worker, and a worker gives up after a minute by itself.
"""
_PROBE_SECONDS, _PROBES = 5.0, 3
"""How often a pool's machine is looked at, and how often in a row it may fail to answer as long."""
_POOL_SECONDS = 90.0  # for a pool that is full to have room
_LEFT_SECONDS = 20.0  # for what a worker still does when its engine has let go of it
_KEEPALIVE = ("grpc.keepalive_timeout_ms", 60_000)
"""After which a worker knows that its engine's machine is gone; for Beam's 300 s it would fill a place in its pool."""


def worker_runner(source: ForkServer | Pools, options: PipelineOptions, *, logs: bool) -> FnApiRunner:
    """Beam's FnApiRunner with workers in processes of their own, forked by a server or started in pools.

    `logs`: whether they send what they log.
    """
    kind = _ForkedWorkerHandler if isinstance(source, ForkServer) else _PooledWorkerHandler
    Handler = type("Handler", (kind,), {"source": source, "logs": logs})
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(Handler)
    environment = SubprocessSDKEnvironment.from_command_string("started by pipeline.convert.workers")
    # The user's flags, which FnApiRunner forgets to hand to workers in processes of their own.
    given = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="none", pipeline_options=given)
    return GreedyRunner(default_environment=environment, provision_info=ExtendedProvisionInfo(info))


class _WatchedWorkerHandler(GrpcWorkerHandler):
    """A worker whose loss is the end of the run, said in one line."""

    source: Any
    logs: bool

    def __init__(self, _command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._stopping = threading.Event()

    def start_worker(self) -> None:
        self._begin()
        threading.Thread(target=self._watch, name=f"watch {self.worker_id}", daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        super().close()

    def _begin(self) -> None:
        """Asks for the process."""
        raise NotImplementedError

    def _await_loss(self) -> None:
        """Returns when the worker is lost, and the source says why; or when it is told to stop."""
        raise NotImplementedError

    def _watch(self) -> None:
        """What the driver waits for, or asks for later, is answered with an error once the worker is lost."""
        self._await_loss()
        while not self._stopping.wait(_AGAIN_SECONDS):
            for instruction, future in list(self.control_conn._futures_by_id.items()):
                error = str(self.source.loss)
                future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=error))

    def _is_connected(self) -> bool:
        return self.control_conn._input is not None


class _ForkedWorkerHandler(_WatchedWorkerHandler):
    """A worker that a fork server forks."""

    source: ForkServer

    def _begin(self) -> None:
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": _described(self.control_address),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        if self.logs:
            environment["LOGGING_API_SERVICE_DESCRIPTOR"] = _described(self.logging_api_service_descriptor().url)
        self._worker = self.source.start(environment)

    def stop_worker(self) -> None:
        self._stopping.set()
        self._worker.ended.wait(_FINISH_SECONDS)

    def _await_loss(self) -> None:
        server, worker = self.source, self._worker
        while not (worker.ended.wait(_AGAIN_SECONDS) or self._is_connected() or self._stopping.is_set()):
            if time.monotonic() - max(server.since, worker.asked) > _PATIENCE[server.phase]:
                break
        else:
            worker.ended.wait()
        if not self._stopping.is_set():
            server.lose(worker, connected=self._is_connected())


class _PooledWorkerHandler(_WatchedWorkerHandler):
    """A worker of a pool: of the next one in turn, on whatever machine that is."""

    source: Pools

    def __init__(self, command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        self._pool = self.source.next_address()
        super().__init__(command, state, provision_info, grpc_server)

    def host_from_worker(self) -> str:
        """This machine's address, as the pool's sees it."""
        with socket.socket(socket.AF_INET6 if ":" in self._pool[0] else socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect(self._pool)  # which sends nothing
            address = str(way.getsockname()[0])
        return f"[{address}]" if ":" in address else address

    def _begin(self) -> None:
        request = beam_fn_api_pb2.StartWorkerRequest(
            worker_id=self.worker_id,
            control_endpoint=endpoints_pb2.ApiServiceDescriptor(url=self.control_address),
            logging_endpoint=self.logging_api_service_descriptor() if self.logs else None,
        )
        try:
            with grpc.insecure_channel("{}:{}".format(*self._pool)) as channel:
                pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
                error = pool.StartWorker(request, timeout=_POOL_SECONDS).error
        except grpc.RpcError as failure:
            error = f"{self._name}: expected a pool that hwdb workers started, found none ({failure.details()})"
        if error:
            self.source.loss = StartError(error)
            raise self.source.loss

    def stop_worker(self) -> None:
        """Its control channel is closed, and with that it ends."""

    @property
    def _name(self) -> str:
        return "the worker pool at {}:{}".format(*self._pool)

    def _await_loss(self) -> None:
        began = probed = time.monotonic()
        silent = 0
        while not self._stopping.wait(_AGAIN_SECONDS) and self.source.loss is None:
            now, reader = time.monotonic(), self.control_conn._read_thread
            if not self._is_connected() and now - began > _POOL_SECONDS:
                here = f"it can't reach this machine at {self.control_address}; a firewall?"
                self.source.loss = StartError(f"{self._name}: its worker hasn't come after {now - began:.0f} s; {here}")
            elif reader.ident is not None and not reader.is_alive():
                self.source.loss = EngineError(f"{self._name} has lost its worker (killed? out of memory?)")
            elif now - probed > _PROBE_SECONDS:
                silent = 0 if self._answers() else silent + 1
                probed = time.monotonic()
                if silent == _PROBES:
                    self.source.loss = EngineError(f"{self._name}, or its machine, doesn't answer any more")

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._pool, _PROBE_SECONDS).close()
        except OSError:
            return False
        return True


def _described(url: str) -> str:
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url)))


def explained_start(error: BaseException) -> str:
    """A worker's last words."""
    if isinstance(error, grpc.FutureTimeoutError):
        return "it can't reach this process on localhost; a firewall, or a proxy?"
    return f"{type(error).__name__}: {error}"


def work(environment: dict[str, str], alive: int) -> None:
    """A worker's whole life; `alive` is a pipe that is closed when who has asked for it is gone.

    What goes wrong in it reaches the driver as an exception, and needn't be printed here.
    """
    logging.disable(logging.NOTSET if "LOGGING_API_SERVICE_DESCRIPTOR" in environment else logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    threading.Thread(target=_end_with_driver, args=(alive,), daemon=True).start()
    options = [option for option in GRPCChannelFactory.DEFAULT_OPTIONS if option[0] != _KEEPALIVE[0]]
    GRPCChannelFactory.DEFAULT_OPTIONS = [*options, _KEEPALIVE]
    log, harness, _ = sdk_worker_main.create_harness(environment)
    threading.Thread(target=_end_when_left, args=(harness,), daemon=True).start()
    try:
        harness.run()
    except grpc.RpcError:  # its engine is gone, or has closed the control channel in the middle of something
        return
    if log is not None:
        log.close()


def _end_with_driver(alive: int) -> None:
    """Beam's harness would wait forever for a driver that was gone before it had connected."""
    os.read(alive, 1)
    os._exit(1)


def _end_when_left(harness: Any) -> None:
    """What was begun may be finished, but a worker without an engine doesn't stay."""
    while harness._alive:
        time.sleep(_AGAIN_SECONDS)
    time.sleep(_LEFT_SECONDS)
    os._exit(0)
