"""Beam's interface to a pool of workers, over processes that are forked from one that has imported everything.

Engines number their workers alike, two TaskManagers of one machine too, and StopWorker says no more than such a number.
So it ends nothing by force: an engine that is done with a worker, or is gone, closes the worker's control channel, and
with that this worker ends, nobody else's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2
from google.protobuf import text_format

from pipeline.convert.direct import ForkServer, Worker, loopback_without_proxy
from pipeline.convert.workers import PoolSettings
from schemas.errors import StartError, UserError

_ROOM_SECONDS = 60.0  # for a worker to end whose engine has just let go of it
_LOOK_SECONDS = 0.05
_CALLS = 32  # at a time: one that waits for room takes a thread
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a second pool on the port is refused, not given every other call
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
]


def serve_pool(settings: PoolSettings, say: Callable[[str], object] = lambda line: print(line, flush=True)) -> None:
    """Serves until it is interrupted; then every worker is ended. Raises StartError where no more can be started."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with loopback_without_proxy():
        forks = ForkServer()
        try:
            with _Pool(forks, settings, say):
                forks.ended.wait()
            raise StartError(f"the process that workers are forked from {forks.how_ended()}; start the pool again")
        finally:
            forks.close()


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """The server, from when workers can be forked until the end of its block."""

    def __init__(self, forks: ForkServer, settings: PoolSettings, say: Callable[[str], object]) -> None:
        self._forks, self._settings, self._say = forks, settings, say
        self._room = threading.Condition()
        self._workers: list[Worker] = []
        self._server = grpc.server(ThreadPoolExecutor(_CALLS), options=_OPTIONS)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self._server)

    def __enter__(self) -> None:
        at = f"{self._settings.host}:{self._settings.port}"
        try:
            self._server.add_insecure_port(at)
        except RuntimeError as error:
            raise UserError(
                f"--port {self._settings.port}: expected a free port at {self._settings.host}, found none; name "
                "another, or end what listens there"
            ) from error
        while self._forks.phase != "forking":
            if self._forks.ended.wait(_LOOK_SECONDS):
                raise StartError(f"a worker process couldn't start: it {self._forks.how_ended()}; mend that first")
        self._server.start()
        self._say(f"--environment_type=EXTERNAL --environment_config={at}")
        self._say(
            f"up to {self._settings.processes} workers; give these two flags to hwdb convert; Ctrl-C ends the pool"
        )

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def StartWorker(self, request: Any, _context: Any) -> Any:
        """A worker for the engine whose control endpoint the request names, as soon as there is room."""
        with self._room:
            if not self._room.wait_for(lambda: len(self._workers) < self._settings.processes, _ROOM_SECONDS):
                return beam_fn_api_pb2.StartWorkerResponse(
                    error=f"the worker pool on port {self._settings.port}: expected room for another worker, found "
                    f"all {self._settings.processes} at work; start it with more --processes"
                )
            worker = self._forks.start(self._environment(request))
            self._workers.append(worker)
        name = f"worker {request.worker_id} of {request.control_endpoint.url}"
        threading.Thread(target=self._watch, args=(worker, name), name=name, daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, _request: Any, _context: Any) -> Any:
        return beam_fn_api_pb2.StopWorkerResponse()

    def _environment(self, request: Any) -> dict[str, str]:
        """What Beam's harness wants to know, in the variables it has for that."""

        def described(endpoint: Any) -> str:
            return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=endpoint.url)))

        known = {
            "WORKER_ID": request.worker_id,
            "CONTROL_API_SERVICE_DESCRIPTOR": described(request.control_endpoint),
        }
        level = self._settings.log_level
        if level and request.logging_endpoint.url:
            known["LOGGING_API_SERVICE_DESCRIPTOR"] = described(request.logging_endpoint)
            known["PIPELINE_OPTIONS"] = f'{{"options": {{"default_sdk_harness_log_level": "{level.upper()}"}}}}'
        return known

    def _watch(self, worker: Worker, name: str) -> None:
        worker.ended.wait()
        with self._room:
            self._workers.remove(worker)
            self._room.notify_all()
        if worker.status:
            self._say(f"{time.strftime('%H:%M:%S')} {name} {self._forks.how_ended(worker.status)}")
