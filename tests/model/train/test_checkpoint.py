"""What is written beside the steps: from a copy, in order, and no failure is lost."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from model.train.checkpoint import Checkpoints, Progress, Writer
from model.train.options import TrainConfig
from model.train.profiling import TRACE, Profile


def nothing() -> None:
    pass


def test_steps_go_on_while_a_file_is_written() -> None:
    events: list[str] = []
    go = threading.Event()

    def write() -> None:
        assert go.wait(60)
        events.append("written")

    with Writer() as writer:
        writer.begin("model", nothing, write)
        writer.begin("checkpoint", nothing, lambda: events.append("checkpoint"))
        assert events == []
        go.set()
        writer.begin("model", lambda: events.append("copied again"), nothing)
        assert events.index("written") < events.index("copied again")
    assert sorted(events) == ["checkpoint", "copied again", "written"]
    assert events.index("written") < events.index("checkpoint")


def fail() -> None:
    raise OSError("no room")


def test_a_failure_is_raised_at_the_next_file_or_at_the_end() -> None:
    writer = Writer()
    writer.begin("model", nothing, fail)
    with pytest.raises(OSError, match="no room"):
        writer.begin("model", nothing, nothing)
    with pytest.raises(OSError, match="no room"), writer:
        writer.begin("checkpoint", nothing, fail)


def test_the_failure_of_the_steps_hides_that_of_a_file() -> None:
    def diverge(writer: Writer) -> None:
        with writer:
            writer.begin("checkpoint", nothing, fail)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        diverge(Writer())


def test_a_checkpoint_holds_what_was_when_it_was_begun(tmp_path: Path) -> None:
    state = tf.Module()
    state.weights = [tf.Variable([1.0, 2.0])]
    progress, writer = Progress(0), Writer()
    checkpoints = Checkpoints(tmp_path, state, progress, TrainConfig("", ""), writer)  # type: ignore[arg-type]
    for step in (3, 4):
        go = threading.Event()
        writer.begin("before", nothing, go.wait)
        checkpoints.save(step)
        state.weights[0].assign([step, 0.0])
        progress.evaluated_step.assign(step)
        go.set()
        writer.wait()
    assert checkpoints.restore()
    assert state.weights[0].numpy().tolist() == [3.0, 0.0]
    assert (int(progress.step.numpy()), int(progress.evaluated_step.numpy())) == (4, 3)


def test_a_trace_of_some_steps(tmp_path: Path) -> None:
    profile = Profile(tmp_path, 3)
    product = tf.function(lambda: tf.linalg.matmul(tf.ones([9, 9]), tf.ones([9, 9])))
    profile.begin()
    product()
    assert profile.made(2) is None
    product()
    folder = profile.made(1)
    assert folder is not None
    assert list(folder.glob("*.xplane.pb"))
    with gzip.open(folder / TRACE, "rt") as file:
        events = json.load(file)["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert spans
    assert all(event["dur"] >= 0 and event["ts"] > 0 for event in spans)
    profile.begin()
    assert profile.made(9) is None
