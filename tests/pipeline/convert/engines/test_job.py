"""A job on an engine elsewhere ends with its command, and is found again where it didn't."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import job_servers
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2
from commands import Run, assert_refused
from engines import start, wait_for
from job_servers import FakeFlink, FakeJobService
from places import ROOT

from pipeline.convert.engines import job
from pipeline.convert.engines.job import EngineJob
from schemas.dataset import CARD, LOCK

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def service() -> Iterator[FakeJobService]:
    with job_servers.job_service() as fake:
        yield fake


@pytest.fixture
def flink() -> Iterator[FakeFlink]:
    with job_servers.flink() as fake:
        yield fake


def flags(service: FakeJobService, archives: Path, output: Path) -> list[str]:
    return [
        f"--input={archives}/train",
        f"--output={output}",
        "--runner=PortableRunner",
        f"--job_endpoint={service.endpoint}",
        "--environment_type=EXTERNAL",
        "--environment_config=localhost:9",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_cancels_its_job_first(
    service: FakeJobService, archives: Path, tmp_path: Path, convert: Run, number: signal.Signals
) -> None:
    def interrupt() -> None:
        time.sleep(0.2)
        assert (tmp_path / "out" / LOCK).exists()
        os.kill(os.getpid(), number)

    service.began = interrupt
    status, _, err = convert(*flags(service, archives, tmp_path / "out"))
    name = service.options["beam:option:job_name:v1"]
    word = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert err == (
        f"pipeline.convert: {word}; the job {name} was cancelled at {service.endpoint}; the same command goes on from "
        "where it stopped\n"
    )
    assert status == STATUS[number]
    assert service.state == beam_job_api_pb2.JobState.CANCELLED
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_job_that_still_runs_into_the_output_is_named(
    service: FakeJobService, archives: Path, tmp_path: Path, convert: Run
) -> None:
    service.began = lambda: os.kill(os.getpid(), signal.SIGINT)
    convert(*flags(service, archives, tmp_path / "out"))
    service.state = beam_job_api_pb2.JobState.RUNNING
    (tmp_path / "link").symlink_to(tmp_path)
    again = convert(*flags(service, archives, tmp_path / "link" / "out"))
    assert_refused(
        again, r"out: expected no job that writes there, found job-1 \(hwdb-[0-9a-f]{16}, RUNNING\) at local"
    )
    service.began = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert convert(*flags(service, archives, tmp_path / "other"))[0] == 130


JAVA = """#!{python}
import os, sys, time
sys.path.insert(0, {helpers!r})
import job_servers
with job_servers.job_service(int(sys.argv[sys.argv.index("--job-port") + 1])) as fake:
    fake.began = lambda: os.mkdir({folder!r} + "/runs")
    fake.cancelled = lambda: os.mkdir({folder!r} + "/cancelled")
    time.sleep(60)
"""


@pytest.mark.engine
def test_ctrl_c_at_a_terminal_doesnt_end_the_job_server_before_the_job(archives: Path, tmp_path: Path) -> None:
    """Which hears it as well as the command does, and whose wrapper of Beam's stops it at once."""
    java = tmp_path / "java"
    java.write_text(JAVA.format(python=sys.executable, helpers=str(ROOT / "tests/helpers"), folder=str(tmp_path)))
    java.chmod(0o755)
    (tmp_path / "server.jar").touch()
    more = [f"--flink_job_server_jar={tmp_path}/server.jar", f"--job_server_java_launcher={java}"]
    process = start([f"--input={archives}/train"], tmp_path / "out", ["--runner=FlinkRunner", *more])
    wait_for(lambda: (tmp_path / "runs").exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (
        err == "pipeline.convert: interrupted; the job was cancelled; the same command goes on from where it stopped\n"
    )
    assert (tmp_path / "cancelled").exists()
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(java) in (one.info["cmdline"] or [])]


