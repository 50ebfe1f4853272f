"""The shapes of characters: what a pen follows, taken from an outline font.

A printed stroke has the width of its font. The sample needs the line in the middle of it, so that every writer can
draw that line with a pen of his own: each glyph is rendered once, thinned to its centre lines, and kept as the
distance of every point from the nearest line.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FONT_PACKAGE = "zhplot"
FONT_FILE = "fonts/NotoSansSC-Regular.ttf"

EM = 64
"""Side of a glyph's em square in a pen map, in pixels."""
BORDER = 12
"""Empty pixels around the em square in a pen map: how far a distorted stroke may be fetched from outside of it."""
SIDE = EM + 2 * BORDER
DISTANCE_UNIT = 1 / 16
"""One step of a pen map's distance channel, in pen map pixels; 255 stands for 16 pixels and more."""
LIFT_ZERO = 128
"""The lift channel's value where no stroke begins or ends."""

# Thinning wants strokes of several pixels, a pen map doesn't: render larger, shrink afterwards.
_OVERSAMPLING = 1.5
RENDER_SIDE = int(SIDE * _OVERSAMPLING)
"""Side of a rendered glyph, in pixels."""
_RENDER_EM = int(EM * _OVERSAMPLING)
# How far from a stroke's end the pen is felt to come down or to lift off, in rendered pixels.
_LIFT_SIGMA = 5
# How many pixels before its end tell which way a line points.
_END_REACH = 6
# The neighbours of a pixel clockwise from the one above, as the bits 1, 2, 4 ... 128 of a code.
_NEIGHBOUR_BITS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)

PenMap = NDArray[np.uint8]
"""uint8 [SIDE, SIDE, 2]: distance from the nearest centre line in DISTANCE_UNITs; the pen's lift, LIFT_ZERO plus 127
where a stroke begins, minus 127 where it ends."""


def font_path() -> Path:
    """The font file inside the installed font package, which isn't imported: it would import matplotlib."""
    spec = importlib.util.find_spec(FONT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the glyphs of the sample come from the package {FONT_PACKAGE}, which isn't installed; "
            "install it: pip install '.[sample]'"
        )
    path = Path(spec.submodule_search_locations[0]) / FONT_FILE
    if not path.is_file():
        raise UserError(
            f"{path}: expected the font of the package {FONT_PACKAGE}, found no such file; "
            "reinstall it: pip install --force-reinstall '.[sample]'"
        )
    return path


