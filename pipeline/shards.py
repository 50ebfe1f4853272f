"""Staged chunks to shards: a TFRecord file and the manifest part of every record that belongs there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import staging, storage
from pipeline.config import ConvertConfig
from pipeline.staging import StagedBatch, read_batches
from schemas.dataset import ShardFile, manifest_part_name, shard_name
from schemas.manifest import KEPT, MANIFEST_SCHEMA, SOURCE_FIELDS

MemberCounts = dict[str, dict[str, int]]
"""By member: "kept" and "status reason" -> records."""

_ROW_SCHEMA = pa.schema([field for field in staging.STAGED_SCHEMA if field.name != staging.FRAME])
_NO_KEYS, _NO_OFFSETS = np.empty(0, np.uint64), np.empty(0, np.int64)
_PIECE_BYTES = 256 << 10  # 256 KiB
_PARQUET = {"compression": "zstd", "row_group_size": 1 << 20, "write_page_index": True}


@dataclass(frozen=True)
class ShardReceipt:
    """A finished shard: its two files, and what the card needs to know of its rows."""

    split: str
    shard: int
    pieces: str
    """Digest of the staged batches it was made of, and of the settings."""
    file: ShardFile
    members: MemberCounts
    labels: str
    """The labels among its kept records: a bit for each class, packed, in hex."""


def write_shard(
    split: str, shard: int, batches: Sequence[StagedBatch], config: ConvertConfig, output: str, staging_folder: str
) -> ShardReceipt:
    """Writes one shard from its staged batches and returns its receipt; a finished one is left as it is."""
    batches = sorted(batches, key=lambda batch: batch.order)
    num_shards = config.num_shards[split]
    name, part = shard_name(split, shard, num_shards), manifest_part_name(split, shard, num_shards)
    piece = storage.join(staging_folder, f"shard-{name}")
    pieces = _digest(split, shard, batches, config)
    finished = _read_finished(piece, pieces, output)
    if finished is not None:
        return finished
    storage.delete([staging.receipt_path(piece)])  # from here on it would vouch for other bytes
    staged = read_batches(batches)
    # Equal keys are possible among billions of records: the batches' order, member by member, decides then.
    order = np.argsort(np.concatenate([_NO_KEYS, *(batch[staging.KEY].to_numpy() for batch in staged)]), kind="stable")
    frames = _Frames(staged, order)
    rows = pa.Table.from_batches([batch.drop_columns([staging.FRAME]) for batch in staged], _ROW_SCHEMA).take(order)
    manifest = _manifest_part(rows, frames.lengths, name)
    kept = rows.filter(pc.equal(rows["status"], KEPT))
    file = ShardFile(
        path=name,
        records=kept.num_rows,
        **_write_tfrecord(storage.join(output, name), frames),
        manifest_path=part,
        manifest_rows=manifest.num_rows,
        **_write_parquet(storage.join(output, part), manifest),
    )
    labels = np.zeros(len(config.classes), bool)
    labels[kept["label"].to_numpy()] = True
    receipt = ShardReceipt(split, shard, pieces, file, _member_counts(rows), np.packbits(labels).tobytes().hex())
    with storage.explained(f"write {piece}"):
        staging.write_receipt(piece, asdict(receipt))
    return receipt


class _Frames:
    """The TFRecord frames of staged batches in a given order, each read from its batch only when it is written."""

    def __init__(self, batches: Sequence[pa.RecordBatch], order: np.ndarray) -> None:
        columns = [batch[staging.FRAME] for batch in batches]
        self._data = [memoryview(column.buffers()[2] or b"") for column in columns]
        self._batch = np.repeat(np.arange(len(batches)), [len(column) for column in columns])[order]
        offsets = [_offsets(column) for column in columns]
        self._begin = np.concatenate([_NO_OFFSETS, *(each[:-1] for each in offsets)])[order]
        self._end = np.concatenate([_NO_OFFSETS, *(each[1:] for each in offsets)])[order]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: bytes of each row's frame, 0 where the record wasn't kept."""
        return self._end - self._begin

    def pieces(self) -> Iterator[bytes]:
        """The frames, as many joined as a core's cache holds until they are written and hashed."""
        cuts = 1 + np.flatnonzero(np.diff(np.cumsum(self.lengths) // _PIECE_BYTES))
        for begin, end in pairwise([0, *cuts.tolist(), len(self._batch)]):
            part = slice(begin, end)
            places = zip(self._batch[part].tolist(), self._begin[part].tolist(), self._end[part].tolist(), strict=True)
            yield b"".join([self._data[batch][first:last] for batch, first, last in places])


def _digest(split: str, shard: int, batches: Sequence[StagedBatch], config: ConvertConfig) -> str:
    """Changes with every piece that goes into the shard."""
    pieces = [(storage.base_name(batch.path), batch.batch) for batch in batches]
    return hashlib.blake2b(repr((split, shard, config.digest(split), pieces)).encode(), digest_size=16).hexdigest()


def _read_finished(piece: str, pieces: str, output: str) -> ShardReceipt | None:
    """The receipt of a shard made of the same pieces, if its files still are what it says."""
    fields = staging.read_receipt(piece)
    if fields is None or fields.get("pieces") != pieces:
        return None
    receipt = ShardReceipt(**{**fields, "file": ShardFile(**fields["file"])})
    file = receipt.file
    found = (_sha256(storage.join(output, path)) for path in (file.path, file.manifest_path))
    return receipt if tuple(found) == (file.sha256, file.manifest_sha256) else None


def _sha256(path: str) -> str | None:
    size = storage.size_bytes(path)
    if size is None:
        return None
    with storage.explained(f"read {path}"), storage.open_read(path, 0, size) as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _manifest_part(rows: pa.Table, frame_bytes: np.ndarray, name: str) -> pa.Table:
    kept = frame_bytes > 0

    def where_kept(values: Any, dtype: pa.DataType) -> pa.Array:
        return pa.array(values, dtype, mask=~kept)

    columns = {
        "shard": pc.if_else(pa.array(kept), pa.scalar(name), pa.scalar(None, pa.string())),
        "shard_index": where_kept(np.maximum(np.cumsum(kept) - 1, 0), pa.uint32()),
        "shard_offset": where_kept(np.cumsum(frame_bytes) - frame_bytes, pa.uint64()),
        "shard_bytes": where_kept(frame_bytes, pa.uint32()),
        "shard_crc32c": rows[staging.CRC],
    }
    source = {field.name: rows[field.name] for field in SOURCE_FIELDS}
    return pa.table({**source, **columns}, MANIFEST_SCHEMA)


def _offsets(frames: pa.LargeBinaryArray) -> np.ndarray:
    """int64 [n + 1]: where each frame begins in the array's data."""
    return np.frombuffer(frames.buffers()[1], np.int64, len(frames) + 1, offset=8 * frames.offset)


def _write_tfrecord(path: str, frames: _Frames) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with storage.explained(f"write {path}"), storage.atomic_write(path, durable=True) as stream:
        for piece in frames.pieces():
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _write_parquet(path: str, table: pa.Table) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_PARQUET)
    content = sink.getvalue()
    with storage.explained(f"write {path}"), storage.atomic_write(path, durable=True) as stream:
        stream.write(content)
    return {"manifest_bytes": len(content), "manifest_sha256": hashlib.sha256(content).hexdigest()}


def _member_counts(rows: pa.Table) -> MemberCounts:
    counted: MemberCounts = {}
    for group in rows.group_by(["member", "status", "reason"]).aggregate([([], "count_all")]).to_pylist():
        kind = " ".join(filter(None, (group["status"], group["reason"])))
        counted.setdefault(group["member"], Counter())[kind] = group["count_all"]
    return {member: dict(sorted(counts.items())) for member, counts in sorted(counted.items())}
