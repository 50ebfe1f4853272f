"""The training step, for any strategy, and the forward function of an evaluation.

A step is forward, backward, sum over the replicas, update. For one replica all of that is one XLA cluster, for several
GPUs too; elsewhere there are two, and between them the sum of one flat vector: XLA compiles no collectives for
processors, which have a plain graph unless they are told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from model.answers.scoring import cross_entropy
from model.network.augment import PRESETS, augment
from model.network.devices import has_gpu, own_part, place_of
from model.network.outliers import outlier_count, outliers
from model.network.vgg import normalize
from model.train.options import TrainConfig
from model.train.steps.state import TrainState, non_trainable_values, own_copies, statistics_among
from model.train.steps.update import adamw, average, clip_factor, gradient_norm, learning_rate

FIGURES = ("loss", "accuracy", "gradient_norm")


class Learned(NamedTuple):
    """What a replica learns from its batch, as shares of the whole step: they sum up over the replicas. All float32."""

    gradients: list[Any]
    statistics: list[Any]
    loss: Any
    """Mean cross entropy of the batch."""
    accuracy: Any


def policy_of(precision: str) -> str:
    """The Keras policy of a resolved precision."""
    return "float32" if precision == "float32" else f"mixed_{precision}"


def resolve_precision(precision: str) -> str:
    """float32 or bfloat16; "auto" asks the GPUs."""
    if precision != "auto":
        return precision
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return "bfloat16" if min(capabilities, default=(0, 0)) >= (8, 0) else "float32"


def resolve_xla(xla: bool | None) -> bool:
    """What None stands for. On two idle cores XLA is worth 0.8 to 1.3 times its absence, on busy ones a fraction."""
    return has_gpu() if xla is None else xla


def step_seed(config: TrainConfig, step: Any, replica: Any, replicas: int) -> Any:
    """int64 [2], different for every seed, int64 step and replica.

    int64, as all that a step is told: TensorFlow keeps a GPU's int32 in host memory, and what travels to the GPU for a
    step travels behind the kernels of the step before, which the host then waits for.
    """
    return tf.stack([tf.constant(config.seed, tf.int64), step * replicas + tf.cast(replica, tf.int64)])


def make_forward_backward(model: keras.Model, config: TrainConfig, replicas: int) -> Callable[..., Learned]:
    """(weights, statistics, uint8 [B, s, s, 1], int [B], seed) -> Learned.

    Weights and statistics are tensors or variables, which it reads.
    """
    distortion = PRESETS[config.augment]

    def forward_backward(weights: list[Any], statistics: list[Any], images: Any, labels: Any, seed: Any) -> Learned:
        weights, statistics, seed = tensors(weights), tensors(statistics), tf.cast(seed, tf.int32)
        inputs, labels = normalize(images), tf.cast(labels, tf.int32)
        strange = outlier_count(config.outliers, images.shape[0])
        if strange:
            inputs = tf.concat([outliers(inputs[:strange], seed), inputs[strange:]], 0)
        if distortion.any:
            inputs = augment(inputs, seed, distortion)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            state = non_trainable_values(model, statistics, seed)
            logits, state = model.stateless_call(weights, state, inputs, training=True)
            # Of what is no character every answer is as good as any other: smoothed all the way.
            smoothing = tf.constant([1.0] * strange + [config.label_smoothing] * (images.shape[0] - strange))
            loss = tf.reduce_mean(cross_entropy(logits, labels, smoothing)) / replicas
        correct = tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), labels), tf.float32)
        return Learned(
            gradients=tape.gradient(loss, weights),
            statistics=[value / replicas for value in statistics_among(model, state)],
            loss=loss,
            accuracy=tf.reduce_mean(correct[strange:]) / replicas,
        )

    return forward_backward


def make_update(config: TrainConfig, total_steps: int) -> Callable[..., Any]:
    """(variables of a replica's state, summed Learned, step) assigns their new values -> FIGURES, float32 [3]."""

    def update(variables: dict[str, list[Any]], summed: Learned, step: Any) -> Any:
        rate = learning_rate(step, config, total_steps)
        norm = gradient_norm(summed.gradients)
        factor = clip_factor(norm, config.clip_norm)
        gradients = [gradient * factor for gradient in summed.gradients]
        weights = variables["weights"]
        moments = variables["first_moments"], variables["second_moments"]
        adamw(weights, *moments, gradients, step, rate, config.weight_decay)
        for variable, value in zip(variables["statistics"], summed.statistics, strict=True):
            variable.assign(value)
        if config.ema:
            average(variables["average_weights"], weights, step, config.ema)
            average(variables["average_statistics"], summed.statistics, step, config.ema)
        return tf.stack([summed.loss, summed.accuracy, norm])

    return update


def make_replica_step(
    model: keras.Model, config: TrainConfig, replicas: int, total_steps: int, *, together: bool
) -> Callable[..., Any]:
    """(variables of a replica's state, images, labels, step, seed) -> FIGURES, float32 [3].

    `together` leaves it to the caller to compile all of it; otherwise what lies before and after the sum is compiled.
    """
    forward_backward, update = make_forward_backward(model, config, replicas), make_update(config, total_steps)
    part = (lambda function: function) if together else partial(compiled, xla=config.xla)

    def before(weights: list[Any], statistics: list[Any], images: Any, labels: Any, seed: Any) -> Any:
        learned = forward_backward(weights, statistics, images, labels, seed)
        return learned if replicas == 1 else flat(learned)

    def after(variables: dict[str, list[Any]], summed: Any, step: Any) -> Any:
        learned = summed if replicas == 1 else as_learned(summed, variables["weights"], variables["statistics"])
        return update(variables, learned, step)

    before, after = part(before), part(after)

    def replica_step(variables: dict[str, list[Any]], images: Any, labels: Any, step: Any, seed: Any) -> Any:
        learned = before(variables["weights"], variables["statistics"], images, labels, seed)
        if replicas > 1:
            learned = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, learned)
        return after(variables, learned, step)

    return replica_step


