"""The stages of a training step, timed one by one on this machine: what `python -m model.benchmark` runs.

Every stage is made of the trainer's own parts, so that what is timed is what trains.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from model.answers.run import METRICS
from model.answers.scoring import share_of
from model.benchmark.flops import forward_flops, peak_tflops, training_flops
from model.data.batches import InputMode, TrainingSource, training_source
from model.data.examples import open_dataset
from model.network.devices import make_strategy
from model.train.checkpoint import Checkpoints, Progress
from model.train.loop import Loop, Task
from model.train.options import TrainConfig
from model.train.progress import Report
from model.train.state import TrainState, build_step_model, own_copies
from model.train.step import (
    make_forward,
    make_forward_backward,
    make_step,
    policy_of,
    resolve_precision,
    step_seed,
)
from schemas.machine import available_cores

_MODES: tuple[InputMode, ...] = ("memory", "stream")
_ROUNDS = 5
_MANY_STEPS = 1 << 40


@dataclass(frozen=True)
class Timing:
    """One row of the benchmark."""

    stage: str
    precision: str
    xla: bool | None
    """None where it makes no difference."""
    replicas: int
    global_batch: int
    ms_per_step: float
    """The median of the rounds."""
    images_per_second: float
    share_of_peak: float | None
    """0 to 1, of all devices in use; None where their peak isn't known."""


def time_input(config: TrainConfig, seconds: float) -> list[Timing]:
    """Batches from the data set and nothing else: from memory, and streamed."""
    card, _ = open_dataset(config.data)
    rows = []
    for mode in _MODES:
        source = training_source(
            card, config.data, config.split, mode=mode, global_batch=config.global_batch, seed=config.seed
        )
        batches = iter(source.batches(0, _MANY_STEPS))
        per_step = median_seconds(partial(next, batches), lambda parts: parts[0][1].numpy(), seconds)
        images = config.global_batch / per_step
        rows.append(Timing(f"input, {mode}", "uint8", None, 1, config.global_batch, 1e3 * per_step, images, None))
    return rows


def time_training(config: TrainConfig, stages: list[str], seconds: float) -> list[Timing]:
    """The stages of one configuration, a row each."""
    strategy = make_strategy(config.replicas)
    replicas = strategy.num_replicas_in_sync
    card, _ = open_dataset(config.data)
    mode: Any = config.input
    source = training_source(
        card, config.data, config.split, mode=mode, global_batch=config.global_batch, seed=config.seed
    )
    precision = resolve_precision(config.precision)
    model = build_step_model(config, card.image_size, card.class_count, policy_of(precision))
    state = TrainState(model, strategy, config, loss_scaling=precision == "float16")
    parts = next(iter(source.batches(0, 1, share_of(strategy))))
    peak = _peak_of_devices(precision, replicas)

    def row(stage: str, per_step: float) -> Timing:
        images = config.global_batch / per_step
        flops = forward_flops(model) if stage == "forward" else training_flops(model)
        share = None if peak is None else images * flops / (peak * 1e12)
        return Timing(stage, precision, config.xla, replicas, config.global_batch, 1e3 * per_step, images, share)

    rows: list[Timing] = []
    for stage in stages:
        if stage == "loop":
            step_seconds = rows[-1].ms_per_step / 1e3 if rows else 1.0
            rows.append(row(stage, _loop_seconds(config, card, source, strategy, model, state, step_seconds, seconds)))
        elif stage == "step":
            rows.append(row(stage, _step_seconds(config, parts, strategy, model, state, seconds)))
        else:
            run = _forward(config, model, state) if stage == "forward" else _backward(config, model, state, replicas)
            rows.append(row(stage, _replica_seconds(run, parts, strategy, seconds)))
    return rows


