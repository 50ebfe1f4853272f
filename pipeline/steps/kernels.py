"""The six steps compiled: what plain.py makes of each record, byte for byte.

Everything is exact in integers but Otsu's threshold and the places where the interpolation looks, which follow OpenCV's
in float64, operation by operation. The tests hold every combination of steps to plain.py.
"""

from __future__ import annotations

import numpy as np

from pipeline.steps.jit import Kernels, read_only
from pipeline.steps.settings import EDGE_LEVEL, INK, MIN_CONTRAST, PAPER
from schemas.manifest import BLANK, LARGER_THAN_IMAGE, UNUSABLE_REASONS

# What is compiled in stands here (see jit.py), and is held to where the plain steps have it.
_PAPER, _INK, _EDGE_LEVEL, _MIN_CONTRAST = 255, 255, 32, 16
_BLANK, _LARGER_THAN_IMAGE = 1, 2  # place of the reason in UNUSABLE_REASONS, from 1
assert (_PAPER, _INK, _EDGE_LEVEL, _MIN_CONTRAST) == (PAPER, INK, EDGE_LEVEL, MIN_CONTRAST)
assert UNUSABLE_REASONS == (BLANK, LARGER_THAN_IMAGE)

_WEIGHT_BITS = 8  # of an interpolation weight
_STRETCH_BITS = 23  # of the reciprocal of a span: 255 / span is exact enough, and 255 * 2**23 fits 32 bits


def _convert_one_pixel() -> None:
    octets, first_pixel, one = read_only(np.zeros(1, np.uint8)), np.zeros(1, np.int64), np.ones(1, np.int64)
    count_ink(octets, first_pixel, one, np.zeros(1, np.int64))
    image, crop, outcome = np.zeros((1, 64), np.uint8), np.zeros((1, 4), np.int64), np.zeros(1, np.int8)
    preprocess(octets, first_pixel, one, one, False, False, False, True, 8, 8, image, crop, outcome)


KERNELS = Kernels(_convert_one_pixel)


@KERNELS.compile
def count_ink(octets: np.ndarray, first_pixel: np.ndarray, pixels: np.ndarray, ink: np.ndarray) -> None:
    for i in range(len(first_pixel)):
        count = np.int32(0)
        for value in octets[first_pixel[i] : first_pixel[i] + pixels[i]]:
            count += np.int32(value != _PAPER)
        ink[i] = count


@KERNELS.compile
def preprocess(
    octets: np.ndarray,
    first_pixel: np.ndarray,
    width: np.ndarray,
    height: np.ndarray,
    median: bool,
    minmax: bool,
    otsu: bool,
    edges: bool,
    side: int,
    size: int,
    images: np.ndarray,
    crops: np.ndarray,
    outcomes: np.ndarray,
) -> None:
    """`side` is the longer side of the ink in a sample; 0 leaves it as it is. `images` are [n, size * size]."""
    most = 1
    for i in range(len(first_pixel)):
        most = max(most, width[i] * height[i])
    grey, ink = np.empty(most, np.uint8), np.empty(most, np.uint8)
    for i in range(len(first_pixel)):
        w, h = width[i], height[i]
        bitmap = octets[first_pixel[i] : first_pixel[i] + w * h]
        if median:
            _median(bitmap, w, h, grey)
        else:
            _copy(bitmap, 0, w * h, grey, 0)
        darkest, lightest = _darkest_and_lightest(grey[: w * h])
        if lightest - darkest < _MIN_CONTRAST:
            outcomes[i] = _BLANK
            continue
        if not minmax:
            darkest, lightest = 0, 255
        _to_ink(grey[: w * h], darkest, lightest - darkest, otsu, ink)
        x, y, crop_w, crop_h = _edge_box(ink, w, h) if edges else (0, 0, w, h)
        if crop_w == 0:
            outcomes[i] = _BLANK
            continue
        if side:
            _fit(ink, grey, y * w + x, w, crop_w, crop_h, side, images[i], size)
        elif max(crop_w, crop_h) > size:
            outcomes[i] = _LARGER_THAN_IMAGE
            continue
        else:
            images[i] = 0
            begin = (size - crop_h) // 2 * size + (size - crop_w) // 2
            for row in range(crop_h):
                _copy(ink, (y + row) * w + x, crop_w, images[i], begin + row * size)
        crops[i, 0], crops[i, 1], crops[i, 2], crops[i, 3] = x, y, crop_w, crop_h


@KERNELS.compile
def _copy(source: np.ndarray, begin: int, count: int, to: np.ndarray, at: int) -> None:
    part, copy = source[begin : begin + count], to[at : at + count]
    for i in range(count):  # a slice assigned to a slice takes Numba seconds to compile
        copy[i] = part[i]


@KERNELS.compile
def _darkest_and_lightest(grey: np.ndarray) -> tuple[np.int64, np.int64]:
    darkest, lightest = np.uint8(255), np.uint8(0)
    for value in grey:
        darkest = min(darkest, value)
        lightest = max(lightest, value)
    return np.int64(darkest), np.int64(lightest)


