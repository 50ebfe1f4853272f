"""The bytes of a split's shards: mapped on a disk, by way of the cache too, or asked for by ranges in a store."""

from __future__ import annotations

import copy
import mmap
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from pipeline import storage
from pipeline.reader.cache import ShardCache
from schemas.dataset import DatasetError, ShardFile

_GAP_BYTES, _RANGE_BYTES, _RANGES_AT_ONCE = 64 << 10, 8 << 20, 16  # of a store: what one request may ask for


class ShardBytes:
    """Raises DatasetError where a shard isn't as long as the card says."""

    def __init__(self, folder: str, shards: Sequence[ShardFile], cache: ShardCache | None = None) -> None:
        self._paths = [storage.join(folder, shard.path) for shard in shards]
        self._by_ranges = frozenset(range(len(shards)) if storage.of(folder).is_remote and cache is None else ())
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

    def with_parts_of(self, numbers: Iterable[int]) -> ShardBytes:
        """The same shards, of which these are never fetched whole, as a part of each is all that will be read."""
        other = copy.copy(self)
        if self._cache is not None:
            other._by_ranges |= frozenset(numbers)
        return other

    def opened(self, number: int) -> BinaryIO | None:
        """A whole shard of a store, open to be read; None if it is fetched in parts alone."""
        if self._cache is None or number in self._by_ranges:
            return None
        return self._cache.opened(self._shards[number])

    def frames(self, shard: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Iterable[bytes]:
        """The bytes [begin, end) of each numbered shard, copied one after the other as they are asked for."""
        places = shard.tolist(), begin.tolist(), end.tolist()
        numbers = set(places[0])
        if numbers <= self._by_ranges:
            return self._ranges(*places)
        maps = {number: self._map(number) for number in numbers - self._by_ranges}
        far = [at for at, number in enumerate(places[0]) if number not in maps] if len(maps) < len(numbers) else []
        fetched = iter(self._ranges(*([column[at] for at in far] for column in places)))
        return (
            maps[number][first:last] if number in maps else next(fetched)
            for number, first, last in zip(*places, strict=True)
        )

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
