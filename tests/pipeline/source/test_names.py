"""What names say: zips from China and from a Mac, names in capitals, and members of one name."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import gnt_files
import pytest
from commands import Run, rows_of

from pipeline import verify
from pipeline.source.archives import Input, list_inputs, list_members
from pipeline.source.names import told_apart, writer_of
from schemas.dataset import read_card
from schemas.errors import UserError

A, B = (gnt_files.member(gnt_files.records_of("啊阿埃挨哎", seed)) for seed in (1, 2))


def write_raw(path: Path, members: dict[bytes, bytes], *, unicode_paths: dict[bytes, str] | None = None) -> Path:
    """A zip without the flag of UTF-8, its names as these bytes; some with Info-ZIP's field beside them."""
    stream = io.BytesIO()
    stand_ins = {f"{i:04}".ljust(len(name), "x"): name for i, name in enumerate(members)}
    with zipfile.ZipFile(stream, "w") as archive:
        for stand_in, name in stand_ins.items():
            info = zipfile.ZipInfo(stand_in)
            info.compress_type = zipfile.ZIP_DEFLATED
            if unicode_paths and name in unicode_paths:
                field = struct.pack("<BI", 1, zlib.crc32(name)) + unicode_paths[name].encode()
                info.extra = struct.pack("<HH", 0x7075, len(field)) + field
            archive.writestr(info, members[name])
    content = stream.getvalue()
    for stand_in, name in stand_ins.items():
        content = content.replace(stand_in.encode(), name)
    path.write_bytes(content)
    return path


def names(path: Path) -> list[str]:
    return sorted(member.name for member in list_members([Input("train", str(path))], 0))


@pytest.mark.parametrize("codec", ["gbk", "gb18030", "utf-8"])
def test_chinese_names_without_a_flag(tmp_path: Path, codec: str) -> None:
    path = write_raw(tmp_path / "a.zip", {"手写数据/样本.gnt".encode(codec): A, "手写数据/张-c.gnt".encode(codec): B})
    members = list_members([Input("train", str(path))], 0)
    assert {(member.name, member.writer) for member in members} == {("样本.gnt", "样本"), ("张-c.gnt", "张")}


def test_a_second_byte_0x5c_is_no_backslash(tmp_path: Path, convert: Run) -> None:
    members = {"作者/謀.gnt".encode("gbk"): A, "作者/誠.gnt".encode("gbk"): B, "陰謀v1-c.gnt".encode("gbk"): A + B}
    assert all(b"\\" in name for name in members)
    path = write_raw(tmp_path / "a.zip", members)
    status, _, err = convert(f"--input={path}", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    assert {row["writer"] for row in rows_of(tmp_path / "o")} == {"謀", "誠", "陰謀v1"}
    assert verify.main([f"{tmp_path}/o", "--against", str(path), "--all"]) == 0


def test_a_real_backslash_still_is_one(tmp_path: Path) -> None:
    assert names(write_raw(tmp_path / "a.zip", {b"HWDB\\1001-c.gnt": A, "手写\\样本.gnt".encode("gbk"): B})) == [
        "1001-c.gnt",
        "样本.gnt",
    ]


def test_what_is_neither_utf_8_nor_gbk_is_as_the_format_says(tmp_path: Path) -> None:
    assert names(write_raw(tmp_path / "a.zip", {"né.gnt".encode("cp437"): A, b"1001-c.gnt": B})) == [
        "1001-c.gnt",
        "né.gnt",
    ]


def test_the_letters_are_decided_once_for_a_zip(tmp_path: Path) -> None:
    odd = {"样本.gnt".encode(): A, "样张.gnt".encode("gbk"): B}  # the first alone would be UTF-8
    found = names(write_raw(tmp_path / "a.zip", odd))
    assert "样张.gnt" in found
    assert "样本.gnt" not in found


def test_info_zips_field_is_believed_where_it_is_true(tmp_path: Path) -> None:
    raw = "樣本.gnt".encode("big5")
    path = write_raw(tmp_path / "a.zip", {raw: A}, unicode_paths={raw: "樣本.gnt"})
    assert names(path) == ["樣本.gnt"]
    renamed = path.read_bytes().replace(raw, b"1001".ljust(len(raw) - 4, b"x") + b".gnt")
    path.write_bytes(renamed)
    assert names(path) == ["1001".ljust(len(raw) - 4, "x") + ".gnt"]


def test_loose_names_in_gbk_are_read_like_those_in_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        for name, data in (("样本.gnt", A), ("謀-c.gnt", B)):
            (folder / os.fsdecode(name.encode("gbk"))).write_bytes(data)
    except OSError:
        pytest.skip("this file system has text names only")
    assert names(folder) == ["样本.gnt", "謀-c.gnt"]


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("1001-c.gnt", "1001"),
        ("1001-f.gnt", "1001"),
        ("1001-C.GNT", "1001"),
        ("1001-F.Gnt", "1001"),
        ("C001-f.gnt", "C001"),
        ("1.0train-gb1.gnt", "1.0train-gb1"),
        ("part1/1001-c.gnt", "1001"),
        ("Jose\u0301-c.gnt", "José"),
        (".gnt", ""),
    ],
)
def test_a_writer_is_the_person(name: str, writer: str) -> None:
    assert writer_of(name) == writer


