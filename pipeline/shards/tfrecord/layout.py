"""The TFRecord frames of many samples, laid out at once, compiled: what frames.py makes of each, byte for byte.

A record after the other in Python takes three times as long, a tenth of a large conversion (benchmarks/log.md). Where
Numba is missing or fails, that is what is done.
"""

from __future__ import annotations

from typing import NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa

from pipeline.shards.tfrecord.frames import (
    FRAME_FOOTER_BYTES,
    FRAME_HEADER_BYTES,
    encode_example,
    frame_example,
    frame_header,
)
from pipeline.steps.jit import Kernels, read_only
from schemas.example import IMAGE, LABEL, SAMPLE_ID

# What is compiled in stands here (see jit.py), and is held to where it comes from.
_IMAGE, _LABEL, _SAMPLE_ID = (np.frombuffer(name, np.uint8) for name in (b"image", b"label", b"sample_id"))
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
assert [bytes(name).decode() for name in (_IMAGE, _LABEL, _SAMPLE_ID)] == [IMAGE, LABEL, SAMPLE_ID]
assert (_HEADER_BYTES, _FOOTER_BYTES) == (FRAME_HEADER_BYTES, FRAME_FOOTER_BYTES)
_BYTES_LIST, _INT64_LIST = 0x0A, 0x1A  # fields 1 and 3 of a Feature


class Frames(NamedTuple):
    """Some frames, the one behind the other."""

    octets: bytes | memoryview
    size: list[int]
    """The length of each."""
    crc32c: list[int]
    """Of each Example, not masked."""


class Layout:
    """The frames of n samples, laid out some at a time."""

    def __init__(self, image_bytes: np.ndarray, label: np.ndarray, sample_id: pa.StringArray) -> None:
        """int64 [n] twice, and n strings."""
        self._image_bytes, self._label, self._sample_id = image_bytes, label, sample_id
        if KERNELS.failure():
            return
        _, offsets, text = sample_id.buffers()
        id_end = np.frombuffer(offsets, np.int32)[sample_id.offset :][: len(sample_id) + 1].astype(np.int64)
        self._ids = read_only(np.frombuffer(text or b"", np.uint8))
        self._id_begin, self._id_bytes = id_end[:-1], np.diff(id_end)
        self._size = np.empty(len(label), np.int64)
        _frame_sizes(image_bytes, label, self._id_bytes, self._size)
        lengths, where = np.unique(self._size - (_HEADER_BYTES + _FOOTER_BYTES), return_inverse=True)
        headers = b"".join([frame_header(length) for length in lengths.tolist()])
        self._header = np.frombuffer(headers, np.uint8).reshape(-1, _HEADER_BYTES)[where]

    def frames(self, part: slice, images: np.ndarray) -> Frames:
        """Of a part of the samples, whose images (uint8) stand the one behind the other."""
        image_bytes, label = self._image_bytes[part], self._label[part]
        image_end = np.cumsum(image_bytes)
        if KERNELS.failure():
            places = zip((image_end - image_bytes).tolist(), image_end.tolist(), strict=True)
            views = (images[begin:end].data for begin, end in places)
            named = zip(views, label.tolist(), self._sample_id[part].cast(pa.binary()).to_pylist(), strict=True)
            framed = [frame_example(encode_example(*one)) for one in named]
            sizes = [len(frame) for frame, _ in framed]
            return Frames(b"".join([frame for frame, _ in framed]), sizes, [crc for _, crc in framed])
        ends = np.cumsum(self._size[part])
        frames = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        _lay_out(
            self._header[part],
            read_only(images),
            image_end - image_bytes,
            image_bytes,
            label,
            self._ids,
            self._id_begin[part],
            self._id_bytes[part],
            frames,
        )
        at, crcs = 0, []
        for stop in ends.tolist():
            crcs.append(google_crc32c.value(frames[at + _HEADER_BYTES : stop - _FOOTER_BYTES]))
            at = stop
        _put_footers(np.array(crcs, np.int64), ends, frames)
        return Frames(frames.data, self._size[part].tolist(), crcs)


def _lay_out_one_pixel() -> None:
    end, zero, one = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    _frame_sizes(one, zero, one, end)
    octets, header, frames = np.zeros(1, np.uint8), np.zeros((1, _HEADER_BYTES), np.uint8), np.zeros(end[0], np.uint8)
    _lay_out(header, read_only(octets), zero, one, zero, read_only(octets), zero, one, frames)
    _put_footers(zero, end, frames)


