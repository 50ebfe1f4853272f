"""The flags of `python -m model.train`, parsed without importing TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from schemas.command import Parser
from schemas.errors import UserError

ARCHITECTURES = ("vgg11", "vgg13", "vgg16", "vgg19")
HEADS = ("pool", "dense")
AUGMENTS = ("none", "light", "full")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DENSE_WIDTH = 4096


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, and where."""

    data: str
    model_dir: str
    arch: str = "vgg19"
    width: float = 1.0
    head: str = "pool"
    dense_width: int = DENSE_WIDTH
    batch_norm: bool = True
    dropout: float = 0.2
    split: str = "train"
    eval_split: str | None = None
    epochs: int = 20
    steps: int | None = None
    """Overrides epochs."""
    global_batch: int = 256
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int | None = None
    """None is a twentieth of the run, 1,000 at most."""
    decay_steps: int = 2_000
    decay_rate: float = 0.97
    label_smoothing: float = 0.1
    outliers: float = 0.1
    ema: float = 0.999
    clip_norm: float = 5.0
    weight_decay: float = 0.05
    augment: str = "light"
    precision: str = "auto"
    xla: bool | None = None
    """None is on where there is a GPU."""
    replicas: int | None = None
    input: str = "auto"
    seed: int = 0
    checkpoint_steps: int | None = None
    """None is every few minutes."""
    log_steps: int = 50

    def __post_init__(self) -> None:
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise UserError(f"--{name} {value}: expected {low} or more")
        for name in ("dropout", "label_smoothing", "outliers", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: expected 0 or more, less than 1")
        for name in ("width", "learning_rate", "decay_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"--{name} {getattr(self, name)}: expected more than 0")
        if self.seed >= 1 << 31:
            raise UserError(f"--seed {self.seed}: expected less than {1 << 31}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_AT_LEAST = {
    "dense_width": 1, "epochs": 1, "steps": 1, "global_batch": 1, "warmup_steps": 0, "decay_steps": 1, "clip_norm": 0,
    "weight_decay": 0, "replicas": 1, "seed": 0, "checkpoint_steps": 1, "log_steps": 1,
}  # fmt: skip


def parse_arguments(argv: Sequence[str]) -> TrainConfig:
    flags = vars(_parser().parse_args(argv))
    if flags["dense_width"] is None:
        flags["dense_width"] = default_dense_width(flags["width"])
    return TrainConfig(**flags)


def default_dense_width(width: float) -> int:
    return max(1, round(DENSE_WIDTH * width))


def _parser() -> Parser:
    parser = Parser(
        "model.train",
        "Trains a VGG on the shards of a data set. The same command resumes a run that was stopped.",
    )
    default = TrainConfig("", "")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="the folder of the data set, as pipeline.convert wrote it"
    )
    parser.add_argument(
        "--model_dir", required=True, metavar="RUN", help="the folder of this run; model.keras appears in it"
    )

    def group(title: str) -> Any:
        section = parser.add_argument_group(title)

        def add(name: str, meaning: str, *, shown: object = None, **options: Any) -> None:
            value = getattr(default, name)
            if isinstance(value, bool):
                options["action"] = argparse.BooleanOptionalAction
            elif not options.keys() & {"choices", "action"}:
                options.setdefault("type", str if value is None else type(value))
                options.setdefault("metavar", "N" if options["type"] is int else "X")
            shown = value if shown is None else shown
            options.setdefault("default", value)
            section.add_argument(f"--{name}", help=f"{meaning} (default: {shown})".replace("%", "%%"), **options)

        return add

    add = group("model")
    add("arch", "the network", choices=ARCHITECTURES)
    add("width", "scales the convolutions' filters")
    add("head", "after the convolutions: the mean of each map, or the paper's two dense layers", choices=HEADS)
    add("dense_width", "units of --head dense's layers", type=int, default=None, shown=f"{DENSE_WIDTH} times the width")
    add("batch_norm", "batch normalisation after each layer but the last; plain deep VGGs don't learn 3,754 characters")
    add("dropout", "the share of units before the last layer dropped in training")
    add = group("data")
    add("split", "the split to train on", metavar="SPLIT")
    add("eval_split", "the split to evaluate on after each epoch", shown="validation, if there is one", metavar="SPLIT")
    add("input", "the split held in memory, or streamed from its shards", choices=("auto", "memory", "stream"))
    add("augment", "random distortions of the training images", choices=AUGMENTS)
    add = group("optimisation (AdamW)")
    add("epochs", "times the split is seen")
    add("steps", "steps of the run, instead of --epochs", type=int, shown="as many as the epochs have")
    add("global_batch", "samples a step, over all replicas")
    add("learning_rate", "the peak")
    add("schedule", "how the learning rate falls after the warm-up", choices=("cosine", "exponential", "constant"))
    add("warmup_steps", "steps of linear warm-up", type=int, shown="a twentieth of the run, 1,000 at most")
    add("decay_steps", "exponential: steps after which the rate is multiplied by --decay_rate")
    add("decay_rate", "exponential: what it is multiplied by")
    add("label_smoothing", "probability taken from the true character and spread over all")
    add("outliers", "the share of training images that become scribbles and jumbles, to be taken for no character")
    add("ema", "decay of the moving average of the weights, which is what is evaluated and saved; 0 is off")
    add("clip_norm", "largest global norm of the gradient; 0 is off")
    add("weight_decay", "decoupled, on kernels only")
    add("seed", "of weights, order, dropout and augmentation")
    add = group("machine")
    add("precision", "of the convolutions; auto is 16 bits on GPUs that have it", choices=PRECISIONS)
    add("xla", "compile the step with XLA", action=argparse.BooleanOptionalAction, shown="where there is a GPU")
    add("replicas", "devices; more than there are GPUs split them", type=int, shown="every visible GPU, or the CPU")
    add("checkpoint_steps", "steps between checkpoints", type=int, shown="every five minutes")
    add("log_steps", "steps between the lines of metrics.jsonl")
    return parser
