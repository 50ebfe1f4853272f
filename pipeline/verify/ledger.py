"""Every byte of every member belongs to one record: proved by a checksum per member, so that memory stays flat.

A member's records lie in shards in another order. But each record begins where the one before it ends, so over the
whole member every (index + 1, end) must be some record's (index, offset), but for the last, which is (records, size).
Two sums of hashes, one over the beginnings and one over the ends, tell whether that is so, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MASK = 2**64 - 1


@dataclass(frozen=True)
class Tally:
    """What some of a member's rows add up to."""

    rows: int = 0
    balance: int = 0
    """Hashes of the beginnings minus hashes of the ends, modulo 2^64."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, (self.balance + other.balance) & _MASK)

    def tiles(self, size_bytes: int) -> bool:
        """Whether the rows cover a member of that size from its first byte to its last, each byte once."""
        ends = np.array([[0, 0], [self.rows, size_bytes]], np.uint64)
        first, last = _hash(ends[:, 0], ends[:, 1]).tolist()
        return self.balance == (first - last) & _MASK


def tally_rows(rows: pa.Table) -> dict[str, Tally]:
    """The tally of each member in a manifest part."""
    members = rows["member"].combine_chunks().dictionary_encode()
    code = members.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    index, offset, size = (rows[name].to_numpy().astype(np.uint64) for name in _PLACE)
    change = (_hash(index, offset) - _hash(index + np.uint64(1), offset + size))[order]
    starts = np.searchsorted(code[order], np.arange(len(members.dictionary)))
    sums = np.add.reduceat(change, starts) if len(starts) else change
    counts = np.diff(starts, append=len(code))
    names = members.dictionary.to_pylist()
    return {name: Tally(int(n), int(balance)) for name, n, balance in zip(names, counts, sums, strict=True)}


def gaps(parts: Iterable[pa.Table], member: str, size_bytes: int) -> Iterator[str]:
    """Where a member's rows don't tile it, in words; `parts` are the manifest parts of its split."""
    own = pa.concat_tables(part.filter(pc.equal(part["member"], member)).select(_PLACE) for part in parts)
    index, offset, size = (own[name].to_numpy().astype(np.int64) for name in _PLACE)
    order = np.argsort(offset, kind="stable")
    at = 0
    for i in order.tolist():
        if offset[i] > at:
            yield f"bytes {at:,} to {offset[i] - 1:,} belong to no row"
        elif offset[i] < at:
            twice = min(at, offset[i] + size[i])
            yield f"bytes {offset[i]:,} to {twice - 1:,} belong to record {index[i]:,} and to another"
        at = max(at, int(offset[i] + size[i]))
    if at != size_bytes:
        yield f"the rows end at byte {at:,}, the member at byte {size_bytes:,}"
    for position, i in enumerate(order.tolist()):
        if index[i] != position:
            yield f"expected record_index {position:,} at byte {offset[i]:,}, found {index[i]:,}"
            return


_PLACE = ["record_index", "source_offset", "source_bytes"]


def _hash(index: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """uint64 [n]: well mixed, so that sums of differing sets differ."""
    return _mix(_mix(index) + offset)


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
