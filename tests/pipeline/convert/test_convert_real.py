"""The conversion of real handwriting, record by record, against a second implementation and TensorFlow's parser."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import gnt_files
import numpy as np
import plain_steps
import pytest
import tensorflow as tf
from commands import converted, rows_of

FOLDERS = {"train": "20-characters", "test": "one-writer"}
SPEC = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "sample_id": tf.io.FixedLenFeature([], tf.string),
}


@pytest.fixture(scope="module", params=list(plain_steps.PRESETS))
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data_set(real: Path, preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = [f"--input={split}={real / folder}" for split, folder in FOLDERS.items()]
    flags = (f"--preset={preset}", "--num_shards=train=3")
    return converted(tmp_path_factory.mktemp("converted") / "out", *inputs, *flags)


@dataclass(frozen=True)
class Plain:
    """A record as the test itself reads it, and what the plain steps make of it."""

    tag: bytes
    bitmap: np.ndarray
    image: np.ndarray
    box: tuple[int, int, int, int]


@pytest.fixture(scope="module")
def plain(real: Path, preset: str) -> dict[str, dict[str, Plain]]:
    """Split -> sample_id -> the record, dropped ones too."""
    steps = plain_steps.PRESETS[preset]
    return {
        split: {
            f"{split}/{path.name}/{index}": Plain(tag, bitmap, *steps(bitmap))
            for path in sorted((real / folder).glob("*.gnt"))
            for index, (_, tag, bitmap) in enumerate(gnt_files.parse(path.read_bytes()))
        }
        for split, folder in FOLDERS.items()
    }


@pytest.mark.parametrize(("split", "read", "kept", "dropped"), [("train", 5758, 4800, 958), ("test", 1000, 1000, 0)])
def test_counts(data_set: Path, split: str, read: int, kept: int, dropped: int) -> None:
    statuses = [row["status"] for row in rows_of(data_set, split)]
    assert (len(statuses), statuses.count("kept"), statuses.count("dropped")) == (read, kept, dropped)
    counts = json.loads((data_set / "dataset.json").read_text())["splits"][split]["counts"]
    assert counts == {
        "read": read,
        "kept": kept,
        "dropped": {"outside_class_set": dropped} if dropped else {},
        "rejected": {},
    }
    assert {row["char"] for row in rows_of(data_set, split) if row["status"] == "dropped"} <= set("宄宓宕宬")


@pytest.mark.parametrize("split", FOLDERS)
def test_every_example_equals_an_independent_recomputation(
    data_set: Path, plain: dict[str, dict[str, Plain]], split: str
) -> None:
    classes = {name: label for label, name in enumerate((data_set / "classes.txt").read_text().split())}
    expected = {name: record for name, record in plain[split].items() if record.tag.decode("gbk") in classes}
    seen = set()
    shards = sorted(map(str, data_set.glob(f"{split}-*.tfrecord")))
    for serialized in tf.data.TFRecordDataset(shards).batch(500):
        examples = tf.io.parse_example(serialized, SPEC)
        images = tf.io.decode_raw(examples["image"], tf.uint8).numpy().reshape(-1, 64, 64)
        for name, label, image in zip(examples["sample_id"].numpy(), examples["label"].numpy(), images, strict=True):
            record = expected[name.decode()]
            assert label == classes[record.tag.decode("gbk")]
            assert np.array_equal(image, record.image)
            seen.add(name.decode())
    assert seen == expected.keys()


@pytest.mark.parametrize("split", FOLDERS)
def test_every_row_leads_to_the_bytes_it_names(
    data_set: Path, real: Path, plain: dict[str, dict[str, Plain]], split: str
) -> None:
    sources = {path.name: path.read_bytes() for path in (real / FOLDERS[split]).glob("*.gnt")}
    shards = {path.name: path.read_bytes() for path in data_set.glob(f"{split}-*.tfrecord")}
    covered: dict[str, int] = dict.fromkeys(sources, 0)
    for row in rows_of(data_set, split):
        source, record = sources[row["member"]], plain[split][row["sample_id"]]
        begin, size = row["source_offset"], row["source_bytes"]
        [(_, tag, bitmap)] = gnt_files.parse(source[begin : begin + size])
        assert (tag.hex(), tag.decode("gbk")) == (row["tag"], row["char"])
        assert bitmap.shape == (row["height"], row["width"])
        assert (tag, bitmap.tobytes()) == (record.tag, record.bitmap.tobytes())
        assert math.isclose(row["ink_fraction"], np.mean(bitmap < 255), rel_tol=1e-6)
        covered[row["member"]] += size
        if row["status"] != "kept":
            assert row["shard"] is None
            assert row["shard_offset"] is None
            continue
        assert (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"]) == record.box
        frame = shards[row["shard"]][row["shard_offset"] :][: row["shard_bytes"]]
        assert int.from_bytes(frame[:8], "little") == row["shard_bytes"] - 16
        example = tf.train.Example.FromString(frame[12:-4])
        assert example.features.feature["sample_id"].bytes_list.value[0].decode() == row["sample_id"]
        assert example.features.feature["label"].int64_list.value[0] == row["label"]
    assert covered == {name: len(data) for name, data in sources.items()}


def test_shard_index_counts_the_examples(data_set: Path) -> None:
    for shard in data_set.glob("*.tfrecord"):
        split = shard.name.split("-")[0]
        rows = [row for row in rows_of(data_set, split) if row["shard"] == shard.name]
        ids = [row["sample_id"] for row in sorted(rows, key=lambda row: row["shard_index"])]
        examples = [tf.train.Example.FromString(s.numpy()) for s in tf.data.TFRecordDataset(str(shard))]
        assert ids == [e.features.feature["sample_id"].bytes_list.value[0].decode() for e in examples]
        assert [row["shard_index"] for row in rows] == list(range(len(rows)))
