from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import gnt_files
import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards.tfrecord.frames import encode_example, encode_png, frame_example
from pipeline.steps.plain import preprocess
from pipeline.steps.settings import PreprocessConfig
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


samples = st.tuples(st.integers(0, 1000), st.sampled_from([8, 33, 64, 96])).map(
    lambda t: preprocess(gnt_files.strokes(t[0]), PreprocessConfig(image_size=t[1])).image
)
noise = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).integers(0, 256, t[:2], dtype=np.uint8)
)


@given(samples | noise)
@settings(max_examples=100, deadline=None)
def test_png_is_lossless_in_opencvs_decoder(image: np.ndarray) -> None:
    assert np.array_equal(cv2.imdecode(np.frombuffer(encode_png(image), np.uint8), cv2.IMREAD_UNCHANGED), image)


@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (96, 96), (1024, 1024), (3, 70)])
def test_png_is_lossless_in_tensorflows_decoder(shape: tuple[int, int]) -> None:
    image = cv2.resize(gnt_files.strokes(8), shape[::-1])
    decoded = tf.io.decode_png(encode_png(image)).numpy()
    assert decoded.shape == (*shape, 1)
    assert np.array_equal(decoded[:, :, 0], image)


@pytest.mark.parametrize("transposed", [False, True])
def test_png_of_a_part_of_a_larger_picture(transposed: bool) -> None:
    part = gnt_files.strokes(5, 90, 70)[10:40, 7:60]
    image = part.T if transposed else part
    assert encode_png(image) == encode_png(image.copy())


def test_png_is_three_sound_chunks() -> None:
    image = gnt_files.strokes(3, 40, 30)
    (_, header), (_, rows), (_, end) = chunks = list(png_chunks(encode_png(image)))
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert header == struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0)
    assert zlib.decompress(rows) == b"".join(b"\0" + row.tobytes() for row in image)
    assert end == b""


def png_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of each chunk, as the PNG standard has them."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    offset = 8
    while offset < len(png):
        length, kind = struct.unpack_from(">I4s", png, offset)
        data = png[offset + 8 : offset + 8 + length]
        assert struct.unpack_from(">I", png, offset + 8 + length) == (zlib.crc32(kind + data),)
        yield kind, data
        offset += 12 + length


def test_the_spec_names_every_feature_in_the_order_of_their_bytes() -> None:
    names = [feature.name for feature in FEATURES]
    assert names == sorted(names) == sorted(tensorflow_example(b"", 0, b"x").features.feature)
