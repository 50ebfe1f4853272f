"""A member, a .gnt wherever it lies, and the bytes of any stretch of it."""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline import storage
from pipeline.source import kinds, zips
from pipeline.source.names import writer_of
from schemas.errors import UserError, explained, printable


@dataclass(frozen=True)
class Member:
    """A .gnt, loose or in a zip."""

    split: str
    location: str
    """Path or URL of the file that holds it."""
    name: str
    """Base name, behind folders where another of its archive has the same; with split and index it names a record."""
    size_bytes: int
    """Not compressed."""
    version: str
    """Changes when the content does: as StoredFile.version, or the zip entry's CRC-32."""
    zip_entry: int | None = None
    """Its position in a zip's directory; None if the file itself is the .gnt."""
    data_offset: int = 0
    """Where its bytes begin in the file."""
    deflated_bytes: int | None = None
    """How many bytes they fill there deflated; None if they lie there as they are."""

    @property
    def archive(self) -> str:
        return printable(storage.base_name(self.location))

    @property
    def writer(self) -> str:
        return writer_of(self.name)

    @property
    def random_access(self) -> bool:
        return self.deflated_bytes is None

    def __str__(self) -> str:
        return self.location if self.zip_entry is None else f"{self.location}, {self.name}"


@contextlib.contextmanager
def open_member(member: Member, buffer_bytes: int = storage.BUFFER_BYTES) -> Iterator[BinaryIO]:
    """The member's bytes as a stream, from its first byte; it can `seek` only where it has random access."""
    begin, size = member.data_offset, member.size_bytes if member.deflated_bytes is None else member.deflated_bytes
    with (
        explained_zip(member.location),
        storage.open_read(member.location, begin, begin + size, buffer_bytes) as stream,
    ):
        yield stream if member.deflated_bytes is None else zips.open_inflated(stream, size)


def read_stretch(member: Member, begin: int, size: int) -> bytes:
    """`size` bytes of a member with random access. Raises UserError if it is shorter than its listing said."""
    with explained_zip(member.location):
        data = storage.read_range(member.location, member.data_offset + begin, size)
    return _whole(data, size, member)


def read_exactly(stream: BinaryIO, size: int, member: Member) -> bytes:
    """`size` bytes of the stream. Raises UserError if the member is shorter than its listing said."""
    return _whole(stream.read(size), size, member)


def what_instead(member: Member) -> str | None:
    """What a member without a sound record is, from its first bytes; None where they don't tell."""
    try:
        with open_member(member, kinds.HEAD_BYTES) as stream:
            kind = kinds.of_bytes(stream.read(min(kinds.HEAD_BYTES, member.size_bytes)))
    except UserError:
        return None
    return kind.what if kind and kind is not kinds.GNT else None


def _whole(data: bytes, size: int, member: Member) -> bytes:
    if len(data) != size:
        advice = (
            "was it changed during the conversion? Run the same command again"
            if member.zip_entry is None
            else "the zip is damaged, download it again"
        )
        raise UserError(
            f"{member}: expected {member.size_bytes:,} bytes, it ends {size - len(data):,} bytes earlier; {advice}"
        )
    return data


@contextlib.contextmanager
def explained_zip(location: str) -> Iterator[None]:
    """Turns what a zip that isn't one, or a damaged one, raises into the one line of a UserError."""
    try:
        with explained(f"read {location}"):
            yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        NotImplementedError,
        UnicodeDecodeError,
        OverflowError,
    ) as error:
        raise UserError(
            _other_than_a_zip(location)
            or f"{location}: expected an intact zip, found it damaged or unsupported ({error}); download it again"
        ) from error


def _other_than_a_zip(location: str) -> str | None:
    """What a sound file that is called .zip is instead, as the line of an error; None where nothing tells."""
    try:
        size = storage.size_bytes(location) or 0
        kind = kinds.of_bytes(storage.read_range(location, 0, kinds.HEAD_BYTES))
        tail = storage.read_range(location, max(0, size - zips.TAIL_BYTES), zips.TAIL_BYTES)
    except (OSError, UserError):
        return None
    if kind in (None, kinds.ZIP) and zips.is_last_volume(tail):
        kind = kinds.VOLUME
    if kind is None or kind is kinds.ZIP:
        return None
    return f"{location}: expected a zip, found {kind.what}; {kind.advice}"
