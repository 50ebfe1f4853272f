"""The GNT format: where each record of a member begins, what its header says, and how to go on after a broken one.

A record is uint32 LE size (header included), two tag bytes, uint16 LE width, uint16 LE height, then width × height
bytes, row by row; paper is 255, ink is 0 to 254. There is no file header, no index and no checksum, so one bad header
could hide everything behind it: after one, the walk looks for the next place where a chain of good headers begins.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from schemas.classes import TAG_CODES, character_of
from schemas.manifest import EMPTY_BITMAP, HEADER_MISMATCH, OVERSIZED, TRUNCATED

HEADER_BYTES = 10
MAX_RECORD_BYTES = 4 << 20  # 4 MiB, 2,048 × 2,048 pixels: 30 times the largest character known
CHAIN_LENGTH = 3
"""Good headers in a row that make a place in damaged bytes a record's beginning; fewer do where the member ends."""
MAX_DAMAGE_BYTES = 16 << 20  # 16 MiB: longer damage is several rejects, so that a chunk's memory has a bound
LOOKAHEAD_BYTES = MAX_DAMAGE_BYTES + CHAIN_LENGTH * MAX_RECORD_BYTES + HEADER_BYTES
"""How far behind its beginning a record's end is decided."""

SOUND = ""
FAULTS = (SOUND, EMPTY_BITMAP, HEADER_MISMATCH, OVERSIZED, TRUNCATED)
"""What a record's fault can be."""
_HEADER = struct.Struct("<IHHH")
_FIRST_SCAN_BYTES, _MOST_SCAN_BYTES = 1 << 10, 256 << 10  # the stretches searched for a header, each twice the last


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

    def part(self, which: slice) -> Records:
        return _records_of([array[which] for array in self.arrays], self.fault[which])

    def followed_by(self, others: Records) -> Records:
        joined = [np.concatenate(two) for two in zip(self.arrays, others.arrays, strict=True)]
        return _records_of(joined, self.fault + others.fault)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.offset, self.size, self.tag_code, self.width, self.height


def _records_of(arrays: Sequence[np.ndarray], fault: list[str]) -> Records:
    offset, size, tag_code, width, height = arrays
    return Records(offset, size, tag_code, width, height, fault)


NO_RECORDS = _records_of([np.empty(0, np.int64)] * 2 + [np.empty(0, np.int32)] * 3, [])


def walk(data: bytes | memoryview, *, stop: int | None = None, last: bool = True) -> Records:
    """The records that begin before byte `stop` (default: the end) of `data`.

    `last` says that the member ends where `data` does. Otherwise `data` must reach LOOKAHEAD_BYTES beyond `stop`, so
    that where each record ends can be seen; but for the last one, into which a broken header behind `stop` may cut.
    """
    return next(walk_in_parts(data, len(data) + 1, stop=stop, last=last), NO_RECORDS)


def walk_in_parts(
    data: bytes | memoryview, most: int, *, stop: int | None = None, last: bool = True
) -> Iterator[Records]:
    """The same records, at most so many at a time: in a hostile member they can be as short as their headers."""
    end = len(data)
    stop = end if stop is None else min(stop, end)
    unpack = _HEADER.unpack_from
    begins, faults = array("q"), array("B")
    offset = 0
    while offset < stop:
        if len(begins) > most:  # whose last one may still change
            yield _records(data, begins[:most], begins[most], faults[:most])
            begins, faults = begins[most:], faults[most:]
        begins.append(offset)
        faults.append(0)
        if offset + HEADER_BYTES <= end:
            size, _, width, height = unpack(data, offset)
            if size == HEADER_BYTES + width * height and size <= MAX_RECORD_BYTES and offset + size <= end:
                if size == HEADER_BYTES:
                    faults[-1] = FAULTS.index(EMPTY_BITMAP)
                offset += size
                continue
        follows_sound = len(begins) > 1 and not faults[-2]
        beginning = _next_beginning(data, offset, begins[-2] + HEADER_BYTES if follows_sound else offset + 1, last)
        if beginning < offset:
            # The record before lost some of its bytes, and its header reaches into the next one.
            begins.pop()
            faults.pop()
            faults[-1] = FAULTS.index(TRUNCATED)
        else:
            faults[-1] = FAULTS.index(_fault(data, offset))
        offset = beginning
    begins.append(offset)
    for first in range(0, len(faults), most):
        part = begins[first : first + most + 1]
        yield _records(data, part[:-1], part[-1], faults[first : first + most])


