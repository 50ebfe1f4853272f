"""Every engine leaves the same bytes, and one line for what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import engines
import gnt_files
import psutil
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from commands import digests

from pipeline.convert.engines.portable import make_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案肮昂盎凹敖熬翱袄傲奥懊澳芭捌硷A"
TRAIN, TEST = 9, 3
SHARDS = ("--num_shards=train=5", "--num_shards=test=2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Members of different sizes, so that bundles end in any order."""
    folder = tmp_path_factory.mktemp("inputs")
    for split, writers in (("train", range(1001, 1001 + TRAIN)), ("test", range(1241, 1241 + TEST))):
        (folder / split).mkdir()
        for writer in writers:
            records = gnt_files.records_of(CHARACTERS * (1 + writer % 4), seed=writer)
            (folder / split / f"{writer}-c.gnt").write_bytes(gnt_files.member(records))
    return [f"--input={split}={folder / split}" for split in ("train", "test")]


@pytest.fixture(scope="module")
def expected(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return engines.undisturbed(inputs, tmp_path_factory.mktemp("expected") / "out", *SHARDS)


EVERY = ["direct", "prism", "prism pool", "job server pool", "flink local", "flink cluster", "spark"]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_bytes(name: str, inputs: list[str], expected: Mapping[str, str], tmp_path: Path) -> None:
    with engines.running(name, tmp_path) as flags:
        status, out, err = engines.convert(inputs, tmp_path / "out", [*SHARDS, *flags])
    assert (status, err) == (0, ""), out
    assert digests(tmp_path / "out") == expected


def test_a_flink_cluster_on_one_machine(tmp_path: Path) -> None:
    """What scripts/cluster.py starts is Flink: its slots are counted, a lost TaskManager's no more."""
    engines.need("flink")
    folder = tmp_path / "cluster"
    with engines.running_cluster(folder) as (flags, rest, _):
        started = engines.cluster.processes(folder)
        assert sorted(started) == ["jobmanager", "pool", "taskmanager-0", "taskmanager-1"]
        _, options = make_engine("FlinkRunner", flags)
        assert options.view_as(FlinkRunnerOptions).parallelism == 4
        started["taskmanager-1"].kill()
        engines.wait_for(lambda: engines.cluster.overview(rest)["slots-total"] == 2)
    _, alive = psutil.wait_procs(started.values(), timeout=1)
    assert not alive


def test_bad_input_is_one_line_on_an_engine_too(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(b"\xff" * 5000)
    with engines.running("prism", tmp_path) as flags:
        status, out, err = engines.convert([f"--input={tmp_path}/1001-c.gnt"], tmp_path / "out", flags)
    assert (status, err.count("\n")) == (2, 1), (out, err)
    assert "replace damaged archives" in err


def test_nothing_is_left_running(inputs: list[str], tmp_path: Path) -> None:
    with engines.running("prism", tmp_path) as flags:
        process = engines.start(inputs, tmp_path / "out", [*SHARDS, *flags])
        driver = psutil.Process(process.pid)
        engines.wait_for(lambda: driver.children(recursive=True))
        family = driver.children(recursive=True)
        process.communicate(timeout=180)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
