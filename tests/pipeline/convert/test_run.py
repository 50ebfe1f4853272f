"""A conversion from Python: from a script without a guard, a thread, a daemonic process, somebody's own pipeline."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import pipeline
from pipeline import open_dataset
from pipeline.convert.direct import ForkServer
from schemas import UserError

FORKED = ("--direct_num_workers=2",)


def settings(archives: Path, output: Path, *beam: str) -> pipeline.Settings:
    inputs = [f"train={archives}/train", f"test={archives}/test"]
    return pipeline.Settings(inputs, str(output), num_shards={"train": 2}, beam=beam)


def test_the_card_comes_back_and_loggers_stay_as_they_were(archives: Path, tmp_path: Path) -> None:
    before = (list(logging.root.handlers), logging.root.level, logging.root.manager.disable, threading.excepthook)
    card = pipeline.run_conversion(settings(archives, tmp_path / "out", *FORKED))
    assert card == open_dataset(tmp_path / "out").card
    assert card.splits["train"].counts.kept == 3 * 38
    after = (list(logging.root.handlers), logging.root.level, logging.root.manager.disable, threading.excepthook)
    assert after == before


def test_from_a_thread_it_leaves_the_same_bytes(archives: Path, tmp_path: Path) -> None:
    cards = []
    work = threading.Thread(
        target=lambda: cards.append(pipeline.run_conversion(settings(archives, tmp_path / "thread", *FORKED)))
    )
    work.start()
    work.join()
    pipeline.run_conversion(settings(archives, tmp_path / "here"))
    assert (tmp_path / "thread/dataset.json").read_bytes() == (tmp_path / "here/dataset.json").read_bytes()
    assert cards[0] == open_dataset(tmp_path / "here").card


UNGUARDED = """
import contextlib, io, multiprocessing, sys
from pipeline import Settings, run_conversion
from pipeline.convert import main
print("begun")
def convert(name):
    return run_conversion(Settings([sys.argv[1]], f"{sys.argv[2]}/{name}", beam=["--direct_num_workers=2"])).class_count
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map(convert, ["pool"]))
print(convert("script"))
"""
MORE = """
with contextlib.redirect_stdout(io.StringIO()):
    status = main(["--input", sys.argv[1], "--output", f"{sys.argv[2]}/command", "--direct_num_workers=2"])
print(status)
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.map(convert, ["another pool"])
    except Exception as error:
        print(error)
"""


@pytest.mark.parametrize("way", ["a file", "stdin"])
def test_a_script_without_a_guard_runs_once(archives: Path, tmp_path: Path, way: str) -> None:
    script = tmp_path / "job.py"
    script.write_text(UNGUARDED + MORE)
    arguments = [str(script) if way == "a file" else "-", str(archives / "train"), str(tmp_path)]
    run = subprocess.run(
        [sys.executable, *arguments],
        input=UNGUARDED,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert lines[:3] == ["begun", "3754", "3754"]
    if way == "a file":
        assert lines[3] == "0"
        assert "this process is a fork of one that has run a conversion" in lines[4]


@pytest.mark.parametrize("place", ["", "/__main__.py", "/convert", "/verify", "/sample", "/inspect"])
def test_a_folder_runs_as_a_script(place: str) -> None:
    """Its own folder comes first on the path then, and `inspect` must still be the standard library's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, f"{ROOT}/pipeline{place}", "--help"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("usage: ")


def test_settings_that_make_no_sense_are_refused_at_once(tmp_path: Path) -> None:
    fine = pipeline.Settings(["a.gnt"], str(tmp_path))
    for change, words in (
        ({"output": ""}, "--output: expected a folder"),
        ({"validation_fraction": 1.0}, "--validation_fraction 1: expected 0 or more, less than 1"),
        ({"preset": "worst"}, "--preset worst: expected article or best"),
        ({"num_shards": {"trian": 2}}, "--num_shards trian=2: expected one of the splits"),
        ({"num_shards": {"train": 0}}, "--num_shards train=0: expected 1 to 99,999 shards"),
        ({"target_shard_bytes": 4095}, "--target_shard_bytes 4095: expected 4096 or more"),
    ):
        with pytest.raises(UserError, match=words):
            replace(fine, **change)  # type: ignore[arg-type]


