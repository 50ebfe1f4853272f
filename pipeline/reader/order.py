"""In which order records are read: batch k is a function of (seed, k), whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from schemas.errors import UserError

_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [count]: the numbers below `count` in an order of (seed, epoch), the same on every machine for ever.

    They are sorted by SplitMix64 of their number: no library's random numbers, which may be others in its next release.
    """
    start = _mixed(_mixed(np.array([seed], np.uint64)) + np.array([epoch], np.uint64))
    return np.argsort(_mixed(start + np.arange(count, dtype=np.uint64) * _GOLDEN), kind="stable")


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: no two of the 2**64 numbers become the same."""
    values = values + _GOLDEN
    values = (values ^ values >> np.uint64(30)) * _FIRST
    values = (values ^ values >> np.uint64(27)) * _SECOND
    return values ^ values >> np.uint64(31)


class Order:
    """The batches of `records` records, epoch after epoch: `order[k]` has the positions in batch k, counted from 0.

    Each record once an epoch; the last batch of one holds what is left. Of `ranks` processes that train together each
    takes its part of every batch, so that all parts together are the same batch however many there are. To iterate is
    to go through the rest of the epoch that `number`, the next batch, lies in. Raises UserError.
    """

    def __init__(
        self,
        records: int,
        batch: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
        digest: str = "",
    ) -> None:
        if batch < 1 or records < 1 or not 0 <= rank < ranks or not 0 <= seed < 1 << 64:
            raise UserError(
                f"an order of {records:,} records in batches of {batch:,}, seed {seed}, rank {rank} of {ranks}: "
                "expected 1 or more of both, a seed of 0 or more, a rank below the number of ranks"
            )
        self._of = {"records": records, "batch": batch, "seed": seed, "shuffle": shuffle, "digest": digest}
        self._records, self._batch, self._seed, self._shuffle = records, batch, seed, shuffle
        self._rank, self._ranks = rank, ranks
        self._last: tuple[int, np.ndarray] | None = None
        self.number = 0
        """Of the next batch."""

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self._records // self._batch)

    @property
    def epoch(self) -> int:
        return self.number // len(self)

    def __getitem__(self, number: int) -> np.ndarray:
        epoch, in_epoch = divmod(number, len(self))
        if self._last is None or self._last[0] != epoch:
            all_records = shuffled(self._records, self._seed, epoch) if self._shuffle else np.arange(self._records)
            self._last = epoch, all_records
        whole = self._last[1][in_epoch * self._batch : (in_epoch + 1) * self._batch]
        begin, end = (len(whole) * rank // self._ranks for rank in (self._rank, self._rank + 1))
        return whole[begin:end]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(self.number, (self.epoch + 1) * len(self)))

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, for `load_state_dict`: JSON can hold it."""
        return {**self._of, "number": self.number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another order of the same records stood, with any number of ranks. Raises UserError."""
        for name, value in self._of.items():
            if state.get(name) != value:
                raise UserError(f"the order to go on with: expected {name} {value!r}, found {state.get(name)!r}")
        self.number = int(state["number"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}
