from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf

from model.network.augment import (
    PRESETS,
    AugmentConfig,
    affine_coordinates,
    augment,
    change_thickness,
    elastic_displacement,
    erase,
    sample_bilinear,
)

SEED = tf.constant([3, 4], tf.int32)
SIZE = 32
ALL = {name: preset for name, preset in PRESETS.items() if preset.any}
EACH = {
    name: AugmentConfig(**{name: getattr(PRESETS["full"], name)})
    for name in ("rotate_degrees", "scale", "shear", "shift", "elastic", "thickness", "erase")
}


@pytest.fixture(scope="module")
def images() -> Any:
    """float32 [6, 32, 32, 1]: a ring with a bar."""
    picture = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(picture, (15, 16), 9, 255, 4)
    cv2.line(picture, (6, 6), (24, 20), 255, 4)
    return tf.constant(np.repeat(picture[None, :, :, None], 6, 0) / np.float32(255))


@pytest.mark.parametrize("config", [*ALL.values(), *EACH.values()], ids=[*ALL, *EACH])
def test_the_seed_decides_compiled_and_not(images: Any, config: AugmentConfig) -> None:
    """XLA draws other numbers than TensorFlow's kernels do, each of them the same ones every time."""
    for xla in (True, False):
        function = tf.function(lambda x, seed: augment(x, seed, config), jit_compile=xla)
        distorted = function(images, SEED).numpy()
        np.testing.assert_array_equal(distorted, function(images, SEED))
        assert (distorted != function(images, SEED + 1).numpy()).any()
        assert (distorted != images.numpy()).any()


def test_compiled_sampling_is_eager_sampling(images: Any) -> None:
    rows, columns = affine_coordinates(images, SEED, PRESETS["full"])
    compiled = tf.function(sample_bilinear, jit_compile=True)
    np.testing.assert_allclose(compiled(images, rows, columns), sample_bilinear(images, rows, columns), atol=1e-5)


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_the_character_stays_in_the_picture_and_in_range(images: Any, config: AugmentConfig) -> None:
    distorted = augment(images, SEED, config).numpy()
    assert distorted.shape == images.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1 + 1e-6
    ink = distorted.sum((1, 2, 3)) / images.numpy().sum((1, 2, 3))
    assert (ink > 0.3).all()
    assert (ink < 3).all()
    assert len({image.tobytes() for image in distorted}) == len(distorted)  # each in its own way


def test_none_changes_nothing(images: Any) -> None:
    assert not PRESETS["none"].any
    np.testing.assert_array_equal(augment(images, SEED, PRESETS["none"]), images)


def test_sampling_is_bilinear_with_ground_beyond_the_border() -> None:
    picture = np.random.default_rng(0).random((2, 9, 9, 1), np.float32)
    random = np.random.default_rng(1)
    rows, columns = random.uniform(-3, 12, (2, 2, 9, 9)).astype(np.float32)
    sampled = sample_bilinear(tf.constant(picture), tf.constant(rows), tf.constant(columns)).numpy()
    for number in range(2):
        oracle = cv2.remap(np.pad(picture[number, :, :, 0], 4), columns[number] + 4, rows[number] + 4, cv2.INTER_LINEAR)
        # OpenCV rounds coordinates to 1/32 of a pixel.
        np.testing.assert_allclose(sampled[number, :, :, 0], oracle, atol=0.08)


def test_affine_without_strength_is_the_identity(images: Any) -> None:
    rows, columns = affine_coordinates(images, SEED, AugmentConfig())
    np.testing.assert_allclose(rows[0, :, 5], np.arange(SIZE), atol=1e-5)
    np.testing.assert_allclose(sample_bilinear(images, rows, columns), images, atol=1e-4)


def test_affine_agrees_with_opencv(images: Any) -> None:
    rows, columns = affine_coordinates(images, SEED, PRESETS["full"])
    ours = sample_bilinear(images, rows, columns).numpy()
    y, x = rows[0].numpy(), columns[0].numpy()
    # Coordinates are affine in the pixel: its matrix is that of three corners.
    corners = np.float32([[0, 0], [SIZE - 1, 0], [0, SIZE - 1]])
    targets = np.float32([[x[0, 0], y[0, 0]], [x[0, -1], y[0, -1]], [x[-1, 0], y[-1, 0]]])
    matrix = cv2.getAffineTransform(corners, targets)
    oracle = cv2.warpAffine(
        images[0, :, :, 0].numpy(), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    np.testing.assert_allclose(ours[0, :, :, 0], oracle, atol=0.1)


def test_elastic_displacement_is_smooth_and_as_strong_as_asked() -> None:
    many = tf.zeros([256, SIZE, SIZE, 1])
    down, right = (field.numpy() for field in elastic_displacement(many, SEED, PRESETS["full"].elastic))
    for field in (down, right):
        assert 0.6 < field.std() / (PRESETS["full"].elastic * SIZE) < 1.2
        assert abs(np.diff(field, axis=1)).max() < 1  # pixels a pixel: strokes bend, they don't tear


def test_thickness_moves_between_erosion_and_dilation(images: Any) -> None:
    changed = change_thickness(images, SEED, 1.0).numpy()[:, :, :, 0]
    original = images[0, :, :, 0].numpy()
    kernel = np.ones((3, 3), np.uint8)
    thinner = cv2.erode(original, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    thicker = cv2.dilate(original, kernel)
    assert (changed >= thinner - 1e-6).all()
    assert (changed <= thicker + 1e-6).all()
    ink = changed.sum((1, 2))
    assert ink.min() < original.sum() < ink.max()


def test_erasing_leaves_a_rectangle_of_ground() -> None:
    white = tf.ones([400, SIZE, SIZE, 1])
    erased = erase(white, SEED, 0.5).numpy()[:, :, :, 0]
    holes = 0
    for image in erased:
        rows, columns = np.nonzero(image == 0)
        if len(rows):
            holes += 1
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert 0.4 < holes / len(erased) < 0.6
