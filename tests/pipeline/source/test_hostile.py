"""Input that means harm: bounded memory and time, and one clear line or one reject row."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import gnt_files
import pyarrow.parquet as pq
import pytest
from commands import Run

from pipeline import verify
from pipeline.source import gnt
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks, read_chunk
from schemas.dataset import read_card
from schemas.errors import UserError
from schemas.manifest import EMPTY_BITMAP, HEADER_MISMATCH, OVERSIZED, TRUNCATED

MEMBER = gnt_files.member(gnt_files.records_of("啊阿埃挨哎"))
SECONDS = 30
MOST_BYTES = 512 << 20  # 512 MiB: the README's bound for a process


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read(path: Path) -> dict[str, bytes]:
    """The bytes of every member."""
    members = list_members([Input("train", str(path))], 0)
    folder = str(path.parent / "unpacked")
    return {member.name: b"".join(map(read_chunk, plan_chunks(member, folder))) for member in members}


def refusal(path: Path) -> str:
    """The line with which reading the input is refused."""
    with pytest.raises(UserError) as refused:
        read(path)
    line = str(refused.value)
    assert line.isprintable()
    assert str(path) in line
    return line


def patched(path: Path, signature: bytes, offset: int, layout: str, value: int, which: int = -1) -> Path:
    """The zip with one field changed, in the last (or `which`) header of that signature."""
    content = bytearray(path.read_bytes())
    at = -1
    for _ in range(which + 1 if which >= 0 else content.count(signature)):
        at = content.index(signature, at + 1)
    struct.pack_into(layout, content, at + offset, value)
    path.write_bytes(content)
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("1001-c.gnt", "w") as stream:
        for _ in range(96):
            stream.write(bytes(1 << 20))
    assert "found 100,663,296 declared in " in refusal(path)
    assert "as in a zip bomb; if they are meant, unpack it" in refusal(path)


def test_a_zip_that_declares_terabytes_is_refused(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER})
    assert "as in a zip bomb" in refusal(patched(path, b"PK\x01\x02", 24, "<I", 0xFFFFFFF0))


@pytest.mark.parametrize("change", [-100, -1, 1, 1_000])
@pytest.mark.parametrize(
    ("method", "field"), [(zipfile.ZIP_STORED, 20), (zipfile.ZIP_STORED, 24), (zipfile.ZIP_DEFLATED, 24)]
)
def test_wrong_sizes_in_the_directory(tmp_path: Path, change: int, method: int, field: int) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER}, method)
    assert "damaged" in refusal(patched(path, b"PK\x01\x02", field, "<I", len(MEMBER) + change))


@pytest.mark.parametrize("change", [-100, 100])
def test_a_wrong_packed_size_in_the_directory(tmp_path: Path, change: int) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER})
    with zipfile.ZipFile(path) as archive:
        declared = archive.infolist()[0].compress_size
    assert "damaged" in refusal(patched(path, b"PK\x01\x02", 20, "<I", declared + change))


def test_an_empty_member_with_a_checksum_is_no_empty_member(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER})
    assert "said to be empty" in refusal(patched(path, b"PK\x01\x02", 24, "<I", 0))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER})
    assert "1001-c.gnt: expected plain data, found it encrypted" in refusal(patched(path, b"PK\x01\x02", 8, "<H", 1))


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path: Path, method: int, name: str) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER}, method)
    assert f"found it packed by {name}; unpack it" in refusal(path)


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (77, "method 77")])
def test_methods_nobody_unpacks_here_are_refused(tmp_path: Path, method: int, name: str) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": MEMBER})
    assert f"found it packed by {name}" in refusal(patched(path, b"PK\x01\x02", 10, "<H", method))


def test_a_zip_in_a_zip_is_not_passed_over(tmp_path: Path) -> None:
    inner = gnt_files.write_zip(tmp_path / "inner.zip", {"1001-c.gnt": MEMBER}).read_bytes()
    path = gnt_files.write_zip(tmp_path / "outer.zip", {"1002-c.gnt": MEMBER, "more/inner.zip": inner})
    assert "inner.zip: expected .gnt files, found a zip in the zip; unpack the outer one" in refusal(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {f"100{i}-c.gnt": MEMBER for i in range(3)}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    # All three entries, with a name of the same length in the one local header they point to.
    path.write_bytes(content.replace(b"1001-c.gnt", b"1000-c.gnt").replace(b"1002-c.gnt", b"1000-c.gnt"))
    patched(path, b"PK\x01\x02", 42, "<I", 0, which=1)
    assert "something else begins at byte" in refusal(path)


def test_a_directory_that_hides_a_member_is_refused(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1000-c.gnt": MEMBER, "1001-c.gnt": MEMBER})
    content = path.read_bytes()
    at = content.rindex(b"1001-c.gnt")
    path.write_bytes(content[:at] + b"1001-c.gnu" + content[at + 10 :])
    assert "1001-c.gnu in the directory is 1001-c.gnt at byte" in refusal(path)


def test_a_directory_of_a_million_is_refused_unread(tmp_path: Path) -> None:
    entry = (
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0) + b"1001-c.gnt"
    )
    count = 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, count * len(entry), 0, 0)
    (tmp_path / "a.zip").write_bytes(entry * count + end)
    assert "expected a zip's directory of at most 16,777,216 bytes, found 56,000,000" in refusal(tmp_path / "a.zip")


def test_twenty_thousand_empty_members_are_read(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {f"{i}-c.gnt": b"" for i in range(20_000)}, zipfile.ZIP_STORED)
    members = list_members([Input("train", str(path))], 0)
    assert len(members) == 20_000
    assert not [chunk for member in members for chunk in plan_chunks(member, str(tmp_path))]


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18, b"PK\x05\x06" + b"\xff" * 18]
)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["1001-c.gnt", "a.zip"])
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert f"{name}: expected a file, found a FIFO" in refusal(tmp_path / name)
    assert f"{name}: expected a file, found a FIFO" in refusal(tmp_path)


def test_a_fifo_of_another_name_is_nobodys_business(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "1001-c.gnt").write_bytes(MEMBER)
    assert len(list_members([Input("train", str(tmp_path))], 0)) == 1


def test_devices_and_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1001-c.gnt").symlink_to("/dev/zero")
    assert "found a device" in refusal(tmp_path / "1001-c.gnt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("1002-c.gnt")
        assert "found a socket" in refusal(tmp_path / "1002-c.gnt")


def test_links_that_lead_nowhere_are_one_line(tmp_path: Path) -> None:
    for name, target in (("1001-c.gnt", "missing"), ("1002-c.gnt", "1002-c.gnt")):
        (tmp_path / name).symlink_to(target)
        assert "can't read" in refusal(tmp_path / name)


def test_a_link_to_its_own_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(MEMBER)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(list_members([Input("train", str(tmp_path))], 0)) == 1


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("1001-c.gnt", "a.zip"):
        (tmp_path / name).mkdir()
    assert "found nothing" in refusal(tmp_path)
    (tmp_path / "a.zip" / "1002-c.gnt").write_bytes(MEMBER)
    assert [member.name for member in list_members([Input("train", str(tmp_path))], 0)] == ["1002-c.gnt"]


NAMES = {
    "../../../escaped.gnt": "escaped.gnt",
    "/absolute.gnt": "absolute.gnt",
    "..\\..\\windows.gnt": "windows.gnt",
    "<script>alert(1)<!--.gnt": "<script>alert(1)<!--.gnt",
    "\x1b[31mred\x07\r\n.gnt": "\\x1b[31mred\\x07\\x0d\\x0a.gnt",
    "é汉字‮.gnt": "é汉字\\x202e.gnt",
    ".gnt": ".gnt",
}


def test_names_go_nowhere_and_stay_on_their_line(tmp_path: Path, convert: Run) -> None:
    before = set(tmp_path.parent.rglob("*"))
    path = gnt_files.write_zip(tmp_path / "a.zip", dict.fromkeys(NAMES, MEMBER))
    status, out, err = convert(f"--input={path}", f"--output={tmp_path}/out")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    (part,) = (tmp_path / "out" / "manifest").iterdir()
    assert set(pq.read_table(part)["member"].to_pylist()) == set(NAMES.values())
    assert verify.main([f"{tmp_path}/out", "--against", str(path), "--all"]) == 0
    assert {p for p in set(tmp_path.parent.rglob("*")) - before if not p.is_relative_to(tmp_path)} == set()


def test_file_names_that_are_no_text(tmp_path: Path, convert: Run) -> None:
    folder = tmp_path / os.fsdecode(b"in-\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has text names only")
    (folder / os.fsdecode(b"\xe9\xff-c.gnt")).write_bytes(MEMBER)
    (folder / "two\nlines.gnt").write_bytes(MEMBER)
    status, _, err = convert(f"--input={folder}", f"--output={tmp_path}/out")
    assert (status, err) == (0, "")
    assert {entry.member for entry in read_card(tmp_path / "out").inputs} == {
        "\\xdce9\\xdcff-c.gnt",
        "two\\x0alines.gnt",
    }
    assert verify.main([f"{tmp_path}/out", "--against", str(folder), "--all"]) == 0


def test_a_name_of_kilobytes_is_refused(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"x" * 5_000 + ".gnt": MEMBER})
    assert "expected a name of at most 255 characters, found 5,004" in refusal(path)


def test_a_name_that_lies_about_its_encoding(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"é001-c.gnt": MEMBER})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert "damaged or unsupported" in refusal(path)


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (bytes(3_000_000), [HEADER_MISMATCH]),
        (b"\xff" * 3_000_000, [HEADER_MISMATCH]),
        (os.urandom(3_000_000), [HEADER_MISMATCH]),
        (struct.pack("<I2sHH", 0xFFFE000B, b"\xb0\xa1", 0xFFFF, 0xFFFF) + b"\xff" * 1_000, [OVERSIZED]),
        (struct.pack("<I2sHH", 0xFFFFFFFF, b"\xb0\xa1", 1, 1) + b"\xff" * 1_000, [HEADER_MISMATCH]),
        (struct.pack("<I2sHH", 10, b"\xb0\xa1", 0, 0xFFFF) * 3, [EMPTY_BITMAP] * 3),
        (b"\x01", [TRUNCATED]),
    ],
)
def test_a_member_without_a_record_is_a_reject(tmp_path: Path, data: bytes, faults: list[str], convert: Run) -> None:
    records = gnt.walk(data)
    assert (records.fault, records.end) == (faults, len(data))
    (tmp_path / "1001-c.gnt").write_bytes(data)
    status, _, err = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/out", "--max_reject_fraction=1")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "expected records to keep, found none among " in err


def test_a_hostile_member_beside_good_ones_costs_its_own_rows(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃挨" * 40)))
    (tmp_path / "in" / "1002-c.gnt").write_bytes(bytes(1_000_000))
    (tmp_path / "in" / "1003-c.gnt").write_bytes(b"")
    status, out, err = convert(f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--max_reject_fraction=0.9")
    assert (status, err) == (0, "")
    assert "empty members, 0 bytes: 1003-c.gnt (train)" in out
    counts = {entry.member: entry.counts for entry in read_card(tmp_path / "out").inputs}
    assert counts["1001-c.gnt"].kept == 160
    assert counts["1002-c.gnt"].rejected == {HEADER_MISMATCH: 1}
    assert counts["1003-c.gnt"].read == 0
    assert verify.main([f"{tmp_path}/out", "--against", f"{tmp_path}/in", "--all"]) == 0


HOSTILE = {
    "zeros": bytes(1),
    "paper": b"\xff",
    "dots": struct.pack("<I2sHHB", 11, b"\xb0\xa1", 1, 1, 7),
    "empties": struct.pack("<I2sHH", 10, b"\xb0\xa1", 0, 1),
}
_MEASURE = r"""
import re, sys
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import Chunk, plan_chunks, read_chunk
from pipeline.source import gnt
(member,) = list_members([Input("train", sys.argv[1])], 0)
chunks = list(plan_chunks(member, sys.argv[1] + "-unpacked"))
found = sum(int(gnt.walk(read_chunk(chunk)).size.sum()) for chunk in chunks)
print(found, int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) << 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_has_a_bound(tmp_path: Path, name: str) -> None:
    data = HOSTILE[name] * ((48 << 20) // len(HOSTILE[name]))
    (tmp_path / "1001-c.gnt").write_bytes(data)
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "1001-c.gnt")]
    accounted, peak = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert accounted == len(data)
    assert peak < MOST_BYTES
