"""What an ablation compares: settings of the conversion and of the augmentation, each with a prediction made before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ablation_shapes import even_strokes, level_ink, straighten, strengthen_ink

from model.network.augment import PRESETS, AugmentConfig
from pipeline.steps.settings import PreprocessConfig

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Marginal(PreprocessConfig):
    """The six steps with another margin than the conversion's."""

    margin_share: float = 1 / 16

    def __post_init__(self) -> None: ...

    @property
    def margin(self) -> int:
        return round(self.image_size * self.margin_share)


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    predicted: str
    """Difference to the baseline in percent points, scans / photos, guessed before anything was run."""
    steps: dict[str, str] = field(default_factory=dict)
    size: int = 64
    margin_share: float | None = None
    before: tuple[Change, ...] = ()
    after: tuple[Change, ...] = ()
    augment: str = "light"

    @property
    def config(self) -> PreprocessConfig:
        settings: dict[str, Any] = {**BASELINE_STEPS, **self.steps, "image_size": self.size}
        if self.margin_share is None:
            return PreprocessConfig(**settings)
        return Marginal(**settings, margin_share=self.margin_share)


BASELINE = "baseline"
BASELINE_STEPS = {"denoise": "none", "binarize": "none"}

PRESETS.update(
    {
        "affine": AugmentConfig(rotate_degrees=15, scale=0.18, shear=0.2, shift=0.06),
        "affine, elastic": AugmentConfig(rotate_degrees=15, scale=0.18, shear=0.2, shift=0.06, elastic=0.02),
        "full but erasing": replace(PRESETS["full"], erase=0.0),
        "full but thickness": replace(PRESETS["full"], thickness=0.0),
        "full but elastic": replace(PRESETS["full"], elastic=0.0),
    }
)

VARIANTS = (
    Variant(BASELINE, "0 / 0"),
    Variant("all six", "-1.0 / +2.0", {"denoise": "median", "binarize": "otsu"}),
    Variant("+ binarize", "-0.5 / +2.5", {"binarize": "otsu"}),
    Variant("+ denoise", "-0.7 / +0.5", {"denoise": "median"}),
    Variant("- normalize", "-0.3 / -4.0", {"normalize": "none"}),
    Variant("- crop", "0.0 / -40", {"crop": "none"}),
    Variant("- resize", "-50 / -90", {"resize": "none"}),
    Variant("margin 0", "-0.3 / -0.3", margin_share=0.0),
    Variant("margin 1/8", "-0.3 / -0.3", margin_share=1 / 8),
    Variant("48 pixels", "-0.7 / -0.7", size=48),
    Variant("96 pixels", "+0.3 / +0.3", size=96),
    Variant("grey levels to one mean and deviation", "+0.2 / +1.0", {"normalize": "none"}, before=(level_ink,)),
    Variant("typical ink to one level", "+0.3 / +3.0", {"normalize": "none"}, before=(strengthen_ink,)),
    Variant(
        "strokes to one width",
        "-0.3 / +0.5",
        {"normalize": "none"},
        before=(strengthen_ink,),
        after=(even_strokes,),
    ),
    Variant("slant taken out", "-0.3 / -0.5", before=(straighten,)),
    Variant("augment none", "-4.0 / -6.0", augment="none"),
    Variant("augment affine", "-0.5 / -1.0", augment="affine"),
    Variant("augment affine, elastic", "0.0 / -0.5", augment="affine, elastic"),
    Variant("augment full but erasing", "+0.2 / +1.0", augment="full but erasing"),
    Variant("augment full", "-0.2 / +1.0", augment="full"),
    Variant("augment full but thickness", "-0.3 / 0.0", augment="full but thickness"),
    Variant("augment full but elastic", "-0.3 / +0.5", augment="full but elastic"),
)
"""The baseline is `--denoise=none --binarize=none` at 64 pixels, trained with `--augment light`.

The grey step has no row: a GNT bitmap is grey, so the step hands it on as it is.
"""
