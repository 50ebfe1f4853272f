"""python -m model.report: report.html of a run, the page to look at when a training has ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.answers import calibration, metrics
from model.answers.calibration import read_calibration
from model.answers.run import add_model_flag, check_data_set, kept_model, load_model, place_for, read_metrics, read_run
from model.network.devices import setup_tensorflow
from model.report.charts import Series, legend, line_chart
from model.report.page import document, figures, glyph, grid, pair_of_glyphs, section, table, worst_table
from pipeline.reader import CACHE_BYTES, add_data_flags
from pipeline.reader.dataset import open_dataset
from schemas.command import Parser, run_command
from schemas.command.outputs import check_output, mark_of, marked_by, output
from schemas.errors import explained

COMMAND = "model.report"
REPORT = "report.html"

_OWNED = marked_by(COMMAND, older="<style>\n:root{color-scheme:light dark;--ground:#fff;--panel:#f5f5f3")
_WORST = 20  # characters
_WORST_WRITERS = 10
_PAIRS = 12
_GLYPHS_OF_A_PAIR = 4
_MISTAKES = 24
_DRAWN = 48


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(COMMAND, f"Writes {REPORT} into RUN: learning curves, accuracy, mistakes, predictions.")
    add_model_flag(parser)
    add_data_flags(parser)
    parser.add_argument("--split", default="validation", help="train, validation or test (default: validation)")

    def body() -> int:
        flags = parser.parse_args(argv)
        print(write_report(flags.model, flags.data, flags.split, flags.cache_bytes))
        return 0

    return run_command(COMMAND, body)


def write_report(run_folder: Path, data_folder: str | Path, split: str, cache_bytes: int = CACHE_BYTES) -> Path:
    """Evaluates the run's model on a split and writes report.html into its folder; returns the file's path.

    Raises UserError or DatasetError.
    """
    path = place_for(REPORT, run_folder)
    run, data = read_run(run_folder), open_dataset(data_folder, cache_bytes)
    check_output(path, COMMAND, _OWNED)
    check_data_set(run, data)
    data.card.split(split)
    setup_tensorflow()  # takes seconds: what can be refused is refused before
    from model.answers.scoring import Evaluation, forward_of

    # What the model says of the samples, and the images of those to show
    trust = read_calibration(run_folder)
    records = data.records(split)
    scores = Evaluation(forward_of(load_model(run))).scores(records, trust.temperature)
    names, label, prediction, probability = run.classes.characters, scores.label, scores.prediction, scores.probability
    pairs = metrics.confused_pairs(label, prediction)[:_PAIRS]
    chosen = choose_samples(label, prediction, probability, pairs)
    positions = sorted({position for group in chosen.values() for position in group})
    images = dict(zip(positions, records[positions][0], strict=True))

    def glyphs(group: str) -> list[str]:
        return [glyph(images[i], names[label[i]], names[prediction[i]], probability[i]) for i in chosen[group]]

    # The sections
    lines = read_metrics(run_folder)
    charts, key = learning_curves(lines)
    characters = metrics.worst_characters(names, label, prediction, scores.rank)
    writers = metrics.worst_first(metrics.tally(records.rows(["writer"])["writer"].to_numpy().astype(str), scores.rank))
    misread, misreading = ([entry for entry in group if entry.wrong] for group in (characters, writers))
    tables = section("Characters read worst", "", worst_table("character", misread[:_WORST]))
    tables += section("Writers read worst", "", worst_table("writer", misreading[:_WORST_WRITERS]))
    confused = [
        pair_of_glyphs(
            names[two.first], names[two.second], two.first_as_second, two.second_as_first, glyphs(f"pair {number}")
        )
        for number, two in enumerate(pairs)
    ]
    right = scores.rank == 1
    trusted = calibration.in_words(trust, probability, scores.raw_probability, right)
    sections = [
        section("Learning curves", why_losses_differ(run.config), figures(charts, key)),
        f'<div class="tables">{tables}</div>\n',
        section(
            "Most confused pairs", "Truth first; the number below is the probability given.", grid("pairs", confused)
        ),
        section("How far to trust a probability", trusted, table(*calibration.table_of(trust, probability, right))),
        section(
            "Surest mistakes", "Truth → prediction, with the probability given.", grid("glyphs", glyphs("mistakes"))
        ),
        section(
            "Predictions, drawn by lot", "Truth → prediction; mistakes are outlined.", grid("glyphs", glyphs("drawn"))
        ),
    ]

    # The page
    tiles = [
        (f"{metrics.accuracy(scores.rank):.2%}", "top-1 accuracy"),
        (f"{metrics.accuracy(scores.rank, metrics.TOP):.2%}", f"top-{metrics.TOP} accuracy"),
        (f"{len(scores):,}", "samples"),
        (f"{len(characters):,}", "characters"),
        (f"{len(writers):,}", "writers"),
    ]
    if lines:
        tiles.append((f"{max(int(line['step']) for line in lines):,}", "training steps"))
    title = f"{'the recogniser in the box' if run.in_the_box else run_folder.resolve().name}: {run.network}"
    subtitle = f"{Path(data_folder).resolve().name}, split {split}; image {run.image_size} × {run.image_size}"
    subtitle = "; ".join(filter(None, (subtitle, kept_model(lines))))
    html = document(title, subtitle, tiles, sections, settings_of(run.config), mark_of(COMMAND))
    with explained(f"write {path}"), output(path, COMMAND, _OWNED) as temporary:
        temporary.write_text(html, "utf-8")
    return path


def choose_samples(
    label: np.ndarray, prediction: np.ndarray, probability: np.ndarray, pairs: Sequence[metrics.Pair]
) -> dict[str, list[int]]:
    """Positions of the samples to show: "drawn" by lot, "mistakes" and "pair i" with the surest first."""
    surest = np.argsort(-probability, kind="stable")
    wrong = surest[label[surest] != prediction[surest]]
    count = min(_DRAWN, len(label))
    chosen = {
        "drawn": sorted(np.random.default_rng(0).choice(len(label), count, replace=False).tolist()),
        "mistakes": wrong[:_MISTAKES].tolist(),
    }
    for number, pair in enumerate(pairs):
        there = wrong[(label[wrong] == pair.first) & (prediction[wrong] == pair.second)]
        back = wrong[(label[wrong] == pair.second) & (prediction[wrong] == pair.first)]
        # Both ways where there are both, half of the room for each.
        fewest = _GLYPHS_OF_A_PAIR // 2
        from_there = max(fewest, _GLYPHS_OF_A_PAIR - len(back))
        from_back = _GLYPHS_OF_A_PAIR - min(from_there, len(there))
        chosen[f"pair {number}"] = [*there[:from_there].tolist(), *back[:from_back].tolist()]
    return chosen


def learning_curves(lines: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, str]], str]:
    """(title, SVG) of loss, accuracy and learning rate over the steps, and the legend."""
    splits = sorted({str(line.get("split", "")) for line in lines if line.get("kind") == "eval"})

    def series(field: str) -> list[Series]:
        training = Series("training", "train", _points(lines, "train", None, field))
        return [training, *(Series(split, "eval", _points(lines, "eval", split, field)) for split in splits)]

    def chart(title: str, field: str, y_label: str, number: Callable[[float], str]) -> tuple[str, str]:
        return title, line_chart(title, series(field), x_label="step", y_label=y_label, number=number)

    charts = [
        chart("Loss", "loss", "cross entropy, nats", lambda value: f"{value:.3g}"),
        chart("Accuracy", "accuracy", "right, %", lambda value: f"{100 * value:.3g}"),
        chart("Learning rate", "learning_rate", "learning rate", lambda value: f"{value:.2g}"),
    ]
    return [entry for entry in charts if entry[1]], legend(series("loss"))


def why_losses_differ(config: Mapping[str, Any]) -> str:
    """What lies between the training loss and that of an evaluation, and how low the first can get."""
    train, classes = config.get("train"), int(config["num_classes"])
    train = train if isinstance(train, Mapping) else {}
    smoothing, outliers = (_share(train.get(name)) for name in ("label_smoothing", "outliers"))
    lowest = (1 - outliers) * _least_loss(smoothing, classes) + outliers * _least_loss(1.0, classes)
    reasons = [f"its labels are smoothed by {smoothing:g}"] * bool(smoothing)
    reasons += [f"{outliers:.0%} of its images are no character, and every answer is as good there"] * bool(outliers)
    bound = f"The training loss can't fall below {lowest:.2f}: {', and '.join(reasons)}. " if reasons else ""
    return (
        f"{bound}Training figures are of distorted images, with units dropped out; evaluations are of the images as "
        "they are, with plain labels" + (", by the average of the last weights." if train.get("ema") else ".")
    )


def _least_loss(smoothing: float, classes: int) -> float:
    """The cross entropy of a label smoothed over all classes with itself, in nats: no prediction has less."""
    chances = [1 - smoothing + smoothing / classes] + [smoothing / classes] * (classes - 1)
    return -sum(chance * math.log(chance) for chance in chances if chance)


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The run's configuration, flat."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": _text(of) for inner, of in value.items()})
        else:
            flat[name] = _text(value)
    return flat


def _points(lines: Sequence[Mapping[str, Any]], kind: str, split: str | None, field: str) -> list[tuple[float, float]]:
    return [
        (float(line["step"]), float(line[field]))
        for line in lines
        if line.get("kind") == kind and (split is None or line.get("split") == split) and _finite(line.get(field))
    ]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: Any) -> float:
    return float(value) if _finite(value) and 0 <= value <= 1 else 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
