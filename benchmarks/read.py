"""Shuffled uint8 batches of 512 images: our two sources beside the readers that others use, on the same images.

    python benchmarks/read.py --data RAW_SHARDS PNG_SHARDS --work FOLDER --json read.json

Each reader runs in a process of its own; they take turns, round after round, and the medians are shown. The peers live
in a virtual environment that is made in the work folder from benchmarks/peers/read.txt, and read what their own writers
made there of the first data set's images, raw.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from readers import PEERS, READERS_OF_SHARDS, TORCH

_HERE = Path(__file__).parent
_NAMES = {
    "memory": "ours, memory",
    "stream": "ours, stream",
    "tfds": "TFDS",
    "record_by_record": "tf.data, record by record",
    "hugging_face": "Hugging Face datasets",
    "grain": "Grain, ArrayRecord",
    "webdataset": "WebDataset",
    "reader": "the reader",
    "loader": "the reader, DataLoader, 2 workers",
    "seek": "torch Dataset, open and seek",
    "copy": "copied, nothing compared",
    "mosaic": "MosaicML Streaming",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one or several data sets")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the peers and their files; kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="three times for each reader in each round")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with PyTorch, if there is one")
    parser.add_argument("--prepare", action="store_true", help="make what the peers need, and time nothing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    peers = _prepare_peers(flags.data[0], flags.work.resolve())
    if flags.prepare:
        return
    jobs = [
        (name, encoding_of(folder), [sys.executable, folder]) for folder in flags.data for name in READERS_OF_SHARDS
    ]
    jobs += [(name, "raw", [peers, flags.work.resolve() / name]) for name in PEERS]
    if flags.torch:
        _write("mosaic", flags.torch, flags.work.resolve())
        folders = {"mosaic": flags.work.resolve() / "mosaic"}
        jobs += [(name, "raw", [flags.torch, folders.get(name, flags.data[0])]) for name in TORCH]
    found: dict[tuple[str, str], list[dict[str, float]]] = {(name, encoding): [] for name, encoding, _ in jobs}
    for _ in range(flags.rounds):
        for name, encoding, (python, folder) in jobs:
            found[name, encoding].append(json.loads(_run(python, name, folder, flags.seconds).splitlines()[-1]))
    rows = [
        {"reader": name, "encoding": encoding}
        | {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        | {"all": [round(one["records_per_second"]) for one in runs]}
        for (name, encoding), runs in found.items()
    ]
    _print_table(rows)
    if flags.json:
        flags.json.write_text(json.dumps({"cpu_cores": os.cpu_count(), "rows": rows}, indent=1) + "\n", "utf-8")


def encoding_of(folder: Path) -> str:
    return json.loads((folder / "dataset.json").read_text("utf-8"))["config"]["image_encoding"]


def _prepare_peers(data: Path, work: Path) -> Path:
    """The Python of the peers' environment; makes it, and their files, where they aren't there yet."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", _HERE / "peers" / "read.txt"], check=True)
    if not (work / "labels.npy").exists():
        from model.data.examples import load_split
        from pipeline.reader.dataset import open_dataset

        images, labels = load_split(open_dataset(data).records("train"))
        np.save(work / "images.npy", images)
        np.save(work / "labels.npy", labels)
    for name in PEERS:
        _write(name, python, work)
    return python


def _write(name: str, python: Path | str, work: Path) -> None:
    """A peer's own files, where they aren't there yet."""
    if not (work / name).exists():
        partial = work / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _run(python, f"write_{name}", partial, 0)
        partial.rename(work / name)


def _run(python: Path | str, name: str, folder: Path, seconds: float) -> str:
    command = [python, _HERE / "readers.py", name, folder, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return done.stdout


def _print_table(rows: list[dict[str, Any]]) -> None:
    usual = {row["encoding"]: row["records_per_second"] for row in rows if row["reader"] == "record_by_record"}
    beside = "png" if "png" in usual else next(iter(usual))
    above = ("", "", "records/s", "× record by", "first batch", "import", "resident", "processor")
    below = ("", "", "", f"record, {beside}", "s", "s", "MB", "µs")
    for first, second, *others in (above, below):
        widths = zip(others, (10, 12, 12, 8, 9, 10), strict=True)
        print(f"{first:<34} {second:<5} {' '.join(f'{word:>{width}}' for word, width in widths)}")
    for row in rows:
        print(
            f"{_NAMES[row['reader']]:<34} {row['encoding']:<5} {row['records_per_second']:>10,.0f} "
            f"{row['records_per_second'] / usual[beside]:>12.1f} {row['first_batch_seconds']:>12.2f} "
            f"{row['import_seconds']:>8.2f} {row['resident_mb']:>9,.0f} {row['processor_us']:>10.2f}"
        )


if __name__ == "__main__":
    main()
