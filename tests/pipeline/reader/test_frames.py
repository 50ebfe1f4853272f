"""pipeline/reader/frames.py beside TensorFlow's own writer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from pipeline.reader.frames import BrokenFrame, read_images

SIZE = 20
LABELS = [0, 1, 127, 128, 3_753, 16_383, 16_384, 2**31 - 1, *range(8, 40)]


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("order", ["as written", "shuffled", "evenly spaced", "one"])
def test_what_tensorflow_wrote_is_what_is_read(tmp_path: Path, encoding: str, order: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (len(LABELS), SIZE, SIZE), np.uint8)
    ids = [f"train/{'x' * (number % 7)}.gnt/{number}" for number in range(len(LABELS))]
    of = [example(encoded(one, encoding), *rest) for one, *rest in zip(images, LABELS, ids, strict=True)]
    octets, begins, ends, crcs = written(tmp_path, of)
    which = np.arange(len(LABELS))
    which = {"as written": which, "shuffled": which[::-7], "evenly spaced": which[8::11], "one": which[3:4]}[order]
    found = np.empty((len(which), SIZE, SIZE), np.uint8)
    read_images(octets, begins[which], ends[which], crcs[which], found, encoding)
    np.testing.assert_array_equal(found, images[which])


@pytest.mark.parametrize(
    "record",
    [
        bytes(80),
        b"\x0a\xff\xff\xff\xff\xff\xff\x01" + bytes(80),
        b"\x0a\x7f\x0a\x7f\x0a\x05image\x12\x7f\x0a\x7f\x0a\xff\xff\xff\x7f" + bytes(80),
        b"",
    ],
)
def test_a_record_with_a_good_checksum_that_is_no_example(tmp_path: Path, record: bytes) -> None:
    with pytest.raises(BrokenFrame, match=r"isn't an Example|too few for an Example"):
        read_one(tmp_path, record, "raw")


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_an_image_of_another_size(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(BrokenFrame, match="holds an image that isn't the card's 20 × 20 pixels"):
        read_one(tmp_path, example(encoded(np.zeros((SIZE, SIZE + 1), np.uint8), encoding), 3), encoding)


@pytest.mark.parametrize("byte", [0, 7, 8, 11, 12, 30, 100, -30, -5, -4, -1])
def test_a_flipped_bit_anywhere_in_a_frame_is_found(tmp_path: Path, byte: int) -> None:
    records = [example(np.full((SIZE, SIZE), n, np.uint8).tobytes(), n) for n in range(5)]
    octets, begins, ends, crcs = written(tmp_path, records)
    octets[(begins if byte >= 0 else ends)[3] + byte] ^= 16
    with pytest.raises(BrokenFrame, match="isn't what its checksum says") as caught:
        read_images(octets, begins, ends, crcs, np.empty((5, SIZE, SIZE), np.uint8), "raw")
    assert caught.value.position == 3


def test_a_whole_frame_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    records = [example(np.full((SIZE, SIZE), n, np.uint8).tobytes(), n) for n in range(5)]
    octets, begins, ends, crcs = written(tmp_path, records)
    octets[begins[3] : ends[3]] = octets[begins[1] : ends[1]]
    with pytest.raises(BrokenFrame) as caught:
        read_images(octets, begins, ends, crcs, np.empty((5, SIZE, SIZE), np.uint8), "raw")
    assert caught.value.position == 3


def read_one(folder: Path, record: bytes, encoding: str) -> None:
    octets, begins, ends, crcs = written(folder, [record])
    read_images(octets, begins, ends, crcs, np.empty((1, SIZE, SIZE), np.uint8), encoding)


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


def written(folder: Path, records: list[bytes]) -> tuple[Any, ...]:
    """uint8 [bytes] of TensorFlow's file, where each frame begins and ends, and the CRC-32C of each record."""
    with tf.io.TFRecordWriter(str(folder / "shard")) as writer:
        for record in records:
            writer.write(record)
    octets = np.frombuffer((folder / "shard").read_bytes(), np.uint8).copy()
    begins = [0]
    while begins[-1] < len(octets):
        begins.append(begins[-1] + 16 + struct.unpack_from("<Q", octets, begins[-1])[0])
    crcs = np.array([google_crc32c.value(record) for record in records], np.uint32)
    return octets, np.array(begins[:-1]), np.array(begins[1:]), crcs
