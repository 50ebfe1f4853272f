"""Other tools read a data set with no code of ours: each here with the real library, against the manifest."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import gnt_files
import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch_stand_in
from places import ROOT

from pipeline.convert import main as convert_main
from pipeline.inspect import main as inspect_main

Rows = list[dict[str, Any]]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/reading.md").read_text(), re.DOTALL | re.MULTILINE)
CASIAS = (
    "https://nlpr.ia.ac.cn/databases/handwriting/home.html",
    "CASIA's terms: for academic use, on application",
)
"""Where CASIA-HWDB is to be had, and on what terms."""


@pytest.fixture(scope="module", params=["raw", "png"])
def dataset(request: pytest.FixtureRequest, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"readers-{request.param}") / "set"
    flags = [f"--image_encoding={request.param}", "--num_shards=train=2", "--runner=DirectRunner", "--origin=casia"]
    assert (
        convert_main([f"--input=train={archives}/train", f"--input=test={archives}/test", f"--output={folder}", *flags])
        == 0
    )
    return folder


@pytest.fixture
def kept(dataset: Path) -> Rows:
    """The kept rows, in the order of the shards, read part by part and not as the code under test does."""
    parts = sorted((dataset / "manifest").glob("*.parquet"))
    rows = [row for part in parts for row in pq.ParquetFile(part).read().to_pylist() if row["status"] == "kept"]
    return sorted(rows, key=lambda row: (row["shard"], row["shard_index"]))


def is_raw(dataset: Path) -> bool:
    return json.loads((dataset / "dataset.json").read_text())["config"]["image_encoding"] == "raw"


def test_tfds_reads_splits_labels_and_class_names(dataset: Path, kept: Rows) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(dataset))
    expected = Counter(row["split"] for row in kept)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == expected
    assert builder.info.splits["train"].num_shards == 2
    assert "ICDAR" in builder.info.citation
    assert (builder.info.homepage, builder.info.redistribution_info.license) == CASIAS
    names = builder.info.features["label"]
    in_order = tfds.ReadConfig(interleave_cycle_length=1)  # shard by shard, or several at once
    assert names.num_classes == 3754
    for split in expected:
        own = [row for row in kept if row["split"] == split]
        pairs = list(tfds.as_numpy(builder.as_dataset(split=split, as_supervised=True, read_config=in_order)))
        assert [int(label) for _, label in pairs] == [row["label"] for row in own]
        assert [names.int2str(int(label)) for _, label in pairs] == [row["char"] for row in own]
        assert {(image.shape, image.dtype.name) for image, _ in pairs} == {((64, 64, 1), "uint8")}
        assert all(
            np.array_equal(image[:, :, 0], _image(dataset, row)) for (image, _), row in zip(pairs, own, strict=True)
        )
        ids = [
            example["sample_id"].decode()
            for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=in_order))
        ]
        assert ids == [row["sample_id"] for row in own]


def test_duckdb_pandas_and_polars_agree_on_the_manifest(dataset: Path, archives: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    written = Counter(
        (path.parent.name, gnt.decode("gbk").rstrip("\0"))
        for path in archives.rglob("*.gnt")
        for _, gnt, _ in gnt_files.parse(path.read_bytes())
    )
    query = f"SELECT split, char, count(*) FROM '{dataset}/manifest/*.parquet' GROUP BY ALL"
    assert {(split, char): n for split, char, n in duckdb.sql(query).fetchall()} == written
    frame = pd.read_parquet(dataset / "manifest")
    assert dict(frame.groupby(["split", "char"]).size()) == written
    counted = pl.read_parquet(f"{dataset}/manifest/*.parquet").group_by("split", "char").len()
    assert {(split, char): n for split, char, n in counted.rows()} == written


def test_hugging_face_datasets_reads_the_manifest(dataset: Path, kept: Rows, tmp_path: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets isn't installed")
    parts = {split: sorted(map(str, (dataset / "manifest").glob(f"{split}-*"))) for split in ("train", "test")}
    read = datasets.load_dataset("parquet", data_files=parts, cache_dir=str(tmp_path))
    labels = [row["label"] for split in ("test", "train") for row in read[split] if row["status"] == "kept"]
    assert Counter(labels) == Counter(row["label"] for row in kept)


def test_a_record_is_read_with_open_and_seek(dataset: Path, kept: Rows) -> None:
    row = kept[len(kept) // 2]
    with open(dataset / row["shard"], "rb") as shard:
        shard.seek(row["shard_offset"])
        frame = shard.read(row["shard_bytes"])
    (length,) = struct.unpack("<Q", frame[:8])
    assert length == len(frame) - 16
    assert google_crc32c.value(frame[12:-4]) == row["shard_crc32c"]
    assert row["sample_id"].encode() in frame


def test_the_index_is_what_dalis_tool_writes(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = sorted(dataset.glob("*.tfrecord"))
    try:
        assert inspect_main([str(dataset), "--index"]) == 0
        printed = capsys.readouterr().out.split()
        assert (
            sorted(printed) == sorted(map(str, dataset.glob("*.idx"))) == [str(s.with_suffix(".idx")) for s in shards]
        )
        for shard in shards:
            assert shard.with_suffix(".idx").read_text() == _tfrecord2idx(shard)
    finally:
        for path in dataset.glob("*.idx"):
            path.unlink()


def test_the_guides_pytorch_loader(dataset: Path, kept: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real PyTorch where it is installed, else by a stand-in that keeps what its DataLoader promises."""
    (code,) = [one for one in SNIPPETS if "reader.torch" in one]
    assert len(code.splitlines()) <= 6
    if importlib.util.find_spec("torch") is None:
        torch_stand_in.install(monkeypatch)
        code = code.replace("num_workers=2", "num_workers=0")
    names: dict[str, Any] = {}
    exec(code.replace("data/sample-shards", str(dataset)), names)
    own = sorted((row["label"], _image(dataset, row).tobytes()) for row in kept if row["split"] == "train")
    seen = [pair for images, labels in names["loader"] for pair in zip(images, labels, strict=True)]
    assert sorted((int(label), np.asarray(image).tobytes()) for image, label in seen) == own


