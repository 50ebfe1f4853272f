"""The flags of `python -m model.train`, parsed without importing TensorFlow."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from model.answers.run import BOX, CONFIG, read_run
from pipeline.reader import CACHE_BYTES, check_where
from schemas.command import Parser, local_path, path_or_url
from schemas.errors import UserError

MODEL_FLAGS = ("arch", "width", "head", "dense_width", "batch_norm", "dropout")
"""What decides the network and its weights' shapes."""
PRECISIONS = ("auto", "float32", "bfloat16")
DENSE_WIDTH = 4096
LEARNING_RATE, LEARNING_RATE_BATCH = 1e-3, 256
"""The peak for a network of full width at that batch; docs/recipe.md says why it follows both by their roots."""

_COUNT = (lambda value: value >= 1, "1 or more")
_NATURAL = (lambda value: value >= 0, "0 or more")
_SHARE = (lambda value: 0 <= value < 1, "0 or more, less than 1")
_POSITIVE = (lambda value: 0 < value < float("inf"), "more than 0")
_PRECISION = (
    lambda value: value != "float16",
    "bfloat16, or float32 on a GPU without it; what began with float16 begins anew in another --model_dir",
)
_SEED = (lambda value: 0 <= value < 1 << 31, f"less than {1 << 31}, 0 or more")


def _flag(default: Any, meaning: str, allowed: Any = None, *, shown: object = None, **options: Any) -> Any:
    """A field that is a flag, too: `shown` says what a default of None stands for, `options` are argparse's."""
    if isinstance(default, bool):
        options["action"] = argparse.BooleanOptionalAction
    elif not options.keys() & {"choices", "action"}:
        options.setdefault("type", str if default is None else type(default))
        options.setdefault("metavar", "N" if options["type"] is int else "X")
    options["help"] = f"{meaning} (default: {default if shown is None else shown})".replace("%", "%%")
    return field(default=default, metadata={"allowed": allowed, "options": {"default": default, **options}})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, and where. Raises UserError where that makes no sense."""

    data: str
    model_dir: str
    arch: str = _flag("vgg19", "the network", choices=("vgg11", "vgg13", "vgg16", "vgg19"))
    width: float = _flag(1.0, "scales the convolutions' filters", _POSITIVE)
    head: str = _flag(
        "pool",
        "after the convolutions: the mean of each map, or the paper's two dense layers",
        choices=("pool", "dense"),
    )
    dense_width: int = _flag(
        None, "units of --head dense's layers", _COUNT, type=int, shown=f"{DENSE_WIDTH} times the width"
    )
    batch_norm: bool = _flag(
        True, "batch normalisation after each layer but the last; plain deep VGGs don't learn 3,754 characters"
    )
    dropout: float = _flag(0.2, "the share of units before the last layer dropped in training", _SHARE)
    init_from: str | None = _flag(
        None,
        "begin with the weights of this run, its classes matched by character; the flags above default to that run's; "
        "without RUN it is the recogniser in the box",
        type=local_path,
        nargs="?",
        const=BOX,
        metavar="RUN",
        shown="random weights",
    )
    freeze: str | None = _flag(
        None, "conv: train the head alone, and hold the layers before it still", choices=("conv",), shown="nothing"
    )
    split: str = _flag("train", "the split to train on", metavar="SPLIT")
    where: str | None = _flag(
        None,
        "train on those of its records that fit a condition on the manifest's columns, for instance "
        "\"writer < '1100' AND ink_fraction > 0.05\"",
        metavar="CONDITION",
        shown="all of them",
    )
    cache_bytes: int = _flag(
        CACHE_BYTES, "room on disk for the shards of a data set in a store, in ~/.cache/hwdb-shards/shards", _COUNT
    )
    eval_split: str | None = _flag(
        None, "the split to evaluate on after each epoch", shown="validation, if there is one", metavar="SPLIT"
    )
    input: str = _flag(
        "auto",
        "where the split lies: on each GPU, in the machine's memory, or in its shards; auto is the first that fits",
        choices=("auto", "device", "memory", "stream"),
    )
    augment: str = _flag(
        "light", "random distortions of the training images", choices=("none", "light", "full", "drawn")
    )
    epochs: int = _flag(20, "times the split is seen", _COUNT)
    steps: int | None = _flag(
        None, "steps of the run, instead of --epochs", _COUNT, type=int, shown="as many as the epochs have"
    )
    global_batch: int = _flag(256, "samples a step, over all replicas", _COUNT)
    learning_rate: float = _flag(
        None,
        "the peak",
        _POSITIVE,
        type=float,
        shown=f"{LEARNING_RATE} times the root of the batch's {LEARNING_RATE_BATCH}ths, over the root of the width",
    )
    schedule: str = _flag(
        "cosine", "how the learning rate falls after the warm-up", choices=("cosine", "exponential", "constant")
    )
    warmup_steps: int | None = _flag(
        None, "steps of linear warm-up", _NATURAL, type=int, shown="a twentieth of the run, 1,000 at most"
    )
    decay_steps: int = _flag(2_000, "exponential: steps after which the rate is multiplied by --decay_rate", _COUNT)
    decay_rate: float = _flag(0.97, "exponential: what it is multiplied by", _POSITIVE)
    label_smoothing: float = _flag(0.1, "probability taken from the true character and spread over all", _SHARE)
    outliers: float = _flag(
        0.1, "the share of training images that become scribbles and jumbles, to be taken for no character", _SHARE
    )
    ema: float = _flag(
        0.999, "decay of the moving average of the weights, which is what is evaluated and saved; 0 is off", _SHARE
    )
    clip_norm: float = _flag(5.0, "largest global norm of the gradient; 0 is off", _NATURAL)
    weight_decay: float = _flag(0.05, "decoupled, on kernels only", _NATURAL)
    seed: int = _flag(0, "of weights, order, dropout and augmentation", _SEED)
    precision: str = _flag(
        "auto", "of the convolutions; auto is bfloat16 on GPUs that have it", _PRECISION, choices=PRECISIONS
    )
    xla: bool | None = _flag(
        None, "compile the step with XLA", action=argparse.BooleanOptionalAction, shown="where there is a GPU"
    )
    replicas: int | None = _flag(
        None, "devices; more than there are GPUs split them", _COUNT, type=int, shown="every visible GPU, or the CPU"
    )
    checkpoint_steps: int | None = _flag(
        None, "steps between checkpoints", _COUNT, type=int, shown="every five minutes"
    )
    log_steps: int = _flag(50, "steps between the lines of metrics.jsonl", _COUNT)
    profile: int = _flag(0, "steps to trace once the first have compiled, for TensorBoard and Perfetto", _NATURAL)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, allowed = getattr(self, one.name), one.metadata.get("allowed")
            if value is not None and allowed is not None and not allowed[0](value):
                raise UserError(f"--{one.name} {value}: expected {allowed[1]}")
        if self.freeze and self.init_from is None:
            raise UserError(f"--freeze {self.freeze}: random weights can't be held still; name a run with --init_from")
        if self.where is not None:
            check_where(self.where)
        if self.dense_width is None:
            object.__setattr__(self, "dense_width", max(1, round(DENSE_WIDTH * self.width)))
        if self.learning_rate is None:
            rate = LEARNING_RATE * math.sqrt(self.global_batch / LEARNING_RATE_BATCH / self.width)
            object.__setattr__(self, "learning_rate", float(f"{rate:.2g}"))

    @property
    def burdens(self) -> str:
        """What the figures of training hold and those of an evaluation don't; empty where there is nothing."""
        found = {
            f"labels smoothed by {self.label_smoothing:g}": self.label_smoothing,
            f"{self.augment} distortions": self.augment != "none",
            f"dropout of {self.dropout:g}": self.dropout,
            f"{self.outliers:.0%} images that are no character": self.outliers,
        }
        return ", ".join(text for text, there in found.items() if there)


