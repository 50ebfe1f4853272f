"""The update of the weights from their gradients: clipping, AdamW, moving averages."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from model.train.options import TrainConfig

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_FINAL_SHARE = 0.01  # of the peak learning rate, where the cosine ends


def learning_rate(step: Any, config: TrainConfig, total_steps: int) -> Any:
    """The learning rate of `step` (from 0), float32: linear warm-up, then the schedule."""
    step = tf.cast(step, tf.float32)
    warmup = min(1_000, total_steps // 20) if config.warmup_steps is None else config.warmup_steps
    after = tf.maximum(step - warmup, 0.0)
    if config.schedule == "cosine":
        done = tf.minimum(after / max(1, total_steps - warmup), 1.0)
        factor = _FINAL_SHARE + (1 - _FINAL_SHARE) * 0.5 * (1 + tf.cos(math.pi * done))
    elif config.schedule == "exponential":
        factor = tf.pow(config.decay_rate, tf.floor(after / config.decay_steps))
    else:
        factor = tf.ones([])
    return config.learning_rate * tf.minimum((step + 1) / (warmup + 1), 1.0) * factor


def gradient_norm(gradients: list[Any]) -> Any:
    """Of all gradients together, float32; not finite where a gradient isn't."""
    return tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients]))


def clip_factor(norm: Any, clip_norm: float) -> Any:
    """What gradients of that norm are multiplied by to have at most `clip_norm`; 0 is off."""
    return clip_norm / tf.maximum(norm, clip_norm) if clip_norm else tf.ones([])


def adamw(
    weights: list[Any],
    first: list[Any],
    second: list[Any],
    gradients: list[Any],
    step: Any,
    rate: Any,
    decay: float,
) -> None:
    """Assigns the variables of weights and of both moments. Decay is decoupled, and spares biases and normalisation.

    One operation a weight that reads and writes memory once: put together from TensorFlow's arithmetic it would be a
    dozen.
    """
    t = tf.cast(step, tf.float32) + 1
    power_1, power_2 = tf.pow(_BETA_1, t), tf.pow(_BETA_2, t)
    for weight, m, v, gradient in zip(weights, first, second, gradients, strict=True):
        if weight.shape.rank > 1:
            weight.assign(weight * (1 - rate * decay))
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=_BETA_1,
            beta2=_BETA_2,
            epsilon=_EPSILON * tf.sqrt(1 - power_2),  # it is added before the second moment's bias is corrected
            grad=gradient,
        )


def update_norm(weights: list[Any], first: list[Any], second: list[Any], step: Any, rate: Any, decay: float) -> Any:
    """How far `step`, which left these behind, has moved all weights together, by `adamw`'s arithmetic; float32."""
    t = tf.cast(step, tf.float32) + 1
    power_1, power_2 = tf.pow(_BETA_1, t), tf.pow(_BETA_2, t)
    scale = rate * tf.sqrt(1 - power_2) / (1 - power_1)
    moved = []
    for weight, m, v in zip(weights, first, second, strict=True):
        change = scale * m / (tf.sqrt(v) + _EPSILON * tf.sqrt(1 - power_2))
        shrunk = rate * decay if weight.shape.rank > 1 else 0.0
        moved.append(change + shrunk * (weight + change) / (1 - shrunk))
    return gradient_norm(moved)


def average(averages: list[Any], values: list[Any], step: Any, decay: float) -> None:
    """Moves the variables of moving averages towards `values`.

    Young ones follow faster, so that a short run isn't held to its first weights.
    """
    step = tf.cast(step, tf.float32)
    share = 1 - tf.minimum(decay, (1 + step) / (10 + step))
    for variable, value in zip(averages, values, strict=True):
        delta = variable - value
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=share, delta=delta)
