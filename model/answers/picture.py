"""A person's photo, scan or drawing of one character, turned into what a GNT bitmap is: dark ink on paper that is 255.

This stands in front of `pipeline.steps.plain`, which the training set went through and which every picture goes through
next. A bitmap that is on white paper already, as a GNT record is, comes out as it went in. Nothing is cut away: finding
the ink's box is a step of preprocess.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import UserError

PAPER = 255
MAX_SIDE = 768  # pixels of the longer side; a character needs some 64 of them, and may be small in its picture
MAX_PIXELS = 500_000_000  # above it a picture isn't opened: 1.5 GB as RGB
FORMATS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
_PLUGINS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's readers that are asked: others start programs, as for PostScript, or are for files that no camera makes."""

_WORK_SIDE = 160  # pixels of the longer side of the picture in which light is told from dark
_STROKE_SHARE = 4  # a stroke is taken to be narrower than a quarter of the picture's longer side
_WHITE = 250  # grey level from which paper is white
_SCAN_SIDE = 256  # pixels; a scanned character as a GNT file holds it is smaller, and its ink may be dense
_FLAT = 3  # grey levels either side of flat paper's own
_FLAT_SHARE = 0.4  # of the picture, at least, is paper
_UNEVEN_SHARE = 0.1  # of the picture, at most, differs from flat paper by less than the faintest ink
_SHADOW_SHARE = 0.003  # of the picture, at most, between paper and ink in a drawing
_FAINTEST_INK = 20  # levels below white paper of the faintest ink, as a soft pencil leaves
_FAINT_SHARE = 0.25  # of the darkest ink: what is fainter all over is a speck or the rest of a shadow
_NOISE_SIGMAS = 6.0  # ink stands out from the paper's noise by this much


class BlankPicture(UserError):
    """A picture in which nothing is written."""


def read_picture(path: Path) -> np.ndarray:
    """uint8 [h, w], dark ink on white paper. Raises UserError where the file holds no picture or an empty one."""
    return to_bitmap(decode(path), str(path))


def decode(path: Path) -> np.ndarray:
    """The picture in a file as uint8 [h, w, 3] RGB or [h, w, 4] RGBA, upright, its longer side at most MAX_SIDE."""
    content = read_file(path, "the pictures")
    return decode_bytes(content, str(path))


def decode_bytes(content: bytes, name: str) -> np.ndarray:
    """As decode, of a file's content; `name` is named in errors."""
    if not content:
        raise UserError(f"{name}: expected a picture, found an empty file; copy or save it again")
    try:
        with _bombs_allowed_up_to(MAX_PIXELS), Image.open(io.BytesIO(content), formats=_PLUGINS) as image:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size; that is most of a photo's cost.
            image.draft("RGB", (2 * MAX_SIDE, 2 * MAX_SIDE))
            upright = ImageOps.exif_transpose(image)
            return _shrunk(_pixels(upright))
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: more than {MAX_PIXELS:,} pixels; shrink or cut the picture") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: expected a picture ({FORMATS}), found something else; save a picture as PNG, "
            "give GNT records a name that ends in .gnt"
        ) from error
    except Exception as error:  # each of Pillow's decoders has its own for damaged files
        raise UserError(f"{name}: the picture is damaged ({error or type(error).__name__}); save it again") from error


