"""What an engine loses on the way costs no more than a second try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import engines
import gnt_files
import psutil
import pytest
from commands import digests

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按"
MANY = 24
"""Members of the input in whose middle something is killed, each a chunk of 800 records."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("many")
    data = gnt_files.member(gnt_files.records_of(CHARACTERS * 40))
    for writer in range(MANY):
        (folder / f"{1001 + writer}-c.gnt").write_bytes(data)
    return [f"--input={folder}", "--num_shards=train=4"]


@pytest.fixture(scope="module")
def expected_of_many(many: list[str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return engines.undisturbed(many, tmp_path_factory.mktemp("expected-of-many") / "out")


Victim = Callable[[Path, psutil.Process], psutil.Process]


def a_worker(folder: Path, _driver: psutil.Process) -> psutil.Process:
    pool = engines.cluster.processes(folder / "cluster")["pool"]
    return next(worker for forks in pool.children() for worker in forks.children())


def the_engine(_folder: Path, driver: psutil.Process) -> psutil.Process:
    return next(child for child in driver.children(recursive=True) if "prism" in child.name())


@pytest.mark.parametrize(
    ("name", "victim"),
    [("prism pool", a_worker), ("prism pool", the_engine), ("job server pool", a_worker), ("flink cluster", a_worker)],
    ids=["prism, a worker", "prism itself", "job server, a worker", "flink cluster, a worker"],
)
def test_killed_in_the_middle(
    name: str, victim: Victim, many: list[str], expected_of_many: Mapping[str, str], tmp_path: Path
) -> None:
    """It recovers, or says so in one line and the same command goes on; either way the bytes are the same."""
    output = tmp_path / "out"
    with engines.running(name, tmp_path) as flags:
        flags = [*flags, "--keep_staging"]
        process = engines.start(many, output, flags)
        engines.wait_for(lambda: engines.receipts(output))
        finished = engines.kill_midway(victim(tmp_path, psutil.Process(process.pid)), output, MANY)
        out, err = process.communicate(timeout=180)
        if process.returncode:
            assert (process.returncode, err.count("\n")) == (1, 1), (out, err)
            assert "the same command goes on from where it stopped" in err
            assert not (output / "dataset.json").exists()
            status, out, err = engines.convert(many, output, flags)
            assert (status, err) == (0, ""), out
    assert digests(output) == expected_of_many
    assert finished.items() <= engines.receipts(output).items(), "a finished piece was made again"


def test_a_lost_task_manager_costs_no_more_than_its_work(
    many: list[str], expected_of_many: Mapping[str, str], tmp_path: Path
) -> None:
    """Of 4 slots the job takes 2, so what is left after SIGKILL is enough for Flink to run it again."""
    output = tmp_path / "out"
    with engines.running("flink cluster", tmp_path) as flags:
        process = engines.start(many, output, [*flags, "--parallelism=2", "--keep_staging"])
        engines.wait_for(lambda: engines.receipts(output))
        busy = busiest_task_manager(tmp_path / "cluster")
        finished = engines.kill_midway(busy, output, MANY)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out
    assert digests(output) == expected_of_many
    assert finished.items() <= engines.receipts(output).items(), "a finished piece was made again"


def busiest_task_manager(folder: Path) -> psutil.Process:
    managers = [one for name, one in engines.cluster.processes(folder).items() if name.startswith("taskmanager")]
    return max(managers, key=lambda one: sum(one.cpu_times()[:2]))
