"""Pictures as blocks of a terminal: each cell holds two pixels, one above the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

import numpy as np

from pipeline.inspect.pictures.sheet import fit
from pipeline.inspect.pictures.steps import Picture

Colours = Literal["truecolour", "greys", "none"]

_GAP = 2  # cells
_SMALLEST, _LARGEST = 16, 36  # cells a picture is wide
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_GREY_RAMP, _GREY_LEVELS = 232, 24  # of the 256 colours


def colours_of(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Colours:
    """What the stream's reader can show: nothing but characters unless it is a terminal."""
    if not stream.isatty() or environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return "none"
    return "truecolour" if environment.get("COLORTERM") in ("truecolor", "24bit") else "greys"


def draw(pictures: Sequence[Picture], columns: int, colours: Colours) -> str:
    """The pictures side by side, titled, on as many lines of pictures as `columns` cells ask for."""
    most = max(1, (columns + _GAP) // (_SMALLEST + _GAP))
    lines = -(-len(pictures) // most)
    abreast = -(-len(pictures) // lines)
    side = min(_LARGEST, (columns + _GAP) // abreast - _GAP)
    drawn: list[str] = []
    for begin in range(0, len(pictures), abreast):
        row = pictures[begin : begin + abreast]
        drawn.append((" " * _GAP).join(picture.title[:side].ljust(side) for picture in row).rstrip())
        cells = [_cells(picture.image, side, colours) for picture in row]
        # Shorter ones are filled up, or the ones to their right would slip to the left.
        tallest = max(map(len, cells))
        filled = [lines + [" " * side] * (tallest - len(lines)) for lines in cells]
        drawn += [(" " * _GAP).join(parts) for parts in zip(*filled, strict=True)]
    return "\n".join(drawn)


def _cells(image: np.ndarray, side: int, colours: Colours) -> list[str]:
    """A string of `side` cells for each two rows of pixels."""
    small = fit(image, side)
    if len(small) % 2:
        small = np.vstack([small, small[-1:]])
    padding = " " * (side - small.shape[1])
    return [_line(upper, lower, colours) + padding for upper, lower in zip(small[::2], small[1::2], strict=True)]


def _line(upper: np.ndarray, lower: np.ndarray, colours: Colours) -> str:
    pairs = list(zip(upper.tolist(), lower.tolist(), strict=True))
    if colours == "none":
        return "".join(_HALVES[a >= 128, b >= 128] for a, b in pairs)
    code = _truecolour if colours == "truecolour" else _grey
    return "".join(f"\x1b[38;{code(a)};48;{code(b)}m▀" for a, b in pairs) + "\x1b[0m"


def _truecolour(level: int) -> str:
    return f"2;{level};{level};{level}"


def _grey(level: int) -> str:
    return f"5;{_GREY_RAMP + level * (_GREY_LEVELS - 1) // 255}"