def read_file(path: Path, kind: str) -> bytes:
    """The bytes of a regular file; `kind` says in an error what to name in place of a folder. Raises UserError."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: expected a file, found a folder; name {kind} in it, for instance {path}/*")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: expected a file, found a pipe or a device; save what it gives to a file")
        return path.read_bytes()
    except OSError as error:
        advice = "check its permissions" if isinstance(error, PermissionError) else "check the name"
        raise UserError(f"{path}: can't be read: {error.strerror or error}; {advice}") from error


def to_bitmap(picture: np.ndarray, name: str) -> np.ndarray:
    """uint8 [h, w], dark ink on white paper, from uint8 [h, w], [h, w, 3] RGB or [h, w, 4] RGBA of any colours.

    `name` is named in errors. Raises BlankPicture where there is no ink.
    """
    colours = on_ground(picture)
    if is_clean_bitmap(colours):
        return colours[:, :, 0].copy()
    paper = flat_paper(colours)
    light = is_light_on_dark(colours) if paper is None else is_lighter_than(colours, paper)
    if light:
        colours = PAPER - colours
    if paper is None:
        darkness = ink_darkness(colours, paper_of(colours))
    else:
        darkness = ink_darkness(colours, PAPER - paper if light else paper)
    floor, peak = paper_noise(darkness)
    if peak < floor + _FAINTEST_INK:
        raise BlankPicture(f"{name}: expected one character, found a blank picture; write darker, or choose another")
    # What is no darker than the paper's own noise is paper, as it is in GNT files.
    span = max(1.0, 255.0 - floor)
    stretched = np.clip((darkness.astype(np.float32) - floor) * (255.0 / span), 0, 255)
    return PAPER - without_specks(np.rint(stretched).astype(np.uint8))


def on_ground(picture: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: what is transparent takes the colour, white or black, from which the rest stands out more."""
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    if picture.shape[2] == 3:
        return picture
    colours, alpha = picture[:, :, :3].astype(np.uint16), picture[:, :, 3:].astype(np.uint16)
    on_black = ((colours * alpha + 127) // 255).astype(np.uint8)
    on_white = ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return on_black if int(np.ptp(on_black)) > int(np.ptp(on_white)) else on_white


def is_clean_bitmap(colours: np.ndarray) -> bool:
    """Whether a picture is grey and on white paper throughout, as a GNT bitmap is: there is nothing to mend then."""
    grey = colours[:, :, 0]
    if not (np.array_equal(grey, colours[:, :, 1]) and np.array_equal(grey, colours[:, :, 2])):
        return False
    white = np.count_nonzero(grey == PAPER)
    if 4 * white < grey.size or white <= np.count_nonzero(grey < 128):
        return False
    if int(grey.min()) > PAPER - _FAINTEST_INK:
        return False  # blank, or so faint that it takes the other way to tell
    if max(grey.shape) <= _SCAN_SIDE:
        return True
    paper = flat_paper(colours)
    return paper is not None and int(paper.min()) >= _WHITE


def flat_paper(colours: np.ndarray) -> np.ndarray | None:
    """uint8 [3]: the paper's colour where it is the same all over, as in drawings and good scans; None in photos.

    Then ink may be as wide as it likes, and touch the border.
    """
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.int16)
    usual = int(np.bincount(grey.ravel(), minlength=256).argmax())
    apart = np.abs(grey - usual)
    paper = apart <= _FLAT
    if np.mean(paper) < _FLAT_SHARE:
        return None
    # Light that falls off leaves levels near the paper's all over the picture; a drawing has them at strokes only.
    smooth = np.abs(_median(grey.astype(np.uint8), 5).astype(np.int16) - usual)
    if np.mean((smooth > _FLAT) & (smooth <= _FAINTEST_INK)) > _UNEVEN_SHARE:
        return None
    # Between paper and ink lie only the borders of strokes; what is wider is a shadow.
    full = np.percentile(apart[~paper], 90) if not paper.all() else 0.0
    between = ((apart > 0.25 * full) & (apart < 0.75 * full) & ~paper).astype(np.uint8)
    if np.mean(cv2.erode(between, np.ones((5, 5), np.uint8))) > _SHADOW_SHARE:
        return None
    return np.median(colours[paper], axis=0).astype(np.uint8)


def is_lighter_than(colours: np.ndarray, paper: np.ndarray) -> bool:
    """Whether what is farthest from the paper is lighter than it: the third power makes little of uneven paper."""
    return bool(np.sum((colours.astype(np.int64) - paper) ** 3) > 0)