def good_run(data: bytes | memoryview, stop: int, most: int) -> tuple[np.ndarray, int]:
    """Records with good headers, one behind the other, from the first chain of them in `data` on.

    Their offsets, int64 [n], at most so many, before `stop`; and where the last one ends. A walk that finds one of them
    finds all that follow.
    """
    octets, end, offset = np.frombuffer(data, np.uint8), len(data), 0
    while not _chain_begins(data, offset, CHAIN_LENGTH, last=False):
        limit = min(stop, offset + _MOST_SCAN_BYTES)
        found = _consistent_headers(octets[offset + 1 : limit + HEADER_BYTES])
        offset = offset + 1 + int(found[0]) if len(found) else limit
        if offset >= stop:
            return np.empty(0, np.int64), stop
    offsets = array("q")
    unpack, known = _HEADER.unpack_from, _known_tags()
    while offset < stop and offset + HEADER_BYTES <= end and len(offsets) < most:
        size, tag, width, height = unpack(data, offset)
        if not HEADER_BYTES < size == HEADER_BYTES + width * height or size > MAX_RECORD_BYTES:
            break
        if not known[(tag & 0xFF) << 8 | tag >> 8]:
            break
        offsets.append(offset)
        offset += size
    return np.array(offsets, np.int64), offset


def clean_cuts(records: Records, needed_before: int = 0) -> np.ndarray:
    """Indices at which `records` may be cut in two so that walking each part alone finds the same records.

    A cut is clean where CHAIN_LENGTH good headers follow: whatever the walk looked for behind a broken header before
    the cut, it had found by then. Nothing before it may need the bytes behind it: not a reject shorter than a header,
    nor a header that reaches across; `needed_before` is the byte up to which what precedes `records` does. int64 [k],
    ascending, each > 0.
    """
    if len(records) <= CHAIN_LENGTH:
        return np.empty(0, np.int64)
    sound = np.fromiter((not fault for fault in records.fault), bool, len(records))
    good = sound & _known_tags()[records.tag_code]
    follows = np.logical_and.reduce(np.lib.stride_tricks.sliding_window_view(good, CHAIN_LENGTH), axis=1)
    cuts = 1 + np.flatnonzero(follows[1:])
    needed = np.maximum(np.maximum.accumulate(_needed(records)), needed_before)
    return cuts[needed[cuts - 1] <= records.offset[cuts]]


def last_clean_cut(parts: Iterable[Records]) -> tuple[int, int]:
    """The last of the clean cuts in records that come in parts: its index and first byte; (0, 0) if there is none."""
    found, first, needed, seen = (0, 0), 0, 0, NO_RECORDS
    for part in parts:
        seen = seen.followed_by(part)
        cuts = clean_cuts(seen, needed)
        if len(cuts):
            found = first + int(cuts[-1]), int(seen.offset[cuts[-1]])
        done = max(0, len(seen) - CHAIN_LENGTH)  # the last ones are looked at with what follows them
        needed = int(_needed(seen)[:done].max(initial=needed))
        first, seen = first + done, seen.part(slice(done, None))
    return found


def _needed(records: Records) -> np.ndarray:
    """int64 [n]: the byte up to which each record's beginning was decided by what stands there."""
    needed = records.offset + HEADER_BYTES
    if TRUNCATED in records.fault:
        truncated = np.fromiter((fault == TRUNCATED for fault in records.fault), bool, len(records))
        needed[truncated] += records.width[truncated].astype(np.int64) * records.height[truncated]
    return needed


