"""Samples on their way to a shard: packed while they are staged, laid out as TFRecord frames there; compiled.

Most of a sample is ground, which is 0. Packed, it is those of its 64-bit words that aren't 0, and which ones they are:
some 1,600 bytes of 4,096. The frames are those of frames.py, where it says what is in them; the tests hold them to it.
"""

from __future__ import annotations

from functools import cache

import google_crc32c
import numpy as np
import pyarrow as pa

from pipeline.shards.frames import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, frame_header
from pipeline.steps.jit import Kernels, read_only
from schemas.example import IMAGE, LABEL, SAMPLE_ID

_kernels = Kernels()
# What is compiled in stands here (see pipeline.steps.jit), and is held to where it comes from.
_IMAGE, _LABEL, _SAMPLE_ID = (np.frombuffer(name, np.uint8) for name in (b"image", b"label", b"sample_id"))
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
assert [bytes(name).decode() for name in (_IMAGE, _LABEL, _SAMPLE_ID)] == [IMAGE, LABEL, SAMPLE_ID]
assert (_HEADER_BYTES, _FOOTER_BYTES) == (FRAME_HEADER_BYTES, FRAME_FOOTER_BYTES)

_WORD_BYTES = 8
_GROUP = 64  # words behind a word whose bits say which of them aren't 0, the lowest the first
_GROUP_BYTES = _GROUP * _WORD_BYTES
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_BYTES_LIST, _INT64_LIST = 0x0A, 0x1A  # fields 1 and 3 of a Feature


