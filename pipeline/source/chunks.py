"""Chunks: the stretches of a member that are converted as one piece of work.

A member of a writer (some 20 MB) is one chunk. A larger one is cut where a walk over its headers says that a cut is
clean, so that one file of 6 GB is as parallel as 240 small ones. So is that walk: windows of the file are probed each
by itself, and where the runs of good records in them meet, the walk is known; elsewhere it is gone.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline import storage
from pipeline.source import gnt
from pipeline.source.members import Member, open_member, read_exactly, read_stretch
from schemas.errors import UserError, explained

CHUNK_BYTES = 32 << 20  # 32 MiB, some 6,000 records of CASIA's
"""The most a chunk holds, but for the record that crosses this mark."""
_PART_RECORDS = 1 << 16  # looked at together: a hostile member has millions


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of one member."""

    member: Member
    begin: int
    """First byte in the member."""
    end: int
    first_record: int
    """The index in the member of the chunk's first record."""
    crc: int | None = None
    """CRC-32 of the bytes, of a part of a zip's member: what was made of others can't stand in for it."""
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
        text = repr((*identity, member.location, self.begin, self.end, self.first_record, self.crc))
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class Window:
    """A run of good records in a stretch of a member."""

    offsets: np.ndarray
    """int64 [n]: where each begins in the member."""
    end: int
    """Where the last one does end."""


def count_windows(member: Member, window_bytes: int = CHUNK_BYTES) -> int:
    """How many windows of a member can be probed before it is planned; none where all of it has to be read."""
    is_large = member.zip_entry is None and member.size_bytes > window_bytes
    return -(-member.size_bytes // window_bytes) if is_large else 0


def probe(member: Member, number: int, window_bytes: int = CHUNK_BYTES) -> Window:
    begin = number * window_bytes
    data = read_stretch(member, begin, min(window_bytes + gnt.HEADER_BYTES, member.size_bytes - begin))
    offsets, end = gnt.good_run(data, min(window_bytes, len(data)), _PART_RECORDS)
    if begin + end > member.size_bytes:
        offsets, end = offsets[:-1], int(offsets[-1])
    return Window(begin + offsets, begin + end)


def plan_chunks(
    member: Member,
    unpack_folder: str,
    chunk_bytes: int = CHUNK_BYTES,
    windows: Mapping[int, Window] | None = None,
    window_bytes: int = CHUNK_BYTES,
) -> Iterator[Chunk]:
    """The chunks of a member, in order; an empty member has none. What its windows tell isn't read."""
    if member.size_bytes == 0:
        return
    if member.size_bytes <= chunk_bytes:
        yield Chunk(member, 0, member.size_bytes, 0)
        return
    begin = first_record = crc = 0
    data, stop = b"", chunk_bytes
    with open_member(member) as stream:
        while begin < member.size_bytes:
            count, size = _known_cut(windows or {}, begin, begin + stop, member.size_bytes, window_bytes)
            if count:
                yield Chunk(member, begin, begin + size, first_record)
                begin, first_record, data = begin + size, first_record + count, b""
                stream.seek(begin)
                continue
            wanted = max(0, min(stop + gnt.LOOKAHEAD_BYTES, member.size_bytes - begin) - len(data))
            fresh = read_exactly(stream, wanted, member)
            crc = zlib.crc32(fresh, crc) if member.zip_entry is not None else 0
            data += fresh
            del fresh  # what is walked over is held once
            count, size = _next_cut(data, stop, member.size_bytes - begin)
            if not count:
                stop *= 2
                continue
            piece, data = data[:size], data[size:]
            piece_crc = zlib.crc32(piece) if member.zip_entry is not None else None
            chunk = Chunk(member, begin, begin + size, first_record, piece_crc)
            yield chunk if member.random_access else _unpack(chunk, piece, unpack_folder)
            del piece
            begin, first_record, stop = begin + size, first_record + count, chunk_bytes
    _check_crc(member, crc)


def read_chunk(chunk: Chunk) -> bytes:
    """The chunk's bytes."""
    if chunk.unpacked is not None:
        with explained(f"read {chunk.unpacked}"):
            data = storage.read_bytes(chunk.unpacked)
    elif chunk.member.random_access:
        data = read_stretch(chunk.member, chunk.begin, chunk.size_bytes)
    else:
        with open_member(chunk.member) as stream:
            data = read_exactly(stream, chunk.size_bytes, chunk.member)
    if chunk.is_whole_member:
        _check_crc(chunk.member, zlib.crc32(data) if chunk.member.zip_entry is not None else 0)
    elif chunk.crc is not None and zlib.crc32(data) != chunk.crc:
        if chunk.unpacked is not None:
            storage.delete([chunk.unpacked])
        raise UserError(
            f"{chunk.unpacked or chunk.member}: expected bytes {chunk.begin:,} to {chunk.end:,} of {chunk.member.name} "
            "as planning read them, found them changed; run the same command again"
        )
    return data


def _known_cut(
    windows: Mapping[int, Window], begin: int, stop: int, member_bytes: int, window_bytes: int
) -> tuple[int, int]:
    """What _next_cut would say of a chunk in which all records are in the runs of windows; (0, 0) of another."""
    runs, at = [], begin
    while at < min(stop, member_bytes):
        window = windows.get(at // window_bytes)
        offsets = np.empty(0, np.int64) if window is None else window.offsets
        first, last = np.searchsorted(offsets, [at, stop]).tolist()
        if window is None or first == len(offsets) or offsets[first] != at:
            return 0, 0
        runs.append(offsets[first:last])
        at = int(offsets[last]) if last < len(offsets) else window.end
    run = np.concatenate(runs)
    if at == member_bytes:
        return len(run), at - begin
    if len(run) <= gnt.CHAIN_LENGTH:
        return 0, 0
    return len(run) - gnt.CHAIN_LENGTH, int(run[-gnt.CHAIN_LENGTH]) - begin


def _next_cut(data: bytes, stop: int, left: int) -> tuple[int, int]:
    """How many of the records that begin before `stop` make the next chunk, and their length in bytes.

    (0, 0) if more must be walked; `left` is the length of `data` and of all that follows in the member.
    """
    count = end = last = 0

    def parts() -> Iterator[gnt.Records]:
        nonlocal count, end, last
        for part in gnt.walk_in_parts(data, _PART_RECORDS, stop=stop, last=len(data) == left):
            yield part
            count, end, last = count + len(part), part.end, int(part.offset[-1])

    cut = gnt.last_clean_cut(parts())
    if end == left:
        return count, left
    if cut[0]:
        return cut
    # Damage all over. Where the last record ends isn't certain yet, so the chunk ends before it; and its walk, which
    # won't see what follows, has the last word on how many records that is.
    if count == 1:
        return 0, 0
    return sum(map(len, gnt.walk_in_parts(memoryview(data)[:last], _PART_RECORDS))), last


def _unpack(chunk: Chunk, data: bytes, folder: str) -> Chunk:
    path = storage.join(folder, f"unpacked-{chunk.digest('')}.bin")
    if storage.size_bytes(path) != len(data):
        with explained(f"write {path}"):
            storage.write_bytes(path, data)
    return replace(chunk, unpacked=path)


def _check_crc(member: Member, crc: int) -> None:
    if member.zip_entry is not None and f"{crc:08x}" != member.version:
        raise UserError(
            f"{member}: expected CRC-32 {member.version} of its bytes, found {crc:08x}; the zip is damaged, "
            "download it again"
        )
