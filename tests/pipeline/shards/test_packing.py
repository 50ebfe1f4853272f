"""Packing loses nothing, and without Numba it is the same."""

from __future__ import annotations

import gnt_files
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import packing, staging
from pipeline.shards.packing import pack, unpack
from pipeline.steps.plain import preprocess
from pipeline.steps.settings import PreprocessConfig


def sparse(seed: int, count: int, size: int, ink: float) -> np.ndarray:
    """Images in which any byte may be the only one of its word."""
    random = np.random.default_rng(seed)
    images = random.integers(1, 256, (count, size, size), np.uint8)
    return images * (random.random(images.shape) < ink).astype(np.uint8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(8, 100), st.sampled_from([0, 0.002, 0.05, 0.5, 1]))
@settings(max_examples=100, deadline=None)
def test_unpacked_images_are_those_that_were_packed(seed: int, count: int, size: int, ink: float) -> None:
    images = sparse(seed, count, size, ink)
    which = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.7)
    packed, sizes = pack(images, which)
    assert len(packed) == sizes.sum()
    found = unpack(packed.tobytes(), len(which), size * size)[:, : size * size]
    np.testing.assert_array_equal(found, images[which].reshape(len(which), size * size))
    # Any of them by itself, as a shard takes them.
    for i, begin, taken in zip(which, np.cumsum(sizes) - sizes, sizes, strict=True):
        [alone] = unpack(packed[begin : begin + taken].tobytes(), 1, size * size)
        np.testing.assert_array_equal(alone[: size * size], images[i].ravel())


@pytest.mark.parametrize("size", [8, 33, 64, 200])
def test_packed_is_a_word_for_each_with_ink_and_one_for_each_group(size: int) -> None:
    images = sparse(7, 20, size, 0.02)
    images[3], images[4] = 0, 255
    padded = np.zeros((20, -(-(size * size) // 512) * 512), np.uint8)
    padded[:, : size * size] = images.reshape(20, -1)
    words = padded.reshape(20, -1, 8).any(2).sum(1)
    _, sizes = pack(images, np.arange(20))
    assert sizes.tolist() == (8 * (words + padded.shape[1] // 512)).tolist()


def test_a_changed_layout_has_another_number() -> None:
    packed = pack(sparse(11, 5, 33, 0.1), np.arange(5))[0]
    assert (xxhash.xxh3_64_hexdigest(packed.tobytes()), staging._LAYOUT) == ("f602e137f8dadd06", 3)


def test_written_samples_shrink_to_less_than_half() -> None:
    images = np.stack([preprocess(gnt_files.strokes(seed), PreprocessConfig()).image for seed in range(50)])
    packed, _ = pack(images, np.arange(50))
    assert len(packed) < images.size / 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(8, 100), st.sampled_from([0, 0.002, 0.05, 0.5, 1]))
@settings(max_examples=50, deadline=None)
def test_without_numba_the_packed_bytes_are_the_same(seed: int, count: int, size: int, ink: float) -> None:
    images = sparse(seed, count, size, ink)
    which = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.7)
    packed, sizes = pack(images, which)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(packing.KERNELS, "_failure", "ImportError: no numba")
        plainly, plain_sizes = pack(images, which)
        assert plainly.tobytes() == packed.tobytes()
        assert plain_sizes.tolist() == sizes.tolist()
        found = unpack(packed.tobytes(), len(which), size * size)[:, : size * size]
        np.testing.assert_array_equal(found, images[which].reshape(len(which), size * size))
