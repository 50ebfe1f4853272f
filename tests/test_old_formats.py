"""Data sets that the builds of earlier formats wrote, as files in tests/data, read by the code of today."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gnt_files
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import rows_of
from damaged import change_picture, reseal
from places import ROOT
from plain_steps import article, best

from pipeline import inspect, verify
from schemas.manifest import MANIFEST_SCHEMA

DATA = ROOT / "tests" / "data"
ARCHIVES = DATA / "archives"
SETS = [f"format-{version}/{name}" for version in ("1.0.0", "1.1.0", "1.2.0") for name in ("raw", "png")]
CHARACTERS = "啊阿埃挨哎唉哀皑"
BROKEN = ("1002-c.gnt", 4911)
"""Member and first byte of the record whose header disagrees with itself."""
Steps = Callable[[np.ndarray, int], tuple[np.ndarray, tuple[int, int, int, int]]]


@pytest.fixture(params=SETS)
def old(request: pytest.FixtureRequest) -> Path:
    return DATA / request.param


@pytest.fixture
def raw_1_0(tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(DATA / "format-1.0.0/raw", tmp_path / "out"))


def splits_of(folder: Path) -> list[str]:
    return ["train", "test"] if folder.name == "raw" else ["train"]


def against(folder: Path, splits: list[str]) -> list[str]:
    return [str(folder), "--against", *(f"{split}={ARCHIVES / split}" for split in splits), "--all"]


def test_it_is_intact(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(old)]) == 0
    out, err = capsys.readouterr()
    records = 12 * (3 if old.name == "raw" else 2)
    assert out.startswith(f"{old}: intact; {records} records in {len(splits_of(old))} shards")
    assert err == ""


@pytest.mark.parametrize("name", [name for name in SETS if name != "format-1.0.0/png"])
def test_its_archives_still_give_every_byte_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / name
    assert verify.main(against(folder, splits_of(folder))) == 0
    records = 12 * (3 if folder.name == "raw" else 2)
    assert f"intact; {records} records in {len(splits_of(folder))} shards" in (out := capsys.readouterr().out)
    assert f"{records} records made again from the archives" in out


def test_a_png_set_of_format_1_0_needs_its_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(against(DATA / "format-1.0.0/png", ["train"])) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    advice = "install the card's release (format 1.0.0) and verify again, then convert again"
    assert len(lines) == 15
    assert all(line.endswith(advice) and "the archive gives another Example" in line for line in lines)
    assert "15 findings" in last


def test_a_raw_set_of_format_1_0_does_not(raw_1_0: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_picture(raw_1_0)
    reseal(raw_1_0)
    assert verify.main([str(raw_1_0)]) == 0
    capsys.readouterr()
    assert verify.main(against(raw_1_0, ["train", "test"])) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the archive gives" in line]
    assert line.endswith(" in the shard; convert again")


def test_inspect_sums_it_up(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(old)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    version, encoding = old.parent.name.removeprefix("format-"), old.name
    assert out.startswith(f"{old}: format {version}, images 16 × 16 {encoding}, 8 classes\n")
    table = {line.rsplit(maxsplit=len(splits_of(old)))[0].strip(): line.split() for line in out.splitlines()[1:13]}
    of_train = {"records read": "24", "kept": "15", "outside_class_set": "8", "header_mismatch": "1", "writers": "2"}
    of_test = {"records read": "12", "kept": "8", "outside_class_set": "4", "header_mismatch": "0", "writers": "1"}
    for name, value in of_train.items():
        assert table[name][-len(splits_of(old)) :] == ([value, of_test[name]] if old.name == "raw" else [value])
    assert inspect.main([str(old), "--sql", "SELECT DISTINCT char FROM manifest WHERE status = 'dropped'"]) == 0
    assert {"癌", "蔼", "硷", "A"} <= set(capsys.readouterr().out.split())


def test_its_manifest_has_the_columns_of_now(old: Path) -> None:
    for part in sorted((old / "manifest").glob("*.parquet")):
        schema = pq.read_schema(part)
        assert schema.names == MANIFEST_SCHEMA.names[: len(schema.names)]  # a later format may add some at the end
        assert {"sample_id", "status", "label", "source_offset", "crop_height", "shard_crc32c"} <= set(schema.names)
        assert all(schema.field(name).type == MANIFEST_SCHEMA.field(name).type for name in schema.names)
    rows = rows_of(old)
    broken = [row for row in rows if row["status"] == "rejected"]
    assert [(row["member"], row["source_offset"], row["reason"]) for row in broken] == [(*BROKEN, "header_mismatch")]
    assert Counter(row["char"] for row in rows)["硷"] == len({row["member"] for row in rows})


def test_its_card_fits_the_schema_of_cards(old: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema isn't installed; it comes with the dev extra")
    schema = json.loads((ROOT / "schemas" / "card.schema.json").read_text())
    jsonschema.validate(json.loads((old / "dataset.json").read_text()), schema)


@pytest.mark.parametrize("mode", ["memory", "stream"])
def test_the_trainer_gets_what_the_archives_hold(old: Path, mode: str) -> None:
    from model.data.batches import training_source
    from model.data.examples import load_split
    from pipeline import open_dataset

    data = open_dataset(old)
    assert "".join(data.classes.characters) == CHARACTERS
    for split in splits_of(old):
        drawn = _drawn(split, article if old.name == "raw" else best)
        images, labels = load_split(data.records(split))
        assert Counter(_pairs(images, labels)) == drawn
        source = training_source(data.records(split), mode=mode, global_batch=sum(drawn.values()), seed=3)
        (((images, labels),),) = source.batches(0, 1)
        assert Counter(_pairs(images.numpy(), labels.numpy())) == drawn


def _drawn(split: str, steps: Steps) -> Counter[tuple[bytes, int]]:
    """(image, label) of each record of the archives that is whole and in the class list, made the plain way."""
    labels = {gnt_files.tag(character): label for label, character in enumerate(CHARACTERS)}
    found: Counter[tuple[bytes, int]] = Counter()
    for path in (ARCHIVES / split).glob("*.gnt"):
        data = bytearray(path.read_bytes())
        if path.name == BROKEN[0]:
            data[BROKEN[1]] ^= 1  # as it was before it was damaged
        for offset, tag, bitmap in gnt_files.parse(bytes(data)):
            if tag in labels and (path.name, offset) != BROKEN:
                found[steps(bitmap, 16)[0].tobytes(), labels[tag]] += 1
    return found


def _pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