def flat(learned: Learned) -> Any:
    """All of it as one vector: a sum over the replicas is one operation, whatever the number of weights."""
    return tf.concat([tf.reshape(value, [-1]) for value in tf.nest.flatten(learned)], 0)


def as_learned(vector: Any, weights: list[Any], statistics: list[Any]) -> Learned:
    """What `flat` was given."""
    shapes = [*(value.shape for value in (*weights, *statistics)), (), ()]
    parts = tf.split(vector, [int(np.prod(shape)) for shape in shapes])
    *values, loss, accuracy = (tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True))
    return Learned(values[: len(weights)], values[len(weights) :], loss, accuracy)


def make_forward(model: keras.Model, state: TrainState, config: TrainConfig) -> Callable[[Any], Any]:
    """uint8 [B, s, s, 1] -> float32 logits [B, classes] by the weights to evaluate, one XLA cluster a replica."""
    weights, statistics = state.evaluated

    def forward(weights: list[Any], statistics: list[Any], images: Any) -> Any:
        values = non_trainable_values(model, tensors(statistics), None)
        logits, _ = model.stateless_call(tensors(weights), values, normalize(images), training=False)
        return logits

    run = compiled(forward, config.xla)
    return lambda images: run(own_copies(weights), own_copies(statistics), images)


def make_total(strategy: Any) -> Callable[[np.ndarray], np.ndarray]:
    """(float64 [n] of this worker) -> their sums over all workers. Every worker has to ask."""
    others = strategy.num_replicas_in_sync // place_of(strategy).workers - 1

    def replica_sum(values: Any) -> Any:
        own = own_part([values] + [tf.zeros_like(values)] * others)  # a worker's count once, not for each replica
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(own))

    total = tf.function(lambda values: strategy.run(replica_sum, args=(values,)), autograph=False)

    def summed(values: np.ndarray) -> np.ndarray:
        return strategy.experimental_local_results(total(tf.constant(values, tf.float64)))[0].numpy()

    return summed


def tensors(values: list[Any]) -> list[Any]:
    """Of tensors or variables: a cluster that is given variables reads them itself."""
    return [tf.convert_to_tensor(value) for value in values]


def compiled(function: Callable[..., Any], xla: bool | None) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True if resolve_xla(xla) else None, autograph=False)
