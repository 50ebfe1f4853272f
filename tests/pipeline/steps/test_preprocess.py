from __future__ import annotations

from dataclasses import asdict, replace

import cv2
import gnt_files
import numpy as np
import plain_steps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.convert.options import parse_arguments
from pipeline.steps import plain as steps
from pipeline.steps.plain import Unusable, preprocess
from pipeline.steps.settings import DEFAULT_PRESET, PRESETS, STEPS, PreprocessConfig
from schemas.manifest import BLANK, LARGER_THAN_IMAGE

ALL_SIX = PreprocessConfig(**{step: on for step, (on, _, _) in STEPS.items()})  # type: ignore[arg-type]
bitmaps = st.tuples(st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).integers(0, 256, (t[0], t[1]), dtype=np.uint8)
)
masks = bitmaps.map(lambda bitmap: np.where(bitmap < 8, 255, 0).astype(np.uint8))
written = st.tuples(st.integers(0, 10_000), st.integers(12, 160), st.integers(12, 160)).map(
    lambda t: gnt_files.strokes(*t)
)


@given(bitmaps)
@settings(max_examples=80, deadline=None)
def test_denoise_is_the_median_whatever_the_width(bitmap: np.ndarray) -> None:
    assert np.array_equal(steps.denoise(bitmap), plain_steps.median(bitmap))


@given(bitmaps.filter(lambda b: b.min() < b.max()))
@settings(max_examples=50, deadline=None)
def test_normalize_stretches_to_the_full_range(bitmap: np.ndarray) -> None:
    assert np.array_equal(steps.normalize(bitmap, *steps.darkest_and_lightest(bitmap)), plain_steps.stretch(bitmap))


@given(bitmaps.filter(lambda b: b.min() < b.max()))
@settings(max_examples=50, deadline=None)
def test_ink_is_the_stretched_bitmap_inverted(bitmap: np.ndarray) -> None:
    ink = steps.to_ink(bitmap, *steps.darkest_and_lightest(bitmap), PreprocessConfig())
    assert np.array_equal(ink, 255 - plain_steps.stretch(bitmap))


@given(written)
@settings(max_examples=50, deadline=None)
def test_binarize_is_otsus_threshold(bitmap: np.ndarray) -> None:
    assert np.array_equal(steps.binarize(bitmap), plain_steps.otsu_ink(bitmap))


@given(masks.filter(np.any))
@settings(max_examples=80, deadline=None)
def test_on_two_levels_edges_and_ink_have_one_bounding_box(mask: np.ndarray) -> None:
    assert steps.bounding_box(mask) == steps.bounding_box(steps.inner_edges(mask)) == plain_steps.ink_box(mask)


@pytest.mark.parametrize("preset", list(PRESETS))
@given(bitmap=written, size=st.sampled_from([16, 48, 64, 96]))
@settings(max_examples=60, deadline=None)
def test_the_presets_equal_the_plain_steps(preset: str, bitmap: np.ndarray, size: int) -> None:
    sample = preprocess(bitmap, PreprocessConfig(image_size=size, **PRESETS[preset]))  # type: ignore[arg-type]
    image, box = plain_steps.PRESETS[preset](bitmap, size)
    assert np.array_equal(sample.image, image)
    assert sample.crop == box


def test_the_best_preset_is_what_prediction_and_workers_take_for_granted() -> None:
    assert {"image_size": 64, **PRESETS[DEFAULT_PRESET]} == asdict(PreprocessConfig())
    assert {"image_size": 64, **PRESETS["article"]} == asdict(ALL_SIX)


@pytest.mark.parametrize("off", list(STEPS))
def test_every_step_has_a_switch(off: str) -> None:
    bitmap = gnt_files.strokes(7, 50, 44)
    bitmap[5, 5] = 0  # a speck for the median
    bitmap = np.pad(bitmap, 6, constant_values=250)
    everything = preprocess(bitmap, ALL_SIX)
    without = preprocess(bitmap, replace(ALL_SIX, **{off: "none"}))  # type: ignore[arg-type]
    assert without.image.shape == (64, 64)
    # grey has nothing to do on a grey bitmap; stretching doesn't move Otsu's threshold past this picture's levels.
    assert np.array_equal(everything.image, without.image) == (off in ("grey", "normalize"))


def test_normalize_shows_where_binarize_is_off() -> None:
    pale = 255 - (255 - gnt_files.strokes(7)) // 3
    stretched = preprocess(pale, PreprocessConfig()).image
    as_is = preprocess(pale, PreprocessConfig(normalize="none")).image
    assert stretched.max() > 2 * as_is.max() > 0


