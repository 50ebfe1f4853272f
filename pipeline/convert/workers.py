"""Worker processes for DirectRunner, forked and watched.

Beam starts each worker as a new Python, and its driver waits forever for one that has ended. What stands here reaches
into Beam (tried with 2.77); where its names have moved, Beam's own workers do the same in this process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_provision_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipeline.convert.direct import ForkServer

_FINISH_SECONDS = 10.0  # for a worker to end after Beam has told it to
_AGAIN_SECONDS = 0.1
_PATIENCE = {"importing": 120.0, "compiling": 600.0, "forking": 90.0}
"""By what the fork server does: seconds for it to go on, and at last for a worker to connect.

The driver has imported the same before it asks for a worker, and a worker gives up after a minute by itself.
"""


def forked_runner(server: ForkServer, options: PipelineOptions) -> FnApiRunner:
    """Beam's FnApiRunner with workers in processes of their own, forked by `server`."""

    class Handler(_ForkedWorkerHandler):
        fork_server = server

    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(Handler)
    environment = SubprocessSDKEnvironment.from_command_string("forked by pipeline.convert.workers")
    # The user's flags, which FnApiRunner forgets to hand to workers in processes of their own.
    given = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="none", pipeline_options=given)
    return FnApiRunner(default_environment=environment, provision_info=ExtendedProvisionInfo(info))


class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Starts one worker, and waits for its end."""

    fork_server: ForkServer

    def __init__(self, _command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        self._environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._stopping = threading.Event()

    def start_worker(self) -> None:
        self._worker = self.fork_server.start(self._environment)
        threading.Thread(target=self._watch, name=f"watch {self.worker_id}", daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        super().close()

    def stop_worker(self) -> None:
        self._stopping.set()
        self._worker.ended.wait(_FINISH_SECONDS)

    def _watch(self) -> None:
        """What the driver waits for, or asks for later, is answered with an error once the worker has ended."""
        server, worker = self.fork_server, self._worker
        while not (worker.ended.wait(_AGAIN_SECONDS) or self._is_connected() or self._stopping.is_set()):
            if time.monotonic() - max(server.since, worker.asked) > _PATIENCE[server.phase]:
                break
        else:
            worker.ended.wait()
        if self._stopping.is_set():
            return
        server.lose(worker, connected=self._is_connected())
        while not self._stopping.wait(_AGAIN_SECONDS):
            for instruction, future in list(self.control_conn._futures_by_id.items()):
                lost = beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=str(server.loss))
                future.set(lost)

    def _is_connected(self) -> bool:
        return self.control_conn._input is not None


def explained_start(error: BaseException) -> str:
    """A worker's last words."""
    if isinstance(error, grpc.FutureTimeoutError):
        return "it can't reach this process on localhost; a firewall, or a proxy?"
    return f"{type(error).__name__}: {error}"


def work(environment: dict[str, str], alive: int) -> None:
    """A worker's whole life; `alive` is a pipe that is closed when the driver is gone.

    What goes wrong in it reaches the driver as an exception, and needn't be printed here.
    """
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    threading.Thread(target=_end_with_driver, args=(alive,), daemon=True).start()
    _, harness, _ = sdk_worker_main.create_harness(environment)
    harness.run()


def _end_with_driver(alive: int) -> None:
    """Beam's harness would wait forever for a driver that was gone before it had connected."""
    os.read(alive, 1)
    os._exit(1)
