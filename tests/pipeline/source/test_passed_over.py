"""What lies beside GNT: named in a line and on the card, a refusal where there is nothing else."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import gnt_files
import pytest
from commands import Run, assert_refused

from pipeline import inspect, verify
from pipeline.source.archives import Input, Listing, list_inputs
from schemas.dataset import MOST_PASSED, PassedFile, read_card

MEMBER = gnt_files.member(gnt_files.records_of("啊阿埃挨哎"))
RAR, SEVEN = b"Rar!\x1a\x07\0" + bytes(500), b"7z\xbc\xaf\x27\x1c" + bytes(500)
DOWNLOADS = {
    "HWDB1.1trn_gnt_P2.rar": (RAR, "a RAR archive"),
    "HWDB1.1trn_gnt_P3.7z": (SEVEN, "a 7z archive"),
    "1002-c.gnt.gz": (gzip.compress(MEMBER), "a gzip archive"),
    "1003-c.gnt.part": (MEMBER, "an unfinished download"),
    "a.gntx": (MEMBER, "GNT under another name"),
    "1004-c.gnt ": (MEMBER, "GNT under another name"),
    "1005-c.gnt.txt": (MEMBER, "GNT under another name"),
}
HARMLESS = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "readme.txt": b"hello",
    "paper.pdf": b"%PDF-1.7",
    "._1001-c.gnt": b"\0\5\26\7",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of downloads: one .gnt, a zip called .zip.1, and whatever else people have."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1001-c.gnt").write_bytes(MEMBER)
    os.rename(gnt_files.write_zip(folder / "a.zip", {"1241-c.gnt": MEMBER}), folder / "Gnt1.1Test.zip.1")
    for name, (content, _) in DOWNLOADS.items():
        (folder / name).write_bytes(content)
    for name, content in HARMLESS.items():
        (folder / name).write_bytes(content)
    return folder


def listed(*paths: Path) -> Listing:
    return list_inputs([Input("train", str(path)) for path in paths], 0)


def test_a_folder_of_downloads(folder: Path, tmp_path: Path, convert: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = convert(f"--input={folder}", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("passed over")]
    assert line.startswith("passed over 8 files that aren't .gnt or .zip: ")
    for name, (_, what) in {**DOWNLOADS, "Gnt1.1Test.zip.1": (b"", "a zip")}.items():
        assert f"{name if name == name.strip() else repr(name)} ({what}" in line
    assert "unpack it with unrar or 7-Zip" in line
    assert "rename it, so that it ends in .gnt" in line
    assert not any(name in line for name in HARMLESS)
    passed = read_card(tmp_path / "o").passed_over
    assert passed is not None
    assert passed.count == 12
    assert passed.kinds["GNT under another name"] == 3
    assert passed.kinds["text"] == 1
    assert PassedFile(str(folder / "a.gntx"), "a.gntx", "GNT under another name") in passed.files
    assert [file.name in HARMLESS for file in passed.files] == [False] * 8 + [True] * 4
    assert verify.main([f"{tmp_path}/o", "--against", str(folder)]) == 0
    assert inspect.main([f"{tmp_path}/o"]) == 0
    assert "passed over: 12: " in (shown := capsys.readouterr().out)
    assert "a.gntx: GNT under another name" in shown


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_same_in_a_zip(tmp_path: Path, method: int) -> None:
    content = {f"HWDB/{name}": data for name, (data, _) in DOWNLOADS.items()}
    content |= {"HWDB/1001-c.gnt": MEMBER, "__MACOSX/HWDB/._1001-c.gnt": b"\0\5\26\7", "HWDB/readme.txt": b"hello"}
    found = listed(gnt_files.write_zip(tmp_path / "a.zip", content, method))
    assert [member.name for member in found.members] == ["1001-c.gnt"]
    assert {file.name: file.what for file in found.passed_over.files[: len(DOWNLOADS)]} == {
        f"HWDB/{name}": what for name, (_, what) in DOWNLOADS.items()
    }
    assert found.passed_over.count == len(DOWNLOADS) + 2
    (line,) = found.warnings
    assert line.startswith("passed over 7 files that aren't .gnt or .zip: HWDB/")


def test_harmless_files_are_counted_and_not_cried_out(tmp_path: Path) -> None:
    for name, content in {**HARMLESS, "1001-c.gnt": MEMBER, "Thumbs.db": b"", "啊.png": b"\x89PNG"}.items():
        (tmp_path / name).write_bytes(content)
    found = listed(tmp_path)
    assert found.warnings == []
    assert found.passed_over.count == 6


def test_a_card_names_a_hundred_of_them(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(MEMBER)
    for i in range(150):
        (tmp_path / f"{i:03}.dat").write_bytes(MEMBER)
        (tmp_path / f"{i:03}.png").write_bytes(b"")
    found = listed(tmp_path)
    assert found.passed_over.count == 300
    assert len(found.passed_over.files) == MOST_PASSED
    assert {file.name[-4:] for file in found.passed_over.files} == {".dat"}
    (line,) = found.warnings
    assert line.endswith(" and 142 more")


def test_several_inputs_have_one_line(folder: Path, tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1301-c.gnt": MEMBER, "more.rar": RAR})
    (line,) = listed(folder, path).warnings
    assert line.startswith("passed over 9 files ")


@pytest.mark.parametrize("name", DOWNLOADS)
def test_alone_it_is_a_refusal_that_says_what_it_is(folder: Path, name: str, refused: Callable[[Path], str]) -> None:
    line = refused(folder / name)
    assert f"found {DOWNLOADS[name][1]}; " in line
    assert "damaged" not in line


def test_a_folder_without_gnt_says_what_is_there(folder: Path, tmp_path: Path, convert: Run) -> None:
    (folder / "1001-c.gnt").unlink()
    message = r"found 12 other files: .*1003-c.gnt.part \(an unfinished download: let it finish"
    assert_refused(convert(f"--input={folder}", f"--output={tmp_path}/o"), message)


def test_a_zip_without_gnt_says_what_is_there(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    path = gnt_files.write_zip(
        tmp_path / "a.zip", {"a/page1.dgrl": bytes(99), "part2.rar": RAR, "readme.txt": b"hello"}
    )
    line = refused(path)
    assert "expected .gnt files in the zip, found 3 other files: a/page1.dgrl (handwritten text lines" in line
    assert "part2.rar (a RAR archive: unpack it with unrar" in line


def test_what_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(MEMBER)
    (tmp_path / "a.rar").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b.rar")
    found = listed(tmp_path)
    assert {file.name: file.what for file in found.passed_over.files} == {"a.rar": "a RAR archive", "b.rar": "a FIFO"}


def test_an_encrypted_entry_is_told_by_its_name(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER, "a.rar": RAR})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert [file.what for file in listed(path).passed_over.files] == ["a RAR archive"]


def test_verify_looks_at_what_the_card_calls_them(folder: Path, tmp_path: Path, convert: Run) -> None:
    convert(f"--input={folder}", f"--output={tmp_path}/o")
    (folder / "a.gntx").write_bytes(RAR)
    (folder / "1003-c.gnt.part").unlink()
    assert verify.main([f"{tmp_path}/o", "--against", str(folder)]) == 1
