"""What a recogniser that has seen drawings alone reads of real handwriting.

    python benchmarks/box.py [--model RUN] [--real ../shared/real] [--last] [--confusions 20]

many-characters is in two halves, once and for all: the records of even number are those to look at while something is
tuned; the odd ones are kept aside until the end, and read with --last alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import gnt_files

from model.answers.reading import Character, Reading, load_run
from model.answers.run import add_model_flag
from model.network.devices import setup_tensorflow

SETS = {
    "many-characters, to tune on": ("many-characters", slice(0, None, 2)),
    "many-characters, kept aside": ("many-characters", slice(1, None, 2)),
    "one-writer": ("one-writer", slice(None)),
    "100-characters": ("100-characters", slice(None)),
    "20-characters": ("20-characters", slice(None)),
}
KEPT_ASIDE = "many-characters, kept aside"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flag(parser)
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--last", action="store_true", help="read what is kept aside, too")
    parser.add_argument("--confusions", type=int, default=0, metavar="N", help="the N commonest")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    setup_tensorflow()
    recogniser = load_run(flags.model)
    known = set(recogniser.classes)
    rows, wrong = {}, Counter[tuple[str, str]]()
    print("| set | images | top 1 | top 5 | not recognised | wrong answers given | ms an image |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, (folder, part) in SETS.items():
        if name == KEPT_ASIDE and not flags.last:
            continue
        records = [
            r for path in sorted((flags.real / folder).glob("*.gnt")) for r in gnt_files.parse(path.read_bytes())
        ]
        pictures = [Character(tag.decode("gbk").rstrip("\0"), bitmap) for _, tag, bitmap in records[part]]
        pictures = [picture for picture in pictures if picture.name in known]
        start = time.perf_counter()
        answers = [answer for answer in recogniser.answers(pictures, 5) if isinstance(answer, Reading)]
        took = time.perf_counter() - start
        right = [answer.character == answer.name for answer in answers]
        row = {
            "images": len(answers),
            "top 1": sum(right) / len(answers),
            "top 5": sum(answer.name in dict(answer.candidates) for answer in answers) / len(answers),
            "not recognised": sum(not answer.recognised for answer in answers) / len(answers),
            "wrong": sum(a.recognised and a.character != a.name for a in answers) / len(answers),
        }
        rows[name] = row
        shares = " | ".join(f"{row[key]:.1%}" for key in ("top 1", "top 5", "not recognised", "wrong"))
        print(f"| {name} | {len(answers):,} | {shares} | {1000 * took / len(answers):.1f} |", flush=True)
        wrong.update((a.name, a.character) for a in answers if a.character != a.name)
    for (truth, taken), count in wrong.most_common(flags.confusions):
        print(f"{truth} taken for {taken}: {count}")
    if flags.json:
        flags.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
