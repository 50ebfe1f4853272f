"""The training step, for any strategy, and the forward function of an evaluation.

Per replica one XLA cluster, on processors a plain graph, runs from the uint8 batch to the gradients; the sum over the
replicas lies outside it, since collectives can't be compiled; a second cluster updates the weights. Several steps run
in one call.
"""

from __future__ import annotations

from collections.abc import Callable
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
from model.train.state import TrainState, non_trainable_values, own_copies, statistics_among
from model.train.update import adamw, average, clip_factor, gradient_norm, learning_rate

_HOST = "CPU:0"


class ForwardBackward(NamedTuple):
    """What a replica learns from its batch, as shares of the whole step: they sum up over the replicas."""

    gradients: list[Any]
    statistics: list[Any]
    loss: Any
    """Mean cross entropy of the batch, float32."""
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
    """int64 [2], different for every seed, step and replica.

    int64, as all that a step is told: TensorFlow keeps a GPU's int32 in host memory, and what travels to the GPU for a
    step travels behind the kernels of the step before, which the host then waits for.
    """
    return tf.stack([tf.constant(config.seed, tf.int64), step * replicas + tf.cast(replica, tf.int64)])


def make_forward_backward(model: keras.Model, config: TrainConfig, replicas: int) -> Callable[..., ForwardBackward]:
    """(weights, statistics, uint8 [B, s, s, 1], int32 [B], seed) -> ForwardBackward, one XLA cluster.

    Weights and statistics are tensors or variables, which the cluster reads.
    """
    distortion = PRESETS[config.augment]

    def forward_backward(
        weights: list[Any], statistics: list[Any], images: Any, labels: Any, seed: Any
    ) -> ForwardBackward:
        weights, statistics, seed = tensors(weights), tensors(statistics), tf.cast(seed, tf.int32)
        inputs = normalize(images)
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
        return ForwardBackward(
            gradients=tape.gradient(loss, weights),
            statistics=[value / replicas for value in statistics_among(model, state)],
            loss=loss,
            accuracy=tf.reduce_mean(correct[strange:]) / replicas,
        )

    return compiled(forward_backward, config.xla)


def make_update(config: TrainConfig, total_steps: int) -> Callable[..., None]:
    """(variables of a replica's state, summed ForwardBackward, step) assigns their new values, one XLA cluster."""

    def update(variables: dict[str, list[Any]], summed: ForwardBackward, step: Any) -> None:
        rate = learning_rate(step, config, total_steps)
        factor = clip_factor(gradient_norm(summed.gradients), config.clip_norm)
        gradients = [gradient * factor for gradient in summed.gradients]
        weights = variables["weights"]
        moments = variables["first_moments"], variables["second_moments"]
        adamw(weights, *moments, gradients, step, rate, config.weight_decay)
        for variable, value in zip(variables["statistics"], summed.statistics, strict=True):
            variable.assign(value)
        if config.ema:
            average(variables["average_weights"], weights, step, config.ema)
            average(variables["average_statistics"], summed.statistics, step, config.ema)

    return compiled(update, config.xla)


def make_step(
    model: keras.Model, state: TrainState, config: TrainConfig, strategy: Any, total_steps: int
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """(iterator, first step, count) -> losses float32 [count], accuracies float32 [count].

    The iterator gives, for each local replica, (uint8 [config.global_batch / replicas, s, s, 1], int32 [the same]), as
    a TrainingSource does, or is a distributed one that gives each replica a tuple of its own part alone.
    Runs `count` steps in one call and leaves their result in `state`. Step and count are int64 scalar tensors.
    """
    replicas = strategy.num_replicas_in_sync
    forward_backward = make_forward_backward(model, config, replicas)
    update = make_update(config, total_steps)

    def replica_step(parts: Any, numbers: Any, index: Any) -> tuple[Any, Any]:
        context = tf.distribute.get_replica_context()
        step = numbers[index]
        images, labels = own_part(parts)
        # The clusters read and assign the variables: outside them that would be hundreds of operations a step.
        variables = {name: own_copies(getattr(state, name)) for name in STATE_FIELDS}
        seed = step_seed(config, step, context.replica_id_in_sync_group, replicas)
        result = forward_backward(variables["weights"], variables["statistics"], images, labels, seed)
        if replicas > 1:
            flat = tf.nest.flatten(result)
            result = tf.nest.pack_sequence_as(result, context.all_reduce(tf.distribute.ReduceOp.SUM, flat))
        update(variables, result, step)
        return result.loss, result.accuracy

    def steps(iterator: Any, first_step: Any, count: Any) -> tuple[Any, Any]:
        numbers = strategy.run(lambda: first_step + tf.range(count))  # on every replica's device
        with tf.device(_HOST):
            count = tf.cast(count, tf.int32)
            losses, accuracies = (tf.TensorArray(tf.float32, size=count) for _ in range(2))
            for index in tf.range(count):
                with tf.device(None):
                    loss, accuracy = strategy.run(replica_step, args=(next(iterator), numbers, index))
                losses = losses.write(index, strategy.experimental_local_results(loss)[0])
                accuracies = accuracies.write(index, strategy.experimental_local_results(accuracy)[0])
            return losses.stack(), accuracies.stack()

    return tf.function(steps, reduce_retracing=True)


STATE_FIELDS = (
    "weights",
    "statistics",
    "first_moments",
    "second_moments",
    "average_weights",
    "average_statistics",
)
"""The lists of variables in TrainState."""


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
