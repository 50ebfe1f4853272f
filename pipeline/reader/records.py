"""The kept records of a split, or some of them, as a sequence: one by its number or its sample_id, many at once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.reader.frames import BrokenFrame, frame_sums, frames_at, read_images
from pipeline.reader.order import Order
from pipeline.reader.shards import ShardBytes
from pipeline.reader.where import Where, texts_of
from schemas.dataset import DatasetError
from schemas.errors import UserError
from schemas.manifest import KEPT

if TYPE_CHECKING:
    from pipeline.reader.dataset import Dataset

_PLACES = ("shard_index", "shard_offset", "shard_bytes", "shard_crc32c", "label")
_KEPT = texts_of([KEPT])[0]
_BLOCK_RECORDS = 4_096  # of a store asked for at once


class Records:
    """`records[i]` is (uint8 [size, size], ink 255 on 0; its label), `records[positions]` (uint8 [n, size, size],
    int32 [n]); positions are a slice, a list or an array.

    The manifest says where each lies, and what its CRC is. Shards are mapped here and read by ranges in a store. It may
    be used by forked processes and threads; where it is pickled the data set is opened again. What isn't as it was
    written raises DatasetError.
    """

    def __init__(self, data: Dataset, split: str, where: Any = None) -> None:
        self.data, self.split, self.where = data, split, where
        self._where = Where(where) if isinstance(where, str) else None
        self.shards = [shard for shard in data.card.split(split).shards if shard.records]
        if not self.shards:
            raise DatasetError(f"{data.folder}: split {split!r} holds no samples")
        self._bytes = ShardBytes(data.folder, self.shards, data.cache)
        chosen = list(self._parts(_PLACES))
        self._shard = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
        columns = pa.concat_tables(chosen)
        if any(columns[name].null_count for name in _PLACES):
            raise self._broken_manifest("places of kept records that are null")
        if not len(columns):
            raise UserError(
                f"where {where}: expected some of the {split!r} records of {data.folder}, found none; ask for more"
            )
        self._index, self._begin, size, self._crc, label = (_numbers(columns[name]) for name in _PLACES)
        self._begin, size = self._begin.astype(np.int64), size.astype(np.int64)
        self._end = self._begin + size
        self.labels: np.ndarray = label.astype(np.int32)
        """int32 [n]: of each, an index into the data set's classes."""
        self._span = 0, len(label)
        if (self._end > np.array([shard.bytes for shard in self.shards])[self._shard]).any():
            raise self._broken_manifest("records that lie beyond the ends of their shards")

    def between(self, first: int, last: int) -> Records:
        """These records from the first position up to the last, as records of their own.

        Of a shard that isn't wholly among them only the ranges are fetched from a store, whatever the cache: processes
        that share a split fetch no byte of it twice.
        """
        if (first, last) == (0, len(self)):
            return self
        part = copy.copy(self)
        part.__dict__.pop("_sums", None)
        for name in ("_shard", "_index", "_begin", "_end", "_crc", "labels"):
            setattr(part, name, getattr(self, name)[first:last])
        part._span = self._span[0] + first, self._span[0] + last
        here, there = (np.bincount(one._shard, minlength=len(self.shards)) for one in (self, part))
        part._bytes = self._bytes.with_parts_of(np.flatnonzero(here != there).tolist())
        return part

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: Any) -> tuple[np.ndarray, Any]:
        if isinstance(at, int | np.integer):
            if not -len(self) <= at < len(self):
                raise IndexError(f"record {at:,} of {len(self):,}")
            images, labels = self.read(np.array([at % len(self)]))
            return images[0], int(labels[0])
        return self.read(np.arange(len(self))[at])

    def __getitems__(self, at: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """What PyTorch's DataLoader asks for where it puts batches together itself: a batch is read at once."""
        images, labels = self[at]
        return list(zip(images, labels.tolist(), strict=True))

    def read(self, positions: np.ndarray, images: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [n, size, size] and int32 [n] of int [n], each from 0; fills `images` where they are given."""
        if images is None:
            size = self.data.card.image_size
            images = np.empty((len(positions), size, size), np.uint8)
        encoding = self.data.card.image_encoding
        for first in range(0, len(positions), _BLOCK_RECORDS):
            some = positions[first : first + _BLOCK_RECORDS]
            frames = self._bytes.frames(self._shard[some], self._begin[some], self._end[some])
            try:
                read_images(frames, self._sums[some], images[first : first + len(some)], encoding)
            except BrokenFrame as error:
                raise self._broken(some[error.position], str(error)) from error
        return images, self.labels[positions]

    def order(self, batch: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, ranks: int = 1) -> Order:
        """The batches of these records, epoch after epoch; its state goes with these records alone."""
        return Order(len(self), batch, seed=seed, shuffle=shuffle, rank=rank, ranks=ranks, digest=self.digest)

    def batches(self, order: Order) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rest of an epoch; `order` stands behind each batch when it is handed out."""
        for positions in order:
            batch = self.read(positions)
            order.number += 1
            yield batch

    @property
    def paths(self) -> list[str]:
        """Where each shard lies."""
        return [storage.join(self.data.folder, shard.path) for shard in self.shards]

    def chosen(self) -> list[np.ndarray]:
        """bool [records] of each shard: which of its records these are."""
        found = [np.zeros(shard.records, bool) for shard in self.shards]
        for number, mask in enumerate(found):
            mask[self._index[self._shard == number]] = True
        return found

    def open_shard(self, number: int, used: np.ndarray) -> BinaryIO:
        """A shard of a store as a file, of which bool [records] will be used: what else it held may be empty records.

        It comes by way of the cache, or by ranges where these are less than half of it or the rest is others'.
        """
        whole = self._bytes.opened(number) if 2 * np.count_nonzero(used) >= len(used) else None
        if whole is not None:
            return whole
        own = np.flatnonzero(self._shard == number)
        own = own[used[self._index[own]]]
        bytes_of = self._bytes.with_parts_of([number])
        frames = bytes_of.frames(self._shard[own], self._begin[own], self._end[own]) if len(own) else ()
        file = TemporaryFile()  # noqa: SIM115
        file.write(frames_at(self._index[own], frames, len(used)))
        file.flush()
        return file

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """The manifest's rows of these records, in their order."""
        first, last = self._span
        return pa.concat_tables(self._parts(columns)).slice(first, last - first)

    def positions(self, sample_ids: Sequence[str]) -> np.ndarray:
        """int64 [n]: where each sample_id stands. Raises DatasetError where one isn't among these records."""
        own = self.rows(["sample_id"])["sample_id"].combine_chunks()
        found = pc.index_in(texts_of(sample_ids), value_set=own)
        if found.null_count:
            missing = sample_ids[pc.index(pc.is_null(found), True).as_py()]
            raise DatasetError(
                f"{self.data.folder}: expected {missing} among the records of {self.split!r}, found none"
            )
        return _numbers(found).astype(np.int64)

    @cached_property
    def _sums(self) -> np.ndarray:
        """uint32 [n]: of each frame, what its CRC-32C has to be."""
        return frame_sums(self._end - self._begin, self._crc)

    @property
    def digest(self) -> str:
        """SHA-256 of the records' CRCs: the same for the same records in the same order."""
        return hashlib.sha256(self._crc.astype("<u4").tobytes()).hexdigest()

    def _parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """`columns` of the records that each shard holds."""
        needed: list[str] | None = sorted({"status", "shard", *columns, *(self._where.columns if self._where else ())})
        if self.where is not None and self._where is None:
            needed = None  # an Expression doesn't say what it asks about
        for shard, rows in zip(self.shards, self.data.parts(self.shards, needed), strict=True):
            kept = rows.filter(pc.equal(rows["status"], _KEPT))
            if len(kept) != shard.records or not pc.all(pc.equal(kept["shard"], texts_of([shard.path])[0])).as_py():
                raise self._broken_manifest(f"{len(kept):,} kept rows for the {shard.records:,} of {shard.path}")
            if self._where is not None:
                kept = self._where.filter(kept)
            elif self.where is not None:
                kept = kept.filter(self.where)
            yield kept.select(list(columns))

    def _broken(self, position: int, fault: str) -> DatasetError:
        shard = self.shards[self._shard[position]]
        if self.data.cache is not None:
            self.data.cache.forget(shard)
        where = f"record {self._index[position]:,} at byte {self._begin[position]:,}"
        path = storage.join(self.data.folder, shard.path)
        return DatasetError(f"{path}: {where} {fault}; the shard is damaged, copy it again, or convert again")

    def _broken_manifest(self, found: str) -> DatasetError:
        return DatasetError(
            f"{self.data.folder}: the manifest of split {self.split!r} has {found}; "
            "python -m pipeline.verify says what is damaged; copy it again, or convert again"
        )

    def __getstate__(self) -> tuple[Any, ...]:
        cache = self.data.cache
        cache_bytes = None if cache is None else cache.most_bytes
        return self.data.folder, cache_bytes, self.split, self.where, self._span, self.digest

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        from pipeline.reader.dataset import open_dataset

        folder, cache_bytes, split, where, span, digest = state
        self.__dict__ = Records(open_dataset(folder, cache_bytes), split, where).between(*span).__dict__
        if self.digest != digest:
            raise DatasetError(f"{folder}: its records aren't those of the process that this one was started by")


def _numbers(column: Any) -> np.ndarray:
    """What to_numpy makes of a column without nulls; that imports pandas where it is installed: a second."""
    return np.from_dlpack(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
