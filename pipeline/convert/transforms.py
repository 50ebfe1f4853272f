"""The conversion as a Beam pipeline. Transforms only wire: what they call is tested without Beam."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from pipeline import storage
from pipeline.convert.options import Settings
from pipeline.convert.plan import Conversion, begin, plan_conversion
from pipeline.shards import publish, unfinished
from pipeline.shards.chunk import convert_chunk, convert_records, samples_of
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import ShardReceipt, write_shard
from pipeline.shards.staging import ChunkReceipt, StagedBatch
from pipeline.source.archives import list_members, parse_input
from pipeline.source.chunks import Chunk, plan_chunks, read_chunk
from pipeline.source.losses import check_rejects
from pipeline.source.members import Member
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import ClassList, default_classes
from schemas.dataset import CARD

ShardKey = tuple[str, int]
"""(split, shard)"""
BatchTuple = tuple[Any, ...]
_RECEIPT = "receipt"
_EMPTY_AT_ONCE = 16  # shards, which do nothing but wait for the disk


class ConvertArchives(beam.PTransform):
    """A whole conversion inside somebody's own pipeline: from its beginning to the path of the card, one element.

    It takes no lock, shows no progress and leaves the staged pieces where they are. Raises UserError for the settings
    and for inputs that can't be listed.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.job = plan_conversion(settings)

    def expand(self, root: Any) -> Any:
        begin(self.job)
        return convert(root.pipeline, self.job)


class ReadSamples(beam.PTransform):
    """The samples of archives, for somebody's own pipeline: from its beginning to a dict for each kept record.

    Its keys are sample_id, split, label, char, writer and image, uint8 [size, size], ink 255 on 0. Raises UserError for
    inputs that can't be listed.
    """

    def __init__(
        self,
        inputs: Iterable[str],
        preprocess: PreprocessConfig | None = None,
        classes: ClassList | None = None,
        beam: Sequence[str] = (),
    ) -> None:
        super().__init__()
        storage.take_flags(beam)
        self.members = list_members([parse_input(argument) for argument in inputs], 0.0)
        splits = {member.split: 1 for member in self.members}
        self.config = ConvertConfig(classes or default_classes(), preprocess or PreprocessConfig(), num_shards=splits)

    def expand(self, root: Any) -> Any:
        return (
            root
            | "Members" >> beam.Create(self.members, reshuffle=False)
            | "SpreadMembers" >> beam.Reshuffle()
            | "ReadMember" >> beam.ParDo(ReadMember(self.config))
        )


@dataclass(eq=False)
class _FileFn(beam.DoFn):
    """Reads or writes files: a worker reaches their store as the process does that wired it."""

    flags: storage.StoreFlags = field(default_factory=storage.used_flags, kw_only=True)

    def setup(self) -> None:
        storage.use_flags(self.flags)


@dataclass(eq=False)
class ReadMember(_FileFn):
    """Member -> the samples of its kept records."""

    config: ConvertConfig

    def process(self, member: Member) -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as unpacked:
            for chunk in plan_chunks(member, unpacked):
                for table in convert_records(read_chunk(chunk), chunk, self.config):
                    yield from samples_of(table, self.config)


def convert(root: beam.Pipeline, job: Conversion) -> beam.PCollection:
    """Wires the whole job onto a pipeline; the path of its card comes out."""
    converted = (
        root
        | "Members" >> beam.Create(job.members, reshuffle=False)
        | "SpreadMembers" >> beam.Reshuffle()
        | "PlanChunks" >> beam.ParDo(PlanChunks(job.private))  # Chunk
        | "SpreadChunks" >> beam.Reshuffle()
        | "ConvertChunk"
        >> beam.ParDo(ConvertChunk(job.config, job.pieces, job.kept)).with_outputs(_RECEIPT, main="batches")
    )
    shards = (
        converted["batches"]  # ((split, shard), StagedBatch as a tuple)
        | "ByShard" >> beam.GroupByKey()
        | "WriteShard" >> beam.ParDo(WriteShard(job.config, job.output, job.private, job.digest))  # ShardReceipt
    )
    receipts = (converted[_RECEIPT], shards) | "Receipts" >> beam.Flatten()  # ChunkReceipt | ShardReceipt
    # From a beginning of its own: it has its say where there is no receipt, too.
    return root | "Once" >> beam.Impulse() | "Publish" >> beam.ParDo(Publish(job), pvalue.AsIter(receipts))


@dataclass(eq=False)
class PlanChunks(_FileFn):
    """Member -> its Chunks."""

    staging: str

    def process(self, member: Member) -> Iterator[Chunk]:
        yield from plan_chunks(member, self.staging)


@dataclass(eq=False)
class ConvertChunk(_FileFn):
    """Chunk -> ((split, shard), StagedBatch as a tuple), and its ChunkReceipt."""

    config: ConvertConfig
    staging: str
    kept: str | None

    def process(self, chunk: Chunk) -> Iterator[tuple[ShardKey, BatchTuple] | pvalue.TaggedOutput]:
        receipt = convert_chunk(chunk, self.config, self.staging, self.kept)
        # Publish gathers every chunk's receipt, and has no use for the batches of each.
        yield pvalue.TaggedOutput(_RECEIPT, replace(receipt, batches=[]))
        for key, batch in receipt.staged_batches():
            yield key, astuple(batch)  # for which Beam has a quicker coder than pickling


@dataclass(eq=False)
class WriteShard(_FileFn):
    """((split, shard), [StagedBatch as a tuple]) -> ShardReceipt."""

    config: ConvertConfig
    output: str
    staging: str
    job: str

    def process(self, keyed: tuple[ShardKey, Iterable[BatchTuple]]) -> Iterator[ShardReceipt]:
        (split, shard), batches = keyed
        staged = [StagedBatch(*batch) for batch in batches]
        receipt = write_shard(split, shard, staged, self.config, self.output, self.staging, self.job)
        for kinds in receipt.members.values():
            for kind, records in kinds.items():  # for the engine's own page: what the card will say
                Metrics.counter("hwdb", kind).inc(records)
        yield receipt


@dataclass(eq=False)
class Publish(_FileFn):
    """Every receipt, at its side -> the card's path, once everything is accounted for and it is written."""

    job: Conversion

    def process(self, _once: bytes, receipts: Iterable[ChunkReceipt | ShardReceipt]) -> Iterator[str]:
        job = self.job
        receipts = list(receipts)
        chunks = [receipt for receipt in receipts if isinstance(receipt, ChunkReceipt)]
        shards = [receipt for receipt in receipts if isinstance(receipt, ShardReceipt)]
        shards += self._write_empty_shards({(receipt.split, receipt.shard) for receipt in shards})
        card = publish.build_card(job.members, chunks, shards, job.config, job.passed_over, job.origin)
        publish.check_sources(job.members)
        check_rejects(card, job.max_reject_fraction)
        publish.write_side_files(card, job.config, job.output)
        unfinished.remove_leftovers(job.output, publish.paths(card))
        publish.write_card(card, job.output)
        unfinished.end(job.output)
        yield storage.join(job.output, CARD)

    def _write_empty_shards(self, written: set[ShardKey]) -> list[ShardReceipt]:
        """A shard that nothing falls into is a file too."""
        job = self.job
        keys = [(split, shard) for split, count in job.config.num_shards.items() for shard in range(count)]
        empty = [key for key in keys if key not in written]

        def write(key: ShardKey) -> ShardReceipt:
            return write_shard(*key, [], job.config, job.output, job.private, job.digest)

        with ThreadPoolExecutor(_EMPTY_AT_ONCE) as executor:
            return list(executor.map(write, empty))
