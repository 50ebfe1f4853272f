"""What each setting of the training recipe is worth: one change at a time, several seeds, a narrow network.

    python benchmarks/recipe.py --data DATA --output recipe.json
    python benchmarks/recipe.py --data DATA --output recipe.json base head_dense

A trial trains with the trainer's own step on a data set's train split and reads its validation split with the moving
averages. Trials that differ in nothing but the seed share one compiled step. Finished trials are kept in the JSON file
with their settings and not run again, and all of a file saw as many samples; without --data its table is printed. The
base is the trainer's defaults, but for a narrow VGG11, a batch of 64 and twice the rate. What follows from the figures
stands in docs/recipe.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.network.devices import setup_tensorflow
from model.train.options import TrainConfig
from pipeline.reader.dataset import Dataset, open_dataset

CALL_STEPS = 25
EVALUATION_BATCH = 200

BASE: dict[str, Any] = {
    "arch": "vgg11", "width": 0.125, "global_batch": 64, "learning_rate": 2e-3, "eval_split": "validation",
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "head_dense": {"head": "dense", "dense_width": 512},
    "no_batch_norm": {"batch_norm": False},
    "no_smoothing": {"label_smoothing": 0.0},
    "no_ema": {"ema": 0.0},
    "ema_0.99": {"ema": 0.99},
    "no_dropout": {"dropout": 0.0},
    "dropout_0.5": {"dropout": 0.5},
    "no_outliers": {"outliers": 0.0},
    "no_augmentation": {"augment": "none"},
    "full_augmentation": {"augment": "full"},
    "no_decay": {"weight_decay": 0.0},
    "decay_0.2": {"weight_decay": 0.2},
    "constant": {"schedule": "constant"},
    "no_warmup": {"warmup_steps": 0},
    "no_clip": {"clip_norm": 0.0},
    "rate_0.001": {"learning_rate": 1e-3},
    "rate_0.004": {"learning_rate": 4e-3},
    "rate_0.008": {"learning_rate": 8e-3},
    "batch_256": {"global_batch": 256},
    "batch_256_sqrt": {"global_batch": 256, "learning_rate": 4e-3},
    "batch_256_linear": {"global_batch": 256, "learning_rate": 8e-3},
}


class Trainer:
    """A network and its compiled step, for one seed after another: compiling takes about as long as a trial."""

    def __init__(self, config: TrainConfig, data: Dataset, samples: int) -> None:
        from model.answers.scoring import Evaluation
        from model.network.devices import make_strategy
        from model.train.steps.calls import Steps
        from model.train.steps.state import TrainState
        from model.train.steps.step import make_forward

        self._config, self._data = config, data
        self._steps = samples // config.global_batch
        strategy, model = make_strategy(1), self._model(0)
        self._state = TrainState(model, strategy, config)
        self._step = Steps(model, self._state, config, strategy, None, self._steps)
        self._evaluation = Evaluation(make_forward(model, self._state, config), strategy, EVALUATION_BATCH)

    def run(self, train: Any, seed: int) -> dict[str, float]:
        from model.data.batches import MemorySource

        self._start(seed)
        began = time.monotonic()
        source = MemorySource(train[0], train[1], self._config.global_batch, seed)
        self._step.restart(source)
        losses: list[float] = []
        while len(losses) < self._steps:
            count = min(CALL_STEPS, self._steps - len(losses))
            losses += self._step(len(losses), count)[:, 0].tolist()
        scores = self._evaluation.scores(self._data.records("validation"))
        return {
            "accuracy": float(np.mean(scores.rank == 1)),
            "loss": float(np.mean(scores.loss, dtype=np.float64)),
            "first_losses": float(np.mean(losses[: self._steps // 8])),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _start(self, seed: int) -> None:
        """Fresh weights."""
        import tensorflow as tf

        from model.train.steps.state import statistics_of

        model, state = self._model(seed), self._state
        weights, moving = model.trainable_variables, statistics_of(model)
        values = [(state.weights, weights), (state.statistics, moving)]
        if self._config.ema:
            values += [(state.average_weights, weights), (state.average_statistics, moving)]
        for variables, initial in values:
            for variable, value in zip(variables, initial, strict=True):
                variable.assign(np.asarray(value))
        for variable in (*state.first_moments, *state.second_moments):
            variable.assign(tf.zeros_like(variable))

    def _model(self, seed: int) -> Any:
        from model.train.steps.state import build_step_model

        return build_step_model(
            replace(self._config, seed=seed), self._data.card.image_size, len(self._data.classes), "float32"
        )


def run_trials(folder: Path, names: list[str], seeds: int, samples: int, output: Path) -> None:
    import tensorflow as tf

    from model.data.examples import load_split

    rows = json.loads(output.read_text("utf-8")) if output.exists() else []
    for row in rows:
        if row.get("samples") != samples:
            raise SystemExit(
                f"{output}: expected trials of --samples {samples}, found {row.get('samples', 'none named')}; "
                "choose another --output"
            )
    data = open_dataset(folder)
    train = load_split(data.records("train"))
    done = {(row["variant"], row["seed"]) for row in rows}
    for name in names:
        missing = [seed for seed in range(seeds) if (name, seed) not in done]
        if not missing:
            continue
        config = TrainConfig("", "", **{**BASE, **VARIANTS[name]})
        settings = {name: value for name, value in asdict(config).items() if name not in ("data", "model_dir", "seed")}
        trainer = Trainer(config, data, samples)
        for seed in missing:
            found = trainer.run(train, seed)
            rows.append({"variant": name, "seed": seed, "samples": samples, **found, "settings": settings})
            output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
            print(name, seed, found, flush=True)
        del trainer
        tf.keras.backend.clear_session()


def print_table(output: Path) -> None:
    rows = json.loads(output.read_text("utf-8"))
    base = {row["seed"]: row["accuracy"] for row in rows if row["variant"] == "base"}
    print("| change | seeds | accuracy, mean ± sd | against the base, mean of pairs | loss | loss, first eighth |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in VARIANTS:
        own = [row for row in rows if row["variant"] == name]
        if not own:
            continue
        found = [100 * row["accuracy"] for row in own]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        pairs = [100 * (row["accuracy"] - base[row["seed"]]) for row in own if row["seed"] in base]
        gain = f"{statistics.mean(pairs):+.2f}" if pairs and name != "base" else ""
        mean, seeds = statistics.mean(found), len(own)
        losses, first = (statistics.mean(row[key] for row in own) for key in ("loss", "first_losses"))
        print(f"| {name} | {seeds} | {mean:.2f} ± {spread:.2f} | {gain} | {losses:.3f} | {first:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set with the splits train and validation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=86_400, help="seen by a trial, whatever its batch")
    parser.add_argument("--output", type=Path, required=True, help="JSON, a line of figures for each trial")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"{' '.join(VARIANTS)} (default: all)")
    flags = parser.parse_args()
    if flags.data:
        setup_tensorflow()
        run_trials(flags.data, flags.variants or list(VARIANTS), flags.seeds, flags.samples, flags.output)
    print_table(flags.output)


if __name__ == "__main__":
    main()