KERNELS = Kernels(_lay_out_one_pixel)


@KERNELS.compile
def _varint_bytes(value: int) -> int:
    count = 1
    while value > 0x7F:
        value >>= 7
        count += 1
    return count


@KERNELS.compile
def _entry_bytes(name: np.ndarray, count: int) -> int:
    """The length of a feature's map entry, whose list holds `count` bytes."""
    feature = 1 + _varint_bytes(count) + count
    feature += 1 + _varint_bytes(feature)
    entry = 2 + len(name) + 1 + _varint_bytes(feature) + feature
    return 1 + _varint_bytes(entry) + entry


@KERNELS.compile
def _features_bytes(image_bytes: int, label: int, id_bytes: int) -> int:
    entries = _entry_bytes(_IMAGE, image_bytes) + _entry_bytes(_LABEL, _varint_bytes(label))
    return entries + _entry_bytes(_SAMPLE_ID, id_bytes)


@KERNELS.compile
def _frame_sizes(image_bytes: np.ndarray, label: np.ndarray, id_bytes: np.ndarray, size: np.ndarray) -> None:
    for i in range(len(size)):
        features = _features_bytes(image_bytes[i], label[i], id_bytes[i])
        size[i] = _HEADER_BYTES + 1 + _varint_bytes(features) + features + _FOOTER_BYTES


@KERNELS.compile
def _put(value: int, frames: np.ndarray, at: int) -> int:
    """A varint, at `at`; returns where it ends."""
    while value > 0x7F:
        frames[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    frames[at] = value
    return at + 1


@KERNELS.compile
def _copy(source: np.ndarray, begin: int, count: int, frames: np.ndarray, at: int) -> int:
    part, copy = source[begin : begin + count], frames[at : at + count]
    for i in range(count):
        copy[i] = part[i]
    return at + count


@KERNELS.compile
def _put_head(name: np.ndarray, kind: int, count: int, frames: np.ndarray, at: int) -> int:
    """All of a feature's map entry before the `count` bytes that its list holds, which end it."""
    values = 1 + _varint_bytes(count) + count
    feature = 1 + _varint_bytes(values) + values
    entry = 2 + len(name) + 1 + _varint_bytes(feature) + feature
    frames[at] = 0x0A
    at = _put(entry, frames, at + 1)
    frames[at] = 0x0A
    at = _put(len(name), frames, at + 1)
    at = _copy(name, 0, len(name), frames, at)
    frames[at] = 0x12
    at = _put(feature, frames, at + 1)
    frames[at] = kind
    at = _put(values, frames, at + 1)
    frames[at] = 0x0A
    return _put(count, frames, at + 1)


@KERNELS.compile
def _lay_out(
    header: np.ndarray,
    images: np.ndarray,
    image_begin: np.ndarray,
    image_bytes: np.ndarray,
    label: np.ndarray,
    ids: np.ndarray,
    id_begin: np.ndarray,
    id_bytes: np.ndarray,
    frames: np.ndarray,
) -> None:
    """Everything but the footers, for which room is left."""
    at = 0
    for i in range(len(header)):
        at = _copy(header[i], 0, _HEADER_BYTES, frames, at)
        frames[at] = 0x0A
        at = _put(_features_bytes(image_bytes[i], label[i], id_bytes[i]), frames, at + 1)
        at = _put_head(_IMAGE, _BYTES_LIST, image_bytes[i], frames, at)
        at = _copy(images, image_begin[i], image_bytes[i], frames, at)
        at = _put_head(_LABEL, _INT64_LIST, _varint_bytes(label[i]), frames, at)
        at = _put(label[i], frames, at)
        at = _put_head(_SAMPLE_ID, _BYTES_LIST, id_bytes[i], frames, at)
        at = _copy(ids, id_begin[i], id_bytes[i], frames, at) + _FOOTER_BYTES


@KERNELS.compile
def _put_footers(crc: np.ndarray, end: np.ndarray, frames: np.ndarray) -> None:
    """TFRecord's masked CRCs, as in frames.py; `end` is where each frame ends."""
    for i in range(len(crc)):
        masked = (crc[i] >> 15 | crc[i] << 17) + 0xA282EAD8
        for place in range(_FOOTER_BYTES):
            frames[end[i] - _FOOTER_BYTES + place] = masked >> 8 * place & 0xFF
