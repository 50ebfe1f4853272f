"""What a call's graph holds: counted, not timed. And the three ways of a batch to a step end in the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from places import ROOT

from model.data.batches import HeldSource, MemorySource
from model.data.examples import aligned_empty
from model.data.source import TrainingSource
from model.network.devices import make_strategy
from model.train.options import TrainConfig
from model.train.steps import calls
from model.train.steps.calls import CALL_STEPS, Steps
from model.train.steps.state import STATE_FIELDS, TrainState, build_step_model, first_copy

SIZE, CLASSES, BATCH, RECORDS = 16, 10, 16, 200
CONFIG = TrainConfig("", "", arch="vgg11", width=1 / 16, global_batch=BATCH, augment="light", dropout=0.2, xla=False)


def source_of(kind: type[MemorySource]) -> MemorySource:
    random = np.random.default_rng(0)
    images = aligned_empty((RECORDS, SIZE, SIZE, 1))
    images[:] = random.integers(0, 256, images.shape, np.uint8)
    return kind(images, random.integers(0, CLASSES, RECORDS, np.int32), BATCH, 3)


class Trained:
    def __init__(self, source: TrainingSource, config: TrainConfig = CONFIG, strategy: Any = None) -> None:
        strategy = strategy or make_strategy(1)
        model = build_step_model(config, SIZE, CLASSES, "float32")
        self.said: list[str] = []
        self.state = TrainState(model, strategy, config)
        self.steps = Steps(model, self.state, config, strategy, source, 1000, self.said.append)

    def values(self) -> list[np.ndarray]:
        return [first_copy(variable) for name in STATE_FIELDS for variable in getattr(self.state, name)]


class Listed(TrainingSource):
    """The batches of a memory source, as a stream would hand them over."""

    mode = "stream"

    def batches(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        return source_of(MemorySource).batches(first_step, last_step, replicas)


def test_device_memory_and_stream_mode_make_the_same_weights() -> None:
    """The arithmetic is the same, so all bits are; and a run that goes on from a step sees what it would have seen."""
    of_modes = [
        Trained(source_of(HeldSource)),
        Trained(source_of(MemorySource)),
        Trained(Listed(RECORDS, BATCH, 3)),
    ]
    figures = [np.concatenate([one.steps(0, 5), one.steps(5, 1), one.steps(6, 24)]) for one in of_modes]
    for one, found in zip(of_modes[1:], figures[1:], strict=True):
        np.testing.assert_array_equal(figures[0], found)
        for a, b in zip(of_modes[0].values(), one.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    stopped, resumed = Trained(source_of(HeldSource)), Trained(source_of(HeldSource))
    stopped.steps(0, 17)
    for name in STATE_FIELDS:
        for variable, value in zip(getattr(resumed.state, name), getattr(stopped.state, name), strict=True):
            variable.assign(value)
    np.testing.assert_array_equal(resumed.steps(17, 13), figures[0][17:])


@pytest.mark.slow
def test_in_one_cluster_they_are_the_same_but_for_rounding() -> None:
    """XLA fuses a loop's body otherwise than a step by itself, and adds up in another order."""
    config = replace(CONFIG, xla=True)
    held, streamed = Trained(source_of(HeldSource), config), Trained(source_of(MemorySource), config)
    np.testing.assert_allclose(held.steps(0, 6), streamed.steps(0, 6), rtol=2e-4)
    np.testing.assert_allclose(held.steps(6, 2), streamed.steps(6, 2), rtol=2e-3)


def graph_of(steps: Steps) -> tf.Graph:
    steps._begin(0)
    numbers = tf.constant(0, tf.int64), tf.constant(4, tf.int64)
    given = (steps._iterator,) if steps._next is None else (steps._iterator, steps._next)
    return steps._calls.get_concrete_function(*given, *numbers).graph


