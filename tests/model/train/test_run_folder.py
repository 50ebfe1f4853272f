"""A run's folder: nothing of others' is overwritten, one training at a time, and the run stays what it began as."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import write_dataset

from model.train import main, run_folder
from model.train.options import TrainConfig
from pipeline.reader.dataset import Dataset, open_dataset
from schemas.errors import UserError

FLAGS = ["--arch=vgg11", "--width=0.0625", "--global_batch=16", "--steps=2"]
SETTLED = {"precision": "float32", "xla": False, "replicas": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "data"
    return open_dataset(write_dataset(folder, {"train": 40, "validation": 20}))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["thesis.txt", "classes.txt", "model.keras", "report.html", "checkpoints/x", "tmp/y"])
def test_a_folder_with_other_things_is_refused_untouched(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work", "utf-8")
    before = content(tmp_path)
    assert main([*FLAGS, f"--data={data.folder}", f"--model_dir={tmp_path}"]) == 2
    assert f"or an empty one, found {name.split('/')[0]} and no config.json; name another" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_a_data_set_is_no_place_for_a_run(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(Path(data.folder))
    assert main([*FLAGS, f"--data={data.folder}", f"--model_dir={data.folder}"]) == 2
    assert "name another --model_dir" in capsys.readouterr().err
    assert content(Path(data.folder)) == before


@pytest.mark.parametrize("text", ["{}", "[1]", '{"format": 99}', "not JSON"])
def test_another_programs_config_is_refused_untouched(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8")
    assert main([*FLAGS, f"--data={data.folder}", f"--model_dir={tmp_path}"]) == 2
    assert "config.json: expected" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text("utf-8") == text
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", ".lock"}


def test_a_start_that_was_killed_at_once_goes_on(tmp_path: Path, data: Dataset) -> None:
    description = run_folder.describe(TrainConfig("", "", **SETTLED), data.records("train"), "memory")
    (tmp_path / ".lock").touch()
    (tmp_path / "config.tmp-0123abcd.json").touch()
    run_folder.check_own(tmp_path)
    run_folder.begin(tmp_path, description, data.classes)
    (tmp_path / "classes.txt").unlink()  # killed before it was written
    (tmp_path / "config.json").write_text("as it began", "utf-8")
    run_folder.begin(tmp_path, description, data.classes)
    assert (tmp_path / "classes.txt").read_text("utf-8") == data.classes.text
    assert (tmp_path / "config.json").read_text("utf-8") == "as it began"


def test_one_training_at_a_time(tmp_path: Path) -> None:
    with (
        run_folder.locked(tmp_path / "run"),
        pytest.raises(UserError, match=r"run: process \d+ on .*, begun 20.*, trains there; wait for its end, or name"),
        run_folder.locked(tmp_path / "run"),
    ):
        raise AssertionError
    with run_folder.locked(tmp_path / "run"):
        pass


def test_a_lock_that_is_none_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("my own file")
    with pytest.raises(UserError, match=r"\.lock: is no training's lock, and stays as it is"):
        run_folder.locked(tmp_path / "run").__enter__()
    assert (tmp_path / "run" / ".lock").read_text() == "my own file"
    (tmp_path / "linked").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "linked" / ".lock").symlink_to(tmp_path / "empty")
    with pytest.raises(UserError, match="can't write"):
        run_folder.locked(tmp_path / "linked").__enter__()
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL])
def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*_: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", none)
    with run_folder.locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("name", ["file", "file/run", "x" * 300])
def test_a_model_dir_that_cannot_be(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "file").write_text("a file", "utf-8")
    assert main([*FLAGS, f"--data={data.folder}", f"--model_dir={tmp_path / name}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_left_to_the_machine_is_settled_once(data: Dataset) -> None:
    here = {"precision": "bfloat16", "xla": True, "replicas": 8}
    new = run_folder.settled(TrainConfig("", ""), None, here)
    assert (new.precision, new.xla, new.replicas) == ("bfloat16", True, 8)
    began = {"train": SETTLED}
    again = run_folder.settled(TrainConfig("", ""), began, here)
    assert (again.precision, again.xla, again.replicas) == ("float32", False, 8)  # which is refused then
    with pytest.raises(UserError, match=r"began with 1 replica\(s\).* here are 8; --replicas 1 uses some"):
        went_on(data, TrainConfig("", "", **SETTLED), again, TrainConfig("", ""))
    asked = run_folder.settled(TrainConfig("", "", precision="bfloat16", xla=True), began, here)
    assert (asked.precision, asked.xla) == ("bfloat16", True)
    with pytest.raises(UserError, match="--precision float16: expected bfloat16, or float32 on a GPU without it"):
        run_folder.settled(TrainConfig("", ""), {"train": SETTLED | {"precision": "float16"}}, here)
    old = {"train": {"precision": "auto", "xla": None, "replicas": None}}
    assert run_folder.settled(TrainConfig("", ""), old, here) == new


def went_on(data: Dataset, then: TrainConfig, now: TrainConfig, asked: TrainConfig) -> None:
    earlier, later = (run_folder.describe(one, data.records(one.split, one.where), "memory") for one in (then, now))
    run_folder.check_same_run(Path("run"), earlier, later, {name: asdict(asked)[name] for name in SETTLED})


def test_a_run_goes_on_as_it_began(data: Dataset) -> None:
    began = TrainConfig("", "", **SETTLED)
    went_on(data, began, began, TrainConfig("", ""))
    for name, value in {"precision": "bfloat16", "xla": True}.items():
        other = TrainConfig("", "", **{**SETTLED, name: value})
        with pytest.raises(UserError, match=f"--{name} was {SETTLED[name]}, is {value}"):
            went_on(data, began, other, other)
    old = TrainConfig("", "")  # a release that wrote down "auto"
    went_on(data, old, began, TrainConfig("", ""))
    with pytest.raises(UserError, match="--precision was auto, is float32"):
        went_on(data, old, began, TrainConfig("", "", precision="float32"))


def test_a_run_goes_on_with_as_many_workers(data: Dataset) -> None:
    one, two = (run_folder.describe(TrainConfig("", "", **SETTLED), data.records("train"), "memory", n) for n in (1, 2))
    run_folder.check_same_run(Path("run"), {**two, "workers": 2}, two, SETTLED)
    older = {name: value for name, value in one.items() if name != "workers"}
    run_folder.check_same_run(Path("run"), older, one, SETTLED)
    with pytest.raises(UserError, match=r"began with 1 worker\(s\), each .* here are 2; start as many"):
        run_folder.check_same_run(Path("run"), one, two, SETTLED)


def test_a_run_goes_on_with_the_records_it_chose(data: Dataset) -> None:
    began = TrainConfig("", "", where="record_index >= 8", **SETTLED)
    went_on(data, began, began, began)
    with pytest.raises(UserError, match="--where was record_index >= 8, is None"):
        went_on(data, began, TrainConfig("", "", **SETTLED), began)
    same_rows = TrainConfig("", "", where="record_index > 7", **SETTLED)
    with pytest.raises(UserError, match="--where was record_index >= 8, is record_index > 7"):
        went_on(data, began, same_rows, same_rows)
    description, same = (
        run_folder.describe(one, data.records("train", one.where), "memory") for one in (began, same_rows)
    )
    assert description["train"]["where"] == "record_index >= 8"
    assert description["where_digest"] == same["where_digest"]
    with pytest.raises(UserError, match="holds a run on another data set"):  # whose manifest says something else
        run_folder.check_same_run(Path("run"), description, {**description, "where_digest": "other"}, SETTLED)
    with pytest.raises(UserError, match="where record_index: expected a comparison"):
        TrainConfig("", "", where="record_index")


def test_another_number_of_replicas_is_refused_with_a_way_on(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = [*FLAGS, f"--data={data.folder}", f"--model_dir={run}"]
    assert main(command) == 0
    config = json.loads((run / "config.json").read_text("utf-8"))
    assert SETTLED.items() <= config["train"].items()
    assert "labels smoothed by 0.1, light distortions, dropout of 0.2, 10%" in config["training_figures_hold"]
    printed = capsys.readouterr()
    assert "the training loss holds labels smoothed by 0.1" in printed.out
    assert main([*command, "--replicas=2"]) == 2
    message = capsys.readouterr().err
    assert "its run began with 1 replica(s)" in message
    assert "here are 2; --replicas 1 uses some of this machine's devices, or splits them" in message
    assert main([*command, "--precision=float32", "--no-xla", "--replicas=1"]) == 0


def test_what_workers_have_in_common(data: Dataset) -> None:
    config, evaluated = TrainConfig("here", "run", **SETTLED), data.records("validation")
    said = run_folder.said_to_others(config, run_folder.describe(config, data.records("train"), "memory"), evaluated, 7)
    assert {"--steps", "--log_steps", "--seed", "data_digest", "input_mode", "libraries"} <= said.keys()
    assert said["step of the checkpoint"] == 7
    elsewhere = TrainConfig("there", "other", **SETTLED)
    description = run_folder.describe(elsewhere, data.records("train"), "memory")
    assert run_folder.said_to_others(elsewhere, description, evaluated, 7) == said


def test_a_report_that_is_older_than_what_it_tells_of_is_made_anew(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = [*FLAGS, f"--data={data.folder}", f"--model_dir={run}"]
    assert main(command) == 0
    report = run / "report.html"
    written = report.stat().st_mtime_ns
    assert main(command) == 0
    assert report.stat().st_mtime_ns == written
    for name in ("model.keras", "metrics.jsonl", "calibration.json"):
        os.utime(run / name, ns=(written + 1, written + 1))
        assert run_folder.is_stale(report)
        os.utime(run / name, ns=(written - 1, written - 1))
    assert not run_folder.is_stale(report)
    report.write_text((report).read_text("utf-8").replace("training steps", "steps of a stopped run"), "utf-8")
    os.utime(report, ns=(1, 1))
    capsys.readouterr()
    assert main(command) == 0
    assert "report.html: the page to look at" in capsys.readouterr().out
    assert "steps of a stopped run" not in report.read_text("utf-8")
