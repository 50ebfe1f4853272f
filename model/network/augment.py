"""Augmentation inside the compiled step: affine and elastic distortion, stroke thickness, erasing.

Pure functions on float [B, s, s, 1] with static shapes and stateless seeds, so XLA compiles them with the model.
Ink is light on a ground of 0; what comes in from beyond the border is ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class AugmentConfig:
    """The strength of each distortion; 0 switches it off."""

    rotate_degrees: float = 0.0
    """Largest rotation, either way."""
    scale: float = 0.0
    """Largest change of each side's length, as a share of it; the two sides change separately."""
    shear: float = 0.0
    """Largest horizontal shift of a row, per row of distance from the middle."""
    shift: float = 0.0
    """Largest translation, as a share of the image's size."""
    elastic: float = 0.0
    """Standard deviation of the displacement at the nodes of a coarse grid, as a share of the image's size."""
    thickness: float = 0.0
    """Largest share by which strokes become their 3 × 3 dilation or erosion."""
    erase: float = 0.0
    """The chance that a random rectangle becomes ground."""

    @property
    def any(self) -> bool:
        return self != AugmentConfig()


PRESETS = {
    "none": AugmentConfig(),
    "light": AugmentConfig(rotate_degrees=8, scale=0.1, shear=0.1, shift=0.04, elastic=0.01, thickness=0.5),
    "full": AugmentConfig(
        rotate_degrees=15, scale=0.18, shear=0.2, shift=0.06, elastic=0.02, thickness=0.8, erase=0.25
    ),
    "drawn": AugmentConfig(
        rotate_degrees=8, scale=0.2, shear=0.18, shift=0.05, elastic=0.026, thickness=0.5, erase=0.1
    ),
}
"""The values of --augment; benchmarks/ablation.md and learning.md say what is known of them. "drawn" is for drawings
that are to teach real hands: wilder in shape, no wilder in ink (docs/recipe-box.md)."""

_GRID = 5  # nodes of the elastic displacement on each side
_ERASE_SIDES = (0.1, 0.3)  # of the image's size