def outside(graph: tf.Graph, *, compiled: bool = False) -> list[tf.Operation]:
    """The operations of a graph and of its functions, but for those that XLA compiles."""
    found, functions = [], [graph]
    names = set()
    while functions:
        one = functions.pop()
        for operation in one.get_operations():
            found.append(operation)
            for name in operation.node_def.attr:
                called = operation.node_def.attr[name].func.name
                if called and called not in names:
                    names.add(called)
                    inner = graph._get_function(called) or one._get_function(called)
                    if inner is not None and (compiled or not inner.definition.attr["_XlaMustCompile"].b):
                        functions.append(inner.graph)
    return found


def test_all_that_a_step_in_device_mode_gets_from_the_host_are_row_numbers() -> None:
    trained = Trained(source_of(HeldSource), replace(CONFIG, xla=True))
    operations = outside(graph_of(trained.steps))
    (given,) = [operation for operation in operations if operation.type == "IteratorGetNext"]
    assert [(value.shape, value.dtype) for value in given.outputs] == [((BATCH,), tf.int64)]
    (cluster,) = [one for one in operations if one.type == "StatefulPartitionedCall" and len(one.inputs) > 9]
    sent = [value for value in cluster.inputs if value.dtype != tf.resource]
    lie_there = [value for value in sent if value.op.type == "Placeholder" and value.shape.rank]
    assert [tuple(value.shape) for value in lie_there] == [(RECORDS, SIZE, SIZE, 1), (RECORDS,)]
    others = [(tuple(value.shape), value.dtype) for value in sent if not any(value is one for one in lie_there)]
    assert others == [((CALL_STEPS, BATCH), tf.int64)] + [((), tf.int64)] * 3


@pytest.mark.slow
def test_one_sum_a_step_and_few_nodes_outside_the_clusters() -> None:
    """Eight logical processors need a process of their own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests" / "helpers", Path(__file__).parent])),
        "CUDA_VISIBLE_DEVICES": "",
    }
    code = "import test_calls; test_calls.count_and_compare()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sums"] == {"1": 0, "2": 1, "4": 1, "8": 1}
    assert found["nodes"]["8"] <= 600
    assert found["modes_differ_by"] < 1e-5
    assert found["inside"] > 0
    (said,) = found["said"]
    assert said.startswith("XLA doesn't compile the sum over the GPUs (")
    assert said.endswith("): it is made between two clusters")


def count_and_compare() -> None:
    from tensorflow.python.distribute import mirrored_strategy

    from model.network.devices import setup_tensorflow

    setup_tensorflow()
    eight = make_strategy(8)
    config = replace(CONFIG, xla=True)
    sums, nodes = {}, {}
    strategies = {1: tf.distribute.OneDeviceStrategy("CPU:0"), 8: eight}
    strategies |= {
        count: tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)]) for count in (2, 4)
    }
    for count, strategy in sorted(strategies.items()):
        operations = outside(graph_of(Trained(source_of(MemorySource), config, strategy).steps))
        kinds = [operation.type for operation in operations if operation.type not in ("Placeholder", "Const")]
        nodes[count] = len(kinds)
        sums[count] = sum(kind.startswith("CollectiveReduce") for kind in kinds) / count
    # On processors that are taken for GPUs the sum is traced into the cluster; XLA has none for them, and says so.
    real, mirrored_strategy._is_gpu_device = mirrored_strategy._is_gpu_device, lambda _: True
    calls._one_gpu_each = lambda _: True
    print(json.dumps({"sums": sums, "nodes": nodes}), flush=True)
    small = replace(config, augment="none", outliers=0.0, dropout=0.0, batch_norm=False)
    tried = Trained(source_of(HeldSource), small, strategies[2])
    inside = sum(
        operation.type.startswith("CollectiveReduce") for operation in outside(graph_of(tried.steps), compiled=True)
    )
    figures = tried.steps(0, 3)
    mirrored_strategy._is_gpu_device, calls._one_gpu_each = real, lambda _: False
    difference = abs(
        figures - Trained(source_of(MemorySource), replace(small, xla=False), strategies[1]).steps(0, 3)
    ).max()
    found = {"sums": sums, "nodes": nodes, "inside": inside, "said": tried.said, "modes_differ_by": float(difference)}
    print(json.dumps(found))


if __name__ == "__main__":
    count_and_compare()
