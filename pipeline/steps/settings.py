"""The six steps' settings and the figures they go by, for whoever needs no OpenCV."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

PAPER = 255
INK = 255
"""The grey level of full ink in a sample; its ground is 0. In a bitmap paper is 255 and ink is dark."""

MIN_CONTRAST = 16  # grey levels between the darkest and the lightest pixel; below that there is nothing to see
EDGE_LEVEL = 32  # grey levels between neighbours that make an edge
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 1024

STEPS = {
    "grey": ("luma", "none", "one grey channel out of colours (GNT bitmaps are grey already)"),
    "denoise": ("median", "none", "the median of 3 × 3 pixels"),
    "normalize": ("minmax", "none", "stretch the grey levels to 0 … 255"),
    "binarize": ("otsu", "none", "ink or paper, by Otsu's threshold"),
    "crop": ("edges", "none", "cut to the bounding box of the ink's edges"),
    "resize": ("fit", "none", "scale to the image size, aspect ratio kept, with a margin"),
}
"""Step -> (on, off, what it does), in their order."""
PRESETS = {
    "article": {step: on for step, (on, _, _) in STEPS.items()},
    "best": {step: on for step, (on, _, _) in STEPS.items()} | {"denoise": "none", "binarize": "none"},
}
"""Preset -> step -> its setting: the six steps of the article that this project began with; what is read best."""
DEFAULT_PRESET = "best"


@dataclass(frozen=True)
class PreprocessConfig:
    """A switch for each of the six steps, and the sample's size in pixels; the defaults are what is read best."""

    image_size: int = 64
    grey: Literal["luma", "none"] = "luma"
    denoise: Literal["median", "none"] = "none"
    normalize: Literal["minmax", "none"] = "minmax"
    binarize: Literal["otsu", "none"] = "none"
    crop: Literal["edges", "none"] = "edges"
    resize: Literal["fit", "none"] = "fit"

    def __post_init__(self) -> None:
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise ValueError(
                f"image_size: expected {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE:,} pixels, found {self.image_size:,}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "image_size" and value not in STEPS[field.name][:2]:
                expected = " or ".join(STEPS[field.name][:2])
                raise ValueError(f"{field.name}: expected {expected}, found {value!r}")

    @property
    def margin(self) -> int:
        """Empty pixels on each side of a sample's longer side: a sixteenth of its size."""
        return self.image_size // 16
