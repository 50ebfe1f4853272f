"""The metrics against plain loops over samples."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.answers import metrics

SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 9)), min_size=1, max_size=60)
"""(label, prediction, rank)"""


def test_softmax_doesnt_overflow_and_agrees_with_the_formula() -> None:
    logits = np.array([[1.0, 2.0, -3.0], [1000.0, 999.0, -1000.0]], np.float32)
    total = sum(math.exp(x) for x in (1, 2, -3))
    assert metrics.softmax(logits)[0] == pytest.approx([math.exp(x) / total for x in (1, 2, -3)])
    assert metrics.softmax(logits)[1] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0])


def test_best_keeps_the_smaller_label_first_among_equals() -> None:
    assert metrics.best(np.array([[0.1, 0.4, 0.1, 0.4]]), 3).tolist() == [[1, 3, 0]]
    assert metrics.best(np.array([[0.4, 0.6]]), 5).tolist() == [[1, 0]]


@given(SAMPLES)
def test_tally_counts_what_a_loop_counts(samples: list[tuple[int, int, int]]) -> None:
    keys, rank = np.array([s[0] for s in samples]), np.array([s[2] for s in samples])
    expected = []
    for key in sorted({s[0] for s in samples}):
        ranks = [s[2] for s in samples if s[0] == key]
        expected.append((key, len(ranks), sum(r == 1 for r in ranks), sum(r <= 5 for r in ranks)))
    found = metrics.tally(keys, rank)
    assert [(entry.key, entry.samples, entry.right, entry.in_top) for entry in found] == expected
    assert metrics.accuracy(rank) == pytest.approx(sum(entry.right for entry in found) / len(samples))
    assert metrics.accuracy(rank, 5) == pytest.approx(sum(entry.in_top for entry in found) / len(samples))


@given(SAMPLES)
def test_pairs_and_mistakes_count_what_a_loop_counts(samples: list[tuple[int, int, int]]) -> None:
    label, prediction = np.array([s[0] for s in samples]), np.array([s[1] for s in samples])
    wrong = Counter((a, b) for a, b, _ in samples if a != b)
    pairs = metrics.confused_pairs(label, prediction)
    assert {(p.first, p.second) for p in pairs} == {(min(pair), max(pair)) for pair in wrong}
    for pair in pairs:
        assert pair.first_as_second == wrong[pair.first, pair.second]
        assert pair.second_as_first == wrong[pair.second, pair.first]
    assert [p.times for p in pairs] == sorted((p.times for p in pairs), reverse=True)
    mistaken = metrics.mistaken_for(label, prediction)
    assert mistaken.keys() == {truth for truth, _ in wrong}
    for truth, (found, times) in mistaken.items():
        assert times == wrong[truth, found] == max(count for (a, _), count in wrong.items() if a == truth)


def test_worst_first_puts_the_larger_group_first_among_equals() -> None:
    entries = [
        metrics.Tally(0, 4, 2, 4),
        metrics.Tally(1, 8, 4, 8),
        metrics.Tally(2, 3, 0, 1),
        metrics.Tally(3, 2, 2, 2),
    ]
    assert [entry.key for entry in metrics.worst_first(entries)] == [2, 1, 0, 3]
