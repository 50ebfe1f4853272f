"""The update of the weights from their gradients: clipping, AdamW, moving averages, loss scaling. Pure functions."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from model.options import TrainConfig

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_FINAL_SHARE = 0.01  # of the peak learning rate, where the cosine ends

INITIAL_LOSS_SCALE = 2.0**15
_LOSS_SCALE_STEPS = 1_000  # finite steps in a row after which the scale doubles
_MAX_LOSS_SCALE = 2.0**24


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


def clipped(gradients: list[Any], clip_norm: float) -> list[Any]:
    """The gradients of a whole step, scaled down where their global norm is above `clip_norm`; 0 is off."""
    if not clip_norm:
        return gradients
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
    factor = clip_norm / tf.maximum(norm, clip_norm)
    return [gradient * factor for gradient in gradients]


def adamw(
    weights: list[Any], first: list[Any], second: list[Any], gradients: list[Any], step: Any, rate: Any, decay: float
) -> tuple[list[Any], list[Any], list[Any]]:
    """New weights, first and second moments. Decay is decoupled, and spares biases and normalisation."""
    t = tf.cast(step, tf.float32) + 1
    rate_1, rate_2 = 1 / (1 - tf.pow(_BETA_1, t)), 1 / (1 - tf.pow(_BETA_2, t))
    new_weights, new_first, new_second = [], [], []
    for weight, m, v, gradient in zip(weights, first, second, gradients, strict=True):
        m = _BETA_1 * m + (1 - _BETA_1) * gradient
        v = _BETA_2 * v + (1 - _BETA_2) * tf.square(gradient)
        change = m * rate_1 / (tf.sqrt(v * rate_2) + _EPSILON)
        if weight.shape.rank > 1:
            change += decay * weight
        new_weights.append(weight - rate * change)
        new_first.append(m)
        new_second.append(v)
    return new_weights, new_first, new_second


def averaged(averages: list[Any], values: list[Any], step: Any, decay: float) -> list[Any]:
    """Moving averages; young ones follow faster, so that a short run isn't held to its first weights."""
    step = tf.cast(step, tf.float32)
    keep = tf.minimum(decay, (1 + step) / (10 + step))
    return [keep * average + (1 - keep) * value for average, value in zip(averages, values, strict=True)]


def all_finite(tensors: list[Any]) -> Any:
    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors]))


def next_loss_scale(scale: Any, good_steps: Any, finite: Any) -> tuple[Any, Any]:
    """Halved when a gradient overflowed, doubled after a long run of good steps."""
    good_steps = tf.where(finite, good_steps + 1, 0)
    double = good_steps >= _LOSS_SCALE_STEPS
    grown = tf.where(double, tf.minimum(scale * 2, _MAX_LOSS_SCALE), scale)
    return tf.where(finite, grown, tf.maximum(scale / 2, 1.0)), tf.where(double, 0, good_steps)
