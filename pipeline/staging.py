"""Staged chunks: what one chunk became, kept until the shards are written.

A staged chunk is an Arrow IPC file with a record batch per target shard, and a receipt. The receipt is written last:
it says what the file must hold to be whole, and where each shard's rows lie in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline import storage
from schemas.manifest import SOURCE_FIELDS

KEY = "key"
FRAME = "frame"
CRC = "crc32c"
STAGED_SCHEMA = pa.schema(
    [
        *SOURCE_FIELDS,
        pa.field(KEY, pa.uint64(), nullable=False),
        # The TFRecord frame of a kept record, empty otherwise: a shard is its frames, joined in key order.
        pa.field(FRAME, pa.large_binary(), nullable=False),
        pa.field(CRC, pa.uint32()),
    ]
)


@dataclass(frozen=True)
class StagedBatch:
    """The rows one staged chunk has for one shard: a reference, small enough for any shuffle."""

    order: tuple[str, int, int]
    """Member name, first record, batch: sorts the batches of a shard."""
    path: str
    batch: int


@dataclass(frozen=True)
class ChunkReceipt:
    """What a staged chunk holds."""

    split: str
    member: str
    first_record: int
    source_bytes: int
    records: int
    path: str
    content: str
    """The file's fingerprint."""
    batches: list[tuple[int, int]]
    """(shard, rows) of each record batch in the file."""

    def staged_batches(self) -> Iterator[tuple[tuple[str, int], StagedBatch]]:
        """((split, shard), where its rows lie) for each record batch."""
        for batch, (shard, _) in enumerate(self.batches):
            yield (self.split, shard), StagedBatch((self.member, self.first_record, batch), self.path, batch)


_OWN_NAME = re.compile(r"(chunk|shard|unpacked)-.*")


def clear(folder: str) -> None:
    """Deletes the staged pieces in a folder, and the folder if nothing else is in it."""
    files = storage.list_folder(folder)
    storage.delete([file.path for file in files if _OWN_NAME.fullmatch(storage.base_name(file.path))])
    storage.delete_empty_folder(folder)


def chunk_path(folder: str, digest: str) -> str:
    return storage.join(folder, f"chunk-{digest}.arrow")


def receipt_path(path: str) -> str:
    return f"{path}.json"


def fingerprint(path: str) -> str:
    """Size and XXH3-64 of a local file: after a power cut it can be shorter than its receipt says, or zeros.

    An object is there whole or not at all, so its size is enough.
    """
    if storage.is_remote(path):
        return f"{storage.size_bytes(path)}"
    digest, size = xxhash.xxh3_64(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return f"{size} {digest.hexdigest()}"


def read_receipt(path: str) -> dict[str, Any] | None:
    """The receipt of a staged file, as JSON; None where there is none that can be relied on."""
    receipt = receipt_path(path)
    if not storage.exists(receipt):
        return None
    try:
        fields = json.loads(storage.read_bytes(receipt))
    except ValueError:
        return None  # torn by a power cut
    return fields if isinstance(fields, dict) else None


def write_receipt(path: str, receipt: Any) -> None:
    storage.write_bytes(receipt_path(path), json.dumps(receipt, ensure_ascii=True).encode())


def read_chunk_receipt(path: str) -> ChunkReceipt | None:
    fields = read_receipt(path)
    if fields is None or not storage.exists(path) or fields.get("content") != fingerprint(path):
        return None
    # The folder may have been moved, or be named by another path than when the receipt was written.
    batches = [(shard, rows) for shard, rows in fields["batches"]]
    return ChunkReceipt(**{**fields, "path": path, "batches": batches})


def write_staged_chunk(path: str, tables: Iterable[pa.Table], num_shards: int) -> tuple[int, list[tuple[int, int]]]:
    """Writes the tables of STAGED_SCHEMA, each cut by target shard; returns the records and (shard, rows) per batch."""
    records = 0
    batches: list[tuple[int, int]] = []
    with (
        storage.explained(f"write {path}"),
        storage.atomic_write(path) as stream,
        pa.ipc.new_file(stream, STAGED_SCHEMA) as writer,
    ):
        for table in tables:
            records += table.num_rows
            for shard, batch in _by_shard(table, num_shards):
                writer.write_batch(batch)
                batches.append((shard, batch.num_rows))
    return records, batches


def commit_chunk(receipt: ChunkReceipt) -> None:
    with storage.explained(f"write {receipt.path}"):
        write_receipt(receipt.path, asdict(receipt))


def read_batches(batches: Iterable[StagedBatch]) -> list[pa.RecordBatch]:
    """The rows of staged batches, in their order; local ones are mapped, so what isn't touched isn't read."""
    found = []
    for staged in batches:
        with storage.explained(f"read {staged.path}"):
            found.append(_read_batch(staged))
    return found


def shard_of(keys: np.ndarray, num_shards: int) -> np.ndarray:
    """int64 [n]: key * num_shards >> 64, for uint64 keys, without 128-bit integers."""
    n = np.uint64(num_shards)
    low = (keys & np.uint64(0xFFFFFFFF)) * n >> np.uint64(32)
    return (((keys >> np.uint64(32)) * n + low) >> np.uint64(32)).astype(np.int64)


def _by_shard(table: pa.Table, num_shards: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    shards = shard_of(table[KEY].to_numpy(), num_shards)
    order = np.argsort(shards, kind="stable")
    batch = table.take(order).combine_chunks().to_batches()[0] if table.num_rows else None
    edges = np.searchsorted(shards[order], np.arange(num_shards + 1))
    for shard in np.flatnonzero(np.diff(edges)).tolist():
        assert batch is not None
        yield shard, batch.slice(int(edges[shard]), int(edges[shard + 1] - edges[shard]))


def _read_batch(staged: StagedBatch) -> pa.RecordBatch:
    if storage.is_remote(staged.path):
        source: Any = pa.PythonFile(storage.open_read(staged.path), mode="r")
    else:
        source = pa.memory_map(staged.path)
    with source, pa.ipc.open_file(source) as reader:
        return reader.get_batch(staged.batch)
