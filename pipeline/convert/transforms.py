"""The conversion as a Beam pipeline. Transforms only wire: what they call is tested without Beam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipeline import storage
from pipeline.convert.job import Conversion
from pipeline.shards import publish
from pipeline.shards.chunk import convert_chunk
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import ShardReceipt, write_shard
from pipeline.shards.staging import ChunkReceipt, StagedBatch
from pipeline.source.archives import Member
from pipeline.source.chunks import Chunk, plan_chunks

ShardKey = tuple[str, int]
"""(split, shard)"""
BatchTuple = tuple[Any, ...]
_RECEIPT = "receipt"


def convert(root: beam.Pipeline, job: Conversion) -> None:
    """Wires the whole job onto a pipeline."""
    converted = (
        root
        | "Members" >> beam.Create(job.members, reshuffle=False)
        | "SpreadMembers" >> beam.Reshuffle()
        | "PlanChunks" >> beam.ParDo(PlanChunks(job.staging))  # Chunk
        | "SpreadChunks" >> beam.Reshuffle()
        | "ConvertChunk" >> beam.ParDo(ConvertChunk(job.config, job.staging)).with_outputs(_RECEIPT, main="batches")
    )
    shards = (
        converted["batches"]  # ((split, shard), StagedBatch as a tuple)
        | "ByShard" >> beam.GroupByKey()
        | "WriteShard" >> beam.ParDo(WriteShard(job.config, job.output, job.staging))  # ShardReceipt
    )
    receipts = (converted[_RECEIPT], shards) | "Receipts" >> beam.Flatten()  # ChunkReceipt | ShardReceipt
    # From a beginning of its own: it has its say where there is no receipt, too.
    root | "Once" >> beam.Impulse() | "Publish" >> beam.ParDo(Publish(job), pvalue.AsIter(receipts))


class PlanChunks(beam.DoFn):
    """Member -> its Chunks."""

    def __init__(self, staging: str) -> None:
        self.staging = staging

    def process(self, member: Member) -> Iterator[Chunk]:
        yield from plan_chunks(member, self.staging)


class ConvertChunk(beam.DoFn):
    """Chunk -> ((split, shard), StagedBatch as a tuple), and its ChunkReceipt."""

    def __init__(self, config: ConvertConfig, staging: str) -> None:
        self.config = config
        self.staging = staging

    def process(self, chunk: Chunk) -> Iterator[tuple[ShardKey, BatchTuple] | pvalue.TaggedOutput]:
        receipt = convert_chunk(chunk, self.config, self.staging)
        # Publish gathers every chunk's receipt, and has no use for the batches of each.
        yield pvalue.TaggedOutput(_RECEIPT, replace(receipt, batches=[]))
        for key, batch in receipt.staged_batches():
            yield key, astuple(batch)  # for which Beam has a quicker coder than pickling


class WriteShard(beam.DoFn):
    """((split, shard), [StagedBatch as a tuple]) -> ShardReceipt."""

    def __init__(self, config: ConvertConfig, output: str, staging: str) -> None:
        self.config = config
        self.output = output
        self.staging = staging

    def process(self, keyed: tuple[ShardKey, Iterable[BatchTuple]]) -> Iterator[ShardReceipt]:
        (split, shard), batches = keyed
        staged = [StagedBatch(*batch) for batch in batches]
        yield write_shard(split, shard, staged, self.config, self.output, self.staging)


class Publish(beam.DoFn):
    """Every receipt, at its side -> the card, once everything is accounted for."""

    def __init__(self, job: Conversion) -> None:
        self.job = job

    def process(self, _once: bytes, receipts: Iterable[ChunkReceipt | ShardReceipt]) -> None:
        job = self.job
        receipts = list(receipts)
        chunks = [receipt for receipt in receipts if isinstance(receipt, ChunkReceipt)]
        shards = [receipt for receipt in receipts if isinstance(receipt, ShardReceipt)]
        shards += self._write_empty_shards({(receipt.split, receipt.shard) for receipt in shards})
        card = publish.build_card(job.members, chunks, shards, job.config)
        publish.check_sources(job.members)
        publish.check_rejects(card, job.max_reject_fraction)
        publish.write_side_files(card, job.config, job.output)
        storage.delete(publish.leftovers(card, job.output))
        publish.write_card(card, job.output)

    def _write_empty_shards(self, written: set[ShardKey]) -> list[ShardReceipt]:
        """A shard that nothing falls into is a file too."""
        job = self.job
        keys = [(split, shard) for split, count in job.config.num_shards.items() for shard in range(count)]
        return [write_shard(*key, [], job.config, job.output, job.staging) for key in keys if key not in written]
