"""Worker processes for DirectRunner: forked from one process that has imported everything, and watched.

Beam starts each worker as a new Python, which imports Beam for seconds on a core that could convert; and its driver
waits forever for a worker that was killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker import sdk_worker_main, statesampler
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format, text_format

from pipeline.convert.prefork import CONTEXT

_FINISH_SECONDS = 10.0  # for a worker to end after Beam has told it to
_SAMPLING_MS = 10


def forked_environment(on_lost: Callable[[str], None]) -> SubprocessSDKEnvironment:
    """Beam's environment of workers in processes of their own; `on_lost` hears how one ended before its time."""

    class Handler(_ForkedWorkerHandler):
        lost = staticmethod(on_lost)

    threading.excepthook = ignore_broken_connections
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(Handler)
    return SubprocessSDKEnvironment.from_command_string("forked by pipeline.convert.workers")


class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Starts one worker, and waits for its end."""

    lost: Callable[[str], None]

    def __init__(self, _command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        self._environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._stopping = False

    def start_worker(self) -> None:
        self._process = CONTEXT.Process(target=_work, args=(self._environment,), name=self.worker_id, daemon=True)
        self._process.start()
        threading.Thread(target=self._watch, name=f"watch {self.worker_id}", daemon=True).start()

    def stop_worker(self) -> None:
        self._stopping = True
        self._process.join(_FINISH_SECONDS)
        self._process.kill()

    def _watch(self) -> None:
        self._process.join()
        if not self._stopping and self._process.exitcode:
            for other in multiprocessing.active_children():
                other.kill()
            self.lost(_explain(self._process.exitcode))


def _work(environment: dict[str, str]) -> None:
    """A worker's whole life. What goes wrong in it reaches the driver as an exception, and needn't be printed here."""
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it too, and ends its workers
    threading.excepthook = ignore_broken_connections
    threading.Thread(target=_end_with_driver, daemon=True).start()
    # At the end of a bundle Beam waits until its sampler of states looks up, in a long one every 200 ms.
    statesampler.StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)
    try:
        _, harness, _ = sdk_worker_main.create_harness(environment)
        harness.run()
    except Exception:
        os._exit(1)  # the driver is gone, or sees this


def ignore_broken_connections(failed: threading.ExceptHookArgs) -> None:
    """Beam's threads on both sides of a lost worker print that the connection broke: the one line says it better."""
    if not isinstance(failed.exc_value, grpc.RpcError):
        threading.__excepthook__(failed)


def _end_with_driver() -> None:
    """Beam's harness would wait forever for a driver that was gone before it had connected.

    The process that this one is forked from is no sign of it: that stays as long as what it has forked.
    """
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _explain(exit_status: int) -> str:
    if exit_status > 0:
        return f"a worker process ended with exit status {exit_status}"
    name = signal.Signals(-exit_status).name
    advice = " (out of memory? fewer --direct_num_workers need less)" if -exit_status == signal.SIGKILL else ""
    return f"a worker process was killed by {name}{advice}"
