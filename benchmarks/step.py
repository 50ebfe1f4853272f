"""The compiled training step beside Keras' fit and, where there is PyTorch, torch.compile, on the same batch.

    python benchmarks/step.py --data SHARDS --json step.json
    python benchmarks/step.py --data SHARDS --replica_batch 256 --torch /path/to/python     (on a GPU)

Each row runs in a process of its own; they take turns, round after round, and the medians are shown. All of them train
VGG19 with batch normalisation and the mean of each map in place of two dense layers, by AdamW with a clipped gradient,
on one batch that is given again and again: uint8 samples, no distortions, no outliers, no moving average. 16-bit
convolutions where the device has them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from model.benchmark import run_apart
from model.devices import setup_tensorflow
from model.flops import peak_tflops, training_flops

_HERE = Path(__file__).parent
_NAMES = {
    "ours_xla": "our step, XLA",
    "ours": "our step",
    "keras_xla": "Keras fit, XLA",
    "keras": "Keras fit",
    "torch": "PyTorch, torch.compile",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of a data set")
    parser.add_argument("--arch", default="vgg19")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--replica_batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports torch")
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    names = [name for name in _NAMES if name != "torch" or flags.torch]
    shape = _shape(flags)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(flags.rounds):
        for name in names:
            found[name].append(_images_per_second(name, flags, shape))
    rows = [
        {"row": name, "images_per_second": statistics.median(paces), "all": [round(pace, 2) for pace in paces]}
        for name, paces in found.items()
    ]
    _print_table(rows, shape)
    if flags.json:
        flags.json.write_text(json.dumps({"shape": shape, "rows": rows}, indent=1) + "\n", "utf-8")


def _shape(flags: argparse.Namespace) -> dict[str, Any]:
    """What every row is told, and what an image costs on this device."""
    setup_tensorflow()
    from model.examples import open_dataset
    from model.step import policy_of, resolve_precision
    from model.timing import machine
    from model.vgg import build_vgg

    card, _ = open_dataset(flags.data)
    precision = resolve_precision("auto")
    model = build_vgg(flags.arch, card.image_size, 1, card.class_count, width=flags.width, head="pool")
    gpus = machine()["gpus"]
    return {
        "arch": flags.arch, "width": flags.width, "batch": flags.replica_batch, "seconds": flags.seconds,
        "image_size": card.image_size, "classes": card.class_count, "precision": precision,
        "policy": policy_of(precision), "flops": training_flops(model), "gpu": gpus[0] if gpus else None,
        "peak_tflops": peak_tflops(gpus[0], precision) if gpus else None,
    }  # fmt: skip


def _images_per_second(name: str, flags: argparse.Namespace, shape: dict[str, Any]) -> float:
    if name.startswith("ours"):
        config = {
            "data": str(flags.data), "model_dir": "", "arch": flags.arch, "width": flags.width, "head": "pool",
            "global_batch": flags.replica_batch, "replicas": 1, "augment": "none", "outliers": 0.0, "ema": 0.0,
            "label_smoothing": 0.0, "schedule": "constant", "precision": shape["precision"], "xla": name == "ours_xla",
        }  # fmt: skip
        result = run_apart({"stages": ["step"], "seconds": flags.seconds, "config": config})
        return float(result["rows"][0]["images_per_second"])
    if name == "torch":
        command = [flags.torch, str(_HERE / "step_torch.py"), json.dumps(shape)]
    else:
        command = [sys.executable, str(_HERE / "step_keras.py"), json.dumps(shape | {"xla": name == "keras_xla"})]
    environment = os.environ | {"PYTHONPATH": str(_HERE.parent)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def _print_table(rows: list[dict[str, Any]], shape: dict[str, Any]) -> None:
    device = shape["gpu"] or f"{os.cpu_count()} CPU cores"
    print(f"{shape['arch']} × {shape['width']}, batch {shape['batch']}, {shape['classes']:,} classes, ", end="")
    print(f"{shape['precision']}, {shape['flops'] / 1e9:.2f} GFLOP an image; {device}")
    print(f"{'':<24} {'images/s':>10} {'ms/step':>10} {'GFLOP/s':>10} {'of peak':>9} {'× Keras fit':>12}")
    keras = next(row["images_per_second"] for row in rows if row["row"] == "keras")
    for row in rows:
        pace = row["images_per_second"]
        rate = pace * shape["flops"]
        share = f"{rate / shape['peak_tflops'] / 1e12:.1%}" if shape["peak_tflops"] else "unknown"
        print(
            f"{_NAMES[row['row']]:<24} {pace:>10,.1f} {1e3 * shape['batch'] / pace:>10,.1f} {rate / 1e9:>10,.1f}"
            f" {share:>9} {pace / keras:>12.2f}"
        )


if __name__ == "__main__":
    main()
