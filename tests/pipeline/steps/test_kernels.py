"""The compiled steps: the same bytes as the calls of OpenCV, and as the plain steps, for every combination."""

from __future__ import annotations

from itertools import product
from typing import Any

import gnt_files
import numpy as np
import plain_steps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.steps import kernels
from pipeline.steps import settings as steps
from pipeline.steps.plain import Unusable, preprocess
from pipeline.steps.records import count_ink, preprocess_records
from pipeline.steps.settings import PRESETS, PreprocessConfig
from schemas.manifest import UNUSABLE_REASONS

SETTINGS = [
    dict(zip(steps.STEPS, choice, strict=True))
    for choice in product(*(choices[:2] for choices in steps.STEPS.values()))
    if choice[0] == "luma"  # records are grey
]


def drawn() -> list[np.ndarray]:
    """Bitmaps of all sorts: written, noise, blank, one pixel, one line, larger and smaller than a sample."""
    random = np.random.default_rng(5)
    bitmaps = [gnt_files.strokes(seed, *shape) for seed, shape in enumerate([(50, 44), (90, 130), (12, 12), (160, 20)])]
    bitmaps += [random.integers(0, 256, shape, np.uint8) for shape in [(1, 1), (1, 40), (40, 1), (2, 2), (70, 66)]]
    bitmaps += [np.full((20, 30), level, np.uint8) for level in (0, 128, 255)]
    bitmaps += [255 - (255 - gnt_files.strokes(9, 60, 60)) // divisor for divisor in (3, 15, 17)]
    wide = np.full((5, 700), 255, np.uint8)
    wide[2, 30:660] = 0
    huge = np.pad(gnt_files.strokes(3, 150, 150).repeat(6, 0).repeat(6, 1), 40, constant_values=255)
    speck = np.full((33, 31), 255, np.uint8)
    speck[7, 30] = 100
    shades = np.tile(np.linspace(40, 250, 64).astype(np.uint8), (50, 1))  # no step of EDGE_LEVEL but at the border
    steepest = [just_an_edge(level) for level in (steps.EDGE_LEVEL - 1, steps.EDGE_LEVEL, steps.EDGE_LEVEL + 1)]
    return [*bitmaps, wide, wide.T, huge, speck, shades, *one_sided(0), *one_sided(6), *steepest]


def one_sided(top: int) -> list[np.ndarray]:
    """Ink that begins sharply on one side and fades out too slowly for an edge on the others; each side in turn."""
    y, x = np.mgrid[:60, :60]
    ink = np.where(y < top, 0, np.clip(200 - 12 * np.abs(x - 30) - 12 * (y - top), 0, 255)).astype(np.uint8)
    return [255 - np.ascontiguousarray(np.rot90(ink, turns)) for turns in range(4)]


def just_an_edge(level: int) -> np.ndarray:
    """A black blot, and one pixel of `level` on the paper."""
    bitmap = np.full((40, 40), 255, np.uint8)
    bitmap[20:30, 20:30], bitmap[4, 6] = 0, 255 - level
    return bitmap


def laid_out(bitmaps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """octets, first_pixel, width, height: each bitmap behind a header's worth of other bytes."""
    parts = [np.concatenate([np.arange(10, dtype=np.uint8), bitmap.ravel()]) for bitmap in bitmaps]
    first = 10 + np.cumsum([0, *(len(part) for part in parts[:-1])])
    height, width = np.array([bitmap.shape for bitmap in bitmaps], np.int32).T
    return np.concatenate(parts), first, width, height


def expected(bitmap: np.ndarray, config: PreprocessConfig) -> tuple[np.ndarray | None, tuple[int, ...], str | None]:
    """OpenCV's image, its crop, and why there is none."""
    try:
        return *preprocess(bitmap, config), None
    except Unusable as unusable:
        return None, (0, 0, 0, 0), unusable.reason


def same(bitmaps: list[np.ndarray], config: PreprocessConfig) -> None:
    made = preprocess_records(*laid_out(bitmaps), config)
    for bitmap, image, crop, outcome in zip(bitmaps, *made, strict=True):
        wanted, box, reason = expected(bitmap, config)
        assert (None, *UNUSABLE_REASONS)[outcome] == reason
        assert tuple(crop) == box
        assert wanted is None or np.array_equal(image, wanted)


@pytest.mark.parametrize("size", [8, 33, 64, 200])
def test_every_combination_of_steps_equals_opencvs(size: int) -> None:
    for step_settings in SETTINGS:
        same(drawn(), PreprocessConfig(image_size=size, **step_settings))  # type: ignore[arg-type]


@given(
    seeds=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=6
    ),
    darkest=st.integers(0, 250),
    step_settings=st.sampled_from(SETTINGS),
    size=st.integers(8, 130),
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_pixels_they_equal_opencvs(
    seeds: list[tuple[int, int, int]], darkest: int, step_settings: dict[str, Any], size: int
) -> None:
    bitmaps = [np.random.default_rng(s).integers(darkest, 256, (h, w), dtype=np.uint8) for s, h, w in seeds]
    same(bitmaps, PreprocessConfig(image_size=size, **step_settings))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_presets_equal_the_plain_steps(preset: str) -> None:
    bitmaps = [gnt_files.strokes(seed, 20 + 3 * seed, 140 - 3 * seed) for seed in range(40)]
    made = preprocess_records(*laid_out(bitmaps), PreprocessConfig(**PRESETS[preset]))  # type: ignore[arg-type]
    for bitmap, image, crop in zip(bitmaps, made.image, made.crop, strict=True):
        wanted, box = plain_steps.PRESETS[preset](bitmap, 64)
        assert np.array_equal(image, wanted)
        assert tuple(crop) == box


def test_every_span_of_levels_is_stretched_exactly() -> None:
    ramps = [
        np.arange(darkest, lightest + 1, dtype=np.uint8)[np.newaxis]
        for darkest in range(0, 240, 7)
        for lightest in range(darkest + steps.MIN_CONTRAST, 256)
    ]
    made = preprocess_records(*laid_out(ramps), PreprocessConfig(image_size=256, crop="none", resize="none"))
    for ramp, image in zip(ramps, made.image, strict=True):
        left = (256 - ramp.size) // 2
        assert np.array_equal(255 - image[127, left : left + ramp.size], plain_steps.stretch(ramp)[0])


def test_ink_is_what_is_not_paper() -> None:
    bitmaps = drawn()
    octets, first_pixel, width, height = laid_out(bitmaps)
    ink = count_ink(octets, first_pixel, width.astype(np.int64) * height)
    assert ink.tolist() == [int((bitmap < 255).sum()) for bitmap in bitmaps]


def test_without_numba_the_samples_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bitmaps = [bitmap for bitmap in drawn() if bitmap.size]
    config = PreprocessConfig(image_size=33)
    compiled, ink = preprocess_records(*laid_out(bitmaps), config), count_ink(*_pixels(bitmaps))
    monkeypatch.setattr(kernels.KERNELS, "_failure", "ImportError: no numba")
    plain = preprocess_records(*laid_out(bitmaps), config)
    assert plain.outcome.tolist() == compiled.outcome.tolist()
    assert plain.crop.tolist() == compiled.crop.tolist()
    sound = compiled.outcome == 0
    np.testing.assert_array_equal(plain.image[sound], compiled.image[sound])
    assert count_ink(*_pixels(bitmaps)).tolist() == ink.tolist()


def _pixels(bitmaps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    octets, first_pixel, width, height = laid_out(bitmaps)
    return octets, first_pixel, width.astype(np.int64) * height
