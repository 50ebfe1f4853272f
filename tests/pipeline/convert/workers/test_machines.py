"""Several machines, one coordinator: the same bytes, and a machine that is lost costs no more than a second try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import engines
import gnt_files
import machines
import pytest
import s3_server
from commands import digests
from machines import Machine

import pipeline
from pipeline.convert.workers import forked
from schemas.dataset import CARD
from schemas.errors import EngineError, StartError

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),  # of Beam's threads
]
MANY = 24
"""Members of the input, each a chunk of 400 records."""


@pytest.fixture(scope="module")
def three() -> Iterator[list[Machine]]:
    with machines.running(3) as pools:
        yield pools


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    for writer in range(MANY):
        records = gnt_files.records_of("啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按" * 20, seed=writer)
        (folder / f"{1001 + writer}-c.gnt").write_bytes(gnt_files.member(records))
    return folder


def settings(
    members: Path, output: Path, pools: list[Machine], *more: str, staging: str | None = None
) -> pipeline.Settings:
    addresses = ",".join(f"{pool.address}:{pool.port}" for pool in pools)
    elsewhere = ["--environment_type=EXTERNAL", f"--environment_config={addresses}"] if pools else []
    beam = [*elsewhere, *more, *([] if pools else ["--direct_num_workers=1"])]
    return pipeline.Settings([str(members)], str(output), num_shards={"train": 5}, beam=beam, staging=staging)


@pytest.fixture(scope="module")
def expected(members: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    output = tmp_path_factory.mktemp("expected") / "out"
    pipeline.run_conversion(settings(members, output, []))
    return digests(output)


def test_the_same_bytes_with_the_pieces_in_a_store(
    three: list[Machine], members: Path, expected: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server.running("0.0.0.0") as server:
        s3_server.lead_to(server, monkeypatch)
        url = f"http://{three[0].coordinator}:{server.url.rpartition(':')[2]}"
        flags = [f"--s3_endpoint_url={url}", "--s3_access_key_id=tester", "--s3_secret_access_key=secret"]
        flags.append("--s3_region_name=us-east-1")
        one = settings(members, tmp_path / "out", three, *flags, staging=f"s3://{s3_server.BUCKET}/pieces")
        pipeline.run_conversion(one)
        assert not server.objects("pieces/")
    assert digests(tmp_path / "out") == expected


@pytest.mark.parametrize("loss", ["its cable is pulled", "its pool is killed"])
def test_a_lost_machine_is_one_line_and_the_same_command_goes_on(
    loss: str,
    three: list[Machine],
    members: Path,
    expected: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forked, "_PROBE_SECONDS", 0.2)
    output, lost = tmp_path / "out", three[2]
    with ThreadPoolExecutor(1) as executor, monkeypatch.context() as patches:
        running = executor.submit(pipeline.run_conversion, settings(members, output, three))
        engines.wait_for(lambda: len(engines.receipts(output)) >= 2 or running.done())
        finished = len(engines.receipts(output))
        lost.kill() if "killed" in loss else lost.cut(patches)
        with pytest.raises(
            EngineError, match=f"the worker pool at {lost.address}:{lost.port}.*the same command goes on"
        ):
            running.result(60)
        assert 2 <= finished < MANY
        assert not (output / CARD).exists()
        if "pulled" in loss:
            lost.heal(patches)
    pipeline.run_conversion(settings(members, output, [pool for pool in three if pool.process is not None]))
    assert digests(output) == expected


def test_an_address_without_a_pool_is_one_line(members: Path, tmp_path: Path) -> None:
    nobody = Machine("", "localhost", "localhost", engines.cluster.free_port())
    with pytest.raises(StartError, match="expected a pool that hwdb workers started, found none"):
        pipeline.run_conversion(settings(members, tmp_path / "out", [nobody]))
