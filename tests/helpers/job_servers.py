"""What engines elsewhere answer, without an engine: Flink's REST interface, and Beam's job service."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as jobs
from apache_beam.portability.api import beam_job_api_pb2_grpc

OVERVIEW = {"taskmanagers": 3, "slots-total": 12, "flink-version": "1.20.5"}


class FakeFlink:
    """A cluster that knows its jobs' states, and ends those it is asked to end, unless it is told not to."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/overview": OVERVIEW}
        self.jobs: dict[str, tuple[str, str]] = {}
        """Id -> (name, state)."""
        self.obeys = True
        self.address = ""

    def answer(self, method: str, path: str) -> Any:
        if method == "PATCH" and path.endswith("?mode=cancel"):
            job = path.split("/")[2].partition("?")[0]
            if self.obeys:
                self.jobs[job] = (self.jobs[job][0], "CANCELED")
            return {}
        if path == "/jobs/overview":
            return {"jobs": [{"jid": job, "name": name, "state": state} for job, (name, state) in self.jobs.items()]}
        return self.answers.get(path)


@contextlib.contextmanager
def flink() -> Iterator[FakeFlink]:
    fake = FakeFlink()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = fake.answer(self.command, self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found.encode() if isinstance(found, str) else json.dumps(found).encode())

        do_PATCH = do_GET

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.address = f"localhost:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


class FakeJobService(beam_job_api_pb2_grpc.JobServiceServicer):
    """A job server whose job runs until it is cancelled."""

    def __init__(self) -> None:
        self.began: Callable[[], None] = lambda: None
        """Called in a thread once the job runs."""
        self.cancelled: Callable[[], None] = lambda: None
        self.state = jobs.JobState.STOPPED
        self.options: Any = None
        self.endpoint = ""

    def DescribePipelineOptions(self, _request: Any, _context: Any) -> Any:
        return jobs.DescribePipelineOptionsResponse()

    def Prepare(self, request: Any, _context: Any) -> Any:
        self.options = request.pipeline_options
        return jobs.PrepareJobResponse(preparation_id="job-1")

    def Run(self, _request: Any, _context: Any) -> Any:
        self.state = jobs.JobState.RUNNING
        threading.Thread(target=self.began, daemon=True).start()
        return jobs.RunJobResponse(job_id="job-1")

    def GetJobs(self, _request: Any, _context: Any) -> Any:
        known = jobs.JobInfo(job_id="job-1", job_name="job", pipeline_options=self.options, state=self.state)
        return jobs.GetJobsResponse(job_info=[known] if self.options else [])

    def GetState(self, _request: Any, _context: Any) -> Any:
        return jobs.JobStateEvent(state=self.state)

    def GetStateStream(self, _request: Any, context: Any) -> Iterator[Any]:
        seen = None
        while context.is_active() and seen != jobs.JobState.CANCELLED:
            if seen != self.state:
                seen = self.state
                yield jobs.JobStateEvent(state=seen)
            time.sleep(0.02)

    def GetMessageStream(self, _request: Any, _context: Any) -> Iterator[Any]:
        yield from ()

    def Cancel(self, _request: Any, _context: Any) -> Any:
        self.state = jobs.JobState.CANCELLED
        self.cancelled()
        return jobs.CancelJobResponse(state=self.state)


@contextlib.contextmanager
def job_service(port: int = 0) -> Iterator[FakeJobService]:
    fake = FakeJobService()
    server = grpc.server(ThreadPoolExecutor(8))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(fake, server)
    fake.endpoint = f"localhost:{server.add_insecure_port(f'localhost:{port}')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()
