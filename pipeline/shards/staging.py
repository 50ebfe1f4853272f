"""Staged chunks: what one chunk became, kept until the shards are written.

A staged chunk is an Arrow IPC file with a record batch per target shard, and a receipt. The receipt is written last:
it says what the file must hold to be whole, and where each shard's rows lie in it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from pipeline import storage
from schemas.errors import UserError, explained
from schemas.machine import without_temporary_mark
from schemas.manifest import SOURCE_FIELDS

KEY = "key"
IMAGE = "image"
STAGED_SCHEMA = pa.schema(
    [
        *SOURCE_FIELDS,
        pa.field(KEY, pa.uint64(), nullable=False),
        # Of a kept record its PNG, or its raw image packed (packing.py); empty otherwise.
        pa.field(IMAGE, pa.large_binary(), nullable=False),
    ]
)
_LAYOUT = 2
"""Of a staged chunk: changes with its columns and with what they hold, so that another release's is left alone."""


@dataclass(frozen=True)
class StagedBatch:
    """The rows one staged chunk has for one shard: a reference, small enough for any shuffle."""

    order: tuple[str, int, int]
    """Member name, first record, batch: sorts the batches of a shard."""
    path: str
    batch: int
    begin: int
    """Its first byte in the file."""
    size_bytes: int
    crc32c: int
    """Of those bytes, from before they were written: what is read back goes into a shard with checksums of its own."""


@dataclass(frozen=True)
class ChunkReceipt:
    """What a staged chunk holds."""

    split: str
    member: str
    first_record: int
    source_bytes: int
    records: int
    path: str
    content: str | None
    """The file's fingerprint."""
    batches: list[tuple[int, int, int, int, int]]
    """(shard, rows, first byte, bytes, their CRC-32C) of each record batch in the file."""
    source: str = ""
    """Digest of its member and of the settings: shows whether it is a piece of this conversion or of another."""
    uncompiled: str = ""
    """Why the six steps weren't compiled where it was converted."""
    lost_bytes: int = 0
    """Of records rejected for one of LOST_REASONS."""

    def staged_batches(self) -> Iterator[tuple[tuple[str, int], StagedBatch]]:
        """((split, shard), where its rows lie) for each record batch."""
        for number, (shard, _, begin, size, crc) in enumerate(self.batches):
            order = (self.member, self.first_record, number)
            yield (self.split, shard), StagedBatch(order, self.path, number, begin, size, crc)


MOST_SHARDS = 1 << 31
_HEADER_BYTES = 8 + STAGED_SCHEMA.serialize().size
_REQUESTS_AT_ONCE = 8
_OWN_NAME = re.compile(r"(chunk|shard|unpacked)-.*")


def private_folder(folder: str, conversion: str) -> str:
    """Where one conversion stages in a folder that it may share with others; what is kept lies in the folder itself."""
    return storage.join(folder, f"conversion-{conversion}")


def has_kept_chunks(folder: str) -> bool:
    with explained(f"read {folder}"):
        return any(name.startswith("chunk-") for name in storage.names(folder))


def clear(folder: str) -> None:
    """Deletes the pieces in a folder that is one conversion's alone, and the folder if nothing else is in it."""
    with explained(f"clear {folder}"):
        files = storage.list_folder(folder)
        storage.delete([file.path for file in files if _OWN_NAME.fullmatch(storage.base_name(file.path))])
    remove_empty(folder)


def remove_empty(folder: str) -> None:
    if not storage.of(folder).is_remote:
        with contextlib.suppress(OSError):  # something is in it
            os.rmdir(folder)


def chunk_path(folder: str, digest: str) -> str:
    return storage.join(folder, f"chunk-{digest}-{_LAYOUT}.arrow")


def receipt_path(path: str) -> str:
    return f"{path}.json"


def is_receipt(path: str) -> bool:
    """Whether a file in the folder is one, and whole: while it is written it has another name."""
    return path.endswith(".json") and without_temporary_mark(path) == path


def read_receipt(path: str) -> dict[str, Any] | None:
    """The receipt of a staged file, as JSON; None where there is none that can be relied on."""
    content = storage.read_if_there(receipt_path(path))
    try:
        fields = json.loads(content or b"null")
    except ValueError:
        return None  # torn by a power cut
    return fields if isinstance(fields, dict) else None


