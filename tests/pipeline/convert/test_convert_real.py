"""The conversion of real handwriting, record by record, against a second implementation and TensorFlow's parser."""

from __future__ import annotations

import json
from pathlib import Path

import gnt_files
import numpy as np
import plain_steps
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

SPEC = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "sample_id": tf.io.FixedLenFeature([], tf.string),
}


@pytest.fixture(scope="module", params=list(plain_steps.PRESETS))
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def converted(real: Path, preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.convert import main

    folder = tmp_path_factory.mktemp("converted") / "out"
    inputs = [f"--input=train={real / '20-characters'}", f"--input=test={real / 'one-writer'}"]
    flags = (f"--preset={preset}", "--num_shards=train=3")
    assert main(["--runner=DirectRunner", *inputs, f"--output={folder}", *flags]) == 0
    return folder


def rows_of(folder: Path, split: str) -> list[dict[str, object]]:
    parts = sorted((folder / "manifest").glob(f"{split}-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.mark.parametrize(("split", "read", "kept", "dropped"), [("train", 5758, 4800, 958), ("test", 1000, 1000, 0)])
def test_counts(converted: Path, split: str, read: int, kept: int, dropped: int) -> None:
    statuses = [row["status"] for row in rows_of(converted, split)]
    assert (len(statuses), statuses.count("kept"), statuses.count("dropped")) == (read, kept, dropped)
    counts = json.loads((converted / "dataset.json").read_text())["splits"][split]["counts"]
    assert counts == {
        "read": read,
        "kept": kept,
        "dropped": {"outside_class_set": dropped} if dropped else {},
        "rejected": {},
    }
    assert {row["char"] for row in rows_of(converted, split) if row["status"] == "dropped"} <= set("宄宓宕宬")


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_example_equals_an_independent_recomputation(
    converted: Path, real: Path, preset: str, split: str
) -> None:
    classes = (converted / "classes.txt").read_text().split()
    folder = real / {"train": "20-characters", "test": "one-writer"}[split]
    expected = {}
    for path in sorted(folder.glob("*.gnt")):
        for index, (_, tag, bitmap) in enumerate(gnt_files.parse(path.read_bytes())):
            character = tag.decode("gbk")
            if character in classes:
                image, _ = plain_steps.PRESETS[preset](bitmap)
                expected[f"{split}/{path.name}/{index}"] = (classes.index(character), image)
    seen = set()
    shards = sorted(map(str, converted.glob(f"{split}-*.tfrecord")))
    for serialized in tf.data.TFRecordDataset(shards):
        example = tf.io.parse_single_example(serialized, SPEC)
        sample_id = example["sample_id"].numpy().decode()
        label, image = expected[sample_id]
        assert example["label"].numpy() == label
        assert np.array_equal(tf.io.decode_raw(example["image"], tf.uint8).numpy().reshape(64, 64), image)
        seen.add(sample_id)
    assert seen == expected.keys()


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_row_leads_to_the_bytes_it_names(converted: Path, real: Path, preset: str, split: str) -> None:
    folder = real / {"train": "20-characters", "test": "one-writer"}[split]
    sources = {path.name: path.read_bytes() for path in folder.glob("*.gnt")}
    shards = {path.name: path.read_bytes() for path in converted.glob(f"{split}-*.tfrecord")}
    covered: dict[str, int] = dict.fromkeys(sources, 0)
    for row in rows_of(converted, split):
        source = sources[row["member"]]
        begin, size = row["source_offset"], row["source_bytes"]
        [(_, tag, bitmap)] = gnt_files.parse(source[begin : begin + size])
        assert (tag.hex(), tag.decode("gbk")) == (row["tag"], row["char"])
        assert bitmap.shape == (row["height"], row["width"])
        assert row["ink_fraction"] == pytest.approx(np.mean(bitmap < 255), rel=1e-6)
        covered[row["member"]] += size
        if row["status"] != "kept":
            assert row["shard"] is None
            assert row["shard_offset"] is None
            continue
        _, box = plain_steps.PRESETS[preset](bitmap)
        assert (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"]) == box
        frame = shards[row["shard"]][row["shard_offset"] :][: row["shard_bytes"]]
        assert int.from_bytes(frame[:8], "little") == row["shard_bytes"] - 16
        example = tf.train.Example.FromString(frame[12:-4])
        assert example.features.feature["sample_id"].bytes_list.value[0].decode() == row["sample_id"]
        assert example.features.feature["label"].int64_list.value[0] == row["label"]
    assert covered == {name: len(data) for name, data in sources.items()}


def test_shard_index_counts_the_examples(converted: Path) -> None:
    for shard in converted.glob("*.tfrecord"):
        split = shard.name.split("-")[0]
        rows = [row for row in rows_of(converted, split) if row["shard"] == shard.name]
        ids = [row["sample_id"] for row in sorted(rows, key=lambda row: row["shard_index"])]
        examples = [tf.train.Example.FromString(s.numpy()) for s in tf.data.TFRecordDataset(str(shard))]
        assert ids == [e.features.feature["sample_id"].bytes_list.value[0].decode() for e in examples]
        assert [row["shard_index"] for row in rows] == list(range(len(rows)))
