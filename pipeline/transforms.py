"""The conversion as a Beam pipeline. Transforms only wire: what they call is tested without Beam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import apache_beam as beam
from apache_beam import pvalue

from pipeline import publish, storage
from pipeline.archives import Member
from pipeline.chunks import Chunk, plan_chunks
from pipeline.config import ConvertConfig
from pipeline.convert_chunk import convert_chunk
from pipeline.job import Conversion
from pipeline.shards import ShardReceipt, write_shard
from pipeline.staging import ChunkReceipt, StagedBatch

ShardKey = tuple[str, int]
"""(split, shard)"""
_RECEIPT = "receipt"


def convert(root: beam.Pipeline, job: Conversion) -> None:
    """Wires the whole job onto a pipeline."""
    shard_keys = [(split, shard) for split, count in job.config.num_shards.items() for shard in range(count)]
    converted = (
        root
        | "Members" >> beam.Create(job.members)
        | "SpreadMembers" >> beam.Reshuffle()
        | "PlanChunks" >> beam.ParDo(PlanChunks(job.staging))  # Chunk
        | "SpreadChunks" >> beam.Reshuffle()
        | "ConvertChunk" >> beam.ParDo(ConvertChunk(job.config, job.staging)).with_outputs(_RECEIPT, main="batches")
    )
    # A shard nothing falls into is a file too.
    every_shard = root | "ShardKeys" >> beam.Create(shard_keys) | "NoBatch" >> beam.Map(_no_batch)
    shards = (
        (converted["batches"], every_shard)
        | "Batches" >> beam.Flatten()  # ((split, shard), StagedBatch | None)
        | "ByShard" >> beam.GroupByKey()  # ((split, shard), [StagedBatch | None])
        | "WriteShard" >> beam.ParDo(WriteShard(job.config, job.output, job.staging))  # ShardReceipt
    )
    (
        (converted[_RECEIPT], shards)
        | "Receipts" >> beam.Flatten()
        | "OneKey" >> beam.Map(_one_key)
        | "AllReceipts" >> beam.GroupByKey()  # (0, [ChunkReceipt | ShardReceipt])
        | "Publish" >> beam.ParDo(Publish(job))
    )


class PlanChunks(beam.DoFn):
    """Member -> its Chunks."""

    def __init__(self, staging: str) -> None:
        self.staging = staging

    def process(self, member: Member) -> Iterator[Chunk]:
        yield from plan_chunks(member, self.staging)


class ConvertChunk(beam.DoFn):
    """Chunk -> ((split, shard), StagedBatch), and its ChunkReceipt."""

    def __init__(self, config: ConvertConfig, staging: str) -> None:
        self.config = config
        self.staging = staging

    def process(self, chunk: Chunk) -> Iterator[tuple[ShardKey, StagedBatch | None] | pvalue.TaggedOutput]:
        receipt = convert_chunk(chunk, self.config, self.staging)
        # Publish gathers every chunk's receipt under one key, and has no use for the batches of each.
        yield pvalue.TaggedOutput(_RECEIPT, replace(receipt, batches=[]))
        yield from receipt.staged_batches()


class WriteShard(beam.DoFn):
    """((split, shard), [StagedBatch | None]) -> ShardReceipt."""

    def __init__(self, config: ConvertConfig, output: str, staging: str) -> None:
        self.config = config
        self.output = output
        self.staging = staging

    def process(self, keyed: tuple[ShardKey, Iterable[StagedBatch | None]]) -> Iterator[ShardReceipt]:
        (split, shard), batches = keyed
        staged = [batch for batch in batches if batch is not None]
        yield write_shard(split, shard, staged, self.config, self.output, self.staging)


class Publish(beam.DoFn):
    """(0, every receipt) -> the card, once everything is accounted for."""

    def __init__(self, job: Conversion) -> None:
        self.job = job

    def process(self, keyed: tuple[int, Iterable[ChunkReceipt | ShardReceipt]]) -> None:
        job = self.job
        receipts = list(keyed[1])
        chunks = [receipt for receipt in receipts if isinstance(receipt, ChunkReceipt)]
        shards = [receipt for receipt in receipts if isinstance(receipt, ShardReceipt)]
        card = publish.build_card(job.members, chunks, shards, job.config)
        publish.check_sources(job.members)
        publish.check_rejects(card, job.max_reject_fraction)
        publish.write_side_files(card, job.config, job.output)
        storage.delete(publish.leftovers(card, job.output))
        publish.write_card(card, job.output)


def _no_batch(key: ShardKey) -> tuple[ShardKey, StagedBatch | None]:
    return key, None


def _one_key(receipt: ChunkReceipt | ShardReceipt) -> tuple[int, ChunkReceipt | ShardReceipt]:
    return 0, receipt