def write_receipt(path: str, receipt: Any) -> None:
    storage.write_bytes(receipt_path(path), json.dumps(receipt, ensure_ascii=True).encode())


def read_chunk_receipt(path: str) -> ChunkReceipt | None:
    fields = read_receipt(path)
    if fields is None or fields.get("content") != storage.fingerprint(path):
        return None
    try:
        batches = [tuple(batch) for batch in fields["batches"]]
        # The folder may have been moved, or be named by another path than when the receipt was written.
        return ChunkReceipt(**{**fields, "path": path, "batches": batches})
    except (KeyError, TypeError):
        return None  # another release's


def write_staged_chunk(
    path: str, tables: Iterable[pa.Table], num_shards: int
) -> tuple[int, list[tuple[int, int, int, int, int]]]:
    """Writes tables of STAGED_SCHEMA, each in the order of its rows' shards and in one piece, a batch for each shard.

    Returns the number of records, and a receipt's batches.
    """
    records = 0
    batches: list[tuple[int, int, int, int, int]] = []
    with (
        explained(f"write {path}"),
        storage.atomic_write(path) as stream,
        pa.ipc.new_file(stream, STAGED_SCHEMA) as writer,
    ):
        for table in tables:
            records += table.num_rows
            for shard, batch in _by_shard(table, num_shards):
                begin = stream.tell() or _HEADER_BYTES  # which is written with the first batch
                writer.write_batch(batch)
                crc = google_crc32c.value(batch.serialize())  # the message that is written
                batches.append((shard, batch.num_rows, begin, stream.tell() - begin, crc))
    return records, batches


def commit_chunk(receipt: ChunkReceipt) -> None:
    with explained(f"write {receipt.path}"):
        write_receipt(receipt.path, asdict(receipt))


def read_batches(batches: Iterable[StagedBatch]) -> list[pa.RecordBatch]:
    """The rows of staged batches, in their order. Raises UserError for one that isn't what was staged.

    A file is opened once, for as many of them as it holds one after the other. A store is asked once for each, several
    at a time: what a request costs is its way there and back.
    """
    staged = list(batches)
    if staged and storage.of(staged[0].path).is_remote:
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as executor:
            return list(executor.map(_fetch, staged))
    ends = list(itertools.accumulate(batch.size_bytes for batch in staged))
    # Not from the heap, which keeps much of what is freed.
    content = np.frombuffer(mmap.mmap(-1, ends[-1] if staged else 1), np.uint8)
    parts = [content[end - batch.size_bytes : end] for batch, end in zip(staged, ends, strict=True)]
    for path, own in itertools.groupby(zip(staged, parts, strict=True), lambda one: one[0].path):
        with explained(f"read {path}"), open(path, "rb") as stream:
            for batch, part in own:
                stream.seek(batch.begin)
                stream.readinto(part.data)
    return list(map(_parse, staged, parts))


def shard_of(keys: np.ndarray, num_shards: int) -> np.ndarray:
    """int64 [n]: key * num_shards >> 64, for uint64 keys, without 128-bit integers; MOST_SHARDS at most."""
    n = np.uint64(num_shards)
    low = (keys & np.uint64(0xFFFFFFFF)) * n >> np.uint64(32)
    return (((keys >> np.uint64(32)) * n + low) >> np.uint64(32)).astype(np.int64)


def _by_shard(table: pa.Table, num_shards: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    shards = shard_of(table[KEY].to_numpy(), num_shards)
    steps = np.diff(shards)
    assert np.all(steps >= 0), "rows out of their shards' order"
    begins = [0, *(np.flatnonzero(steps) + 1).tolist(), len(shards)]
    [batch] = table.to_batches() or [None]
    for begin, end in itertools.pairwise(begins) if batch is not None else ():
        yield int(shards[begin]), batch.slice(begin, end - begin)


def _fetch(staged: StagedBatch) -> pa.RecordBatch:
    with explained(f"read {staged.path}"):
        content = storage.read_range(staged.path, staged.begin, staged.size_bytes)
    return _parse(staged, content)


def _parse(staged: StagedBatch, content: bytes | np.ndarray) -> pa.RecordBatch:
    if google_crc32c.value(content) != staged.crc32c:
        raise UserError(
            f"{staged.path}: expected the bytes that were staged, found others from byte {staged.begin:,} on; "
            "run the same command again, and delete this file first if that says the same"
        )
    return pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(content)), STAGED_SCHEMA)