@KERNELS.compile
def _median(bitmap: np.ndarray, w: int, h: int, grey: np.ndarray) -> None:
    """The median of nine from three sorted columns: that of the largest low, the middle middle and the least high."""
    low, middle, high = np.empty(w + 2, np.uint8), np.empty(w + 2, np.uint8), np.empty(w + 2, np.uint8)
    for y in range(h):
        before, after = max(y - 1, 0), min(y + 1, h - 1)
        above, here = bitmap[before * w : before * w + w], bitmap[y * w : y * w + w]
        below, out = bitmap[after * w : after * w + w], grey[y * w : y * w + w]
        for x in range(w):
            a, b, c = above[x], here[x], below[x]
            a, b = min(a, b), max(a, b)
            low[x + 1], middle[x + 1], high[x + 1] = min(a, c), max(a, min(b, c)), max(b, c)
        low[0], middle[0], high[0] = low[1], middle[1], high[1]
        low[w + 1], middle[w + 1], high[w + 1] = low[w], middle[w], high[w]
        for x in range(w):
            a = max(max(low[x], low[x + 1]), low[x + 2])
            b = max(min(middle[x], middle[x + 1]), min(max(middle[x], middle[x + 1]), middle[x + 2]))
            c = min(min(high[x], high[x + 1]), high[x + 2])
            out[x] = max(min(a, b), min(max(a, b), c))


