"""Staged chunks to shards: a TFRecord file and the manifest part of every record that belongs there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from pipeline.shards.staging import StagedBatch, read_batches
from pipeline.shards.tfrecord import TFRecordFile, write_tfrecord
from schemas.dataset import ShardFile, manifest_part_name, shard_name
from schemas.errors import explained
from schemas.manifest import KEPT, MANIFEST_SCHEMA, SOURCE_FIELDS

MemberCounts = dict[str, dict[str, int]]
"""By member: "kept" and "status reason" -> records."""

_ROW_SCHEMA = pa.schema([field for field in staging.STAGED_SCHEMA if field.name != staging.IMAGE])
_NO_KEYS = np.empty(0, np.uint64)
_PARQUET = {"compression": "zstd", "row_group_size": 1 << 20, "write_page_index": True}


@dataclass(frozen=True)
class ShardReceipt:
    """A finished shard: its two files, and what the card needs to know of its rows."""

    split: str
    shard: int
    pieces: str
    """Digest of the staged batches it was made of, and of the settings."""
    job: str
    """Digest of all that goes into the data set: shows whether it is finished in this conversion or in another."""
    file: ShardFile
    members: MemberCounts
    labels: str
    """The labels among its kept records: a bit for each class, packed, in hex."""


def write_shard(
    split: str,
    shard: int,
    batches: Sequence[StagedBatch],
    config: ConvertConfig,
    output: str,
    staging_folder: str,
    job: str = "",
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
    rows = pa.Table.from_batches([batch.drop_columns([staging.IMAGE]) for batch in staged], _ROW_SCHEMA).take(order)
    kept = rows.filter(pa.array(_is_kept(rows)))
    written = write_tfrecord(storage.join(output, name), kept, staged, order, config)
    manifest = _manifest_part(rows, written, name)
    file = ShardFile(
        path=name,
        records=kept.num_rows,
        bytes=written.bytes,
        sha256=written.sha256,
        manifest_path=part,
        manifest_rows=manifest.num_rows,
        **_write_parquet(storage.join(output, part), manifest),
    )
    labels = np.zeros(len(config.classes), bool)
    labels[kept["label"].to_numpy()] = True
    receipt = ShardReceipt(split, shard, pieces, job, file, _member_counts(rows), np.packbits(labels).tobytes().hex())
    with explained(f"write {piece}"):
        staging.write_receipt(piece, asdict(receipt))
    return receipt


def _digest(split: str, shard: int, batches: Sequence[StagedBatch], config: ConvertConfig) -> str:
    """Changes with every piece that goes into the shard."""
    pieces = [(storage.base_name(batch.path), batch.batch) for batch in batches]
    return hashlib.blake2b(repr((split, shard, config.digest(split), pieces)).encode(), digest_size=16).hexdigest()


def _read_finished(piece: str, pieces: str, output: str) -> ShardReceipt | None:
    """The receipt of a shard made of the same pieces, if its files still are what it says."""
    fields = staging.read_receipt(piece)
    if fields is None or fields.get("pieces") != pieces:
        return None
    try:
        receipt = ShardReceipt(**{**fields, "file": ShardFile(**fields["file"])})
    except (KeyError, TypeError):
        return None  # another release's
    file = receipt.file
    found = (_sha256(storage.join(output, path)) for path in (file.path, file.manifest_path))
    return receipt if tuple(found) == (file.sha256, file.manifest_sha256) else None


def _sha256(path: str) -> str | None:
    size = storage.size_bytes(path)
    if size is None:
        return None
    with explained(f"read {path}"), storage.open_read(path, 0, size) as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _manifest_part(rows: pa.Table, written: TFRecordFile, name: str) -> pa.Table:
    kept = _is_kept(rows)
    frame_bytes, crc32c = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint32)
    frame_bytes[kept], crc32c[kept] = written.frame_bytes, written.crc32c

    def where_kept(values: Any, dtype: pa.DataType) -> pa.Array:
        return pa.array(values, dtype, mask=~kept)

    columns = {
        "shard": where_kept(np.full(len(rows), name, object), pa.string()),
        "shard_index": where_kept(np.maximum(np.cumsum(kept) - 1, 0), pa.uint32()),
        "shard_offset": where_kept(np.cumsum(frame_bytes) - frame_bytes, pa.uint64()),
        "shard_bytes": where_kept(frame_bytes, pa.uint32()),
        "shard_crc32c": where_kept(crc32c, pa.uint32()),
    }
    source = {field.name: rows[field.name] for field in SOURCE_FIELDS}
    return pa.table({**source, **columns}, MANIFEST_SCHEMA)


def _is_kept(rows: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc  # 0.05 s, which a driver whose workers write the shards needn't wait for

    return np.asarray(pc.equal(rows["status"], KEPT))


def _write_parquet(path: str, table: pa.Table) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_PARQUET)
    content = sink.getvalue()
    with explained(f"write {path}"), storage.atomic_write(path, durable=True) as stream:
        stream.write(content)
    return {"manifest_bytes": len(content), "manifest_sha256": hashlib.sha256(content).hexdigest()}


def _member_counts(rows: pa.Table) -> MemberCounts:
    counted: MemberCounts = {}
    for group in rows.group_by(["member", "status", "reason"]).aggregate([([], "count_all")]).to_pylist():
        kind = " ".join(filter(None, (group["status"], group["reason"])))
        counted.setdefault(group["member"], Counter())[kind] = group["count_all"]
    return {member: dict(sorted(counts.items())) for member, counts in sorted(counted.items())}
