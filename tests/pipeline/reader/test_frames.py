"""pipeline/reader/frames.py beside TensorFlow's own writer."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from pipeline.reader.frames import BrokenFrame, frame_sums, read_images

SIZE = 20
LABELS = [0, 1, 127, 128, 3_753, 16_383, 16_384, 2**31 - 1, *range(8, 40)]


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_what_tensorflow_wrote_is_what_is_read(tmp_path: Path, encoding: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (len(LABELS), SIZE, SIZE), np.uint8)
    ids = [f"train/{'x' * (number % 7)}.gnt/{number}" for number in range(len(LABELS))]
    of = [example(encoded(one, encoding), *rest) for one, *rest in zip(images, LABELS, ids, strict=True)]
    frames, crcs = written(tmp_path, of)
    sums = frame_sums(np.array([len(frame) for frame in frames]), crcs)
    assert sums.tolist() == [google_crc32c.value(frame) for frame in frames]
    found = np.empty_like(images)
    read_images(frames, sums, found, encoding)
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize(
    "record",
    [
        bytes(80),
        b"\x0a\xff\xff\xff\xff\xff\xff\x01" + bytes(80),
        b"\x0a\x7f\x0a\x7f\x0a\x05image\x12\x7f\x0a\x7f\x0a\xff\xff\xff\x7f" + bytes(80),
        b"\x0a\x01\x0a",
        b"",
    ],
)
def test_a_record_with_a_good_checksum_that_is_no_example(tmp_path: Path, record: bytes) -> None:
    with pytest.raises(BrokenFrame, match="isn't an Example"):
        read_one(tmp_path, record, "raw")


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_an_image_of_another_size(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(BrokenFrame, match="holds an image that isn't the card's 20 × 20 pixels"):
        read_one(tmp_path, example(encoded(np.zeros((SIZE, SIZE + 1), np.uint8), encoding), 3), encoding)


@pytest.mark.parametrize("byte", [0, 7, 8, 11, 12, 30, 100, -30, -5, -4, -1])
def test_a_flipped_bit_anywhere_in_a_frame_is_found(tmp_path: Path, byte: int) -> None:
    records = [example(np.full((SIZE, SIZE), n, np.uint8).tobytes(), n) for n in range(5)]
    frames, crcs = written(tmp_path, records)
    broken = bytearray(frames[3])
    broken[byte] ^= 16
    frames[3] = bytes(broken)
    assert position_of_the_broken(frames, crcs) == 3


def test_a_whole_frame_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    frames, crcs = written(tmp_path, [example(np.full((SIZE, SIZE), n, np.uint8).tobytes(), n) for n in range(5)])
    frames[3] = frames[1]
    assert position_of_the_broken(frames, crcs) == 3


def test_a_frame_whose_own_checksums_are_all_good_and_another_record_is_found(tmp_path: Path) -> None:
    frames, crcs = written(tmp_path, [example(bytes([n]) * SIZE**2, n) for n in range(5)])
    crcs[3] ^= 1  # the manifest's
    assert position_of_the_broken(frames, crcs) == 3


def position_of_the_broken(frames: list[bytes], crcs: np.ndarray) -> int:
    lengths = np.array([len(frame) for frame in frames])
    with pytest.raises(BrokenFrame, match="isn't what its checksum says") as caught:
        read_images(frames, frame_sums(lengths, crcs), np.empty((len(frames), SIZE, SIZE), np.uint8), "raw")
    return caught.value.position


def read_one(folder: Path, record: bytes, encoding: str) -> None:
    (frame,), crcs = written(folder, [record])
    read_images([frame], frame_sums(np.array([len(frame)]), crcs), np.empty((1, SIZE, SIZE), np.uint8), encoding)


def encoded(image: np.ndarray, encoding: str) -> bytes:
    return image.tobytes() if encoding == "raw" else tf.io.encode_png(image[..., None]).numpy()


def example(image: bytes, label: int, sample_id: str = "train/1001-c.gnt/7") -> bytes:
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "sample_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[sample_id.encode()])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def written(folder: Path, records: list[bytes]) -> tuple[list[bytes], np.ndarray]:
    """The frames of TensorFlow's file, and the CRC-32C of each record."""
    with tf.io.TFRecordWriter(str(folder / "shard")) as writer:
        for record in records:
            writer.write(record)
    octets, frames = (folder / "shard").read_bytes(), []
    while octets:
        size = 16 + struct.unpack_from("<Q", octets)[0]
        frames.append(octets[:size])
        octets = octets[size:]
    return frames, np.array([google_crc32c.value(record) for record in records], np.uint32)
