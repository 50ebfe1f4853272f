"""Pictures of handwriting as people take them, made from GNT bitmaps; and pictures of what is no character.

Everything depends on the arguments alone. Pixels go through JPEG where a phone's would.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

KINDS = (
    "plain paper",
    "shadow",
    "thin pen",
    "thick marker",
    "coloured ink",
    "white on black",
    "off centre",
    "rotated",
)
"""The kinds of photo(); "plain paper" is a picture without a difficulty of its own."""

OTHERS = ("scribble", "letter", "blank")
"""The kinds of no_character()."""

LETTERS = "ABDEFGHKMNPQRSTWabdefghkmnqrstw23456789&?"

_HEIGHT, _WIDTH = 640, 480  # pixels of a picture
_SIDE = 260  # pixels of a character's longer side in it
_PEN = (45, 45, 60)
_PAPER = (236, 232, 222)
_INKS: tuple[Colour, ...] = ((190, 35, 40), (25, 50, 150), (20, 110, 60), (235, 120, 20), (120, 40, 140))


def photo(kind: str, bitmap: np.ndarray, seed: int) -> np.ndarray:
    """uint8 [h, w, 3] RGB of a GNT bitmap, uint8 [h, w] with dark ink on 255."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    side = _SIDE * (0.45 if kind == "off centre" else rng.uniform(0.85, 1.15))
    ink = enlarged(coverage_of(bitmap), side)
    if kind == "thin pen":
        ink = pen(ink, 0.55)
    if kind == "thick marker":
        ink = pen(ink, 1.7)
    if kind == "rotated":
        ink = turned(ink, float(rng.choice([-1, 1]) * rng.uniform(4, 9)))
    where = (rng.uniform(0, 0.12), rng.uniform(0.85, 1)) if kind == "off centre" else rng.uniform(0.3, 0.7, 2)
    page = placed(ink, *where)
    if kind == "white on black":
        return as_uint8(painted(page, (255, 255, 255), (0, 0, 0)))
    colour = _INKS[int(rng.integers(len(_INKS)))] if kind == "coloured ink" else _PEN
    return taken(painted(page, colour, _PAPER), rng, shadow=kind == "shadow")


def no_character(kind: str, seed: int) -> np.ndarray:
    """uint8 [h, w, 3] RGB: a photo of a scribble, of a Latin letter or digit, or of empty paper."""
    rng = np.random.default_rng([seed, len(KINDS) + OTHERS.index(kind)])
    if kind == "scribble":
        page = placed(scribble(rng), *rng.uniform(0.3, 0.7, 2))
    elif kind == "letter":
        ink = turned(letter(str(rng.choice(list(LETTERS))), bool(rng.integers(2))), float(rng.uniform(-8, 8)))
        page = placed(enlarged(ink, _SIDE), *rng.uniform(0.3, 0.7, 2))
    else:
        page = np.zeros((_HEIGHT, _WIDTH))
    return taken(painted(page, _PEN, _PAPER), rng, shadow=bool(seed % 2))


def coverage_of(bitmap: np.ndarray) -> np.ndarray:
    """float [h, w], 0 to 1: how much of each pixel is ink, the darkest ink taken for full."""
    missing = 255.0 - bitmap
    return np.clip(missing / max(1.0, float(np.percentile(missing[missing > 0], 75))), 0, 1)


def enlarged(ink: np.ndarray, side: float) -> np.ndarray:
    """The longer side `side` pixels long."""
    scale = side / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    return np.clip(cv2.resize(ink, size, interpolation=cv2.INTER_CUBIC), 0, 1)


def pen(ink: np.ndarray, factor: float) -> np.ndarray:
    """Strokes `factor` times as wide, about."""
    change = abs(factor - 1) * stroke_width(ink)
    reach = max(1, round(change / 2))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    padded = np.pad(ink, 2 * reach)
    if factor > 1:
        return cv2.dilate(padded, kernel)
    # A thin pen leaves a line where a stroke was thin already.
    return np.maximum(cv2.erode(padded, kernel), 0.8 * spine(padded))


