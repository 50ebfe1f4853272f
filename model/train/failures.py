"""What TensorFlow reports of a full disk, of too little memory and of a lost worker, each in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from model.answers.scoring import is_out_of_memory
from model.network.cluster import WorkerLost
from schemas.errors import UserError, explained

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
_LOST_WORDS = ("collective", "heartbeat", "coordination", "connection reset", "/job:worker/replica:0/task")
_FULL_DISK_WORDS = ("no space left", "quota exceeded")


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """The errors of a full or closed disk in one line, TensorFlow's and HDF5's among them."""
    with explained(f"write {what}"):
        try:
            yield
        except tf.errors.OpError as error:
            if is_lost(error):
                raise
            raise _of_disk(error.message) from error
        except (RuntimeError, ValueError) as error:
            if not any(word in str(error).lower() for word in _FULL_DISK_WORDS):
                raise
            raise _of_disk(str(error)) from error


def _of_disk(message: str) -> OSError:
    reason = (message.splitlines() or ["no reason given"])[0]
    full = any(word in message.lower() for word in _FULL_DISK_WORDS)
    return OSError(errno.ENOSPC if full else errno.EACCES, reason)


@contextmanager
def training_failures(global_batch: int, workers: int) -> Iterator[None]:
    """Raises UserError for too little memory, WorkerLost for a worker that has gone."""
    try:
        yield
    except MemoryError as error:
        raise UserError(
            f"out of memory ({error}); free some, or choose --input stream or a smaller --global_batch and name "
            "another --model_dir"
        ) from error
    except tf.errors.OpError as error:
        if is_out_of_memory(error):
            raise UserError(
                f"--global_batch {global_batch:,}: out of memory; choose a smaller one and name another --model_dir, "
                "or use more or larger devices"
            ) from error
        if workers > 1 and is_lost(error):
            told = next((line for line in error.message.splitlines() if _has(line, _LOST_WORDS)), type(error).__name__)
            raise WorkerLost(
                f"another worker was lost ({told[:200]}); run the same command on all of them again, it goes on from "
                "the last checkpoint"
            ) from error
        raise


def is_lost(error: tf.errors.OpError) -> bool:
    """Whether an error, in a run of several workers, means that one of them has gone."""
    return isinstance(error, _LOST) or _has(error.message, _LOST_WORDS)


def _has(message: str, words: tuple[str, ...]) -> bool:
    return any(word in message.lower() for word in words)