def augment(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Distorts float32 [B, s, s, 1], each image in its own way. `seed` is int32 [2]; the result depends on it alone."""
    if config.rotate_degrees or config.scale or config.shear or config.shift or config.elastic:
        rows, columns = affine_coordinates(images, _fold(seed, 1), config)
        if config.elastic:
            down, right = elastic_displacement(images, _fold(seed, 2), config.elastic)
            rows, columns = rows + down, columns + right
        images = sample_bilinear(images, rows, columns)
    if config.thickness:
        images = change_thickness(images, _fold(seed, 3), config.thickness)
    if config.erase:
        images = erase(images, _fold(seed, 4), config.erase)
    return images


def affine_coordinates(images: Any, seed: Any, config: AugmentConfig) -> tuple[Any, Any]:
    """Where each pixel of the result lies in its source: rows and columns, float32 [B, s, s], in pixels."""
    batch, size = images.shape[0], images.shape[1]
    draw = _uniform([6, batch, 1, 1], seed, -1.0, 1.0)
    angle = draw[0] * (config.rotate_degrees * math.pi / 180)
    scale_rows, scale_columns = 1 + draw[1] * config.scale, 1 + draw[2] * config.scale
    shear = draw[3] * config.shear
    from_middle = tf.range(size, dtype=tf.float32) - (size - 1) / 2
    y, x = from_middle[None, :, None], from_middle[None, None, :]
    cosine, sine = tf.cos(angle), tf.sin(angle)
    turned_y, turned_x = cosine * y - sine * x, sine * y + cosine * x
    rows = turned_y / scale_rows + draw[4] * (config.shift * size)
    columns = (turned_x + shear * turned_y) / scale_columns + draw[5] * (config.shift * size)
    middle = (size - 1) / 2
    return rows + middle, columns + middle


def elastic_displacement(images: Any, seed: Any, strength: float) -> tuple[Any, Any]:
    """A smooth random displacement: down and right, float32 [B, s, s], in pixels."""
    batch, size = images.shape[0], images.shape[1]
    nodes = tf.random.stateless_normal([2, batch, _GRID, _GRID], seed, alg="philox") * (strength * size)
    spread = tf.constant(curve_weights(size, _GRID))  # [s, _GRID]
    smooth = tf.einsum("yi,kbij,xj->kbyx", spread, nodes, spread)
    return smooth[0], smooth[1]


def sample_bilinear(images: Any, rows: Any, columns: Any) -> Any:
    """The images at float coordinates [B, s, s]; 0 beyond the border."""
    batch, size = images.shape[0], images.shape[1]
    rows, columns = tf.clip_by_value(rows, -1.0, float(size)), tf.clip_by_value(columns, -1.0, float(size))
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = rows - top, columns - left
    # A border of two pixels of ground, so that every neighbour can be gathered.
    side = size + 3
    flat = tf.reshape(tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]]), [batch, side * side])
    corner = (tf.cast(top, tf.int32) + 1) * side + tf.cast(left, tf.int32) + 1

    def at(offset: int) -> Any:
        return tf.gather(flat, tf.reshape(corner + offset, [batch, size * size]), batch_dims=1)

    down, right = tf.reshape(down, [batch, -1]), tf.reshape(right, [batch, -1])
    upper = at(0) * (1 - right) + at(1) * right
    lower = at(side) * (1 - right) + at(side + 1) * right
    return tf.reshape(upper * (1 - down) + lower * down, [batch, size, size, 1])


def change_thickness(images: Any, seed: Any, strength: float) -> Any:
    """Each image moves towards its dilation or its erosion by up to `strength` of the way."""
    amount = _uniform([images.shape[0], 1, 1, 1], seed, -strength, strength)
    thicker = _extreme_of_neighbours(images, tf.maximum)
    thinner = _extreme_of_neighbours(images, tf.minimum)
    return tf.where(amount > 0, images + amount * (thicker - images), images - amount * (thinner - images))


def erase(images: Any, seed: Any, chance: float) -> Any:
    """With probability `chance` a rectangle of an image becomes ground."""
    batch, size = images.shape[0], images.shape[1]
    draw = _uniform([5, batch, 1, 1, 1], seed, 0.0, 1.0)
    smallest, largest = _ERASE_SIDES
    height, width = (smallest + draw[0] * (largest - smallest)), (smallest + draw[1] * (largest - smallest))
    top, left = draw[2] * (1 - height), draw[3] * (1 - width)
    position = (tf.range(size, dtype=tf.float32) + 0.5) / size
    y, x = position[None, :, None, None], position[None, None, :, None]
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return tf.where(inside & (draw[4] < chance), 0.0, images)


def _extreme_of_neighbours(images: Any, extreme: Any) -> Any:
    """The largest or smallest of each pixel's 3 × 3 neighbourhood, ground beyond the border."""
    size = images.shape[1]
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = extreme(extreme(padded[:, :size], padded[:, 1 : size + 1]), padded[:, 2:])
    return extreme(extreme(rows[:, :, :size], rows[:, :, 1 : size + 1]), rows[:, :, 2:])


def curve_weights(points: int, nodes: int) -> np.ndarray:
    """float32 [points, nodes]: cubic (Catmull-Rom) weights from evenly spaced nodes to evenly spaced points."""
    weights = np.zeros((points, nodes), np.float32)
    for point in range(points):
        position = point / (points - 1) * (nodes - 1)
        first = min(int(position), nodes - 2)
        t = position - first
        cubic = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        for node, weight in zip(range(first - 1, first + 3), cubic, strict=True):
            weights[point, min(max(node, 0), nodes - 1)] += weight / 2
    return weights


def _uniform(shape: list[int], seed: Any, low: float, high: float) -> Any:
    return tf.random.stateless_uniform(shape, seed, low, high, alg="philox")


def _fold(seed: Any, purpose: int) -> Any:
    """A seed of its own for each distortion."""
    return seed + tf.constant([purpose * 0x3C6EF35, 0], tf.int32)
