"""The six steps one by one, each with the picture it leaves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.steps import plain as steps
from pipeline.steps.plain import Unusable
from pipeline.steps.settings import MIN_CONTRAST, PreprocessConfig

ORIGINAL = "original"
STORED = "stored sample"


class Picture(NamedTuple):
    title: str
    image: np.ndarray
    """uint8 [h, w]."""


def step_pictures(bitmap: np.ndarray, config: PreprocessConfig) -> list[Picture]:
    """The bitmap and what each step makes of it: seven pictures, fewer if a step finds it unusable.

    The same steps as preprocess.preprocess takes, whose last picture is its sample; a step that is switched off shows
    what it lets through.
    """
    pictures = [Picture(ORIGINAL, bitmap)]

    def show(step: str, image: np.ndarray) -> np.ndarray:
        off = " (off)" if getattr(config, step) == "none" else ""
        pictures.append(Picture(step + off, image))
        return image

    try:
        grey = show("grey", steps.to_grey(bitmap) if config.grey == "luma" else bitmap)
        denoised = show("denoise", steps.denoise(grey) if config.denoise == "median" else grey)
        darkest, lightest = steps.darkest_and_lightest(denoised)
        if lightest - darkest < MIN_CONTRAST:
            return pictures
        # to_ink normalises by itself, and may do both in one pass: this picture is for the eye alone.
        show("normalize", steps.normalize(denoised, darkest, lightest) if config.normalize == "minmax" else denoised)
        ink = show("binarize", steps.to_ink(denoised, darkest, lightest, config))
        sample = steps.preprocess(bitmap, config)
        box = sample.crop
        show("crop", ink[box.y : box.y + box.height, box.x : box.x + box.width])
        show("resize", sample.image)
    except Unusable:
        pass
    return pictures
