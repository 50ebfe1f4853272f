from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from places import ROOT
from tiny_dataset import write_dataset

from model.train import main
from model.train.checkpoint import Checkpoints, Writer
from model.train.options import TrainConfig, parse_arguments
from schemas.errors import UserError

STEPS = 30
TINY = ["--arch=vgg11", "--width=0.0625", "--dense_width=16", "--global_batch=16", "--log_steps=1"]
RUN = [*TINY, f"--steps={STEPS}", "--checkpoint_steps=7"]
BY_MODE = {
    "device": ["--input=device", "--xla", "--augment=none"],
    "stream": ["--input=stream", "--no-xla", "--augment=light"],
}
NORMS, PACE = ("gradient_norm", "update_norm"), ("images_per_second", "step_ms_median", "step_ms_95")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "data", {"train": 200, "validation": 21})


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Input mode -> the folder of a run that nothing stopped."""
    folders = {}
    for mode, flags in BY_MODE.items():
        folders[mode] = tmp_path_factory.mktemp("undisturbed") / mode
        assert _train_alone([*RUN, *flags, f"--data={data}", f"--model_dir={folders[mode]}"]) == 0
    return folders


def _train_alone(command: list[str]) -> int:
    """Runs the command in a process of its own: what other tests have set in TensorFlow changes its random numbers."""
    return subprocess.run([sys.executable, "-m", "model.train", *command], cwd=ROOT, check=False).returncode


@pytest.fixture
def train(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; returns its exit status, stdout and stderr."""

    def run(*flags: str, data: Path = data) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([f"--data={data}", f"--model_dir={tmp_path / 'run'}", *flags])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(undisturbed: dict[str, Path]) -> None:
    import keras

    run = undisturbed["device"]
    config = json.loads((run / "config.json").read_text("utf-8"))
    expected = {"format": 1, "arch": "vgg11", "width": 0.0625, "dense_width": 16, "batch_norm": True, "dropout": 0.2}
    assert expected.items() <= config.items()
    assert (config["image_size"], config["channels"], config["num_classes"]) == (16, 1, 10)
    assert config["preprocess"]["image_size"] == 16
    assert config["train"]["steps"] == STEPS
    assert (run / "classes.txt").read_text("utf-8").split() == list("零一二三四五六七八九")
    lines = _metrics(run)
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in steps] == [1] * 12 + [2] * 12 + [3] * 6
    assert set(steps[0]) == {"kind", "step", "epoch", "loss", "accuracy", "learning_rate", *NORMS, *PACE}
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [(line["step"], line["split"]) for line in evaluations] == [(s, "validation") for s in (12, 24, STEPS)]
    assert all(round(line["accuracy"] * 21, 6) % 1 == 0 for line in evaluations)
    assert list((run / "tensorboard").iterdir())
    assert "<svg" in (run / "report.html").read_text("utf-8")
    trust = json.loads((run / "calibration.json").read_text("utf-8"))
    assert (trust["split"], trust["samples"]) == ("validation", 21)
    assert trust["temperature"] > 0
    model = keras.models.load_model(run / "model.keras", compile=False)
    assert model.input_shape == (None, 16, 16, 1)
    logits = model(np.zeros((3, 16, 16, 1), np.float32))
    assert (logits.shape, logits.dtype) == ((3, 10), "float32")


@pytest.mark.slow
def test_it_learns(train: Run, tmp_path: Path) -> None:
    status, printed, _ = train(*TINY, "--epochs=10", "--dropout=0", "--augment=none", "--ema=0.9")
    assert status == 0
    assert "calibration.json: temperature" in printed
    assert max(line["accuracy"] for line in _metrics(tmp_path / "run") if line["kind"] == "eval") > 0.7
    assert "best so far, saved" in printed
    assert "images/s" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "number"), [("device", "SIGTERM"), ("stream", "SIGKILL")])
def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(
    data: Path, undisturbed: dict[str, Path], tmp_path: Path, mode: str, number: str
) -> None:
    run = tmp_path / "run"
    command = [*RUN, *BY_MODE[mode], f"--data={data}", f"--model_dir={run}"]
    _kill(command, run, random.randrange(1, STEPS - 1), number)  # mostly between checkpoints and in mid-epoch
    assert _train_alone(command) == 0
    _assert_same_runs(run, undisturbed[mode])


