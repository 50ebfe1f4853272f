"""Handwriting: how a writer's hand moves over the strokes of a character, and one record drawn that way.

Pure: a record's pixels depend on the strokes, the style and the random generator alone. They are the same on every
machine too: the pen's way is rounded to 1/64 pixel before anything is drawn.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample import pen
from pipeline.sample.strokes import LIGATURE_POINTS, Line, Strokes
from pipeline.sample.style import KNOTS, WriterStyle, generator

PAPER = 255
_GRAIN_SIDE = 512
_ROUGHEST_GRAIN = 3.0
# A pen that only brushes the paper still leaves a line, and no pressure spreads it without end.
_LEAST_FORCE, _MOST_FORCE = 0.35, 1.6
_MOST_PARTS = 3
# Strokes traced from a font come in a guessed order, so their ends are joined less often.
_GUESSED_JOINS = 0.35
# Joined are ends this near, in parts of the em square, more often the nearer.
_JOINED_WITHIN = 0.5
_SMOOTHINGS = 6
_WAY = (np.arange(LIGATURE_POINTS) + 1)[None, :, None] / (LIGATURE_POINTS + 1)


def draw(strokes: Strokes, style: WriterStyle, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One record: uint8 [h, w], paper is 255, cropped to its ink as CASIA's are."""
    line, down = written(strokes, style, rng)
    margin = float(line[:, 2].max()) + _ROUGHEST_GRAIN * style.raggedness + style.softness + 1
    line[:, :2] -= line[:, :2].min(axis=0) - margin
    line = np.rint(line * 64) / 64
    width, height = (int(side) for side in line[:, :2].max(axis=0) + margin + 1)
    y, x = rng.integers(0, _GRAIN_SIDE - max(height, width), 2)
    grain = _grain()[y : y + height, x : x + width]
    canvas = np.zeros((height, width))
    pen.ink(line, down, style.hollow, style.softness, style.raggedness, grain, canvas)
    grey = np.empty((height, width), np.uint8)
    pen.grey(canvas, grain, style.darkness, style.grain, style.faintest, grey)
    left, top, width, height = cv2.boundingRect(PAPER - grey)
    return np.ascontiguousarray(grey[top : top + height, left : left + width])


def gnt_record(tag: bytes, bitmap: NDArray[np.uint8]) -> bytes:
    """The GNT record of `bitmap`, uint8 [h, w]: size with header (uint32), tag, width and height (uint16), pixels."""
    height, width = bitmap.shape
    return struct.pack("<I2sHH", 10 + width * height, tag, width, height) + bitmap.tobytes()