@KERNELS.compile
def _to_ink(grey: np.ndarray, darkest: int, span: int, otsu: bool, ink: np.ndarray) -> None:
    """Stretched from `darkest` and `span` levels to 0 … 255, then inverted; or 255 up to Otsu's threshold."""
    if otsu:
        threshold = _otsu_level(grey, darkest, span)
        for i in range(len(grey)):
            ink[i] = np.uint8(_INK) if grey[i] <= threshold else np.uint8(0)
        return
    dark, reciprocal = np.uint32(darkest), np.uint32(((255 << _STRETCH_BITS) + span - 1) // span)
    half = np.uint32(1 << _STRETCH_BITS - 1)
    for i in range(len(grey)):
        scaled = np.uint32(np.uint32(np.uint32(np.uint32(grey[i]) - dark) * reciprocal) + half)
        ink[i] = np.uint8(np.uint32(255) - (scaled >> np.uint32(_STRETCH_BITS)))


@KERNELS.compile
def _otsu_level(grey: np.ndarray, darkest: int, span: int) -> int:
    """The highest level of `grey` that is ink: Otsu's threshold is found on the stretched levels."""
    # Four histograms, by turns: most pixels have their neighbour's level, and would wait for its count to be written.
    counts = np.zeros(4 * 256, np.int64)
    for i in range(len(grey)):
        counts[(i & 3) << 8 | np.int64(grey[i])] += 1
    histogram = np.zeros(256, np.int64)
    for level in range(darkest, darkest + span + 1):
        stretched = (2 * 255 * (level - darkest) + span) // (2 * span)
        histogram[stretched] += counts[level] + counts[level + 256] + counts[level + 512] + counts[level + 768]
    threshold = _otsu_threshold(histogram, len(grey))
    highest = darkest
    while highest < 255 and (2 * 255 * (highest + 1 - darkest) + span) // (2 * span) <= threshold:
        highest += 1
    return highest


@KERNELS.compile
def _otsu_threshold(histogram: np.ndarray, pixels: int) -> int:
    smallest_share = 1.1920928955078125e-07  # float32's epsilon
    scale = 1.0 / pixels
    total = 0.0
    for level in range(256):
        total += level * np.float64(histogram[level])
    mean = total * scale
    dark_share, dark_mean, best, threshold = 0.0, 0.0, 0.0, 0
    for level in range(256):
        share = histogram[level] * scale
        dark_mean *= dark_share
        dark_share += share
        light_share = 1.0 - dark_share
        if min(dark_share, light_share) < smallest_share or max(dark_share, light_share) > 1.0 - smallest_share:
            continue
        dark_mean = (dark_mean + level * share) / dark_share
        light_mean = (mean - dark_share * dark_mean) / light_share
        between = dark_share * light_share * (dark_mean - light_mean) * (dark_mean - light_mean)
        if between > best:
            best, threshold = between, level
    return threshold


@KERNELS.compile
def _edge_box(ink: np.ndarray, w: np.int64, h: np.int64) -> tuple[np.int64, np.int64, np.int64, np.int64]:
    """x, y, width, height of the inner edges, looked for from each side: most of the ink is never looked at."""
    top, bottom, left, right = np.int64(0), h - 1, np.int64(0), w - 1
    while top < h and not _edge_in_line(ink, w, h, top * w, 1, w):
        top += 1
    if top == h:
        return left, top, left, left
    while not _edge_in_line(ink, w, h, bottom * w, 1, w):
        bottom -= 1
    while not _edge_in_line(ink, w, h, top * w + left, w, bottom - top + 1):
        left += 1
    while not _edge_in_line(ink, w, h, top * w + right, w, bottom - top + 1):
        right -= 1
    return left, top, right - left + 1, bottom - top + 1


@KERNELS.compile
def _edge_in_line(ink: np.ndarray, w: int, h: int, begin: int, step: int, count: int) -> bool:
    for i in range(count):
        pixel = begin + i * step
        if ink[pixel] >= _EDGE_LEVEL and _is_edge(ink, w, h, pixel % w, pixel // w):
            return True
    return False


@KERNELS.compile
def _is_edge(ink: np.ndarray, w: int, h: int, x: int, y: int) -> bool:
    """Whether one of the 8 neighbours is _EDGE_LEVEL or more below; beyond the border lies ground."""
    if x == 0 or y == 0 or x == w - 1 or y == h - 1:
        return True
    level = np.int64(ink[y * w + x]) - _EDGE_LEVEL
    for row in range(y - 1, y + 2):
        for column in range(x - 1, x + 2):
            if ink[row * w + column] <= level:
                return True
    return False


@KERNELS.compile
def _fit(
    ink: np.ndarray, spare: np.ndarray, begin: int, stride: int, w: int, h: int, side: int, image: np.ndarray, size: int
) -> None:
    """The crop scaled so that its longer side is `side`, in the middle of `image`; overwrites `ink` and `spare`."""
    while max(w, h) > 2 * side:
        to_w, to_h = (w + 1) // 2, (h + 1) // 2
        _resize(ink, begin, stride, w, h, spare, 0, to_w, to_w, to_h)
        ink, spare = spare, ink
        begin, stride, w, h = 0, to_w, to_w, to_h
    longer = max(w, h)
    to_w, to_h = max(1, (2 * w * side + longer) // (2 * longer)), max(1, (2 * h * side + longer) // (2 * longer))
    image[:] = 0
    _resize(ink, begin, stride, w, h, image, (size - to_h) // 2 * size + (size - to_w) // 2, size, to_w, to_h)


@KERNELS.compile
def _resize(
    source: np.ndarray, begin: int, stride: int, w: int, h: int,
    to: np.ndarray, to_begin: int, to_stride: int, to_w: int, to_h: int,
) -> None:  # fmt: skip
    """OpenCV's INTER_LINEAR_EXACT between bitmaps whose rows begin `stride` apart: 8-bit weights, rounded once."""
    columns, right_weight = _taps(w, to_w)
    rows, lower_weight = _taps(h, to_h)
    line = np.empty(w + 1, np.uint64)  # of two output rows at once, one in the lower 32 bits and one in the upper
    line[w] = 0  # looked at, with weight 0, where the bitmap is one column
    one, bits, shift = np.uint64(1 << _WEIGHT_BITS), np.uint64(2 * _WEIGHT_BITS), np.uint64(32)
    half = np.uint64((1 << 2 * _WEIGHT_BITS - 1) << 32 | 1 << 2 * _WEIGHT_BITS - 1)
    for y in range(0, to_h, 2):
        z = min(y + 1, to_h - 1)
        upper, lower = begin + rows[y] * stride, begin + min(rows[y] + 1, h - 1) * stride
        weight = np.uint32(lower_weight[y])
        rest = np.uint32(1 << _WEIGHT_BITS) - weight
        upper_z, lower_z = begin + rows[z] * stride, begin + min(rows[z] + 1, h - 1) * stride
        weight_z = np.uint32(lower_weight[z])
        rest_z = np.uint32(1 << _WEIGHT_BITS) - weight_z
        above, below = source[upper : upper + w], source[lower : lower + w]
        above_z, below_z = source[upper_z : upper_z + w], source[lower_z : lower_z + w]
        for x in range(w):
            of_y = np.uint32(np.uint32(above[x]) * rest + np.uint32(below[x]) * weight)
            of_z = np.uint32(np.uint32(above_z[x]) * rest_z + np.uint32(below_z[x]) * weight_z)
            line[x] = np.uint64(of_z) << shift | np.uint64(of_y)
        out = to[to_begin + y * to_stride : to_begin + y * to_stride + to_w]
        out_z = to[to_begin + z * to_stride : to_begin + z * to_stride + to_w]
        for x in range(to_w):
            left, right_part = columns[x], np.uint64(right_weight[x])
            two = line[left] * (one - right_part) + line[left + 1] * right_part + half
            out[x] = np.uint8(two >> bits)
            out_z[x] = np.uint8(two >> (bits + shift))


@KERNELS.compile
def _taps(source: int, to: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `to` places the first of the two pixels looked at, and the weight of the second."""
    first, weight = np.empty(to, np.int64), np.empty(to, np.int32)
    scale = 1.0 / (to / source)
    for i in range(to):
        place = scale * (i + 0.5) - 0.5
        pixel = np.int64(np.floor(place))
        if pixel < 0 or source == 1:
            first[i], weight[i] = 0, 0
        elif pixel < source - 1:
            first[i], weight[i] = pixel, np.int32(np.rint((place - pixel) * (1 << _WEIGHT_BITS)))
        else:
            first[i], weight[i] = source - 2, 1 << _WEIGHT_BITS
    return first, weight
