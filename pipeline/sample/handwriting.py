"""Handwriting out of pen maps: a writer's style, and one record drawn in it.

Pure: a record's pixels depend on the pen map, the style and the random generator alone. They are the same on every
machine too: positions are rounded to 1/32 pixel before anything is fetched, and what follows is plain arithmetic.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample.glyphs import DISTANCE_UNIT, EM, LIFT_ZERO, SIDE, PenMap

PAPER = 255
# Fainter than this is paper, as in CASIA's scans, where the lightest ink is about 10 grey levels from paper.
_FAINTEST_INK = 6.0

# A distortion is a sheet of cubic splines over _CELLS x _CELLS cells: the coarse knots bend the whole character, the
# fine ones let single strokes waver.
_CELLS = 7
_KNOTS = _CELLS + 3
_COARSE_KNOTS = 5
_GRAIN_SIDE = 512
_ROUGHEST_GRAIN = 3.0
# A pen that only brushes the paper still leaves a line, and no pressure spreads it without end.
_FORCES = (0.3, 1.7)


@dataclass(frozen=True)
class WriterStyle:
    """What all records of one writer have in common. Lengths are in pixels or in parts of the character's size."""

    size: float
    """Height of the em square in pixels."""
    aspect: float
    """Width over height."""
    slant: float
    """How far the top leans to the right, in parts of the height."""
    rise: float
    """How far horizontal strokes climb to the right, in parts of the width."""
    pen_radius: float
    """Half the width of a stroke in pixels."""
    taper: float
    """How much thinner and paler a stroke gets towards its end, 0 ... 1."""
    pressure: float
    """How much the pen's pressure wanders within a character, 0 ... 1."""
    darkness: float
    """How dark full ink is: 255 less its grey level."""
    grain: float
    """How unevenly the paper takes the ink, 0 ... 1."""
    raggedness: float
    """How far a stroke's edge strays, in pixels."""
    bend: float
    """How far whole parts of a character stray, as a standard deviation in parts of the em square."""
    waver: float
    """The same for single strokes."""
    unsteadiness: float
    """How much size, aspect, slant and rise differ from record to record."""
    habit: tuple[float, ...]
    """The distortion this writer gives every character: 2 x 5 x 5 shifts of coarse knots, in parts of the em square."""

    @classmethod
    def from_seed(cls, seed: int, writer: int) -> WriterStyle:
        """The style of writer number `writer` (1001 ...): the same in every data set drawn with `seed`."""
        rng = _generator(seed, writer)
        size = rng.uniform(60, 96)
        pen_radius = rng.uniform(1.1, 2.4)
        return cls(
            size=size,
            aspect=rng.uniform(0.74, 1.06),
            slant=0.04 + 0.13 * rng.standard_normal(),
            rise=rng.uniform(0.0, 0.2),
            # A thick pen in a small hand would fill the counters of dense characters.
            pen_radius=min(pen_radius, 0.03 * size),
            taper=rng.uniform(0.15, 0.75),
            pressure=rng.uniform(0.1, 0.4),
            darkness=rng.uniform(150, 250),
            grain=rng.uniform(0.12, 0.45),
            raggedness=rng.uniform(0.05, 0.35),
            bend=rng.uniform(0.022, 0.045),
            waver=rng.uniform(0.008, 0.02),
            unsteadiness=rng.uniform(0.02, 0.05),
            habit=tuple((0.055 * rng.standard_normal(2 * _COARSE_KNOTS**2)).tolist()),
        )


def record_generator(seed: int, writer: int, tag: bytes, take: int = 0) -> np.random.Generator:
    """The generator of one record; `take` counts the times this writer wrote this character."""
    return _generator(seed, writer, int.from_bytes(tag, "big"), take)


