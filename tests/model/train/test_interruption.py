"""Signals: one line and the right status wherever they come, and the same command finishes what was left."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import write_dataset

from model.train import main
from model.train.interruption import Interrupted, Interruption

FLAGS = ["--arch=vgg11", "--width=0.0625", "--global_batch=16", "--steps=2"]
NUMBERS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "data", {"train": 40, "validation": 41})


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main([*FLAGS, f"--data={data}", f"--model_dir={run}"]) == 0
    return run


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_a_signal_is_raised_at_once_or_remembered(number: int, status: int) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        with interruption.held():
            kill(number)
            assert interruption.number == number
        with pytest.raises(Interrupted, match=signal.Signals(number).name) as found:
            interruption.check()
        assert found.value.exit_status == status
        with pytest.raises(Interrupted):
            kill(number)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_what_holds_the_first() -> None:
    with Interruption() as interruption, interruption.held():
        kill(signal.SIGINT)
        with pytest.raises(Interrupted):
            kill(signal.SIGINT)


def test_what_another_handler_took_is_taken_again() -> None:
    with Interruption() as interruption:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interruption.renew()
        with pytest.raises(Interrupted):
            kill(signal.SIGTERM)
        assert before == interruption._handle


@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_while_tensorflow_starts(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    def start() -> None:
        try:
            kill(number)
        except BaseException:
            return  # as some imports do
        raise AssertionError

    monkeypatch.setattr("model.network.devices.setup_tensorflow", start)
    assert main([*FLAGS, f"--data={data}", f"--model_dir={tmp_path / 'run'}"]) == status
    name = signal.Signals(number).name
    assert capsys.readouterr().err == f"model.train: stopped by {name}; nothing was begun; the same command starts it\n"
    assert not (tmp_path / "run").exists()


def test_between_two_batches_of_an_evaluation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model.train.loop import Loop

    run, batches = tmp_path / "run", []
    command = [*FLAGS, f"--data={data}", f"--model_dir={run}"]
    between = Loop._between_batches

    def stopping(loop: Loop, done: int) -> None:
        batches.append(done)
        kill(signal.SIGTERM)
        between(loop, done)

    monkeypatch.setattr(Loop, "_between_batches", stopping)
    assert main(command) == 143
    assert batches == [16]
    printed = capsys.readouterr()
    assert "stopped by SIGTERM after step 2, saved; the same command resumes" in printed.out
    assert printed.err == ""
    assert not (run / "model.keras").exists()
    monkeypatch.undo()
    assert main(command) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("eval", 2)]
    assert {"model.keras", "calibration.json", "report.html"} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize(
    ("function", "lost"),
    [
        ("model.answers.scoring.calibrate_run", ["calibration.json", "report.html"]),
        ("model.report.write_report", ["report.html"]),
    ],
)
@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_in_calibration_and_report_which_the_same_command_makes_then(
    data: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    lost: list[str],
    number: int,
    status: int,
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        kill(number)
        time.sleep(60)

    for name in lost:
        (finished / name).unlink()
    command = [*FLAGS, f"--data={data}", f"--model_dir={finished}"]
    monkeypatch.setattr(function, slow)
    begun = time.monotonic()
    assert main(command) == status
    assert time.monotonic() - begun < 40
    name = signal.Signals(number).name
    message = capsys.readouterr().err
    assert message.startswith(f"model.train: stopped by {name}; the model is there; the same command makes")
    assert len(message.splitlines()) == 1
    monkeypatch.undo()
    assert main(command) == 0
    assert all((finished / name).exists() for name in lost)
