"""The demo of run_local.sh over several seeds: the kept model, its threshold, and what that keeps of the test split.

    python benchmarks/demo_seeds.py --folder /tmp/demo-seeds

Seed n draws other handwriting (the sample's seed), and trains from other weights in another order (the trainer's). What
is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

_FIRST_SAMPLE_SEED = 7  # run_local.sh's own
_TRAIN = ["--init_from", "--epochs", "4", "--global_batch", "64"]


def run(module: str, *flags: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, flags)], check=True, stdout=subprocess.DEVNULL)


def one(folder: Path, seed: int) -> list[str]:
    """The row of a seed."""
    few, shards, model = folder / f"few{seed}", folder / f"few-shards{seed}", folder / f"run{seed}"
    if not few.exists():
        run(
            "pipeline.sample", "--output", few, "--writers", 60, "--characters", 51, "--seed", _FIRST_SAMPLE_SEED + seed
        )
    inputs = ["--input", f"train={few / 'train'}", "--input", f"test={few / 'test'}"]
    how = ["--image_size", 32, "--validation_fraction", 0.2]
    run("pipeline.convert", "--runner=DirectRunner", "--output", shards, *inputs, *how)
    run("model.train", "--data", shards, "--model_dir", model, *_TRAIN, "--log_steps", 20, "--seed", seed)
    run("model.evaluate", "--model", model, "--data", shards, "--split", "test")

    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text("utf-8").splitlines()]
    kept = [line for line in lines if line["kind"] == "eval" and line["kept"]][-1]
    trust = json.loads((model / "calibration.json").read_text("utf-8"))
    rows = pq.read_table(model / "evaluation.parquet").to_pandas()
    right, given = rows["rank"] == 1, rows["probability"] >= trust["threshold"]
    return [
        f"{seed}",
        f"{kept['epoch']}",
        f"{kept['accuracy']:.2%}",
        f"{kept['loss']:.3f}",
        f"{trust['samples']:,}",
        f"{right.mean():.2%}",
        f"{trust['temperature']:.3f}",
        f"{trust['threshold']:.3f}",
        f"{given[right].mean():.2%}",
        f"{(~given[~right]).sum()} of {(~right).sum()}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is drawn, converted and trained")
    parser.add_argument("--seeds", type=int, default=5, help="default: 5")
    flags = parser.parse_args()
    widths = (4, 10, 16, 15, 18, 10, 11, 9, 18, 18)
    titles = ("seed", "kept epoch", "validation top-1", "validation loss", "validation samples", "test top-1")
    titles += ("temperature", "threshold", "right answers kept", "wrong ones refused")
    print("  ".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)), flush=True)
    for seed in range(flags.seeds):
        cells = one(flags.folder, seed)
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True)


if __name__ == "__main__":
    main()
