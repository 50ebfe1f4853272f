"""The six steps a second time, written plainly: the oracle for pipeline.steps.plain.

Everything but the interpolation itself is NumPy; nothing is imported from the pipeline.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import cv2
import numpy as np


def median(grey: np.ndarray) -> np.ndarray:
    """The median of the 3 × 3 pixels around, the border repeated."""
    padded = np.pad(grey, 1, mode="edge")
    h, w = grey.shape
    around = np.stack([padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)])
    return np.sort(around, axis=0)[4]


def stretch(grey: np.ndarray) -> np.ndarray:
    """Its range stretched to 0 … 255, rounded half up."""
    low, high = int(grey.min()), int(grey.max())
    return np.floor((grey.astype(np.float64) - low) * 255 / (high - low) + 0.5).astype(np.uint8)


def otsu_ink(grey: np.ndarray) -> np.ndarray:
    """255 at or below the first threshold that separates the two levels best."""
    histogram = np.bincount(grey.ravel(), minlength=256)
    below, weight = np.cumsum(histogram), np.cumsum(histogram * np.arange(256))
    above, weight_above = below[-1] - below, weight[-1] - weight
    best, threshold = -1.0, 0
    for t in np.flatnonzero((below > 0) & (above > 0)):
        means_apart = weight[t] / below[t] - weight_above[t] / above[t]
        between = float(below[t]) * float(above[t]) * means_apart**2
        if between > best * (1 + 1e-9):
            best, threshold = between, t
    return np.where(grey <= threshold, 255, 0).astype(np.uint8)


def ink_box(ink: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, width, height)"""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def edge_box(ink: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the pixels that are 32 levels or more above one of their eight neighbours."""
    h, w = ink.shape
    padded = np.pad(ink.astype(int), 1)
    lowest = np.min([padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)], axis=0)
    return ink_box(ink - lowest >= 32)


def fitted(ink: np.ndarray, size: int) -> np.ndarray:
    """Longer side 7/8 of `size`, in the middle of `size` × `size`."""
    inner = size - 2 * (size // 16)
    while max(ink.shape) > 2 * inner:
        halved = ((ink.shape[1] + 1) // 2, (ink.shape[0] + 1) // 2)
        ink = cv2.resize(ink, halved, interpolation=cv2.INTER_LINEAR_EXACT)
    half = Fraction(1, 2)
    height, width = (max(1, floor(Fraction(side * inner, max(ink.shape)) + half)) for side in ink.shape)
    scaled = cv2.resize(ink, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    image = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    image[top : top + height, left : left + width] = scaled
    return image


def article(bitmap: np.ndarray, size: int = 64) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """All six steps: the image and the box of the crop."""
    ink = otsu_ink(stretch(median(bitmap)))
    x, y, width, height = ink_box(ink)
    return fitted(ink[y : y + height, x : x + width], size), (x, y, width, height)


def best(bitmap: np.ndarray, size: int = 64) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Neither denoised nor binarised."""
    ink = 255 - stretch(bitmap)
    x, y, width, height = edge_box(ink)
    return fitted(ink[y : y + height, x : x + width], size), (x, y, width, height)


PRESETS = {"article": article, "best": best}
