"""How far a model's probabilities can be trusted: a temperature for its logits, and from where an answer is given.

A network trained with label smoothing is right more often than it says, one without it less often. Dividing its logits
by a temperature, fitted on samples it wasn't trained on, mends that and changes no answer (Guo et al., 2017).
Pure functions on logits, probabilities and labels; no TensorFlow.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.answers.metrics import softmax
from schemas.errors import UserError
from schemas.machine import replace_text

CALIBRATION = "calibration.json"
KEPT_SHARE = 0.98
"""The default threshold refuses at most one right answer in fifty, of other writers too."""
CERTAINTY = 0.95
_NORMAL_QUANTILE = 1.645  # of CERTAINTY
BINS = 15
FITTED_SAMPLES = 10_000
"""Enough for one number; the logits of a whole split might not fit in memory."""

_LOWEST, _HIGHEST = 0.05, 20.0  # of a temperature
_NEAR = 1.02  # times a bound
_STEPS = 40  # of the golden section: 20 / 0.05 shrinks to a millionth


@dataclass(frozen=True)
class Calibration:
    """What calibration.json holds."""

    temperature: float
    """What the logits are divided by."""
    threshold: float
    """The probability below which an answer is better not given."""
    split: str
    samples: int
    """Of that split, it was fitted on."""
    kept: float = 1.0
    """The share of the right answers among these that the threshold lets through."""
    doubts: str = ""
    """Why the two are worth little, in words; empty where nothing speaks against them."""

    def __post_init__(self) -> None:
        if not _LOWEST / 2 < self.temperature < 2 * _HIGHEST:
            raise ValueError(f"temperature: expected {_LOWEST} to {_HIGHEST}, found {self.temperature}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected 0 to 1, found {self.threshold}")
        if not 0 <= self.kept <= 1 or not isinstance(self.doubts, str):
            raise ValueError(f"kept and doubts: expected a share and a text, found {self.kept!r} and {self.doubts!r}")

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"temperature {self.temperature:.3f}, threshold {self.threshold:.3f}, which keeps {self.kept:.2%} of the "
            f"right answers of {self.split}" + (f"; {self.doubts}" if self.doubts else "")
        )


UNCALIBRATED = Calibration(temperature=1.0, threshold=0.0, split="", samples=0)


def fit(logits: np.ndarray, labels: np.ndarray, writers: np.ndarray, split: str) -> Calibration:
    """Temperature and threshold from float [n, classes], int [n] and str [n]."""
    temperature = fit_temperature(logits, labels)
    likely = softmax(logits / temperature)
    probability, right = likely.max(axis=1), likely.argmax(axis=1) == labels
    threshold = threshold_keeping(KEPT_SHARE, probability, right, writers)
    kept, _, _ = refusals(threshold, probability, right)
    doubts = []
    if not _LOWEST * _NEAR < temperature < _HIGHEST / _NEAR:
        doubts.append(f"the temperature ran into its bound of {_LOWEST if temperature < 1 else _HIGHEST:g}")
    if not tolerable(rights := int(np.count_nonzero(right)), 1 - KEPT_SHARE):
        least = next(n for n in range(1, 1_000) if tolerable(n, 1 - KEPT_SHARE))
        doubts.append(
            f"{rights:,} right answers among {len(labels):,} samples are too few for a threshold, which takes {least}"
        )
    return Calibration(round(temperature, 4), threshold, split, len(labels), round(kept, 4), "; ".join(doubts))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least mean cross entropy. It is convex in 1 / T, so a golden section finds it.

    One more sample than there are counts, read wrongly, as what was second: where all are right, nothing else would
    keep the temperature from 0, and every answer from being certain (Platt, 1999, does the same).
    """
    if logits.shape[1] == 1:
        return 1.0
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    truth = shifted[rows, labels]
    shifted[rows, labels] = -np.inf
    other = shifted.max(axis=1)
    shifted[rows, labels] = truth
    # The mean of what all would cost if their truth were the likeliest other answer stands for the one.
    answers = truth + other / len(labels)
    weight = 1 + 1 / len(labels)

    def loss(inverse: float) -> float:
        return float(np.mean(weight * np.log(np.exp(shifted * inverse).sum(axis=1)) - answers * inverse))

    shrink = (5**0.5 - 1) / 2
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - shrink * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + shrink * (high - low)
            at_right = loss(right)
    return 2 / (low + high)


