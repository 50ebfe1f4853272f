"""A finished training run on disk: what it was told, the characters it knows, its model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reader.dataset import Dataset
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import ClassList, ClassListError, parse_classes
from schemas.command import local_path
from schemas.dataset import CARD
from schemas.errors import UserError

CONFIG = "config.json"
CLASSES = "classes.txt"
METRICS = "metrics.jsonl"
MODEL = "model.keras"
WEIGHTS = "weights.npz"
"""In place of MODEL: the same weights in fewer bytes (model/answers/compact.py)."""
BOX = Path(__file__).resolve().parent / "recogniser"
"""The recogniser in the box, a packed run: all 3,754 characters, trained on drawings alone (docs/recipe-box.md)."""
FORMAT = 1
"""Of config.json."""


@dataclass(frozen=True)
class Run:
    """A folder that `python -m model.train --model_dir` wrote."""

    folder: Path
    config: Mapping[str, Any]
    classes: ClassList
    preprocess: PreprocessConfig

    @property
    def in_the_box(self) -> bool:
        return self.folder == BOX

    @property
    def name(self) -> str:
        return "the recogniser in the box" if self.in_the_box else str(self.folder)

    @property
    def network(self) -> str:
        return f"{self.config.get('arch', 'model')}, {len(self.classes):,} characters"

    @property
    def image_size(self) -> int:
        return self.preprocess.image_size


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """--model RUN, for every command that asks a trained run."""
    parser.add_argument(
        "--model",
        type=local_path,
        default=BOX,
        metavar="RUN",
        help="the folder of a training run (default: the recogniser in the box, which knows all 3,754 characters)",
    )


def place_for(name: str, run: Path) -> Path:
    """Where a command writes `name` when it isn't told: into the run, of the one in the box into the current folder."""
    return Path(name) if run == BOX else run / name


def read_config(path: Path, advice: str) -> dict[str, Any]:
    """What a run's config.json says. Raises UserError, which ends with `advice`, where it isn't one."""
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found = config["format"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the configuration of a training run, found other JSON; {advice}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the configuration of a training run, found {error}; {advice}") from error
    if found != FORMAT:
        raise UserError(f"{path}: expected format {FORMAT}, found {found!r}; {advice}")
    return config


def read_run(folder: Path) -> Run:
    """The run in `folder`. Raises UserError where there is none, or another release's."""
    path = folder / CONFIG
    if folder.is_file():
        raise UserError(f"{folder}: expected the folder of a training run, found a file; name the folder it lies in")
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder of a training run, found none; name one, or train first")
    if not path.is_file():
        hint = "; this is a data set, name it with --data" if (folder / CARD).is_file() else ""
        raise UserError(f"{folder}: expected {CONFIG} of a training run, found none; name another folder{hint}")
    config = read_config(path, "restore it, use the release that trained it, or train again")
    try:
        preprocess = PreprocessConfig(**config["preprocess"])
        digest, count = str(config["class_digest"]), int(config["num_classes"])
        size, channels = int(config["image_size"]), int(config["channels"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected what a run computes with, found {error!r}; restore it, or train again"
        ) from error
    if size != preprocess.image_size or channels != 1:
        raise UserError(f"{path}: its image size and its preprocessing contradict each other; train again")
    classes = _read_classes(folder / CLASSES)
    if classes.digest != digest or len(classes) != count:
        raise UserError(
            f"{folder / CLASSES}: isn't the class list the run was trained with; restore it, or train again"
        )
    return Run(folder, config, classes, preprocess)


def load_model(run: Run) -> Any:
    """The run's Keras model, of standard layers: float32 [n, s, s, 1] in 0 … 1 to float32 logits [n, classes]."""
    packed = (run.folder / WEIGHTS).is_file()
    path = run.folder / (WEIGHTS if packed else MODEL)
    if not path.is_file():
        raise UserError(
            f"{run.folder}: expected {MODEL}, found none; the training isn't finished, run its command again to go on"
        )
    from model.answers.compact import unpacked
    from model.network.devices import import_keras

    keras = import_keras()
    try:
        loaded = unpacked(run) if packed else keras.models.load_model(path, compile=False)
    except Exception as error:  # a damaged file: zip's, JSON's, HDF5's and Keras's own
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(f"{path}: can't be read ({reason[0][:200]}); run the training command again") from error
    expected = ((None, run.image_size, run.image_size, 1), (None, len(run.classes)))
    found = (tuple(loaded.input_shape), tuple(loaded.output_shape))
    if found != expected:
        raise UserError(
            f"{path}: expected shapes {expected[0]} to {expected[1]}, found {found[0]} to {found[1]}; "
            f"model and {CONFIG} are of two runs"
        )
    return loaded


def check_data_set(run: Run, data: Dataset) -> None:
    """Raises UserError where the samples of a data set aren't what the run was trained on."""
    if data.card.class_digest != run.config["class_digest"]:
        raise UserError(
            f"{data.folder}: its class list ({len(data.classes):,} characters) isn't that of {run.folder} "
            f"({len(run.classes):,} characters); convert with --classes {run.folder / CLASSES}"
        )
    ours, theirs = dict(run.config["preprocess"]), dict(data.card.config["preprocess"])
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differing:
        settings = ", ".join(f"{key}: {theirs.get(key)}, trained with {ours.get(key)}" for key in differing)
        raise UserError(f"{data.folder}: preprocessed in another way than {run.folder} ({settings}); convert again")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in the order of their steps.

    A run that was killed and went on logs some steps twice: the last line counts. A line cut short is left out.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    lines: dict[tuple[str, str, int], dict[str, Any]] = {}
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            key = (str(line["kind"]), str(line.get("split", "")), int(line["step"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        lines[key] = line
    return sorted(lines.values(), key=lambda line: int(line["step"]))


def kept_model(lines: Sequence[Mapping[str, Any]]) -> str:
    """Of which step the run's model is, in words, from the lines of metrics.jsonl; empty where they don't say."""
    evaluations = [line for line in lines if line["kind"] == "eval" and "kept" in line]
    kept = [line for line in evaluations if line["kept"] is True]
    if not kept:
        return ""
    last = kept[-1]
    where = f"epoch {last.get('epoch', '?')}, step {int(last['step']):,}"
    return f"model of {where}, the best of {len(evaluations):,} evaluated on {last.get('split', '?')}"


def _read_classes(path: Path) -> ClassList:
    try:
        return parse_classes(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected the run's class list, found none; restore it, or train again") from error
    except (OSError, UnicodeDecodeError, ClassListError) as error:
        raise UserError(f"{path}: expected the run's class list, found {error}; restore it, or train again") from error
