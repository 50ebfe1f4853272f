"""What the inputs hold: every .gnt member found, its size, its writer, and the bytes of any stretch of it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from pipeline import storage
from pipeline.source import zips
from schemas.dataset import SPLITS
from schemas.errors import UserError, explained, printable


@dataclass(frozen=True)
class Member:
    """A .gnt, loose or in a zip."""

    split: str
    location: str
    """Path or URL of the file that holds it."""
    name: str
    """Base name; with the split and a record's index it identifies the record."""
    size_bytes: int
    """Not compressed."""
    version: str
    """Changes when the content does: the file's modification time, or the zip entry's CRC-32."""
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
        """1001 of 1001-c.gnt and of 1001-f.gnt: the person, not the file."""
        return re.sub(r"-[a-z]$", "", self.name[: -len(".gnt")])

    @property
    def random_access(self) -> bool:
        return self.deflated_bytes is None

    def __str__(self) -> str:
        return self.location if self.zip_entry is None else f"{self.location}, {self.name}"


@dataclass(frozen=True)
class Input:
    """One --input: a path, and the split its members belong to."""

    split: str
    path: str
    flag: str = "--input"
    """Where the path was given, for what is said of it."""


def parse_input(argument: str, flag: str = "--input") -> Input:
    """`train=PATH`, or PATH alone for train."""
    split, equals, path = argument.partition("=")
    if not equals or not re.fullmatch(r"\w+", split):
        return Input("train", argument, flag)
    if split not in SPLITS:
        raise UserError(
            f"{flag} {argument}: expected one of the splits {', '.join(SPLITS)}, found {split!r}; "
            f"for a path with a = in it write {flag} train={argument}"
        )
    if not path:
        raise UserError(f"{flag} {argument}: expected a path after {split}=, found none")
    return Input(split, path, flag)


def list_members(inputs: Iterable[Input], validation_fraction: float) -> list[Member]:
    """Every member of every input, sorted by split and name, writers moved to validation by `validation_fraction`.

    Raises UserError for whatever can't be read, and where two members of a split share a name.
    """
    members = [member for one in inputs for member in _members_of(one)]
    members = _move_to_validation(members, validation_fraction)
    by_name: dict[tuple[str, str], Member] = {}
    for member in members:
        other = by_name.setdefault((member.split, member.name), member)
        if other is not member:
            raise UserError(
                f"{member.split}: expected every member's name once, found {member.name} in {other.location} and in "
                f"{member.location}; leave one of them out, or give them different splits"
            )
    return [by_name[key] for key in sorted(by_name)]


def is_moved_to_validation(writer: str, fraction: float) -> bool:
    """Whether a writer belongs to the validation split: the same answer in every conversion."""
    digest = hashlib.blake2b(writer.encode("utf-8", "surrogateescape"), digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _move_to_validation(members: list[Member], fraction: float) -> list[Member]:
    if not fraction:
        return members
    moved = [
        replace(member, split="validation")
        if member.split == "train" and is_moved_to_validation(member.writer, fraction)
        else member
        for member in members
    ]
    before = {member.writer for member in members if member.split == "train"}
    after = {member.writer for member in moved if member.split == "train"}
    if not before:
        raise UserError(
            f"--validation_fraction {fraction:g}: expected --input for train to take writers from, found none"
        )
    if before == after or not after:
        which = "none" if after else "all"
        advice = "a larger" if after else "a smaller"
        raise UserError(
            f"--validation_fraction {fraction:g}: expected it to choose some of train's {len(before)} writers, it "
            f"chose {which}; name {advice} fraction"
        )
    return moved


def _members_of(one: Input) -> list[Member]:
    with explained(f"read {one.path}"):
        files = storage.find(one.path)
    members: list[Member] = []
    for file in files:
        name = storage.base_name(file.path)
        suffix = name.lower().rpartition(".")[2]
        if name.startswith("._") or "/__MACOSX/" in file.path or suffix not in ("gnt", "zip", "alz"):
            continue  # what macOS adds beside a file is no handwriting
        if suffix == "alz":
            raise zips.alz_error(file.path)
        if file.special:  # reading one could wait forever
            raise UserError(
                f"{file.path}: expected a file, found {file.special}; remove it, or name the files beside it"
            )
        if suffix == "gnt":
            members.append(Member(one.split, file.path, printable(name), file.size_bytes, file.version))
        else:
            members.extend(_zip_members(one.split, file))
    if not members:
        found = f"{len(files)} other files" if files else "nothing"
        raise UserError(
            f"{one.flag} {one.split}={one.path}: expected a .gnt, a .zip, or a folder or glob of them, found {found}; "
            "check the path"
        )
    return members


def _zip_members(split: str, file: storage.StoredFile) -> list[Member]:
    with _explained_zip(file.path), storage.open_read(file.path, 0, file.size_bytes, zips.BUFFER_BYTES) as stream:
        entries = zips.list_entries(file.path, stream)
    return [
        Member(
            split=split,
            location=file.path,
            name=printable(entry.name),
            size_bytes=entry.size_bytes,
            version=f"{entry.crc:08x}",
            zip_entry=entry.index,
            data_offset=entry.data_offset,
            deflated_bytes=entry.data_bytes if entry.is_deflated else None,
        )
        for entry in entries
    ]


@contextlib.contextmanager
def open_member(member: Member, buffer_bytes: int = storage.BUFFER_BYTES) -> Iterator[BinaryIO]:
    """The member's bytes as a stream, from its first byte; it can `seek` only where it has random access."""
    begin, size = member.data_offset, member.size_bytes if member.deflated_bytes is None else member.deflated_bytes
    with (
        _explained_zip(member.location),
        storage.open_read(member.location, begin, begin + size, buffer_bytes) as stream,
    ):
        yield stream if member.deflated_bytes is None else zips.open_inflated(stream, size)


def read_stretch(member: Member, begin: int, size: int) -> bytes:
    """`size` bytes of a member with random access. Raises UserError if it is shorter than its listing said."""
    with _explained_zip(member.location):
        data = storage.read_range(member.location, member.data_offset + begin, size)
    return _whole(data, size, member)


def read_exactly(stream: BinaryIO, size: int, member: Member) -> bytes:
    """`size` bytes of the stream. Raises UserError if the member is shorter than its listing said."""
    return _whole(stream.read(size), size, member)


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
def _explained_zip(location: str) -> Iterator[None]:
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
            f"{location}: expected an intact zip, found it damaged or unsupported ({error}); download it again"
        ) from error
