"""The folder of a run: config.json, classes.txt, metrics.jsonl, checkpoints/, tensorboard/, model.keras."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from model.answers.calibration import CALIBRATION
from model.answers.run import CLASSES, CONFIG, FORMAT, METRICS, MODEL, read_config, read_metrics
from model.train.failures import writing
from model.train.options import MODEL_FLAGS, TrainConfig
from pipeline.reader.records import Records
from schemas.classes import ClassList
from schemas.errors import UserError
from schemas.machine import replace_text, without_temporary_mark

CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

_LIBRARIES = ("tensorflow", "keras", "numpy")
_FREE_FLAGS = ("data", "model_dir", "cache_bytes", "checkpoint_steps", "profile")
"""What may differ when a run goes on: none of it changes which samples a step sees, or what it computes from them."""
_UNSETTLED = ("auto", None)
_SETTLED_ONCE = ("precision", "xla")  # and for good; of the replicas a user has to say that they are to be as they were
_PLACES = ("data", "model_dir", "cache_bytes", "init_from")
_LOCK = ".lock"
_LOCK_WORDS = re.compile(rb"(process \d+ on .*, begun .*,)?", re.DOTALL)


def check_own(folder: Path) -> None:
    """Raises UserError where `folder` holds files and no run: nothing of theirs is to be overwritten."""
    with writing(folder):
        there = [] if not folder.is_dir() or (folder / CONFIG).exists() else list(folder.iterdir())
    if there:
        names = (without_temporary_mark(path.name) for path in there)
        others = sorted(name for name in names if not name.startswith(".") and name != CONFIG)
        if others:
            raise UserError(
                f"{folder}: expected a folder of a training run, or an empty one, found {others[0]} and no {CONFIG}; "
                "name another --model_dir"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and holds it while the block runs; the kernel lets go of it with the process, however it ends.

    Raises UserError, naming the holder, where another training does. Where a disk knows no locks there is none.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if not _LOCK_WORDS.fullmatch(os.read(descriptor, 1 << 10)):
            raise UserError(f"{folder / _LOCK}: is no training's lock, and stays as it is; name another --model_dir")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1 << 10, 0).decode(errors="replace") or "another process"
            raise UserError(
                f"{folder}: {holder} trains there; wait for its end, or name another --model_dir"
            ) from error
        except OSError:
            pass
        with writing(folder):
            os.truncate(descriptor, 0)
            own = f"process {os.getpid()} on {socket.gethostname()}, begun {time.strftime('%Y-%m-%d %H:%M:%S')},"
            os.pwrite(descriptor, own.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def describe(config: TrainConfig, records: Records, input_mode: str, workers: int = 1) -> dict[str, Any]:
    """The content of config.json. Nothing in `config` is left to the machine any more, see `settled`."""
    flags, card = asdict(config), records.data.card
    return {
        "format": FORMAT,
        **{name: flags[name] for name in MODEL_FLAGS},
        "image_size": card.image_size,
        "channels": 1,
        "num_classes": card.class_count,
        "preprocess": dict(card.config["preprocess"]),
        "image_encoding": card.image_encoding,
        "class_digest": card.class_digest,
        "data_digest": _digest_of(records),
        "where_digest": None if records.where is None else records.digest,
        "input_mode": input_mode,
        "workers": workers,
        "train": {name: value for name, value in flags.items() if name not in (*MODEL_FLAGS, "model_dir")},
        "training_figures_hold": config.burdens,
        "libraries": {name: import_module(name).__version__ for name in _LIBRARIES},
    }


def settled(config: TrainConfig, earlier: dict[str, Any] | None, chosen: dict[str, Any]) -> TrainConfig:
    """`config` without "auto" and None: `chosen`, but precision and XLA as the run began, where its folder says."""
    then = {} if earlier is None else earlier["train"]
    values = {}
    for name in _SETTLED_ONCE:
        asked, began = getattr(config, name), then.get(name)
        values[name] = asked if asked not in _UNSETTLED else chosen[name] if began in _UNSETTLED else began
    return replace(config, **{**chosen, **values})


def said_to_others(
    config: TrainConfig, description: dict[str, Any], evaluated: Records | None, step: int
) -> dict[str, Any]:
    """What the workers of a run have to have in common, flat: paths may differ, and nothing else."""
    flags = {f"--{name}": value for name, value in asdict(config).items() if name not in _PLACES}
    names = ("input_mode", "class_digest", "data_digest", "where_digest", "preprocess", "libraries")
    facts = {name: description[name] for name in names}
    return {
        **flags,
        **facts,
        "eval_split": None if evaluated is None else evaluated.split,
        "digest of eval_split": None if evaluated is None else _digest_of(evaluated),
        "step of the checkpoint": step,
    }


def _digest_of(records: Records) -> str:
    """Of the whole split; the same wherever the shards lie."""
    digests = "\n".join(shard.sha256 for shard in records.data.card.split(records.split).shards)
    return hashlib.sha256(digests.encode()).hexdigest()


def earlier_description(folder: Path) -> dict[str, Any] | None:
    """config.json of the run that began in `folder`, or None if none did."""
    path = folder / CONFIG
    return read_config(path, "name another --model_dir") if path.exists() else None


def check_same_run(folder: Path, earlier: dict[str, Any], now: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises UserError, naming the difference, unless `now` goes on with what `earlier` began.

    `asked` are the flags that `now` has settled, as they were given.
    """
    if earlier["class_digest"] != now["class_digest"]:
        raise UserError(
            f"{folder}: its checkpoint was trained on {earlier['num_classes']:,} classes, the data set's list of "
            f"{now['num_classes']:,} is another one; use the data set it began with, or name another --model_dir"
        )
    flags_then, flags_now = _flags(earlier), _flags(now)
    replicas = flags_then.get("replicas")
    if replicas not in (None, flags_now["replicas"]):
        raise UserError(
            f"{folder}: its run began with {replicas} replica(s), and each has statistics, dropout and outliers of its "
            f"own; here are {flags_now['replicas']}; --replicas {replicas} uses some of this machine's devices, or "
            "splits them; or name another --model_dir"
        )
    workers = earlier.get("workers", now["workers"])
    if workers != now["workers"]:
        raise UserError(
            f"{folder}: its run began with {workers} worker(s), each of which reads its own share of the records; here "
            f"are {now['workers']}; start as many, or name another --model_dir"
        )
    flags_then["replicas"] = flags_now["replicas"]
    for name, value in asked.items():
        if flags_then.get(name) in _UNSETTLED:
            flags_now[name] = value  # of a release that wrote down what was asked for, not what became of it
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
    same = all(earlier.get(name) == now[name] for name in ("data_digest", "where_digest", "preprocess"))
    if not same:
        raise UserError(
            f"{folder}: holds a run on another data set; use the one it began with, or name another --model_dir"
        )