def written(
    strokes: Strokes, style: WriterStyle, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The pen's way: float64 [n, 4], x and y in pixels, half the stroke's width, darkness 0 ... 1; and bool [n - 1],
    where it is on the paper."""
    hurry = min(1.2, max(0.0, style.hurry + 0.15 * rng.standard_normal()))
    dropped = strokes.in_hook & (rng.random(len(strokes.ends)) < style.hookless)[strokes.stroke]
    points = np.where(dropped[:, None], strokes.points[strokes.before_hook], strokes.points)
    points = _placed(points, strokes, style, hurry, rng)
    points += style.tremor * rng.standard_normal(points.shape)
    gaps, down = _joins(points, strokes, style, hurry, rng)
    passes = _SMOOTHINGS * min(1.0, max(0.0, style.roundness + 0.1 * rng.standard_normal()))
    points = smoothed(points, down, passes)
    shifts = np.reshape(style.habit, (2, KNOTS, KNOTS))
    pen.bend(points, shifts + style.bend * rng.standard_normal(shifts.shape))

    shaky = style.unsteadiness * rng.standard_normal(5)
    size, aspect = style.size * (1 + shaky[0]), style.aspect * (1 + 2 * shaky[1])
    slant, rise = style.slant + shaky[2], style.rise + shaky[3]
    x, y = points[:, 0] * aspect, points[:, 1]
    force = _force(strokes, style, hurry, gaps, rng) + shaky[4]
    force = np.minimum(np.maximum(force, _LEAST_FORCE), _MOST_FORCE)
    line = np.stack(
        [
            size * (x - slant * y),
            size * (y - rise * x),
            style.pen_radius * force,
            np.minimum(0.45 + 0.55 * force, 1.15),
        ],
        axis=1,
    )
    return line, down


def _placed(
    points: Line, strokes: Strokes, style: WriterStyle, hurry: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The strokes, and the parts that strokes in succession make, each moved, turned, stretched and bent a little."""
    first, last = strokes.ends.T
    count = len(first)
    chord = points[last] - points[first]
    middle = (points[last] + points[first]) / 2
    cuts = np.searchsorted(strokes.cuts, rng.random(_MOST_PARTS - 1)) + 1
    part = (np.arange(count)[:, None] >= cuts).sum(axis=1)
    of_part = style.parts * rng.standard_normal((_MOST_PARTS, 5))
    stretch = np.maximum(1 + 2.5 * of_part[part, 2:4], 0.4)
    draws = style.strokes * rng.standard_normal((count, 6))
    flat = np.abs(chord[:, 0]) > np.abs(chord[:, 1])
    longer = np.where(flat, style.lengths[0], style.lengths[1]) + 4 * draws[:, 2]
    # The last stroke of a hurried character is the long one.
    longer[-1] += 0.25 * hurry * rng.random()
    centre = _part_centre(middle, part)
    target = centre + (middle - centre) * stretch + of_part[part, :2] + draws[:, :2]
    turn, bow = 3 * draws[:, 3] + of_part[part, 4], style.bow + 3 * draws[:, 4]
    longer = np.maximum(longer, -0.5)

    index = strokes.stroke
    away = points - middle[index]
    grow = (1 + longer[:, None]) * stretch
    grown = away * grow[index]
    turned = np.stack([grown[:, 0] - turn[index] * grown[:, 1], grown[:, 1] + turn[index] * grown[:, 0]], axis=1)
    hump = 4 * strokes.along * (1 - strokes.along) * bow[index]
    across = np.stack([-chord[:, 1], chord[:, 0]], axis=1)[index]
    result = target[index] + turned + hump[:, None] * across
    if count > 1:
        ways = result[last[:-1]][:, None] * (1 - _WAY) + result[first[1:]][:, None] * _WAY
        result[strokes.in_ligature] = ways.reshape(-1, 2)
    return cast(NDArray[np.float64], result)


def _part_centre(middle: Line, part: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middle of each stroke's part, float64 [m, 2]."""
    sums = np.stack([np.bincount(part, middle[:, axis], _MOST_PARTS) for axis in (0, 1)], axis=1)
    centres: NDArray[np.float64] = (sums / np.maximum(np.bincount(part, minlength=_MOST_PARTS), 1)[:, None])[part]
    return centres


def _joins(
    points: Line, strokes: Strokes, style: WriterStyle, hurry: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each stroke is joined to the next one, bool [m - 1]; where the pen is on the paper, bool [n - 1]."""
    first, last = strokes.ends.T
    down = ~(strokes.in_ligature[:-1] | strokes.in_ligature[1:])
    gap = points[first[1:]] - points[last[:-1]]
    distance = np.sqrt(gap[:, 0] * gap[:, 0] + gap[:, 1] * gap[:, 1])
    chance = style.joining * (0.4 + hurry) * np.maximum(0.0, 1.3 - distance / _JOINED_WITHIN)
    draws = rng.random((len(gap), 3))
    joined = draws[:, 0] < (chance if strokes.is_taught else _GUESSED_JOINS * chance)
    flicked = draws[:, 1] < style.flick * (strokes.is_taught or _GUESSED_JOINS)
    led_in = draws[:, 2] < 0.5 * style.flick * strokes.is_taught
    # The segments of a ligature in their order; a flick is its first half, a lead-in its last segment.
    segments = last[:-1, None] + np.arange(LIGATURE_POINTS + 1)
    down[segments[joined]] = True
    down[segments[flicked, :2]] = True
    down[segments[led_in, -1]] = True
    return joined, down


def smoothed(points: Line, down: NDArray[np.bool_], passes: float) -> NDArray[np.float64]:
    """Corners rounded: points drawn towards the middle of their neighbours, where the pen doesn't leave the paper."""
    free = np.zeros(len(points))
    free[1:-1] = 0.5 * (down[:-1] & down[1:])
    while passes > 0:
        free_now = (free * min(1.0, passes))[1:-1, None]
        points[1:-1] += free_now * ((points[:-2] + points[2:]) / 2 - points[1:-1])
        passes -= 1
    return points


def _force(
    strokes: Strokes, style: WriterStyle, hurry: float, joined: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """How hard the pen presses at every point, 1 as usual."""
    draws = style.pressure * rng.standard_normal((len(strokes.ends), 2))
    index, along = strokes.stroke, strokes.along
    force = 1 + draws[index, 0] * (1 - along) + draws[index, 1] * along
    # A hand in a hurry has lifted off before the stroke is at its end.
    force -= style.taper * (0.3 + 0.7 * hurry) * np.maximum(0.0, along - 0.55) / 0.45 * ~strokes.in_ligature
    force[strokes.in_ligature] *= style.ligature
    # A flick is fainter than a line that goes on.
    force[strokes.in_ligature] *= np.where(np.repeat(joined, LIGATURE_POINTS), 1.0, 0.5)
    return force


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float64]:
    """float64 [512, 512] around 0, standard deviation 1: the roughness of the paper, the same sheet for all writers."""
    noise = generator(0).integers(0, 256, (_GRAIN_SIDE, _GRAIN_SIDE), np.uint8)
    mixed = noise.astype(np.int32) + 4 * cv2.GaussianBlur(noise, (5, 5), 1.0).astype(np.int32)
    # Constants, since a measured mean and deviation would depend on the order of a sum.
    return np.clip((mixed - 636) / 142, -_ROUGHEST_GRAIN, _ROUGHEST_GRAIN)
