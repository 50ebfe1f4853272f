"""Calibration, held to plain loops, to a grid of temperatures and to labels drawn with known probabilities."""

from __future__ import annotations

import json
import math
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


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = calibration.fit(logits, labels, "validation")
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert (found.split, found.samples) == ("validation", len(labels))


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


def test_samples_all_right_or_all_wrong_are_no_crash() -> None:
    logits = np.eye(5, dtype=np.float32)[[0, 1, 2]] * 30
    sure = calibration.fit(logits, np.array([0, 1, 2]), "validation")
    # Three right answers of three are no certainty: with one more sample, read wrongly, three of four.
    assert sure.threshold == pytest.approx(3 / 4, abs=0.002)
    wrong = calibration.fit(logits, np.array([1, 2, 3]), "validation")
    assert wrong.temperature > 1
    assert wrong.threshold == 0
    for found in (sure, wrong):
        assert Calibration(**vars(found)) == found


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


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80))
@settings(deadline=None)
def test_the_threshold_keeps_its_share_and_hardly_more(found: list[float]) -> None:
    probability, right = np.array(found, np.float32), np.ones(len(found), bool)
    threshold = calibration.threshold_keeping(0.9, probability, right)
    assert np.mean(probability >= threshold) >= 0.9
    assert np.mean(probability > threshold + 0.001) <= 0.9 or threshold > 0.998


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
    calibration.write_calibration(tmp_path, written := Calibration(0.75, 0.5, "validation", 100))
    assert calibration.read_calibration(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize("change", [{"temperature": 0}, {"threshold": 2}, {"temperature": None}, {"another": 1}])
def test_a_damaged_one_is_refused_in_one_line(change: dict[str, object], tmp_path: Path) -> None:
    content = {"temperature": 0.75, "threshold": 0.5, "split": "validation", "samples": 100, **change}
    (tmp_path / "calibration.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=r"calibration\.json: expected a temperature and a threshold, found .*delete"):
        calibration.read_calibration(tmp_path)
