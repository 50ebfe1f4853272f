"""The folder of a run: config.json, classes.txt, metrics.jsonl, checkpoints/, tensorboard/, model.keras."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from model.answers.run import CLASSES, CONFIG, FORMAT, METRICS, read_config, read_metrics
from model.train.options import MODEL_FLAGS, TrainConfig
from schemas.classes import ClassList
from schemas.errors import UserError
from schemas.machine import replace_text
from schemas.reader import Dataset

CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

_LIBRARIES = ("tensorflow", "keras", "numpy")
_FREE_FLAGS = ("data", "model_dir", "replicas", "checkpoint_steps")
"""What may differ when a run goes on: none of it changes which samples a step sees, or what it computes from them."""


def describe(config: TrainConfig, data: Dataset, input_mode: str) -> dict[str, Any]:
    """The content of config.json."""
    flags, card = asdict(config), data.card
    digests = "\n".join(shard.sha256 for shard in card.split(config.split).shards)
    return {
        "format": FORMAT,
        **{name: flags[name] for name in MODEL_FLAGS},
        "image_size": card.image_size,
        "channels": 1,
        "num_classes": card.class_count,
        "preprocess": dict(card.config["preprocess"]),
        "image_encoding": card.image_encoding,
        "class_digest": card.class_digest,
        "data_digest": hashlib.sha256(digests.encode()).hexdigest(),  # the same wherever the shards lie
        "input_mode": input_mode,
        "train": {name: value for name, value in flags.items() if name not in (*MODEL_FLAGS, "model_dir")},
        "libraries": {name: import_module(name).__version__ for name in _LIBRARIES},
    }


def earlier_description(folder: Path) -> dict[str, Any] | None:
    """config.json of the run that began in `folder`, or None if none did."""
    path = folder / CONFIG
    return read_config(path, "name another --model_dir") if path.exists() else None


def has_checkpoint(folder: Path) -> bool:
    """Whether the run goes on from one; a run killed before its first begins anew."""
    return (folder / CHECKPOINTS / "checkpoint").exists()


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
    kept = [
        line for line in read_metrics(folder) if line["step"] <= (evaluated_step if line["kind"] == "eval" else step)
    ]
    replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def _flags(description: dict[str, Any]) -> dict[str, Any]:
    return {**{name: description.get(name) for name in MODEL_FLAGS}, **description["train"]}
