"""Real handwriting, people apart: the recogniser in the box goes on with some, and reads others.

    python benchmarks/people_apart.py --people ../shared/real/100-characters --folder /tmp/people

`--people` is a folder of .gnt files, each of one person. Fold n keeps every fifth aside, and is the training's seed.
What is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import gnt_files

_FOLDS = 5


def run(module: str, *flags: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, flags)], check=True, stdout=subprocess.DEVNULL)


def class_list(people: list[Path], path: Path) -> None:
    tags = {tag for person in people for _, tag, _ in gnt_files.parse(person.read_bytes())}
    path.write_text("".join(f"{tag.decode('gbk').rstrip(chr(0))}\n" for tag in sorted(tags)), "utf-8")


def one(people: list[Path], folder: Path, fold: int, flags: argparse.Namespace) -> list[dict[str, object]]:
    """What was read of the people kept aside."""
    shards, model = folder / f"shards{fold}-{flags.image_size}", folder / f"run{fold}-{flags.image_size}"
    inputs: list[object] = []
    for number, person in enumerate(people, start=1):
        inputs += ["--input", f"{'test' if number % _FOLDS == fold else 'train'}={person}"]
    how = ["--image_size", flags.image_size, "--classes", folder / "classes.txt"]
    run("pipeline.convert", "--runner=DirectRunner", "--output", shards, *inputs, *how)
    how = ["--init_from", "--epochs", flags.epochs, "--global_batch", 64, "--augment", "drawn", "--seed", fold]
    run("model.train", "--data", shards, "--model_dir", model, *how, "--precision", "bfloat16")
    run("model.evaluate", "--model", model, "--data", shards, "--split", "test")
    return pq.read_table(model / "evaluation.parquet").to_pylist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for what is converted and trained")
    parser.add_argument("--folds", type=int, default=3, help="default: 3, 5 at most")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    people = sorted(flags.people.glob("*.gnt"))
    flags.folder.mkdir(parents=True, exist_ok=True)
    class_list(people, flags.folder / "classes.txt")
    shares = []
    print("fold  images   top 1    top 5   of the people, from, in the middle")
    for fold in range(flags.folds):
        rows = one(people, flags.folder, fold, flags)
        top1, top5 = (sum(int(str(row["rank"])) <= top for row in rows) / len(rows) for top in (1, 5))
        by_person: dict[object, list[bool]] = {}
        for row in rows:
            by_person.setdefault(str(row["sample_id"]).split("/")[1], []).append(row["rank"] == 1)
        each = [statistics.mean(right) for right in by_person.values()]
        shares.append(top1)
        print(f"{fold:>4}  {len(rows):>6,}  {top1:.2%}  {top5:.2%}   {min(each):.1%}, {statistics.median(each):.1%}")
    if len(shares) > 1:
        print(f"mean {statistics.mean(shares):.2%} ± {statistics.stdev(shares) / len(shares) ** 0.5:.2%}")
    if flags.json:
        flags.json.write_text(json.dumps(shares) + "\n", "utf-8")


if __name__ == "__main__":
    main()
