"""Images that are no character, made inside the compiled step, from which a network learns not to be sure of them.

A softmax divides all of its belief among the characters it knows, and is sure of scribbles, too, if it has never seen
one. These are answered with the same probability for every character (Hendrycks and others, 2019, outlier exposure).
Pure functions on float [n, s, s, 1] with static shapes and stateless seeds, ink light on 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from model.network.augment import curve_weights

_STROKES = (2, 3, 4)  # that a scribble may have
_NODES = 5  # of a stroke: more make more loops
_POINTS = 160  # spots of a stroke: of a thin pen they are a width apart
_MARGIN = 1 / 16  # of the size, as samples have it
_WIDTHS = (0.012, 0.05)  # half a stroke's width, of the size


def outlier_count(share: float, batch: int) -> int:
    """How many of `batch` images become outliers; one image at least stays what it is."""
    return min(batch - 1, round(share * batch))


def outliers(images: Any, seed: Any) -> Any:
    """As many outliers as images, each kind made for those that get it: tiles, quarters changed over, scribbles.

    A third of each, in this order. Of one or two that are over, all three kinds are made, and one drawn.
    """
    third, over = divmod(images.shape[0], len(_KINDS))
    seeds = [seed + tf.constant([mark, 0]) for mark in (0x5851F42, 0x14057B7, 0)]
    made = []
    if over:
        rest = images[:over]
        kind = tf.random.stateless_uniform(
            [over, 1, 1, 1], seed + tf.constant([0x3AD8025, 0]), 0, 3, tf.int32, "philox"
        )
        first, second, last = (make(rest, own) for make, own in zip(_KINDS, seeds, strict=True))
        made.append(tf.where(kind == 0, first, tf.where(kind == 1, second, last)))
    if third:
        parts = tf.split(images[over:], len(_KINDS))
        made += [make(part, own + 1) for make, part, own in zip(_KINDS, parts, seeds, strict=True)]
    return tf.concat(made, 0)


def jumble(images: Any, seed: Any, tiles: int) -> Any:
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
    """A few curved strokes in place of each image, as large as a sample's.

    A stroke is a row of round spots, each as dark as it is far to the next: together a line as dark everywhere. A spot
    is a product of what it has in its row and in its column, so that a matrix product draws all of an image's.
    """
    count, size = images.shape[0], images.shape[1]
    strokes = max(_STROKES)
    nodes = tf.random.stateless_uniform([count, strokes, _NODES, 2], seed, alg="philox")
    draw = tf.random.stateless_uniform([count, 3], seed + tf.constant([0x2545F49, 0]), alg="philox")
    number = min(_STROKES) + tf.cast(draw[:, 0] * len(_STROKES), tf.int32)
    there = tf.range(strokes)[None, :] < number[:, None]
    points = tf.einsum("pn,csnd->cspd", tf.constant(curve_weights(_POINTS, _NODES)), nodes)
    # Strokes that there aren't lie on the first one, and have no ink.
    points = tf.where(there[:, :, None, None], points, points[:, :1])
    low, high = tf.reduce_min(points, [1, 2], keepdims=True), tf.reduce_max(points, [1, 2], keepdims=True)
    longer = tf.reduce_max(high - low, 3, keepdims=True)
    points = size * (0.5 + (points - (low + high) / 2) / longer * (1 - 2 * _MARGIN))
    to_next = tf.norm(points[:, :, 1:] - points[:, :, :-1], axis=3)
    ink = tf.where(
        there[:, :, None],
        (tf.pad(to_next, [[0, 0], [0, 0], [0, 1]]) + tf.pad(to_next, [[0, 0], [0, 0], [1, 0]])) / 2,
        0.0,
    )
    half_width = size * (_WIDTHS[0] + draw[:, 1] * (_WIDTHS[1] - _WIDTHS[0]))[:, None, None]
    spread = half_width / math.sqrt(2 * math.log(2))  # a line is half as dark there as along its middle
    ink = tf.reshape(ink, [count, 1, -1]) / (math.sqrt(2 * math.pi) * spread)
    position = tf.range(size, dtype=tf.float32)[None, :, None] + 0.5
    rows, columns = (
        tf.exp(-0.5 * tf.square((position - tf.reshape(points[..., axis], [count, 1, -1])) / spread)) for axis in (0, 1)
    )
    dark = tf.matmul(rows * ink, columns, transpose_b=True)
    # From paper to ink within a pixel: at the edge the darkness falls by log(2) of its half width.
    edge = 0.5 + (dark - 0.5) * half_width / math.log(2)
    return ((0.6 + 0.4 * draw[:, 2])[:, None, None] * tf.clip_by_value(edge, 0.0, 1.0))[..., None]


_KINDS: tuple[Callable[..., Any], ...] = (partial(jumble, tiles=4), partial(jumble, tiles=2), scribbles)
