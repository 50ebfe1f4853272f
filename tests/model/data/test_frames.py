"""model/frames.py beside TensorFlow's own writer and parser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.data.frames import FrameReader, Stretch
from schemas.dataset import DatasetError

SIZE = 20


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("stretch", [(0, 300), (0, 1), (37, 200), (299, 1)])
def test_what_tensorflow_wrote_is_what_is_read(tmp_path: Path, encoding: str, stretch: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (300, SIZE, SIZE, 1), np.uint8)
    labels = [0, 1, 127, 128, 3_753, 16_383, 16_384, 2**31 - 1, *range(8, 300)]
    shard = tmp_path / "shard"
    write(shard, [example(encoded(image, encoding), label) for image, label in zip(images, labels, strict=True)])
    first, count = stretch
    found_images, found_labels = np.empty((count, SIZE, SIZE, 1), np.uint8), np.empty(count, np.int32)
    FrameReader(SIZE, encoding).read(Stretch(shard, 300, first, count), found_images, found_labels)
    np.testing.assert_array_equal(found_images, images[first : first + count])
    np.testing.assert_array_equal(found_labels, labels[first : first + count])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"", "holds records that aren't Examples of this format"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\x01", "holds records that aren't Examples of this format"),
        (b"\x0a\x7f\x0a\x7f\x0a\x05image\x12\x7f\x0a\x7f\x0a\xff\xff\xff\x7f", "aren't Examples of this format"),
    ],
)
def test_a_record_with_a_good_checksum_that_is_no_example(tmp_path: Path, record: bytes, says: str) -> None:
    write(tmp_path / "shard", [record])
    with pytest.raises(DatasetError, match=says):
        read_one(tmp_path / "shard", "raw")


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_an_image_of_another_size(tmp_path: Path, encoding: str) -> None:
    image = np.zeros((SIZE, SIZE + 1, 1), np.uint8)
    write(tmp_path / "shard", [example(encoded(image, encoding), 3)])
    with pytest.raises(DatasetError, match="holds images that aren't the card's 20 × 20 pixels"):
        read_one(tmp_path / "shard", encoding)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_one_image_by_its_place(tmp_path: Path, encoding: str) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, SIZE, SIZE, 1), np.uint8)
    records = [example(encoded(image, encoding), label) for label, image in enumerate(images)]
    shard = tmp_path / "shard"
    write(shard, records)
    reader = FrameReader(SIZE, encoding)
    offset = 0
    for index, record in enumerate(records):
        found = reader.image(shard, index, offset, len(record) + 16)
        np.testing.assert_array_equal(found, images[index, :, :, 0])
        offset += len(record) + 16
    with pytest.raises(DatasetError, match=r"record 4 at byte [\d,]+ ends beyond the file"):
        reader.image(shard, 4, offset - 20, 24)
    with pytest.raises(DatasetError, match="record 1 at byte 3 isn't what its checksum says"):
        reader.image(shard, 1, 3, len(records[0]) + 16)


def read_one(shard: Path, encoding: str) -> None:
    images, labels = np.empty((1, SIZE, SIZE, 1), np.uint8), np.empty(1, np.int32)
    FrameReader(SIZE, encoding).read(Stretch(shard, 1, 0, 1), images, labels)


def encoded(image: np.ndarray, encoding: str) -> bytes:
    return image.tobytes() if encoding == "raw" else tf.io.encode_png(image).numpy()


def example(image: bytes, label: int) -> bytes:
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "sample_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"train/1001-c.gnt/7"])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def write(path: Path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