_FLAGS = {one.name: one.metadata["options"] for one in fields(TrainConfig) if one.metadata}
_GROUPS = {"arch": "model", "split": "data", "epochs": "optimisation (AdamW)", "precision": "machine"}
"""The first flag of a group -> its title."""


def add_flags(section: Any, *names: str) -> None:
    """Flags of TrainConfig, to a parser or a group of one."""
    for name in names:
        section.add_argument(f"--{name}", **_FLAGS[name])


def parse_arguments(argv: Sequence[str]) -> TrainConfig:
    parser = Parser(
        "model.train",
        "Trains a VGG on the shards of a data set. The same command resumes a run that was stopped.",
    )
    parser.add_argument(
        "--data",
        type=path_or_url,
        required=True,
        metavar="DIR",
        help="the folder of the data set, as pipeline.convert wrote it, here or in a store: s3://bucket/folder",
    )
    parser.add_argument(
        "--model_dir",
        type=local_path,
        required=True,
        metavar="RUN",
        help="the folder of this run; model.keras appears in it",
    )
    section: Any = parser
    for name in _FLAGS:
        section = parser.add_argument_group(_GROUPS[name]) if name in _GROUPS else section
        add_flags(section, name)
    parser.set_defaults(**_network_of(argv))
    given = vars(parser.parse_args(argv))
    places = {name: str(given[name]) for name in ("data", "model_dir", "init_from") if given[name] is not None}
    return TrainConfig(**{**given, **places})


def _network_of(argv: Sequence[str]) -> dict[str, Any]:
    """The flags of the model of the run that --init_from names, if it is there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--init_from", type=local_path, nargs="?", const=BOX)
    try:
        run = parser.parse_known_args(argv)[0].init_from
    except argparse.ArgumentError:
        return {}  # the parser of all flags says so
    if run is None or not (run / CONFIG).is_file() or {"-h", "--help"} & set(argv):
        return {}
    config = read_run(run).config
    return {name: config[name] for name in MODEL_FLAGS if name in config}
