"""The conversion as a Beam pipeline. Transforms only wire: what they call is tested without Beam."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from pipeline.shards.slices import Edges
from pipeline.shards.staging import ChunkReceipt
from pipeline.source.archives import list_members, parse_input
from pipeline.source.chunks import Chunk, Window, count_windows, plan_chunks, probe, read_chunk
from pipeline.source.losses import check_rejects
from pipeline.source.members import Member
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import ClassList, default_classes
from schemas.dataset import CARD

ShardKey = tuple[str, int]
"""(split, shard)"""


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
                for part in convert_records(read_chunk(chunk), chunk, self.config):
                    yield from samples_of(part, member, self.config)


def convert(root: beam.Pipeline, job: Conversion) -> beam.PCollection:
    """Wires the whole job onto a pipeline; the path of its card comes out."""
    probed = []
    if large := [member for member in job.members if count_windows(member)]:
        windows = (
            root
            | "LargeMembers" >> beam.Create(large, reshuffle=False)
            | "Windows" >> beam.FlatMap(lambda member: [(member, number) for number in range(count_windows(member))])
            | "SpreadWindows" >> beam.Reshuffle()
            | "Probe" >> beam.ParDo(Probe())  # (location, (number, Window))
        )
        probed = [pvalue.AsMultiMap(windows)]
    chunks = (
        root
        | "Members" >> beam.Create(job.members, reshuffle=False)
        | "SpreadMembers" >> beam.Reshuffle()
        | "PlanChunks" >> beam.ParDo(PlanChunks(job.private), *probed)  # Chunk
        | "Sized" >> beam.Map(_sized).with_output_types(tuple[str, Chunk])
        | "SpreadChunks" >> beam.GroupByKey()
        | "Chunks" >> beam.FlatMapTuple(lambda _, chunks: chunks)
        | "ConvertChunk" >> beam.ParDo(ConvertChunk(job.config, job.pieces, job.kept))  # ChunkReceipt
    )
    shards = (
        root
        | "Splits" >> beam.Create(list(job.config.num_shards.items()), reshuffle=False)
        | "Shards" >> beam.FlatMapTuple(lambda split, count: [(split, shard) for shard in range(count)])  # ShardKey
        | "SpreadShards" >> beam.Reshuffle()
        | "WriteShard"
        >> beam.ParDo(
            WriteShard(job.config, job.output, job.private, job.digest), pvalue.AsList(chunks)
        )  # ShardReceipt
    )
    # From a beginning of its own: it has its say where there is no receipt, too.
    both = pvalue.AsIter(chunks), pvalue.AsIter(shards)
    return root | "Once" >> beam.Impulse() | "Publish" >> beam.ParDo(Publish(job), *both)


def _sized(chunk: Chunk) -> tuple[str, Chunk]:
    """A chunk with a key of its own, by which the largest can be handed out first."""
    return f"{chunk.size_bytes:020}-{chunk.digest('')}", chunk


@dataclass(eq=False)
class Probe(_FileFn):
    """(Member, number of a window) -> (its location, (number, Window))."""

    def process(self, wanted: tuple[Member, int]) -> Iterator[tuple[str, tuple[int, Window]]]:
        member, number = wanted
        yield member.location, (number, probe(member, number))


@dataclass(eq=False)
class PlanChunks(_FileFn):
    """Member, and at its side the windows of large ones -> its Chunks."""

    staging: str

    def process(
        self, member: Member, probed: Mapping[str, Iterable[tuple[int, Window]]] | None = None
    ) -> Iterator[Chunk]:
        windows = dict(probed[member.location]) if probed is not None and count_windows(member) else {}
        yield from plan_chunks(member, self.staging, windows=windows)


@dataclass(eq=False)
class ConvertChunk(_FileFn):
    """Chunk -> its ChunkReceipt."""

    config: ConvertConfig
    staging: str
    kept: str | None

    def process(self, chunk: Chunk) -> Iterator[ChunkReceipt]:
        yield convert_chunk(chunk, self.config, self.staging, self.kept)


@dataclass(eq=False)
class WriteShard(_FileFn):
    """ShardKey, and every ChunkReceipt at its side -> ShardReceipt."""

    config: ConvertConfig
    output: str
    staging: str
    job: str

    def setup(self) -> None:
        super().setup()
        self.edges = Edges()

    def process(self, key: ShardKey, chunks: Sequence[ChunkReceipt]) -> Iterator[ShardReceipt]:
        own = [chunk for chunk in chunks if chunk.split == key[0]]
        receipt = write_shard(*key, own, self.config, self.output, self.staging, self.job, self.edges)
        for kind, records in receipt.counts.items():  # for the engine's own page: what the card will say
            Metrics.counter("hwdb", kind).inc(records)
        yield receipt


@dataclass(eq=False)
class Publish(_FileFn):
    """Every receipt, at its side -> the card's path, once everything is accounted for and it is written."""

    job: Conversion

    def process(self, _once: bytes, chunks: Iterable[ChunkReceipt], shards: Iterable[ShardReceipt]) -> Iterator[str]:
        job = self.job
        card = publish.build_card(job.members, chunks, shards, job.config, job.passed_over, job.origin)
        publish.check_sources(job.members)
        check_rejects(card, job.max_reject_fraction)
        publish.write_side_files(card, job.config, job.output)
        unfinished.remove_leftovers(job.output, publish.paths(card))
        publish.write_card(card, job.output)
        unfinished.end(job.output)
        yield storage.join(job.output, CARD)
