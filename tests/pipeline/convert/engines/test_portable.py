"""What an engine can't do is said before it is started, and what befell it in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import job_servers
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from commands import Run

from pipeline.convert.engines import portable
from pipeline.convert.engines.portable import explain, make_engine
from schemas.errors import UserError, user_error_in

EXTERNAL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        return f"localhost:{bound.getsockname()[1]}"


@pytest.fixture
def rest(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server whose /overview is the parameter."""
    with job_servers.flink() as fake:
        fake.answers["/overview"] = request.param
        yield fake.address


def refusal(runner: str, *flags: str) -> str:
    with pytest.raises(UserError) as refused:
        make_engine(runner, flags)
    return str(refused.value)


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        (
            "FlinkRunner",
            ["--flink_job_server_jar=/nowhere.jar"],
            "--flink_job_server_jar=/nowhere.jar: expected a file",
        ),
        (
            "SparkRunner",
            ["--spark_job_server_jar=/nowhere.jar"],
            "--spark_job_server_jar=/nowhere.jar: expected a file",
        ),
        ("PrismRunner", ["--prism_location=/nowhere"], "--prism_location=/nowhere: expected a file, found none"),
        (
            "FlinkRunner",
            ["--flink_master=there:8081"],
            "add --environment_type=EXTERNAL --environment_config=HOST:PORT",
        ),
        ("SparkRunner", ["--spark_master_url=spark://there:7077"], "beside each Spark worker"),
        ("FlinkRunner", ["--flink_version=9"], "invalid choice: '9'"),
        (
            "FlinkRunner",
            ["--job_server_java_launcher=/nowhere/java"],
            "found no '/nowhere/java'; install a Java runtime",
        ),
        (
            "SparkRunner",
            ["--job_server_java_launcher=/nowhere/java"],
            "found no '/nowhere/java'; install a Java runtime",
        ),
        ("PortableRunner", [], "expected --job_endpoint=HOST:PORT"),
        ("PortableRunner", ["--job_endpoint=there"], "--job_endpoint=there: expected HOST:PORT"),
    ],
)
def test_refused_before_anything_starts(runner: str, flags: list[str], message: str) -> None:
    assert message in refusal(runner, *flags)


@pytest.mark.parametrize(
    ("runner", "flag", "more"),
    [
        ("FlinkRunner", "--flink_master", EXTERNAL),
        ("PortableRunner", "--job_endpoint", EXTERNAL),
        ("PrismRunner", "--environment_config", ["--environment_type=EXTERNAL"]),
    ],
)
def test_a_server_that_is_not_there(runner: str, flag: str, more: list[str], closed: str) -> None:
    message = refusal(runner, f"{flag}={closed}", *more)
    assert message.startswith(f"{flag}={closed}: expected ")
    assert "found connection refused" in message


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        ("DaskRunner", "drops what a bundle emits at its end, so records would be lost"),
        ("apache_beam.runners.dask.dask_runner.DaskRunner", "so records would be lost"),
        ("RayRunner", "an abandoned prototype"),
        ("ray_beam_runner.portability.ray_fn_runner.RayFnApiRunner", "an abandoned prototype"),
    ],
)
def test_runners_that_lose_data_are_refused(
    runner: str, reason: str, archives: Path, tmp_path: Path, convert: Run
) -> None:
    status, _, err = convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--runner={runner}")
    assert (status, err.count("\n")) == (2, 1)
    assert reason in err
    assert "use DirectRunner, or FlinkRunner on a cluster" in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("rest", [job_servers.OVERVIEW], indirect=True)
