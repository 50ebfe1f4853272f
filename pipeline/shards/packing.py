"""Samples packed while they are staged: most of one is ground, which is 0.

Packed, it is those of its 64-bit words that aren't 0, and which ones they are: some 1,600 bytes of 4,096.
"""

from __future__ import annotations

import numpy as np

from pipeline.steps.jit import Kernels, read_only

_WORD_BYTES = 8
_GROUP = 64  # words behind a word whose bits say which of them aren't 0, the lowest the first
_GROUP_BYTES = _GROUP * _WORD_BYTES
_ZERO, _ONE = np.uint64(0), np.uint64(1)


def pack(images: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(uint8, int64 [k]): some of the images (uint8 [n, size, size]), one behind the other, and the bytes of each.

    `which` (int64 [k]) says which.
    """
    count, image_bytes = len(images), images.shape[1] * images.shape[2]
    groups = _groups(image_bytes)
    flat = images.reshape(count, image_bytes)
    if image_bytes < groups * _GROUP_BYTES:
        flat = np.zeros((count, groups * _GROUP_BYTES), np.uint8)
        flat[:, :image_bytes] = images.reshape(count, image_bytes)
    words = flat.view(np.uint64)
    if KERNELS.failure():
        return _pack_plainly(words[which].reshape(len(which), groups, _GROUP))
    packed = np.empty(len(which) * groups * (1 + _GROUP), np.uint64)
    size = np.empty(len(which), np.int64)
    _pack(words, which, packed, size)
    return packed.view(np.uint8)[: int(size.sum())], size


def unpack(packed: bytes, count: int, image_bytes: int) -> np.ndarray:
    """uint8 [count, image_bytes and some more]: the images that `packed` is, the one behind the other."""
    words = np.empty((count, _groups(image_bytes) * _GROUP), np.uint64)
    unpacking = _unpack_plainly if KERNELS.failure() else _unpack
    unpacking(np.frombuffer(packed, np.uint64), words)
    return words.view(np.uint8)


def _pack_plainly(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `pack` returns, of uint64 [k, groups, 64], where Numba is missing or fails."""
    has_ink = words != 0
    bits = np.packbits(has_ink, axis=2, bitorder="little").view(np.uint64)
    stays = np.concatenate([np.ones_like(bits, bool), has_ink], 2)
    packed = np.concatenate([bits, words], 2)[stays]
    return packed.view(np.uint8), _WORD_BYTES * stays.sum((1, 2), dtype=np.int64)


def _unpack_plainly(packed: np.ndarray, images: np.ndarray) -> None:
    at = 0
    for group in images.reshape(-1, _GROUP):
        has_ink = np.unpackbits(packed[at : at + 1].view(np.uint8), bitorder="little").astype(bool)
        ink = int(has_ink.sum())
        group[:] = 0
        group[has_ink] = packed[at + 1 : at + 1 + ink]
        at += 1 + ink


def _pack_one_group() -> None:
    words, packed, zero = np.zeros((1, _GROUP), np.uint64), np.zeros(1 + _GROUP, np.uint64), np.zeros(1, np.int64)
    _pack(words, zero, packed, zero.copy())
    _unpack(read_only(packed), words)


KERNELS = Kernels(_pack_one_group)


def _groups(image_bytes: int) -> int:
    return -(-image_bytes // _GROUP_BYTES)


@KERNELS.compile
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


@KERNELS.compile
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
