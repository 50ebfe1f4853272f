"""The stages of a training step, timed one by one on this machine: what `python -m model.benchmark` runs.

Every stage is made of the trainer's own parts, so that what is timed is what trains.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from model.answers.run import read_metrics
from model.data.batches import input_mode, training_source
from model.network.devices import gpu_names, make_strategy
from model.network.flops import forward_flops, peak_of, training_flops
from model.network.memory import gpu_memory_bytes
from model.train.checkpoint import Checkpoints, Progress, Writer
from model.train.loop import Loop, Task
from model.train.options import TrainConfig
from model.train.progress import Report
from model.train.steps.calls import CALL_STEPS, Steps
from model.train.steps.state import TrainState, build_step_model, own_copies
from model.train.steps.step import (
    compiled,
    make_forward,
    make_forward_backward,
    policy_of,
    resolve_precision,
    step_seed,
)
from pipeline.reader.dataset import open_dataset
from schemas.machine import available_cores

_ROUNDS = 5
_MANY_STEPS = 1 << 40


def time_input(config: TrainConfig, seconds: float) -> Iterator[dict[str, Any]]:
    """Batches from the data set and nothing else: from memory, and streamed. A row each."""
    records = open_dataset(config.data).records(config.split)
    for mode in ("memory", "stream"):
        source = training_source(records, mode=mode, global_batch=config.global_batch, seed=config.seed)
        batches = iter(source.batches(0, _MANY_STEPS))
        per_step = median_seconds(partial(next, batches), lambda parts: parts[0][1].numpy(), seconds)
        yield _row(f"input, {mode}", per_step, config.global_batch, "uint8", None)


class Trainer:
    """The parts of one configuration's training."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.strategy = strategy = make_strategy(config.replicas)
        self.data = data = open_dataset(config.data)
        batch, memory = config.global_batch, gpu_memory_bytes(strategy.num_replicas_in_sync)
        records = data.records(config.split)
        mode = input_mode(records, mode=config.input, global_batch=batch, device_bytes=memory)
        self.source = training_source(records, mode=mode, global_batch=batch, seed=config.seed)
        self.precision = precision = resolve_precision(config.precision)
        self.model = build_step_model(config, data.card.image_size, len(data.classes), policy_of(precision))
        self.state = TrainState(self.model, strategy, config)
        self.parts = next(iter(self.source.batches(0, 1, len(strategy.extended.worker_devices))))
        self._last_seconds = 1.0  # a step, of the stage timed last

    def time(self, stages: list[str], seconds: float) -> Iterator[dict[str, Any]]:
        """A row for each stage."""
        replicas = self.strategy.num_replicas_in_sync
        peak = peak_of(gpu_names(), self.precision, replicas)
        timed = {"forward": self._forward, "forward_backward": self._backward, "step": self._step, "loop": self._loop}
        for stage in stages:
            self._last_seconds = per_step = timed[stage](seconds)
            row = _row(stage, per_step, self.config.global_batch, self.precision, self.config.xla, replicas)
            if peak is not None:
                flops = forward_flops(self.model) if stage == "forward" else training_flops(self.model)
                row["share_of_peak"] = row["images_per_second"] * flops / (peak * 1e12)
            yield row

    def _forward(self, seconds: float) -> float:
        forward = make_forward(self.model, self.state, self.config)
        return self._replica_seconds(lambda images, _: tf.reduce_sum(forward(images)), seconds)

    def _backward(self, seconds: float) -> float:
        config, state, replicas = self.config, self.state, self.strategy.num_replicas_in_sync
        run = compiled(make_forward_backward(self.model, config, replicas), config.xla)

        def backward(images: Any, labels: Any) -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = step_seed(config, tf.zeros([], tf.int64), replica, replicas)
            result = run(own_copies(state.weights), own_copies(state.statistics), images, labels, seed)
            # A value of each gradient: TensorFlow leaves out what nobody asks for.
            return result.loss + tf.add_n([tf.reshape(gradient, [-1])[0] for gradient in result.gradients])

        return self._replica_seconds(backward, seconds)

    def _replica_seconds(self, run: Callable[..., Any], seconds: float) -> float:
        """`run` on a part of the batch that already lies on each replica."""
        strategy = self.strategy
        dealt = [
            strategy.experimental_distribute_values_from_function(
                lambda context, place=place: self.parts[context.replica_id_in_sync_group][place]
            )
            for place in (0, 1)
        ]
        on_replicas = tf.function(lambda images, labels: strategy.run(run, args=(images, labels)))

        def wait(result: Any) -> None:
            for value in strategy.experimental_local_results(result):
                value.numpy()

        return median_seconds(lambda: on_replicas(*dealt), wait, seconds)

    def _step(self, seconds: float) -> float:
        """The step and its feed: a batch's way to the device, forward, backward, sum over the replicas, update."""
        steps = Steps(self.model, self.state, self.config, self.strategy, self.source, _MANY_STEPS)
        first, count = 0, 1

        def call() -> None:
            nonlocal first
            steps(first, count)
            first += count

        once = median_seconds(call, lambda _: None, 0.0)
        # As many as the loop makes in one call.
        count = max(1, min(CALL_STEPS, round(min(0.5, seconds / _ROUNDS) / once)))
        return median_seconds(call, lambda _: None, seconds, count)

    def _loop(self, seconds: float) -> float:
        """The trainer's own loop with input, log and progress: the median pace of the lines it logs."""
        every = max(1, round(seconds / _ROUNDS / self._last_seconds))
        total = every * (_ROUNDS + 1)
        config = replace(self.config, log_steps=every, steps=total, checkpoint_steps=_MANY_STEPS)
        with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as quiet:
            folder = Path(name)
            progress = Progress(config.seed)
            report = Report(folder, total, self.source.steps_per_epoch, out=quiet)
            writer = Writer()
            checkpoints = Checkpoints(folder, self.state, progress, config, writer)
            task = Task(config, self.data, None, folder, self.source, total)
            Loop(task, self.strategy, self.model, self.state, progress, checkpoints, writer, report).run()
            report.close()
            paces = [line["images_per_second"] for line in read_metrics(folder) if line["kind"] == "train"]
        return config.global_batch / statistics.median(paces[1:])