@lru_cache(maxsize=1)
def load_font() -> FreeTypeFont:
    """The font at the size at which glyphs are rendered."""
    path = font_path()
    try:
        # Pillow belongs to the optional dependencies [sample], so only drawing a sample may need it.
        from PIL import ImageFont
    except ImportError:
        raise UserError(
            "Pillow renders the glyphs of the sample and isn't installed; install it: pip install '.[sample]'"
        ) from None
    try:
        # The basic layout engine: raqm is slower and not part of every build of Pillow.
        return ImageFont.truetype(str(path), _RENDER_EM, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(
            f"{path}: expected a TrueType font, found {error}; reinstall the package {FONT_PACKAGE}"
        ) from None


def glyph_mask(character: str) -> NDArray[np.uint8]:
    """The printed glyph: uint8 [RENDER_SIDE, RENDER_SIDE], ink 255 on 0, its ink box in the middle."""
    ink = _render(character)
    if not ink.any() or ink.tobytes() == _missing_sign():
        raise UserError(f"the font {FONT_FILE} has no glyph for {character!r}; leave that character out")
    left, top, width, height = cv2.boundingRect(ink)
    canvas = np.zeros_like(ink)
    y, x = (RENDER_SIDE - height) // 2, (RENDER_SIDE - width) // 2
    canvas[y : y + height, x : x + width] = ink[top : top + height, left : left + width]
    return canvas


def _render(character: str) -> NDArray[np.uint8]:
    # As in load_font: Pillow is optional, and load_font says so where it isn't there.
    font = load_font()
    from PIL import Image, ImageDraw

    picture = Image.new("L", (RENDER_SIDE, RENDER_SIDE))
    origin = ((RENDER_SIDE - _RENDER_EM) // 2, RENDER_SIDE - RENDER_SIDE // 4)
    ImageDraw.Draw(picture).text(origin, character, font=font, fill=255, anchor="ls")
    return np.array(picture)


@lru_cache(maxsize=1)
def _missing_sign() -> bytes:
    # Fonts leave this private-use code point out, so its picture is the font's sign for a missing glyph.
    return _render("\ue0ff").tobytes()


# All 3,755 characters of level 1 are 58 MB; a process draws many writers with them.
@lru_cache(maxsize=8192)
def pen_map(character: str) -> PenMap:
    """The pen map of `character`, kept for the next writer."""
    return pen_map_of(glyph_mask(character))


def pen_map_of(mask: NDArray[np.uint8]) -> PenMap:
    """The pen map of a printed glyph, ink 255 on 0, uint8 [RENDER_SIDE, RENDER_SIDE]."""
    lines = thin((mask > 127).astype(np.uint8))
    # The precise distance: the faster masks' approximations differ between OpenCV's own code and Intel's. And 8-bit
    # steps before any averaging: OpenCV's arithmetic on bytes is exact. So every machine gets the same map.
    distance = cv2.distanceTransform(1 - lines, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / _OVERSAMPLING
    steps = np.minimum(np.rint(distance / DISTANCE_UNIT), 255).astype(np.uint8)
    layers = [cv2.resize(layer, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for layer in (steps, _lift(lines))]
    result: PenMap = np.stack(layers, axis=-1).astype(np.uint8)
    result.setflags(write=False)
    return result


def thin(shape: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The centre lines of `shape`, one pixel wide (uint8 [h, w], 1 on 0; Zhang and Suen 1984)."""
    first, second = _thinning_tables()
    while True:
        before = shape
        for table in (first, second):
            shape = np.bitwise_and(shape, cv2.LUT(_neighbours(shape), table), dtype=np.uint8)
        if np.array_equal(shape, before):
            return shape


def _neighbours(shape: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes: Any = cv2.filter2D(shape, cv2.CV_8U, _NEIGHBOUR_BITS, borderType=cv2.BORDER_CONSTANT)
    return cast(NDArray[np.uint8], codes)


@lru_cache(maxsize=1)
def _thinning_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For every code of eight neighbours, whether a pixel stays: in the first and in the second half of a round."""
    tables = np.ones((2, 256), np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]
        rises = sum(1 for here, after in zip(ring, ring[1:] + ring[:1], strict=True) if after > here)
        if not 2 <= sum(ring) <= 6 or rises != 1:
            continue
        north, _, east, _, south, _, west, _ = ring
        tables[0, code] = bool(north & east & south or east & south & west)
        tables[1, code] = bool(north & east & west or north & south & west)
    return tables[0], tables[1]


def _lift(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [h, w]: the lift channel, fading around the ends of lines.

    Hanzi are written rightwards and downwards, so the free end of a line that points down or right is where the pen
    leaves the paper.
    """
    # The way from the middle of the line's last pixels to its end is the way the line points.
    line = lines.astype(np.float32)
    ys, xs = np.mgrid[: lines.shape[0], : lines.shape[1]].astype(np.float32)
    ends = np.nonzero(lines & (np.bitwise_count(_neighbours(lines)) == 1))
    count, sum_y, sum_x = (_sum_around(layer)[ends] for layer in (line, line * ys, line * xs))
    down, right = ys[ends] - sum_y / count, xs[ends] - sum_x / count
    lifted = (down > 0.5 * np.abs(right)) | ((right > 0) & (down > -0.5 * right))
    fade = _fade()
    margin = len(fade) // 2
    result = np.full(np.add(lines.shape, 2 * margin), LIFT_ZERO, np.int16)
    for y, x, up in zip(*ends, lifted, strict=True):
        result[y : y + len(fade), x : x + len(fade)] += -fade if up else fade
    return np.clip(result[margin:-margin, margin:-margin], LIFT_ZERO - 127, LIFT_ZERO + 127).astype(np.uint8)


def _sum_around(layer: NDArray[np.float32]) -> NDArray[np.float32]:
    side = 2 * _END_REACH + 1
    sums: Any = cv2.boxFilter(layer, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return cast(NDArray[np.float32], sums)


@lru_cache(maxsize=1)
def _fade() -> NDArray[np.int16]:
    """int16 [31, 31]: how one end of a line is felt around it, 127 at the end itself."""
    squares = np.arange(-3 * _LIFT_SIGMA, 3 * _LIFT_SIGMA + 1) ** 2
    fade = np.rint(127 * np.exp(-(squares[:, None] + squares) / (2 * _LIFT_SIGMA**2)))
    return cast(NDArray[np.int16], fade.astype(np.int16))
