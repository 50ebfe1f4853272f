"""The sample command: well-formed archives, the same bytes every time, and one line for what it can't do."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from places import ROOT

from pipeline import sample
from pipeline.sample import files as sample_files
from pipeline.sample import glyphs
from pipeline.sample.files import SampleConfig
from pipeline.sample.strokes import Source
from schemas.classes import default_classes, tag_of

Bitmap = NDArray[np.uint8]
SMALL = ["--writers", "3", "--characters", "8"]


def parse(gnt: bytes) -> list[tuple[bytes, Bitmap]]:
    """Every record of a .gnt file; a second implementation, on purpose."""
    records = []
    while gnt:
        size, tag, width, height = struct.unpack("<I2sHH", gnt[:10])
        assert size == 10 + width * height
        assert len(gnt) >= size
        records.append((tag, np.frombuffer(gnt[10:size], np.uint8).reshape(height, width)))
        gnt = gnt[size:]
    return records


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "loose"
    assert sample.main(["--output", str(folder), *SMALL, "--processes", "1"]) == 0
    return folder


def test_files_are_named_as_casia_names_them(loose: Path) -> None:
    assert sorted(files_below(loose)) == ["test/1241-c.gnt", "train/1001-c.gnt", "train/1002-c.gnt"]


def test_two_processes_write_the_bytes_that_one_writes(loose: Path, tmp_path: Path) -> None:
    assert sample.main(["--output", str(tmp_path / "again"), *SMALL, "--processes", "2"]) == 0
    assert files_below(tmp_path / "again") == files_below(loose)


def test_another_seed_writes_other_bytes(loose: Path, tmp_path: Path) -> None:
    assert sample.main(["--output", str(tmp_path / "other"), *SMALL, "--seed", "8", "--processes", "1"]) == 0
    ours, others = files_below(loose), files_below(tmp_path / "other")
    assert ours.keys() == others.keys()
    assert all(ours[name] != others[name] for name in ours)


def test_zip_archives_hold_the_loose_files(loose: Path, tmp_path: Path) -> None:
    for name in ("once", "twice"):
        assert sample.main(["--output", str(tmp_path / name), *SMALL, "--zip", "--processes", "1"]) == 0
    once = files_below(tmp_path / "once")
    assert sorted(once) == ["test.zip", "train.zip"]
    assert once == files_below(tmp_path / "twice")
    members: dict[str, bytes] = {}
    for split in ("train", "test"):
        with zipfile.ZipFile(tmp_path / "once" / f"{split}.zip") as archive:
            assert archive.testzip() is None
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
            # The clock has no part in the bytes.
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            members |= {f"{split}/{name}": archive.read(name) for name in archive.namelist()}
    assert members == files_below(loose)


def test_records_are_well_formed_and_in_code_order(loose: Path) -> None:
    for gnt in files_below(loose).values():
        records = parse(gnt)
        tags = [tag for tag, _ in records]
        assert tags == sorted(set(tags))
        assert len(tags) == 8 + len(sample_files.SYMBOLS)
        for _, bitmap in records:
            ink = bitmap < 255
            # Cropped to the ink: every edge has some.
            assert ink[0].any()
            assert ink[-1].any()
            assert ink[:, 0].any()
            assert ink[:, -1].any()
            assert ink.mean() < 0.9
            assert max(bitmap.shape) <= 150


def test_the_old_variant_and_symbols_are_there_for_the_class_list_to_drop(loose: Path) -> None:
    tags = {tag for tag, _ in parse((loose / "train" / "1001-c.gnt").read_bytes())}
    assert {"硷".encode("gb2312"), b"A\0", b"7\0", "，".encode("gb2312"), "。".encode("gb2312")} <= tags
    outside = {tag for tag in tags if default_classes().labels_by_tag_code[int.from_bytes(tag, "big")] < 0}
    assert len(tags) - len(outside) == 7


def test_a_larger_choice_of_characters_contains_the_smaller_ones() -> None:
    choices = [sample_files.choose_characters(count) for count in (1, 20, 21, 1000, 3755)]
    for smaller, larger in pairwise(choices):
        assert set(smaller) < set(larger)
    assert set(choices[0]) == {"硷", *sample_files.SYMBOLS}
    assert set(choices[-1]) == {"硷", *sample_files.SYMBOLS, *default_classes().characters}
    # Twenty from all over the list, not from its beginning.
    labels = [default_classes().characters.index(c) for c in choices[1] if c in default_classes().characters]
    assert min(labels) < 800
    assert max(labels) > 2900


@pytest.mark.parametrize(
    ("count", "train", "test"), [(1, 1, 0), (2, 1, 1), (12, 10, 2), (299, 240, 59), (300, 240, 60)]
)
def test_a_fifth_of_the_writers_is_for_testing(count: int, train: int, test: int) -> None:
    splits = sample_files.writers_of(count)
    assert splits["train"] == list(range(1001, 1001 + train))
    assert splits.get("test", []) == list(range(1241, 1241 + test))


def test_a_writer_writes_the_same_whoever_else_writes_whatever(loose: Path, tmp_path: Path) -> None:
    characters = sample_files.choose_characters(3)
    sample_files.write_writer(tmp_path / "1002-c.gnt", 7, 1002, characters, [Source(glyphs.font_path())])
    alone = parse((tmp_path / "1002-c.gnt").read_bytes())
    among_others = dict(parse((loose / "train" / "1002-c.gnt").read_bytes()))
    assert [tag for tag, _ in alone] == [tag_of(c) for c in characters]
    assert all(np.array_equal(bitmap, among_others[tag]) for tag, bitmap in alone)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--writers", "0"], "--writers: expected 1 to 300, found 0"),
        (["--writers", "301"], "--writers: expected 1 to 300, found 301"),
        (["--characters", "0"], "--characters: expected 1 to 3,755, found 0"),
        (["--characters", "3756"], "--characters: expected 1 to 3,755, found 3,756"),
        (["--seed", "-1"], "--seed: expected 0 to"),
        (["--processes", "0"], "--processes: expected 1 to 1,024, found 0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main(["--output", str(tmp_path / "new"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert sample.main(["--output", str(tmp_path), *SMALL]) == 2
    error = capsys.readouterr().err
    assert "expected a new or empty folder, found one that holds 1 entries" in error
    assert error.count("\n") == 1
    assert files_below(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_the_way_is_refused(below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert sample.main(["--output", str(tmp_path / "file" / below), *SMALL]) == 2
    error = capsys.readouterr().err
    assert "expected a folder, found a file" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("zipped", [[], ["--zip"]])
def test_a_full_disk_is_told_in_one_line_and_leaves_no_half_files(
    zipped: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_files, "gnt_record", fail)
    assert sample.main(["--output", str(tmp_path / "full"), *SMALL, *zipped, "--processes", "1"]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("package", ["zhplot", "PIL"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    glyphs.load_font.cache_clear()
    monkeypatch.setattr(glyphs, "FONT_PACKAGE", "no_such_package" if package == "zhplot" else glyphs.FONT_PACKAGE)
    if package == "PIL":
        monkeypatch.setitem(sys.modules, "PIL", None)
    try:
        assert sample.main(["--output", str(tmp_path / "new"), *SMALL]) == 2
    finally:
        glyphs.load_font.cache_clear()
    error = capsys.readouterr().err
    assert "pip install '.[sample]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--font", "expected a font (TrueType, OpenType or WOFF), found"),
        ("--strokes", "expected a folder of CHARACTER.json files, found none"),
    ],
)
def test_a_source_that_is_none_is_told_before_there_is_a_folder(
    flag: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("neither")
    assert sample.main(["--output", str(tmp_path / "new"), *SMALL, flag, str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_two_thirds_of_the_writers_learn_the_strokes_that_are_given(tmp_path: Path) -> None:
    config = SampleConfig(tmp_path / "new", strokes=tmp_path, font=[tmp_path / "a", tmp_path / "b"])
    assert [source.path.name for source in sample_files.sources_of(config)] == [tmp_path.name] * 2 + ["a", "b"]
    assert [source.path for source in sample_files.sources_of(SampleConfig(tmp_path / "new"))] == [glyphs.font_path()]


def test_an_option_that_is_no_number_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--output", "x", "--writers", "many"]) == 2
    error = capsys.readouterr().err
    assert "--writers" in error
    assert "many" in error
    assert error.count("\n") == 1


def test_the_summary_ends_with_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "my sample"
    assert sample.main(["--output", str(output), "--writers", "2", "--characters", "2", "--processes", "1"]) == 0
    size = sum(len(data) for data in files_below(output).values())
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{output}: 2 files, {2 * (2 + len(sample_files.SYMBOLS))} records, {size:,} bytes in ")
    assert out[1] == (
        f"next: python -m pipeline.convert --runner=DirectRunner --input 'train={output}/train' "
        f"--input 'test={output}/test' --output '{output}-shards'"
    )


def test_neither_matplotlib_nor_tensorflow_is_imported() -> None:
    code = (
        "import sys; from pipeline import sample; from pipeline.sample.glyphs import centre_lines, font_path; "
        "centre_lines(font_path(), '我'); "
        "print([m for m in ('matplotlib', 'tensorflow', 'zhplot', 'apache_beam') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