def _row(
    stage: str, per_step: float, batch: int, precision: str, xla: bool | None, replicas: int = 1
) -> dict[str, Any]:
    """A row of the benchmark, of the median seconds a step. `xla` is None where it makes no difference.

    share_of_peak, of all devices in use, 0 to 1, is None where their peak isn't known.
    """
    return {
        "stage": stage,
        "precision": precision,
        "xla": xla,
        "replicas": replicas,
        "global_batch": batch,
        "ms_per_step": 1e3 * per_step,
        "images_per_second": batch / per_step,
        "share_of_peak": None,
    }


def machine() -> dict[str, Any]:
    """The devices, without their host's name."""
    return {"gpus": gpu_names(), "cpu_cores": available_cores(), "tensorflow": tf.__version__}


def median_seconds(call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float, steps: int = 1) -> float:
    """Seconds a step of `call`, which makes `steps` of them; a device may run behind, `wait` catches up with it.

    The first calls, which compile, aren't counted. Where a call takes long, fewer than _ROUNDS have to do.
    """
    for _ in range(2):
        wait(call())
    began = time.perf_counter()
    wait(call())
    once = max(time.perf_counter() - began, 1e-6)
    calls = max(1, round(seconds / _ROUNDS / once))
    rounds: list[float] = []
    enough = time.perf_counter() + 2 * seconds
    while not rounds or (len(rounds) < _ROUNDS and time.perf_counter() < enough):
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        rounds.append((time.perf_counter() - began) / calls / steps)
    return statistics.median(rounds)
