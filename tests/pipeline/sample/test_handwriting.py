"""Drawn characters: legible, in different hands, and the same pixels on every machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from places import ROOT

from pipeline.sample import glyphs
from pipeline.sample.glyphs import font_path, glyph_mask
from pipeline.sample.handwriting import draw, gnt_record
from pipeline.sample.strokes import Source, strokes_of
from pipeline.sample.style import WriterStyle, record_generator
from schemas.classes import tag_of
from schemas.errors import UserError

NOTO = Source(font_path())
LOOK_UNLIKE = "我水国警永龙暗就好山"


def drawn(character: str, writer: int, seed: int = 7, take: int = 0) -> NDArray[np.uint8]:
    style = WriterStyle.from_seed(seed, writer)
    return draw(strokes_of(NOTO, character), style, record_generator(seed, writer, tag_of(character), take))


def test_hanzi_have_casias_sizes_soft_edges_and_grey_ink() -> None:
    bitmaps = [drawn(character, writer) for writer in range(1001, 1013) for character in LOOK_UNLIKE]
    for bitmap in bitmaps:
        assert min(bitmap.shape) >= 30
        assert max(bitmap.shape) <= 150  # as in CASIA
        assert len(np.unique(bitmap)) > 50
        assert bitmap.min() < 150
        # Most of it is paper, and paper is 255, not nearly so.
        assert 0.35 < (bitmap == 255).mean() < 0.92
        assert not (bitmap[bitmap < 255] > 250).any()


def standard(ink: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The ink (255 on 0) in its box, blurred, as a unit vector: what two pictures have in common is a dot product."""
    x, y, width, height = cv2.boundingRect(ink)
    small = cv2.resize(ink[y : y + height, x : x + width], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    vector = cv2.GaussianBlur(small, (0, 0), 2.0).ravel()
    vector -= vector.mean()
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def test_characters_can_be_recognised_by_their_printed_glyphs() -> None:
    printed = np.stack([standard(glyph_mask(NOTO.path, character)) for character in LOOK_UNLIKE])
    likeness = np.array(
        [[printed @ standard(255 - drawn(c, writer)) for c in LOOK_UNLIKE] for writer in range(1001, 1021)]
    )
    own = np.einsum("wcc->wc", likeness)
    others = (likeness.sum(axis=2) - own) / (len(LOOK_UNLIKE) - 1)
    assert (likeness.argmax(axis=2) == np.arange(len(LOOK_UNLIKE))).mean() > 0.6  # one in ten by chance
    assert (own - others).mean() > 0.25


def test_writers_differ_more_than_the_records_of_one() -> None:
    character, writers, takes = "我", range(1001, 1009), range(4)
    hands = np.array([[standard(255 - drawn(character, w, take=t)) for t in takes] for w in writers])
    likeness = np.einsum("wtp,vsp->wvts", hands, hands)
    same_writer = np.eye(len(writers), dtype=bool)
    same_record = np.eye(len(takes), dtype=bool)
    within = likeness[same_writer][:, ~same_record]
    between = likeness[~same_writer]
    assert within.max() < 0.999
    assert within.mean() > between.mean() + 0.1
    darkness = [np.mean([255 - drawn(c, w).min() for c in LOOK_UNLIKE]) for w in range(1001, 1031)]
    widths = [np.mean([drawn(c, w).shape[1] for c in LOOK_UNLIKE]) for w in range(1001, 1031)]
    assert np.ptp(darkness) > 50
    assert np.ptp(widths) > 20


# The pen's way behind the pixels too: a difference in its last bit would show in a pixel only now and then.
DIGEST = """
import hashlib
import numpy as np
from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import draw, written
from pipeline.sample.strokes import Source, strokes_of
from pipeline.sample.style import WriterStyle, record_generator
digest = hashlib.sha256()
for writer in range(1001, 1006):
    style = WriterStyle.from_seed(7, writer)
    for character in "硷藏我一":
        tag, strokes = character.encode("gb2312"), strokes_of(Source(font_path()), character)
        digest.update(strokes.points.tobytes())
        line, down = written(strokes, style, record_generator(7, writer, tag))
        digest.update(np.rint(line * 2**30).tobytes() + down.tobytes())
        digest.update(draw(strokes, style, record_generator(7, writer, tag)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86-64")
def test_bytes_do_not_depend_on_the_processor() -> None:
    plain = {
        "OPENCV_CPU_DISABLE": "SSE4_2,AVX,AVX2,FMA3,AVX512-SKX",
        "OPENCV_IPP": "disabled",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    }
    # What Numba compiles for this processor, for any, and what Python makes of the same lines.
    generic, python = {**plain, "NUMBA_CPU_NAME": "generic"}, {**plain, "NUMBA_DISABLE_JIT": "1"}
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGEST],
            env={**os.environ, **settings},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for settings in ({}, generic, python)
    ]
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout


def test_thinning_leaves_lines_one_pixel_wide_and_in_one_piece() -> None:
    cross = np.zeros((60, 60), np.uint8)
    cross[26:34, 5:55] = cross[5:55, 26:34] = 1
    lines = glyphs.thin(cross)
    assert not (lines & (1 - cross)).any()
    assert cv2.connectedComponents(lines, connectivity=8)[0] == 2  # the background and one line
    assert not (lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]).any()
    assert 70 < lines.sum() < 110


def test_gnt_record_has_casias_header() -> None:
    bitmap = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert gnt_record(b"\xb0\xa1", bitmap) == bytes.fromhex("10000000 b0a1 0300 0200 000102030405")


def test_a_character_the_font_lacks_is_named() -> None:
    with pytest.raises(UserError, match="has no glyph for '\\\\ue123'"):
        glyph_mask(NOTO.path, "\ue123")
