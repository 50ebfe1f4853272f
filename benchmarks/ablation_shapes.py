"""Experiments around the six steps: grey levels, stroke width and slant made alike before or after them.

None of these is a step of the conversion; benchmarks/ablation.md says what each was worth.
"""

from __future__ import annotations

import cv2
import numpy as np

_GREY_MEAN, _GREY_DEVIATION = 160.0, 45.0  # of the ink's levels, 0 … 255, where 255 is full ink
_TYPICAL_INK = 200.0
_STROKE_WIDTH = 3.0  # pixels of a 64-pixel sample
_MOST_SLANT = 0.5  # columns a row
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def level_ink(bitmap: np.ndarray) -> np.ndarray:
    """CASIA's practice: the ink's grey levels get a mean and deviation of their own, the ground stays at 0.

    uint8 [h, w] to uint8 [h, w], 255 is paper.
    """
    ink = 255 - bitmap.astype(np.float32)
    written = ink > 0
    if not written.any():
        return bitmap
    levels = ink[written]
    scaled = (levels - levels.mean()) / max(1.0, float(levels.std())) * _GREY_DEVIATION + _GREY_MEAN
    result = np.full(bitmap.shape, 255, np.uint8)
    result[written] = 255 - np.clip(np.rint(scaled), 1, 255).astype(np.uint8)
    return result


def strengthen_ink(bitmap: np.ndarray) -> np.ndarray:
    """The ink's typical level brought to one value by a factor, so that faint pixels stay faint; darker ones saturate.

    uint8 [h, w] to uint8 [h, w], 255 is paper.
    """
    ink = 255 - bitmap.astype(np.float32)
    total = float(ink.sum())
    if total == 0:
        return bitmap
    typical = float(np.square(ink).sum()) / total  # each pixel weighs as much as it is dark
    return 255 - np.clip(np.rint(ink * (_TYPICAL_INK / typical)), 0, 255).astype(np.uint8)


def straighten(bitmap: np.ndarray) -> np.ndarray:
    """The slant taken out by the second moments: rows are shifted until x and y don't correlate. Paper comes in."""
    ink = 255 - bitmap
    moments = cv2.moments(ink)
    if moments["m00"] == 0 or moments["mu02"] < 1:
        return bitmap
    slant = float(np.clip(moments["mu11"] / moments["mu02"], -_MOST_SLANT, _MOST_SLANT))
    height, width = ink.shape
    room = int(np.ceil(abs(slant) * height / 2)) + 1
    middle = moments["m01"] / moments["m00"]
    shear = np.array([[1, -slant, slant * middle + room], [0, 1, 0]], np.float32)
    return 255 - cv2.warpAffine(ink, shear, (width + 2 * room, height), flags=cv2.INTER_LINEAR)


def even_strokes(image: np.ndarray) -> np.ndarray:
    """A sample's strokes brought to one width, by moving towards its dilation or its erosion.

    uint8 [s, s] to uint8 [s, s], ink 255 on 0.
    """
    target = _STROKE_WIDTH * image.shape[0] / 64
    for _ in range(3):
        width = stroke_width(image)
        if abs(width - target) < 0.25:
            break
        extreme = (cv2.dilate if width < target else cv2.erode)(image, _NEIGHBOURS)
        reached = stroke_width(extreme)
        share = min(1.0, (target - width) / (reached - width)) if abs(reached - width) > 0.05 else 0.0
        image = cv2.addWeighted(extreme, max(0.0, share), image, 1 - max(0.0, share), 0)
    return image


def stroke_width(image: np.ndarray) -> float:
    """Twice the ink's area by the length of its outline, both of grey levels; in pixels."""
    ink = image.astype(np.float32) / 255
    down, right = np.diff(ink, axis=0, append=0), np.diff(ink, axis=1, append=0)
    outline = float(np.hypot(down, right).sum())
    return 2 * float(ink.sum()) / max(outline, 1.0)