def is_light_on_dark(colours: np.ndarray) -> bool:
    """Whether the ink is lighter than its ground.

    Ink is the minority that lies far from what is usual around it: the third moment's sign tells on which side.
    """
    grey = cv2.cvtColor(_shrunk(colours, _WORK_SIDE), cv2.COLOR_RGB2GRAY)
    usual = _median(grey, max(grey.shape) | 1).astype(np.float32)
    return bool(np.mean((grey - usual) ** 3, dtype=np.float64) > 0)


def ink_darkness(colours: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """uint8 [h, w]: 0 on paper, up to 255 on black ink, shadows and the paper's colour taken out.

    `paper` is uint8 [h, w, 3], or [3] if it is flat. What counts is the colour channel in which the ink differs most
    from the paper, so that yellow or red ink is as dark as black.
    """
    paper = np.broadcast_to(paper, colours.shape).astype(np.float32)
    brightness = np.maximum(paper.max(axis=2), 1.0)
    missing = np.max(paper - colours, axis=2)
    return np.clip(np.rint(missing * (255.0 / brightness)), 0, 255).astype(np.uint8)


def paper_of(colours: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: the picture with everything that is darker than its surroundings and narrow filled in.

    A morphological closing takes away strokes and leaves shadows where they are, even those with sharp borders. Beyond
    the picture's border its outermost pixels go on, so that a shadow that runs across it isn't narrow there.
    """
    height, width = colours.shape[:2]
    reach = max(height, width) // _STROKE_SHARE | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (reach, reach))
    padded = cv2.copyMakeBorder(_median(colours, 3), reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    return cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[reach : reach + height, reach : reach + width]


def without_specks(darkness: np.ndarray) -> np.ndarray:
    """uint8 [h, w], 0 on paper: what is faint is kept only where it hangs together with something that isn't.

    One speck of noise far from the character would be taken for a part of it, and the crop would make it small.
    """
    smooth = _median(darkness, 3)
    count, patches = cv2.connectedComponents((darkness > 0).astype(np.uint8), connectivity=8)
    written = np.zeros(count, bool)
    written[patches[smooth > _FAINT_SHARE * int(smooth.max())]] = True
    written[0] = False  # the paper itself
    return np.where(written[patches], darkness, 0).astype(np.uint8)


def paper_noise(darkness: np.ndarray) -> tuple[float, float]:
    """How dark the paper's noise gets, and the darkest ink with single pixels smoothed away; both 0 to 255."""
    usual = float(np.median(darkness))
    sigma = 1.4826 * float(np.median(np.abs(darkness - usual)))
    floor = min(usual + _NOISE_SIGMAS / 2 * sigma, 254.0)
    peak = float(np.max(_median(darkness, 3)))
    return floor, peak - _NOISE_SIGMAS / 2 * sigma


def _shrunk(pixels: np.ndarray, side: int = MAX_SIDE) -> np.ndarray:
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return pixels
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _median(pixels: np.ndarray, window: int) -> np.ndarray:
    return cv2.medianBlur(np.ascontiguousarray(pixels), window)


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [h, w, 3 or 4]; Pillow's own conversion of deeper grey images cuts off at 255 in place of scaling."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        levels = np.asarray(image).astype(np.float64)
        levels = np.nan_to_num(levels, posinf=0.0, neginf=0.0)
        highest = 65535.0 if image.mode.startswith("I") else float(levels.max())
        grey = np.clip(np.rint(levels * (255.0 / max(highest, 1e-9))), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    transparent = "A" in image.getbands() or "transparency" in image.info
    return np.array(image.convert("RGBA" if transparent else "RGB"))


@contextlib.contextmanager
def _bombs_allowed_up_to(pixels: int) -> Iterator[None]:
    """Pillow refuses what the best phones' cameras make; it raises at twice the number it is told."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