def machine() -> dict[str, Any]:
    """The devices, without their host's name."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return {"gpus": names, "cpu_cores": available_cores(), "tensorflow": tf.__version__}


def median_seconds(call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float, steps: int = 1) -> float:
    """Seconds a step of `call`, which makes `steps` of them; a device may run behind, `wait` catches up with it.

    The first calls, which compile, aren't counted.
    """
    for _ in range(2):
        wait(call())
    began = time.perf_counter()
    wait(call())
    once = max(time.perf_counter() - began, 1e-6)
    calls = max(1, round(seconds / _ROUNDS / once))
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        rounds.append((time.perf_counter() - began) / calls / steps)
    return statistics.median(rounds)


def _replica_seconds(run: Callable[..., Any], parts: Any, strategy: Any, seconds: float) -> float:
    """`run` on a part of the batch that already lies on each replica."""
    dealt = [
        strategy.experimental_distribute_values_from_function(
            lambda context, place=place: parts[context.replica_id_in_sync_group][place]
        )
        for place in (0, 1)
    ]
    on_replicas = tf.function(lambda images, labels: strategy.run(run, args=(images, labels)))

    def wait(result: Any) -> None:
        for value in strategy.experimental_local_results(result):
            value.numpy()

    return median_seconds(lambda: on_replicas(*dealt), wait, seconds)


def _forward(config: TrainConfig, model: Any, state: TrainState) -> Callable[..., Any]:
    forward = make_forward(model, state, config)
    return lambda images, _: tf.reduce_sum(forward(images))


def _backward(config: TrainConfig, model: Any, state: TrainState, replicas: int) -> Callable[..., Any]:
    run = make_forward_backward(model, config, replicas)

    def backward(images: Any, labels: Any) -> Any:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = step_seed(config, tf.zeros([], tf.int64), replica, replicas)
        result = run(own_copies(state.weights), own_copies(state.statistics), images, labels, seed, tf.ones([]))
        # A value of each gradient: TensorFlow leaves out what nobody asks for.
        return result.loss + tf.add_n([tf.reshape(gradient, [-1])[0] for gradient in result.gradients])

    return backward


def _step_seconds(
    config: TrainConfig, parts: Any, strategy: Any, model: Any, state: TrainState, seconds: float
) -> float:
    """The bare step: forward, backward, sum over the replicas, update; the same batch again and again."""
    constant = tf.data.Dataset.from_tensors(parts[:1]).repeat()
    batches = iter(strategy.distribute_datasets_from_function(lambda _: constant))
    steps = make_step(model, state, config, strategy, 1 << 20)
    count = 1

    def call() -> Any:
        return steps(batches, tf.constant(0, tf.int64), tf.constant(count, tf.int64))

    once = median_seconds(call, lambda result: result[0].numpy(), 0.0)
    count = max(1, min(100, round(min(0.5, seconds / _ROUNDS) / once)))  # as many as the loop makes in one call
    return median_seconds(call, lambda result: result[0].numpy(), seconds, count)


def _loop_seconds(
    config: TrainConfig,
    card: Any,
    source: TrainingSource,
    strategy: Any,
    model: Any,
    state: TrainState,
    step_seconds: float,
    seconds: float,
) -> float:
    """The trainer's own loop with input, log and progress: the median pace of the lines it logs."""
    every = max(1, round(seconds / _ROUNDS / step_seconds))
    fields = config.to_dict() | {"log_steps": every, "steps": every * (_ROUNDS + 1), "checkpoint_steps": _MANY_STEPS}
    looped = TrainConfig(**fields)
    assert looped.steps is not None
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as quiet:
        folder = Path(name)
        progress = Progress(config.seed)
        report = Report(folder, looped.steps, source.steps_per_epoch, out=quiet)
        checkpoints = Checkpoints(folder, state, progress, looped, writes=True, worker=0)
        task = Task(looped, card, None, folder, source, looped.steps)
        Loop(task, strategy, model, state, progress, checkpoints, report).run()
        report.close()
        lines = [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]
    paces = [line["images_per_second"] for line in lines if line["kind"] == "train"]
    return config.global_batch / statistics.median(paces[1:])


def _peak_of_devices(precision: str, replicas: int) -> float | None:
    """TFLOP/s of the devices in use together; more replicas than GPUs share them."""
    names = machine()["gpus"][: max(1, replicas)]
    peaks = [peak_tflops(name, precision) for name in names]
    known = [peak for peak in peaks if peak is not None]
    return float(np.sum(known)) if known and len(known) == len(peaks) else None
