"""The flags of `python -m pipeline.convert`, parsed without importing Beam, OpenCV or Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.source.origins import ORIGINS
from pipeline.steps.settings import DEFAULT_PRESET, PRESETS, STEPS, PreprocessConfig
from schemas.command import Parser, at_least, expanded, expanded_flag
from schemas.dataset import MAX_SHARDS, SPLITS
from schemas.errors import UserError
from schemas.example import ImageEncoding

LOG_LEVELS = ("debug", "info", "warning", "error")
_BRITISH = {"normalize": "--normalise", "binarize": "--binarise"}


@dataclass(frozen=True)
class Settings:
    """A conversion: what goes in, what to make of it, where it goes. Raises UserError where that makes no sense."""

    inputs: Sequence[str]
    """`train=PATH`, or PATH alone for train: a .gnt, a .zip of them, a folder or a glob each."""
    output: str
    """The folder of the new data set, or its URL."""
    runner: str = "DirectRunner"
    validation_fraction: float = 0.0
    """The share of train's writers that goes to validation."""
    classes: str | None = None
    """A file of the characters to keep; None for the 3,754 of GB2312 level 1 without 硷."""
    image_size: int = 64
    image_encoding: ImageEncoding = "raw"
    preset: str = DEFAULT_PRESET
    steps: Mapping[str, str] = field(default_factory=dict)
    """Step -> on or off, as STEPS names them, where it isn't the preset's."""
    num_shards: Mapping[str, int] = field(default_factory=dict)
    """By split; by the input's size where it doesn't say."""
    target_shard_bytes: int = 64 << 20  # 64 MiB
    max_reject_fraction: float = 0.01
    sample_fraction: float = 1.0
    origin: str | None = None
    """Whose handwriting it is, one of ORIGINS; None where that isn't known."""
    staging: str | None = None
    """The folder of the staged pieces; None for _staging in the output."""
    keep_staging: bool = False
    beam: Sequence[str] = ()
    """Flags for Beam."""
    log_level: str | None = None
    """The level from which on workers send what they log, one of LOG_LEVELS; None for nothing."""

    def __post_init__(self) -> None:
        for name in ("output", "staging"):
            folder = getattr(self, name)
            if folder == "":
                raise UserError(f"--{name}: expected a folder, found an empty name")
            object.__setattr__(self, name, folder and (expanded(folder).rstrip("/") or "/"))
        object.__setattr__(self, "inputs", [expanded(argument) for argument in self.inputs])
        object.__setattr__(self, "classes", self.classes and expanded(self.classes))
        object.__setattr__(self, "beam", [expanded_flag(_in_utf8(word)) for word in self.beam])
        if self.preset not in PRESETS:
            raise UserError(f"--preset {self.preset}: expected {' or '.join(PRESETS)}")
        if self.origin not in (None, *ORIGINS):
            raise UserError(f"--origin {self.origin}: expected {' or '.join(ORIGINS)}")
        if self.log_level not in (None, *LOG_LEVELS):
            raise UserError(f"--log_level {self.log_level}: expected {', '.join(LOG_LEVELS)}")
        for name, low, below in (("validation_fraction", 0, 1), ("max_reject_fraction", 0, None)):
            _check_fraction(name, getattr(self, name), low=low, below=below)
        at_least(self.image_size**2, "--target_shard_bytes", self.target_shard_bytes)  # an image each, as it is
        for split, count in self.num_shards.items():
            if split not in SPLITS:
                raise UserError(
                    f"--num_shards {split}={count}: expected one of the splits {', '.join(SPLITS)}, found {split!r}"
                )
            if not 1 <= count <= MAX_SHARDS:
                raise UserError(f"--num_shards {split}={count}: expected 1 to {MAX_SHARDS:,} shards")

    @property
    def preprocess(self) -> PreprocessConfig:
        """The preset's steps but for those that are named. Raises ValueError where they make no sense."""
        steps: dict[str, Any] = {**PRESETS[self.preset], **self.steps}
        return PreprocessConfig(image_size=self.image_size, **steps)


