"""An export is read by the real libraries, each against the shards: every image, in order, with its names."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import converted
from exports import exported, kept, pixels

from pipeline import open_dataset

TERMS = ("academic", "ICDAR", "Pattern Recognition", "https://nlpr.ia.ac.cn/databases/handwriting/home.html")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize("how", ["raw", "png"])
@pytest.mark.usefixtures("offline")
def test_load_dataset(how: str, shards: dict[str, Path], exports: dict[str, Path], tmp_path: Path) -> None:
    from datasets import ClassLabel, Image, load_dataset

    data = load_dataset(str(exports[how]), cache_dir=str(tmp_path))
    assert set(data) == {"train", "test"}
    for split, read in data.items():
        assert list(read.features) == ["image", "label", "writer", "sample_id"]
        assert isinstance(read.features["image"], Image)
        assert isinstance(read.features["label"], ClassLabel)
        assert tuple(read.features["label"].names) == open_dataset(shards[how]).classes.characters
        rows = kept(shards[how], str(split))
        assert len(read) == len(rows) > 30
        for found, row in zip(read, rows, strict=True):
            assert found["image"].mode == "L"
            assert np.array_equal(np.asarray(found["image"]), pixels(shards[how], row))
            assert read.features["label"].int2str(found["label"]) == row["char"]
            assert [found[name] for name in ("label", "writer", "sample_id")] == [
                row[name] for name in ("label", "writer", "sample_id")
            ]


@pytest.mark.usefixtures("offline")
def test_mlcroissant(shards: dict[str, Path], exports: dict[str, Path]) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant isn't installed; it comes with the dev extra")
    data = mlcroissant.Dataset(str(exports["raw"] / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    assert [str(warning) for warning in data.metadata.ctx.issues.warnings if "datePublished" not in str(warning)] == []
    assert data.metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    said = data.metadata
    assert all(term in f"{said.license} {said.cite_as} {said.url}" for term in TERMS)
    assert said.data_collection
    assert said.data_limitations
    assert said.data_biases
    assert said.personal_sensitive_information
    for split in ("train", "test"):
        rows = {str(row["sample_id"]): row for row in kept(shards["raw"], split)}
        records = list(data.records("samples", filters={"samples/split": split}))
        assert len(records) == len(rows)
        for record in records:
            row = rows.pop(record["samples/sample_id"].decode())
            assert record["samples/split"].decode() == split
            assert (record["samples/label"], record["samples/writer"].decode()) == (row["label"], row["writer"])
            assert np.array_equal(np.asarray(record["samples/image"]), pixels(shards["raw"], row))
    names = [record["classes/name"] for record in data.records("classes")]
    assert tuple(names) == open_dataset(shards["raw"]).classes.characters


def test_the_hubs_own_reader_of_cards(exports: dict[str, Path]) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(exports["raw"] / "README.md")
    assert (card.data.license, card.data["license_name"]) == ("other", "casia-hwdb")
    assert card.data.task_categories == ["image-classification"]
    assert all(term in card.text for term in TERMS)
    for figures in ("| train | 114 | 38 | 3 | 2 |", "| test | 38 | 38 | 1 | 30 |", "| train | outside_class_set | 6 |"):
        assert figures in card.text


def test_it_is_no_larger_than_png_shards(real: Path, tmp_path: Path) -> None:
    folder = converted(tmp_path / "set", f"--input={real}/one-writer", "--image_encoding=png")
    output = exported(folder, tmp_path / "out")
    size = sum(path.stat().st_size for path in output.glob("data/*"))
    assert size <= 1.05 * sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
    data = pq.ParquetFile(next(output.glob("data/*"))).metadata
    images = data.row_group(0).column(0)
    assert (images.path_in_schema, images.compression, images.is_stats_set) == ("image.bytes", "UNCOMPRESSED", False)
    assert images.has_offset_index
    assert data.row_group(0).num_rows == min(1024, data.num_rows)
