"""python -m model.report: report.html of a run, the page to look at when a training has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.answers import calibration, metrics
from model.answers.calibration import UNCALIBRATED, read_calibration
from model.answers.run import Run, check_data_set, finite, load_model, read_metrics, read_run
from model.network.devices import setup_tensorflow
from model.report.charts import Series, legend, line_chart
from model.report.page import Glyph, Page, PairOfGlyphs, WorstRow
from schemas.command import Parser, run_command
from schemas.errors import explained
from schemas.machine import replace_text

if TYPE_CHECKING:
    from model.answers.scoring import Scores

REPORT = "report.html"

_WORST = 20  # characters
_WORST_WRITERS = 10
_PAIRS = 12
_GLYPHS_OF_A_PAIR = 4
_MISTAKES = 24
_DRAWN = 48


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser("model.report", f"Writes RUN/{REPORT}: learning curves, accuracy, mistakes, predictions.")
    parser.add_argument("--model", type=Path, required=True, metavar="RUN", help="the folder of a training run")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of a data set")
    parser.add_argument("--split", default="validation", help="train, validation or test (default: validation)")

    def body() -> int:
        flags = parser.parse_args(argv)
        setup_tensorflow()
        print(write_report(flags.model, flags.data, flags.split))
        return 0

    return run_command("model.report", body)


def write_report(run_folder: Path, data_folder: Path, split: str) -> Path:
    """Evaluates the run's model on a split and writes report.html into its folder; returns the file's path.

    Raises UserError or DatasetError.
    """
    # TensorFlow takes seconds to import: --help and a misspelt flag needn't wait for it.
    from model.answers.scoring import Evaluation, forward_of
    from model.data.examples import open_dataset
    from model.data.samples import read_images, writers_of

    run = read_run(run_folder)
    card, _ = open_dataset(data_folder)
    check_data_set(run, card, data_folder)
    trust = read_calibration(run_folder) or UNCALIBRATED
    scores = Evaluation(forward_of(load_model(run))).scores(card, data_folder, split, trust.temperature)
    writers = writers_of(card, data_folder, split, scores.sample_id)
    pairs = metrics.confused_pairs(scores.label, scores.prediction)[:_PAIRS]
    chosen = choose_samples(scores.label, scores.prediction, scores.probability, pairs)
    positions = sorted({position for group in chosen.values() for position in group})
    images = read_images(card, data_folder, split, [scores.sample_id[position] for position in positions])
    names = run.classes.characters

    def glyph(position: int) -> Glyph:
        truth, prediction = names[scores.label[position]], names[scores.prediction[position]]
        return Glyph(images[scores.sample_id[position]], truth, prediction, float(scores.probability[position]))

    glyphs = {group: [glyph(position) for position in members] for group, members in chosen.items()}
    subtitle = f"{data_folder.resolve().name}, split {split}; image {run.image_size} × {run.image_size}"
    page = make_page(run, trust, subtitle, scores, writers, pairs, glyphs)
    path = run_folder / REPORT
    with explained(f"write {path}"):
        replace_text(path, page.to_html())
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


def make_page(
    run: Run,
    trust: calibration.Calibration,
    subtitle: str,
    scores: Scores,
    writers: np.ndarray,
    pairs: Sequence[metrics.Pair],
    glyphs: Mapping[str, Sequence[Glyph]],
) -> Page:
    """The page; `writers` is str [n], and `glyphs` are those of choose_samples' groups."""
    names, right = run.classes.characters, scores.rank == 1
    lines = read_metrics(run.folder)
    mistaken = metrics.mistaken_for(scores.label, scores.prediction)
    by_character, by_writer = metrics.tally(scores.label, scores.rank), metrics.tally(writers, scores.rank)

    def worst(entry: metrics.Tally, name: str, read_as: tuple[int, int] | None = None) -> WorstRow:
        text = f"{names[read_as[0]]} × {read_as[1]:,}" if read_as else ""
        return WorstRow(name, entry.samples, entry.samples - entry.right, entry.accuracy, text)

    charts, key = learning_curves(lines)
    steps = [int(line["step"]) for line in lines]
    tiles = [
        (f"{metrics.accuracy(scores.rank):.2%}", "top-1 accuracy"),
        (f"{metrics.accuracy(scores.rank, metrics.TOP):.2%}", f"top-{metrics.TOP} accuracy"),
        (f"{len(scores):,}", "samples"),
        (f"{len(by_character):,}", "characters"),
        (f"{len(by_writer):,}", "writers"),
    ]
    if steps:
        tiles.append((f"{max(steps):,}", "training steps"))
    smoothing = run.config.get("train", {}).get("label_smoothing")
    note = "Training figures are of augmented images" + (" and a smoothed loss" if smoothing else "")
    return Page(
        title=f"{run.folder.resolve().name}: {run.network}",
        subtitle=subtitle,
        tiles=tiles,
        charts=charts,
        legend=key,
        chart_note=f"{note}; evaluations are of the images as they are." if charts else "",
        characters=[
            worst(entry, names[entry.key], mistaken.get(entry.key))
            for entry in metrics.worst_first(by_character)[:_WORST]
            if entry.right < entry.samples
        ],
        writers=[worst(entry, entry.key) for entry in metrics.worst_first(by_writer)[:_WORST_WRITERS]],
        pairs=[
            PairOfGlyphs(
                names[pair.first], names[pair.second], pair.first_as_second, pair.second_as_first, glyphs[f"pair {i}"]
            )
            for i, pair in enumerate(pairs)
        ],
        mistakes=glyphs["mistakes"],
        sample=glyphs["drawn"],
        trust_note=calibration.in_words(trust, scores.probability, scores.raw_probability, right),
        refusals=calibration.table_of(trust, scores.probability, right),
        settings=settings_of(run.config),
    )


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
        if line.get("kind") == kind and (split is None or line.get("split") == split) and finite(line.get(field))
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
