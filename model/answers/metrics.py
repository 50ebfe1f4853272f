"""How well samples were read: pure functions on labels, predictions and ranks.

The rank of the truth is 1 where the prediction is right, 2 where the truth came second, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TOP = 5


@dataclass(frozen=True)
class Tally:
    """The samples of one character, or of one writer."""

    key: Any
    """The character, or its label; the writer."""
    samples: int
    right: int
    in_top: int
    """The truth is among the first TOP."""
    read_as: str = ""
    """What a character was read as most often, and how often; empty if it was never misread."""

    @property
    def wrong(self) -> int:
        return self.samples - self.right

    @property
    def accuracy(self) -> float:
        return self.right / self.samples

    @property
    def top_accuracy(self) -> float:
        return self.in_top / self.samples


@dataclass(frozen=True)
class Pair:
    """Two characters that were taken for each other; `first` is the smaller label."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int

    @property
    def times(self) -> int:
        return self.first_as_second + self.second_as_first


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n, classes], rows that add up to 1."""
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def best(probabilities: np.ndarray, count: int) -> np.ndarray:
    """int64 [n, count]: the labels of the highest probabilities, highest first; of equal ones the smaller label."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :count]


def accuracy(rank: np.ndarray, top: int = 1) -> float:
    """The share of samples whose truth is among the first `top`."""
    return float(np.count_nonzero(rank <= top) / len(rank))


def tally(keys: np.ndarray, rank: np.ndarray) -> list[Tally]:
    """One entry for each distinct key of int or str [n], ascending."""
    distinct, index = np.unique(keys, return_inverse=True)
    samples = np.bincount(index)
    right = np.bincount(index, weights=rank == 1)
    in_top = np.bincount(index, weights=rank <= TOP)
    columns = zip(distinct.tolist(), samples, right, in_top, strict=True)
    return [Tally(key, int(n), int(r), int(t)) for key, n, r, t in columns]


def worst_first(tallies: list[Tally]) -> list[Tally]:
    """The lowest accuracy first; of equal ones that with more samples, then in their order."""
    return sorted(tallies, key=lambda entry: (entry.accuracy, -entry.samples))


def worst_characters(
    names: Sequence[str], labels: np.ndarray, predictions: np.ndarray, rank: np.ndarray
) -> list[Tally]:
    """One entry for each character that has samples, the worst first; `names` are the characters in label order."""
    mistaken = mistaken_for(labels, predictions)
    read_as = {label: f"{names[other]} × {times:,}" for label, (other, times) in mistaken.items()}
    return [
        replace(entry, key=names[entry.key], read_as=read_as.get(entry.key, ""))
        for entry in worst_first(tally(labels, rank))
    ]


def confused_pairs(labels: np.ndarray, predictions: np.ndarray) -> list[Pair]:
    """Every two characters of which one was read as the other, the most frequent first."""
    wrong = labels != predictions
    truth, found = labels[wrong].astype(np.int64), predictions[wrong].astype(np.int64)
    ordered = np.stack([np.minimum(truth, found), np.maximum(truth, found)], axis=1)
    distinct, index = np.unique(ordered, axis=0, return_inverse=True)
    index = index.reshape(-1)
    forward = np.bincount(index, weights=truth < found, minlength=len(distinct))
    both = np.bincount(index, minlength=len(distinct))
    pairs = [
        Pair(int(first), int(second), int(there), int(total - there))
        for (first, second), there, total in zip(distinct, forward, both, strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.times, pair.first, pair.second))


def mistaken_for(labels: np.ndarray, predictions: np.ndarray) -> dict[int, tuple[int, int]]:
    """For each label that was misread, what it was read as most often, and how often."""
    wrong = labels != predictions
    pairs = np.stack([labels[wrong], predictions[wrong]], axis=1).astype(np.int64)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    most: dict[int, tuple[int, int]] = {}
    for (truth, found), count in zip(distinct.tolist(), counts.tolist(), strict=True):
        if count > most.get(truth, (0, 0))[1]:
            most[truth] = (found, count)
    return most