def pack(images: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(uint8, int64 [k]): some of the images (uint8 [n, size, size]), one behind the other, and the bytes of each.

    `which` (int64 [k]) says which.
    """
    load()
    count, image_bytes = len(images), images.shape[1] * images.shape[2]
    groups = _groups(image_bytes)
    flat = images.reshape(count, image_bytes)
    if image_bytes < groups * _GROUP_BYTES:
        flat = np.zeros((count, groups * _GROUP_BYTES), np.uint8)
        flat[:, :image_bytes] = images.reshape(count, image_bytes)
    packed = np.empty(len(which) * groups * (1 + _GROUP), np.uint64)
    size = np.empty(len(which), np.int64)
    _pack(flat.view(np.uint64), which, packed, size)
    return packed.view(np.uint8)[: int(size.sum())], size


def unpack(packed: bytes, count: int, image_bytes: int) -> np.ndarray:
    """uint8 [count, image_bytes and some more]: the images that `packed` is, the one behind the other."""
    load()
    words = np.empty((count, _groups(image_bytes) * _GROUP), np.uint64)
    _unpack(np.frombuffer(packed, np.uint64), words)
    return words.view(np.uint8)


class Frames:
    """The TFRecord frames of n samples, laid out some at a time."""

    def __init__(self, image_bytes: np.ndarray, label: np.ndarray, sample_id: pa.StringArray) -> None:
        """int64 [n] twice, and n strings."""
        load()
        _, offsets, text = sample_id.buffers()
        id_end = np.frombuffer(offsets, np.int32)[sample_id.offset :][: len(sample_id) + 1].astype(np.int64)
        self._ids = read_only(np.frombuffer(text or b"", np.uint8))
        self._id_begin, self._id_bytes = id_end[:-1], np.diff(id_end)
        self._image_bytes, self._label = image_bytes, label
        self.size = np.empty(len(label), np.int64)
        """int64 [n]: the length of each, in bytes."""
        _frame_sizes(image_bytes, label, self._id_bytes, self.size)
        lengths, where = np.unique(self.size - (_HEADER_BYTES + _FOOTER_BYTES), return_inverse=True)
        headers = b"".join([frame_header(length) for length in lengths.tolist()])
        self._header = np.frombuffer(headers, np.uint8).reshape(-1, _HEADER_BYTES)[where]

    def lay_out(
        self, begin: int, end: int, images: np.ndarray, image_begin: np.ndarray
    ) -> tuple[np.ndarray, list[int]]:
        """The frames from `begin` to `end` (uint8), and the CRC-32C of each Example (not masked).

        Their images begin at `image_begin` (int64 [end - begin]) of `images` (uint8).
        """
        ends = np.cumsum(self.size[begin:end])
        frames = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        _lay_out(
            self._header[begin:end],
            read_only(images),
            image_begin,
            self._image_bytes[begin:end],
            self._label[begin:end],
            self._ids,
            self._id_begin[begin:end],
            self._id_bytes[begin:end],
            frames,
        )
        at, crcs = 0, []
        for stop in ends.tolist():
            crcs.append(google_crc32c.value(frames[at + _HEADER_BYTES : stop - _FOOTER_BYTES]))
            at = stop
        _put_footers(np.array(crcs, np.int64), ends, frames)
        return frames, crcs


@cache
def load() -> None:
    """Compiles the kernels, or loads what is kept; a process from which others are forked does it for them."""
    _kernels.load(_lay_out_one_pixel)


def _lay_out_one_pixel() -> None:
    end, zero, one = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    words, packed = np.zeros((1, _GROUP), np.uint64), np.zeros(1 + _GROUP, np.uint64)
    _pack(words, zero, packed, end)
    _unpack(read_only(packed), words)
    _frame_sizes(one, zero, one, end)
    octets, header, frames = np.zeros(1, np.uint8), np.zeros((1, _HEADER_BYTES), np.uint8), np.zeros(end[0], np.uint8)
    _lay_out(header, read_only(octets), zero, one, zero, read_only(octets), zero, one, frames)
    _put_footers(zero, end, frames)


def _groups(image_bytes: int) -> int:
    return -(-image_bytes // _GROUP_BYTES)


@_kernels.compile
def _pack(images: np.ndarray, which: np.ndarray, packed: np.ndarray, size: np.ndarray) -> None:
    at = begun = _ZERO  # unsigned: a signed index might be one from the end, and is looked at each time
    for i in range(len(which)):
        image = images[which[i]]
        for begin in range(0, len(image), _GROUP):
            group, bits = image[begin : begin + _GROUP], _ZERO
            for bit in range(_GROUP):
                bits |= np.uint64(group[bit] != 0) << np.uint64(bit)
            packed[at] = bits
            at += _ONE
            for bit in range(_GROUP):
                packed[at] = group[bit]  # the next one is written over it if it is 0
                at += bits >> np.uint64(bit) & _ONE
        size[i] = np.int64(at - begun) * _WORD_BYTES
        begun = at


@_kernels.compile
def _unpack(packed: np.ndarray, images: np.ndarray) -> None:
    at, last = _ZERO, np.uint64(len(packed) - 1)
    for i in range(len(images)):
        image = images[i]
        for begin in range(0, len(image), _GROUP):
            group, bits = image[begin : begin + _GROUP], packed[at]
            at += _ONE
            for bit in range(_GROUP):
                group[bit] = packed[min(at, last)] & (_ZERO - (bits & _ONE))  # the word, or 0, without a branch
                at += bits & _ONE
                bits >>= _ONE


@_kernels.compile
def _varint_bytes(value: int) -> int:
    count = 1
    while value > 0x7F:
        value >>= 7
        count += 1
    return count


@_kernels.compile
def _entry_bytes(name: np.ndarray, count: int) -> int:
    """The length of a feature's map entry, whose list holds `count` bytes."""
    feature = 1 + _varint_bytes(count) + count
    feature += 1 + _varint_bytes(feature)
    entry = 2 + len(name) + 1 + _varint_bytes(feature) + feature
    return 1 + _varint_bytes(entry) + entry


@_kernels.compile
def _features_bytes(image_bytes: int, label: int, id_bytes: int) -> int:
    entries = _entry_bytes(_IMAGE, image_bytes) + _entry_bytes(_LABEL, _varint_bytes(label))
    return entries + _entry_bytes(_SAMPLE_ID, id_bytes)


@_kernels.compile
def _frame_sizes(image_bytes: np.ndarray, label: np.ndarray, id_bytes: np.ndarray, size: np.ndarray) -> None:
    for i in range(len(size)):
        features = _features_bytes(image_bytes[i], label[i], id_bytes[i])
        size[i] = _HEADER_BYTES + 1 + _varint_bytes(features) + features + _FOOTER_BYTES


@_kernels.compile
def _put(value: int, frames: np.ndarray, at: int) -> int:
    """A varint, at `at`; returns where it ends."""
    while value > 0x7F:
        frames[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    frames[at] = value
    return at + 1


@_kernels.compile
def _copy(source: np.ndarray, begin: int, count: int, frames: np.ndarray, at: int) -> int:
    part, copy = source[begin : begin + count], frames[at : at + count]
    for i in range(count):
        copy[i] = part[i]
    return at + count


@_kernels.compile
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


@_kernels.compile
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


@_kernels.compile
def _put_footers(crc: np.ndarray, end: np.ndarray, frames: np.ndarray) -> None:
    """TFRecord's masked CRCs, as in pipeline.shards.frames; `end` is where each frame ends."""
    for i in range(len(crc)):
        masked = (crc[i] >> 15 | crc[i] << 17) + 0xA282EAD8
        for place in range(_FOOTER_BYTES):
            frames[end[i] - _FOOTER_BYTES + place] = masked >> 8 * place & 0xFF
