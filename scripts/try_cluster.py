"""Tries on a real Flink what no stand-in of the tests shows; by hand, where Beam's job server can be had.

    scripts/fetch_engines.sh flink flink-job-server
    python scripts/try_cluster.py

On a cluster of scripts/cluster.py, in some ten minutes. Expected, and exit status 0:

    ok: the bytes of DirectRunner
    ok: eight jobs in turn, none of them restarted
    ok: a TaskManager is lost and slots are left: the job ends well
    ok: a TaskManager is lost and no slot is left: one line, and the same command takes what there is
    ok: Ctrl-C: status 130, the job is CANCELED, the lock is gone, and the same command goes on
    ok: SIGTERM: status 143, the job is CANCELED, the lock is gone, and the same command goes on
    ok: a job whose command was killed is named, and keeps the next one out
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster
import psutil

JAR = cluster.ENGINES / "flink-job-server.jar"
CHUNKS, MOST_SECONDS = 48, 300
Outcome = tuple[int, str]
"""Exit status, stderr."""


class Trial:
    """A cluster, an input, and the command on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rest, self.pool = folder, cluster.free_port(), cluster.free_port()
        words = ["-m", "pipeline.sample", f"--output={folder}/in", f"--writers={CHUNKS}", "--characters=600"]
        subprocess.run([sys.executable, *words], check=True, cwd=cluster.ROOT)
        self.convert("direct", "--runner=DirectRunner").wait()
        self.expected = digests(folder / "direct")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        home = self.folder / "cluster"
        try:
            cluster.main(["start", f"--folder={home}", f"--rest_port={self.rest}", f"--pool_port={self.pool}"])
            yield
        finally:
            cluster.stop(home)

    def convert(self, output: str, *flags: str) -> subprocess.Popen[str]:
        words = ["-m", "pipeline.convert", f"--input={self.folder}/in/train", f"--output={self.folder}/{output}"]
        return subprocess.Popen(
            [sys.executable, *words, *flags],
            cwd=cluster.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def on_flink(self, output: str, *flags: str) -> subprocess.Popen[str]:
        external = ["--environment_type=EXTERNAL", f"--environment_config=localhost:{self.pool}"]
        flink = ["--runner=FlinkRunner", f"--flink_master=localhost:{self.rest}", f"--flink_job_server_jar={JAR}"]
        return self.convert(output, *flink, *external, *flags)

    def ended(self, process: subprocess.Popen[str], seconds: float = MOST_SECONDS) -> Outcome:
        _, err = process.communicate(timeout=seconds)
        return process.returncode, err

    def ends_well(self, output: str, *flags: str) -> None:
        same((0, ""), self.ended(self.on_flink(output, *flags)))
        same(self.expected, digests(self.folder / output))

    def midway(self, output: str) -> None:
        until(lambda: len(list((self.folder / output / "_staging").rglob("chunk-*.json"))) >= CHUNKS // 6)

    def jobs(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://localhost:{self.rest}/jobs/overview", timeout=10) as answer:
            return sorted(json.load(answer)["jobs"], key=lambda job: job["start-time"])

    def lose_task_manager(self) -> None:
        alive = cluster.processes(self.folder / "cluster")
        next(process for name, process in alive.items() if name.startswith("taskmanager")).kill()

    def same_bytes(self) -> None:
        self.ends_well("flink")

    def eight_jobs(self) -> None:
        for number in range(8):
            began = time.monotonic()
            self.ends_well(f"turn-{number}")
            assert time.monotonic() - began < 90, "a worker was lost to another job's end"
        restarted = [job["name"] for job in self.jobs() if job["state"] != "FINISHED"]
        same([], restarted)

    def lost_with_slots_left(self) -> None:
        process = self.on_flink("lost", "--parallelism=2")
        self.midway("lost")
        self.lose_task_manager()
        same((0, ""), self.ended(process))
        same(self.expected, digests(self.folder / "lost"))

    def lost_without(self) -> None:
        process = self.on_flink("less")
        self.midway("less")
        self.lose_task_manager()
        status, err = self.ended(process, 120)
        same((1, 1), (status, err.count("\n")))
        assert "the cluster has fewer free slots than --parallelism asks for" in err, err
        until(lambda: cluster.overview(self.rest).get("slots-total") == 2)
        self.ends_well("less")

    def interrupted(self, number: signal.Signals, status: int) -> None:
        output = number.name
        process = self.on_flink(output)
        self.midway(output)
        os.killpg(process.pid, number)
        found, err = self.ended(process, 60)
        same((status, 1), (found, err.count("\n")))
        assert "was cancelled at http://localhost" in err, err
        same("CANCELED", self.jobs()[-1]["state"])
        assert not (self.folder / output / "_lock.json").exists()
        self.ends_well(output)

    def killed(self) -> None:
        process = self.on_flink("killed")
        self.midway("killed")
        left = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        self.ended(process)
        status, err = self.ended(self.on_flink("killed"))
        name = self.jobs()[-1]["name"]
        assert (status, "expected no job that writes there" in err, name in err) == (2, True, True), err
        for one in left:  # the job server
            one.kill()


def main() -> None:
    if not JAR.exists():
        sys.exit(f"try_cluster.py: {JAR}: expected Beam's job server, found none; scripts/fetch_engines.sh fetches it")
    folder = Path(tempfile.mkdtemp(prefix="try-cluster-"))
    trial = Trial(folder)
    known = ", the lock is gone, and the same command goes on"
    steps: list[tuple[str, Callable[[], None]]] = [
        ("the bytes of DirectRunner", trial.same_bytes),
        ("eight jobs in turn, none of them restarted", trial.eight_jobs),
        ("a TaskManager is lost and slots are left: the job ends well", trial.lost_with_slots_left),
        (
            "a TaskManager is lost and no slot is left: one line, and the same command takes what there is",
            trial.lost_without,
        ),
        (f"Ctrl-C: status 130, the job is CANCELED{known}", lambda: trial.interrupted(signal.SIGINT, 130)),
        (f"SIGTERM: status 143, the job is CANCELED{known}", lambda: trial.interrupted(signal.SIGTERM, 143)),
        ("a job whose command was killed is named, and keeps the next one out", trial.killed),
    ]
    failed = 0
    for meaning, step in steps:
        with trial.running():
            try:
                step()
                print(f"ok: {meaning}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAILED: {meaning}: {error}", flush=True)
    if failed:
        sys.exit(f"try_cluster.py: {failed} failed; {folder} has what they left")
    shutil.rmtree(folder)


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "_staging" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def same(expected: object, found: object) -> None:
    assert found == expected, f"expected {expected}, found {found}"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
