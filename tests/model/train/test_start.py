"""A run that begins with another's weights: the characters both know answer alike before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_dataset import write_dataset

from model.train import main
from model.train.options import parse_arguments
from model.train.steps.state import build_plain_model, start_from, statistics_of
from schemas.classes import parse_classes
from schemas.errors import UserError

NETWORK = ["--arch=vgg11", "--width=0.0625", "--dropout=0.1"]
TINY = ["--global_batch=16", "--augment=none", "--log_steps=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "data", {"train": 200, "validation": 21})


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on ten characters."""
    run = tmp_path_factory.mktemp("runs") / "first"
    assert main([*NETWORK, *TINY, "--steps=20", f"--data={data}", f"--model_dir={run}"]) == 0
    return run


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def images() -> np.ndarray:
    return np.random.default_rng(3).random((5, 16, 16, 1), np.float32)


@pytest.mark.slow
def test_shared_characters_answer_alike_before_the_first_step(first: Path) -> None:
    config = parse_arguments(["--data=d", "--model_dir=r", f"--init_from={first}"])
    assert (config.arch, config.width, config.dropout) == ("vgg11", 0.0625, 0.1)  # that run's
    classes = parse_classes("七\n龙\n零\n三\n风\n")  # two that the run doesn't know, another order
    model = build_plain_model(config, 16, len(classes))
    fresh = np.asarray(model.get_layer("logits").kernel)
    assert start_from(first, model, classes) == 3
    before = np.asarray(keras.models.load_model(first / "model.keras", compile=False)(images()))
    after = np.asarray(model(images()))
    np.testing.assert_allclose(after[:, [0, 2, 3]], before[:, [7, 0, 3]], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(model.get_layer("logits").kernel)[:, [1, 4]], fresh[:, [1, 4]])


@pytest.mark.slow
def test_a_run_begins_where_another_ended_and_resumes_where_it_stopped_itself(
    first: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "second"
    command = [*TINY, "--warmup_steps=0", "--learning_rate=1e-4", f"--data={data}", f"--model_dir={run}"]
    command += [f"--init_from={first}", "--steps=3"]
    assert main(command) == 0
    said = f"begins with the weights of {first}, 10 of the characters are its own"
    assert said in capsys.readouterr().out
    assert losses(run)[0] < losses(first)[0] - 0.1
    assert main(command) == 0
    assert said not in capsys.readouterr().out


@pytest.mark.slow
def test_frozen_convolutions_stay_as_they_were(first: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "frozen"
    flags = [f"--init_from={first}", "--freeze=conv", "--steps=6", "--ema=0"]
    assert main([*TINY, *flags, f"--data={data}", f"--model_dir={run}"]) == 0
    before, after = (keras.models.load_model(folder / "model.keras", compile=False) for folder in (first, run))
    moved = {
        layer.name
        for layer, other in zip(before.layers, after.layers, strict=True)
        if not isinstance(layer, keras.layers.Dropout)
        and any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), other.get_weights(), strict=True))
    }
    assert moved == {"mean_norm", "logits"}
    assert len(statistics_of(after)) > len(statistics_of(before))  # what is held still is a statistic of the step's


@pytest.mark.slow
def test_another_network_is_one_line(first: Path) -> None:
    config = parse_arguments(["--data=d", "--model_dir=r", f"--init_from={first}", "--width=0.125"])
    model = build_plain_model(config, 16, 10)
    with pytest.raises(UserError, match=r"--init_from .*/first: .* layer block1_conv1 has 3 × 3 × 1 × 4 there and"):
        start_from(first, model, parse_classes("零\n"))


def test_flags_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--freeze conv: random weights can't be held still"):
        parse_arguments(["--data=d", "--model_dir=r", "--freeze=conv"])
    config = parse_arguments(["--data=d", "--model_dir=r", f"--init_from={tmp_path / 'none'}"])
    with pytest.raises(UserError, match="expected the folder of a training run, found none"):
        start_from(tmp_path / "none", build_plain_model(config, 16, 1), parse_classes("零\n"))
