"""Chunks: the stretches of a member that are converted as one piece of work.

A member of a writer (some 20 MB) is one chunk. A larger one is cut where a walk over its headers says that a cut is
clean, so that one file of 6 GB is as parallel as 240 small ones.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from pipeline import gnt, storage
from pipeline.archives import Member, open_member, read_exactly
from pipeline.errors import UserError

CHUNK_BYTES = 32 << 20  # 32 MiB, some 6,000 records of CASIA's
"""The most a chunk holds, but for the record that crosses this mark."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of one member."""

    member: Member
    begin: int
    """First byte in the member."""
    end: int
    first_record: int
    """The index in the member of the chunk's first record."""
    unpacked: str | None = None
    """A file holding just the chunk's bytes: what is compressed has no random access, so planning writes them out."""

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin

    @property
    def is_whole_member(self) -> bool:
        return self.size_bytes == self.member.size_bytes

    @property
    def order(self) -> tuple[str, int]:
        """Sorts the chunks of a split."""
        return (self.member.name, self.first_record)

    def digest(self, config_digest: str) -> str:
        """Equal for two chunks of which one's staged piece can stand in for the other's."""
        member = self.member
        identity = (config_digest, member.split, member.archive, member.name, member.size_bytes, member.version)
        text = repr((*identity, member.location, self.begin, self.end, self.first_record))
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def plan_chunks(member: Member, unpack_folder: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """The chunks of a member, in order; an empty member has none."""
    if member.size_bytes == 0:
        return
    if member.size_bytes <= chunk_bytes:
        yield Chunk(member, 0, member.size_bytes, 0)
        return
    begin = first_record = crc = 0
    data, stop = b"", chunk_bytes
    with open_member(member) as stream:
        while begin < member.size_bytes:
            wanted = max(0, min(stop + gnt.LOOKAHEAD_BYTES, member.size_bytes - begin) - len(data))
            fresh = read_exactly(stream, wanted, member)
            crc = zlib.crc32(fresh, crc)
            data += fresh
            records = gnt.walk(data, stop=stop, last=begin + len(data) == member.size_bytes)
            count, size = _cut(data, records, is_last=begin + records.end == member.size_bytes)
            if not count:
                stop *= 2
                continue
            chunk = Chunk(member, begin, begin + size, first_record)
            yield chunk if member.random_access else _unpack(chunk, data[:size], unpack_folder)
            begin, first_record, data, stop = begin + size, first_record + count, data[size:], chunk_bytes
    _check_crc(member, crc)


def read_chunk(chunk: Chunk) -> bytes:
    """The chunk's bytes."""
    if chunk.unpacked is not None:
        with storage.explained(f"read {chunk.unpacked}"):
            return storage.read_bytes(chunk.unpacked)
    with open_member(chunk.member) as stream:
        data = _read_at(stream, chunk)
    if chunk.is_whole_member:
        _check_crc(chunk.member, zlib.crc32(data) if chunk.member.zip_entry is not None else 0)
    return data


def _read_at(stream: BinaryIO, chunk: Chunk) -> bytes:
    if chunk.begin:
        stream.seek(chunk.member.data_offset + chunk.begin)
    return read_exactly(stream, chunk.size_bytes, chunk.member)


def _cut(data: bytes, records: gnt.Records, *, is_last: bool) -> tuple[int, int]:
    """How many of the walked records make the next chunk, and their length in bytes; (0, 0) if more must be walked."""
    if is_last:
        return len(records), records.end
    cuts = gnt.clean_cuts(records)
    if len(cuts):
        last = int(cuts[-1])
        return last, int(records.offset[last])
    # Damage all over. Where the last record ends isn't certain yet, so the chunk ends before it; and its walk, which
    # won't see what follows, has the last word on how many records that is.
    if len(records) == 1:
        return 0, 0
    size = int(records.offset[-1])
    return len(gnt.walk(data[:size])), size


def _unpack(chunk: Chunk, data: bytes, folder: str) -> Chunk:
    path = storage.join(folder, f"unpacked-{chunk.digest('')}.gnt")
    if storage.size_bytes(path) != len(data):
        with storage.explained(f"write {path}"):
            storage.write_bytes(path, data)
    return replace(chunk, unpacked=path)


def _check_crc(member: Member, crc: int) -> None:
    if member.zip_entry is not None and f"{crc:08x}" != member.version:
        raise UserError(
            f"{member}: expected CRC-32 {member.version} of its bytes, found {crc:08x}; the zip is damaged, "
            "download it again"
        )
