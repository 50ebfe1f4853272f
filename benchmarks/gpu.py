"""All that is wanted of a GPU, in one run of at most twelve minutes and one table.

    python benchmarks/gpu.py --work DIR [--data SHARDS] [--torch /path/to/python]
    python benchmarks/gpu.py --work DIR --tiny                                        (on processors, in two minutes)

Rows: the step with its feed at three batches, the trainer's loop in three modes, two epochs with evaluation and saving,
PyTorch's compiled step at the middle batch; then what a step's time goes to, from the trace of the epochs. Without
--data it writes a set of noise of HWDB1.1's shapes. Every part is a process of its own; what is left of the time is
looked at before each, and what doesn't fit any more is named. What was predicted stands in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE.parent), str(_HERE.parent / "tests" / "helpers")]

from model.benchmark import run_apart  # noqa: E402
from pipeline.reader.dataset import open_dataset  # noqa: E402
from schemas.errors import UserError  # noqa: E402

_SIZES = {
    "batches": (256, 512, 1024), "records": {"train": 61_440, "validation": 9_000}, "size": 64, "arch": "vgg19",
    "width": 1.0, "seconds": 5.0,
}  # fmt: skip
_TINY = {
    "batches": (8, 16, 32), "records": {"train": 320, "validation": 50}, "size": 16, "arch": "vgg11", "width": 0.05,
    "seconds": 0.5,
}  # fmt: skip
_KINDS = {
    "convolutions": ("conv", "cudnn", "xmma", "cutlass", "fprop", "dgrad", "wgrad"),
    "products": ("gemm", "dot", "cublas"),
    "sums over GPUs": ("nccl", "allreduce", "all-reduce"), "copies": ("memcpy", "memset"),
    "passes over maps": ("fusion", "loop", "reduce"),
}  # fmt: skip
"""What a row of the trace's table stands for -> parts of the names of its kernels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="a folder to make and to use again")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set with train and validation")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that imports torch and numpy")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    end, sizes = time.monotonic() + 60 * flags.minutes, _TINY if flags.tiny else _SIZES
    data = flags.data or _noise(flags.work / "data", sizes)
    print(f"{'':<34} {'batch':>6} {'images/s':>10} {'ms/step':>9} {'of peak':>8}", flush=True)
    paces: dict[str, float] = {}
    for title, needed, row in _parts(flags, sizes, data):
        if end - time.monotonic() < needed and not flags.tiny:
            print(f"{title:<34} no time left", flush=True)
            continue
        try:
            for name, batch, pace, share in row():
                if batch == sizes["batches"][1]:
                    paces[name] = pace
                shown = "" if share is None else f"{share:.1%}"
                print(f"{name:<34} {batch:>6,} {pace:>10,.1f} {1e3 * batch / pace:>9.2f} {shown:>8}", flush=True)
        except (UserError, OSError, subprocess.SubprocessError) as error:
            print(f"{title:<34} {str(error)[:160]}", flush=True)
    _ratios(paces, sizes["batches"][1])
    for line in _breakdown(flags.work / "run"):
        print(line)


def _parts(flags: argparse.Namespace, sizes: dict[str, Any], data: Path) -> Iterator[tuple[str, float, Any]]:
    """(title, seconds it may take, function that yields (name, batch, images/s, share of the peak))."""
    middle = sizes["batches"][1]

    def timed(batch: int, mode: str, *stages: str) -> Any:
        config = {
            "data": str(data), "model_dir": "", "arch": sizes["arch"], "width": sizes["width"], "global_batch": batch,
            "replicas": 1, "input": mode, "schedule": "constant", "xla": True if not flags.tiny else None,
        }  # fmt: skip
        for entry in run_apart({"stages": list(stages), "seconds": sizes["seconds"], "config": config}):
            for row in entry["rows"]:
                yield f"{row['stage']}, {mode}", batch, row["images_per_second"], row["share_of_peak"]

    yield f"step, device {middle}", 150, lambda: timed(middle, "device", "step", "loop")
    for batch in sizes["batches"]:
        if batch != middle:
            yield f"step, device {batch}", 120, lambda batch=batch: timed(batch, "device", "step")
    yield "epochs", 150, lambda: _epochs(flags.work / "run", data, middle, sizes)
    if flags.torch:
        yield "PyTorch, torch.compile", 120, lambda: _torch(flags.torch, data, middle, sizes, flags.work)
    yield "loop, memory", 120, lambda: timed(middle, "memory", "loop")
    yield "loop, stream", 60, lambda: timed(middle, "stream", "loop")


