"""Images that are no character: what they look like, and that a step learns nothing from them but doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from model.network.outliers import jumble, outlier_count, outliers, scribbles
from model.train.options import TrainConfig
from model.train.steps.state import build_step_model
from model.train.steps.step import compiled, make_forward_backward

SEED = tf.constant([3, 7])
CONFIG = TrainConfig(
    "", "", arch="vgg11", width=1 / 16, dense_width=16, batch_norm=False, dropout=0.0, augment="none", xla=False
)


@pytest.mark.parametrize(("size", "tiles"), [(64, 4), (64, 2), (50, 4)])
def test_a_jumble_moves_every_tile_and_loses_none(size: int, tiles: int) -> None:
    side = size // tiles
    image = np.zeros((size, size), np.float32)
    for tile in range(tiles * tiles):
        row, column = tile // tiles * side, tile % tiles * side
        image[row : row + side, column : column + side] = 1 + tile + np.linspace(0, 0.5, side)
    for found in jumble(tf.constant(np.stack([image] * 8)[..., None]), SEED, tiles).numpy()[..., 0]:
        assert not found[side * tiles :].any()
        assert not found[:, side * tiles :].any()
        placed = []
        for tile in range(tiles * tiles):
            row, column = tile // tiles * side, tile % tiles * side
            piece = found[row : row + side, column : column + side]
            which = int(piece[0, 0]) - 1
            np.testing.assert_allclose(piece, np.tile(1 + which + np.linspace(0, 0.5, side), (side, 1)), rtol=1e-6)
            assert which != tile
            placed.append(which)
        assert sorted(placed) == list(range(tiles * tiles))


def test_scribbles_are_as_large_as_samples_and_all_different() -> None:
    found = scribbles(tf.zeros([12, 64, 64, 1]), SEED).numpy()[..., 0]
    for image in found:
        rows, columns = np.nonzero(image > 0.3)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 54 <= longer <= 64
        assert 0.02 < np.mean(image > 0.3) < 0.8
        assert image.max() <= 1
    assert len({image.tobytes() for image in found}) == 12


def kinds_of(images: np.ndarray, made: np.ndarray) -> list[str]:
    """What each outlier is, found by its pixels: a quarter that changed its place is still whole."""
    kinds, half = [], images.shape[1] // 2
    for image, outlier in zip(images, made, strict=True):
        if not np.array_equal(np.sort(outlier, None), np.sort(image, None)):
            kinds.append("scribble")
            continue
        quarters = {image[r : r + half, c : c + half].tobytes() for r in (0, half) for c in (0, half)}
        kinds.append("quarters" if outlier[:half, :half].tobytes() in quarters else "tiles")
    return kinds


def test_the_seed_decides_and_a_third_is_of_each_kind() -> None:
    images = np.random.default_rng(0).random((300, 16, 16, 1), np.float32)
    first, again, other = (outliers(tf.constant(images), seed).numpy() for seed in (SEED, SEED, SEED + 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    kinds = kinds_of(images, first)
    assert kinds == ["tiles"] * 100 + ["quarters"] * 100 + ["scribble"] * 100


def test_what_one_image_gets_is_made_for_it_alone() -> None:
    """Counted in the graph: the operations for 30 images have no dimension of 30 but that of the whole."""
    made = tf.function(outliers).get_concrete_function(tf.TensorSpec([30, 16, 16, 1]), tf.TensorSpec([2], tf.int32))
    of_all = [
        operation.type
        for operation in made.graph.get_operations()
        for value in operation.outputs
        if 30 in value.shape.as_list()
    ]
    assert sorted(of_all) == ["ConcatV2", "Identity", "Placeholder", "StridedSlice"]


def test_a_batch_with_room_for_one_outlier_gets_every_kind_in_turn() -> None:
    images = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    found = {kinds_of(images, outliers(tf.constant(images), SEED + step).numpy())[0] for step in range(24)}
    assert found == {"scribble", "quarters", "tiles"}


def test_a_share_of_the_batch() -> None:
    assert [outlier_count(0.1, batch) for batch in (4, 16, 32, 256)] == [0, 2, 3, 26]
    assert outlier_count(0.0, 256) == 0
    assert outlier_count(0.99, 16) == 15


def test_a_step_learns_doubt_from_outliers_whatever_their_labels() -> None:
    """Their loss has its minimum where every character is as likely, and their labels don't matter."""
    config = replace(CONFIG, outliers=0.25)
    model = build_step_model(config, 16, 10, "float32")
    forward_backward = compiled(make_forward_backward(model, config, 1), config.xla)
    rng = np.random.default_rng(1)
    # Weights with which the logits differ, as after some training.
    weights = [tf.constant(rng.normal(0, 0.3, v.shape).astype(np.float32)) for v in model.trainable_variables]
    images, labels = rng.integers(0, 256, (16, 16, 16, 1), np.uint8), rng.integers(0, 10, 16, np.int32)

    def step(labels: np.ndarray) -> tuple[float, float]:
        found = forward_backward(weights, [], images, labels, SEED)
        return float(found.loss), float(found.accuracy)

    loss, accuracy = step(labels)
    relabelled = np.concatenate([(labels[:4] + 1) % 10, labels[4:]])
    assert step(relabelled) == (loss, accuracy)
    assert step(np.concatenate([labels[:4], (labels[4:] + 1) % 10]))[0] != loss
    # The whole loss from the logits, by the formula.
    inputs = images.astype(np.float32) / 255
    inputs[:4] = outliers(tf.constant(inputs[:4]), SEED).numpy()
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    logits = model(inputs).numpy().astype(float)
    chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    truth = np.full((16, 10), 0.1)
    truth[4:] = 0.9 * np.eye(10)[labels[4:]] + 0.1 / 10
    assert loss == pytest.approx(-(truth * chances).sum(1).mean(), rel=1e-4)
    assert accuracy == pytest.approx((logits[4:].argmax(1) == labels[4:]).mean())
