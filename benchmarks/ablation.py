"""What each setting of the conversion and each distortion of the augmentation is worth, on real handwriting.

    python benchmarks/ablation.py --members 91*-c.gnt --output ablation.jsonl --seeds 3

A trial converts the members by `pipeline.steps.plain` and trains a narrow VGG11 by the trainer's own step; a quarter of
the members validates, another one for each seed. A line in the output file for each finished trial: the same command
goes on where it was stopped, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.network.devices import setup_tensorflow

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""By (variant, seed)."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/ablation.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=Path, nargs="+", required=True, metavar="GNT", help="a file for each writer")
    parser.add_argument("--output", type=Path, required=True, metavar="JSONL", help="a line for each finished trial")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trials of each variant (default: 3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to run and to show (default: all)")
    parser.add_argument("--table", action="store_true", help="run nothing, show what is there")
    flags = parser.parse_args(argv)
    setup_tensorflow()
    from ablation_variants import VARIANTS

    chosen = [variant for variant in VARIANTS if not flags.only or variant.name in flags.only]
    results = read_results(flags.output)
    if not flags.table:
        from ablation_trial import run_trial

        for seed in range(flags.seeds):
            for variant in chosen:
                if (variant.name, seed) not in results:
                    result = run_trial(variant, seed, sorted(flags.members))
                    with flags.output.open("a") as file:
                        file.write(json.dumps(result) + "\n")
        results = read_results(flags.output)
    print("\n".join(table([(variant.name, variant.predicted) for variant in chosen], results)))
    return 0


def read_results(path: Path) -> Results:
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {(result["variant"], result["seed"]): result for result in found}


def table(variants: Sequence[tuple[str, str]], results: Results) -> list[str]:
    """Lines of Markdown, for the variants with a finished trial.

    A spread is the deviation over the seeds, a difference is paired by seed, with its standard error.
    """
    from ablation_variants import BASELINE

    lines = [
        "| variant | seeds | scans, % | difference | photos, % | difference | predicted |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, predicted in variants:
        seeds = sorted(seed for variant, seed in results if variant == name)
        if not seeds:
            continue
        cells = []
        for measure in ("accuracy", "accuracy_photos"):
            values = [100 * results[name, seed][measure] for seed in seeds]
            both = [seed for seed in seeds if (BASELINE, seed) in results]
            differences = [100 * (results[name, s][measure] - results[BASELINE, s][measure]) for s in both]
            cells.append(with_spread(values, "±"))
            cells.append(with_spread(differences, "±", error=True, sign="+") if name != BASELINE else "")
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + f" | {predicted} |")
    return lines


def with_spread(values: Sequence[float], mark: str, *, error: bool = False, sign: str = "") -> str:
    """The mean, and the standard deviation or, with `error`, the standard error of the mean."""
    if not values:
        return ""
    shown = f"{statistics.mean(values):{sign}.2f}"
    if len(values) < 2:
        return shown
    deviation = statistics.stdev(values)
    return f"{shown} {mark} {deviation / math.sqrt(len(values)) if error else deviation:.2f}"


if __name__ == "__main__":
    sys.exit(main())
