"""A full disk, too little memory and a lost worker: one line, and a run that can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.network.cluster import WorkerLost
from model.train.checkpoint import Checkpoints, Progress, Writer, last_step
from model.train.failures import training_failures, writing
from model.train.options import TrainConfig
from model.train.progress import Report
from schemas.errors import UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), "--global_batch 4,096: out of m"),
        (tf.errors.InternalError(None, None, "Failed to allocate request for 3GiB"), "--global_batch 4,096: out of m"),
        (tf.errors.UnknownError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: x"), "choose a smaller one and name another"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory .Unable to allocate 9 GiB.; .*--input stream"),
    ],
)
def test_too_little_memory(error: Exception, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as found, training_failures(4096, 1):
        raise error
    assert found.value.exit_status == 2


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError(None, None, "Collective ops is aborted by: the tasks have crashed"),
        tf.errors.AbortedError(None, None, "aborted"),
        tf.errors.InternalError(None, None, "Connection reset by peer"),
        tf.errors.FailedPreconditionError(None, None, "Collective ops is aborted by: x"),
    ],
)
def test_a_lost_worker(tmp_path: Path, error: tf.errors.OpError) -> None:
    expected = r"another worker was lost .*run the same command on all of them again"
    with pytest.raises(WorkerLost, match=expected) as found, training_failures(16, 2), writing(tmp_path):
        raise error
    assert found.value.exit_status == 1
    with pytest.raises(tf.errors.OpError), training_failures(16, 1):
        raise error


def test_an_error_that_is_none_of_these_stays_what_it_is() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), training_failures(16, 2):
        raise tf.errors.InvalidArgumentError(None, None, "shapes differ")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Can't decrement id ref count (file write failed: error message = 'No space left on device')"),
        tf.errors.UnknownError(None, None, "x; No space left on device"),
    ],
)
def test_a_full_disk_whoever_says_so(error: Exception) -> None:
    expected = r"can't write here: .*free some space and run the same command again"
    with pytest.raises(UserError, match=expected), writing("here"):
        raise error


def test_a_disk_that_is_full_for_a_moment_costs_no_line_of_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report(tmp_path, 10, 5)
    report.train(1, loss=1.0, accuracy=0.5, learning_rate=0.1, images_per_second=1.0)
    monkeypatch.setattr(report, "_path", Path("/dev/full"))
    with pytest.raises(UserError, match="can't write /dev/full: No space left on device; free some space"):
        report.train(2, loss=1.0, accuracy=0.5, learning_rate=0.1, images_per_second=1.0)
    report.close()
    assert len((tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()) == 1


def test_of_models_equally_right_the_one_with_the_smaller_loss_is_kept() -> None:
    progress = Progress(0)
    figures = [(0.5, 1.0), (0.5, 1.0), (0.5, 1.1), (0.5, 0.9), (0.4, 0.1), (0.6, 2.0), (0.6, 1.9)]
    assert [progress.is_best(*one) for one in figures] == [True, False, False, True, False, True, True]


def checkpoints(folder: Path, progress: Progress, writer: Writer | None = None) -> Checkpoints:
    state: Any = tf.Module()
    return Checkpoints(folder, state, progress, TrainConfig("", ""), writer or Writer())


def save(folder: Path, progress: Progress, step: int) -> None:
    with Writer() as writer:
        checkpoints(folder, progress, writer).save(step)


def test_the_best_loss_comes_back_and_an_old_checkpoint_without_one_is_read(tmp_path: Path) -> None:
    progress = Progress(0)
    progress.is_best(0.5, 1.0)
    save(tmp_path / "new", progress, 3)
    assert (last_step(tmp_path / "new"), last_step(tmp_path / "none")) == (3, 0)
    again = Progress(0)
    assert checkpoints(tmp_path / "new", again).restore()
    assert (float(again.best_loss), float(again.best_accuracy), int(again.step)) == (1.0, 0.5, 3)

    del progress.best_loss
    progress.step.assign(4)
    older = tf.train.Checkpoint(state=tf.Module(), progress=progress)
    folder = str(tmp_path / "old" / "checkpoints")
    tf.train.CheckpointManager(older, folder, max_to_keep=1).save(checkpoint_number=4)
    names = [name for name, _ in tf.train.list_variables(folder)]
    assert not any("best_loss" in name for name in names)
    old = Progress(0)
    assert checkpoints(tmp_path / "old", old).restore()
    assert (float(old.best_loss), float(old.best_accuracy), int(old.step)) == (np.inf, 0.5, 4)
    assert old.is_best(0.5, 0.9)
    save(tmp_path / "old", old, 5)
    renewed = Progress(0)
    assert checkpoints(tmp_path / "old", renewed).restore()
    assert float(renewed.best_loss) == 0.9
