"""The folder of a run: config.json, classes.txt, metrics.jsonl, checkpoints/, tensorboard/, model.keras."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from model.answers.run import CLASSES, CONFIG, FORMAT, METRICS, read_config
from model.train.options import TrainConfig
from schemas.classes import ClassList
from schemas.dataset import Card
from schemas.errors import UserError
from schemas.machine import replace_text

CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

_LIBRARIES = ("tensorflow", "keras", "numpy")
_MODEL_FLAGS = ("arch", "width", "head", "dense_width", "batch_norm", "dropout")
_FREE_FLAGS = ("data", "model_dir", "replicas", "checkpoint_steps")
"""What may differ when a run goes on: none of it changes which samples a step sees, or what it computes from them."""


def describe(config: TrainConfig, card: Card, input_mode: str) -> dict[str, Any]:
    """The content of config.json."""
    flags = config.to_dict()
    return {
        "format": FORMAT,
        **{name: flags[name] for name in _MODEL_FLAGS},
        "image_size": card.image_size,
        "channels": 1,
        "num_classes": card.class_count,
        "preprocess": dict(card.config["preprocess"]),
        "image_encoding": card.image_encoding,
        "class_digest": card.class_digest,
        "data_digest": _data_digest(card, config.split),
        "input_mode": input_mode,
        "train": {name: value for name, value in flags.items() if name not in (*_MODEL_FLAGS, "model_dir")},
        "libraries": {name: import_module(name).__version__ for name in _LIBRARIES},
    }


def earlier_description(folder: Path) -> dict[str, Any] | None:
    """config.json of the run that began in `folder`, or None if none did."""
    path = folder / CONFIG
    return read_config(path, "name another --model_dir") if path.exists() else None


def check_same_run(folder: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UserError, naming the difference, unless `now` goes on with what `earlier` began."""
    if earlier["class_digest"] != now["class_digest"]:
        raise UserError(
            f"{folder}: its checkpoint was trained on {earlier['num_classes']:,} classes, the data set's list of "
            f"{now['num_classes']:,} is another one; use the data set it began with, or name another --model_dir"
        )
    flags_then, flags_now = _flags(earlier), _flags(now)
    changed = [
        f"--{name} was {flags_then.get(name)}, is {flags_now.get(name)}"
        for name in flags_now
        if name not in _FREE_FLAGS and flags_then.get(name) != flags_now[name]
    ]
    if changed:
        raise UserError(
            f"{folder}: holds a run of another configuration: {'; '.join(changed)}; "
            "repeat its flags to go on, or name another --model_dir"
        )
    if earlier["data_digest"] != now["data_digest"] or earlier["preprocess"] != now["preprocess"]:
        raise UserError(
            f"{folder}: holds a run on another data set; use the one it began with, or name another --model_dir"
        )


def begin(folder: Path, description: dict[str, Any], classes: ClassList) -> None:
    """Writes what a run states before its first step."""
    replace_text(folder / CLASSES, classes.text)
    replace_text(folder / CONFIG, json.dumps(description, ensure_ascii=False, indent=1) + "\n")


def cut_metrics(folder: Path, step: int, evaluated_step: int) -> None:
    """Leaves out the lines of metrics.jsonl after the checkpoint a run goes on from: they will be written again."""
    path = folder / METRICS
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off when the run was killed
            continue
        if entry["step"] <= (evaluated_step if entry["kind"] == "eval" else step):
            kept.append(line + "\n")
    replace_text(path, "".join(kept))


def _flags(description: dict[str, Any]) -> dict[str, Any]:
    return {**{name: description.get(name) for name in _MODEL_FLAGS}, **description["train"]}


def _data_digest(card: Card, split: str) -> str:
    """The same for the same shards, wherever they lie."""
    digests = [shard.sha256 for shard in card.split(split).shards]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
