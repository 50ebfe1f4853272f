"""verify --against: the archives, record by record, beside what was made of them."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import gnt_files
import numpy as np
import pytest
from commands import converted, inputs
from damaged import change_picture, edit_rows, first, reseal

from pipeline import verify
from schemas.dataset import read_card
from schemas.example import FORMAT_VERSION


def against(folder: Path, sources: Path, *flags: str) -> list[str]:
    return [str(folder), "--against", f"train={sources}/train", f"test={sources}/test", *flags]


def test_the_archives_agree(intact: Path, intact_png: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (intact, intact_png):
        for flags, made in (([], 63), (["--sample=5"], 15), (["--all"], 63)):
            assert verify.main(against(folder, sources, *flags)) == 0
            assert f"{made} records made again from the archives" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "libraries", "advice"),
    [
        (FORMAT_VERSION, {"numpy": "0.9"}, "install the card's numpy 0.9 and verify again, then convert again"),
        (FORMAT_VERSION, {"abacus": "1.0"}, "convert again"),  # unknown here: nothing is made by it
        ("1.9.0", {"abacus": "1.0"}, "install the card's release (format 1.9.0) and verify again, then convert again"),
    ],
)
def test_the_advice_names_what_may_make_other_bytes(
    dataset: Path,
    sources: Path,
    version: str,
    libraries: dict[str, str],
    advice: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_picture(dataset)
    reseal(dataset, lambda card: replace(card, format_version=version, libraries={**card.libraries, **libraries}))
    assert verify.main(against(dataset, sources, "--all")) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the archive gives" in line]
    assert line.endswith(f" in the shard; {advice}")


def test_packed_archives_agree_too(sources: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "in" / split).mkdir(parents=True)
        members = {path.name: path.read_bytes() for path in sorted((sources / split).iterdir())}
        method = zipfile.ZIP_DEFLATED if split == "train" else zipfile.ZIP_STORED
        gnt_files.write_zip(tmp_path / "in" / split / "a.zip", members, method)
    folder = converted(tmp_path / "out", *inputs(tmp_path / "in"), "--max_reject_fraction=0.1")
    for flags in (["--all"], ["--sample=3", "--seed=4"]):
        assert verify.main(against(folder, tmp_path / "in", *flags)) == 0


def test_a_writer_that_moved_to_validation_is_found_in_train(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for writer in range(1001, 1009):
        data = gnt_files.member(gnt_files.records_of("啊阿", seed=writer))
        (tmp_path / "train" / f"{writer}-c.gnt").write_bytes(data)
    folder = converted(tmp_path / "out", f"--input={tmp_path}/train", "--validation_fraction=0.6")
    assert "validation" in read_card(folder).splits
    assert verify.main([str(folder), "--against", str(tmp_path / "train"), "--all"]) == 0


def test_batches_and_slices_make_no_difference(
    intact: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.verify.sources.BATCH_ROWS", 10)
    monkeypatch.setattr("pipeline.verify.sources.SLICE_ROWS", 4)
    monkeypatch.setattr("pipeline.verify.sources.SMALL_ROWS", 0)
    assert verify.main(against(intact, sources, "--all", "--processes=2")) == 0
    assert "63 records made again" in capsys.readouterr().out


def test_another_archive_disagrees(
    intact: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(sources, tmp_path / "in"))
    member = copy / "train" / "1001-c.gnt"
    data = bytearray(member.read_bytes())
    offset, _, bitmap = gnt_files.parse(bytes(data))[4]
    data[offset + 10 + int(np.argmin(bitmap))] ^= 0x80
    member.write_bytes(data)
    assert verify.main(against(intact, copy, "--all")) == 1
    out = capsys.readouterr().out
    assert f"1001-c.gnt of 1001-c.gnt: record 4 at byte {offset:,}: the archive gives bitmap_digest" in out
    assert "record 5" not in out


def test_another_picture_in_the_shard_disagrees(
    dataset: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_picture(dataset)
    reseal(dataset)
    assert verify.main([str(dataset)]) == 0
    assert verify.main(against(dataset, sources, "--all")) == 1
    assert (
        "the archive gives another Example than train-00000-of-00002.tfrecord holds: byte " in capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["label", "width", "tag", "ink_fraction", "crop_x", "bitmap_digest"])
def test_a_row_that_the_archive_contradicts(
    dataset: Path, sources: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(columns: dict[str, list[object]]) -> None:
        at = first(columns, "kept")
        value = columns[name][at]
        columns[name][at] = "b0a2" if isinstance(value, str) else value / 2 if name == "ink_fraction" else value ^ 1

    edit_rows(dataset, edit)
    reseal(dataset)
    assert verify.main(against(dataset, sources, "--all")) == 1
    assert f"the archive gives {name} " in capsys.readouterr().out


def test_members_that_are_missing_or_unknown(
    intact: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(sources, tmp_path / "in"))
    os.rename(copy / "train" / "1001-c.gnt", copy / "train" / "1003-c.gnt")
    (copy / "test" / "1241-c.gnt").write_bytes(b"short")
    assert verify.main(against(intact, copy)) == 1
    out = capsys.readouterr().out
    assert "1001-c.gnt of 1001-c.gnt: expected it under --against train=…, found no such member" in out
    assert "1003-c.gnt of 1003-c.gnt: expected every member of --against train=… in the data set" in out
    assert "bytes, as the card says, found 5 in " in out