@pytest.mark.parametrize(("width", "height"), [(100, 20), (20, 100), (64, 64), (5, 5), (1, 90), (400, 380), (3, 2)])
def test_the_aspect_ratio_is_kept_and_the_margin_is_empty(width: int, height: int) -> None:
    bitmap = np.full((height + 20, width + 20), 255, np.uint8)
    bitmap[10 : 10 + height, 10 : 10 + width] = 0
    image = preprocess(bitmap, PreprocessConfig()).image
    x, y, w, h = plain_steps.ink_box(image)
    assert max(w, h) == 56
    assert abs(w / h - width / height) <= max(w, h) / min(w, h) ** 2 / 2 + 1e-9 or min(w, h) == 1
    assert abs(2 * x + w - 64) <= 1
    assert abs(2 * y + h - 64) <= 1


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (30, 1), (60, 70)])
def test_a_blank_bitmap_is_refused(shape: tuple[int, int], level: int) -> None:
    with pytest.raises(Unusable, match=BLANK):
        preprocess(np.full(shape, level, np.uint8), PreprocessConfig())


def test_a_speck_that_the_median_removes_leaves_a_blank() -> None:
    bitmap = np.full((40, 40), 255, np.uint8)
    bitmap[20, 20] = 0
    with pytest.raises(Unusable, match=BLANK):
        preprocess(bitmap, PreprocessConfig(denoise="median"))
    assert preprocess(bitmap, PreprocessConfig()).crop == (20, 20, 1, 1)


def test_without_resize_the_ink_must_fit() -> None:
    bitmap = gnt_files.strokes(3, 90, 90)
    bitmap[[4, 85], 10:80] = 0
    bitmap[[5, 86], 10:80] = 0
    with pytest.raises(Unusable, match=LARGER_THAN_IMAGE):
        preprocess(bitmap, replace(ALL_SIX, resize="none"))
    sample = preprocess(bitmap, replace(ALL_SIX, resize="none", image_size=128))
    assert np.count_nonzero(sample.image) == np.count_nonzero(plain_steps.otsu_ink(plain_steps.median(bitmap)))


def test_colours_become_grey_and_what_is_transparent_paper() -> None:
    grey = gnt_files.strokes(5)
    config = PreprocessConfig()
    expected = preprocess(grey, config).image
    assert np.array_equal(preprocess(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), config).image, expected)
    black_with_alpha = np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey])
    assert np.array_equal(preprocess(black_with_alpha, config).image, expected)
    with pytest.raises(ValueError, match="expected a grey bitmap"):
        preprocess(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), PreprocessConfig(grey="none"))


@given(written)
@settings(max_examples=30, deadline=None)
def test_processor_features_and_threads_change_nothing(bitmap: np.ndarray) -> None:
    def outcome(config: PreprocessConfig) -> bytes:
        try:
            return preprocess(bitmap, config).image.tobytes()
        except Unusable as error:  # shades without an edge
            return error.reason.encode()

    def sample() -> list[bytes]:
        return [outcome(config) for config in (ALL_SIX, PreprocessConfig())]

    before = sample()
    try:
        cv2.setUseOptimized(False)
        cv2.setNumThreads(0)
        assert sample() == before
    finally:
        cv2.setUseOptimized(True)
        steps.pin_opencv()
    assert sample() == before


def test_the_bitmap_is_left_as_it_was() -> None:
    bitmap = gnt_files.strokes(9)
    bitmap.setflags(write=False)
    preprocess(bitmap, PreprocessConfig())
    assert np.array_equal(bitmap, gnt_files.strokes(9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size: expected 8 to 1,024 pixels, found 0"),
        ({"image_size": 5000}, "image_size: expected 8 to 1,024 pixels, found 5,000"),
        ({"binarize": "sauvola"}, "binarize: expected otsu or none, found 'sauvola'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreprocessConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), PreprocessConfig()),
        (("--preset=best",), PreprocessConfig()),
        (("--preset=article",), ALL_SIX),
        (("--preset=article", "--binarise=none"), replace(ALL_SIX, binarize="none")),
        (("--denoise=median", "--preset=best"), PreprocessConfig(denoise="median")),
        (("--normalise=none", "--crop=none"), PreprocessConfig(normalize="none", crop="none")),
    ],
)
def test_a_steps_own_flag_overrides_the_preset(flags: tuple[str, ...], expected: PreprocessConfig) -> None:
    arguments = parse_arguments(["--input=a.gnt", "--output=o", *flags])
    assert arguments.preprocess == expected
