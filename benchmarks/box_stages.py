"""model.train in stages: another data set, other distortions and another schedule at each restart of one run.

    python benchmarks/box_stages.py --distort elastic=0.026,shear=0.18 --until 10:46 --begun 0.33 -- FLAGS

How the recogniser of docs/recipe-box.md came about. The rate is constant, or with --until a cosine that
follows the clock: --begun is how far down it is at the start of this stage, 0 ... 1. It changes what the trainer
refuses to change, by putting functions of its own in place of the trainer's; such a run can't be made again to the bit.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
import time
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distort", default="", metavar="NAME=X,...", help="in place of --augment light")
    parser.add_argument("--until", metavar="HH:MM", help="when the rate is at its end, today")
    parser.add_argument("--begun", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--warmup_steps", type=int, default=300)
    parser.add_argument("flags", nargs="+", help="of model.train")
    mine = parser.parse_args()

    import tensorflow as tf

    from model.network.augment import AugmentConfig
    from model.train import run_folder, train
    from model.train.options import parse_arguments
    from model.train.steps import step

    run_folder.check_same_run = lambda *_: None
    if mine.distort:
        named = (part.split("=") for part in mine.distort.split(","))
        step.PRESETS["light"] = AugmentConfig(**{name: float(value) for name, value in named})
    start = time.time()
    end = start
    if mine.until:
        clock = datetime.time.fromisoformat(mine.until)
        end = datetime.datetime.combine(datetime.date.today(), clock).timestamp()

    def rate(at: Any, config: Any, _: int) -> Any:
        warm = tf.minimum((tf.cast(at, tf.float32) + 1) / (mine.warmup_steps + 1), 1.0)
        if not mine.until:
            return config.learning_rate * warm
        passed = (tf.timestamp() - start) / (end - start)
        done = tf.cast(tf.clip_by_value(mine.begun + (1 - mine.begun) * passed, 0.0, 1.0), tf.float32)
        return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + tf.cos(math.pi * done)))

    step.learning_rate = rate
    return train(parse_arguments(mine.flags))


if __name__ == "__main__":
    sys.exit(main())
