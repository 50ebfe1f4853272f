"""Batch normalisation, ReLU and max-pool in one layer, its gradient written out: a step's work between convolutions.

On a GPU these passes over the feature maps wait for memory, not for arithmetic, so what counts is how often a map is
read and written. TensorFlow's own gradient reads it once for its mean and again for its variance, and keeps what ReLU
and the pool let through. This one reads a map once for both moments and once to normalise it; on the way back a map and
the gradient that comes in are read twice. What ReLU let through is computed again; a pool keeps its maxima and where
they were. Under XLA it is deterministic, which the gradient of a pooling layer isn't on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

_NO_CORNER = 4


class NormalizedReLU(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization over the last axis, then ReLU and a max-pool if asked for: the same function.

    float32 inside, the layer's compute type outside. The same weights in the same order. The pool is 2 × 2, stride 2;
    an odd last row or column is left out, as keras.layers.MaxPooling2D does.
    """

    def __init__(self, *, rectified: bool = True, pooled: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.rectified = rectified
        self.pooled = pooled

    def compute_output_shape(self, input_shape: Any) -> Any:
        if not self.pooled:
            return input_shape
        return (input_shape[0], input_shape[1] // 2, input_shape[2] // 2, input_shape[3])

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable):  # held still, it normalises as in an evaluation
            outputs = super().call(inputs, training=False, mask=mask)
            outputs = keras.ops.relu(outputs) if self.rectified else outputs
            return keras.ops.max_pool(outputs, 2) if self.pooled else outputs
        outputs, mean, variance = normalized(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            tf.convert_to_tensor(self.moving_mean),
            epsilon=self.epsilon,
            rectified=self.rectified,
            pooled=self.pooled,
        )
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)


def normalized(
    x: Any, gamma: Any, beta: Any, near: Any, *, epsilon: float, rectified: bool, pooled: bool
) -> tuple[Any, Any, Any]:
    """The outputs in x's type, and the batch's mean and variance, float32 [C], which carry no gradient.

    x is [..., C], for a pool, which is one of what ReLU gives, [B, s, s, C]; gamma, beta and `near` are float32 [C].
    `near` should be near the mean: it is subtracted before squaring, so that the variance is no difference of large
    numbers.
    """
    activation = _pooled if pooled else _rectified if rectified else _linear
    axes = list(range(x.shape.rank - 1))

    def on_tape(x: Any, gamma: Any, beta: Any, near: Any) -> Any:
        count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
        shifted = tf.cast(x, tf.float32) - near
        first = tf.reduce_sum(shifted, axes) / count
        variance = tf.maximum(tf.reduce_sum(tf.square(shifted), axes) / count - tf.square(first), 0.0)
        mean = near + first
        scale = tf.math.rsqrt(variance + epsilon)
        slope = gamma * scale
        outputs, back = activation(x, mean, slope, beta)

        def gradient(outer: Any, *_: Any) -> tuple[Any, Any, Any, Any]:
            given, at, spread = back(tf.cast(outer, tf.float32))
            of_beta = tf.reduce_sum(given, axes)
            of_gamma = tf.reduce_sum(given * (tf.cast(at, tf.float32) - mean), axes) * scale
            centred = tf.cast(x, tf.float32) - mean
            of_x = slope * (spread(given) - of_beta / count - centred * (scale * of_gamma / count))
            return tf.cast(of_x, x.dtype), of_gamma, of_beta, tf.zeros_like(near)

        return (tf.cast(outputs, x.dtype), mean, variance), gradient

    outputs, mean, variance = tf.custom_gradient(on_tape)(x, gamma, beta, near)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


# Each activation is (x, mean, slope, beta) -> (outputs float32, back), and back(gradient of the outputs) -> (the
# gradient of those normalised values that get one, the x they are of, a function that gives every x its gradient).

_Back = Callable[[Any], tuple[Any, Any, Callable[[Any], Any]]]


def _line(x: Any, mean: Any, slope: Any, beta: Any) -> Any:
    return tf.cast(x, tf.float32) * slope + (beta - mean * slope)


def _linear(x: Any, mean: Any, slope: Any, beta: Any) -> tuple[Any, _Back]:
    return _line(x, mean, slope, beta), lambda outer: (outer, x, lambda given: given)


def _rectified(x: Any, mean: Any, slope: Any, beta: Any) -> tuple[Any, _Back]:
    def back(outer: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
        # Another expression than on the way there: of the same one XLA would write the result to memory and read it.
        positive = (tf.cast(x, tf.float32) - mean) * slope > -beta
        return tf.where(positive, outer, 0.0), x, lambda given: given

    return tf.nn.relu(_line(x, mean, slope, beta)), back


def _pooled(x: Any, mean: Any, slope: Any, beta: Any) -> tuple[Any, _Back]:
    """Of equal values the first one wins; it alone gets the gradient."""
    rows, columns, channels = x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    squares = tf.reshape(x[:, : 2 * rows, : 2 * columns], [-1, rows, 2, columns, 2, channels])
    corners = [squares[:, :, row, :, column] for row in (0, 1) for column in (0, 1)]
    highest, lowest = (of(of(*corners[:2]), of(*corners[2:])) for of in (tf.maximum, tf.minimum))
    chosen = tf.where(slope >= 0, highest, lowest)
    outputs = tf.nn.relu(_line(chosen, mean, slope, beta))
    corner = tf.constant(_NO_CORNER - 1, tf.int8)
    for number in reversed(range(_NO_CORNER - 1)):
        corner = tf.where(tf.equal(corners[number], chosen), tf.constant(number, tf.int8), corner)
    corner = tf.where(outputs > 0, corner, tf.constant(_NO_CORNER, tf.int8))

    def back(outer: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
        def spread(given: Any) -> Any:
            numbers = tf.reshape(tf.cast(tf.range(_NO_CORNER), tf.int8), [1, 1, 2, 1, 2, 1])
            here = tf.equal(corner[:, :, None, :, None], numbers)
            values = tf.reshape(tf.where(here, given[:, :, None, :, None], 0.0), [-1, 2 * rows, 2 * columns, channels])
            return tf.pad(values, [[0, 0], [0, x.shape[1] % 2], [0, x.shape[2] % 2], [0, 0]])

        return tf.where(corner < _NO_CORNER, outer, 0.0), chosen, spread

    return outputs, back
