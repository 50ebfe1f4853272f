"""python -m model.predict: what character a picture shows, or each record of a .gnt."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from model.answers import metrics
from model.answers.picture import read_file
from model.answers.reading import Character, Reading, load_run, prepared
from model.answers.run import read_run
from model.network.devices import setup_tensorflow
from pipeline.source import kinds
from pipeline.source.gnt import HEADER_BYTES, SOUND, walk
from schemas.classes import character_of
from schemas.command import EXIT_USER_ERROR, Parser, at_least, local_path, path_or_url, prints_its_product, run_command
from schemas.command.outputs import check_output, marked_png, output
from schemas.errors import UserError, explained, printable
from schemas.manifest import REJECT_REASONS

COMMAND = "model.predict"
_SEEN_NAME = re.compile(r"\d{4,}\.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 if a picture couldn't be read, the others still are."""
    parser = Parser(
        COMMAND, "Reads pictures of one handwritten character each (photo, scan or drawing), or .gnt files."
    )
    parser.add_argument("--model", type=local_path, required=True, metavar="RUN", help="the folder of a training run")
    parser.add_argument("images", type=path_or_url, nargs="+", metavar="IMAGE", help="PNG, JPEG and others, or .gnt")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="'not recognised' below this probability (default: the run's, meant to keep 98 %% of right answers)",
    )
    parser.add_argument("--top", type=int, default=metrics.TOP, metavar="N", help="answers to print (default: 5)")
    parser.add_argument("--records", type=int, metavar="N", help="the first N records of a .gnt (default: all)")
    parser.add_argument(
        "--save_seen", type=local_path, metavar="DIR", help="save what the model is shown, as PNG files"
    )

    def body() -> int:
        flags = parser.parse_args(argv)
        if flags.threshold is not None and not 0 <= flags.threshold <= 1:
            raise UserError(f"--threshold {flags.threshold}: expected a probability, 0 to 1")
        at_least(1, "--top", flags.top)
        if flags.records is not None:
            at_least(1, "--records", flags.records)
        if flags.save_seen is not None:
            _check_seen(flags.save_seen)
        prints_its_product()
        read_run(flags.model)  # refused before TensorFlow starts
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
            print(printable(describe(reading)), flush=True)
            if flags.save_seen is not None:
                _save(reading, flags.save_seen / f"{number:04d}.png")
        return status

    return run_command(COMMAND, body)


def characters_in(name: str, records: int | None = None) -> Iterator[Character | UserError]:
    """The picture in a file, or the first `records` of a .gnt; in place of what can't be read, why."""
    path = Path(name)
    if "://" in name and not path.exists():
        yield UserError(f"{name}: expected a file on this machine, found a URL; download it, and name what you saved")
        return
    if path.suffix.lower() != ".gnt":
        yield prepared(path)
        return
    try:
        data = read_file(path, "the .gnt files")
    except UserError as error:
        yield error
        return
    walked = walk(data)
    kind = kinds.of_bytes(data[: kinds.HEAD_BYTES])
    if SOUND not in walked.fault and kind is not None and kind is not kinds.GNT:
        yield UserError(f"{path}: expected GNT records, found {kind.what}; {kind.advice}")
        return
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


def _check_seen(folder: Path) -> None:
    """Raises UserError where pictures of somebody else have the names that --save_seen gives."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save_seen {folder}: expected a folder, found a file; choose another name")
    for path in sorted(folder.glob("*.png")):
        if _SEEN_NAME.fullmatch(path.name):
            check_output(path, COMMAND)


def _save(reading: Reading, path: Path) -> None:
    png = marked_png(cv2.imencode(".png", reading.image)[1].tobytes(), COMMAND)
    with explained(f"write {path}"), output(path, COMMAND) as temporary:
        temporary.write_bytes(png)


if __name__ == "__main__":
    sys.exit(main())
