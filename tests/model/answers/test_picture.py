"""Pictures of every kind come out as dark ink on white paper: held to the drawing they were made from."""

from __future__ import annotations

import contextlib
import io
import random
import time
from pathlib import Path

import cv2
import gnt_files
import numpy as np
import pytest
from PIL import Image, ImageOps

from model.answers.picture import BlankPicture, read_picture, to_bitmap
from pipeline.steps.plain import preprocess
from pipeline.steps.settings import PreprocessConfig
from schemas.errors import UserError

SIZE = 420
Colour = tuple[int, int, int]


def drawing(margin: int = 90, width: int = 22) -> np.ndarray:
    """float [SIZE, SIZE]: how much ink covers each pixel; strokes that look the same neither mirrored nor turned."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    low, high = margin, SIZE - margin
    third = (high - low) // 3
    cv2.line(canvas, (low, low), (high, low), 255, width, cv2.LINE_AA)
    cv2.line(canvas, (low + third, low), (low + third // 2, high), 255, width, cv2.LINE_AA)
    cv2.line(canvas, (low + third, low + third), (high, high), 255, width, cv2.LINE_AA)
    cv2.circle(canvas, (high - third // 3, low + third), width, 255, -1, cv2.LINE_AA)
    return canvas.astype(np.float64) / 255


def painted(coverage: np.ndarray, ink: Colour, paper: Colour) -> np.ndarray:
    """float [h, w, 3]"""
    return coverage[..., None] * np.array(ink, float) + (1 - coverage[..., None]) * np.array(paper, float)


def as_uint8(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def sample_of(bitmap: np.ndarray) -> np.ndarray:
    """On two levels, since shapes are compared."""
    return preprocess(bitmap, PreprocessConfig(denoise="median", binarize="otsu")).image > 127


def likeness(picture: np.ndarray, coverage: np.ndarray) -> float:
    """Intersection over union of the sample made from a picture and that made from the drawing itself."""
    found = sample_of(to_bitmap(picture, "picture"))
    expected = sample_of(as_uint8(255 * (1 - coverage)))
    return float((found & expected).sum() / (found | expected).sum())


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((30, 30, 50), (228, 220, 205)),
        ((175, 175, 175), (225, 225, 225)),
        ((200, 30, 40), (245, 245, 240)),
        ((245, 225, 40), (252, 252, 252)),
        ((20, 30, 120), (240, 225, 100)),
        ((255, 255, 255), (0, 0, 0)),
        ((225, 225, 220), (35, 70, 50)),
        ((0, 0, 210), (0, 0, 0)),
        ((235, 205, 60), (185, 20, 25)),
        ((10, 10, 10), (185, 20, 25)),
    ],
)
def test_any_ink_on_any_paper(ink: Colour, paper: Colour) -> None:
    coverage = drawing()
    assert likeness(as_uint8(painted(coverage, ink, paper)), coverage) > 0.93


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("slope", [0.6, 0.25])
@pytest.mark.parametrize("dark", [False, True])
def test_slanting_light_shadows_and_noise(turn: int, slope: float, dark: bool) -> None:
    coverage = drawing()
    colours = ((215, 215, 210), (60, 75, 65)) if dark else ((40, 40, 60), (232, 228, 220))
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    light = 1 - 0.45 * np.rot90(x, turn)
    if not dark:  # a hand's shadow with a sharp border, across the strokes
        light = light * np.where(np.rot90(x + slope * y, turn) > 0.8, 0.55, 1.0)
    noise = np.random.default_rng(turn).normal(0, 4, (SIZE, SIZE, 3))
    assert likeness(as_uint8(painted(coverage, *colours) * light[..., None] + noise), coverage) > 0.8


def test_a_picture_without_margin_keeps_its_polarity() -> None:
    coverage = drawing(margin=12, width=40)
    assert likeness(as_uint8(painted(coverage, (20, 20, 20), (235, 235, 235))), coverage) > 0.93
    assert likeness(as_uint8(painted(coverage, (235, 235, 235), (20, 20, 20))), coverage) > 0.93


def test_paper_comes_out_white_and_ink_dark() -> None:
    coverage = drawing()
    noise = np.random.default_rng(0).normal(0, 3, (SIZE, SIZE, 3))
    bitmap = to_bitmap(as_uint8(painted(coverage, (40, 40, 60), (200, 190, 170)) + noise), "picture")
    assert np.mean(bitmap[coverage == 0] == 255) > 0.95
    assert bitmap[coverage == 0].min() > 200
    assert bitmap[coverage == 1].max() < 100


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255)])
@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (220, 30, 30)])
def test_transparent_ground_whatever_its_hidden_colour(ink: Colour, ground: Colour) -> None:
    coverage = drawing()
    colours = np.where((coverage > 0)[..., None], np.array(ink), np.array(ground))
    picture = np.dstack([as_uint8(colours), as_uint8(255 * coverage)])
    assert likeness(picture, coverage) > 0.93


def test_gnt_bitmaps_pass_unchanged() -> None:
    for seed in range(60):
        bitmap = gnt_files.strokes(seed, 40 + seed, 90 - seed // 2)
        assert np.array_equal(to_bitmap(bitmap, "bitmap"), bitmap)


def test_real_bitmaps_pass_unchanged(real: Path) -> None:
    records = gnt_files.parse((real / "one-writer" / "9001-c.gnt").read_bytes())
    assert all(np.array_equal(to_bitmap(bitmap, "bitmap"), bitmap) for _, _, bitmap in records)


def saved(picture: np.ndarray, path: Path, **options: object) -> Path:
    Image.fromarray(picture).save(path, **options)
    return path


@pytest.mark.parametrize("seed", range(4))
def test_specks_and_shadows_far_from_the_ink_are_no_part_of_it(seed: int) -> None:
    """The crop would reach for them, and the character would be small in its sample."""
    random = np.random.default_rng(seed)
    coverage = np.pad(drawing(), 200)
    size = len(coverage)
    light = np.linspace(0.55, 1.0, size)[:, None, None]
    page = painted(coverage, (120, 120, 130), (232, 228, 220)) * light + random.normal(0, 8, (size, size, 3))
    page[random.integers(0, 100, 5), random.integers(0, size, 5)] -= 60
    found = preprocess(to_bitmap(as_uint8(page), "picture"), PreprocessConfig()).crop
    expected = preprocess(as_uint8(255 * (1 - coverage)), PreprocessConfig()).crop
    assert np.abs(np.subtract(found, expected)).max() <= 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_formats_and_names_in_any_script(suffix: str, tmp_path: Path) -> None:
    coverage = drawing()
    path = saved(as_uint8(painted(coverage, (30, 30, 30), (240, 240, 240))), tmp_path / f"汉字 ü.{suffix}")
    assert read_picture(path).shape == (SIZE, SIZE)
    assert (sample_of(read_picture(path)) == sample_of(as_uint8(255 * (1 - coverage)))).mean() > 0.97


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16"])
def test_pixel_formats(mode: str, tmp_path: Path) -> None:
    coverage = drawing()
    grey = as_uint8(20 + 215 * (1 - coverage))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    image.save(path := tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png"))
    assert (sample_of(read_picture(path)) == sample_of(grey)).mean() > 0.97


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_any_way(orientation: int, tmp_path: Path) -> None:
    upright = Image.fromarray(as_uint8(painted(drawing(), (30, 30, 30), (240, 240, 240))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What the sensor saw: the inverse of what the tag asks for. Only the two quarter turns aren't their own inverse.
    inverse = Image.Exif()
    inverse[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    seen = upright.copy()
    seen.info["exif"] = inverse.tobytes()
    ImageOps.exif_transpose(seen).save(path := tmp_path / "photo.jpg", exif=exif, quality=95)
    assert (sample_of(read_picture(path)) == sample_of(np.asarray(upright.convert("L")))).mean() > 0.97


def test_a_huge_photo_is_shrunk_in_time(tmp_path: Path) -> None:
    coverage = cv2.resize(drawing(), (6000, 4500), interpolation=cv2.INTER_LINEAR)
    grey = as_uint8(30 + 205 * (1 - coverage))
    path = saved(grey, tmp_path / "photo.jpg", quality=80)
    began = time.process_time()
    bitmap = read_picture(path)
    assert time.process_time() - began < 5
    assert max(bitmap.shape) <= 1000
    assert (sample_of(bitmap) == sample_of(grey)).mean() > 0.95


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_pictures(level: int) -> None:
    flat = np.full((300, 200, 3), level, np.float64)
    slanting = flat * np.linspace(0.6, 1, 200)[None, :, None]
    noisy = slanting + np.random.default_rng(level).normal(0, 4, flat.shape)
    for picture in (flat, slanting, noisy):
        with pytest.raises(BlankPicture, match="expected one character, found a blank picture"):
            to_bitmap(as_uint8(picture), "picture")


def test_one_pixel_and_a_thread_are_no_crash() -> None:
    for shape in ((1, 1, 3), (1, 900, 3), (900, 1, 4), (2, 2)):
        with pytest.raises(BlankPicture):
            to_bitmap(np.full(shape, 255, np.uint8), "picture")


def test_files_that_hold_no_picture(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(good, "JPEG")
    for name, content, expected in [
        ("empty.png", b"", "expected a picture"),
        ("text.png", b"not a picture", "expected a picture"),
        ("half.jpg", good.getvalue()[:1500], "the picture is damaged"),
        ("bomb.bmp", _bomb(), "more than 500,000,000 pixels"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=expected) as failure:
            read_picture(tmp_path / name)
        assert "\n" not in str(failure.value)
    with pytest.raises(UserError, match="can't be read"):
        read_picture(tmp_path / "none.png")


def _bomb() -> bytes:
    """A BMP header that claims 30,000 × 30,000 pixels."""
    small = io.BytesIO()
    Image.new("L", (4, 4)).save(small, "BMP")
    header = bytearray(small.getvalue())
    header[18:26] = (30_000).to_bytes(4, "little") * 2
    return bytes(header)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_damaged_picture_is_a_line_whatever_its_reader_trips_over(kind: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(gnt_files.strokes(1)).save(whole, kind)
    rng = random.Random(kind)
    for _ in range(60):
        content = bytearray(whole.getvalue())
        for _ in range(rng.choice([1, 4, 32])):
            place = rng.randrange(len(content))
            content[place : place + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        (tmp_path / "x").write_bytes(content)
        with contextlib.suppress(UserError):
            assert read_picture(tmp_path / "x").ndim == 2
