"""The compiled training step beside Keras' fit and, where there is PyTorch, torch.compile, on the same batch.

    python benchmarks/step.py --data SHARDS --json step.json
    python benchmarks/step.py --data SHARDS --replica_batch 512 --torch /path/to/python     (on a GPU)

Each row runs in a process of its own; they take turns, round after round, and the medians are shown. All of them train
VGG19 with batch normalisation and the mean of each map in place of two dense layers, by AdamW with a clipped gradient,
on one batch of the data set that is given again and again, ours on the batches of its own feed, sent to the device as
uint8 and scaled there: the same dropout, no distortions, no outliers, no moving average. 16-bit convolutions where the
device has them.

Ours and Keras run with XLA and without; "× Keras, same XLA" is over Keras' row with the same XLA setting. "(default)"
marks what each does when it isn't told: both compile by XLA on a GPU only (Keras by jit_compile="auto"). Ours makes up
to half a second's steps in one call, 100 at most, so Keras does, too: all its rows have steps_per_execution, worked out
from the pace of our row with the same XLA setting in the first round. One step a call, Keras' own default, has no row.
PyTorch runs a Python loop around a compiled forward and backward pass; on a GPU it copies the batch from pinned memory
in each step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from model.benchmark import run_apart

_HERE = Path(__file__).parent
_NAMES = {
    "ours_xla": "our step, XLA",
    "ours": "our step, no XLA",
    "keras_xla": "Keras fit, XLA",
    "keras": "Keras fit, no XLA",
    "torch": "PyTorch, torch.compile",
}
_OURS = {"keras_xla": "ours_xla", "keras": "ours"}  # the same XLA setting
_KERAS = {ours: keras for keras, ours in _OURS.items()} | {keras: keras for keras in _OURS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of a data set")
    parser.add_argument("--arch", default="vgg19")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--replica_batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=_NAMES, default=list(_NAMES), help="Keras' need ours beside them")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports torch and numpy")
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    wanted = {*flags.rows, *(_OURS[name] for name in flags.rows if name in _OURS)}
    names = [name for name in _NAMES if name in wanted and (name != "torch" or flags.torch)]
    found: dict[str, list[float]] = {name: [] for name in names}
    executions: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.npz"
        asked = (flags.data, flags.arch, flags.width, flags.replica_batch, batch)
        shape = json.loads(_last_line([sys.executable, str(_HERE / "step_batch.py"), *map(str, asked)]))
        shape["seconds"] = flags.seconds
        for _ in range(flags.rounds):
            for name in names:
                if name in _OURS and name not in executions:
                    executions[name] = _steps_per_call(found[_OURS[name]][0], shape)
                told = shape | {"batch_file": str(batch), "xla": name.endswith("_xla")}
                found[name].append(_images_per_second(name, flags, told, executions.get(name)))
    rows = [
        {
            "row": name,
            "images_per_second": statistics.median(paces),
            "all": [round(pace, 2) for pace in paces],
            "steps_per_execution": executions.get(name),
        }
        for name, paces in found.items()
    ]
    _print_table(rows, shape)
    if flags.json:
        flags.json.write_text(json.dumps({"shape": shape, "rows": rows}, indent=1) + "\n", "utf-8")


def _images_per_second(name: str, flags: argparse.Namespace, told: dict[str, Any], execution: int | None) -> float:
    if name in _OURS.values():
        config = {
            "data": str(flags.data), "model_dir": "", "arch": flags.arch, "width": flags.width, "head": "pool",
            "dropout": told["dropout"], "global_batch": flags.replica_batch, "replicas": 1, "augment": "none",
            "outliers": 0.0, "ema": 0.0, "label_smoothing": 0.0, "schedule": "constant",
            "precision": told["precision"], "xla": told["xla"],
        }  # fmt: skip
        told_of = run_apart({"stages": ["step"], "seconds": flags.seconds, "config": config})
        (row,) = [row for entry in told_of for row in entry["rows"]]
        return float(row["images_per_second"])
    if name == "torch":
        return float(_last_line([flags.torch, str(_HERE / "step_torch.py"), json.dumps(told)]))
    told = told | {"steps_per_execution": execution}
    return float(_last_line([sys.executable, str(_HERE / "step_keras.py"), json.dumps(told)]))


def _steps_per_call(pace: float, shape: dict[str, Any]) -> int:
    """As many as the benchmark's step and the trainer's loop make in one call: half a second's, 100 at most."""
    return max(1, min(100, round(min(0.5, shape["seconds"] / 5) * pace / shape["batch"])))


def _last_line(command: list[str]) -> str:
    """What the command prints last. Ends this one if it fails."""
    paths = [str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SystemExit(f"{Path(command[1]).name}: {reason}")
    return done.stdout.splitlines()[-1]


def _print_table(rows: list[dict[str, Any]], shape: dict[str, Any]) -> None:
    device = shape["gpu"] or f"{os.cpu_count()} CPU cores"
    print(f"{shape['arch']} × {shape['width']}, batch {shape['batch']}, {shape['classes']:,} classes, ", end="")
    print(f"{shape['precision']}, {shape['flops'] / 1e9:.2f} GFLOP an image; {device}")
    print(f"{'':<28} {'images/s':>10} {'ms/step':>10} {'GFLOP/s':>10} {'of peak':>9} {'× Keras, same XLA':>18}", end="")
    paces = {row["row"]: row["images_per_second"] for row in rows}
    print(f" {'× PyTorch':>10}" if "torch" in paces else "")
    defaults = ("ours_xla", "keras_xla") if shape["gpu"] else ("ours", "keras")
    for name, pace in paces.items():
        rate = pace * shape["flops"]
        share = f"{rate / shape['peak_tflops'] / 1e12:.1%}" if shape["peak_tflops"] else "unknown"
        title = _NAMES[name] + (" (default)" if name in defaults else "")
        keras = f"{pace / paces[_KERAS[name]]:.2f}" if _KERAS.get(name) in paces else ""
        torch = f" {pace / paces['torch']:>10.2f}" if "torch" in paces else ""
        print(
            f"{title:<28} {pace:>10,.1f} {1e3 * shape['batch'] / pace:>10,.1f} {rate / 1e9:>10,.1f} {share:>9}"
            f" {keras:>18}{torch}"
        )
    executed = [f"{row['steps_per_execution']} ({_NAMES[row['row']]})" for row in rows if row["row"] in _OURS]
    if executed:
        print(f"steps_per_execution: {', '.join(executed)}")


if __name__ == "__main__":
    main()
