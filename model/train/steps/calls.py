"""Many steps in one call, on batches that the host sends or on a split that lies on the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model.data.batches import HeldSource
from model.data.source import TrainingSource
from model.network.devices import own_part, place_of, replica_number
from model.train.options import TrainConfig
from model.train.steps.state import TrainState, own_variables
from model.train.steps.step import FIGURES, compiled, make_replica_step, resolve_xla, step_seed

CALL_STEPS = 64  # at most, where the split lies on the devices: whatever a call's number, it is compiled once
_HOST = "CPU:0"
_NOT_COMPILED = (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError, tf.errors.InternalError)


class Steps:
    """Runs the steps of a source, call after call, and leaves their result in `state`.

    On several GPUs the first call tries whether XLA compiles the sum over them, and `say`s so if it doesn't.
    """

    def __init__(
        self,
        model: keras.Model,
        state: TrainState,
        config: TrainConfig,
        strategy: Any,
        source: TrainingSource | None,
        total_steps: int,
        say: Callable[[str], None] = print,
    ) -> None:
        self._model, self._state, self._config, self._strategy = model, state, config, strategy
        self._source: Any = source
        self._total, self._say = total_steps, say
        self._replicas = strategy.num_replicas_in_sync
        self._devices = strategy.extended.worker_devices
        self._untried = _one_gpu_each(strategy) and resolve_xla(config.xla)
        self._iterator: Any = None
        self._next: Any = None
        self._held: Any = None
        if isinstance(source, HeldSource):
            self._held = tuple(source.on(device) for device in self._devices)
        self._compile(together=self._untried or self._replicas == 1)

    def restart(self, source: TrainingSource) -> None:
        """The next call begins with batches of another source, of the same kind and shape."""
        self._source, self._iterator = source, None

    def __call__(self, first_step: int, count: int) -> np.ndarray:
        """FIGURES of each step, float32 [count, 3]."""
        if self._iterator is None:
            self._begin(first_step)
        numbers = tf.constant(first_step, tf.int64), tf.constant(count, tf.int64)
        try:
            figures = self._run(*numbers)
        except _NOT_COMPILED as error:
            if not self._untried:
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
            reason = next((line for line in lines if "mplemented" in line), lines[0])
            self._say(f"XLA doesn't compile the sum over the GPUs ({reason[:200]}): it is made between two clusters")
            self._compile(together=False)
            self._begin(first_step)
            figures = self._run(*numbers)
        self._untried = False
        return figures.numpy()[:count]

    def _compile(self, *, together: bool) -> None:
        xla = self._config.xla
        self._one_step = make_replica_step(self._model, self._config, self._replicas, self._total, together=together)
        self._in_cluster = together and self._held is not None
        if self._in_cluster:
            self._cluster = compiled(self._loop, xla)
            self._calls = tf.function(self._held_call)
        else:
            self._one_step = compiled(self._one_step, xla) if together else self._one_step
            self._calls = tf.function(self._call, reduce_retracing=True)

    def _begin(self, first_step: int) -> None:
        # The replicas share one iterator and take their parts: tf.distribute's iterators can hang when they go, and ask
        # the workers before every step whether there is another one.
        wanted = first_step, self._total, len(self._devices)
        parts = self._source.batches(*wanted) if self._held is None else self._source.rows(*wanted)
        if not self._in_cluster:  # a step sends what the next one needs: something has to come after the last
            nothing = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), parts.element_spec)
            parts = parts.concatenate(tf.data.Dataset.from_tensors(nothing))
        self._iterator = iter(parts)
        self._next = None if self._in_cluster else self._sent(next(self._iterator))

    def _run(self, first_step: Any, count: Any) -> Any:
        if self._in_cluster:
            return self._calls(self._iterator, first_step, count)
        figures, self._next = self._calls(self._iterator, self._next, first_step, count)
        return figures

    def _call(self, iterator: Any, parts: Any, first_step: Any, count: Any) -> tuple[Any, Any]:
        """A step at a time; while it runs, the next one's batch is on its way, or its row numbers."""

        def step(parts: Any, numbers: Any, index: Any) -> Any:
            seed = step_seed(self._config, numbers[index], replica_number(), self._replicas)
            batch = self._batch(self._held and own_part(self._held), own_part(parts))
            return self._one_step(own_variables(self._state), *batch, numbers[index], seed)

        numbers = self._strategy.run(lambda: first_step + tf.range(count))  # on every replica's device
        with tf.device(_HOST):
            count = tf.cast(count, tf.int32)
            figures = tf.TensorArray(tf.float32, size=count, element_shape=[len(FIGURES)])
            for index in tf.range(count):
                with tf.device(None):
                    following = self._sent(next(iterator))
                    found = self._strategy.run(step, args=(parts, numbers, index))
                figures = figures.write(index, self._strategy.experimental_local_results(found)[0])
                parts = following
            return figures.stack(), parts

    def _held_call(self, iterator: Any, first_step: Any, count: Any) -> Any:
        """One cluster a replica: all that the host sends are the row numbers, int64 [CALL_STEPS, B]."""
        with tf.device(_HOST):
            rows = tf.TensorArray(
                tf.int64, CALL_STEPS, element_shape=[len(self._devices), self._source.batch // len(self._devices)]
            )
            for index in tf.range(tf.cast(count, tf.int32)):
                rows = rows.write(index, tf.stack(next(iterator)))
            rows = tf.unstack(rows.stack(), axis=1)

        def steps(rows: Any) -> Any:
            replica = tf.constant(replica_number(), tf.int64)
            held, variables = own_part(self._held), own_variables(self._state)
            return self._cluster(variables, held, own_part(rows), first_step, count, replica)

        found = self._strategy.run(steps, args=(rows,))
        return self._strategy.experimental_local_results(found)[0]

    def _loop(self, variables: Any, held: Any, rows: Any, first_step: Any, count: Any, replica: Any) -> Any:
        def body(index: Any, figures: Any) -> tuple[Any, Any]:
            step = first_step + index
            seed = step_seed(self._config, step, replica, self._replicas)
            found = self._one_step(variables, *self._batch(held, rows[index]), step, seed)
            return index + 1, tf.tensor_scatter_nd_update(figures, [[index]], found[None])

        start = tf.constant(0, tf.int64), tf.zeros([CALL_STEPS, len(FIGURES)])
        return tf.while_loop(lambda index, _: index < count, body, start, parallel_iterations=1)[1]

    def _batch(self, held: Any, part: Any) -> Any:
        """Images and labels, of a part as the source gives it."""
        return part if held is None else tuple(tf.gather(column, part) for column in held)

    def _sent(self, parts: Any) -> Any:
        """Each part on its replica's device. int64: TensorFlow keeps a GPU's int32 in host memory."""
        with tf.device(_HOST):
            parts = tf.nest.map_structure(
                lambda value: tf.cast(value, tf.int64) if value.dtype == tf.int32 else value, parts
            )
        moved = []
        for part, device in zip(parts, self._devices, strict=True):
            with tf.device(device):
                moved.append(tf.nest.map_structure(tf.identity, part))
        return tuple(moved)


def _one_gpu_each(strategy: Any) -> bool:
    """Whether the replicas, several of them, are all of this process, each on a GPU of its own."""
    devices, gpus = strategy.extended.worker_devices, tf.config.list_physical_devices("GPU")
    alone = place_of(strategy).workers == 1 and strategy.num_replicas_in_sync > 1
    return alone and len(devices) <= len(gpus) and all("GPU" in device for device in devices)
