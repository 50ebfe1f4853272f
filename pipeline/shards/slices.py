"""The files of staged rows: in each the rows of a shard lie together, so that a shard reads them at once.

A file has parts of some thousands of rows. A part is the slices of the shards, one behind the other: a shard's rows,
then their images. Behind the slices stand their edges, which say where each begins, its rows and its CRC.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from pipeline import storage
from pipeline.shards.rows import ROW, Part, begins
from schemas.errors import UserError, explained

MOST_SHARDS = 1 << 31
_REQUESTS_AT_ONCE = 8
_MOST_AT_ONCE, _MOST_EDGES = 64 << 10, 32 << 20  # 64 KiB of edges in one read; 32 MiB of them held by a process
_EDGE = np.dtype([("begin", "<u8"), ("rows", "<u4"), ("crc32c", "<u4")])
"""Of a slice: its first byte in the file, its rows, and the CRC-32C of its bytes from before they were written: what is
read back goes into a shard with checksums of its own. One more says where the last slice ends."""


class Bins(NamedTuple):
    """The shards, of so many, that have a slice in each part of a file."""

    num_shards: int
    first: int
    size: int

    def of(self, keys: np.ndarray) -> np.ndarray:
        return shard_of(keys, self.num_shards) - self.first


class StagedPart(NamedTuple):
    """A part of a staged file: all that a shard needs to find its rows in it."""

    path: str
    edges: int
    """The first byte of its edges in the file."""
    source: int | None
    """Position of its rows' Source; None where each says its own."""


class Slice(NamedTuple):
    """The rows that a part has for one shard."""

    path: str
    begin: int
    size_bytes: int
    rows: int
    crc32c: int
    source: int | None


def write_parts(path: str, parts: Iterable[Part], bins: Bins) -> list[int]:
    """Writes parts, rows and images in the order of the bins. Returns where the edges of each begin in the file."""
    written = []
    with explained(f"write {path}"), storage.atomic_write(path) as stream:
        at = 0
        for part in parts:
            where = bins.of(part.rows["key"])
            assert np.all(np.diff(where) >= 0), "rows out of their shards' order"
            edges = np.zeros(bins.size + 1, _EDGE)
            first = np.searchsorted(where, np.arange(bins.size + 1))
            ends = np.append(part.begin, len(part.octets))[first]  # of the images before each
            edges["begin"] = at + ROW.itemsize * first + ends
            edges["rows"][:-1] = np.diff(first)
            for number in np.flatnonzero(edges["rows"]).tolist():
                rows = part.rows[first[number] : first[number + 1]]
                content = b"".join((rows.tobytes(), part.octets[ends[number] : ends[number + 1]]))
                stream.write(content)
                edges["crc32c"][number] = google_crc32c.value(content)
            stream.write(edges.tobytes())
            written.append(int(edges["begin"][-1]))
            at = written[-1] + edges.nbytes
    return written


class Edges:
    """The edges of staged parts, read once by a process while there is room for them."""

    def __init__(self) -> None:
        self._held: dict[StagedPart, np.ndarray] = {}

    def slices(self, parts: Sequence[StagedPart], number: int, count: int) -> list[Slice]:
        """The rows of parts for one of so many bins, where there are any."""
        all_bytes = (count + 1) * _EDGE.itemsize
        if all_bytes > _MOST_AT_ONCE or len(parts) * all_bytes > _MOST_EDGES:
            found = _each(_read_edges, [(part, number * _EDGE.itemsize, 2) for part in parts])
        else:
            if (len(self._held) + len(parts)) * all_bytes > _MOST_EDGES:
                self._held.clear()
            missing = [part for part in parts if part not in self._held]
            read = _each(_read_edges, [(part, 0, count + 1) for part in missing])
            self._held.update(zip(missing, read, strict=True))
            found = [self._held[part][number : number + 2] for part in parts]
        slices = []
        for part, edges in zip(parts, found, strict=True):
            (begin, rows, crc), (end, _, _) = edges.tolist()
            if not begin <= end <= part.edges:
                raise _changed(part)
            if rows:
                slices.append(Slice(part.path, begin, end - begin, rows, crc, part.source))
        return slices


