"""The order of records: a function of (seed, epoch), whoever asks, and exact where it goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reader.order import Order, shuffled
from schemas.errors import UserError


def reference(count: int, seed: int, epoch: int) -> list[int]:
    """SplitMix64 in Python's own integers."""

    def mixed(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    start = mixed((mixed(seed) + epoch) % 2**64)
    return sorted(range(count), key=lambda number: mixed((start + number * 0x9E3779B97F4A7C15) % 2**64))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_the_order_is_what_it_was_defined_as(count: int, seed: int, epoch: int) -> None:
    assert shuffled(count, seed, epoch).tolist() == reference(count, seed, epoch)


def test_the_order_stays_as_it_is() -> None:
    assert shuffled(10, 1, 0).tolist() == FIRST
    assert shuffled(10, 1, 1).tolist() != FIRST != shuffled(10, 2, 0).tolist()


FIRST = [9, 8, 7, 4, 2, 0, 3, 6, 5, 1]


def test_an_order_has_no_habits() -> None:
    """Of 2,000 epochs: how often each record comes first, and how often a record stands behind its neighbour."""
    epochs = np.stack([shuffled(20, 7, epoch) for epoch in range(2_000)])
    firsts = np.bincount(epochs[:, 0], minlength=20)
    assert abs(firsts - 100).max() < 50  # five standard deviations
    assert abs((np.diff(epochs, axis=1) == 1).sum(1).mean() - 0.95) < 0.12


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_ranks_share_every_batch_and_an_epoch_has_each_record_once(
    records: int, batch: int, ranks: int, shuffle: bool
) -> None:
    alone = Order(records, batch, seed=3, shuffle=shuffle)
    parts = [Order(records, batch, seed=3, shuffle=shuffle, rank=rank, ranks=ranks) for rank in range(ranks)]
    for number in range(2 * len(alone)):
        together = np.concatenate([part[number] for part in parts])
        np.testing.assert_array_equal(together, alone[number])
    assert sorted(np.concatenate(list(alone)).tolist()) == list(range(records))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 60), st.integers(1, 8))
def test_an_order_goes_on_where_another_stood(records: int, batch: int, stop: int, ranks: int) -> None:
    first = Order(records, batch, seed=5)
    first.number = stop
    resumed = Order(records, batch, seed=5, ranks=ranks)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = [len(part) for part in first]
    assert (resumed.number, resumed.epoch, len(rest)) == (stop, stop // len(first), len(first) - stop % len(first))
    assert sum(rest) == records - batch * (stop % len(first))


@pytest.mark.parametrize("other", [{"seed": 6}, {"shuffle": False}, {"digest": "other"}])
def test_the_state_of_other_records_is_refused(other: dict[str, object]) -> None:
    state = Order(40, 8, seed=5).state_dict()
    with pytest.raises(UserError, match=f"the order to go on with: expected {next(iter(other))}"):
        Order(40, 8, **{"seed": 5, **other}).load_state_dict(state)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected batch 9, found 8"):
        Order(40, 9, seed=5).load_state_dict(state)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"records": 0}, {"rank": 2, "ranks": 2}, {"seed": -1}])
def test_an_order_that_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="expected 1 or more of both"):
        Order(**{"records": 10, "batch": 2, **wrong})  # type: ignore[arg-type]
