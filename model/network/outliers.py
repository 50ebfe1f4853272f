"""Images that are no character, made inside the compiled step, from which a network learns not to be sure of them.

A softmax divides all of its belief among the characters it knows, and is sure of scribbles, too, if it has never seen
one. These are answered with the same probability for every character (Hendrycks and others, 2019, outlier exposure).
Pure functions on float [n, s, s, 1] with static shapes and stateless seeds, ink light on 0.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from model.network.augment import curve_weights

_STROKES = (2, 3, 4)  # that a scribble may have
_NODES = 5  # of a stroke: more make more loops
_POINTS = 24  # a stroke is drawn through
_MARGIN = 1 / 16  # of the size, as samples have it
_WIDTHS = (0.012, 0.05)  # half a stroke's width, of the size


def outlier_count(share: float, batch: int) -> int:
    """How many of `batch` images become outliers; one image at least stays what it is."""
    return min(batch - 1, round(share * batch))


def outliers(images: Any, seed: Any) -> Any:
    """As many outliers as images, of a kind drawn for each: tiles in disorder, quarters changed over, a scribble."""
    count = images.shape[0]
    kind_seed = seed + tf.constant([0x3AD8025, 0])
    kind = tf.random.stateless_uniform([count, 1, 1, 1], kind_seed, 0, 3, tf.int32, alg="philox")
    made = tf.where(kind == 0, jumble(images, 4, seed + tf.constant([0x5851F42, 0])), scribbles(images, seed))
    return tf.where(kind == 1, jumble(images, 2, seed + tf.constant([0x14057B7, 0])), made)


def jumble(images: Any, tiles: int, seed: Any) -> Any:
    """Each image cut into tiles × tiles pieces, which change their places; what a size leaves over stays ground."""
    count, size = images.shape[0], images.shape[1]
    side = size // tiles
    cut = images[:, : side * tiles, : side * tiles, 0]
    pieces = tf.transpose(tf.reshape(cut, [count, tiles, side, tiles, side]), [0, 1, 3, 2, 4])
    pieces = tf.reshape(pieces, [count, tiles * tiles, side, side])
    # A walk round a random order moves every piece: none stays where it was.
    order = tf.argsort(tf.random.stateless_uniform([count, tiles * tiles], seed, alg="philox"), axis=1)
    moved = tf.gather(pieces, tf.roll(order, 1, axis=1), batch_dims=1)
    pieces = tf.gather(moved, tf.argsort(order, axis=1), batch_dims=1)
    pieces = tf.transpose(tf.reshape(pieces, [count, tiles, tiles, side, side]), [0, 1, 3, 2, 4])
    whole = tf.reshape(pieces, [count, side * tiles, side * tiles, 1])
    rest = size - side * tiles
    return tf.pad(whole, [[0, 0], [0, rest], [0, rest], [0, 0]])


def scribbles(images: Any, seed: Any) -> Any:
    """A few curved strokes in place of each image, as large as a sample's."""
    count, size = images.shape[0], images.shape[1]
    strokes = max(_STROKES)
    nodes = tf.random.stateless_uniform([count, strokes, _NODES, 2], seed, alg="philox")
    draw = tf.random.stateless_uniform([count, 3], seed + tf.constant([0x2545F49, 0]), alg="philox")
    number = min(_STROKES) + tf.cast(draw[:, 0] * len(_STROKES), tf.int32)
    # Strokes that there aren't lie on the first one.
    there = tf.range(strokes)[None, :] < number[:, None]
    nodes = tf.where(there[:, :, None, None], nodes, nodes[:, :1])
    points = tf.einsum("pn,csnd->cspd", tf.constant(curve_weights(_POINTS, _NODES)), nodes)
    points = tf.reshape(points, [count, strokes * _POINTS, 2])
    low, high = tf.reduce_min(points, 1, keepdims=True), tf.reduce_max(points, 1, keepdims=True)
    longer = tf.reduce_max(high - low, 2, keepdims=True)
    points = 0.5 + (points - (low + high) / 2) / longer * (1 - 2 * _MARGIN)
    # The distance of each pixel to the segments between neighbouring points.
    points = tf.reshape(points, [count, strokes, _POINTS, 2])
    start = tf.reshape(points[:, :, :-1], [count, 1, 1, -1, 2])
    along = tf.reshape(points[:, :, 1:] - points[:, :, :-1], [count, 1, 1, -1, 2])
    position = (tf.range(size, dtype=tf.float32) + 0.5) / size
    pixel = tf.stack(tf.meshgrid(position, position, indexing="ij"), axis=-1)[None, :, :, None, :]
    length = tf.maximum(tf.reduce_sum(along * along, -1), 1e-9)
    share = tf.clip_by_value(tf.reduce_sum((pixel - start) * along, -1) / length, 0.0, 1.0)
    gap = pixel - start - share[..., None] * along
    distance = tf.sqrt(tf.reduce_min(tf.reduce_sum(gap * gap, -1), axis=3, keepdims=True))
    half_width = (_WIDTHS[0] + draw[:, 1] * (_WIDTHS[1] - _WIDTHS[0]))[:, None, None, None]
    darkness = (0.6 + 0.4 * draw[:, 2])[:, None, None, None]
    return darkness * tf.clip_by_value((half_width - distance) * size + 0.5, 0.0, 1.0)