def test_names_in_capitals_are_one_writer(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "in").mkdir()
    for number in range(1001, 1007):
        for kind, data in (("C", A), ("F", B)):
            (tmp_path / "in" / f"{number}-{kind}.GNT").write_bytes(data)
    assert convert(f"--input={tmp_path}/in", f"--output={tmp_path}/o", "--validation_fraction=0.5")[0] == 0
    card = read_card(tmp_path / "o")
    assert {name: split.writers for name, split in card.splits.items()} == {"train": 3, "validation": 3}
    assert {entry.member for entry in card.inputs} == {f"{n}-{kind}.GNT" for n in range(1001, 1007) for kind in "CF"}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/1.gnt", "a/2.gnt"], ["1.gnt", "2.gnt"]),
        (["a/1.gnt", "b/1.gnt", "b/2.gnt"], ["a/1.gnt", "b/1.gnt", "2.gnt"]),
        (["x/a/1.gnt", "y/a/1.gnt"], ["x/a/1.gnt", "y/a/1.gnt"]),
        (["1.gnt", "a/1.gnt"], ["1.gnt", "a/1.gnt"]),
        (["a/1.gnt", "a/1.gnt"], ["1.gnt", "1.gnt"]),
    ],
)
def test_names_are_told_apart_by_as_little_as_will_do(paths: list[str], expected: list[str]) -> None:
    assert told_apart(paths) == expected


@pytest.mark.parametrize("is_zip", [True, False])
def test_one_name_in_two_folders(tmp_path: Path, is_zip: bool, convert: Run) -> None:
    content = {"part1/1001-c.gnt": A, "part2/1001-c.gnt": B, "part2/1002-c.gnt": A + B}
    path = tmp_path / ("a.zip" if is_zip else "in")
    if is_zip:
        gnt_files.write_zip(path, content)
    else:
        for name, data in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    status, out, err = convert(f"--input={path}", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    assert "the same name in several folders; they are told apart by these: part1/1001-c.gnt, part2/1001-c.gnt" in out
    rows = rows_of(tmp_path / "o")
    assert {row["member"] for row in rows} == {"part1/1001-c.gnt", "part2/1001-c.gnt", "1002-c.gnt"}
    assert {row["writer"] for row in rows} == {"1001", "1002"}
    assert len({row["sample_id"] for row in rows}) == 20
    assert verify.main([f"{tmp_path}/o", "--against", str(path), "--all"]) == 0


def test_the_same_bytes_in_two_folders_are_refused(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"x/1001-c.gnt": A, "y/1001-c.gnt": A})
    assert "found 1001-c.gnt in x/1001-c.gnt and in y/1001-c.gnt, the same bytes twice; leave one of" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_path_twice_in_a_zip_is_refused(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1001-c.gnt", A)
        archive.writestr("1001-c.gnt", B)
    assert "found 1001-c.gnt more than once; unpack it, rename one" in refused(path)


def test_thousands_of_one_name_take_no_time(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    deep = "/".join("x" * 20_000)
    path = gnt_files.write_zip(tmp_path / "a.zip", {f"{i}/{deep}/1.gnt": b"" for i in range(50)}, zipfile.ZIP_STORED)
    line = refused(path)
    assert "more than once; unpack it, rename one" in line
    assert len(line) < 1_000
    path = gnt_files.write_zip(tmp_path / "b.zip", {f"{i}/1.gnt": b"" for i in range(20_000)}, zipfile.ZIP_STORED)
    assert len(set(names(path))) == 20_000


def test_two_archives_with_one_name_are_refused(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    for name, data in (("a", A), ("b", B)):
        gnt_files.write_zip(tmp_path / f"{name}.zip", {"1001-c.gnt": data})
    line = refused(tmp_path)
    assert "found 1001-c.gnt in " in line
    assert "a.zip and in " in line
    assert line.endswith("leave one of them out, or unpack and rename it")


def test_a_file_named_twice(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(A)
    twice = [Input("train", str(tmp_path)), Input("train", str(tmp_path / "1001-c.gnt"))]
    with pytest.raises(UserError, match=r"1001-c.gnt: expected it once for train, found it in two --input"):
        list_inputs(twice, 0)
    (line,) = list_inputs([twice[0], Input("test", str(tmp_path / "1001-c.gnt"))], 0).warnings
    assert "1 member in more than one split" in line
    assert "in train and test: what is learnt from it is tested with it" in line
