"""The six steps from a bitmap to a sample: grey → denoise → normalise → binarise → edge-detect crop → resize.

Each step is a pure function on uint8. `preprocess` is what prediction runs on a person's own picture; a conversion runs
the same steps compiled (compiled.py), and the tests hold one to the other byte for byte. Only operations that are
exact in integers are used, so a sample doesn't depend on the processor it was made on.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.steps.settings import EDGE_LEVEL, INK, MIN_CONTRAST, PAPER, PreprocessConfig
from schemas.manifest import BLANK, LARGER_THAN_IMAGE

_MEDIAN_MIN_WIDTH = 66  # OpenCV's vectorised 3 × 3 median starts at one 64-byte register and two neighbours


class Unusable(Exception):
    """A bitmap that gives no sample; `reason` is one of UNUSABLE_REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Box(NamedTuple):
    """A rectangle in a bitmap, in pixels."""

    x: int
    y: int
    width: int
    height: int


class Sample(NamedTuple):
    """A preprocessed record."""

    image: np.ndarray
    """uint8 [size, size]: ink 255 on 0."""
    crop: Box


def preprocess(bitmap: np.ndarray, config: PreprocessConfig) -> Sample:
    """The steps that are on, one after the other.

    The bitmap is uint8 [h, w], or [h, w, 3 or 4] in OpenCV's channel order, with dark ink on light paper.
    Raises Unusable where the bitmap holds no ink.
    """
    grey = to_grey(bitmap) if config.grey == "luma" else bitmap
    if grey.ndim != 2:
        raise ValueError(f"expected a grey bitmap [h, w] with --grey=none, found shape {grey.shape}")
    denoised = denoise(grey) if config.denoise == "median" else grey
    darkest, lightest = darkest_and_lightest(denoised)
    if lightest - darkest < MIN_CONTRAST:
        raise Unusable(BLANK)
    ink = to_ink(denoised, darkest, lightest, config)
    if config.crop == "none":
        box = Box(0, 0, ink.shape[1], ink.shape[0])
    else:
        # On two levels the ink's own pixels and its inner edge have the same bounding box, and cost less to find.
        box = bounding_box(ink if config.binarize == "otsu" else inner_edges(ink))
    cropped = ink[box.y : box.y + box.height, box.x : box.x + box.width]
    if config.resize == "fit":
        cropped = fit(cropped, config.image_size - 2 * config.margin)
    return Sample(centre(cropped, config.image_size), box)


