"""Calibration, held to plain loops, to a grid of temperatures and to labels drawn with known probabilities."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.answers import calibration
from model.answers.calibration import Calibration
from schemas.errors import UserError


def drawn(temperature: float, samples: int = 6_000, classes: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities that these logits give at `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (samples, classes))
    chances = np.exp(logits / temperature)
    chances /= chances.sum(axis=1, keepdims=True)
    labels = (rng.random((samples, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits.astype(np.float32), np.minimum(labels, classes - 1)


def writers_of(samples: np.ndarray, writers: int) -> np.ndarray:
    return (np.arange(len(samples)) % writers).astype(str)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = calibration.fit(logits, labels, writers_of(labels, 20), "validation")
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert (found.split, found.samples, found.doubts) == ("validation", len(labels), "")
    assert 0.98 <= found.kept < 1
    assert found.summary.startswith(
        f"temperature {found.temperature:.3f}, threshold {found.threshold:.3f}, which keeps"
    )


def test_no_temperature_of_a_grid_is_better() -> None:
    logits, labels = drawn(1.7, samples=500)

    def loss(temperature: float) -> float:
        total = 0.0
        for row, label in zip(logits.astype(float).tolist(), labels.tolist(), strict=True):
            scaled = [value / temperature for value in row]
            total += math.log(sum(math.exp(value) for value in scaled)) - scaled[label]
        return total

    found = calibration.fit_temperature(logits, labels)
    assert loss(found) <= min(loss(found * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2)) + 1e-9


def test_a_handful_of_samples_is_doubted() -> None:
    logits = np.eye(5, dtype=np.float32)[[0, 1, 2]] * 30
    sure = calibration.fit(logits, np.array([0, 1, 2]), np.array(["a", "b", "b"]), "validation")
    # Three right answers of three are no certainty, and no ground for refusing one.
    assert (sure.threshold, sure.kept) == (0, 1)
    assert sure.doubts == "3 right answers among 3 samples are too few for a threshold, which takes 149"
    wrong = calibration.fit(logits, np.array([1, 2, 3]), np.array(["a", "b", "b"]), "validation")
    assert wrong.temperature > 1
    assert wrong.threshold == 0
    assert "0 right answers among 3 samples" in wrong.doubts
    assert wrong.summary.endswith(wrong.doubts)
    for found in (sure, wrong):
        assert Calibration(**vars(found)) == found


@pytest.mark.parametrize(("scale", "bound"), [(1e-4, "0.05"), (1e4, "20")])
def test_a_temperature_at_its_bound_is_doubted(scale: float, bound: str) -> None:
    logits, labels = drawn(1.0, samples=2_000)
    found = calibration.fit(logits * scale, labels, writers_of(labels, 20), "validation")
    assert found.doubts == f"the temperature ran into its bound of {bound}"
    words = calibration.in_words(found, np.ones(4), np.ones(4), np.ones(4, bool))
    assert f"from 2,000 samples of validation; {found.doubts})" in words


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_the_error_and_the_refusals_are_what_loops_count(samples: list[tuple[float, bool]]) -> None:
    probability = np.array([p for p, _ in samples], np.float32)
    right = np.array([r for _, r in samples])
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, r in samples:
        place = next(i for i in range(15) if p <= np.float32(i + 1) / 15 or i == 14)
        bins.setdefault(place, []).append((p, r))
    error = sum(abs(sum(p for p, _ in b) - sum(r for _, r in b)) for b in bins.values()) / len(samples)
    # A probability on the border of two bins may be rounded into either.
    if all(abs(15 * p - round(15 * p)) > 1e-5 for p, _ in samples):
        assert calibration.expected_calibration_error(probability, right) == pytest.approx(error, abs=1e-6)
    right_kept, wrong_refused, accuracy = calibration.refusals(0.5, probability, right)
    given_answers = [r for p, r in samples if p >= 0.5]
    rights, wrongs = [p for p, r in samples if r], [p for p, r in samples if not r]
    assert right_kept == pytest.approx(sum(p >= 0.5 for p in rights) / len(rights) if rights else 1)
    assert wrong_refused == pytest.approx(sum(p < 0.5 for p in wrongs) / len(wrongs) if wrongs else 1)
    assert accuracy == pytest.approx(sum(given_answers) / len(given_answers) if given_answers else 1)


@pytest.mark.parametrize("samples", [1, 148, 149, 150, 500, 2_000])
def test_as_many_as_are_tolerable_are_in_the_tail_as_good_as_always(samples: int) -> None:
    """Held to the binomial distribution, summed up exactly."""

    def chance_of_less_than(k: int) -> Fraction:
        rate = Fraction(1, 50)
        return sum((math.comb(samples, i) * rate**i * (1 - rate) ** (samples - i) for i in range(k)), Fraction(0))

    k = calibration.tolerable(samples, 0.02)
    assert chance_of_less_than(k) <= Fraction(1, 20)
    assert chance_of_less_than(k + 1) > Fraction(1, 20)
    assert (k == 0) == (samples < 149)


@pytest.mark.parametrize("of_a_writer", [1, 50])
def test_the_threshold_keeps_its_share_of_other_writers_answers(of_a_writer: int) -> None:
    """300 times: samples by lot, and writers who are read well or badly as a whole; the plain quantile fails often."""
    rng = np.random.default_rng(5)
    kept, plain = [], []
    for _ in range(300):
        probability, writers = answers(rng, 1_000 // of_a_writer, of_a_writer)
        right = np.ones(len(probability), bool)
        others, _ = answers(rng, 20_000 // of_a_writer, of_a_writer)
        kept.append(np.mean(others >= calibration.threshold_keeping(0.98, probability, right, writers)))
        plain.append(np.mean(others >= np.quantile(probability, 0.02)))
    assert np.mean(np.array(kept) >= 0.98) >= 0.9
    assert np.mean(np.array(plain) >= 0.98) < 0.75
    assert np.median(kept) < 0.996  # and it isn't bought by keeping everything


def answers(rng: np.random.Generator, writers: int, of_a_writer: int) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of right answers, alike among those of a writer, and the writers."""
    skill = np.repeat(rng.normal(0, 0.5, writers), of_a_writer)
    names = np.repeat(np.arange(writers).astype(str), of_a_writer)
    return 1 / (1 + np.exp(-(3 + skill + rng.normal(0, 1, len(names))))), names


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=400), st.integers(1, 5))
@settings(deadline=None)
def test_the_threshold_keeps_its_share_of_the_samples_it_is_from(found: list[float], writers: int) -> None:
    probability, right = np.array(found, np.float32), np.ones(len(found), bool)
    threshold = calibration.threshold_keeping(0.98, probability, right, writers_of(right, writers))
    assert np.mean(probability >= threshold) >= 0.98