def _records(data: bytes | memoryview, begins: array[int], end: int, faults: array[int]) -> Records:
    offset = np.array(begins, np.int64)
    size = np.diff(offset, append=end)
    octets = np.frombuffer(data, np.uint8)
    # Only the last header can be cut short: behind every other one there is a record.
    whole = offset[:-1] if len(offset) and offset[-1] + HEADER_BYTES > len(octets) else offset

    def field(high: int, low: int) -> np.ndarray:
        value = np.full(len(offset), -1, np.int32)
        value[: len(whole)] = octets[whole + high]
        value[: len(whole)] <<= 8
        value[: len(whole)] |= octets[whole + low]
        return value

    reasons = [FAULTS[fault] for fault in faults]
    return Records(offset, size, tag_code=field(4, 5), width=field(7, 6), height=field(9, 8), fault=reasons)


def _fault(data: bytes | memoryview, offset: int) -> str:
    if offset + HEADER_BYTES > len(data):
        return TRUNCATED
    size, _, width, height = _HEADER.unpack_from(data, offset)
    if size != HEADER_BYTES + width * height:
        return HEADER_MISMATCH
    return OVERSIZED if size > MAX_RECORD_BYTES else TRUNCATED


def _next_beginning(data: bytes | memoryview, offset: int, search_from: int, last: bool) -> int:
    """Where the record after the broken one at `offset` begins.

    The search starts at `search_from`, which may lie in the record before. Without a find it is MAX_DAMAGE_BYTES
    behind `offset`, or the end of `data`.
    """
    end = len(data)
    if offset + HEADER_BYTES <= end:
        size, _, width, height = _HEADER.unpack_from(data, offset)
        # Most often one of the two lengths in a header is still true; a good header there is no accident.
        for length in sorted((size, HEADER_BYTES + width * height)):
            if HEADER_BYTES < length <= MAX_RECORD_BYTES and _chain_begins(data, offset + length, 1, last):
                return offset + length
    octets = np.frombuffer(data, np.uint8)
    limit = min(offset + MAX_DAMAGE_BYTES, end)
    begin, stretch = search_from, _FIRST_SCAN_BYTES
    while begin < limit:
        stop = min(begin + stretch, limit)
        for candidate in _consistent_headers(octets[begin : stop + HEADER_BYTES - 1]).tolist():
            if _chain_begins(data, begin + candidate, CHAIN_LENGTH, last):
                return begin + candidate
        begin = stop
        stretch = min(2 * stretch, _MOST_SCAN_BYTES)
    return limit


def _consistent_headers(octets: np.ndarray) -> np.ndarray:
    """Offsets in `octets` (uint8 [n]) where size, width and height agree and a known tag stands: int64 [k]."""
    n = max(0, len(octets) - HEADER_BYTES + 1)
    # The size's high byte is 0 and the next one small in every record we accept; pixels are seldom 0.
    at = np.flatnonzero((octets[3 : n + 3] == 0) & (octets[2 : n + 2] <= MAX_RECORD_BYTES >> 16))

    def number(*places: int) -> np.ndarray:
        return np.add.reduce([octets[at + place].astype(np.int64) << 8 * i for i, place in enumerate(places)])

    at = at[number(0, 1, 2) > HEADER_BYTES]  # long runs of 0 end here, before they cost memory
    at = at[number(0, 1, 2) == HEADER_BYTES + number(6, 7) * number(8, 9)]
    return at[(number(0, 1, 2) <= MAX_RECORD_BYTES) & _known_tags()[number(5, 4)]]


def _chain_begins(data: bytes | memoryview, offset: int, length: int, last: bool) -> bool:
    """Whether `length` good headers stand in a row from `offset`, or fewer that end exactly with the member."""
    end = len(data)
    for link in range(length):
        if offset == end:
            return last
        if offset + HEADER_BYTES > end:
            return False
        size, tag, width, height = _HEADER.unpack_from(data, offset)
        if size != HEADER_BYTES + width * height or size > MAX_RECORD_BYTES or offset + size > end:
            return False
        # An empty bitmap is a good link, but so short that damage can look like one.
        if not _known_tags()[(tag & 0xFF) << 8 | tag >> 8] or (size == HEADER_BYTES and link == 0):
            return False
        offset += size
    return True


@cache
def _known_tags() -> np.ndarray:
    """bool [65536], by tag code: whether some codec knows the tag."""
    return np.array([character_of(code.to_bytes(2, "big")) is not None for code in range(TAG_CODES)])