def test_samples_in_somebodys_own_pipeline(archives: Path, tmp_path: Path) -> None:
    import apache_beam as beam
    from apache_beam.testing.util import assert_that

    pipeline.run_conversion(settings(archives, tmp_path / "out"))
    kept = open_dataset(tmp_path / "out").manifest("train", ["sample_id", "label", "char", "status"]).to_pylist()
    expected = {row["sample_id"]: (row["label"], row["char"]) for row in kept if row["status"] == "kept"}

    def the_same(samples: list[dict[str, object]]) -> None:
        assert {sample["sample_id"]: (sample["label"], sample["char"]) for sample in samples} == expected
        images = [np.asarray(sample["image"]) for sample in samples]
        assert {(image.shape, image.dtype, int(image.max())) for image in images} == {((64, 64), np.dtype("u1"), 255)}

    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as root:
        assert_that(root | pipeline.ReadSamples([f"train={archives}/train"]), the_same)


def test_a_conversion_in_somebodys_own_pipeline(archives: Path, tmp_path: Path) -> None:
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as root:
        cards = root | pipeline.ConvertArchives(settings(archives, tmp_path / "out"))
        assert_that(cards, equal_to([f"{tmp_path}/out/dataset.json"]))
    assert open_dataset(tmp_path / "out").card.splits["test"].counts.read == 40


def test_a_worker_that_cant_start_says_why() -> None:
    server = ForkServer()
    try:
        worker = server.start({"CONTROL_API_SERVICE_DESCRIPTOR": "no descriptor"})
        assert worker.ended.wait(60)
        assert worker.status == 1
        server.lose(worker, connected=False)
        said = str(server.loss)
        assert said.startswith("a worker process couldn't start: it ended with exit status 1 (ParseError: ")
        assert said.endswith("; mend that, or do without by --direct_num_workers=1")
    finally:
        server.close()


def test_what_forked_workers_need_of_beam_is_there() -> None:
    """workers/forked.py reaches into Beam; where one of these has moved, look there."""
    from apache_beam.runners.portability.fn_api_runner import worker_handlers
    from apache_beam.runners.worker import sdk_worker_main
    from apache_beam.runners.worker.channel_factory import GRPCChannelFactory

    connection = worker_handlers.ControlConnection()
    assert connection._futures_by_id == {}, "what the driver waits for is kept elsewhere"
    future = worker_handlers.ControlFuture("1")
    future.set("answer")
    assert (future.is_done(), future.get()) == (True, "answer"), "an answer is given to the driver in another way"
    assert not connection._read_thread.is_alive(), "what reads a worker's answers is another thing"
    assert GRPCChannelFactory.DEFAULT_OPTIONS, "a worker's channels are made in another way"
    assert callable(sdk_worker_main.create_harness), "a worker's harness is made in another way"
    for method in ("start_worker", "stop_worker", "close"):
        assert callable(getattr(worker_handlers.GrpcWorkerHandler, method)), f"{method} of a worker's handler has gone"


def test_with_another_beam_everything_runs_in_this_process(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.convert.workers import forked

    said: list[str] = []
    monkeypatch.delattr(forked, "worker_runner")
    card = pipeline.run_conversion(settings(archives, tmp_path / "out", *FORKED), say=said.append)
    assert card.splits["train"].counts.kept == 3 * 38
    assert len(said) == 1
    assert "this Beam starts workers in another way" in said[0]


def test_without_numba_the_bytes_are_the_same_and_a_line_says_so(archives: Path, tmp_path: Path) -> None:
    one = pipeline.Settings([f"test={archives}/test"], f"{tmp_path}/compiled", num_shards={"test": 2})
    pipeline.run_conversion(one)
    command = "import sys; sys.modules['numba'] = None; from pipeline.convert import main; sys.exit(main(sys.argv[1:]))"
    flags = [f"--input=test={archives}/test", "--num_shards=test=2", "--direct_num_workers=1"]
    run = subprocess.run(
        [sys.executable, "-c", command, *flags, f"--output={tmp_path}/plain"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in run.stdout.splitlines() if "aren't compiled" in line]
    assert len(lines) == 1
    assert "No module named 'numba'" in lines[0] or "numba" in lines[0]
    shards = sorted((tmp_path / "compiled").glob("*.tfrecord"))
    assert len(shards) == 2
    for path in shards:
        assert (tmp_path / "plain" / path.name).read_bytes() == path.read_bytes()
