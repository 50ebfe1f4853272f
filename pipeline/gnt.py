"""The GNT format: where each record of a member begins, what its header says, and how to go on after a broken one.

A record is uint32 LE size (header included), two tag bytes, uint16 LE width, uint16 LE height, then width × height
bytes, row by row; paper is 255, ink is 0 to 254. There is no file header, no index and no checksum, so one bad header
could hide everything behind it: after one, the walk looks for the next place where a chain of good headers begins.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np

from schemas.classes import TAG_CODES, character_of
from schemas.manifest import EMPTY_BITMAP, HEADER_MISMATCH, OVERSIZED, TRUNCATED

HEADER_BYTES = 10
MAX_RECORD_BYTES = 4 << 20  # 4 MiB, 2,048 × 2,048 pixels: 30 times the largest character known
CHAIN_LENGTH = 3
"""Good headers in a row that make a place in damaged bytes a record's beginning; fewer do where the member ends."""
LOOKAHEAD_BYTES = (CHAIN_LENGTH + 1) * MAX_RECORD_BYTES

SOUND = ""
_HEADER = struct.Struct("<IHHH")
_SCAN_BYTES = 64 << 10  # the first stretch searched after a broken header; it grows from there


@dataclass(frozen=True)
class Records:
    """The records in a stretch of a member, in order and without gaps. Every array is [n]."""

    offset: np.ndarray
    """int64: first byte, counted from the stretch's beginning."""
    size: np.ndarray
    """int64: length in bytes; where the record is broken, up to the next one that isn't."""
    tag_code: np.ndarray
    """int32: the two tag bytes read big-endian; -1 if the stretch ends before them."""
    width: np.ndarray
    """int32, pixels, as the header says; -1 if the stretch ends before it."""
    height: np.ndarray
    """int32, pixels, as the header says; -1 if the stretch ends before it."""
    fault: list[str]
    """SOUND, or the reason why the record can't be read."""

    def __len__(self) -> int:
        return len(self.fault)

    @property
    def end(self) -> int:
        """The byte after the last record."""
        return int(self.offset[-1] + self.size[-1]) if len(self) else 0


def walk(data: bytes | memoryview, *, stop: int | None = None, last: bool = True) -> Records:
    """The records that begin before byte `stop` (default: the end) of `data`.

    `last` says that the member ends where `data` does. Otherwise `data` must reach LOOKAHEAD_BYTES beyond `stop`, so
    that every record which begins before `stop` is whole and what follows it can be seen.
    """
    end = len(data)
    stop = end if stop is None else min(stop, end)
    unpack = _HEADER.unpack_from
    begins: list[int] = []
    faults: dict[int, str] = {}
    offset = 0
    while offset < stop:
        begins.append(offset)
        if offset + HEADER_BYTES <= end:
            size, _, width, height = unpack(data, offset)
            if size == HEADER_BYTES + width * height and size <= MAX_RECORD_BYTES and offset + size <= end:
                if size == HEADER_BYTES:
                    faults[len(begins) - 1] = EMPTY_BITMAP
                offset += size
                continue
        faults[len(begins) - 1] = _fault(data, offset)
        offset = _next_beginning(data, offset, last)
    return _records(data, begins, offset, faults)


def clean_cuts(records: Records) -> np.ndarray:
    """Indices at which `records` may be cut in two so that walking each part alone finds the same records.

    A cut is clean where CHAIN_LENGTH sound records follow: whatever the walk looked for behind a broken header before
    the cut, it had found by then. int64 [k], ascending, each > 0.
    """
    n = len(records)
    sound = np.fromiter((not fault for fault in records.fault), bool, n)
    if n <= CHAIN_LENGTH:
        return np.empty(0, np.int64)
    follows = np.lib.stride_tricks.sliding_window_view(sound, CHAIN_LENGTH).all(axis=1)
    cuts = np.flatnonzero(follows)
    return cuts[cuts > 0]


