"""Every engine leaves the same bytes, and what it loses on the way costs no more than a second try."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import engines
import gnt_files
import psutil
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from commands import digests

from pipeline.convert.engines import make_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案肮昂盎凹敖熬翱袄傲奥懊澳芭捌硷A"
TRAIN, TEST = 9, 3
SHARDS = ("--num_shards=train=5", "--num_shards=test=2")
MANY = 24
"""Members of the input in whose middle something is killed, each a chunk of 800 records."""


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
def many(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("many")
    data = gnt_files.member(gnt_files.records_of(CHARACTERS[:20] * 40))
    for writer in range(MANY):
        (folder / f"{1001 + writer}-c.gnt").write_bytes(data)
    return [f"--input={folder}", "--num_shards=train=4"]


@pytest.fixture(scope="module")
def expected(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return undisturbed(inputs, tmp_path_factory.mktemp("expected") / "out", *SHARDS)


@pytest.fixture(scope="module")
def expected_of_many(many: list[str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return undisturbed(many, tmp_path_factory.mktemp("expected-of-many") / "out")


def undisturbed(inputs: list[str], output: Path, *flags: str) -> Mapping[str, str]:
    status, out, err = engines.convert(inputs, output, ["--direct_running_mode=in_memory", *flags])
    assert (status, err) == (0, ""), out
    return digests(output)


@contextlib.contextmanager
def engine(name: str, folder: Path) -> Iterator[list[str]]:
    """The flags of an engine that runs as long as the block does."""
    engines.need(name.removesuffix(" pool"))
    with contextlib.ExitStack() as stack:
        flags = list(ENGINES[name.removesuffix(" pool")])
        if name.endswith(" pool"):
            flags += stack.enter_context(engines.running_cluster(folder / "cluster", pools_only=True))[0]
        if name == "flink cluster":
            flags += stack.enter_context(engines.running_cluster(folder / "cluster"))[0]
        if name == "job server pool":
            flags.append(f"--job_endpoint={stack.enter_context(engines.running_job_server(folder))}")
        yield flags


FLINK_JAR = f"--flink_job_server_jar={engines.FOLDER}/flink-job-server.jar"
ENGINES = {
    "direct": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "prism": ["--runner=PrismRunner", f"--prism_location={engines.FOLDER}/prism"],
    "job server": ["--runner=PortableRunner"],
    "flink local": ["--runner=FlinkRunner", "--flink_master=[local]", "--parallelism=2", FLINK_JAR],
    "flink cluster": [FLINK_JAR],
    "spark": [
        "--runner=SparkRunner",
        "--spark_master_url=local[2]",
        f"--spark_job_server_jar={engines.FOLDER}/spark-job-server.jar",
    ],
}
EVERY = ["direct", "prism", "prism pool", "job server pool", "flink local", "flink cluster", "spark"]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_bytes(name: str, inputs: list[str], expected: Mapping[str, str], tmp_path: Path) -> None:
    with engine(name, tmp_path) as flags:
        status, out, err = engines.convert(inputs, tmp_path / "out", [*SHARDS, *flags])
    assert (status, err) == (0, ""), out
    assert digests(tmp_path / "out") == expected


def test_the_same_bytes_from_real_pixels(real: Path, tmp_path: Path) -> None:
    files = sorted(real.rglob("*.gnt"))[:1]
    inputs = [f"--input={file}" for file in files]
    flags = ["--num_shards=train=3", "--sample_fraction=0.2"]
    with engine("prism pool", tmp_path) as more:
        status, out, err = engines.convert(inputs, tmp_path / "out", [*flags, *more])
    assert (status, err) == (0, ""), out
    assert digests(tmp_path / "out") == undisturbed(inputs, tmp_path / "expected", *flags)


Victim = Callable[[Path, psutil.Process], psutil.Process]


def a_worker(folder: Path, _driver: psutil.Process) -> psutil.Process:
    pools = [one for name, one in engines.cluster.processes(folder / "cluster").items() if name.startswith("pool")]
    return next(child for pool in pools for child in pool.children())


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
    with engine(name, tmp_path) as flags:
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
    with engine("flink cluster", tmp_path) as flags:
        process = engines.start(many, output, [*flags, "--parallelism=2", "--keep_staging"])
        engines.wait_for(lambda: engines.receipts(output))
        busy = busiest_task_manager(tmp_path / "cluster")
        finished = engines.kill_midway(busy, output, MANY)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out
    assert digests(output) == expected_of_many
    assert finished.items() <= engines.receipts(output).items(), "a finished piece was made again"


def test_a_flink_cluster_on_one_machine(tmp_path: Path) -> None:
    """What scripts/cluster.py starts is Flink: its slots are counted, a lost TaskManager's no more."""
    engines.need("flink")
    folder = tmp_path / "cluster"
    with engines.running_cluster(folder) as (flags, rest, _):
        started = engines.cluster.processes(folder)
        assert sorted(started) == ["jobmanager", "pool-0", "pool-1", "taskmanager-0", "taskmanager-1"]
        _, options = make_engine("FlinkRunner", flags)
        assert options.view_as(FlinkRunnerOptions).parallelism == 4
        started["taskmanager-1"].kill()
        engines.wait_for(lambda: engines.cluster.overview(rest)["slots-total"] == 2)
    _, alive = psutil.wait_procs(started.values(), timeout=1)
    assert not alive


def busiest_task_manager(folder: Path) -> psutil.Process:
    managers = [one for name, one in engines.cluster.processes(folder).items() if name.startswith("taskmanager")]
    return max(managers, key=lambda one: sum(one.cpu_times()[:2]))


def test_bad_input_is_one_line_on_an_engine_too(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(b"\xff" * 5000)
    with engine("prism", tmp_path) as flags:
        status, out, err = engines.convert([f"--input={tmp_path}/1001-c.gnt"], tmp_path / "out", flags)
    assert (status, err.count("\n")) == (2, 1), (out, err)
    assert "replace damaged archives" in err


def test_nothing_is_left_running(inputs: list[str], tmp_path: Path) -> None:
    with engine("prism", tmp_path) as flags:
        process = engines.start(inputs, tmp_path / "out", [*SHARDS, *flags])
        driver = psutil.Process(process.pid)
        engines.wait_for(lambda: driver.children(recursive=True))
        family = driver.children(recursive=True)
        process.communicate(timeout=180)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
