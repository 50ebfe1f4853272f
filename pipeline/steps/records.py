"""The six steps on many records at once: compiled, or one record after the other where Numba is missing or fails.

Python's and OpenCV's way from one call to the next costs more than the arithmetic on a bitmap of 70 × 70. Both ways
make the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.steps import kernels
from pipeline.steps.jit import read_only
from pipeline.steps.settings import PAPER, PreprocessConfig
from schemas.manifest import UNUSABLE_REASONS


class Samples(NamedTuple):
    """What became of n records."""

    image: np.ndarray
    """uint8 [n, size, size]: ink 255 on 0; undefined where there is no sample."""
    crop: np.ndarray
    """int64 [n, 4]: x, y, width, height of the crop, in pixels of the bitmap; 0 where there is no sample."""
    outcome: np.ndarray
    """int8 [n]: 0 for a sample, otherwise 1 and more: the place of its reason in UNUSABLE_REASONS, from 1."""


def preprocess_records(
    octets: np.ndarray, first_pixel: np.ndarray, width: np.ndarray, height: np.ndarray, config: PreprocessConfig
) -> Samples:
    """The steps that are on, for the grey bitmaps that begin at `first_pixel` (int64 [n]) of `octets` (uint8)."""
    count, size = len(first_pixel), config.image_size
    samples = Samples(np.empty((count, size, size), np.uint8), np.zeros((count, 4), np.int64), np.zeros(count, np.int8))
    if uncompiled():
        _one_by_one(octets, first_pixel, width, height, config, samples)
        return samples
    kernels.preprocess(
        read_only(octets),
        first_pixel,
        width.astype(np.int64),
        height.astype(np.int64),
        config.denoise == "median",
        config.normalize == "minmax",
        config.binarize == "otsu",
        config.crop == "edges",
        size - 2 * config.margin if config.resize == "fit" else 0,
        size,
        samples.image.reshape(count, size * size),
        samples.crop,
        samples.outcome,
    )
    return samples


def count_ink(octets: np.ndarray, first_pixel: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """int64 [n]: how many of the `pixels` (int64 [n]) that begin at `first_pixel` aren't paper."""
    if uncompiled():
        parts = zip(first_pixel.tolist(), (first_pixel + pixels).tolist(), strict=True)
        return np.array([np.count_nonzero(octets[begin:end] != PAPER) for begin, end in parts], np.int64)
    ink = np.zeros(len(first_pixel), np.int64)
    kernels.count_ink(read_only(octets), first_pixel, pixels, ink)
    return ink


def uncompiled() -> str:
    """Why the steps aren't compiled in this process, in one line; empty where they are."""
    return kernels.KERNELS.failure()


def _one_by_one(
    octets: np.ndarray,
    first_pixel: np.ndarray,
    width: np.ndarray,
    height: np.ndarray,
    config: PreprocessConfig,
    samples: Samples,
) -> None:
    from pipeline.steps.plain import Unusable, pin_opencv, preprocess  # OpenCV takes a while to import

    pin_opencv()
    for i, (begin, w, h) in enumerate(zip(first_pixel.tolist(), width.tolist(), height.tolist(), strict=True)):
        try:
            samples.image[i], samples.crop[i] = preprocess(octets[begin : begin + w * h].reshape(h, w), config)
        except Unusable as unusable:
            samples.outcome[i] = 1 + UNUSABLE_REASONS.index(unusable.reason)