def stroke_width(ink: np.ndarray) -> float:
    """The mean width of the strokes, in pixels: twice the area over the length of the outline."""
    outlines, _ = cv2.findContours((ink > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return float(2 * np.count_nonzero(ink > 0.5) / max(1.0, sum(cv2.arcLength(line, True) for line in outlines)))


def spine(ink: np.ndarray) -> np.ndarray:
    """A thin line along the middle of each stroke: the ridge of the distance to the paper, two pixels wide."""
    distance = cv2.distanceTransform((ink > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    ridge = (distance > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3))) - 0.5)
    return cv2.GaussianBlur(ridge.astype(np.float64), (3, 3), 0)


def turned(ink: np.ndarray, degrees: float) -> np.ndarray:
    """Ink turned by so many degrees."""
    room = int(0.15 * max(ink.shape))
    padded = np.pad(ink, room)
    height, width = padded.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(padded, turn, (width, height), flags=cv2.INTER_LINEAR)


def placed(ink: np.ndarray, down: float, right: float) -> np.ndarray:
    """float [_HEIGHT, _WIDTH] with the ink in it, 0 to 1 of the free room down and right, a margin kept."""
    margin = 14
    page = np.zeros((_HEIGHT, _WIDTH))
    top = margin + int(down * (_HEIGHT - 2 * margin - ink.shape[0]))
    left = margin + int(right * (_WIDTH - 2 * margin - ink.shape[1]))
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def painted(coverage: np.ndarray, ink: Colour, paper: Colour) -> np.ndarray:
    """float [h, w, 3]"""
    return coverage[..., None] * np.array(ink, float) + (1 - coverage[..., None]) * np.array(paper, float)


def taken(page: np.ndarray, rng: np.random.Generator, *, shadow: bool) -> np.ndarray:
    """What a phone makes of a page: slanting light, perhaps a hand's shadow, a soft lens, noise, JPEG."""
    height, width = page.shape[:2]
    y, x = np.mgrid[:height, :width]
    angle = rng.uniform(0, 2 * np.pi)
    across = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) + 0.5
    light = 1 - rng.uniform(0.05, 0.2) * across
    if shadow:
        # Its border is sharp on one page and soft on another, and runs across the character.
        border = across + 0.1 * np.sin(4 * (y / height)) - rng.uniform(0.4, 0.6)
        softness = rng.uniform(0.004, 0.08)
        light = light * (1 - rng.uniform(0.35, 0.55) / (1 + np.exp(-np.clip(border / softness, -50, 50))))
    grain = cv2.GaussianBlur(rng.normal(0, 6, (height, width)), (0, 0), 2)
    seen = cv2.GaussianBlur(page * light[..., None], (0, 0), 0.9) + grain[..., None]
    seen = seen + rng.normal(0, 3.5, seen.shape)
    coded = cv2.imencode(".jpg", cv2.cvtColor(as_uint8(seen), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def scribble(rng: np.random.Generator) -> np.ndarray:
    """A wild line: loops, a zigzag or a cloud of strokes, as from trying out a pen. float [h, w]."""
    side = _SIDE
    canvas = np.zeros((side + 40, side + 40), np.uint8)
    t = np.linspace(0, 1, 400)
    form = int(rng.integers(3))
    if form == 0:
        turns = rng.uniform(3, 7)
        x = t + 0.25 * np.cos(2 * np.pi * turns * t + rng.uniform(0, 6))
        y = 0.5 + 0.35 * np.sin(2 * np.pi * turns * t) * rng.uniform(0.6, 1)
    elif form == 1:
        teeth = rng.integers(5, 11)
        x, y = np.interp(t * (teeth - 1), range(teeth), rng.uniform(0, 1, teeth)), t
    else:
        frequencies = rng.uniform(0.5, 5, (2, 4))
        x, y = (0.5 + sum(0.25 * np.sin(2 * np.pi * (f * t + rng.uniform())) for f in axis) / 2 for axis in frequencies)
    points = np.stack([x, y], 1)
    points = (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-6)
    pixels = np.rint((20 + side * points) * 8).astype(np.int32)
    cv2.polylines(canvas, [pixels[:, None]], False, 255, int(rng.integers(5, 14)), cv2.LINE_AA, 3)
    return canvas / 255.0


def letter(character: str, slanted: bool) -> np.ndarray:
    """A Latin letter or a digit of DejaVu Sans, the font that comes with matplotlib. float [h, w]."""
    import matplotlib

    name = "DejaVuSans-Oblique.ttf" if slanted else "DejaVuSans.ttf"
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, 240)
    image = Image.new("L", (400, 400))
    ImageDraw.Draw(image).text((60, 40), character, font=font, fill=255)
    return np.asarray(image.crop(image.getbbox())) / 255.0


def as_uint8(picture: np.ndarray) -> np.ndarray:
    """Rounded, and held to 0 … 255."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
