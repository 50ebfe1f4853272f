"""The recogniser in the box: small enough, whole, and it reads what it was made for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_dataset import write_dataset

from model import evaluate, predict
from model.answers.reading import Character, Reading, load_run
from model.answers.run import BOX, WEIGHTS, place_for
from model.train.options import parse_arguments
from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import draw
from pipeline.sample.strokes import Source, strokes_of
from pipeline.sample.style import WriterStyle, record_generator
from schemas.classes import default_classes, tag_of

CHARACTERS = default_classes().characters[::63]


def drawn(character: str, writer: int) -> Character:
    style, random = WriterStyle.from_seed(99, writer), record_generator(99, writer, tag_of(character))
    return Character(character, draw(strokes_of(Source(font_path()), character), style, random))


def test_it_is_at_most_8_mb_and_names_no_machine() -> None:
    files = {path.name: path for path in BOX.iterdir()}
    assert {"config.json", "classes.txt", "calibration.json", WEIGHTS} <= set(files)
    assert sum(path.stat().st_size for path in files.values()) <= 8_000_000
    assert '"data"' not in files["config.json"].read_text("utf-8")


def test_it_knows_the_default_classes_and_reads_new_drawings() -> None:
    recogniser = load_run(BOX)
    assert tuple(recogniser.classes) == tuple(default_classes().characters)
    pictures = [drawn(character, 1001 + number) for number, character in enumerate(CHARACTERS)]
    answers = [answer for answer in recogniser.answers(pictures, 5) if isinstance(answer, Reading)]
    assert len(answers) == len(pictures)
    assert np.mean([answer.character == answer.name for answer in answers]) > 0.6
    assert np.mean([answer.name in dict(answer.candidates) for answer in answers]) > 0.8


def test_noise_is_not_recognised() -> None:
    recogniser = load_run(BOX)
    rng = np.random.default_rng(1)
    noise = [Character(str(n), (255 * rng.random((60, 60)) ** 0.3).astype(np.uint8)) for n in range(20)]
    answers = [answer for answer in recogniser.answers(noise, 1) if isinstance(answer, Reading)]
    assert np.mean([answer.recognised for answer in answers]) < 0.2


def test_predict_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), cv2.copyMakeBorder(drawn("永", 1003).bitmap, *[30] * 4, cv2.BORDER_CONSTANT, value=255))
    assert predict.main([str(path), "--threshold", "0"]) == 0
    assert "永" in capsys.readouterr().out


def test_what_is_written_of_it_lies_where_one_stands(tmp_path: Path) -> None:
    assert place_for("report.html", BOX) == Path("report.html")
    assert place_for("report.html", tmp_path) == tmp_path / "report.html"


def test_it_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data", {"test": 8}, size=32)
    assert evaluate.main([f"--data={data}", "--calibrate", f"--output={tmp_path / 'rows.parquet'}"]) == 2
    assert "the recogniser in the box stays as it is" in capsys.readouterr().err


def test_a_training_may_begin_with_it() -> None:
    config = parse_arguments(["--data=d", "--model_dir=r", "--init_from", "--epochs=2"])
    assert (config.init_from, config.arch, config.width, config.head) == (str(BOX), "vgg11", 0.5, "pool")
