"""Rows of pictures, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.inspect.pictures.steps import Picture

PANEL = 128  # pixels a side
_GAP, _LINE = 8, 18
_GROUND, _TEXT = 236, 40
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


def sheet(rows: Sequence[tuple[str, Sequence[Picture]]]) -> np.ndarray:
    """uint8 [h, w]: for each (caption, pictures) the caption and below it the pictures side by side, titled."""
    columns = max(len(pictures) for _, pictures in rows)
    captions = max(len(caption) for caption, _ in rows)
    width = max(_GAP + columns * (PANEL + _GAP), 2 * _GAP + 8 * captions)
    height = _GAP + len(rows) * (2 * _LINE + PANEL + 2 * _GAP)
    image = np.full((height, width), _GROUND, np.uint8)
    for number, (caption, pictures) in enumerate(rows):
        top = _GAP + number * (2 * _LINE + PANEL + 2 * _GAP)
        _write(image, caption, _GAP, top)
        for column, picture in enumerate(pictures):
            left = _GAP + column * (PANEL + _GAP)
            _write(image, picture.title, left, top + _LINE)
            fitted = fit(picture.image, PANEL)
            y, x = top + 2 * _LINE, left
            image[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    return image


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Scaled so that its longer side is `side` pixels; enlarged pixels stay squares."""
    longer = max(image.shape)
    size = tuple(max(1, round(n * side / longer)) for n in image.shape[::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if longer > side else cv2.INTER_NEAREST)


def png(image: np.ndarray) -> bytes:
    encoded: np.ndarray = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return encoded.tobytes()


def _write(image: np.ndarray, text: str, x: int, y: int) -> None:
    # OpenCV's font has no Chinese; the terminal shows the character.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, (x, y + _LINE - 6), _FONT, _SCALE, _TEXT, 1, cv2.LINE_AA)
