"""A job on an engine elsewhere: its name, how it is waited for, and that it ends when its command does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import apache_beam as beam
import grpc
from apache_beam.options import pipeline_options as beam_options
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.runner import PipelineState

from pipeline import storage
from pipeline.convert.engines.flink import Flink, is_local, reason
from schemas.dataset import CARD
from schemas.errors import UserError

_ANSWER_SECONDS = 10.0
_END_SECONDS = 30.0  # for a cancelled job to be over
_SUBMITTED_SECONDS = 5.0  # for a job to show that was handed over when the interruption came
_AGAIN_SECONDS = 0.5
_CARD_SECONDS = 5.0  # between two looks for the card
_OVER_SECONDS = 30.0  # for an engine to say that a job is over whose card is there


class Engine(Protocol):
    """Who knows of jobs by their names, however they were begun."""

    @property
    def url(self) -> str: ...

    def unfinished(self, name: str) -> dict[str, str]:
        """The state by id of the jobs of that name which aren't over. Raises OSError, ValueError, grpc.RpcError."""
        ...

    def cancel(self, job: str) -> None:
        """Raises OSError, grpc.RpcError."""
        ...


class JobService:
    """Beam's job service at --job_endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    @property
    def url(self) -> str:
        return self._endpoint

    def unfinished(self, name: str) -> dict[str, str]:
        with self._stub() as stub:
            jobs = stub.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=_ANSWER_SECONDS).job_info
        states = {job.job_id: beam_job_api_pb2.JobState.Enum.Name(job.state) for job in jobs if name in str(job)}
        return {job: state for job, state in states.items() if not PipelineState.is_terminal(state)}

    def cancel(self, job: str) -> None:
        with self._stub() as stub:
            stub.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=_ANSWER_SECONDS)

    @contextlib.contextmanager
    def _stub(self) -> Iterator[Any]:
        with grpc.insecure_channel(self.url) as channel:
            yield beam_job_api_pb2_grpc.JobServiceStub(channel)


class EngineJob:
    """The job of one conversion. Raises UserError where another still runs into the same output."""

    def __init__(self, options: PipelineOptions, output: str) -> None:
        self.output = output
        self.name = f"hwdb-{_digest(output)}"
        given = options.view_as(beam_options.GoogleCloudOptions)
        given.job_name = f"{given.job_name}-{self.name}" if given.job_name else self.name
        self.engine: Engine | None = _engine_of(options)
        if self.engine is not None:
            self._refuse_running(self.engine)

    def run(self, pipeline: beam.Pipeline) -> None:
        """Returns when the job is over. Interrupted, it cancels the job first, and notes what came of that."""
        result = None
        try:
            result = pipeline.run()
            self._wait(result)
        except KeyboardInterrupt as interruption:
            if note := self._end(result):
                interruption.add_note(note)
            raise

    def _wait(self, result: Any) -> None:
        """An engine may wait for a worker it has lost for longer than anybody wants, its job's card already there."""
        failures: list[Exception] = []

        def wait() -> None:
            try:
                result.wait_until_finish()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=wait, name="job", daemon=True)
        thread.start()
        looked, over = time.monotonic(), 0.0
        while thread.is_alive():
            thread.join(_AGAIN_SECONDS)
            if not over and time.monotonic() - looked > _CARD_SECONDS:
                with contextlib.suppress(UserError):  # a store that doesn't answer now
                    over = time.monotonic() if storage.exists(storage.join(self.output, CARD)) else 0.0
                looked = time.monotonic()
            if over and time.monotonic() - over > _OVER_SECONDS:
                self._end(result)
                return
        if failures and not (over or storage.exists(storage.join(self.output, CARD))):
            raise failures[0]

    def _end(self, result: Any) -> str:
        """Cancels the job: by its job service, and where its engine knows it by its name there as well.

        What came of it; nothing where there is no job yet.
        """

        def end() -> None:
            result.cancel()
            while not PipelineState.is_terminal(result.state):
                time.sleep(_AGAIN_SECONDS)

        failure = _within(_ANSWER_SECONDS if self.engine else _END_SECONDS, end) if result is not None else ""
        if self.engine is None:
            if result is None:
                return ""  # what there is of it ends with the job server, which this process has started
            return (
                f"the job couldn't be cancelled, or isn't over yet ({failure})" if failure else "the job was cancelled"
            )
        try:
            return self._end_at(self.engine, time.monotonic(), appears=result is None)
        except (OSError, ValueError, grpc.RpcError) as error:
            failure = error.details() if isinstance(error, grpc.RpcError) else reason(error)
        return f"the job {self.name} couldn't be cancelled at {self.engine.url} ({failure}) and may go on; end it there"

    def _end_at(self, engine: Engine, began: float, *, appears: bool) -> str:
        asked: set[str] = set()
        while True:
            running = engine.unfinished(self.name)
            seconds = time.monotonic() - began
            for job in running.keys() - asked:
                engine.cancel(job)
                asked.add(job)
            if not running and (asked or not appears):
                return f"the job {self.name} was cancelled at {engine.url}"
            if not running and seconds > _SUBMITTED_SECONDS:
                return ""
            if seconds > _END_SECONDS:
                return f"the job {', '.join(running)} was cancelled at {engine.url}, but isn't over yet"
            time.sleep(_AGAIN_SECONDS)

    def _refuse_running(self, engine: Engine) -> None:
        try:
            running = engine.unfinished(self.name)
        except (OSError, ValueError, grpc.RpcError):
            return  # an older engine's; what else is wrong with it is said when the job is handed over
        for job, state in running.items():
            raise UserError(
                f"{self.output}: expected no job that writes there, found {job} ({self.name}, {state}) at "
                f"{engine.url}; wait for its end, or cancel it there"
            )


def _engine_of(options: PipelineOptions) -> Engine | None:
    flink = options.view_as(beam_options.FlinkRunnerOptions).flink_master
    endpoint = options.view_as(beam_options.PortableOptions).job_endpoint
    if endpoint and endpoint != "embed":
        return JobService(endpoint)
    return None if endpoint or is_local(flink) else Flink(flink)


def _digest(output: str) -> str:
    place = output if storage.of(output).is_remote else os.path.realpath(output)
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest()


def _within(seconds: float, call: Callable[[], object]) -> str:
    """What went wrong with a call, or that it took longer; empty if it returned."""
    failure = [f"no answer within {seconds:.0f} s"]

    def attempt() -> None:
        try:
            call()
            failure[0] = ""
        except Exception as error:
            failure[0] = str(error.details() if isinstance(error, grpc.Call) else error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return failure[0]
