"""The flags of `python -m pipeline.convert`, parsed without importing Beam, OpenCV or Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.command import Parser, at_least
from schemas.dataset import MAX_SHARDS, SPLITS
from schemas.errors import UserError
from schemas.example import ImageEncoding

DEFAULT_TARGET_SHARD_BYTES = 64 << 20  # 64 MiB
STEPS = {
    "grey": ("luma", "none", "one grey channel out of colours (GNT bitmaps are grey already)"),
    "denoise": ("median", "none", "the median of 3 × 3 pixels"),
    "normalize": ("minmax", "none", "stretch the grey levels to 0 … 255"),
    "binarize": ("otsu", "none", "ink or paper, by Otsu's threshold"),
    "crop": ("edges", "none", "cut to the bounding box of the ink's edges"),
    "resize": ("fit", "none", "scale to the image size, aspect ratio kept, with a margin"),
}
"""Step -> (on, off, what it does)."""
PRESETS = {
    "article": {step: on for step, (on, _, _) in STEPS.items()},
    "best": {step: on for step, (on, _, _) in STEPS.items()} | {"denoise": "none", "binarize": "none"},
}
"""Preset -> step -> its setting: the six steps of the article that this project began with; what is read best."""
DEFAULT_PRESET = "best"
_BRITISH = {"normalize": "--normalise", "binarize": "--binarise"}


@dataclass(frozen=True)
class Arguments:
    """What the command line says; what makes no sense is refused later, by those who know."""

    inputs: list[str]
    output: str
    runner: str
    validation_fraction: float
    classes: str | None
    image_size: int
    image_encoding: ImageEncoding
    steps: dict[str, Any]
    """Step -> on or off, as STEPS names them."""
    num_shards: dict[str, int]
    target_shard_bytes: int
    max_reject_fraction: float
    sample_fraction: float
    staging: str | None
    keep_staging: bool
    beam: list[str] = field(default_factory=list)
    """Every flag that isn't ours, for Beam."""


def parse_arguments(argv: Sequence[str]) -> Arguments:
    parser = _parser()
    flags, beam = parser.parse_known_args(argv)
    _refuse_stray(beam)
    for name in ("output", "staging"):
        if getattr(flags, name) == "":
            raise UserError(f"--{name}: expected a folder, found an empty name")
    return Arguments(
        inputs=flags.input,
        output=flags.output.rstrip("/") or "/",
        runner=flags.runner,
        validation_fraction=_fraction("validation_fraction", flags.validation_fraction, low=0, below=1),
        classes=flags.classes,
        image_size=flags.image_size,
        image_encoding=flags.image_encoding,
        steps={step: getattr(flags, step) or setting for step, setting in PRESETS[flags.preset].items()},
        num_shards=_num_shards(flags.num_shards),
        target_shard_bytes=at_least(1, "--target_shard_bytes", flags.target_shard_bytes),
        max_reject_fraction=_fraction("max_reject_fraction", flags.max_reject_fraction, low=0, below=None),
        sample_fraction=flags.sample_fraction,
        staging=flags.staging and flags.staging.rstrip("/"),
        keep_staging=flags.keep_staging,
        beam=beam,
    )


def _parser() -> Parser:
    parser = Parser(
        "pipeline.convert",
        "Turns GNT archives of CASIA-HWDB into TFRecord shards and a Parquet manifest.",
        epilog="Every other flag goes to Apache Beam, for instance --direct_num_workers=4 or --flink_master=HOST:PORT.",
    )
    add = parser.add_argument
    add(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        metavar="[SPLIT=]PATH",
        help="a .gnt, a .zip of them, a folder or a glob; may be repeated; SPLIT: train (default), validation, test",
    )
    add("--output", required=True, metavar="DIR", help="the folder of the new data set")
    add("--runner", default="DirectRunner", metavar="NAME", help="Beam's runner (default: DirectRunner, all cores)")
    add(
        "--validation_fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="the share of train's writers that goes to validation, chosen by hash (default: 0)",
    )
    add(
        "--classes",
        metavar="FILE",
        help="the characters to keep, one a line, in UTF-8 (default: the 3,754 of GB2312 level 1 without 硷)",
    )
    add("--image_size", type=int, default=64, metavar="PIXELS", help="side of the square images (default: 64)")
    add(
        "--image_encoding",
        default="raw",
        choices=("raw", "png"),
        help="raw reads ten times faster, png takes a quarter of the space (default: raw)",
    )
    add(
        "--num_shards",
        action="append",
        default=[],
        metavar="SPLIT=N",
        help="shards of a split; may be repeated (default: by the input's size)",
    )
    add(
        "--target_shard_bytes",
        type=int,
        default=DEFAULT_TARGET_SHARD_BYTES,
        metavar="BYTES",
        help="the size a shard should have where --num_shards doesn't say (default: 64 MiB)",
    )
    add(
        "--sample_fraction",
        type=float,
        default=1.0,
        metavar="F",
        help="convert this share of the records, chosen by hash, and drop the rest (default: 1)",
    )
    add(
        "--max_reject_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="fail if more of a split's records than this are broken (default: 0.01)",
    )
    add(
        "--staging",
        metavar="DIR",
        help="the folder of the staged pieces (default: _staging in the output); every worker must see it",
    )
    add(
        "--keep_staging",
        action="store_true",
        help="keep the staged pieces: the next conversion with the same --staging, flags and --num_shards reuses them",
    )
    steps = parser.add_argument_group("the six steps, in their order")
    steps.add_argument(
        "--preset",
        default=DEFAULT_PRESET,
        choices=tuple(PRESETS),
        help=f"what a step does unless its own flag says so; article: every step is on (default: {DEFAULT_PRESET})",
    )
    for step, (on, off, meaning) in STEPS.items():
        names = [f"--{step}", *filter(None, [_BRITISH.get(step)])]
        shown = f"{meaning} (default: {PRESETS[DEFAULT_PRESET][step]})"
        steps.add_argument(*names, dest=step, choices=(on, off), help=shown)
    return parser


def _num_shards(arguments: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for argument in arguments:
        split, _, count = argument.rpartition("=")
        if not split or not count.isdecimal():
            raise UserError(f"--num_shards {argument}: expected SPLIT=N, for instance train=64")
        if split not in SPLITS:
            raise UserError(f"--num_shards {argument}: expected one of the splits {', '.join(SPLITS)}, found {split!r}")
        if split in counts:
            raise UserError(
                f"--num_shards {argument}: expected each split once, found {split}={counts[split]} before it"
            )
        if not 1 <= int(count) <= MAX_SHARDS:
            raise UserError(f"--num_shards {argument}: expected 1 to {MAX_SHARDS:,} shards")
        counts[split] = int(count)
    return counts


def _refuse_stray(flags: Sequence[str]) -> None:
    """A word that follows no flag would be lost: most often a shell has made several paths of one."""
    before = "="
    for flag in flags:
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UserError(f"{flag}: expected a flag; name every input after --input, and quote a glob")
        before = flag


def _fraction(name: str, value: float, *, low: float, below: float | None) -> float:
    high = 1 if below is None else below
    if not low <= value <= high or value == below:
        bounds = f"{low} to {high}" if below is None else f"{low} or more, less than {below}"
        raise UserError(f"--{name} {value:g}: expected {bounds}")
    return value
