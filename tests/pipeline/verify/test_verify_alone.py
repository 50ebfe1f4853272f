"""verify without the archives: what the set can say of itself, each digest made anew so that only that is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import converted, inputs, rows_of
from damaged import Edit, edit_rows, findings, first, kept_rows, reseal, set_at

from pipeline import inspect, verify
from pipeline.steps.plain import Unusable, preprocess
from pipeline.steps.settings import PreprocessConfig
from pipeline.verify.example import place_fault
from schemas.dataset import Card


@pytest.fixture(scope="module")
def sampled(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled") / "out"
    return converted(folder, *inputs(sources), "--max_reject_fraction=0.1", "--sample_fraction=0.5")


def with_fraction(fraction: float) -> Callable[[Card], Card]:
    return lambda card: replace(card, config={**card.config, "sample_fraction": fraction})


def test_a_wrong_sample(sampled: Path, tmp_path: Path) -> None:
    assert findings(sampled) == []
    copy = Path(shutil.copytree(sampled, tmp_path / "out"))
    reseal(copy, with_fraction(0.01))
    assert any(
        "expected the reason not_sampled by its hash and the card's sample_fraction" in f for f in findings(copy)
    )
    reseal(copy, with_fraction(1))
    assert any("expected a record that is used by its hash" in line for line in findings(copy))
    reseal(copy, with_fraction(0.5))
    assert findings(copy) == []


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (set_at("reason", "not_sampled", "dropped"), "expected the reason outside_class_set where there is no label"),
        (set_at("reason", "blank", "rejected"), "expected bitmap_digest given"),
        (set_at("reason", "empty_bitmap", "rejected"), "expected another reason than empty_bitmap"),
        (set_at("reason", "oversized", "rejected"), "expected another reason than oversized"),
        (set_at("reason", "truncated", "rejected"), "expected another reason than truncated"),
        (set_at("reason", "larger_than_image", "rejected"), "expected another reason than larger_than_image"),
        (set_at("ink_fraction", 0.123456), "expected an ink_fraction of whole pixels"),
        (set_at("ink_fraction", 0.0), "expected ink in a bitmap that is kept"),
    ],
)
def test_rows_that_contradict_themselves(dataset: Path, edit: Edit, says: str) -> None:
    edit_rows(dataset, edit)
    reseal(dataset)
    found = findings(dataset)
    assert any(says in line for line in found), found


def swap(*names: str) -> Edit:
    def edit(columns: dict[str, list[Any]]) -> None:
        at = first(columns, "kept")
        assert columns[names[0]][at] != columns[names[1]][at]
        a, b = (columns[name][at] for name in names)
        columns[names[0]][at], columns[names[1]][at] = b, a

    return edit


def test_a_crop_that_its_image_contradicts(dataset: Path) -> None:
    row = next(row for row in kept_rows(dataset) if row["crop_width"] != row["crop_height"])

    def narrower(columns: dict[str, list[Any]]) -> None:
        at = columns["sample_id"].index(row["sample_id"])
        wide = columns["crop_width"][at] > columns["crop_height"][at]
        columns["crop_height" if wide else "crop_width"][at] = 2

    edit_rows(dataset, narrower)
    reseal(dataset)
    (line,) = findings(dataset)
    assert f"({row['sample_id']}): expected no ink outside " in line


def test_without_a_crop_the_bitmap_is_all_of_it(sources: Path, tmp_path: Path) -> None:
    folder = converted(tmp_path / "out", *inputs(sources), "--max_reject_fraction=0.1", "--crop=none")
    assert findings(folder) == []
    edit_rows(folder, swap("width", "height"))
    reseal(folder)
    assert any(
        "expected the whole bitmap with --crop=none, found the crop (0, 0, " in line for line in findings(folder)
    )


@pytest.mark.parametrize("changes", [{}, {"crop": "none"}, {"resize": "none", "image_size": 128}, {"binarize": "otsu"}])
def test_no_image_contradicts_its_own_crop(changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    config = PreprocessConfig(**changes)
    made = 0
    for _ in range(400):
        height, width = rng.integers(1, 128, 2)
        bitmap = np.where(rng.random((height, width)) < rng.random() ** 4, rng.integers(0, 240), 255).astype(np.uint8)
        try:
            image, crop = preprocess(bitmap, config)
        except Unusable:
            continue
        made += 1
        assert place_fault(image, (crop.width, crop.height), config) is None
        if config.resize == "none" and min(crop.width, crop.height) > 2:
            assert place_fault(image, (crop.width - 2, crop.height), config) or config.crop == "none"
            assert place_fault(image, (crop.width + 2, crop.height), config) or config.crop == "none"
    assert made > 200


def test_index_files_are_held_against_their_shards(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(dataset), "--index"]) == 0
    assert findings(dataset) == []
    index = sorted(dataset.glob("train-*.idx"))[0]
    lines = index.read_text().splitlines(keepends=True)
    for content, says in {
        "".join([*lines[:3], "1 2\n", *lines[4:]]): f"line 4: expected '{lines[3].strip()}', found '1 2'",
        "".join(lines[:-1]): f"line {len(lines)}: expected '{lines[-1].strip()}', found the end",
        "".join([*lines, "9 9\n"]): f"line {len(lines) + 1}: expected the end, found '9 9'",
        "\0\udcff": "line 1: expected '0 ",
    }.items():
        index.write_text(content, errors="surrogateescape")
        (line,) = findings(dataset)
        assert line.startswith(f"{index.name}: {says}")
        assert "write it again with python -m pipeline.inspect DIR --index" in line
    capsys.readouterr()


def test_what_systems_leave_beside_files_is_no_finding(dataset: Path) -> None:
    (dataset / "__MACOSX").mkdir()
    for name in (".DS_Store", "manifest/._x.parquet", "Thumbs.db", "manifest/desktop.ini", "__MACOSX/x", ".nfs0001"):
        (dataset / name).touch()
    assert findings(dataset) == []
    (dataset / "notes.txt").touch()
    assert [line.partition(":")[0] for line in findings(dataset)] == ["notes.txt"]


def test_it_says_what_only_the_archives_know(dataset: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_rows(dataset, set_at("bitmap_digest", 5))
    reseal(dataset)
    against = [f"train={sources}/train", f"test={sources}/test"]
    assert verify.main([str(dataset)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("  the archives weren't looked at: whether a bitmap_digest, ")
    assert verify.main([str(dataset), "--all", "--against", *against]) == 1
    found = capsys.readouterr().out
    assert "the archives weren't looked at" not in found
    assert any(
        f"the manifest says {row['bitmap_digest']}" in found for row in rows_of(dataset) if row["bitmap_digest"] == 5
    )


def test_lines_about_the_archives_name_the_flag_that_was_typed(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argument, says in {
        "train=/nonexistent": "--against train=/nonexistent: expected a .gnt",
        "trian=x": "--against trian=x: expected one of the splits",
        "test=": "--against test=: expected a path after test=",
    }.items():
        assert verify.main([str(dataset), "--against", argument]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert "--input" not in err
