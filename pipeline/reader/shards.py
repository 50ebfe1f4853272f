"""The bytes of a split's shards: mapped on a disk, by way of the cache too, or asked for by ranges in a store."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline import storage
from pipeline.reader.cache import ShardCache
from schemas.dataset import DatasetError, ShardFile

_GAP_BYTES, _RANGE_BYTES, _RANGES_AT_ONCE = 64 << 10, 8 << 20, 16  # of a store: what one request may ask for


class ShardBytes:
    """Raises DatasetError where a shard isn't as long as the card says."""

    def __init__(self, folder: str, shards: Sequence[ShardFile], cache: ShardCache | None = None) -> None:
        self._paths = [storage.join(folder, shard.path) for shard in shards]
        self._is_remote = storage.of(folder).is_remote and cache is None
        self._shards, self._cache = shards, cache
        self._most_maps = len(shards) if cache is None else cache.most_open
        self._maps: dict[int, memoryview] = {}
        self._mapping = threading.Lock()
        self._scratch = threading.local()
        there = {file.path: file.size_bytes for file in storage.list_folder(folder)}
        for path, shard in zip(self._paths, shards, strict=True):
            found = there.get(path)
            if found is None:
                raise DatasetError(
                    f"{path}: expected a shard of {shard.bytes:,} bytes, found none; copy it, or convert again"
                )
            if found != shard.bytes:
                raise DatasetError(
                    f"{path}: expected {shard.bytes:,} bytes, found {found:,}; "
                    "the shard is damaged, copy it again, or convert again"
                )

    def gather(self, shard: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 that hold [begin, end) of each numbered shard, and where each of these pieces begins there."""
        if (shard == shard[0]).all() and (begin[1:] == end[:-1]).all():  # as they lie
            number, first, last = int(shard[0]), int(begin[0]), int(end[-1])
            piece = self._range(number, first, last) if self._is_remote else self._map(number)[first:last]
            return np.frombuffer(piece, np.uint8), begin - first
        room = int((end - begin).max())  # evenly spaced, which is quicker to take apart
        octets = self._scratch_of(len(begin) * room)
        starts = np.arange(0, len(octets), room)
        target, places = octets.data, (shard.tolist(), begin.tolist(), end.tolist())
        if self._is_remote:
            for at, piece in zip(starts.tolist(), self._ranges(*places), strict=True):
                target[at : at + len(piece)] = piece
            return octets, starts
        maps = {number: self._map(number) for number in set(places[0])}
        for at, number, first, last in zip(starts.tolist(), *places, strict=True):
            target[at : at + last - first] = maps[number][first:last]
        return octets, starts

    def _scratch_of(self, size: int) -> np.ndarray:
        """uint8 [size], this thread's until it asks again: new memory takes longer to get than frames to copy."""
        if len(getattr(self._scratch, "octets", b"")) < size:
            self._scratch.octets = np.empty(size, np.uint8)
        return self._scratch.octets[:size]

    def _map(self, number: int) -> memoryview:
        found = self._maps.get(number)
        if found is not None:
            return found
        with self._mapping:
            path = self._paths[number]
            while len(self._maps) >= self._most_maps:
                del self._maps[next(iter(self._maps))]
            try:
                with open(path, "rb") if self._cache is None else self._cache.opened(self._shards[number]) as file:
                    found = self._maps[number] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except (OSError, ValueError) as error:
                raise DatasetError(f"{path}: can't be read ({error}); copy it again, or convert again") from error
            return found

    def _ranges(self, shard: list[int], begin: list[int], end: list[int]) -> list[memoryview]:
        """Near neighbours in one request, several requests at once."""
        order = sorted(range(len(shard)), key=lambda at: (shard[at], begin[at]))
        asked: list[list[int]] = []
        for at in order:
            last = asked[-1] if asked else None
            near = last is not None and shard[last[0]] == shard[at] and begin[at] - end[last[-1]] <= _GAP_BYTES
            if last is not None and near and end[at] - begin[last[0]] <= _RANGE_BYTES:
                last.append(at)
            else:
                asked.append([at])
        pieces: list[memoryview] = [memoryview(b"")] * len(shard)

        def fetch(group: list[int]) -> None:
            first = begin[group[0]]
            found = memoryview(self._range(shard[group[0]], first, max(end[at] for at in group)))
            for at in group:
                pieces[at] = found[begin[at] - first : end[at] - first]

        with ThreadPoolExecutor(_RANGES_AT_ONCE) as pool:  # of this process: threads don't live through a fork
            list(pool.map(fetch, asked))
        return pieces

    def _range(self, number: int, first: int, last: int) -> bytes:
        found = storage.read_range(self._paths[number], first, last - first)
        if len(found) != last - first:
            raise DatasetError(f"{self._paths[number]}: ends before byte {last:,}; copy it again, or convert again")
        return found