def test_a_flink_job_takes_every_slot_and_the_clusters_version_unless_told_otherwise(rest: str) -> None:
    _, options = make_engine("FlinkRunner", [f"--flink_master={rest}", *EXTERNAL])
    flink = options.view_as(FlinkRunnerOptions)
    assert (flink.parallelism, flink.flink_version) == (12, "1.20")
    given = ["--parallelism=5", "--flink_version=2.0"]
    _, options = make_engine("FlinkRunner", [f"--flink_master=http://{rest}/", *given, *EXTERNAL])
    flink = options.view_as(FlinkRunnerOptions)
    assert (flink.parallelism, flink.flink_version) == (5, "2.0")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({**job_servers.OVERVIEW, "taskmanagers": 0, "slots-total": 0}, "with slots, found 0 TaskManagers and none"),
        ({**job_servers.OVERVIEW, "flink-version": "1.13.2"}, "found 1.13; name a job server for it with --flink_job"),
        ({"hello": 1}, "found another server; check the port (often 8081)"),
        ("<html>", "expected the REST address of a Flink cluster, found "),
    ],
    indirect=["rest"],
)
def test_a_master_that_is_none(rest: str, message: str) -> None:
    assert message in refusal("FlinkRunner", f"--flink_master={rest}", *EXTERNAL)


LOST = """Pipeline job_1 failed in state FAILED: org.apache.flink.runtime.JobException: Recovery is suppressed by
FixedDelayRestartBackoffTimeStrategy(maxNumberRestartAttempts=3, backoffTimeMS=1000)
Caused by: org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException: Could not acquire the minimum
Caused by: java.util.concurrent.TimeoutException: Timeout has occurred: 15000 ms"""
BUFFERS = """Pipeline job_1 failed in state FAILED: java.lang.RuntimeException
Caused by: java.io.IOException: Insufficient number of network buffers: required 512, but only 479 available. The"""
JAVA = """Pipeline job_1 failed in state FAILED: java.util.concurrent.ExecutionException: org.apache.flink.JobFailed
\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
Caused by: org.apache.flink.runtime.JobException: Recovery is suppressed by FixedDelayRestartBackoffTimeStrategy
\tat org.apache.flink.Something.run(Something.java:1)
Caused by: java.io.IOException: Connection to host:1234 was lost
\t... 6 more"""
PRISM = "Pipeline job-001 failed in state FAILED: bundle inst007 stage-007 failed:SDK worker disconnected: worker[1]"
BEAM = """Pipeline job-1 failed in state FAILED: Traceback (most recent call last):
  File "/venv/apache_beam/runners/portability/fn_api_runner/fn_runner.py", line 1, in run
    raise RuntimeError('Channel closed prematurely.')
RuntimeError: Channel closed prematurely."""
OURS = """Pipeline job_1 failed in state FAILED: java.lang.Exception: Error received from SDK harness for instruction 5:
Traceback (most recent call last):
  File "/venv/site-packages/pipeline/shards/shard.py", line 60, in write_shard
    raise {error}
{error} [while running 'WriteShard-ptransform-27']
\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.accept(FnApiControlClient.java:155)"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LOST, f"FlinkRunner: {portable._KNOWN['NoResourceAvailableException']}"),
        (BUFFERS, f"FlinkRunner: {portable._KNOWN['Insufficient number of network buffers']}"),
        (JAVA, "FlinkRunner: java.io.IOException: Connection to host:1234 was lost"),
        (
            PRISM,
            "FlinkRunner: the job ended as FAILED: bundle inst007 stage-007 failed:SDK worker disconnected: worker[1]",
        ),
        (BEAM, "FlinkRunner: RuntimeError: Channel closed prematurely."),
        ("", "FlinkRunner: RuntimeError"),
    ],
)
def test_a_failed_run_is_one_line(text: str, line: str) -> None:
    assert str(explain("FlinkRunner", RuntimeError(text))) == f"{line}; the same command goes on from where it stopped"


def test_a_fault_of_ours_keeps_its_traceback_and_one_of_the_input_its_line() -> None:
    assert explain("FlinkRunner", RuntimeError(OURS.format(error="ValueError: no such thing"))) is None
    text = OURS.format(error="pipeline.errors.UserError: 1001-c.gnt: expected this, found that; do so")
    assert user_error_in(text) == "1001-c.gnt: expected this, found that; do so"