def begin(folder: Path, description: dict[str, Any], classes: ClassList) -> None:
    """Writes what a run states before its first step. What config.json stands beside is the run's own."""
    if not (folder / CONFIG).exists():
        replace_text(folder / CONFIG, json.dumps(description, ensure_ascii=False, indent=1) + "\n")
    if not (folder / CLASSES).exists():
        replace_text(folder / CLASSES, classes.text)


def is_stale(path: Path) -> bool:
    """Whether a file that tells of a run's model, figures and calibration is missing, or older than one of them."""
    told = [path.parent / name for name in (MODEL, METRICS, CALIBRATION)]
    return not path.exists() or path.stat().st_mtime_ns < max(one.stat().st_mtime_ns for one in told if one.exists())


def cut_metrics(folder: Path, step: int, evaluated_step: int) -> None:
    """Leaves out the lines of metrics.jsonl after the checkpoint a run goes on from: they will be written again."""
    path = folder / METRICS
    if not path.exists():
        return
    kept = [
        line for line in read_metrics(folder) if line["step"] <= (evaluated_step if line["kind"] == "eval" else step)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
    if text != path.read_text("utf-8", errors="replace"):
        replace_text(path, text)


def _flags(description: dict[str, Any]) -> dict[str, Any]:
    return {**{name: description.get(name) for name in MODEL_FLAGS}, **description["train"]}
