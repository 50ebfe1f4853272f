"""What a source of training batches is: batches are a pure function of (seed, epoch, step)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf


@dataclass(frozen=True)
class Share:
    """Which replicas of a run this process feeds."""

    replicas: int = 1
    """Of all processes."""
    local: range = range(1)
    """The numbers of those of this process."""

    @property
    def workers(self) -> int:
        return self.replicas // len(self.local)

    @property
    def worker(self) -> int:
        return self.local.start // len(self.local)


WHOLE = Share()


class TrainingSource(ABC):
    """A split to train on. Sample order depends on the seed and the epoch alone; the remainder is dropped."""

    mode: ClassVar[str]

    def __init__(self, records: int, batch: int, seed: int) -> None:
        self.records = records
        self.batch = batch
        """Of all replicas here together."""
        self.steps_per_epoch = records // batch
        self._seed = seed

    @abstractmethod
    def batches(self, first_step: int, last_step: int, replicas: int = 1) -> Any:
        """tf.data.Dataset with a tuple of a part for each replica here, from `first_step` up to `last_step`.

        Replica r of step k gets rows r * B / R … of batch k, however many replicas there are.
        """

    def close(self) -> None:  # noqa: B027
        """Ends what works for the batches; nobody takes any more of them."""

    @property
    def failure(self) -> Exception | None:
        """What TensorFlow's error was about, where it came of what isn't TensorFlow's."""
        return None


def in_this_order() -> Any:
    """tf.data.Options: nothing is dealt out, or comes in another order."""
    options = tf.data.Options()
    options.deterministic = True
    # The trainer shards by replica itself; tf.data's guess would deal the records out differently.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