def to_grey(bitmap: np.ndarray) -> np.ndarray:
    """uint8 [h, w] from grey, BGR or BGRA; what is transparent becomes paper."""
    if bitmap.ndim == 2:
        return bitmap
    if bitmap.shape[2] == 1:
        return bitmap[:, :, 0]
    if bitmap.shape[2] == 4:
        alpha = bitmap[:, :, 3:].astype(np.uint16)
        colours = bitmap[:, :, :3].astype(np.uint16)
        bitmap = ((colours * alpha + PAPER * (255 - alpha) + 127) // 255).astype(np.uint8)
    return cv2.cvtColor(bitmap, cv2.COLOR_BGR2GRAY)


def denoise(grey: np.ndarray) -> np.ndarray:
    """The median of each pixel's 3 × 3 neighbourhood, the outermost pixels repeated beyond the border."""
    width = grey.shape[1]
    if width >= _MEDIAN_MIN_WIDTH:
        return cv2.medianBlur(grey, 3)
    # Narrow images fall off OpenCV's vectorised path and cost 15 times as much; repeating the last column adds
    # nothing that the median of the real columns could see.
    wide = cv2.copyMakeBorder(grey, 0, 0, 0, _MEDIAN_MIN_WIDTH - width, cv2.BORDER_REPLICATE)
    return cv2.medianBlur(wide, 3)[:, :width]


def darkest_and_lightest(grey: np.ndarray) -> tuple[int, int]:
    darkest, lightest, _, _ = cv2.minMaxLoc(grey)
    return int(darkest), int(lightest)


def normalize(grey: np.ndarray, darkest: int, lightest: int) -> np.ndarray:
    """Stretches the levels from `darkest` … `lightest` to 0 … 255, rounded to the nearest."""
    return cv2.LUT(grey, _stretched_levels(darkest, lightest))


@cache
def _stretched_levels(darkest: int, lightest: int) -> np.ndarray:
    span = lightest - darkest
    stretched = (2 * 255 * (np.arange(256) - darkest) + span) // (2 * span)
    return np.clip(stretched, 0, 255).astype(np.uint8)


def to_ink(grey: np.ndarray, darkest: int, lightest: int, config: PreprocessConfig) -> np.ndarray:
    """Normalised, then binarised or inverted: ink 255 on 0."""
    if config.normalize == "minmax" and config.binarize == "none":
        return cv2.LUT(grey, _stretched_ink(darkest, lightest))  # both in one pass
    normal = normalize(grey, darkest, lightest) if config.normalize == "minmax" else grey
    return binarize(normal) if config.binarize == "otsu" else invert(normal)


@cache
def _stretched_ink(darkest: int, lightest: int) -> np.ndarray:
    return invert(_stretched_levels(darkest, lightest))


def binarize(grey: np.ndarray) -> np.ndarray:
    """Ink (255) where the bitmap is at or below Otsu's threshold, 0 elsewhere."""
    return cv2.threshold(grey, 0, INK, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]


def invert(grey: np.ndarray) -> np.ndarray:
    """Dark ink on light paper becomes light ink on a dark ground, all levels kept."""
    return cv2.bitwise_not(grey)


def inner_edges(ink: np.ndarray) -> np.ndarray:
    """255 on the ink side of every step of EDGE_LEVEL or more between 8-neighbours, 0 elsewhere.

    Beyond the border lies ground, so ink that touches it has an edge there too.
    """
    edges = cv2.erode(ink, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    cv2.subtract(ink, edges, dst=edges)
    return cv2.threshold(edges, EDGE_LEVEL - 1, 255, cv2.THRESH_BINARY, dst=edges)[1]


_NEIGHBOURS = np.ones((3, 3), np.uint8)


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest rectangle around the pixels of `mask` that aren't 0. Raises Unusable if all are."""
    box = Box(*cv2.boundingRect(mask))
    if box.width == 0:
        raise Unusable(BLANK)
    return box


def fit(ink: np.ndarray, side: int) -> np.ndarray:
    """Scaled so that the longer side is `side` pixels, the aspect ratio kept, the shorter side at least 1 pixel."""
    height, width = ink.shape
    # Linear interpolation looks at 2 × 2 pixels: halve until nothing would be skipped.
    while max(height, width) > 2 * side:
        height, width = (height + 1) // 2, (width + 1) // 2
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return cv2.resize(ink, fitted_size(width, height, side), interpolation=cv2.INTER_LINEAR_EXACT)


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) that `fit` scales to."""
    while max(height, width) > 2 * side:
        height, width = (height + 1) // 2, (width + 1) // 2
    longer = max(height, width)
    return max(1, (2 * width * side + longer) // (2 * longer)), max(1, (2 * height * side + longer) // (2 * longer))


def centre(ink: np.ndarray, size: int) -> np.ndarray:
    """`ink` in the middle of uint8 [size, size]. Raises Unusable if it is larger than that."""
    height, width = ink.shape
    if max(height, width) > size:
        raise Unusable(LARGER_THAN_IMAGE)
    top, left = (size - height) // 2, (size - width) // 2
    image = np.zeros((size, size), np.uint8)
    image[top : top + height, left : left + width] = ink
    return image


def pin_opencv() -> None:
    """One thread, since a process per core is running, and no Intel primitives, whose rounding differs by processor."""
    cv2.setNumThreads(1)
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)
