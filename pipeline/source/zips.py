"""Zip archives that nobody vouches for: what they hold is listed within bounds, and unpacked no further than asked for.

A zip can declare terabytes in kilobytes, list one stretch of bytes a thousand times, or be one huge directory. All of
that is refused from the directory, before anything is unpacked.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline.source.kinds import VOLUME
from pipeline.source.names import SUFFIX, entry_names, raw_name
from schemas.errors import UserError, printable

MAX_DIRECTORY_BYTES = 16 << 20  # 16 MiB, some 200,000 entries; CASIA's zips have 300
MAX_NAME_CHARACTERS = 255  # what file systems allow too; each of a member's rows repeats its name
MAX_RATIO = 200  # unpacked to packed bytes; CASIA's bitmaps reach 5
BUFFER_BYTES = 64 << 10  # 64 KiB: between the headers that a listing looks at lie members, which it doesn't
SMALL_BYTES = 64 << 20  # 64 MiB: up to this, the ratio is nobody's trouble

TAIL_BYTES = 66_000
"""What the end of a zip takes at most, its comment included."""

_LOCAL_HEADER = struct.Struct("<4s22sHH")  # signature, what the directory says too, name and extra lengths
_METHODS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 9: "Deflate64", 93: "Zstandard"}
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Entry:
    """A .gnt in a zip."""

    index: int
    """Its position in the directory."""
    path: str
    """Its name, with its folders."""
    data_offset: int
    data_bytes: int
    """As they lie in the zip, in bytes."""
    size_bytes: int
    """Unpacked."""
    crc: int
    is_deflated: bool


@dataclass(frozen=True)
class Other:
    """An entry that is neither a .gnt nor a folder."""

    path: str
    info: zipfile.ZipInfo
    data_offset: int

    def head(self, stream: BinaryIO, size: int) -> bytes | None:
        """Its first bytes, unpacked, of the zip in `stream`; None where they can't be had."""
        if self.info.flag_bits & _ENCRYPTED or self.info.compress_type not in _READ:
            return None
        stream.seek(self.data_offset)
        if self.info.compress_type == zipfile.ZIP_STORED:
            return stream.read(min(size, self.info.compress_size))
        with contextlib.suppress(zlib.error):
            return open_inflated(stream, self.info.compress_size).read(size)
        return None


def list_entries(path: str, stream: BinaryIO) -> tuple[list[Entry], list[Other]]:
    """The .gnt entries of the zip in `stream`, and the others. Raises UserError, BadZipFile or what zipfile raises."""
    guard = _Guard(stream, path)
    with zipfile.ZipFile(cast(BinaryIO, guard)) as archive:
        infos, directory_offset = archive.infolist(), archive.start_dir
        offsets = [_data_offset(path, stream, info) for info in infos]
    entries, others = [], []
    for index, (info, name, offset) in enumerate(zip(infos, entry_names(infos), offsets, strict=True)):
        name = re.sub(r"[/\\]+", "/", name)  # some zips made on Windows hold backslashes
        if name.endswith("/"):
            continue
        if _is_gnt(path, name):
            entries.append(_entry(path, index, name, info, offset))
        else:
            others.append(Other(name, info, offset))
    if not entries:
        return entries, others
    _refuse_overlaps(entries, directory_offset)
    packed, unpacked = sum(entry.data_bytes for entry in entries), sum(entry.size_bytes for entry in entries)
    if unpacked > max(SMALL_BYTES, MAX_RATIO * packed):
        raise UserError(
            f"{path}: expected at most {MAX_RATIO} times the packed bytes, found {unpacked:,} declared in {packed:,}, "
            "as in a zip bomb; if they are meant, unpack it and name the folder"
        )
    return entries, others


def alz_error(where: str) -> UserError:
    return UserError(
        f"{where}: expected .gnt files, found an .alz archive, as some copies of HWDB1.1 hold; "
        "unpack it with unalz and name the folder it fills"
    )


def open_inflated(stream: BinaryIO, data_bytes: int) -> BinaryIO:
    """The unpacked bytes of the `data_bytes` deflated ones that come next in `stream`; closes neither of them."""
    return cast(BinaryIO, io.BufferedReader(_Inflated(stream, data_bytes)))


