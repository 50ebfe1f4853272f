"""Staged chunks to shards: a TFRecord file and the manifest part of every record that belongs there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.shards import staging
from pipeline.shards.config import ConvertConfig
from pipeline.shards.manifest import ManifestWriter, open_manifest
from pipeline.shards.staging import StagedBatch, read_batches
from pipeline.shards.tfrecord import TFRecordWriter, open_tfrecord
from schemas.dataset import ShardFile, manifest_part_name, shard_name
from schemas.errors import explained
from schemas.machine import make_folder
from schemas.manifest import KEPT, MANIFEST_SCHEMA, SOURCE_FIELDS

MemberCounts = dict[str, dict[str, int]]
"""By member: "kept" and "status reason" -> records."""

_ROW_SCHEMA = pa.schema([field for field in staging.STAGED_SCHEMA if field.name != staging.IMAGE])
_MOST_BYTES, _RANGE_BYTES = 64 << 20, 16 << 20
"""64 MiB: most staged rows and images in memory at once, which a shard of the usual size doesn't reach; 16 MiB: about
as many of one that does."""
_MOST_RANGES = 64  # at once: what is large beyond measure is cut once more
_BATCH_BYTES = 16 << 10  # 16 KiB: of the objects that a batch is, besides its bytes


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
    tally, is_large = _Tally(len(config.classes)), sum(map(_held_bytes, batches)) > _MOST_BYTES
    with (
        _local_folder(staging_folder) as folder,
        open_tfrecord(storage.join(output, name), config) as frames,
        open_manifest(storage.join(output, part), folder if is_large else None) as manifest,
    ):
        for own in _ranges(batches, num_shards, storage.join(folder, f"shard-{name}.arrow")):
            _write_rows(read_batches(own), name, frames, manifest, tally)
    file = ShardFile(
        path=name,
        records=frames.records,
        bytes=frames.bytes,
        sha256=frames.sha256,
        manifest_path=part,
        manifest_rows=manifest.rows,
        manifest_bytes=manifest.bytes,
        manifest_sha256=manifest.sha256,
    )
    receipt = ShardReceipt(split, shard, pieces, job, file, tally.members, tally.labels)
    with explained(f"write {piece}"):
        staging.write_receipt(piece, asdict(receipt))
    return receipt


class _Tally:
    """What the rows of a shard add up to."""

    def __init__(self, classes: int) -> None:
        self._labels = np.zeros(classes, bool)
        self._members: dict[str, Counter[str]] = {}

    def add(self, rows: pa.Table, labels: np.ndarray) -> None:
        self._labels[labels] = True
        for group in rows.group_by(["member", "status", "reason"]).aggregate([([], "count_all")]).to_pylist():
            kind = " ".join(filter(None, (group["status"], group["reason"])))
            self._members.setdefault(group["member"], Counter())[kind] += group["count_all"]

    @property
    def labels(self) -> str:
        return np.packbits(self._labels).tobytes().hex()

    @property
    def members(self) -> MemberCounts:
        return {member: dict(sorted(counts.items())) for member, counts in sorted(self._members.items())}


def _ranges(batches: Sequence[StagedBatch], num_shards: int, path: str) -> Iterator[Sequence[StagedBatch]]:
    """The staged batches of a shard in ranges of its keys, in ascending order, so that few are in memory at once.

    What is more than a range is staged again, to a file at `path`, as if there were so many more shards.
    """
    held = sum(map(_held_bytes, batches))
    finer = num_shards * min(max(2, held // _RANGE_BYTES), _MOST_RANGES)
    if held <= _MOST_BYTES or finer > staging.MOST_SHARDS:
        yield batches
        return
    _, written = staging.write_staged_chunk(path, _in_ranges(batches, finer), finer)
    by_range: dict[int, list[StagedBatch]] = {}
    for number, (piece, _, begin, size, crc) in enumerate(written):
        by_range.setdefault(piece, []).append(StagedBatch(("", 0, number), path, number, begin, size, crc))
    for piece in sorted(by_range):
        yield from _ranges(by_range[piece], finer, f"{path}-{piece}")
    storage.delete([path])


def _in_ranges(batches: Sequence[StagedBatch], num_shards: int) -> Iterator[pa.Table]:
    """The rows of staged batches, some batches at a time: by shard, and as they came within each."""
    part_of = np.cumsum([_held_bytes(batch) for batch in batches]) // _RANGE_BYTES
    for _, part in itertools.groupby(zip(part_of.tolist(), batches, strict=True), itemgetter(0)):
        rows = pa.Table.from_batches(read_batches(batch for _, batch in part))
        order = np.argsort(staging.shard_of(rows[staging.KEY].to_numpy(), num_shards), kind="stable")
        yield rows.take(order).combine_chunks()


def _held_bytes(batch: StagedBatch) -> int:
    """What a staged batch takes in memory, where each of its columns is an object."""
    return batch.size_bytes + _BATCH_BYTES


@contextlib.contextmanager
def _local_folder(staging_folder: str) -> Iterator[str]:
    """Where files may lie that memory has no room for."""
    if storage.of(staging_folder).is_remote:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    else:
        make_folder(staging_folder)
        yield staging_folder


def _write_rows(
    staged: Sequence[pa.RecordBatch], shard: str, frames: TFRecordWriter, manifest: ManifestWriter, tally: _Tally
) -> None:
    """Writes the next rows of a shard, all of a range of its keys."""
    if not staged:
        manifest.write(MANIFEST_SCHEMA.empty_table())
        return
    # Equal keys are possible among billions of records: the batches' order, member by member, decides then.
    order = np.argsort(np.concatenate([batch[staging.KEY].to_numpy() for batch in staged]), kind="stable")
    rows = pa.Table.from_batches([batch.drop_columns([staging.IMAGE]) for batch in staged], _ROW_SCHEMA).take(order)
    kept = _is_kept(rows)
    samples = rows.select(["label", "sample_id"]).filter(pa.array(kept))
    tally.add(rows, samples["label"].to_numpy())
    first_index, first_byte = frames.records, frames.bytes
    frame_bytes, crc32c = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint32)
    frame_bytes[kept], crc32c[kept] = frames.write(samples, staged, order)

    def where_kept(values: Any, dtype: pa.DataType) -> pa.Array:
        return pa.array(values, dtype, mask=~kept)

    columns = {
        "shard": where_kept(np.full(len(rows), shard, object), pa.string()),
        "shard_index": where_kept(first_index + np.maximum(np.cumsum(kept) - 1, 0), pa.uint32()),
        "shard_offset": where_kept(first_byte + np.cumsum(frame_bytes) - frame_bytes, pa.uint64()),
        "shard_bytes": where_kept(frame_bytes, pa.uint32()),
        "shard_crc32c": where_kept(crc32c, pa.uint32()),
    }
    source = {field.name: rows[field.name] for field in SOURCE_FIELDS}
    manifest.write(pa.table({**source, **columns}, MANIFEST_SCHEMA))


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


def _is_kept(rows: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc  # 0.05 s, which a driver whose workers write the shards needn't wait for

    return np.asarray(pc.equal(rows["status"], KEPT))
