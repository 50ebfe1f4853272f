"""python -m model.predict: what character a picture shows, or each record of a .gnt."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from model.answers import metrics
from model.answers.reading import Character, Reading, load_run, prepared
from model.network.devices import setup_tensorflow
from pipeline.source.gnt import HEADER_BYTES, SOUND, walk
from schemas.classes import character_of
from schemas.command import EXIT_USER_ERROR, Parser, at_least, run_command
from schemas.errors import UserError, explained
from schemas.machine import replaced
from schemas.manifest import REJECT_REASONS

COMMAND = "model.predict"


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
        recogniser = load_run(flags.model, flags.threshold)
        status = 0
        found = (entry for path in flags.images for entry in characters_in(path, flags.records))
        for number, reading in enumerate(recogniser.answers(found, flags.top)):
            if isinstance(reading, UserError):
                sys.stdout.flush()
                print(f"{COMMAND}: {reading}", file=sys.stderr, flush=True)
                status = EXIT_USER_ERROR
                continue
            print(describe(reading), flush=True)
            if flags.save_seen is not None:
                _save(reading, flags.save_seen, number)
        return status

    return run_command("model.predict", body)


def characters_in(path: Path, records: int | None = None) -> Iterator[Character | UserError]:
    """The picture in a file, or the first `records` of a .gnt; in place of what can't be read, why."""
    if path.suffix.lower() != ".gnt":
        yield prepared(path)
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        yield UserError(f"{path}: can't be read: {error.strerror or error}; check the name")
        return
    walked = walk(data)
    if not len(walked):
        yield UserError(f"{path}: expected GNT records, found an empty file; download it again")
    for index in range(len(walked) if records is None else min(records, len(walked))):
        offset, fault = int(walked.offset[index]), walked.fault[index]
        if fault != SOUND:
            yield UserError(f"{path}, record {index:,} at byte {offset:,}: {REJECT_REASONS[fault]}; it is passed over")
            continue
        shape = (int(walked.height[index]), int(walked.width[index]))
        bitmap = np.frombuffer(data, np.uint8, shape[0] * shape[1], offset + HEADER_BYTES).reshape(shape)
        truth = character_of(data[offset + 4 : offset + 6]) or "?"
        yield Character(f"{path}, record {index:,} ({truth})", bitmap)


def describe(reading: Reading) -> str:
    """One line."""
    answers = "   ".join(f"{character} {100 * probability:.1f} %" for character, probability in reading.candidates)
    if not reading.recognised:
        return f"{reading.name}: not recognised   ({answers})"
    return f"{reading.name}: {answers}"


def _save(reading: Reading, folder: Path, number: int) -> None:
    path = folder / f"{number:04d}.png"
    with explained(f"write {path}"), replaced(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", reading.image)[1].tobytes())


if __name__ == "__main__":
    sys.exit(main())
