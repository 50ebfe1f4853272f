"""`inspect DIR show`: the pictures, against the archives' own bitmaps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import gnt_files
import numpy as np
import pytest
from commands import Run, converted
from inspected import originals

from pipeline.inspect.pictures.blocks import draw
from pipeline.inspect.pictures.steps import Picture, step_pictures
from pipeline.steps.plain import binarize, preprocess
from pipeline.steps.settings import PRESETS, PreprocessConfig


@pytest.mark.parametrize(
    "off",
    [
        {},
        {"binarize": "none"},
        {"crop": "none"},
        {"denoise": "none", "normalize": "none"},
        {"normalize": "none", "binarize": "none"},
    ],
)
def test_the_steps_lead_to_the_sample(off: dict[str, Any]) -> None:
    config = PreprocessConfig(**{**PRESETS["article"], **off})
    for seed in range(5):
        bitmap = gnt_files.strokes(seed, 40 + 20 * seed, 90 - 10 * seed)
        pictures = step_pictures(bitmap, config)
        assert [one.title.removesuffix(" (off)") for one in pictures] == [
            "original", "grey", "denoise", "normalize", "binarize", "crop", "resize",
        ]  # fmt: skip
        assert {one.title.removesuffix(" (off)") for one in pictures if "(off)" in one.title} == set(off)
        sample = preprocess(bitmap, config)
        assert np.array_equal(pictures[0].image, bitmap)
        assert np.array_equal(pictures[-1].image, sample.image)
        assert pictures[-2].image.shape == (sample.crop.height, sample.crop.width)
        # The ink, which one call makes of the denoised picture, is what its step makes of the normalised one shown.
        normal = pictures[3].image
        assert np.array_equal(pictures[4].image, binarize(normal) if config.binarize == "otsu" else 255 - normal)
        if config.denoise == "median":  # the oracle: NumPy's own median
            padded = np.lib.stride_tricks.sliding_window_view(np.pad(bitmap, 1, mode="edge"), (3, 3))
            assert np.array_equal(pictures[2].image, np.median(padded, axis=(2, 3)).astype(np.uint8))
    assert len(step_pictures(np.full((20, 20), 255, np.uint8), PreprocessConfig())) == 3


def test_show_draws_the_original_of_the_archive(dataset: Path, archives: Path, tmp_path: Path, inspect: Run) -> None:
    sample_id = "train/1002-c.gnt/7"
    offset, tag, bitmap = originals(archives)[sample_id]
    output = tmp_path / "out.png"
    status, out, _ = inspect(dataset, "show", sample_id, "--output", output)
    assert status == 0
    assert f"tag {tag.hex()}" in out
    assert f"byte {offset:,}" in out
    sheet = cv2.imread(str(output), cv2.IMREAD_UNCHANGED)
    height, width = bitmap.shape
    scale = 128 / max(height, width)
    expected = cv2.resize(bitmap, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_NEAREST)
    assert (sheet[44 : 44 + expected.shape[0], 8 : 8 + expected.shape[1]] == expected).all()
    assert sheet.shape[1] == 8 + 7 * 136


def test_show_finds_by_character_and_by_writer(dataset: Path, inspect: Run) -> None:
    by_character = inspect(dataset, "show", "--char", "硷")[1]
    assert by_character.count("dropped (outside_class_set)") == 4
    assert by_character.count("resize") == 4
    both = inspect(dataset, "show", "--char", "啊", "--writer", "1241")[1]
    assert both.splitlines()[0].startswith("test/1241-c.gnt/0  啊  tag b0a1, label 0, kept")
    assert inspect(dataset, "show", "--writer", "1003", "--limit", "2")[1].count("train/1003-c.gnt/") == 2


def test_show_falls_back_to_the_stored_sample(archives: Path, tmp_path: Path, inspect: Run) -> None:
    before, now = tmp_path / "before", tmp_path / "now.zip"
    before.mkdir()
    shutil.copy(archives / "test/1241-c.gnt", before)
    folder = converted(tmp_path / "set", f"--input={before}")
    records = originals(archives)
    gnt_files.write_zip(now, {"deep/1241-c.gnt": (before / "1241-c.gnt").read_bytes()})
    wrong = bytearray((before / "1241-c.gnt").read_bytes())
    wrong[records["test/1241-c.gnt/3"][0] + 50] ^= 1
    shutil.rmtree(before)

    status, out, _ = inspect(folder, "show", "train/1241-c.gnt/3")
    assert status == 0
    assert "stored sample" in out
    assert "grey" not in out
    assert "without its original: 1241-c.gnt isn't at" in out
    status, out, _ = inspect(folder, "show", "train/1241-c.gnt/3", "--against", now)
    assert (status, "stored sample" in out, "binarize" in out) == (0, False, True)
    out = inspect(folder, "show", *(f"train/1241-c.gnt/{i}" for i in (9, 0, 30)), "--against", now)[1]
    assert (out.count("binarize"), "without" in out) == (3, False)
    (tmp_path / "1241-c.gnt").write_bytes(wrong)
    out = inspect(folder, "show", "train/1241-c.gnt/3", "--against", tmp_path / "1241-c.gnt")[1]
    assert "record 3 at byte" in out
    assert "expected the bitmap that was converted, found another" in out
    status, _, err = inspect(folder, "show", "--char", "硷")  # dropped: no sample is stored
    assert (status, "--against PATH" in err) == (2, True)


def test_a_sample_whose_shard_is_damaged_is_not_shown(
    dataset: Path, archives: Path, tmp_path: Path, inspect: Run
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    for shard in damaged.glob("*.tfrecord"):
        data = bytearray(shard.read_bytes())
        for place in range(0, len(data), 500):
            data[place] ^= 1
        shard.write_bytes(data)
    status, _, err = inspect(damaged, "show", "train/1001-c.gnt/0", "--against", archives / "test")
    assert status == 2
    assert "name the archive that holds it" in err
    assert inspect(damaged, "--html", tmp_path / "report.html")[0] == 0
    assert "samples can't be read" in (tmp_path / "report.html").read_text()


def test_blocks_show_light_and_dark_where_they_are() -> None:
    image = np.zeros((32, 32), np.uint8)
    image[:16, 16:] = 255
    lines = draw([Picture("one", image)] * 2, columns=100, colours="none").splitlines()
    assert lines[0].split() == ["one", "one"]
    assert all(line[:18].strip() == "" and set(line[18:36]) == {"█"} for line in lines[1:9])
    assert all(line.strip() == "" for line in lines[10:])
    striped = np.zeros((36, 36), np.uint8)
    striped[::2] = 255
    assert set(draw([Picture("one", striped)], columns=40, colours="none").splitlines()[1:]) == {"▀" * 36}
    grey = draw([Picture("one", image)], columns=40, colours="greys")
    assert "\x1b[38;5;255;48;5;255m▀" in grey
    assert "\x1b[38;5;232;48;5;232m▀" in grey
    assert "\x1b[38;2;255;255;255;48;2;255;255;255m▀" in draw([Picture("one", image)], 40, "truecolour")
    narrow = draw([Picture(str(i), image) for i in range(7)], columns=40, colours="none")
    assert max(map(len, narrow.splitlines())) <= 40
