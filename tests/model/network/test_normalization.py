"""The layer of the training step against the standard layers and their derived gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.network.normalization import NormalizedReLU, normalized

CHANNELS = 5
KINDS = {
    "normalised": {"rectified": False},
    "rectified": {},
    "pooled": {"pooled": True},
}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "XLA"])
@pytest.mark.parametrize("shape", [(6, 8, 8), (3, 5, 7), (4, 9, 6)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_values_gradients_and_statistics_are_those_of_the_standard_layers(
    kind: str, shape: tuple[int, ...], compiled: bool
) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(0.3, 2, (*shape, CHANNELS)).astype(np.float32)
    ours = _layer(**KINDS[kind])
    theirs = _standard(**KINDS[kind])
    ours.build(images.shape)
    weights = [
        np.float32([1.5, -0.7, 0.2, -2, 1]),
        np.float32([0.5, 0.1, -0.3, 0, 2]),
        rng.normal(0, 1, CHANNELS).astype(np.float32),
        rng.uniform(0.5, 2, CHANNELS).astype(np.float32),
    ]
    for layer in (ours, theirs.layers[1]):
        layer.set_weights(weights)
    outer = rng.normal(0, 1, theirs(images).shape).astype(np.float32)
    found = _with_gradients(ours, [ours.gamma, ours.beta], images, outer, compiled)
    expected = _with_gradients(theirs, theirs.trainable_variables, images, outer, False)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(ours.get_weights(), theirs.layers[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(images, training=False), theirs(images, training=False), rtol=1e-5, atol=1e-5)


def test_of_equal_values_in_a_pool_the_first_one_gets_the_gradient() -> None:
    image = tf.constant([[3.0, 3, 0, -9], [3, 0, 2, 2]])[None, :, :, None]
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs, _, _ = _pool(image)
    gradient = tape.gradient(outputs, image, tf.constant([[[[10.0], [100.0]]]]))[0, :, :, 0].numpy()
    # What the moments add is the same for equal values.
    assert gradient[0, 0] - gradient[0, 1] == pytest.approx(10 * _scale(image), rel=1e-4)
    assert gradient[0, 1] == pytest.approx(gradient[1, 0], rel=1e-4)
    assert gradient[1, 2] - gradient[1, 3] == pytest.approx(100 * _scale(image), rel=1e-4)


def test_a_pool_of_nothing_but_what_relu_drops_has_no_gradient_of_its_own() -> None:
    image = tf.constant([[-3.0, -2, 1, 2], [-1, -2, 3, 4]])[None, :, :, None]
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs, _, _ = _pool(image)
    assert outputs[0, 0, 0, 0] == 0
    gradient = tape.gradient(outputs, image, tf.constant([[[[1.0], [0.0]]]]))
    np.testing.assert_array_equal(gradient, np.zeros_like(image))


def test_the_variance_survives_a_mean_that_is_large_beside_it() -> None:
    values = np.random.default_rng(2).normal(1000, 0.01, (4096, 1)).astype(np.float32)
    ones, near = tf.ones([1]), tf.constant([999.0])
    _, mean, variance = normalized(
        tf.constant(values), ones, 0 * ones, near, epsilon=1e-3, rectified=False, pooled=False
    )
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var(0), rtol=0.02)


def test_sixteen_bits_outside_float32_inside() -> None:
    images = np.random.default_rng(3).normal(0, 1, (64, 8, 8, CHANNELS)).astype(np.float32)
    short = _layer(dtype="mixed_bfloat16")
    outputs = short(tf.cast(images, tf.bfloat16), training=True)
    assert outputs.dtype == tf.bfloat16
    rounded = tf.cast(tf.cast(images, tf.bfloat16), tf.float32)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), _layer()(rounded, training=True), rtol=2**-8, atol=1e-6)
    assert all(weight.dtype == np.float32 for weight in short.get_weights())


def _layer(**options: Any) -> NormalizedReLU:
    return NormalizedReLU(**{"momentum": 0.9, "dtype": "float32", **options})


def _standard(*, rectified: bool = True, pooled: bool = False) -> keras.Model:
    inputs = keras.Input((None, None, CHANNELS))
    x = keras.layers.BatchNormalization(momentum=0.9)(inputs)
    x = keras.layers.ReLU()(x) if rectified else x
    return keras.Model(inputs, keras.layers.MaxPooling2D(2)(x) if pooled else x)


def _with_gradients(
    layer: Any, weights: list[Any], images: np.ndarray, outer: np.ndarray, compiled: bool
) -> list[np.ndarray]:
    """The outputs in training, and the gradients of images and weights."""
    tensor = tf.constant(images)

    @tf.function(jit_compile=compiled, autograph=False)
    def run() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            outputs = layer(tensor, training=True)
        return outputs, *tape.gradient(outputs, [tensor, *(weight.value for weight in weights)], outer)

    return [value.numpy() for value in run()]


def _pool(image: Any) -> Any:
    ones = tf.ones([1])
    return normalized(image, ones, 0 * ones, 0 * ones, epsilon=1e-3, rectified=True, pooled=True)


def _scale(image: Any) -> float:
    return float(1 / np.sqrt(np.var(image) + 1e-3))
