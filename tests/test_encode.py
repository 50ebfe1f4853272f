from __future__ import annotations

from pathlib import Path

import gnt_files
import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encode import encode_example, encode_png, frame_example
from pipeline.preprocess import PreprocessConfig, preprocess
from schemas.example import FEATURES


def tensorflow_example(image: bytes, label: int, sample_id: bytes) -> tf.train.Example:
    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    return tf.train.Example(
        features=tf.train.Features(
            feature={
                "image": of_bytes(image),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                "sample_id": of_bytes(sample_id),
            }
        )
    )


examples = st.tuples(st.binary(max_size=5000), st.integers(0, 32767), st.text(min_size=1, max_size=60).map(str.encode))


@given(examples)
@settings(max_examples=100, deadline=None)
def test_bytes_are_those_of_protobufs_deterministic_order(example: tuple[bytes, int, bytes]) -> None:
    expected = tensorflow_example(*example)
    encoded = encode_example(*example)
    assert tf.train.Example.FromString(encoded) == expected
    assert encoded == expected.SerializeToString(deterministic=True)


def test_frames_are_those_of_tensorflows_own_file_writer(tmp_path: Path) -> None:
    payloads = [encode_example(bytes(size), size, b"train/1001-c.gnt/0") for size in (0, 1, 200, 4096, 70_000)]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for payload in payloads:
            theirs.write(payload)
    framed = [frame_example(payload) for payload in payloads]
    assert b"".join(frame for frame, _ in framed) == (tmp_path / "theirs").read_bytes()
    assert [crc for _, crc in framed] == [google_crc32c.value(payload) for payload in payloads]


@pytest.mark.parametrize("size", [8, 64, 96])
def test_png_is_lossless_in_tensorflows_decoder(size: int) -> None:
    image = preprocess(gnt_files.strokes(size), PreprocessConfig(image_size=size)).image
    decoded = tf.io.decode_png(encode_png(image), channels=1).numpy()
    assert np.array_equal(decoded[:, :, 0], image)


def test_the_spec_names_every_feature_in_the_order_of_their_bytes() -> None:
    names = [feature.name for feature in FEATURES]
    assert names == sorted(names) == sorted(tensorflow_example(b"", 0, b"x").features.feature)