def parse_arguments(argv: Sequence[str]) -> Settings:
    flags, beam = _parser().parse_known_args(argv)
    _refuse_stray(beam)
    given = vars(flags)
    steps = {step: choice for step in STEPS if (choice := given.pop(step)) is not None}
    return Settings(**{**given, "num_shards": _num_shards(flags.num_shards), "steps": steps, "beam": beam})


def _parser() -> Parser:
    parser = Parser(
        "pipeline.convert",
        "Turns GNT archives of CASIA-HWDB into TFRecord shards and a Parquet manifest.",
        epilog="Every other flag goes to Apache Beam, for instance --direct_num_workers=4 or --flink_master=HOST:PORT.",
    )
    add = parser.add_argument
    add(
        "--input",
        dest="inputs",
        action="extend",
        nargs="+",
        required=True,
        metavar="[SPLIT=]PATH",
        help="a .gnt, a .zip of them, a folder or a glob; may be repeated; SPLIT: train (default), validation, test",
    )
    add("--output", required=True, metavar="DIR", help="the folder of the new data set")
    add("--runner", default=Settings.runner, metavar="NAME", help="Beam's runner (default: DirectRunner, all cores)")
    add(
        "--validation_fraction",
        type=float,
        default=Settings.validation_fraction,
        metavar="F",
        help="the share of train's writers that goes to validation, chosen by hash (default: 0)",
    )
    add(
        "--origin",
        choices=tuple(ORIGINS),
        help="whose handwriting it is: casia puts its licence, citation and homepage on the card, drawn says that "
        "hwdb sample made it (default: the card doesn't say)",
    )
    add(
        "--classes",
        metavar="FILE",
        help="the characters to keep, one a line, in UTF-8 (default: the 3,754 of GB2312 level 1 without 硷)",
    )
    add(
        "--image_size",
        type=int,
        default=Settings.image_size,
        metavar="PIXELS",
        help="side of the square images (default: 64)",
    )
    add(
        "--image_encoding",
        default=Settings.image_encoding,
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
        default=Settings.target_shard_bytes,
        metavar="BYTES",
        help="the size a shard should have where --num_shards doesn't say (default: 64 MiB)",
    )
    add(
        "--sample_fraction",
        type=float,
        default=Settings.sample_fraction,
        metavar="F",
        help="convert this share of the records, chosen by hash, and drop the rest (default: 1)",
    )
    add(
        "--max_reject_fraction",
        type=float,
        default=Settings.max_reject_fraction,
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
    add("--log_level", choices=LOG_LEVELS, help="show what Beam, the engine and workers log (default: nothing)")
    steps = parser.add_argument_group("the six steps, in their order")
    steps.add_argument(
        "--preset",
        default=Settings.preset,
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
        if not split or not count.isdecimal() or len(count) > 9:  # Python converts no thousands of digits
            raise UserError(f"--num_shards {argument}: expected SPLIT=N, for instance train=64")
        if split in counts:
            raise UserError(
                f"--num_shards {argument}: expected each split once, found {split}={counts[split]} before it"
            )
        counts[split] = int(count)
    return counts


def _refuse_stray(flags: Sequence[str]) -> None:
    """A word that follows no flag would be lost: most often a shell has made several paths of one."""
    before = "="
    for flag in flags:
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise UserError(f"{flag}: expected a flag; name every input after --input, and quote a glob")
        before = flag


def _in_utf8(word: str) -> str:
    """A flag that Beam can hand on. Raises UserError."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{word}: expected a flag for Beam in UTF-8; spell it anew") from error
    return word


def _check_fraction(name: str, value: float, *, low: float, below: float | None) -> None:
    high = 1 if below is None else below
    if not low <= value <= high or value == below:
        bounds = f"{low} to {high}" if below is None else f"{low} or more, less than {below}"
        raise UserError(f"--{name} {value:g}: expected {bounds}")
