"""Staged chunks to shards: a TFRecord file and the manifest part of every record that belongs there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

_PARQUET = {"compression": "zstd", "row_group_size": 1 << 20, "write_page_index": True}


@dataclass(frozen=True)
class ShardReceipt:
    """A finished shard: its two files, and what the card needs to know of its rows."""

    split: str
    shard: int
    file: ShardFile
    members: MemberCounts
    labels: str
    """The labels among its kept records: a bit for each class, packed, in hex."""


def write_shard(
    split: str, shard: int, batches: Sequence[StagedBatch], config: ConvertConfig, output: str, staging_folder: str
) -> ShardReceipt:
    """Writes one shard from its staged batches and returns its receipt; a finished one is left as it is."""
    batches = sorted(batches, key=lambda batch: batch.order)
    piece = storage.join(staging_folder, f"shard-{_digest(split, shard, batches, config)}")
    finished = _read_finished(piece, output)
    if finished is not None:
        return finished
    # Equal keys are possible among billions of records: the batches' order, member by member, decides then.
    rows = read_batches(batches)
    rows = rows.take(np.argsort(rows[staging.KEY].to_numpy(), kind="stable")).combine_chunks()
    num_shards = config.num_shards[split]
    name, part = shard_name(split, shard, num_shards), manifest_part_name(split, shard, num_shards)
    frames = _frames(rows)
    manifest = _manifest_part(rows, name)
    file = ShardFile(
        path=name,
        records=int(pc.sum(pc.equal(rows["status"], KEPT)).as_py() or 0),
        **_write_tfrecord(storage.join(output, name), frames),
        manifest_path=part,
        manifest_rows=manifest.num_rows,
        **_write_parquet(storage.join(output, part), manifest),
    )
    labels = np.zeros(len(config.classes), bool)
    labels[rows["label"].filter(pc.equal(rows["status"], KEPT)).to_numpy()] = True
    receipt = ShardReceipt(split, shard, file, _member_counts(rows), np.packbits(labels).tobytes().hex())
    with storage.explained(f"write {piece}"):
        staging.write_receipt(piece, asdict(receipt))
    return receipt


def _digest(split: str, shard: int, batches: Sequence[StagedBatch], config: ConvertConfig) -> str:
    """Changes with every piece that goes into the shard."""
    pieces = [(storage.base_name(batch.path), batch.batch) for batch in batches]
    return hashlib.blake2b(repr((split, shard, config.digest, pieces)).encode(), digest_size=16).hexdigest()


def _read_finished(piece: str, output: str) -> ShardReceipt | None:
    fields = staging.read_receipt(piece)
    if fields is None:
        return None
    receipt = ShardReceipt(**{**fields, "file": ShardFile(**fields["file"])})
    file = receipt.file
    sizes = (storage.size_bytes(storage.join(output, path)) for path in (file.path, file.manifest_path))
    return receipt if tuple(sizes) == (file.bytes, file.manifest_bytes) else None


def _frames(rows: pa.Table) -> pa.LargeBinaryArray:
    chunks = rows[staging.FRAME].chunks
    return chunks[0] if chunks else pa.array([], pa.large_binary())


def _manifest_part(rows: pa.Table, name: str) -> pa.Table:
    frames = _frames(rows)
    offsets = _offsets(frames)
    lengths = np.diff(offsets)
    kept = lengths > 0
    position = np.cumsum(kept) - 1

    def where_kept(values: Any, dtype: pa.DataType) -> pa.Array:
        return pa.array(values, dtype, mask=~kept)

    columns = {
        "shard": pc.if_else(pa.array(kept), pa.scalar(name), pa.scalar(None, pa.string())),
        "shard_index": where_kept(np.maximum(position, 0), pa.uint32()),
        "shard_offset": where_kept(offsets[:-1] - offsets[0], pa.uint64()),
        "shard_bytes": where_kept(lengths, pa.uint32()),
        "shard_crc32c": rows[staging.CRC],
    }
    source = {field.name: rows[field.name] for field in SOURCE_FIELDS}
    return pa.table({**source, **columns}, MANIFEST_SCHEMA)


def _offsets(frames: pa.LargeBinaryArray) -> np.ndarray:
    """int64 [n + 1]: where each frame begins in the array's data."""
    buffer = frames.buffers()[1]
    if buffer is None or len(frames) == 0:
        return np.zeros(len(frames) + 1, np.int64)
    return np.frombuffer(buffer, np.int64, len(frames) + 1, offset=8 * frames.offset)


def _write_tfrecord(path: str, frames: pa.LargeBinaryArray) -> dict[str, Any]:
    """The frames are contiguous in key order already: the shard is their buffer."""
    offsets = _offsets(frames)
    data = frames.buffers()[2]
    content = memoryview(data)[offsets[0] : offsets[-1]] if data is not None else memoryview(b"")
    with storage.explained(f"write {path}"), storage.atomic_write(path) as stream:
        stream.write(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_parquet(path: str, table: pa.Table) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_PARQUET)
    content = sink.getvalue()
    with storage.explained(f"write {path}"), storage.atomic_write(path) as stream:
        stream.write(content)
    return {"manifest_bytes": len(content), "manifest_sha256": hashlib.sha256(content).hexdigest()}


def _member_counts(rows: pa.Table) -> MemberCounts:
    counted: MemberCounts = {}
    for group in rows.group_by(["member", "status", "reason"]).aggregate([([], "count_all")]).to_pylist():
        kind = " ".join(filter(None, (group["status"], group["reason"])))
        counted.setdefault(group["member"], Counter())[kind] = group["count_all"]
    return {member: dict(sorted(counts.items())) for member, counts in sorted(counted.items())}
