"""`import model`: a run is loaded and asked for pictures, from a program that isn't ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gnt_files
import numpy as np
import pytest
import tiny_run
from PIL import Image
from places import ROOT

import model
from model import predict
from schemas.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_run(tmp_path_factory.mktemp("front") / "run")


def test_few_names_each_documented() -> None:
    assert len(model.__all__) <= 5
    assert all(getattr(model, name).__doc__ for name in model.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = model.nothing


def test_it_imports_no_tensorflow() -> None:
    code = "import model, sys; model.load_run; print([n for n in ('tensorflow', 'keras') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_says_what_predict_prints(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bitmap = gnt_files.strokes(1)
    Image.fromarray(bitmap).save(path := tmp_path / "picture.png")
    assert predict.main(["--model", str(run), str(path)]) == 0
    printed = capsys.readouterr().out
    recogniser = model.load_run(run)
    assert recogniser.classes == tuple(tiny_run.CHARACTERS)
    colours = np.repeat(bitmap[:, :, None], 3, axis=2)
    opaque = np.dstack([colours, np.full(bitmap.shape, 255, np.uint8)])
    for picture in (path, str(path), bitmap, colours, opaque):
        reading = recogniser.read(picture)
        shown = "   ".join(f"{character} {100 * chance:.1f} %" for character, chance in reading.candidates)
        assert printed.endswith(f": {shown}\n")
        assert reading.candidates[0] == (reading.character, reading.probability)
        assert reading.image.shape == (64, 64)
        assert reading.recognised
    assert len(recogniser.read(bitmap, top=2).candidates) == 2
    assert not model.load_run(str(run), threshold=1.0).read(bitmap).recognised


def test_an_answer_for_each_of_many_pictures(run: Path, tmp_path: Path) -> None:
    pictures = [gnt_files.strokes(number) for number in range(70)]
    pictures[3] = np.full((50, 50), 255, np.uint8)
    recogniser = model.load_run(run)
    answers = list(recogniser.read_all([*pictures, tmp_path / "none.png"]))
    assert [number for number, answer in enumerate(answers) if isinstance(answer, UserError)] == [3, 70]
    for number in (0, 69):
        (reading,) = recogniser.read_all([pictures[number]])
        assert isinstance(reading, model.Reading)
        assert isinstance(answers[number], model.Reading)
        assert reading.character == answers[number].character
        assert reading.probability == pytest.approx(answers[number].probability, rel=1e-4)


def test_what_is_no_picture_is_an_error_of_one_line(run: Path, tmp_path: Path) -> None:
    recogniser = model.load_run(run)
    for picture in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(UserError, match=r"expected uint8 \[h, w\]"):
            recogniser.read(picture)
    with pytest.raises(UserError, match="blank"):
        recogniser.read(np.full((50, 50), 255, np.uint8))
    with pytest.raises(UserError, match="expected the folder of a training run"):
        model.load_run(tmp_path / "none")


_CALLER = """
import logging, os, signal, sys
import absl.logging, cv2
root = logging.getLogger()
logging.basicConfig(level=logging.INFO)
cv2.setNumThreads(2)

def state():
    loggers = {name: (of.level, list(of.handlers), of.disabled) for name, of in logging.root.manager.loggerDict.items()
               if isinstance(of, logging.Logger) and name in ("absl", "mine")}
    return loggers, root.level, list(root.handlers), absl.logging.get_verbosity(), cv2.getNumThreads(), \
        signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

logging.getLogger("mine")
before = state()
import numpy as np
import model
recogniser = model.load_run(sys.argv[1])
picture = np.full((60, 60), 255, np.uint8)
picture[10:50, 28:32] = 0
found = []
import threading
thread = threading.Thread(target=lambda: found.append(recogniser.read(picture)))
thread.start()
thread.join()
assert found[0].character
assert state() == before, (before, state())
print("still here")
"""


@pytest.mark.slow
def test_loggers_signals_and_opencv_stay_the_callers(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CALLER, str(run)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr[-2000:]