class _Inflated(io.RawIOBase):
    """Unpacks as much as is asked for, so that memory doesn't depend on what the bytes unpack to."""

    def __init__(self, stream: BinaryIO, data_bytes: int) -> None:
        self._stream = stream
        self._left = data_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._stream.read(min(64 << 10, self._left))
            if packed is not self._inflater.unconsumed_tail:
                self._left -= len(packed)
            data = self._inflater.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                break
        return 0


class _Guard:
    """A stream that lets no directory in that is larger than it may be: zipfile reads it whole."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable
        self._stream = stream
        self._path = path

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise UserError(
                f"{self._path}: expected a zip's directory of at most {MAX_DIRECTORY_BYTES:,} bytes, found {size:,}; "
                "unpack it and name the folder"
            )
        return self._stream.read(size)


def _is_gnt(path: str, name: str) -> bool:
    base = name.rpartition("/")[2]
    if base.startswith("._") or name.startswith("__MACOSX/"):
        return False  # what macOS adds beside a file is no handwriting
    where = f"{path}, {printable(name)}"
    if base.lower().endswith(".alz"):
        raise alz_error(where)
    if base.lower().endswith(".zip"):
        raise UserError(f"{where}: expected .gnt files, found a zip in the zip; unpack the outer one")
    return base.lower().endswith(SUFFIX)


def _data_offset(path: str, stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the entry's bytes begin, behind a header of their own that must agree with the directory.

    A damaged name in the directory could hide a .gnt, so the header of every entry is looked at.
    """
    if info.header_offset < 0:
        raise UserError(
            f"{path}: expected a whole zip, found the last volume of a split one, or one whose beginning is missing; "
            f"{VOLUME.advice}, or download it again"
        )
    stream.seek(info.header_offset)
    signature, _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header at byte {info.header_offset:,}")
    name = stream.read(name_bytes)
    if name != raw_name(info):
        found = name.decode("utf-8", "replace")
        raise zipfile.BadZipFile(f"{info.filename} in the directory is {found} at byte {info.header_offset:,}")
    if bool(info.file_size) < bool(info.CRC):
        raise zipfile.BadZipFile(f"{info.filename} is said to be empty, but with a CRC-32")
    return info.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


def _entry(path: str, index: int, entry_path: str, info: zipfile.ZipInfo, data_offset: int) -> Entry:
    name = entry_path.rpartition("/")[2]
    where = f"{path}, {printable(name[:MAX_NAME_CHARACTERS])}"
    if len(name) > MAX_NAME_CHARACTERS:
        raise UserError(f"{where}: expected a name of at most {MAX_NAME_CHARACTERS} characters, found {len(name):,}")
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{where}: expected plain data, found it encrypted; unpack it and name that")
    if info.compress_type not in _READ:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise UserError(
            f"{where}: expected it stored or deflated, found it packed by {method}; unpack it and name that"
        )
    is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if not is_deflated and info.compress_size != info.file_size:
        raise zipfile.BadZipFile(
            f"{name} is stored, but {info.file_size:,} bytes are said to fill {info.compress_size:,}"
        )
    return Entry(
        index=index,
        path=entry_path,
        data_offset=data_offset,
        data_bytes=info.compress_size,
        size_bytes=info.file_size,
        crc=info.CRC,
        is_deflated=is_deflated,
    )


def _refuse_overlaps(entries: Sequence[Entry], directory_offset: int) -> None:
    in_order = sorted(entries, key=lambda entry: entry.data_offset)
    ends = [following.data_offset - _LOCAL_HEADER.size for following in in_order[1:]]
    for entry, end in zip(in_order, [*ends, directory_offset], strict=True):
        if entry.data_offset + entry.data_bytes > end:
            raise zipfile.BadZipFile(
                f"{entry.path} is said to fill {entry.data_bytes:,} bytes from byte {entry.data_offset:,}, "
                f"something else begins at byte {end:,}"
            )


def is_last_volume(tail: bytes) -> bool:
    """Whether a zip that ends so is the last volume of a split one: others hold its beginning."""
    at = tail.rfind(b"PK\x05\x06")
    return at >= 0 and tail[at + 4 : at + 6] not in (b"", b"\0\0", b"\xff\xff")
