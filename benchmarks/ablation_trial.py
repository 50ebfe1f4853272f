"""One trial of an ablation: bitmaps through `preprocess`, a narrow VGG through the trainer's own step, accuracy out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from ablation_records import PHOTO_STRIDE, photographed, read_member, split_members
from ablation_variants import Variant

from model.answers.scoring import score
from model.data.batches import MemorySource
from model.data.examples import aligned_empty
from model.network.devices import make_strategy
from model.train.options import TrainConfig
from model.train.steps.calls import Steps
from model.train.steps.state import TrainState, build_step_model, statistics_of
from model.train.steps.step import make_forward
from pipeline.steps.plain import Unusable, preprocess

BATCH = 32
STEPS = 750  # 10 times 2,400 samples
NETWORK = {"arch": "vgg11", "width": 0.125, "dropout": 0.2}
TRAINING = {"global_batch": BATCH, "learning_rate": 2e-3, "ema": 0.99, "outliers": 0.0, "log_steps": STEPS}
_CALL_STEPS = 50
_EVALUATION_BATCH = 100


class Samples(NamedTuple):
    """What is left of some records after preprocessing."""

    images: np.ndarray
    """uint8 [n, s, s, 1]."""
    labels: np.ndarray
    """int32 [n]."""
    records: int
    """Before it, those that gave no sample included."""


def run_trial(variant: Variant, seed: int, members: Sequence[Path]) -> dict[str, Any]:
    """Trains once and returns what is to be told. An unusable record counts as read wrong."""
    started = time.monotonic()
    train_on, validate_on = split_members(members, seed)
    classes = tuple(int(tag) for tag in np.unique(np.concatenate([read_member(path).tags for path in members])))
    train = samples_of(variant, train_on, classes, photos=False)
    scans = samples_of(variant, validate_on, classes, photos=False)
    photos = samples_of(variant, validate_on, classes, photos=True)
    trainer = trainer_of(variant.size, variant.augment, len(classes))
    trainer.start(seed)
    loss = trainer.train(train, seed)
    right, validation_loss = trainer.evaluate(scans)
    right_photos, _ = trainer.evaluate(photos)
    return {
        "variant": variant.name,
        "seed": seed,
        "training_samples": len(train.labels),
        "training_records": train.records,
        "validation_records": scans.records,
        "accuracy": right / scans.records,
        "accuracy_photos": right_photos / photos.records,
        "validation_loss": validation_loss,
        "training_loss": loss,
        "seconds": round(time.monotonic() - started, 1),
    }


def samples_of(variant: Variant, paths: Sequence[Path], classes: tuple[int, ...], *, photos: bool) -> Samples:
    images, labels, records = [], [], 0
    for path in paths:
        member = read_member(path)
        bitmaps: Sequence[np.ndarray | None] = photographed(path) if photos else member.bitmaps
        tags = member.tags[::PHOTO_STRIDE] if photos else member.tags
        records += len(bitmaps)
        for bitmap, tag in zip(bitmaps, tags, strict=True):
            if bitmap is None:
                continue
            for change in variant.before:
                bitmap = change(bitmap)
            try:
                image = preprocess(bitmap, variant.config).image
            except Unusable:
                continue
            for change in variant.after:
                image = change(image)
            images.append(image)
            labels.append(classes.index(int(tag)))
    aligned = aligned_empty((len(images), *images[0].shape, 1))
    aligned[..., 0] = images
    return Samples(aligned, np.array(labels, np.int32), records)


class Trainer:
    """A network and its compiled step, used for one trial after another: compiling takes longer than a trial's end."""

    def __init__(self, image_size: int, augment: str, classes: int) -> None:
        self._shape = (image_size, classes)
        self._config = TrainConfig("", "", augment=augment, **NETWORK, **TRAINING)
        strategy = make_strategy(1)
        model = self._model(0)
        self._state = TrainState(model, strategy, self._config)
        self._step = Steps(model, self._state, self._config, strategy, None, STEPS)
        forward = make_forward(model, self._state, self._config)
        self._score = tf.function(lambda images, labels: score(forward(images), labels, 1.0), reduce_retracing=True)

    def start(self, seed: int) -> None:
        """Fresh weights."""
        model, state = self._model(seed), self._state
        weights, statistics = model.trainable_variables, statistics_of(model)
        for variables, values in (
            (state.weights, weights),
            (state.average_weights, weights),
            (state.statistics, statistics),
            (state.average_statistics, statistics),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(np.asarray(value))
        for variable in (*state.first_moments, *state.second_moments):
            variable.assign(tf.zeros_like(variable))

    def train(self, samples: Samples, seed: int) -> float:
        """The mean loss of the last calls."""
        source = MemorySource(samples.images, samples.labels, BATCH, seed)
        self._step.restart(source)
        for first in range(0, STEPS, _CALL_STEPS):
            losses = self._step(first, _CALL_STEPS)[:, 0]
        return float(np.mean(losses))

    def evaluate(self, samples: Samples) -> tuple[int, float]:
        """(how many are read right, mean loss of all)."""
        right, loss = 0, 0.0
        for first in range(0, len(samples.labels), _EVALUATION_BATCH):
            part = slice(first, first + _EVALUATION_BATCH)
            *_, rank, losses = self._score(samples.images[part], samples.labels[part])
            right += int(np.count_nonzero(rank.numpy() == 1))
            loss += float(losses.numpy().sum(dtype=np.float64))
        return right, loss / len(samples.labels)

    def _model(self, seed: int) -> Any:
        config = TrainConfig("", "", augment=self._config.augment, seed=seed, **NETWORK, **TRAINING)
        return build_step_model(config, *self._shape, "float32")


@cache
def trainer_of(image_size: int, augment: str, classes: int) -> Trainer:
    return Trainer(image_size, augment, classes)
