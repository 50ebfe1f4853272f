"""What isn't GNT is called by its name: every signature, and every name by which a download goes astray."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import gnt_files
import pytest

from pipeline.source import kinds
from pipeline.source.kinds import of_bytes, of_file

MEMBER = gnt_files.member(gnt_files.records_of("啊阿埃"))


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("1001-c.gnt", MEMBER)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("1001-c.gnt"))
    return stream.getvalue()


def _pot() -> bytes:
    strokes = struct.pack("<8h", 10, 10, 20, 20, -1, 0, -1, -1)
    return struct.pack("<HIH", 8 + len(strokes), 0xB0A1, 1) + strokes


def _casia(code: bytes) -> bytes:
    return struct.pack("<I8s", 54, code) + b"illustration\0".ljust(42, b"\0") + bytes(100)


HEADS = {
    "a RAR archive": b"Rar!\x1a\x07\0" + bytes(50),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(50),
    "a gzip archive": gzip.compress(MEMBER),
    "a bzip2 archive": bz2.compress(MEMBER),
    "an xz archive": lzma.compress(MEMBER),
    "a tar archive": _tar(),
    "an .alz archive": b"ALZ\x01\n\0",
    "an .egg archive": b"EGGA" + bytes(20),
    "a zip": _zip(),
    "a volume of a split archive": b"PK\x07\x08" + _zip(),
    "an HTML page": b"\xef\xbb\xbf\r\n<!DOCTYPE html>\n<html>",
    "text": "没有手写".encode("gbk") * 30 + b"\n",
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "a PDF": b"%PDF-1.7\n\xe2\xe3\xcf\xd3",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "online handwriting (.pot)": _pot(),
    "handwritten text lines (.dgrl)": _casia(b"DGRL"),
    "features of characters (.mpf)": _casia(b"MPF"),
    "pages of online handwriting (.wptt, .ptts)": _casia(b"WPTT"),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(8),
    "GNT under another name": MEMBER,
    "an empty file": b"",
}


@pytest.mark.parametrize("what", HEADS)
def test_the_first_bytes_tell(what: str) -> None:
    kind = of_bytes(HEADS[what])
    assert kind is not None
    assert kind.what == what
    assert "damaged" not in kind.advice


@pytest.mark.parametrize("head", [bytes(3000), b"\xff" * 3000, bytes(range(256)) * 9, b"\x1f\x8b"])
def test_what_nothing_tells_has_no_name(head: bytes) -> None:
    assert of_bytes(head) is None


def test_every_kind_of_a_member_has_its_advice() -> None:
    assert {what for what in HEADS if what != "GNT under another name"} <= kinds.ADVICE.keys()


@pytest.mark.parametrize("damage", [1, 6, 8])
def test_a_record_that_disagrees_with_itself_is_no_gnt(damage: int) -> None:
    assert kinds.is_gnt(MEMBER)
    assert kinds.is_gnt(MEMBER[:700])
    assert not kinds.is_gnt(MEMBER[:damage])
    assert not kinds.is_gnt(MEMBER[:damage] + bytes([MEMBER[damage] ^ 0x7F]) + MEMBER[damage + 1 :])


NOISE = bytes(range(256)) * 9
NAMES: dict[str, tuple[bytes, str, bool]] = {
    "HWDB1.1trn_gnt_P2.rar": (HEADS["a RAR archive"], "a RAR archive", False),
    "HWDB1.1trn_gnt_P2.RAR": (NOISE, "a RAR archive", False),
    "a.rar": (HEADS["an HTML page"], "an HTML page", False),
    "b.rar": (b"404 Not Found\n", "text", False),
    "a.7z": (NOISE, "a 7z archive", False),
    "a.tar.gz": (HEADS["a gzip archive"], "a gzip archive", False),
    "a.egg": (NOISE, "an archive of another kind", False),
    "a.zip.1": (HEADS["a zip"], "a zip", False),
    "a.zip (1)": (NOISE, "a zip", False),
    "a.zip.001": (HEADS["a zip"], "a volume of a split archive", False),
    "a.z01": (HEADS["a volume of a split archive"], "a volume of a split archive", False),
    "a.part1.rar": (HEADS["a RAR archive"], "a volume of a split archive", False),
    "1001-c.gnt.part": (MEMBER, "an unfinished download", False),
    "a.zip.crdownload": (HEADS["a zip"], "an unfinished download", False),
    "1001-c.gntx": (MEMBER, "GNT under another name", False),
    "1001-c.gnt ": (MEMBER, "GNT under another name", False),
    "1001-c.gnt.txt": (MEMBER, "GNT under another name", False),
    "list.gnt.txt": (b"1001-c.gnt\n", "text", False),
    "1001-c": (MEMBER, "GNT under another name", False),
    "1001-c.gnt~": (NOISE, "a file of another kind", False),
    "a.pot": (NOISE, "online handwriting (.pot)", False),
    "b.pot": (b"x" * 100, "online handwriting (.pot)", False),
    "c.pot": (HEADS["a gzip archive"], "a gzip archive", False),
    "a.dgrl": (NOISE, "handwritten text lines (.dgrl)", False),
    "data.bin": (NOISE, "a file of another kind", False),
    "data.mat": (HEADS["an HDF5 file"], "an HDF5 file", False),
    "d.rar": (b"", "an empty file", False),
    "flag": (b"", "an empty file", True),
    "readme.txt": (b"hello", "text", True),
    "README": (b"hello", "a file of the system's", True),
    "notes": (b"hello", "text", True),
    "1001-c.gnt.md5": (b"0" * 32, "text", True),
    "paper.pdf": (HEADS["a PDF"], "a PDF", True),
    "啊.png": (HEADS["an image"], "an image", True),
    ".DS_Store": (NOISE, "a file of the system's", True),
    "Thumbs.db": (HEADS["a RAR archive"], "a file of the system's", True),
    "__MACOSX/a.rar": (NOISE, "a file of the system's", True),
    ".git/objects/ab/cdef": (NOISE, "a file of the system's", True),
    "../a.rar": (NOISE, "a RAR archive", False),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_bytes_tell_together(name: str) -> None:
    head, what, is_harmless = NAMES[name]
    kind = of_file(name, lambda: head)
    assert (kind.what, kind.is_harmless) == (what, is_harmless)


@pytest.mark.parametrize("name", ["a.rar", "a.7z", "a.zip.1", "a.gntx", "a.crdownload", "a.z02", "a.pot"])
def test_a_name_is_enough_where_the_bytes_cannot_be_had(name: str) -> None:
    kind = of_file(name, lambda: None)
    assert not kind.is_harmless
    assert kind is not kinds.OTHER


def test_harmless_names_are_not_looked_into() -> None:
    def never() -> bytes:
        raise AssertionError

    for name in ("readme.txt", "a.png", "Thumbs.db", ".DS_Store", "__MACOSX/._a.rar"):
        assert of_file(name, never).is_harmless


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEADS["a RAR archive"], "expected a zip, found a RAR archive; unpack it with unrar"),
        (HEADS["an HTML page"], "expected a zip, found an HTML page; it is what a download that failed leaves"),
        (HEADS["a 7z archive"], "found a 7z archive"),
        (HEADS["an .alz archive"], "found an .alz archive; unpack it with unalz"),
        (MEMBER, "found GNT under another name; rename it, so that it ends in .gnt"),
        (b"", "found an empty file; download it again"),
        (_zip()[:-60], "expected an intact zip, found it damaged"),
    ],
)
def test_what_is_called_zip_and_is_none(
    tmp_path: Path, content: bytes, says: str, refused: Callable[[Path], str]
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    line = refused(tmp_path / "a.zip")
    assert says in line
    assert ("damaged" in line) == ("damaged" in says)


def test_the_last_volume_of_a_split_zip(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    content = bytearray(_zip())
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", content, end + 4, 2, 2)
    struct.pack_into("<I", content, end + 16, 40)
    for name, data in (("whole.zip", bytes(content)), ("rest.zip", bytes(content[500:]))):
        (tmp_path / name).write_bytes(data)
        assert "found a volume of a split archive; with all volumes" in refused(tmp_path / name)


def test_the_end_of_a_zip_that_was_cut(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    """As `split` cuts it: nothing in the last part says that there were others."""
    whole = _zip()
    (tmp_path / "a.zip").write_bytes(whole[len(whole) // 3 :])
    assert "expected a whole zip, found the last volume of a split one, or" in refused(tmp_path / "a.zip")
