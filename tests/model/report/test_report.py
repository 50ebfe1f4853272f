"""The report: one whole HTML file, figures that agree with the evaluation, nothing unescaped, no network."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
from html_file import HtmlFile
from hypothesis import given
from hypothesis import strategies as st

from model import evaluate, report
from model.answers import metrics
from model.answers.run import read_metrics
from model.report import charts, page

NASTY = '<script>alert("1")</script>&\'x'


def assert_needs_no_network(html: str) -> None:
    for tag, attributes in HtmlFile(html).tags:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or not attributes.get(name)
    assert "@import" not in html
    assert not re.search(r"url\(|https?://", html)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Path:
    return tiny_run.data_set(tmp_path_factory.mktemp("report"), archives)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tiny_run.make_run(tmp_path_factory.mktemp("report") / "run", note=NASTY)
    lines: list[dict[str, object]] = []
    for step in range(10, 110, 10):
        rate = {"learning_rate": 1e-3 * (1 - step / 200), "images_per_second": 100.0}
        loss = float("nan") if step == 50 else 3 / step
        lines.append({"kind": "train", "step": step, "epoch": 1, "loss": loss, "accuracy": step / 200, **rate})
    lines.append({"kind": "eval", "step": 100, "epoch": 1, "split": "train", "loss": 0.5, "accuracy": 0.4, "top5": 0.9})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + '{"kind": "train", "st')
    return run


def test_figures_agree_with_the_evaluation(data: Path, run: Path) -> None:
    path = report.write_report(run, data, "train")
    assert path == run / "report.html"
    html = path.read_text("utf-8")
    assert_needs_no_network(html)
    assert evaluate.main(["--model", str(run), "--data", str(data), "--split", "train"]) == 0
    rows = pq.read_table(run / evaluate.EVALUATION).to_pandas()
    tiles = dict(re.findall(r"<div><b>([^<]*)</b><span>([^<]*)</span></div>", html))
    named = {name: figure for figure, name in tiles.items()}
    assert named["top-1 accuracy"] == f"{(rows['rank'] == 1).mean():.2%}"
    assert named["top-5 accuracy"] == f"{(rows['rank'] <= 5).mean():.2%}"
    assert named["samples"] == str(len(rows)) == "72"
    assert named["writers"] == "3"
    assert named["training steps"] == "100"
    assert NASTY not in html
    assert NASTY in HtmlFile(html).text


def test_it_says_of_which_model_it_is_and_why_the_losses_differ(data: Path, tmp_path: Path) -> None:
    run = tiny_run.make_run(tmp_path / "run", train={"label_smoothing": 0.1, "outliers": 0.25, "ema": 0.999})
    lines = [
        {"kind": "eval", "step": step, "epoch": step // 10, "split": "validation", "kept": kept, "loss": 1 / step}
        for step, kept in ((10, True), (20, False), (30, True), (40, False))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = HtmlFile(report.write_report(run, data, "train").read_text("utf-8")).text
    assert "model of epoch 3, step 30, the best of 4 evaluated on validation" in text
    # The least loss, by a search: no guess at a smoothed label costs less than the label itself.
    classes = len(tiny_run.CHARACTERS)
    sure = np.linspace(0.5, 0.999, 5_000)
    truth = 0.9 + 0.1 / classes
    least = (-truth * np.log(sure) - (1 - truth) * np.log((1 - sure) / (classes - 1))).min()
    assert f"can't fall below {0.75 * least + 0.25 * np.log(classes):.2f}: its labels are smoothed by 0.1" in text
    assert "25% of its images are no character" in text
    plain = {"num_classes": classes, "train": {"label_smoothing": 0.0, "outliers": 0.0}}
    assert "fall below" not in report.why_losses_differ(plain)
    for odd in (None, [], {"label_smoothing": "x", "outliers": None}, {"label_smoothing": 7}):
        assert "fall below" not in report.why_losses_differ({"num_classes": classes, "train": odd})


def test_only_what_was_misread_is_among_the_worst(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run.make_run(tmp_path / "run")
    from model.answers import scoring

    def all_right_but(wrong: int) -> None:
        def score(logits: Any, labels: Any, _: Any) -> tuple[Any, ...]:
            shown = logits.shape[0] or len(labels)
            sure = [1.0] * shown
            rank = [2] * wrong + [1] * (shown - wrong)
            prediction = [
                (int(label) + 1) % 24 if r == 2 else int(label) for label, r in zip(labels, rank, strict=True)
            ]
            return tuple(np.array(column) for column in (prediction, sure, sure, rank, [0.0] * shown))

        def scores(self: Any, records: Any, *_: Any) -> scoring.Scores:
            logits, labels = self.logits(records, 1_000)
            return scoring.Scores(np.arange(len(records)), labels, *score(logits, labels, 1.0))

        monkeypatch.setattr(scoring.Evaluation, "scores", scores)

    flags = ["--model", str(run), "--data", str(data), "--split", "train"]
    all_right_but(1)
    assert evaluate.main(flags) == 0
    shown = capsys.readouterr().out.split("Characters read worst")[1].split("Characters most often")[0]
    assert len(re.findall(r" 1 +\d+\.\d\d%", shown)) == len(re.findall(r"%  *\d+\.\d\d%", shown)) == 2
    html = report.write_report(run, data, "train").read_text("utf-8")
    tables = html.split("Characters read worst")[1].split("Most confused pairs")[0]
    assert tables.count("<tr><td") == 2
    all_right_but(0)
    assert evaluate.main(flags) == 0
    printed = capsys.readouterr().out
    assert "every sample was read rightly" in printed
    assert "read worst" not in printed
    html = report.write_report(run, data, "train").read_text("utf-8")
    assert html.split("Characters read worst")[1].split("Most confused pairs")[0].count("None.") == 2


def test_shown_images_are_those_of_their_samples(data: Path, run: Path) -> None:
    import tensorflow as tf

    html = report.write_report(run, data, "test").read_text("utf-8")
    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    truths: dict[bytes, str] = {}
    for record in tf.data.TFRecordDataset(sorted(map(str, data.glob("test-*.tfrecord")))):
        example = tf.io.parse_single_example(record, spec)
        truths[example["image"].numpy()] = tiny_run.CHARACTERS[int(example["label"])]
    shown = [attributes for tag, attributes in HtmlFile(html).tags if tag == "img"]
    assert len(shown) >= 24
    for attributes in shown:
        png = base64.b64decode((attributes["src"] or "").split(",", 1)[1])
        image = 255 - cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (attributes["alt"] or "").startswith(f"{truths[image.tobytes()]} read as ")


def test_a_run_without_metrics_still_has_a_report(data: Path, tmp_path: Path) -> None:
    run = tiny_run.make_run(tmp_path / "run")
    assert_needs_no_network(report.write_report(run, data, "train").read_text("utf-8"))


def test_the_command_prints_the_path_or_one_line(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--model", str(run), "--data", str(data), "--split", "train"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert report.main(["--model", str(run), "--data", str(data)]) == 2
    assert "no split 'validation'" in capsys.readouterr().err
    other = tiny_run.make_run(tmp_path / "run", characters="一二三")
    assert report.main(["--model", str(other), "--data", str(data), "--split", "train"]) == 2
    assert "its class list (24 characters) isn't that of" in capsys.readouterr().err


def test_every_text_is_escaped() -> None:
    glyph = page.glyph(np.zeros((8, 8), np.uint8), NASTY, NASTY + "2", 0.5)
    line = charts.Series(NASTY, NASTY, [(0, 1), (1, 2)])
    chart = charts.line_chart(NASTY, [line], x_label=NASTY, y_label=NASTY, number=lambda _: NASTY)
    worst = [metrics.Tally(NASTY, 3, 2, 3, read_as=NASTY)]
    contents = [
        page.figures([(NASTY, chart)], charts.legend([line])),
        page.worst_table("character", worst),
        page.worst_table("writer", worst),
        page.grid("pairs", [page.pair_of_glyphs(NASTY, NASTY, 1, 2, [glyph])]),
        page.grid("glyphs", [glyph]),
        page.table([NASTY], [[NASTY]]),
    ]
    sections = [page.section(NASTY, NASTY, content) for content in contents]
    html = page.document(NASTY, NASTY, [(NASTY, NASTY)], sections, {NASTY: NASTY}, NASTY)
    assert_needs_no_network(html)
    assert "<script" not in html
    assert HtmlFile(html).text.count(NASTY) >= 20


def test_an_image_survives_its_way_into_the_page() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    png = base64.b64decode(page.data_uri(image).removeprefix("data:image/png;base64,"))
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), 255 - image)


def test_chosen_samples() -> None:
    rng = np.random.default_rng(4)
    label, prediction = rng.integers(0, 4, (2, 300))
    probability = rng.random(300)
    pairs = metrics.confused_pairs(label, prediction)
    chosen = report.choose_samples(label, prediction, probability, pairs)
    assert len(set(chosen["drawn"])) == 48
    by_hand = sorted((i for i in range(300) if label[i] != prediction[i]), key=lambda i: -probability[i])
    assert chosen["mistakes"] == by_hand[:24]
    for number, pair in enumerate(pairs):
        found = [(label[i], prediction[i]) for i in chosen[f"pair {number}"]]
        there, back = (pair.first, pair.second), (pair.second, pair.first)
        assert set(found) <= {there, back}
        assert len(found) == min(4, pair.times)
        assert found.count(there) >= min(2, pair.first_as_second)
        assert found.count(back) >= min(2, pair.second_as_first)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_charts_keep_every_point_inside(values: list[float]) -> None:
    points = [(float(step), value) for step, value in enumerate(values)]
    svg = charts.line_chart(
        "t", [charts.Series("a", "train", points)], x_label="step", y_label="loss", number=lambda value: f"{value:g}"
    )
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    line = next(element for element in root if element.tag == "polyline")
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    assert len(places) == len(values)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    for (_, y1), (_, y2), a, b in zip(places, places[1:], values, values[1:], strict=False):
        assert y1 >= y2 or a >= b  # what is larger stands higher


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_ticks_are_even_and_reach_around(low: float, span: float) -> None:
    found = charts.ticks(low, low + span, 5)
    tolerance = 1e-6 * max(abs(low), span)
    assert found[0] <= low + tolerance
    assert found[-1] >= low + span - tolerance
    assert 2 <= len(found) <= 8


def test_long_curves_are_thinned_to_means() -> None:
    points = [(float(step), float(step % 10)) for step in range(10_000)]
    thin = charts.thinned(points)
    assert len(thin) <= 240
    assert np.mean([y for _, y in thin]) == pytest.approx(4.5, abs=0.1)
    assert charts.thinned(points[:240]) == points[:240]


def test_metrics_of_a_run_that_was_killed_and_went_on(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "step": 10, "loss": 3.0},
        {"kind": "train", "step": 20, "loss": 2.0},
        {"kind": "eval", "step": 20, "split": "validation", "loss": 1.0},
        {"kind": "train", "step": 20, "loss": 2.5},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text("null\n\n" + text + '{"kind": "tra', "utf-8")
    assert read_metrics(tmp_path) == [lines[0], lines[3], lines[2]]
    assert read_metrics(tmp_path / "none") == []