class Submitted:
    """A pipeline whose job runs at a Flink cluster until that says it is over, whatever the job server is told."""

    def __init__(self, flink: FakeFlink, name: str, state: str = "RUNNING") -> None:
        self.flink, self.cancelled = flink, False
        flink.jobs = {"a": (name, state), "b": ("hwdb-another", "RUNNING"), "c": (name, "FINISHED")}

    def run(self) -> Any:
        return self

    def wait_until_finish(self) -> None:
        time.sleep(60)

    def cancel(self) -> None:
        self.cancelled = True
        raise RuntimeError("the job server has stopped")


def at_flink(flink: FakeFlink, output: Path) -> EngineJob:
    flink.jobs = {}
    return EngineJob(PipelineOptions([f"--flink_master={flink.address}"]), str(output))


def interrupted(of: EngineJob, pipeline: Any) -> str:
    """What an interruption of the job says."""
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as interruption:
        of.run(pipeline)
    (note,) = interruption.value.__notes__
    return str(note)


def test_flink_is_asked_itself(flink: FakeFlink, tmp_path: Path) -> None:
    one = at_flink(flink, tmp_path / "out")
    submitted = Submitted(flink, one.name)
    assert interrupted(one, submitted) == f"the job {one.name} was cancelled at http://{flink.address}"
    assert submitted.cancelled
    assert {name: state for name, (_, state) in flink.jobs.items()} == {
        "a": "CANCELED",
        "b": "RUNNING",
        "c": "FINISHED",
    }


def test_one_that_was_just_handed_over_is_found_by_its_name(flink: FakeFlink, tmp_path: Path) -> None:
    one = at_flink(flink, tmp_path / "out")

    class Late(Submitted):
        def run(self) -> None:
            flink.jobs = {}
            threading.Timer(1.0, lambda: flink.jobs.update(a=(one.name, "CREATED"))).start()
            time.sleep(60)

    assert interrupted(one, Late(flink, one.name)).endswith(f"was cancelled at http://{flink.address}")
    assert flink.jobs["a"][1] == "CANCELED"


def test_where_there_is_no_job_yet_nothing_is_said_of_it(
    flink: FakeFlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never:
        def run(self) -> None:
            time.sleep(60)

    monkeypatch.setattr(job, "_SUBMITTED_SECONDS", 0.1)
    for one in (at_flink(flink, tmp_path), EngineJob(PipelineOptions([]), str(tmp_path))):
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt) as interruption:
            one.run(Never())
        assert not hasattr(interruption.value, "__notes__")


def test_one_that_doesnt_end_is_said(flink: FakeFlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_END_SECONDS", 0.5)
    one = at_flink(flink, tmp_path / "out")
    flink.obeys = False
    said = interrupted(one, Submitted(flink, one.name))
    assert said == f"the job a was cancelled at http://{flink.address}, but isn't over yet"
    flink.jobs = {"a": (one.name, "CANCELLING")}
    with pytest.raises(Exception, match=rf"found a \({one.name}, CANCELLING\) at http://localhost"):
        EngineJob(PipelineOptions([f"--flink_master={flink.address}"]), str(tmp_path / "out"))


def test_one_that_cant_be_reached_may_go_on(tmp_path: Path) -> None:
    with job_servers.flink() as flink:
        one = at_flink(flink, tmp_path / "out")
        submitted = Submitted(flink, one.name)
    said = interrupted(one, submitted)
    assert said == (
        f"the job {one.name} couldn't be cancelled at http://{flink.address} (connection refused) and may go on; end "
        "it there"
    )


def test_a_job_whose_card_is_there_is_over(flink: FakeFlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CARD_SECONDS", "_OVER_SECONDS", "_AGAIN_SECONDS"):
        monkeypatch.setattr(job, name, 0.1)
    one = at_flink(flink, tmp_path)
    submitted = Submitted(flink, one.name, "RESTARTING")
    threading.Timer(0.3, lambda: (tmp_path / CARD).write_text("{}")).start()
    one.run(submitted)
    assert flink.jobs["a"][1] == "CANCELED"
