"""Records a second into training: our two sources beside TFDS and a plain tf.data pipeline, on the same shards.

    python benchmarks/input.py --data RAW_SHARDS PNG_SHARDS --json input.json

Every contender shuffles with the same reach, batches alike and delivers uint8 images and labels to host memory. They
take turns, round after round, so that a busy machine is busy for all of them; the medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from model.command import exit_status, make_console, print_table
from model.devices import setup_tensorflow

_WARM_UP_BATCHES = 20
_MANY_STEPS = 1 << 40
_SEED = 1
_USUAL = "tf.data, record by record"

Contender = Callable[[], Any]
"""Makes a tf.data.Dataset of (uint8 [B, s, s, 1], integer [B]) that doesn't end."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/input.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one or several data sets")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each contender in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args(argv)

    def body() -> int:
        setup_tensorflow()
        contenders: dict[tuple[str, str], Contender] = {}
        for folder in flags.data:
            contenders.update(contenders_on(folder, flags.split, flags.batch))
        rates: dict[tuple[str, str], list[float]] = {name: [] for name in contenders}
        for _ in range(flags.rounds):
            for name, make in contenders.items():
                rates[name].append(records_per_second(make(), flags.batch, flags.seconds))
        rows = [
            {
                "contender": name,
                "encoding": encoding,
                "records_per_second": round(statistics.median(found)),
                "all": found,
            }
            for (name, encoding), found in rates.items()
        ]
        show(rows, flags.batch)
        if flags.json is not None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            content = {"batch": flags.batch, "cpu_cores": cores, "rounds": flags.rounds, "rows": rows}
            flags.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        return 0

    return exit_status("benchmarks/input.py", body)


def contenders_on(folder: Path, split: str, batch: int) -> dict[tuple[str, str], Contender]:
    """(name, encoding) -> contender, for one data set."""
    from model.examples import check_split, open_dataset
    from model.input import InputMode, training_source

    card, _ = open_dataset(folder)
    paths = check_split(card, folder, split)
    encoding, size = card.image_encoding, card.image_size
    found: dict[tuple[str, str], Contender] = {}
    modes: tuple[InputMode, ...] = ("memory", "stream")
    for mode in modes:
        source = training_source(card, folder, split, mode=mode, global_batch=batch, seed=_SEED)
        found[f"ours, {mode}", encoding] = partial(source.batches, 0, _MANY_STEPS)
    found["TFDS", encoding] = lambda: with_tfds(folder, split, batch)
    found[_USUAL, encoding] = lambda: record_by_record(paths, encoding, size, batch)
    return found


def with_tfds(folder: Path, split: str, batch: int) -> Any:
    """As TFDS's own guide has it: shuffled files, interleaved, records parsed one by one."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from model.input import SHUFFLE_RECORDS

    records = tfds.builder_from_directory(folder).as_dataset(split=split, shuffle_files=True, as_supervised=True)
    return records.repeat().shuffle(SHUFFLE_RECORDS).batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def record_by_record(paths: list[str], encoding: str, size: int, batch: int) -> Any:
    """As most tutorials have it: parse_single_example and a decoder for each record."""
    import tensorflow as tf

    from model.input import SHUFFLE_RECORDS
    from schemas.example import IMAGE, LABEL

    spec = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: Any) -> tuple[Any, Any]:
        example = tf.io.parse_single_example(record, spec)
        if encoding == "png":
            image = tf.io.decode_png(example[IMAGE], channels=1)
        else:
            image = tf.io.decode_raw(example[IMAGE], tf.uint8)
        return tf.reshape(image, [size, size, 1]), example[LABEL]

    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    records = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    parsed = records.repeat().shuffle(SHUFFLE_RECORDS).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return parsed.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def records_per_second(dataset: Any, batch: int, seconds: float) -> float:
    batches = iter(dataset)
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(batches)
        count += 1
    return count * batch / (time.perf_counter() - began)


def show(rows: Sequence[dict[str, Any]], batch: int) -> None:
    usual = {row["encoding"]: row["records_per_second"] for row in rows if row["contender"] == _USUAL}
    encoding = "png" if "png" in usual else next(iter(usual))
    lines = []
    for row in rows:
        times = row["records_per_second"] / usual[encoding]
        spread = f"{min(row['all']):,.0f} to {max(row['all']):,.0f}"
        lines.append([row["contender"], row["encoding"], f"{row['records_per_second']:,}", spread, f"{times:.1f}"])
    columns = ["", "shards", "records/s", "least to most", f"× {encoding}, record by record"]
    print_table(make_console(), f"Batches of {batch}", columns, lines, left=2)


if __name__ == "__main__":
    sys.exit(main())
