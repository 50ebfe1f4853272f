"""python -m model.predict: what character a picture shows, or each record of a .gnt."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.answers import metrics
from model.answers.calibration import UNCALIBRATED, Calibration, read_calibration
from model.answers.picture import read_picture
from model.answers.run import Run, load_model, read_run
from model.network.devices import setup_tensorflow
from pipeline.source.gnt import HEADER_BYTES, SOUND, walk
from pipeline.steps.plain import Unusable, pin_opencv, preprocess
from schemas.classes import character_of
from schemas.command import EXIT_USER_ERROR, Parser, at_least, run_command
from schemas.errors import UserError, explained
from schemas.machine import replaced
from schemas.manifest import REJECT_REASONS

COMMAND = "model.predict"
_BATCH = 64


@dataclass(frozen=True)
class Character:
    """Something to read."""

    name: str
    bitmap: np.ndarray
    """uint8 [h, w], dark ink on white paper."""


@dataclass(frozen=True)
class Unreadable:
    """Something that can't be read, and why; the text is one line."""

    text: str


@dataclass(frozen=True)
class Reading:
    """A character with what the model takes it for."""

    name: str
    image: np.ndarray
    """uint8 [size, size]: what the model saw."""
    candidates: list[tuple[str, float]]
    """(character, probability), most likely first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 if a picture couldn't be read, the others still are."""
    parser = Parser(
        COMMAND, "Reads pictures of one handwritten character each (photo, scan or drawing), or .gnt files."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="RUN", help="the folder of a training run")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG and others, or .gnt")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="'not recognised' below this probability (default: the run's, which keeps 98 %% of right answers)",
    )
    parser.add_argument("--top", type=int, default=metrics.TOP, metavar="N", help="answers to print (default: 5)")
    parser.add_argument("--records", type=int, metavar="N", help="the first N records of a .gnt (default: all)")
    parser.add_argument("--save_seen", type=Path, metavar="DIR", help="save what the model is shown, as PNG files")

    def body() -> int:
        flags = parser.parse_args(argv)
        if flags.threshold is not None and not 0 <= flags.threshold <= 1:
            raise UserError(f"--threshold {flags.threshold}: expected a probability, 0 to 1")
        at_least(1, "--top", flags.top)
        if flags.records is not None:
            at_least(1, "--records", flags.records)
        setup_tensorflow()
        run = read_run(flags.model)
        model = load_model(run)
        trust = read_calibration(run.folder) or UNCALIBRATED
        threshold = trust.threshold if flags.threshold is None else flags.threshold
        status = 0
        readings = read_all(run, model, trust, flags.images, records=flags.records, top=flags.top)
        for number, reading in enumerate(readings):
            if isinstance(reading, Unreadable):
                sys.stdout.flush()
                print(f"{COMMAND}: {reading.text}", file=sys.stderr, flush=True)
                status = EXIT_USER_ERROR
                continue
            print(describe(reading, threshold), flush=True)
            if flags.save_seen is not None:
                _save(reading, flags.save_seen, number)
        return status

    return run_command("model.predict", body)


def read_all(
    run: Run,
    model: Any,
    trust: Calibration,
    paths: Sequence[Path],
    *,
    records: int | None = None,
    top: int = metrics.TOP,
) -> Iterator[Reading | Unreadable]:
    """An answer for each picture and each record, in their order."""
    pin_opencv()
    found = (entry for path in paths for entry in characters_in(path, records))
    while batch := list(islice(found, _BATCH)):
        yield from read_batch(run, model, trust, batch, top)


def read_batch(
    run: Run, model: Any, trust: Calibration, batch: Sequence[Character | Unreadable], top: int = metrics.TOP
) -> list[Reading | Unreadable]:
    """An answer for each entry, in order; all pictures go through the model at once."""
    answers: list[Reading | Unreadable] = []
    images: list[np.ndarray] = []
    for entry in batch:
        if isinstance(entry, Character):
            try:
                images.append(preprocess(entry.bitmap, run.preprocess).image)
                answers.append(Reading(entry.name, images[-1], []))
            except Unusable as error:
                answers.append(Unreadable(f"{entry.name}: {REJECT_REASONS[error.reason]}; choose another picture"))
        else:
            answers.append(entry)
    if not images:
        return answers
    logits = np.asarray(model(np.stack(images)[..., None].astype(np.float32) / 255.0, training=False))
    probabilities = metrics.softmax(logits / trust.temperature)
    rows = zip(probabilities, metrics.best(probabilities, top), strict=True)
    for position, answer in enumerate(answers):
        if isinstance(answer, Reading):
            likely, order = next(rows)
            candidates = [(run.classes.characters[label], float(likely[label])) for label in order]
            answers[position] = Reading(answer.name, answer.image, candidates)
    return answers


def characters_in(path: Path, records: int | None = None) -> Iterator[Character | Unreadable]:
    """The picture in a file, or the first `records` of a .gnt."""
    try:
        if path.suffix.lower() == ".gnt":
            yield from _records_in(path, records)
        else:
            yield Character(str(path), read_picture(path))
    except UserError as error:
        yield Unreadable(str(error))


def describe(reading: Reading, threshold: float) -> str:
    """One line."""
    answers = "   ".join(f"{character} {_percent(probability)}" for character, probability in reading.candidates)
    if reading.candidates[0][1] < threshold:
        return f"{reading.name}: not recognised   ({answers})"
    return f"{reading.name}: {answers}"


def _records_in(path: Path, records: int | None) -> Iterator[Character | Unreadable]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}; check the name") from error
    walked = walk(data)
    if not len(walked):
        raise UserError(f"{path}: expected GNT records, found an empty file; download it again")
    for index in range(len(walked) if records is None else min(records, len(walked))):
        offset, fault = int(walked.offset[index]), walked.fault[index]
        if fault != SOUND:
            yield Unreadable(f"{path}, record {index:,} at byte {offset:,}: {REJECT_REASONS[fault]}; it is passed over")
            continue
        shape = (int(walked.height[index]), int(walked.width[index]))
        bitmap = np.frombuffer(data, np.uint8, shape[0] * shape[1], offset + HEADER_BYTES).reshape(shape)
        truth = character_of(data[offset + 4 : offset + 6]) or "?"
        yield Character(f"{path}, record {index:,} ({truth})", bitmap)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _save(reading: Reading, folder: Path, number: int) -> None:
    path = folder / f"{number:04d}.png"
    with explained(f"write {path}"), replaced(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", reading.image)[1].tobytes())


if __name__ == "__main__":
    sys.exit(main())
