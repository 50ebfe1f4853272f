"""A person's own handwriting: photos of what a GNT file holds are read as well as the file's own bitmaps.

Drawn handwriting here, and real pixels where they are at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import gnt_files
import numpy as np
import photos
import pytest

from model.answers.picture import BlankPicture, to_bitmap
from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import draw
from pipeline.sample.strokes import Source, strokes_of
from pipeline.sample.style import WriterStyle, record_generator
from pipeline.steps.plain import preprocess
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import tag_of

CHARACTERS = "我永龙暗好山"
GREY = PreprocessConfig(denoise="none", binarize="none")
LEAST_LIKENESS = {"thin pen": 0.7, "thick marker": 0.7, "rotated": 0.45}
OTHER_LIKENESS = 0.85


def likeness(photo: np.ndarray, bitmap: np.ndarray) -> float:
    """The correlation of two samples, both a little out of focus: 1 where they are the same."""
    a, b = (
        cv2.GaussianBlur(preprocess(source, GREY).image.astype(float), (0, 0), 2.0).ravel()
        for source in (to_bitmap(photo, "photo"), bitmap)
    )
    return float(np.corrcoef(a, b)[0, 1])


def drawn() -> list[np.ndarray]:
    """Each character by another writer."""
    bitmaps = []
    for character, writer in zip(CHARACTERS, range(1001, 1007), strict=True):
        style, random = WriterStyle.from_seed(7, writer), record_generator(7, writer, tag_of(character))
        bitmaps.append(draw(strokes_of(Source(font_path()), character), style, random))
    return bitmaps


def check(kind: str, bitmaps: Iterable[np.ndarray]) -> None:
    found = [likeness(photos.photo(kind, bitmap, seed), bitmap) for seed, bitmap in enumerate(bitmaps)]
    assert min(found) > LEAST_LIKENESS.get(kind, OTHER_LIKENESS), found


@pytest.mark.parametrize("kind", photos.KINDS)
def test_a_photo_gives_the_sample_that_the_bitmap_gives(kind: str) -> None:
    check(kind, drawn())


@pytest.mark.parametrize("kind", photos.KINDS)
def test_so_it_does_with_real_pixels(kind: str, real: Path) -> None:
    records = gnt_files.parse((real / "one-writer" / "9001-c.gnt").read_bytes())
    check(kind, [bitmap for _, _, bitmap in records[::125]])


def test_empty_paper_is_blank() -> None:
    blank = 0
    for seed in range(12):
        try:
            to_bitmap(photos.no_character("blank", seed), "photo")
        except BlankPicture:
            blank += 1
    # A shadow over most of an empty page may be taken for it, and the lit corner for chalk.
    assert blank >= 11


def test_ink_outweighs_uneven_light() -> None:
    """Light that falls off a little over the page once decided whether the ink was taken for light or dark."""
    page = np.full((400, 300, 3), 230.0)
    page[:, 150:] += np.linspace(0, 12, 150)[:, None]
    page[150:250, 60:64] = page[150:154, 60:120] = 40
    bitmap = to_bitmap(page.astype(np.uint8), "photo")
    assert bitmap[200, 62] < 60
    assert bitmap[300, 250] > 230


def test_photos_are_reproducible_and_differ() -> None:
    bitmap = drawn()[0]
    for kind in photos.KINDS:
        assert np.array_equal(photos.photo(kind, bitmap, 1), photos.photo(kind, bitmap, 1))
        assert not np.array_equal(photos.photo(kind, bitmap, 1), photos.photo(kind, bitmap, 2))
    for kind in photos.OTHERS:
        assert np.array_equal(photos.no_character(kind, 1), photos.no_character(kind, 1))
