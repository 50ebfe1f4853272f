"""From the command line to the job: inputs listed, the configuration checked, the shards counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import storage
from pipeline.archives import Member, list_members, parse_input
from pipeline.config import ConvertConfig
from pipeline.errors import UserError
from pipeline.job import Conversion
from pipeline.options import Arguments
from pipeline.preprocess import PreprocessConfig
from schemas.classes import ClassList, ClassListError, default_classes, parse_classes
from schemas.dataset import CARD, SPLITS, STAGING_FOLDER

_RECORD_BYTES = 5_000  # of CASIA's records, on average: for the number of shards, which needn't be exact
_EXAMPLE_OVERHEAD_BYTES = 100
_PNG_SHARE = 0.25  # of a PNG in the raw image's bytes, on average


def plan_conversion(arguments: Arguments) -> Conversion:
    """The job that the arguments describe. Raises UserError for whatever would make it fail later."""
    _check_output(arguments.output)
    inputs = [parse_input(argument) for argument in arguments.inputs]
    try:
        # What is wrong with the settings is said before a large input is listed.
        config = ConvertConfig(
            classes=_read_classes(arguments.classes),
            preprocess=PreprocessConfig(image_size=arguments.image_size, **arguments.steps),
            image_encoding=arguments.image_encoding,
            sample_fraction=arguments.sample_fraction,
        )
    except ValueError as error:
        raise UserError(f"--{error}") from error
    members = list_members(inputs, arguments.validation_fraction)
    config = replace(config, num_shards=_num_shards(members, arguments))
    staging = arguments.staging or storage.join(arguments.output, STAGING_FOLDER)
    return Conversion(tuple(members), config, arguments.output, staging, arguments.max_reject_fraction)


def _check_output(output: str) -> None:
    with storage.explained(f"read {output}"):
        if storage.exists(storage.join(output, CARD)):
            raise UserError(
                f"{output}: expected a new folder, found a finished data set; name another --output, or delete it first"
            )
        if not storage.is_remote(output) and storage.size_bytes(output) is not None:
            storage.list_folder(output)


def _read_classes(path: str | None) -> ClassList:
    if path is None:
        return default_classes()
    with storage.explained(f"read --classes {path}"):
        content = storage.read_bytes(path)
    try:
        return parse_classes(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"--classes {path}: expected UTF-8, found something else at byte {error.start:,}; convert it to UTF-8"
        ) from error
    except ClassListError as error:
        raise UserError(f"--classes {path}: {error}") from error


def _num_shards(members: Sequence[Member], arguments: Arguments) -> dict[str, int]:
    """By split: what --num_shards says, else by the members' bytes, packed or not, so that a zip gives the same."""
    size = arguments.image_size**2
    image_bytes = size * _PNG_SHARE if arguments.image_encoding == "png" else size
    example_bytes = (image_bytes + _EXAMPLE_OVERHEAD_BYTES) * arguments.sample_fraction
    counted = {}
    for split in SPLITS:
        split_bytes = sum(member.size_bytes for member in members if member.split == split)
        if any(member.split == split for member in members):
            estimate = split_bytes / _RECORD_BYTES * example_bytes
            counted[split] = arguments.num_shards.get(split) or max(1, round(estimate / arguments.target_shard_bytes))
    return counted
