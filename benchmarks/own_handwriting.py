"""How a run reads photos of the same samples, and what it refuses that is no character of its list.

    python benchmarks/own_handwriting.py --model RUN --known 9107-c.gnt 9108-c.gnt --unknown 9001-c.gnt

`--known` are GNT files whose characters the run knows; those among them that it doesn't are counted as near: of
20-characters, 宄 宓 宕 宬 under the radical of all the others. `--unknown` is a GNT file of other characters. Photos,
scribbles and letters are made by tests/photos.py. Blank pages count as refused where the picture is found blank.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import gnt_files
import photos

from model.answers.picture import BlankPicture, to_bitmap
from model.answers.reading import Character, Reading, load_run
from model.network.devices import setup_tensorflow
from pipeline.steps.plain import pin_opencv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--known", type=Path, nargs="+", required=True)
    parser.add_argument("--unknown", type=Path)
    parser.add_argument("--each", type=int, default=200, help="pictures of each kind (default: 200)")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    setup_tensorflow()
    pin_opencv()
    recogniser = load_run(flags.model)
    characters = recogniser.classes
    known, near, far = [], [], []
    for path in flags.known:
        for _, tag, bitmap in gnt_files.parse(path.read_bytes()):
            name = tag.decode("gbk").rstrip("\0")
            known.append((name, bitmap)) if name in characters else near.append(("", bitmap))
    for _, tag, bitmap in gnt_files.parse(flags.unknown.read_bytes()) if flags.unknown else ():
        if tag.decode("gbk").rstrip("\0") not in characters:
            far.append(("", bitmap))
    chosen = known[:: max(1, len(known) // flags.each)][: flags.each]

    def made(name: str, make: Callable[[], np.ndarray]) -> Character | BlankPicture:
        try:
            return Character(name, make())
        except BlankPicture as error:
            return error

    def read(pictures: Sequence[tuple[str, Callable[[], np.ndarray]]]) -> dict[str, float]:
        right = wrong = refused = 0
        entries = (made(name, make) for name, make in pictures)
        for (name, _), answer in zip(pictures, recogniser.answers(entries, 1), strict=True):
            given = isinstance(answer, Reading) and answer.recognised
            as_it_is = isinstance(answer, Reading) and answer.character == name
            refused += not given
            right += as_it_is
            wrong += given and not as_it_is
        count = len(pictures)
        return {"pictures": count, "right": right / count, "refused": refused / count, "wrong": wrong / count}

    def as_is(bitmap: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: bitmap

    def taken(kind: str, bitmap: np.ndarray, seed: int) -> Callable[[], np.ndarray]:
        return lambda: to_bitmap(photos.photo(kind, bitmap, seed), kind)

    def other(kind: str, seed: int) -> Callable[[], np.ndarray]:
        return lambda: to_bitmap(photos.no_character(kind, seed), kind)

    rows = {"all scans": read([(name, as_is(bitmap)) for name, bitmap in known])}
    rows["the same scans"] = read([(name, as_is(bitmap)) for name, bitmap in chosen])
    for kind in photos.KINDS:
        rows[kind] = read([(name, taken(kind, bitmap, seed)) for seed, (name, bitmap) in enumerate(chosen)])
    if near:
        rows["unknown, near"] = read([(name, as_is(bitmap)) for name, bitmap in near])
    if far:
        rows["unknown, far"] = read([(name, as_is(bitmap)) for name, bitmap in far])
    for kind in photos.OTHERS:
        rows[kind] = read([("", other(kind, seed)) for seed in range(flags.each)])
    print(f"temperature {recogniser.temperature}, threshold {recogniser.threshold}")
    print("| pictures | number | read right, threshold or not | not recognised | wrong answers given |")
    print("|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        read_right = f"{row['right']:.1%}" if name not in ("unknown, near", "unknown, far", *photos.OTHERS) else ""
        print(f"| {name} | {row['pictures']:,} | {read_right} | {row['refused']:.1%} | {row['wrong']:.1%} |")
    if flags.json:
        flags.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
