"""Staged chunks to shards: a TFRecord file and the manifest part of every record that belongs there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
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
from pipeline.shards.rows import IS_KEPT, Part, Source, Tally, columns
from pipeline.shards.slices import MOST_SHARDS, Bins, Edges, Slice, StagedPart, read_slices, write_parts
from pipeline.shards.staging import ChunkReceipt
from pipeline.shards.tfrecord import TFRecordWriter, open_tfrecord
from schemas.dataset import ShardFile, manifest_part_name, shard_name
from schemas.errors import explained
from schemas.machine import make_folder
from schemas.manifest import MANIFEST_SCHEMA

_MOST_BYTES, _RANGE_BYTES = 64 << 20, 16 << 20
"""64 MiB: most staged rows and images in memory at once, which a shard of the usual size doesn't reach; 16 MiB: about
as many of one that does."""
_MOST_RANGES = 64  # at once: what is large beyond measure is cut once more
_ROW_BYTES = 256  # of the columns that the manifest has of a row


@dataclass(frozen=True)
class ShardReceipt:
    """A finished shard: its two files, and what the card needs to know of its rows."""

    split: str
    shard: int
    pieces: str
    """Digest of the staged chunks it was made of, and of the settings."""
    job: str
    """Digest of all that goes into the data set: shows whether it is finished in this conversion or in another."""
    file: ShardFile
    counts: dict[str, int]
    """By "kept" or "status reason" -> records."""
    keys: int
    """The sum of their keys, modulo 2^64."""
    labels: str
    """The labels among its kept records: a bit for each class, packed, in hex."""


def write_shard(
    split: str,
    shard: int,
    chunks: Sequence[ChunkReceipt],
    config: ConvertConfig,
    output: str,
    staging_folder: str,
    job: str = "",
    edges: Edges | None = None,
) -> ShardReceipt:
    """Writes one shard from the staged chunks of its split and returns its receipt; a finished one is left as it is."""
    chunks = sorted(chunks, key=lambda chunk: chunk.order)
    num_shards = config.num_shards[split]
    name, part = shard_name(split, shard, num_shards), manifest_part_name(split, shard, num_shards)
    piece = receipt_piece(staging_folder, name, job)
    pieces = _digest(split, shard, chunks, config)
    finished = _read_finished(piece, pieces, output)
    if finished is not None:
        return finished
    storage.delete([staging.receipt_path(piece)])  # from here on it would vouch for other bytes
    parts = [StagedPart(chunk.path, at, source) for source, chunk in enumerate(chunks) for at in chunk.parts]
    slices = (edges or Edges()).slices(parts, shard, num_shards)
    sources = [chunk.comes_from for chunk in chunks]
    tally, labels = Tally(), np.zeros(len(config.classes), bool)
    is_large = sum(map(_held_bytes, slices)) > _MOST_BYTES
    with (
        _local_folder(staging_folder) as folder,
        open_tfrecord(storage.join(output, name), config) as frames,
        open_manifest(storage.join(output, part), folder if is_large else None) as manifest,
    ):
        for own in _ranges(slices, shard, num_shards, storage.join(folder, f"shard-{name}.rows")):
            rows = _write_rows(read_slices(own), sources, name, frames, manifest)
            tally.add(rows)
            labels[rows["label"][rows["outcome"] == IS_KEPT]] = True
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
    seen = np.packbits(labels).tobytes().hex()
    receipt = ShardReceipt(split, shard, pieces, job, file, tally.counts, tally.keys, seen)
    with explained(f"write {piece}"):
        staging.write_receipt(piece, asdict(receipt))
    return receipt


def receipt_piece(staging_folder: str, name: str, job: str) -> str:
    """What a shard's receipt is named by: a job sees which of its shards are finished without reading them."""
    return storage.join(staging_folder, f"shard-{name}-{job}")


def _ranges(slices: Sequence[Slice], shard: int, num_shards: int, path: str) -> Iterator[Sequence[Slice]]:
    """The slices of a shard in ranges of its keys, in ascending order, so that few are in memory at once.

    What is more than a range is staged again, to a file at `path`, as if there were so many more shards.
    """
    held = sum(map(_held_bytes, slices))
    count = min(max(2, held // _RANGE_BYTES), _MOST_RANGES)
    bins = Bins(num_shards * count, shard * count, count)
    if held <= _MOST_BYTES or bins.num_shards > MOST_SHARDS:
        yield slices
        return
    parts = [StagedPart(path, at, None) for at in write_parts(path, _in_ranges(slices, bins), bins)]
    edges = Edges()
    for number in range(count):
        own = edges.slices(parts, number, count)
        yield from _ranges(own, bins.first + number, bins.num_shards, f"{path}-{number}") if own else ()
    storage.delete([path])


def _in_ranges(slices: Sequence[Slice], bins: Bins) -> Iterator[Part]:
    """The rows of slices, some slices at a time: by range, and as they came within each."""
    part_of = np.cumsum([_held_bytes(one) for one in slices]) // _RANGE_BYTES
    for _, some in itertools.groupby(zip(part_of.tolist(), slices, strict=True), itemgetter(0)):
        part = read_slices([one for _, one in some])
        yield part.chosen(np.argsort(bins.of(part.rows["key"]), kind="stable")).joined()


def _held_bytes(one: Slice) -> int:
    """What a slice takes in memory, with the columns that are made of it."""
    return one.size_bytes + one.rows * _ROW_BYTES


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
    part: Part, sources: Sequence[Source], shard: str, frames: TFRecordWriter, manifest: ManifestWriter
) -> np.ndarray:
    """Writes the next rows of a shard, all of a range of its keys, and returns them."""
    # Equal keys are possible among billions of records: the chunks' order, member by member, decides then.
    part = part.chosen(np.argsort(part.rows["key"], kind="stable"))
    kept = part.rows["outcome"] == IS_KEPT
    source = columns(part.rows, sources)
    first_index, first_byte = frames.records, frames.bytes
    frame_bytes, crc32c = np.zeros(len(part), np.int64), np.zeros(len(part), np.uint32)
    frame_bytes[kept], crc32c[kept] = frames.write(part.chosen(kept), source["sample_id"].filter(pa.array(kept)))

    def where_kept(values: Any, dtype: pa.DataType) -> pa.Array:
        return pa.array(values, dtype, mask=~kept)

    place = {
        "shard": where_kept(np.full(len(part), shard, object), pa.string()),
        "shard_index": where_kept(first_index + np.maximum(np.cumsum(kept) - 1, 0), pa.uint32()),
        "shard_offset": where_kept(first_byte + np.cumsum(frame_bytes) - frame_bytes, pa.uint64()),
        "shard_bytes": where_kept(frame_bytes, pa.uint32()),
        "shard_crc32c": where_kept(crc32c, pa.uint32()),
    }
    manifest.write(pa.table({**source, **place}, MANIFEST_SCHEMA))
    return part.rows


def _digest(split: str, shard: int, chunks: Sequence[ChunkReceipt], config: ConvertConfig) -> str:
    """Changes with every piece that goes into the shard."""
    pieces = [storage.base_name(chunk.path) for chunk in chunks]
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
