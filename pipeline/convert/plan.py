"""From the settings to the job: inputs listed, the configuration checked, the shards counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline import storage
from pipeline.convert.options import Settings
from pipeline.shards import unfinished
from pipeline.shards.chunk import source_digest
from pipeline.shards.config import ConvertConfig
from pipeline.shards.staging import has_kept_chunks, private_folder
from pipeline.shards.unfinished import Unfinished
from pipeline.source.archives import list_inputs, parse_input
from pipeline.source.members import Member
from pipeline.source.origins import ORIGINS
from schemas.classes import ClassList, ClassListError, default_classes, parse_classes
from schemas.dataset import MANIFEST_FOLDER, MAX_SHARDS, SPLITS, STAGING_FOLDER, Origin, PassedOver
from schemas.errors import UserError, explained, printable

_RECORD_BYTES = 5_000  # of CASIA's records, on average: for the number of shards, which needn't be exact
_EXAMPLE_OVERHEAD_BYTES = 100
_PNG_SHARE = 0.25  # of a PNG in the raw image's bytes, on average


@dataclass(frozen=True)
class Conversion:
    """A conversion whose inputs are listed: what goes in, what to make of it, where it goes."""

    members: Sequence[Member]
    config: ConvertConfig
    output: str
    mark: Unfinished
    """Says in the output what is this conversion's, and names its pieces."""
    staging: str
    """The folder of the staged pieces, in which other conversions may have theirs."""
    keeps_staging: bool
    has_kept: bool
    """Whether there are pieces in it already that some conversion has kept."""
    max_reject_fraction: float
    passed_over: PassedOver = field(default_factory=PassedOver)
    origin: Origin | None = None
    warnings: Sequence[str] = ()
    """What to say of the inputs before they are converted."""

    @property
    def source_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members)

    @property
    def private(self) -> str:
        """The folder of what goes away with this conversion, in that of the pieces."""
        return private_folder(self.staging, self.mark.conversion)

    @property
    def pieces(self) -> str:
        """The folder its staged chunks are written to."""
        return self.staging if self.keeps_staging else self.private

    @property
    def kept(self) -> str | None:
        """A folder of chunks to use if they fit, and to leave alone."""
        return self.staging if self.has_kept else None

    @cached_property
    def sources(self) -> frozenset[str]:
        """The digests by which the pieces of its members are known."""
        return frozenset(source_digest(member, self.config) for member in self.members)

    @cached_property
    def digest(self) -> str:
        """Of all that goes into the data set, wherever that is written."""
        return hashlib.blake2b("".join(sorted(self.sources)).encode(), digest_size=16).hexdigest()


def plan_conversion(settings: Settings) -> Conversion:
    """The job that the settings describe. Raises UserError for whatever would make it fail later."""
    storage.take_flags(settings.beam)
    output = settings.output
    try:
        output.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{printable(output)}: expected a name in UTF-8 for --output; name another folder") from error
    folder = settings.staging or storage.join(output, STAGING_FOLDER)
    with explained(f"read {output}"):
        inside = storage.below(folder, output)
    if settings.keep_staging and inside in ("", MANIFEST_FOLDER):
        raise UserError(
            f"--keep_staging: expected another --staging than {folder}, where the kept pieces would lie among the "
            "files of the data set; leave it out, or name another"
        )
    mark = unfinished.check_output(output, folder) or Unfinished()
    inputs = [parse_input(argument) for argument in settings.inputs]
    try:
        # What is wrong with the settings is said before a large input is listed.
        config = ConvertConfig(
            classes=_read_classes(settings.classes),
            preprocess=settings.preprocess,
            image_encoding=settings.image_encoding,
            sample_fraction=settings.sample_fraction,
        )
    except ValueError as error:
        raise UserError(f"--{error}") from error
    own = (output, folder, private_folder(folder, mark.conversion))
    listing = list_inputs(inputs, settings.validation_fraction, own)
    members = listing.members
    config = replace(config, num_shards=_num_shards(members, settings))
    return Conversion(
        members=tuple(members),
        config=config,
        output=output,
        mark=mark,
        staging=folder,
        keeps_staging=settings.keep_staging,
        has_kept=has_kept_chunks(folder),
        max_reject_fraction=settings.max_reject_fraction,
        passed_over=listing.passed_over,
        origin=ORIGINS[settings.origin] if settings.origin else None,
        warnings=listing.warnings,
    )


def begin(job: Conversion) -> None:
    """Marks the output as this conversion's. Raises UserError where another has begun, or finished, there meanwhile."""
    mark = unfinished.check_output(job.output, job.staging)
    if mark is not None and mark.conversion != job.mark.conversion:
        raise UserError(
            f"{job.output}: expected a new folder, found that of a conversion which has begun and ended meanwhile; "
            "run the same command again to go on from there, or name another --output"
        )
    unfinished.begin(job.output, (mark or job.mark).added(job.config.num_shards))


def _read_classes(path: str | None) -> ClassList:
    if path is None:
        return default_classes()
    with explained(f"read --classes {path}"):
        content = storage.read_bytes(path)
    try:
        return parse_classes(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"--classes {path}: expected UTF-8, found something else at byte {error.start:,}; convert it to UTF-8"
        ) from error
    except ClassListError as error:
        raise UserError(f"--classes {path}: {error}") from error


def _num_shards(members: Sequence[Member], settings: Settings) -> dict[str, int]:
    """By split: what --num_shards says, else by the members' bytes, packed or not, so that a zip gives the same."""
    size = settings.image_size**2
    image_bytes = size * _PNG_SHARE if settings.image_encoding == "png" else size
    example_bytes = (image_bytes + _EXAMPLE_OVERHEAD_BYTES) * settings.sample_fraction
    for split in settings.num_shards:
        if not any(member.split == split for member in members):
            raise UserError(f"--num_shards {split}=…: expected a split that has input, found none for {split}")
    counted = {}
    for split in SPLITS:
        split_bytes = sum(member.size_bytes for member in members if member.split == split)
        if any(member.split == split for member in members):
            estimate = split_bytes / _RECORD_BYTES * example_bytes
            counted[split] = settings.num_shards.get(split) or _estimated_shards(split, estimate, settings)
    return counted


def _estimated_shards(split: str, estimated_bytes: float, settings: Settings) -> int:
    count = max(1, round(estimated_bytes / settings.target_shard_bytes))
    if count > MAX_SHARDS:
        raise UserError(
            f"--target_shard_bytes {settings.target_shard_bytes}: expected at most {MAX_SHARDS:,} shards, found that "
            f"{split} would have {count:,}; name a larger size"
        )
    return count
