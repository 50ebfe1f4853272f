"""Frames laid out at once are those of frames.py, which test_frames holds to TensorFlow's; with or without Numba."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards.tfrecord import layout
from pipeline.shards.tfrecord.frames import encode_example, frame_example
from pipeline.shards.tfrecord.layout import Layout

samples = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 127, 128, 300, 16_383, 16_384, 40_000]),
        st.sampled_from([0, 1, 127, 128, 3_753, 16_384, 32_767]),
        st.text(min_size=1, max_size=200),
    ),
    min_size=1,
    max_size=8,
)


@given(samples, st.integers(0, 2**32 - 1), st.sampled_from(["", "ImportError: no numba"]))
@settings(max_examples=100, deadline=None)
def test_frames_are_the_encoders(samples: list[tuple[int, int, str]], seed: int, failure: str) -> None:
    random = np.random.default_rng(seed)
    images = [random.bytes(size) for size, _, _ in samples]
    expected = [
        frame_example(encode_example(image, label, name.encode()))
        for image, (_, label, name) in zip(images, samples, strict=True)
    ]
    before = pa.array(["another", "one"])  # strings that begin somewhere in their buffer
    names = pa.concat_arrays([before, pa.array([name for _, _, name in samples])])[2:]
    size, label = (np.array([sample[i] for sample in samples], np.int64) for i in (0, 1))
    with pytest.MonkeyPatch.context() as patches:
        assert not layout.KERNELS.failure()
        patches.setattr(layout.KERNELS, "_failure", failure)
        laid_out, cut = Layout(size, label, names), len(samples) // 2
        for part in (slice(0, cut), slice(cut, len(samples))):
            frames = laid_out.frames(part, np.frombuffer(b"".join(images[part]), np.uint8))
            assert bytes(frames.octets) == b"".join(frame for frame, _ in expected[part])
            assert frames.size == [len(frame) for frame, _ in expected[part]]
            assert frames.crc32c == [crc for _, crc in expected[part]]