def read_slices(slices: Sequence[Slice]) -> Part:
    """Their rows, in their order. Raises UserError for one that isn't what was staged.

    A file is opened once, for as many of them as it holds one after the other. A store is asked once for each, several
    at a time: what a request costs is its way there and back.
    """
    sizes, counts = (np.array([getattr(one, name) for one in slices], np.int64) for name in ("size_bytes", "rows"))
    first = begins(sizes)
    # Not from the heap, which keeps much of what is freed.
    content = np.frombuffer(mmap.mmap(-1, max(1, int(sizes.sum()))), np.uint8)
    octets = [content[begin : begin + size] for begin, size in zip(first.tolist(), sizes.tolist(), strict=True)]
    _read_into(slices, octets)
    for one, own in zip(slices, octets, strict=True):
        if google_crc32c.value(own) != one.crc32c or len(own) < ROW.itemsize * one.rows:
            raise _changed(one)
    rows = np.concatenate(
        [np.empty(0, ROW), *(np.frombuffer(own, ROW, one.rows) for own, one in zip(octets, slices, strict=True))]
    )
    if slices and slices[0].source is not None:
        rows["source"] = np.repeat([one.source or 0 for one in slices], counts)
    images = np.append(begins(rows["image_bytes"]), rows["image_bytes"].sum(dtype=np.int64))  # bytes before each row
    row = begins(counts)
    before = images[row]
    for one, image_bytes in zip(slices, (images[row + counts] - before).tolist(), strict=True):
        if one.size_bytes != ROW.itemsize * one.rows + image_bytes:
            raise _changed(one)
    return Part(rows, images[:-1] + np.repeat(first + ROW.itemsize * counts - before, counts), content.data)


def shard_of(keys: np.ndarray, num_shards: int) -> np.ndarray:
    """int64 [n]: key * num_shards >> 64, for uint64 keys, without 128-bit integers; MOST_SHARDS at most."""
    n = np.uint64(num_shards)
    low = (keys & np.uint64(0xFFFFFFFF)) * n >> np.uint64(32)
    return (((keys >> np.uint64(32)) * n + low) >> np.uint64(32)).astype(np.int64)


def _each(call: Any, given: Sequence[Any]) -> list[Any]:
    """The call's result for each, several at a time where they wait for a store."""
    if given and storage.of(given[0][0].path).is_remote:
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as executor:
            return list(executor.map(call, given))
    return list(map(call, given))


def _read_edges(wanted: tuple[StagedPart, int, int]) -> np.ndarray:
    """Some edges of a part, from a byte of them on."""
    part, begin, count = wanted
    with explained(f"read {part.path}"):
        content = storage.read_range(part.path, part.edges + begin, count * _EDGE.itemsize)
    if len(content) < count * _EDGE.itemsize:
        raise _changed(part)
    return np.frombuffer(content, _EDGE)


def _read_into(slices: Sequence[Slice], octets: Sequence[np.ndarray]) -> None:
    if slices and storage.of(slices[0].path).is_remote:
        _each(_fetch_into, list(zip(slices, octets, strict=True)))
        return
    for path, own in itertools.groupby(zip(slices, octets, strict=True), lambda one: one[0].path):
        with explained(f"read {path}"), open(path, "rb") as stream:
            for one, part in own:
                stream.seek(one.begin)
                stream.readinto(part.data)


def _fetch_into(wanted: tuple[Slice, np.ndarray]) -> None:
    one, octets = wanted
    with explained(f"read {one.path}"):
        content = storage.read_range(one.path, one.begin, one.size_bytes)
    octets[: len(content)] = np.frombuffer(content, np.uint8)


def _changed(staged: Slice | StagedPart) -> UserError:
    begin = staged.begin if isinstance(staged, Slice) else staged.edges
    return UserError(
        f"{staged.path}: expected the bytes that were staged, found others from byte {begin:,} on; "
        "run the same command again, and delete this file first if that says the same"
    )