def test_grain_on_the_reader(dataset: Path, kept: Rows) -> None:
    grain = pytest.importorskip("grain", reason="Grain isn't installed")
    (code,) = [one for one in SNIPPETS if "import grain" in one]
    names: dict[str, Any] = {}
    exec(code.replace("data/sample-shards", str(dataset)), names)
    epoch = len(names["order"])
    batches = iter(names["batches"])
    seen = [next(batches) for _ in range(epoch - 1)]
    state = json.loads(json.dumps(batches.get_state()))
    resumed = iter(names["batches"])
    resumed.set_state(state)
    seen.append(next(resumed))
    own = sorted((row["label"], _image(dataset, row).tobytes()) for row in kept if row["split"] == "train")
    pairs = [pair for images, labels in seen for pair in zip(images, labels, strict=True)]
    assert sorted((int(label), image.tobytes()) for image, label in pairs) == own
    shuffled = grain.MapDataset.source(names["train"]).seed(1).shuffle().batch(8)
    pairs = [pair for images, labels in shuffled for pair in zip(images, labels, strict=True)]
    assert sorted((int(label), image.tobytes()) for image, label in pairs) == own


def _image(dataset: Path, row: dict[str, Any]) -> np.ndarray:
    """uint8 [64, 64], by the rule of the format's page for raw images, by the PNG's own beginning for others."""
    frame = (dataset / row["shard"]).read_bytes()[row["shard_offset"] :][: row["shard_bytes"]]
    end = frame.rindex(b"\n\x05label") - 2
    if is_raw(dataset):
        return np.frombuffer(frame, np.uint8, 64 * 64, end - 64 * 64).reshape(64, 64)
    png = np.frombuffer(frame[frame.index(b"\x89PNG") : end], np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_UNCHANGED)


def _tfrecord2idx(shard: Path) -> str:
    """What DALI's tfrecord2idx does: walks the frames and prints where each begins and how long it is."""
    lines = []
    with shard.open("rb") as stream:
        while header := stream.read(8):
            begin = stream.tell() - 8
            (length,) = struct.unpack("<Q", header)
            stream.seek(4 + length + 4, 1)
            lines.append(f"{begin} {stream.tell() - begin}\n")
    return "".join(lines)
