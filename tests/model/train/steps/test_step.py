from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from places import ROOT

from model.answers.scoring import cross_entropy
from model.data.source import TrainingSource
from model.network.devices import make_strategy
from model.network.vgg import normalize
from model.train.options import TrainConfig
from model.train.steps.calls import Steps
from model.train.steps.state import STATE_FIELDS, TrainState, build_step_model, first_copy
from model.train.steps.step import (
    compiled,
    make_forward_backward,
    policy_of,
    step_seed,
)
from model.train.steps.update import adamw, average, clip_factor, gradient_norm, learning_rate, update_norm

SIZE, CLASSES, BATCH = 16, 10, 16
CONFIG = TrainConfig(
    "",
    "",
    arch="vgg11",
    width=1 / 16,
    head="dense",
    dense_width=16,
    batch_norm=False,
    dropout=0.0,
    global_batch=BATCH,
    learning_rate=1e-3,
    augment="none",
    outliers=0.0,
    xla=True,
)


def batch_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(number)
    return random.integers(0, 256, (BATCH, SIZE, SIZE, 1), np.uint8), random.integers(0, CLASSES, BATCH, np.int32)


class Given(TrainingSource):
    """The batches 0, 1, … of `batch_of`."""

    mode = "given"

    def __init__(self) -> None:
        super().__init__(100 * BATCH, BATCH, 0)

    def batches(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        images, labels = map(np.stack, zip(*map(batch_of, range(first_step, min(last_step, 8))), strict=True))

        def parts(images: Any, labels: Any) -> Any:
            return tuple(zip(*(tf.split(column, replicas) for column in (images, labels)), strict=True))

        return tf.data.Dataset.from_tensor_slices((images, labels)).map(parts)


@functools.cache
def strategy_of(replicas: int) -> Any:
    return make_strategy(replicas)


@functools.cache
def run_steps(
    replicas: int, config: TrainConfig, steps: int, precision: str = "float32"
) -> tuple[TrainState, list[float]]:
    """`steps` steps on the batches 0, 1, …"""
    strategy = strategy_of(replicas)
    model = build_step_model(config, SIZE, CLASSES, policy_of(precision))
    state = TrainState(model, strategy, config)
    return state, Steps(model, state, config, strategy, Given(), 100)(0, steps)[:, 0].tolist()


@pytest.mark.slow
def test_two_replicas_make_the_step_of_one() -> None:
    """In a process of its own: a process makes one strategy of several replicas."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests" / "helpers", Path(__file__).parent])),
        "CUDA_VISIBLE_DEVICES": "",
    }
    code = "import test_step; test_step.compare_replicas()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["copies_differ"] == []
    assert found["gradient_difference"] < 1e-5
    assert found["weight_difference"] < 1e-6
    assert found["loss_difference"] < 1e-6
    assert found["replicas"] == 2
    assert found["statistics_differ"] == []


def compare_replicas() -> None:
    from model.network.devices import setup_tensorflow

    setup_tensorflow()
    two, losses_of_two = run_steps(2, CONFIG, 1)
    one, losses_of_one = run_steps(1, replace(CONFIG, xla=False), 1)
    gradient, weight = 0.0, 0.0
    for position, variable in enumerate(one.first_moments):
        # After one step the first moment is a tenth of the clipped gradient.
        a, b = first_copy(variable), first_copy(two.first_moments[position])
        gradient = max(gradient, float(abs(a - b).max() / abs(a).max()))
        # Adam's first step is the gradient's sign: where the gradient is nothing but rounding, so is its sign.
        clear = abs(a) > 1e-4 * abs(a).max()
        a, b = first_copy(one.weights[position]), first_copy(two.weights[position])
        weight = max(weight, float(abs(a - b)[clear].max()))
    # Several steps with all that differs by replica: dropout, augmentation, batch statistics.
    several, _ = run_steps(2, replace(CONFIG, batch_norm=True, dropout=0.5, augment="full", xla=False), 4)
    print(
        json.dumps(
            {
                "replicas": len(two.weights[0].values),
                "copies_differ": _differing(two) + _differing(several),
                "statistics_differ": [
                    position for position, variable in enumerate(several.statistics) if not _same_on_all(variable)
                ],
                "gradient_difference": gradient,
                "weight_difference": weight,
                "loss_difference": abs(losses_of_one[0] - losses_of_two[0]),
            }
        )
    )


def _differing(state: TrainState) -> list[str]:
    return [name for name in STATE_FIELDS for variable in getattr(state, name) if not _same_on_all(variable)]


def _same_on_all(variable: Any) -> bool:
    first, *others = (copy.numpy() for copy in variable.values)
    return bool(others) and all((first == other).all() for other in others)


def test_steps_in_one_call_are_the_steps_one_by_one() -> None:
    config = replace(CONFIG, dropout=0.5, augment="light", batch_norm=True, xla=False)
    at_once, losses = run_steps(1, config, 4)
    strategy = strategy_of(1)
    model = build_step_model(config, SIZE, CLASSES, "float32")
    state = TrainState(model, strategy, config)
    step = Steps(model, state, config, strategy, Given(), 100)
    assert [step(number, 1)[0, 0] for number in range(4)] == losses
    for name in STATE_FIELDS:
        for a, b in zip(getattr(at_once, name), getattr(state, name), strict=True):
            np.testing.assert_array_equal(a, b)


def test_xla_changes_nothing_but_rounding() -> None:
    (_, compiled), (_, plain) = (run_steps(1, replace(CONFIG, xla=xla), 2) for xla in (True, False))
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


def test_one_step_is_that_of_a_plain_keras_implementation() -> None:
    """An oracle without any of the code under test but the network: Keras's own loss, gradient and AdamW."""
    import keras

    config = replace(CONFIG, warmup_steps=0, schedule="constant", clip_norm=0.5, xla=False)
    state, (loss,) = run_steps(1, config, 1)
    model = build_step_model(config, SIZE, CLASSES, "float32")
    # Keras adds epsilon before it corrects the second moment's bias, which in step 1 is a factor of sqrt(0.001).
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05, global_clipnorm=0.5, epsilon=1e-7 * 0.001**0.5)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) == 1])
    images, labels = batch_of(0)
    with tf.GradientTape() as tape:
        logits = model(images.astype(np.float32) / 255, training=True)
        truth = tf.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
        expected = tf.reduce_mean(keras.losses.categorical_crossentropy(truth, logits, from_logits=True))
    gradients = tape.gradient(expected, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs, gradient in zip(state.weights, model.trainable_variables, gradients, strict=True):
        clear = abs(gradient.numpy()) > 1e-4 * abs(gradient.numpy()).max()
        np.testing.assert_allclose(ours.numpy()[clear], theirs.numpy()[clear], atol=2e-6)


@pytest.mark.slow
def test_sixteen_bits_keep_float32_weights_and_learn() -> None:
    state, losses = run_steps(1, CONFIG, 2, "bfloat16")
    assert all(variable.dtype == tf.float32 for variable in state.weights)
    _, exact = run_steps(1, CONFIG, 2)
    np.testing.assert_allclose(losses, exact, rtol=0.05)


def test_dropout_differs_by_step_and_replica_and_repeats() -> None:
    config = replace(CONFIG, dropout=0.5)
    model = build_step_model(config, SIZE, CLASSES, "float32")
    forward_backward = compiled(make_forward_backward(model, config, 1), True)
    weights = [tf.constant(variable.numpy()) for variable in model.trainable_variables]
    images, labels = batch_of(0)

    def loss(step: int, replica: int) -> float:
        seed = step_seed(config, tf.constant(step, tf.int64), replica, 2)
        return float(forward_backward(weights, [], images, labels, seed).loss)

    assert loss(3, 0) == loss(3, 0)
    assert len({loss(step, replica) for step in (0, 1, 2) for replica in (0, 1)}) == 6


def test_cross_entropy_is_kerass() -> None:
    logits = tf.constant(np.random.default_rng(0).normal(0, 3, (5, 7)).astype(np.float32))
    labels = tf.constant([0, 1, 6, 3, 3])
    for smoothing in (0.0, 0.2):
        truth = tf.one_hot(labels, 7) * (1 - smoothing) + smoothing / 7
        expected = tf.nn.softmax_cross_entropy_with_logits(truth, logits)
        np.testing.assert_allclose(cross_entropy(logits, labels, smoothing), expected, rtol=1e-5)


def test_full_ink_is_one() -> None:
    assert normalize(tf.constant([0, 255], tf.uint8)).numpy().tolist() == [0.0, 1.0]


def test_learning_rate_warms_up_and_falls() -> None:
    config = replace(CONFIG, learning_rate=1.0, warmup_steps=10)
    rates = [float(learning_rate(step, config, 100)) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.01 <= rates[-1] < 0.02
    falling = replace(config, schedule="exponential", warmup_steps=0, decay_steps=20, decay_rate=0.5)
    assert [float(learning_rate(step, falling, 100)) for step in (0, 19, 20, 59, 60)] == [1, 1, 0.5, 0.25, 0.125]


def test_clipping_keeps_the_direction() -> None:
    norm = gradient_norm([tf.constant([3.0, 0.0]), tf.constant([[4.0]])])
    assert float(norm) == pytest.approx(5)
    assert [float(clip_factor(norm, limit)) for limit in (10.0, 2.5, 0.0)] == pytest.approx([1, 0.5, 1])
    assert not np.isfinite(gradient_norm([tf.constant([1.0, np.inf])]))


def test_weights_move_as_the_paper_says() -> None:
    """AdamW by Loshchilov and Hutter, in NumPy, over four steps: kernels decay, vectors don't."""
    rng = np.random.default_rng(4)
    start = [rng.normal(size=shape) for shape in ((3, 2), (4,))]
    steps = [[rng.normal(size=value.shape) for value in start] for _ in range(4)]
    weights, first, second = ([tf.Variable(np.float32(of * value)) for value in start] for of in (1, 0, 0))
    expected, m, v = [value.copy() for value in start], [0 * value for value in start], [0 * value for value in start]
    for t, gradients in enumerate(steps, start=1):
        adamw(weights, first, second, [tf.constant(np.float32(g)) for g in gradients], t - 1, 0.01, 0.5)
        for i, g in enumerate(gradients):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            change = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-7)
            expected[i] -= 0.01 * (change + (0.5 * expected[i] if g.ndim > 1 else 0))
    for found, wanted in zip([*weights, *first, *second], [*expected, *m, *v], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_update_norm_is_how_far_the_weights_went() -> None:
    config = replace(CONFIG, xla=False, warmup_steps=0, schedule="constant")
    (before, _), (after, _) = (run_steps(1, config, steps) for steps in (2, 3))
    moved = [b.numpy() - a.numpy() for a, b in zip(before.weights, after.weights, strict=True)]
    expected = np.sqrt(sum((values.astype(float) ** 2).sum() for values in moved))
    found = update_norm(after.weights, after.first_moments, after.second_moments, 2, 1e-3, config.weight_decay)
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_averages_follow_faster_when_young() -> None:
    averages = [tf.Variable(0.0) for _ in range(3)]
    for variable, step in zip(averages, (0, 90, 10**6), strict=True):
        average([variable], [tf.ones([])], step, 0.999)
    np.testing.assert_allclose(averages, [0.9, 0.09, 0.001], rtol=1e-2)


def test_state_fields_are_those_of_the_state() -> None:
    assert set(STATE_FIELDS) <= set(vars(run_steps(1, CONFIG, 2)[0]))