def _records(data: bytes | memoryview, begins: list[int], end: int, faults: dict[int, str]) -> Records:
    offset = np.array(begins, np.int64)
    size = np.diff(offset, append=end)
    octets = np.frombuffer(data, np.uint8)
    whole = offset + HEADER_BYTES <= len(octets)
    header = np.zeros((len(offset), HEADER_BYTES), np.int32)
    header[whole] = octets[offset[whole, None] + np.arange(HEADER_BYTES)]
    tag_code = np.where(whole, header[:, 4] << 8 | header[:, 5], -1)
    width = np.where(whole, header[:, 6] | header[:, 7] << 8, -1)
    height = np.where(whole, header[:, 8] | header[:, 9] << 8, -1)
    return Records(offset, size, tag_code, width, height, [faults.get(i, SOUND) for i in range(len(offset))])


def _fault(data: bytes | memoryview, offset: int) -> str:
    if offset + HEADER_BYTES > len(data):
        return TRUNCATED
    size, _, width, height = _HEADER.unpack_from(data, offset)
    if size != HEADER_BYTES + width * height:
        return HEADER_MISMATCH
    return OVERSIZED if size > MAX_RECORD_BYTES else TRUNCATED


def _next_beginning(data: bytes | memoryview, offset: int, last: bool) -> int:
    """Where the record after the broken one at `offset` begins: the end of `data` if nothing there looks like one."""
    end = len(data)
    if offset + HEADER_BYTES <= end:
        size, _, width, height = _HEADER.unpack_from(data, offset)
        # Most often one of the two lengths in a header is still true.
        for beginning in (offset + size, offset + HEADER_BYTES + width * height):
            if beginning > offset + HEADER_BYTES and _chain_begins(data, beginning, last):
                return beginning
    octets = np.frombuffer(data, np.uint8)
    begin, stretch = offset + 1, _SCAN_BYTES
    while begin + HEADER_BYTES <= end:
        for candidate in _consistent_headers(octets[begin : begin + stretch + HEADER_BYTES - 1]):
            if _chain_begins(data, begin + int(candidate), last):
                return begin + int(candidate)
        begin += stretch
        stretch = min(2 * stretch, 1 << 20)
    return end


def _consistent_headers(octets: np.ndarray) -> np.ndarray:
    """Offsets in `octets` (uint8 [n]) where size, width and height agree and a known tag stands. int64 [k], ascending."""
    n = len(octets) - HEADER_BYTES + 1
    # The size's high byte is 0 and the next one small in every record we accept; pixels are seldom 0.
    candidates = np.flatnonzero((octets[3 : n + 3] == 0) & (octets[2 : n + 2] <= MAX_RECORD_BYTES >> 16))
    header = octets[candidates[:, None] + np.arange(HEADER_BYTES)].astype(np.int64)
    size = header[:, 0] | header[:, 1] << 8 | header[:, 2] << 16
    area = (header[:, 6] | header[:, 7] << 8) * (header[:, 8] | header[:, 9] << 8)
    tag_code = header[:, 4] << 8 | header[:, 5]
    good = (area > 0) & (size == HEADER_BYTES + area) & (size <= MAX_RECORD_BYTES) & _known_tags()[tag_code]
    return candidates[good]


def _chain_begins(data: bytes | memoryview, offset: int, last: bool) -> bool:
    """Whether CHAIN_LENGTH good headers stand in a row from `offset`, or fewer that end exactly with the member."""
    end = len(data)
    for _ in range(CHAIN_LENGTH):
        if offset == end:
            return last
        if offset + HEADER_BYTES > end:
            return False
        size, tag, width, height = _HEADER.unpack_from(data, offset)
        if size != HEADER_BYTES + width * height or size == HEADER_BYTES or size > MAX_RECORD_BYTES:
            return False
        if not _known_tags()[(tag & 0xFF) << 8 | tag >> 8] or offset + size > end:
            return False
        offset += size
    return True


@cache
def _known_tags() -> np.ndarray:
    """bool [65536], by tag code: whether some codec knows the tag."""
    return np.array([character_of(code.to_bytes(2, "big")) is not None for code in range(TAG_CODES)])
