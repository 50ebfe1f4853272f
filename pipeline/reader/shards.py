"""The bytes of a split's shards: mapped on a disk, by way of the cache too, or asked for by ranges in a store."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Sequence
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
        self._maps: dict[int, mmap.mmap] = {}
        self._mapping = threading.Lock()
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

    def frames(self, shard: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Iterable[bytes]:
        """The bytes [begin, end) of each numbered shard, copied one after the other as they are asked for."""
        places = shard.tolist(), begin.tolist(), end.tolist()
        if self._is_remote:
            return self._ranges(*places)
        maps = {number: self._map(number) for number in set(places[0])}
        return (maps[number][first:last] for number, first, last in zip(*places, strict=True))

    def _map(self, number: int) -> mmap.mmap:
        found = self._maps.get(number)
        if found is not None:
            return found
        with self._mapping:
            path = self._paths[number]
            while len(self._maps) >= self._most_maps:
                del self._maps[next(iter(self._maps))]
            try:
                with open(path, "rb") if self._cache is None else self._cache.opened(self._shards[number]) as file:
                    found = self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DatasetError(f"{path}: can't be read ({error}); copy it again, or convert again") from error
            return found

    def _ranges(self, shard: list[int], begin: list[int], end: list[int]) -> list[bytes]:
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
        pieces = [b""] * len(shard)

        def fetch(group: list[int]) -> None:
            first = begin[group[0]]
            found = self._range(shard[group[0]], first, max(end[at] for at in group))
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