def test_a_calibrated_error_is_small_and_an_uncalibrated_one_is_not() -> None:
    logits, labels = drawn(2.5)
    right = logits.argmax(axis=1) == labels

    def error(temperature: float) -> float:
        chances = np.exp(logits.astype(float) / temperature)
        return calibration.expected_calibration_error((chances / chances.sum(1, keepdims=True)).max(1), right)

    assert error(1.0) > 0.15
    assert error(calibration.fit_temperature(logits, labels)) < 0.02


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert calibration.read_calibration(tmp_path) == calibration.UNCALIBRATED
    calibration.write_calibration(tmp_path, written := Calibration(0.75, 0.5, "validation", 100, 0.99, "too few"))
    assert calibration.read_calibration(tmp_path) == written
    old = {"temperature": 0.75, "threshold": 0.5, "split": "validation", "samples": 100}
    (tmp_path / "calibration.json").write_text(json.dumps(old))
    assert calibration.read_calibration(tmp_path) == Calibration(0.75, 0.5, "validation", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"threshold": 2}, {"temperature": None}, {"another": 1}, {"kept": 2}, {"doubts": 1}]
)
def test_a_damaged_one_is_refused_in_one_line(change: dict[str, object], tmp_path: Path) -> None:
    content = {"temperature": 0.75, "threshold": 0.5, "split": "validation", "samples": 100, **change}
    (tmp_path / "calibration.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=r"calibration\.json: expected a temperature and a threshold, found .*delete"):
        calibration.read_calibration(tmp_path)