def expected_calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """The mean distance of accuracy from probability over BINS bins of equal width, each weighted by its samples."""
    place = np.clip(np.ceil(probability * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(place, weights=probability.astype(np.float64) - right)
    return float(np.abs(gaps).sum() / len(probability))


def threshold_keeping(share: float, probability: np.ndarray, right: np.ndarray, writers: np.ndarray) -> float:
    """The highest threshold, in thousandths, that keeps `share` of the right answers of other writers, too; or 0.

    What keeps `share` of these keeps less of every second other set. So fewer are refused here: as few as leave 95 %
    certainty of samples drawn by lot, and of writers drawn by lot, whose samples are alike.
    """
    order = np.argsort(probability[right], kind="stable")
    _, writer = np.unique(writers[right], return_inverse=True)
    of_writer = np.bincount(writer)
    for count in range(tolerable(len(order), 1 - share), 0, -1):
        refused = np.bincount(writer[order[:count]], minlength=len(of_writer))
        rate = count / len(order)
        # The standard error of a ratio of sums over the writers.
        spread = float(np.sum((refused - rate * of_writer) ** 2)) * len(of_writer) / max(1, len(of_writer) - 1)
        if rate + _NORMAL_QUANTILE * math.sqrt(spread) / len(order) <= 1 - share or len(of_writer) == 1:
            return float(np.floor(float(probability[right][order[count - 1]]) * 1000) / 1000)
    return 0.0


def tolerable(samples: int, rate: float) -> int:
    """The largest k of which `samples` drawn by lot are CERTAINTY sure that the k-th smallest is below their source's
    quantile of `rate`: k or more of them are in that tail with this probability. 0 if they are too few.
    """
    k, chance, below = 0, (1 - rate) ** samples, (1 - rate) ** samples
    while below <= 1 - CERTAINTY and k < samples:  # fewer than k + 1 in the tail
        k += 1
        chance *= (samples - k + 1) / k * rate / (1 - rate)
        below += chance
    return k


def refusals(threshold: float, probability: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """The share of right answers that are given, of wrong ones that aren't, and of right ones among those given.

    1 is the share of none.
    """
    given = probability >= threshold
    return _share(given[right]), _share(~given[~right]), _share(right[given])


def in_words(calibration: Calibration, probability: np.ndarray, raw_probability: np.ndarray, right: np.ndarray) -> str:
    """The expected calibration error before and after, and where the temperature is from, in one line."""
    before = expected_calibration_error(raw_probability, right)
    if not calibration.samples:
        return f"Expected calibration error {before:.2%}; the run isn't calibrated (model.evaluate --calibrate)"
    after = expected_calibration_error(probability, right)
    source = f"temperature {calibration.temperature:.3f}, from {calibration.samples:,} samples of {calibration.split}"
    doubts = f"; {calibration.doubts}" if calibration.doubts else ""
    return f"Expected calibration error {before:.2%}, with the temperature {after:.2%}  ({source}{doubts})"


def table_of(calibration: Calibration, probability: np.ndarray, right: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: what round thresholds, and the run's own, do to the answers of a split."""
    columns = ["threshold", "right answers kept", "wrong ones refused", "right among those given"]
    own = calibration.threshold
    rows = [
        [
            f"{threshold:.3f}" + (" (this run's)" if threshold == own else ""),
            *(f"{share:.2%}" for share in refusals(threshold, probability, right)),
        ]
        for threshold in sorted({0.3, 0.5, 0.7, 0.9, 0.95, 0.99, own})
    ]
    return columns, rows


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Raises OSError."""
    replace_text(folder / CALIBRATION, json.dumps(asdict(calibration), ensure_ascii=False, indent=1) + "\n")


def read_calibration(folder: Path) -> Calibration:
    """What a run's folder says, UNCALIBRATED if it says nothing. Raises UserError."""
    path = folder / CALIBRATION
    try:
        return Calibration(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return UNCALIBRATED
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected a temperature and a threshold, found {error}; delete it, or make it again with "
            "python -m model.evaluate --calibrate"
        ) from error


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 1.0