def _kill(command: list[str], run: Path, after_line: int, number: str) -> None:
    """Starts the command and ends it once metrics.jsonl has so many lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "model.train", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and len(_metrics(run)) < after_line:
        time.sleep(0.001)
    process.send_signal(signal.Signals[number])
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == {"SIGKILL": -9, "SIGTERM": 143}[number], printed
    reached = len([line for line in _metrics(run) if line["kind"] == "train"])
    assert after_line - 3 <= reached < STEPS
    if number == "SIGTERM":
        assert f"stopped by SIGTERM after step {reached}, saved; the same command resumes" in printed
        saved = tf.train.latest_checkpoint(str(run / "checkpoints"))
        assert saved.endswith(f"-{reached}")


@pytest.mark.slow
def test_a_finished_run_stays_as_it_is(undisturbed: dict[str, Path], train: Run) -> None:
    run = undisturbed["device"]
    before = {path: path.stat().st_mtime_ns for path in run.glob("*.*") if path.is_file()}
    status, printed, _ = train(*RUN, *BY_MODE["device"], f"--model_dir={run}")
    assert status == 0
    assert "this run of 30 steps is finished" in printed
    after = {path: path.stat().st_mtime_ns for path in run.glob("*.*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} <= {run / "metrics.jsonl", run / ".lock"}


@pytest.mark.slow
def test_a_model_folder_of_another_configuration(undisturbed: dict[str, Path], train: Run, tmp_path: Path) -> None:
    here = f"--model_dir={undisturbed['device']}"
    status, _, message = train(*RUN, *BY_MODE["device"], here, "--learning_rate=0.5", "--width=0.125")
    assert status == 2
    assert "--width was 0.0625, is 0.125" in message
    assert "--learning_rate was 0.001, is 0.5" in message
    assert len(message.splitlines()) == 1
    other = write_dataset(tmp_path / "other", {"train": 200, "validation": 21}, characters=tuple("甲乙丙丁"))
    status, _, message = train(*RUN, *BY_MODE["device"], here, data=other)
    assert status == 2
    assert "was trained on 10 classes, the data set's list of 4 is another one" in message
    fewer = write_dataset(tmp_path / "fewer", {"train": 199, "validation": 21})
    status, _, message = train(*RUN, *BY_MODE["device"], here, data=fewer)
    assert status == 2
    assert "holds a run on another data set" in message


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_the_run(train: Run, tmp_path: Path) -> None:
    flags = [*TINY, "--steps=9", "--checkpoint_steps=1", "--learning_rate=1e38", "--warmup_steps=0", "--clip_norm=0"]
    status, _, message = train(*flags)
    assert status == 2
    assert "the loss is" in message
    step = int(message.split("step ")[1].split(":")[0])
    saved = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert saved.endswith(f"-{step - 1}")
    assert f"the last good checkpoint is that of step {step - 1}" in message
    assert all(np.isfinite(line["loss"]) for line in _metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--global_batch=201"], "split 'train' of .* has 200 samples, expected at least one batch"),
        (["--global_batch=15", "--replicas=2"], "--global_batch 15: expected a multiple of the 2 replicas"),
        (["--global_batch=1"], "--global_batch 1: expected 2 samples a replica or more"),
        (["--split=test"], "no split 'test'; it has train, validation"),
        (["--eval_split=test"], "no split 'test'; it has train, validation"),
        (["--dropout=1"], "--dropout 1.0: expected 0 or more, less than 1"),
        (["--epochs=0"], "--epochs 0: expected 1 or more"),
        (["--width=0"], "--width 0.0: expected more than 0"),
        (["--learning_rate=nan"], "--learning_rate nan: expected more than 0"),
        (["--seed=4294967296"], "--seed 4294967296: expected less than"),
        (["--arch=resnet"], "invalid choice: 'resnet'"),
        (["--lerning_rate=1"], "--lerning_rate: there is no such flag; did you mean --learning_rate"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(train: Run, tmp_path: Path, flags: list[str], expected: str) -> None:
    status, printed, message = train(*flags)
    assert status == 2
    assert len(message.splitlines()) == 1
    assert message.startswith("model.train: ")
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError(message)
    assert printed == ""
    assert not (tmp_path / "run").exists()


def test_no_data_set(train: Run, tmp_path: Path) -> None:
    status, _, message = train(data=tmp_path / "nowhere")
    assert (status, len(message.splitlines())) == (2, 1)
    assert "expected the folder of a data set, found none" in message


def test_a_damaged_shard_stops_before_the_first_step(train: Run, tmp_path: Path) -> None:
    damaged = write_dataset(tmp_path / "data", {"train": 100})
    shard = damaged / "train-00000-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-5])
    status, _, message = train(*TINY, data=damaged)
    assert (status, len(message.splitlines())) == (2, 1)
    assert "train-00000-of-00003.tfrecord: expected" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_replicas_train_and_evaluate(data: Path, tmp_path: Path) -> None:
    flags = [*TINY, "--replicas=2", "--steps=12", "--augment=none"]
    done = _command(data, tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    assert "2 × CPU" in done.stdout
    lines = _metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    assert [round(line["accuracy"] * 21, 6) % 1 for line in lines if line["kind"] == "eval"] == [0]


@pytest.mark.slow
def test_two_workers_on_loopback_train_and_resume(data: Path, tmp_path: Path) -> None:
    flags = [*TINY, "--no-xla", "--checkpoint_steps=5", "--steps=12", "--augment=none"]
    before: list[dict[str, Any]] = []
    for attempt in range(2):
        ports = [_free_port() for _ in range(2)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "model.train", f"--data={data}", f"--model_dir={tmp_path / 'run'}", *flags],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={
                    **os.environ,
                    "CUDA_VISIBLE_DEVICES": "",
                    "TF_CONFIG": json.dumps(
                        {
                            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
                            "task": {"type": "worker", "index": index},
                        }
                    ),
                },
            )
            for index in range(2)
        ]
        try:
            printed = [process.communicate(timeout=180)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], printed
        assert "2 × CPU" in printed[0]
        assert "Epoch" not in printed[1]  # one worker speaks
        lines = _metrics(tmp_path / "run")
        assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
        assert len([line for line in lines if line["kind"] == "eval"]) == 1
        if attempt == 0:  # as if killed after step 11, evaluation and the last checkpoint lost
            _drop_last_checkpoint(tmp_path / "run" / "checkpoints")
        else:
            assert "resuming at step 10 of 12" in printed[0]
            assert [line["loss"] for line in lines] == [line["loss"] for line in before]
        before = lines


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "ckpt-1; No space left on device"), "No space left on device"),
        (OSError(28, "No space left on device"), "free some space and run the same command again"),
        (tf.errors.PermissionDeniedError(None, None, "Permission denied"), "check the permissions"),
    ],
)
def test_a_full_disk_at_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    from model.train.checkpoint import Progress

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(tf.train.CheckpointManager, "save", full)
    writer = Writer()
    checkpoints = Checkpoints(tmp_path, tf.Module(), Progress(0), TrainConfig("", ""), writer)  # type: ignore[arg-type]
    checkpoints.save(3)
    with pytest.raises(UserError, match=expected):
        writer.wait()
    checkpoints.save(4)
    with pytest.raises(UserError, match=expected):
        checkpoints.save(5)


def test_a_checkpoint_is_due_by_steps_or_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model.train.checkpoint import Progress

    progress = Progress(0)
    by_steps = Checkpoints(tmp_path, tf.Module(), progress, TrainConfig("", "", checkpoint_steps=5), Writer())  # type: ignore[arg-type]
    assert [step for step in range(12) if by_steps.due(step)] == [5, 10]
    assert by_steps.steps_until_due(3) == 2
    by_clock = Checkpoints(tmp_path, tf.Module(), progress, TrainConfig("", ""), Writer())  # type: ignore[arg-type]
    assert not by_clock.due(1000)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 301)
    assert by_clock.due(1000)


def test_dense_width_follows_the_width() -> None:
    required = ["--data=d", "--model_dir=m"]
    assert parse_arguments([*required, "--width=0.25"]).dense_width == 1024
    assert parse_arguments([*required, "--width=0.25", "--dense_width=7"]).dense_width == 7
    assert parse_arguments([*required, "--no-batch_norm", "--no-xla"]).batch_norm is False


def _command(data: Path, run: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model.train", f"--data={data}", f"--model_dir={run}", *flags]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _drop_last_checkpoint(folder: Path) -> None:
    """Leaves the folder as it was before the last checkpoint was written."""
    last = Path(tf.train.latest_checkpoint(str(folder)))
    earlier = next(path for path in folder.glob("ckpt-*.index") if path.stem != last.name)
    for path in folder.glob(f"{last.name}.*"):
        path.unlink()
    state = f'model_checkpoint_path: "{earlier.stem}"\nall_model_checkpoint_paths: "{earlier.stem}"\n'
    (folder / "checkpoint").write_text(state)


def _metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _assert_same_runs(one: Path, other: Path) -> None:
    """The same weights, moments and averages, bit for bit, the same model, and one unbroken curve."""
    first, second = (
        tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints"))) for run in (one, other)
    )
    names = [
        name for name in first.get_variable_to_shape_map() if "VARIABLE_VALUE" in name and "save_counter" not in name
    ]
    assert len(names) > 40
    for name in names:
        np.testing.assert_array_equal(first.get_tensor(name), second.get_tensor(name), err_msg=name)
    import keras

    models = [keras.models.load_model(run / "model.keras", compile=False) for run in (one, other)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    curves = [
        [{name: value for name, value in line.items() if name not in PACE} for line in _metrics(run)]
        for run in (one, other)
    ]
    assert curves[0] == curves[1]
