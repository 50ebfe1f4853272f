"""From the settings to the job: inputs listed, the configuration checked, the shards counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline import storage
from pipeline.convert.options import Settings
from pipeline.shards.config import ConvertConfig
from pipeline.source.archives import Member, list_inputs, parse_input
from schemas.classes import ClassList, ClassListError, default_classes, parse_classes
from schemas.dataset import CARD, LOCK, MANIFEST_FOLDER, SPLITS, STAGING_FOLDER, PassedOver, is_own_name
from schemas.errors import UserError, explained, printable
from schemas.machine import without_temporary_mark

_RECORD_BYTES = 5_000  # of CASIA's records, on average: for the number of shards, which needn't be exact
_EXAMPLE_OVERHEAD_BYTES = 100
_PNG_SHARE = 0.25  # of a PNG in the raw image's bytes, on average


@dataclass(frozen=True)
class Conversion:
    """A conversion whose inputs are listed: what goes in, what to make of it, where it goes."""

    members: Sequence[Member]
    config: ConvertConfig
    output: str
    staging: str
    max_reject_fraction: float
    passed_over: PassedOver = field(default_factory=PassedOver)
    warnings: Sequence[str] = ()
    """What to say of the inputs before they are converted."""

    @property
    def source_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members)


def plan_conversion(settings: Settings) -> Conversion:
    """The job that the settings describe. Raises UserError for whatever would make it fail later."""
    storage.take_flags(settings.beam)
    check_output(settings.output)
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
    listing = list_inputs(inputs, settings.validation_fraction)
    members = listing.members
    config = replace(config, num_shards=_num_shards(members, settings))
    staging = settings.staging or storage.join(settings.output, STAGING_FOLDER)
    return Conversion(
        members=tuple(members),
        config=config,
        output=settings.output,
        staging=staging,
        max_reject_fraction=settings.max_reject_fraction,
        passed_over=listing.passed_over,
        warnings=listing.warnings,
    )


def check_output(output: str) -> None:
    """Raises UserError where the output folder holds a data set, or anything that no conversion wrote."""
    try:
        output.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{printable(output)}: expected a name in UTF-8 for --output; name another folder") from error
    with explained(f"read {output}"):
        if storage.exists(storage.join(output, CARD)):
            raise UserError(
                f"{output}: expected a new folder, found a finished data set; name another --output, or delete it first"
            )
        foreign = _foreign_files(output)
    if foreign:
        raise UserError(
            f"{output}: expected a new folder, or that of an interrupted conversion, found {printable(foreign[0])} "
            "in it; name another --output"
        )


def _foreign_files(output: str) -> list[str]:
    """Files in a folder that aren't an unfinished conversion's."""
    found = []
    for folder in ("", f"{MANIFEST_FOLDER}/"):
        for file in storage.list_folder(storage.join(output, folder) if folder else output):
            name = f"{folder}{storage.base_name(file.path)}"
            if name != LOCK and not name.startswith(".") and not is_own_name(without_temporary_mark(name)):
                found.append(name)
    return sorted(found)


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
            counted[split] = settings.num_shards.get(split) or max(1, round(estimate / settings.target_shard_bytes))
    return counted