def _epochs(run: Path, data: Path, batch: int, sizes: dict[str, Any]) -> Iterator[tuple[str, int, float, float | None]]:
    """Three epochs, of which the first compiles; the pace is that of the others, evaluation and saving included."""
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "model.train", f"--data={data}", f"--model_dir={run}", "--epochs=3"]
    command += [f"--arch={sizes['arch']}", f"--width={sizes['width']}", f"--global_batch={batch}", "--profile=10"]
    command += ["--input=device", "--log_steps=10"]
    began: list[float] = []
    with subprocess.Popen(command, cwd=_HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        began += (time.monotonic() for line in process.stdout if " validation - loss" in line)
    if process.returncode or len(began) < 3:
        raise UserError(f"model.train ended with status {process.returncode}")
    records = open_dataset(data).card.split("train").counts.kept
    images = 2 * (records // batch) * batch
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train" and line["epoch"] > 1]
    alone = sorted(line["step_ms_median"] for line in steps)[len(steps) // 2]
    yield "epochs, evaluation and saving", batch, images / (began[2] - began[0]), None
    yield "epochs, their steps alone", batch, 1e3 * batch / alone, steps[-1].get("share_of_peak")


def _torch(python: str, data: Path, batch: int, sizes: dict[str, Any], work: Path) -> Iterator[tuple[Any, ...]]:
    file = work / "batch.npz"
    command = [sys.executable, str(_HERE / "step_batch.py"), str(data), sizes["arch"], str(sizes["width"]), str(batch)]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True, cwd=_HERE.parent)
    shape = json.loads(done.stdout.splitlines()[-1]) | {"batch_file": str(file), "seconds": sizes["seconds"]}
    done = subprocess.run(
        [python, str(_HERE / "step_torch.py"), json.dumps(shape)], capture_output=True, text=True, check=True
    )
    pace = float(done.stdout.splitlines()[-1])
    peak = shape["peak_tflops"]
    yield "PyTorch, torch.compile", batch, pace, pace * shape["flops"] / peak / 1e12 if peak else None


def _ratios(paces: dict[str, float], batch: int) -> None:
    """Beside what is wanted, at the middle batch."""
    step = paces.get("step, device")
    for name, of, wanted in (
        ("loop, device", step, 0.97),
        ("loop, memory", step, None),
        ("loop, stream", step, None),
        ("epochs, evaluation and saving", step, 0.93),
        ("step, device", paces.get("PyTorch, torch.compile"), 1.15),
    ):
        if of and name in paces:
            aim = "" if wanted is None else f", wanted {wanted}"
            print(f"{name} ÷ {'PyTorch' if name.startswith('step') else 'step'}: {paces[name] / of:.3f}{aim} ({batch})")


def _breakdown(run: Path) -> Iterator[str]:
    """The time of the kernels in a run's trace by kind, and how long no kernel ran."""
    traces = sorted(run.glob("tensorboard/plugins/profile/*/trace.json.gz"))
    if not traces:
        return
    with gzip.open(traces[-1], "rt") as file:
        events = json.load(file)["traceEvents"]
    threads = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"}
    kernels = [one for one in events if one["ph"] == "X" and "Stream" in threads[one["pid"], one["tid"]]]
    if not kernels:
        yield f"{traces[-1]}: {len(events):,} events, none of a GPU"
        return
    spent: collections.Counter[str] = collections.Counter()
    for one in kernels:
        name = one["name"].lower()
        kind = next((kind for kind, parts in _KINDS.items() if any(part in name for part in parts)), "others")
        spent[kind] += one["dur"]
    begin, end = min(one["ts"] for one in kernels), max(one["ts"] + one["dur"] for one in kernels)
    spent["no kernel"] = max(0.0, end - begin - sum(spent.values()))
    for kind, microseconds in spent.most_common():
        yield f"{kind:<20} {microseconds / (end - begin):6.1%}"


def _noise(folder: Path, sizes: dict[str, Any]) -> Path:
    from tiny_dataset import CHARACTERS, write_dataset

    from schemas.classes import default_classes

    if not (folder / "dataset.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        characters = CHARACTERS if sizes is _TINY else default_classes().characters
        write_dataset(folder, sizes["records"], size=sizes["size"], characters=characters)
    return folder


if __name__ == "__main__":
    main()
