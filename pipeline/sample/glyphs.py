"""The centre lines of characters, taken from an outline font.

A printed stroke has the width of its font. The sample needs the line in the middle of it, so that every writer can
draw that line with a pen of his own: each glyph is rendered once and thinned to its centre lines.
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

RENDER_EM = 96
"""Side of a rendered glyph's em square, in pixels: thinning wants strokes of several pixels."""
RENDER_SIDE = 132
"""Side of the picture of a rendered glyph, in pixels."""
# The neighbours of a pixel clockwise from the one above, as the bits 1, 2, 4 ... 128 of a code.
_NEIGHBOUR_BITS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)


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


@lru_cache(maxsize=64)
def load_font(path: Path) -> FreeTypeFont:
    """The font at the size at which glyphs are rendered."""
    try:
        # Pillow belongs to the optional dependencies [sample], so only drawing a sample may need it.
        from PIL import ImageFont
    except ImportError:
        raise UserError(
            "Pillow renders the glyphs of the sample and isn't installed; install it: pip install '.[sample]'"
        ) from None
    try:
        # The basic layout engine: raqm is slower and not part of every build of Pillow.
        return ImageFont.truetype(str(path), RENDER_EM, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(f"{path}: expected a font (TrueType, OpenType or WOFF), found {error}; name another") from None


def glyph_mask(path: Path, character: str) -> NDArray[np.uint8]:
    """The printed glyph: uint8 [RENDER_SIDE, RENDER_SIDE], ink 255 on 0, its ink box in the middle."""
    ink = _render(path, character)
    if not ink.any() or ink.tobytes() == _missing_sign(path):
        raise UserError(f"the font {path.name} has no glyph for {character!r}; leave that character out")
    left, top, width, height = cv2.boundingRect(ink)
    canvas = np.zeros_like(ink)
    y, x = (RENDER_SIDE - height) // 2, (RENDER_SIDE - width) // 2
    canvas[y : y + height, x : x + width] = ink[top : top + height, left : left + width]
    return canvas


# Asked for every record.
@lru_cache(maxsize=32_768)
def has_glyph(path: Path, character: str) -> bool:
    ink = _render(path, character)
    return bool(ink.any()) and ink.tobytes() != _missing_sign(path)


# The last ones: whether a font has a glyph is asked before its lines are.
@lru_cache(maxsize=8)
def _render(path: Path, character: str) -> NDArray[np.uint8]:
    # As in load_font: Pillow is optional, and load_font says so where it isn't there.
    font = load_font(path)
    from PIL import Image, ImageDraw

    picture = Image.new("L", (RENDER_SIDE, RENDER_SIDE))
    origin = ((RENDER_SIDE - RENDER_EM) // 2, RENDER_SIDE - RENDER_SIDE // 4)
    ImageDraw.Draw(picture).text(origin, character, font=font, fill=255, anchor="ls")
    return np.array(picture)


@lru_cache(maxsize=64)
def _missing_sign(path: Path) -> bytes:
    # Fonts leave this private-use code point out, so its picture is the font's sign for a missing glyph.
    return _render(path, "\ue0ff").tobytes()


def centre_lines(path: Path, character: str) -> NDArray[np.uint8]:
    """The centre lines of a glyph: uint8 [RENDER_SIDE, RENDER_SIDE], 1 on 0."""
    mask = glyph_mask(path, character)
    # Of a hairline nothing may be half covered.
    return thin((mask > (127 if mask.max() > 127 else 0)).astype(np.uint8))


def thin(shape: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The centre lines of `shape`, one pixel wide (uint8 [h, w], 1 on 0; Zhang and Suen 1984)."""
    first, second = _thinning_tables()
    while True:
        before = shape
        for table in (first, second):
            shape = np.bitwise_and(shape, cv2.LUT(neighbour_codes(shape), table), dtype=np.uint8)
        if np.array_equal(shape, before):
            return shape


def neighbour_codes(shape: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of each pixel of `shape` (1 on 0) its eight neighbours as bits, clockwise from the one above."""
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
