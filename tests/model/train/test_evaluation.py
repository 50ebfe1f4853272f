"""The loop's evaluation: the same function as model.evaluate's, with the training state's weights in the forward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_dataset import write_dataset

from model.answers import scoring
from model.answers.scoring import Evaluation, Scores, forward_of
from model.data.batches import evaluation_batches, training_source
from model.data.examples import load_split
from model.network.devices import make_strategy
from model.train.loop import Loop, Task
from model.train.options import TrainConfig
from model.train.steps.state import TrainState, build_plain_model, build_step_model, set_evaluated_weights
from model.train.steps.step import make_forward
from pipeline.reader.dataset import Dataset, open_dataset
from pipeline.reader.records import Records
from schemas.errors import UserError

SIZE, CLASSES, BATCH, RECORDS = 16, 10, 8, 21
CONFIG = TrainConfig(
    "", "", arch="vgg11", width=1 / 16, dropout=0.5, ema=0.0, global_batch=BATCH, xla=False, precision="float32"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "raw"
    return open_dataset(write_dataset(folder, {"train": 40, "validation": RECORDS}, size=SIZE))


class Trained:
    """A step model with a state of random statistics, and the plain model with the same weights."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.strategy = make_strategy(1)
        self.model = build_step_model(CONFIG, SIZE, CLASSES, "float32")
        self.state = TrainState(self.model, self.strategy, CONFIG)
        for variable in (*self.state.weights, *self.state.statistics):
            variable.assign(np.abs(variable.numpy() + rng.normal(0, 0.05, variable.shape)).astype(np.float32))

    def plain(self) -> keras.Model:
        model = build_plain_model(CONFIG, SIZE, CLASSES)
        set_evaluated_weights(model, self.state)
        return model

    def scores(self, data: Dataset, batch: int = BATCH) -> Scores:
        forward = make_forward(self.model, self.state, CONFIG)
        return Evaluation(forward, self.strategy, batch).scores(data.records("validation"))

    def sums_of_the_loop(self, data: Dataset) -> list[float]:
        """Loss, top-1, top-5, samples."""
        config = replace(CONFIG, data=str(data.folder))
        source = training_source(data.records("train"), mode="memory", global_batch=BATCH, seed=0)
        nothing: Any = None
        task = Task(config, data, data.records("validation"), Path(data.folder), source, 10)
        loop = Loop(task, self.strategy, self.model, self.state, nothing, nothing, nothing, nothing)
        found: list[float] = loop._sums_over(data.records("validation")).tolist()
        return found


@pytest.mark.parametrize("batch", [1, BATCH, 100])
def test_it_is_exact_whatever_the_padding(data: Dataset, batch: int) -> None:
    """Held to Keras's own forward function and to sorting."""
    trained = Trained()
    images, labels = load_split(data.records("validation"))
    logits = trained.plain().predict(images.astype(np.float32) / 255, verbose=0)
    order = np.argsort(-logits, 1, kind="stable")
    scores = trained.scores(data, batch)
    np.testing.assert_array_equal(scores.label, labels)
    np.testing.assert_array_equal(scores.prediction, order[:, 0])
    np.testing.assert_array_equal(scores.rank, 1 + np.argmax(order == labels[:, None], 1))
    shifted = logits - logits.max(1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(RECORDS), labels]
    np.testing.assert_allclose(scores.loss, loss, rtol=1e-3, atol=1e-5)


def test_the_loop_sums_what_evaluate_tells_of_each_sample(data: Dataset) -> None:
    trained = Trained()
    scores = Evaluation(forward_of(trained.plain())).scores(data.records("validation"))
    loss, top1, top5, samples = trained.sums_of_the_loop(data)
    assert (top1, top5, samples) == ((scores.rank <= 1).sum(), (scores.rank <= 5).sum(), RECORDS)
    assert loss == pytest.approx(scores.loss.sum(), rel=1e-4)


def test_of_equal_logits_the_smaller_label_wins_everywhere(data: Dataset) -> None:
    trained = Trained()
    for variable in trained.state.weights[-2:]:  # kernel and bias of the last layer: every logit is 0
        variable.assign(np.zeros(variable.shape, np.float32))
    _, labels = load_split(data.records("validation"))
    evaluation = Evaluation(forward_of(trained.plain()))
    for scores in (trained.scores(data), evaluation.scores(data.records("validation"))):
        assert scores.rank.tolist() == (labels + 1).tolist()
        assert not scores.prediction.any()
    assert trained.sums_of_the_loop(data)[1:] == [(labels == 0).sum(), (labels < 5).sum(), RECORDS]
    logits, found = evaluation.logits(data.records("validation"), 10)
    np.testing.assert_array_equal(found, labels[:10])
    assert not logits.any()


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[256,64,64,64]"),
        tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
        tf.errors.UnknownError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_what_the_memory_doesnt_hold_is_said_in_a_line(data: Dataset, error: Exception) -> None:
    def forward(_: Any) -> Any:
        raise error

    for flag, said in (("--batch", r"--batch 16: .*choose a smaller --batch"), ("", "16 samples at once: .* end what")):
        with pytest.raises(UserError, match=said):
            Evaluation(forward, None, 16, flag=flag).scores(data.records("validation"))
    with pytest.raises(UserError, match="21 samples at once"):  # more would only be padding
        Evaluation(forward, None, 1 << 40).logits(data.records("validation"), 10)


def test_a_split_that_is_held_is_read_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def batches(records: Records, *others: Any) -> Any:
        read.append(records.split)
        return evaluation_batches(records, *others)

    monkeypatch.setattr(scoring, "evaluation_batches", batches)
    trained, validation = Trained(), data.records("validation")
    forward = make_forward(trained.model, trained.state, CONFIG)
    held, plain = (Evaluation(forward, trained.strategy, BATCH, hold=hold) for hold in (True, False))
    first, again, other = (one.scores(validation) for one in (held, held, plain))
    assert read == ["validation"] * 2
    for column in ("position", "label", "prediction", "loss"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
        np.testing.assert_array_equal(getattr(first, column), getattr(other, column))


def test_another_failure_is_no_lack_of_memory(data: Dataset) -> None:
    def forward(_: Any) -> Any:
        raise tf.errors.UnimplementedError(None, None, "no such kernel")

    with pytest.raises(tf.errors.UnimplementedError):
        Evaluation(forward).scores(data.records("validation"))


def test_a_diverged_model_is_refused_not_counted_as_right(data: Dataset) -> None:
    trained = Trained()
    trained.state.weights[-1].assign(np.full(CLASSES, np.nan, np.float32))
    with pytest.raises(UserError, match="aren't finite numbers"):
        trained.sums_of_the_loop(data)
