"""Beam's engines for tests: where scripts/fetch_engines.sh has put them, and a conversion on one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from commands import digests
from places import ROOT

from schemas.dataset import STAGING_FOLDER
from schemas.machine import without_temporary_mark

FOLDER = Path(os.environ.get("HWDB_ENGINES", ROOT / "build" / "engines"))
REQUIRED = os.environ.get("HWDB_REQUIRE_ENGINES", "").split(",")
"""Engines whose absence is a failure and not a reason to skip."""
_FILES = {
    "prism": ["prism"],
    "flink": ["flink/lib"],
    "flink local": ["flink-job-server.jar"],
    "flink cluster": ["flink-job-server.jar", "flink/lib"],
    "spark": ["spark-job-server.jar"],
}
_FLINK_JAR = f"--flink_job_server_jar={FOLDER}/flink-job-server.jar"
_FLAGS = {
    "direct": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "prism": ["--runner=PrismRunner", f"--prism_location={FOLDER}/prism"],
    "job server": ["--runner=PortableRunner"],
    "flink local": ["--runner=FlinkRunner", "--flink_master=[local]", "--parallelism=2", _FLINK_JAR],
    "flink cluster": [_FLINK_JAR],
    "spark": [
        "--runner=SparkRunner",
        "--spark_master_url=local[2]",
        f"--spark_job_server_jar={FOLDER}/spark-job-server.jar",
    ],
}
sys.path.insert(0, str(ROOT / "scripts"))
import cluster  # noqa: E402


def need(engine: str) -> None:
    """Skips the test where the engine isn't there; fails it where HWDB_REQUIRE_ENGINES names it."""
    missing = [str(FOLDER / name) for name in _FILES.get(engine, []) if not (FOLDER / name).exists()]
    if engine.startswith(("flink", "spark")) and shutil.which("java") is None:
        missing.append("java on the PATH")
    if missing:
        reason = f"{engine}: no {', '.join(missing)}; scripts/fetch_engines.sh fetches it"
        if engine in REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def running_cluster(folder: Path, *, pool_only: bool = False) -> Iterator[tuple[list[str], int, int]]:
    """Starts a Flink cluster, a worker pool, or both, by their script: (its flags, its REST port, its pool's port)."""
    rest, pool = cluster.free_port(), cluster.free_port()
    command = [sys.executable, str(ROOT / "scripts/cluster.py"), "start", f"--folder={folder}"]
    command += [
        f"--rest_port={rest}",
        f"--pool_port={pool}",
        *(["--only=pool"] if pool_only else []),
    ]
    try:
        started = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        assert started.returncode == 0, started.stderr
        yield started.stdout.split(), rest, pool
    finally:
        command[2:] = ["stop", f"--folder={folder}"]
        subprocess.run(command, check=True, timeout=60)


@contextlib.contextmanager
def running_job_server(folder: Path) -> Iterator[str]:
    """Beam's own job server, in Python: what speaks the protocol of Flink's and Spark's without needing either."""
    port = cluster.free_port()
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={port}"]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "job-server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        try:
            wait_for(lambda: "LISTEN" in {one.status for one in psutil.Process(process.pid).net_connections()})
            yield f"localhost:{port}"
        finally:
            process.terminate()
            process.wait(20)


def environment() -> dict[str, str]:
    """This environment, so that the project and this Python's commands are found."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def start(inputs: Sequence[str], output: Path, flags: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a process group of its own, to be killed."""
    command = [sys.executable, "-m", "pipeline.convert", *inputs, f"--output={output}", *flags]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def convert(inputs: Sequence[str], output: Path, flags: Sequence[str], timeout: float = 300) -> tuple[int, str, str]:
    """The command, to its end: its exit status, stdout and stderr."""
    process = start(inputs, output, flags)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the conversion didn't end within {timeout:.0f} s: {out}{err}")
    return process.returncode, out, err


def receipts(output: Path) -> dict[str, int]:
    """The staged chunks that are finished: name -> when."""
    found = (output / STAGING_FOLDER).rglob("chunk-*.json")
    return {path.name: path.stat().st_mtime_ns for path in found if path.name == without_temporary_mark(path.name)}


def wait_for(condition, seconds: float = 90) -> None:  # type: ignore[no-untyped-def]
    """Returns when the condition holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _is_computing(process: psutil.Process) -> bool:
    stats = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return any(stat.read_text().rpartition(")")[2].split()[0] == "R" for stat in stats)


def kill_midway(victim: psutil.Process, output: Path, chunks: int) -> dict[str, int]:
    """SIGKILL once some of the chunks are staged and, for certain, not all; returns what was finished then.

    A worker in the middle of its work: of one that is lost between two pieces Prism may not hear.
    """
    wait_for(lambda: len(receipts(output)) >= 2)
    if "python" in victim.name():
        wait_for(lambda: _is_computing(victim))
    victim.suspend()
    finished = receipts(output)
    assert 2 <= len(finished) < chunks, "too late to be in the middle"
    victim.kill()
    return finished


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[list[str]]:
    """The flags of an engine that runs as long as the block does."""
    need(name.removesuffix(" pool"))
    with contextlib.ExitStack() as stack:
        flags = list(_FLAGS[name.removesuffix(" pool")])
        if name.endswith(" pool"):
            flags += stack.enter_context(running_cluster(folder / "cluster", pool_only=True))[0]
        if name == "flink cluster":
            flags += stack.enter_context(running_cluster(folder / "cluster"))[0]
        if name == "job server pool":
            flags.append(f"--job_endpoint={stack.enter_context(running_job_server(folder))}")
        yield flags


def undisturbed(inputs: list[str], output: Path, *flags: str) -> dict[str, str]:
    """Digests of what the command leaves where nothing goes wrong."""
    status, out, err = convert(inputs, output, ["--direct_running_mode=in_memory", *flags])
    assert (status, err) == (0, ""), out
    return digests(output)