def draw(pen_map: PenMap, style: WriterStyle, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One record: uint8 [h, w], paper is 255, cropped to its ink as CASIA's are."""
    side, scale, fetch_x, fetch_y, pressure = _sheet(style, rng)
    fetched = cv2.remap(
        pen_map, fetch_x, fetch_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(255, LIFT_ZERO)
    )
    # No pen reaches further from its line than this; what follows costs by the pixel, so leave the empty paper off.
    furthest = _FORCES[1] * style.pen_radius + _ROUGHEST_GRAIN * style.raggedness + 0.5
    near = cv2.inRange(fetched[..., 0], 0, int(furthest / (DISTANCE_UNIT * scale)) + 1)
    left, top, width, height = cv2.boundingRect(near)
    rows, columns = slice(top, top + height), slice(left, left + width)
    distance = fetched[rows, columns, 0] * np.float32(DISTANCE_UNIT * scale)
    lift = (fetched[rows, columns, 1].astype(np.float32) - LIFT_ZERO) * np.float32(style.taper / 127)

    y, x = rng.integers(0, _GRAIN_SIDE - side, 2)
    grain = _grain()[y : y + height, x : x + width]
    # Where the pen comes down it presses a little, where it lifts off the stroke thins out.
    force = np.clip(1 + pressure[rows, columns] + np.minimum(lift, lift * np.float32(0.35)), *_FORCES)
    reach = force * np.float32(style.pen_radius) + grain * np.float32(style.raggedness)
    cover = np.clip(reach - distance + np.float32(0.5), 0, 1)
    # The middle of a stroke takes more ink than its edge.
    body = np.clip(1 - distance * np.float32(0.28 / style.pen_radius), np.float32(0.55), 1)
    ink = cover * body * np.clip(force + grain * np.float32(style.grain), np.float32(0.25), np.float32(1.15))
    ink *= np.float32(style.darkness)

    grey = (PAPER - np.minimum(ink, PAPER)).astype(np.uint8)
    grey[ink < _FAINTEST_INK] = PAPER
    left, top, width, height = cv2.boundingRect(PAPER - grey)
    return np.ascontiguousarray(grey[top : top + height, left : left + width])


def gnt_record(tag: bytes, bitmap: NDArray[np.uint8]) -> bytes:
    """The GNT record of `bitmap`, uint8 [h, w]: size with header (uint32), tag, width and height (uint16), pixels."""
    height, width = bitmap.shape
    return struct.pack("<I2sHH", 10 + width * height, tag, width, height) + bitmap.tobytes()


def _sheet(
    style: WriterStyle, rng: np.random.Generator
) -> tuple[int, float, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The sheet a record is drawn on: its side, pixels per pen map pixel, the point of the pen map that each of its
    pixels shows (x and y, float32 [side, side]), and how much more than usual the pen presses there."""
    shaky = style.unsteadiness * rng.standard_normal(5)
    size = style.size * (1 + shaky[0])
    aspect = style.aspect * (1 + shaky[1])
    slant, rise = style.slant + shaky[2], style.rise + 0.7 * shaky[3]
    scale = size / EM

    half_width = size / 2 * (aspect + abs(slant))
    half_height = size / 2 * (1 + abs(rise) * aspect)
    # A round number: the splines' weights are kept for every side met.
    side = -(-int(2 * (max(half_width, half_height) + 0.08 * size)) // 8) * 8

    # From the sheet back to the glyph: undo the slant, the rise and the scale; the distortion is added to the knots.
    knots = (np.arange(_KNOTS) - 1) / _CELLS - 0.5
    across, down = knots[None, :] * side / scale, knots[:, None] * side / scale
    determinant = 1 - slant * rise
    sheet = np.empty((3, _KNOTS, _KNOTS))
    sheet[0] = (across + slant * down) / (determinant * aspect)
    sheet[1] = (down + rise * across) / determinant
    shifts = np.reshape(style.habit, (2, _COARSE_KNOTS, _COARSE_KNOTS))
    shifts = shifts + style.bend * rng.standard_normal(shifts.shape)
    to_fine = _coarse_to_fine()
    sheet[:2] += EM * (to_fine @ shifts @ to_fine.T)
    sheet[:2] += EM * style.waver * rng.standard_normal((2, _KNOTS, _KNOTS))
    sheet[:2] += (SIDE - 1) / 2
    sheet[2] = style.pressure * rng.standard_normal((_KNOTS, _KNOTS)) + shaky[4]

    # Sums of these multiples of 2**-10 and 2**-12 are exact in float64, whatever order a BLAS adds them in.
    weights, weights_across = _spline_weights(side)
    fields = weights @ (np.rint(sheet * 1024) / 1024) @ weights_across
    fetch = (np.rint(fields[:2] * 32) / 32).astype(np.float32)
    return side, scale, fetch[0], fetch[1], fields[2].astype(np.float32)


@lru_cache(maxsize=64)
def _spline_weights(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [side, _KNOTS], and the same transposed: the weight of every knot at the middle of every pixel (uniform
    cubic B-splines)."""
    weights = np.zeros((side, _KNOTS))
    for pixel in range(side):
        cell, t = divmod((pixel + 0.5) * _CELLS / side, 1)
        four = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        four = np.rint(four * 4096) / 4096
        four[1] += 1 - four.sum()
        weights[pixel, int(cell) : int(cell) + 4] = four
    return weights, np.ascontiguousarray(weights.T)


@lru_cache(maxsize=1)
def _coarse_to_fine() -> NDArray[np.float64]:
    """float64 [_KNOTS, _COARSE_KNOTS]: linear interpolation from the coarse knots to the fine ones."""
    at = np.linspace(0, _COARSE_KNOTS - 1, _KNOTS)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(_COARSE_KNOTS)))
    return weights


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    """float32 [512, 512] around 0, standard deviation 1: the roughness of the paper, the same sheet for all writers."""
    noise = _generator(0).integers(0, 256, (_GRAIN_SIDE, _GRAIN_SIDE), np.uint8)
    mixed = noise.astype(np.int32) + 4 * cv2.GaussianBlur(noise, (5, 5), 1.0).astype(np.int32)
    # Constants, since a measured mean and deviation would depend on the order of a sum.
    grain = (mixed - 636) / 142
    return cast(NDArray[np.float32], np.clip(grain, -_ROUGHEST_GRAIN, _ROUGHEST_GRAIN).astype(np.float32))


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
