"""Prediction: what it says is what the model says of the sample that the conversion would have made."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import cv2
import gnt_files
import numpy as np
import pytest
import tiny_run
from PIL import Image

from model import predict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_run(tmp_path_factory.mktemp("predict") / "run")


def printed(
    capsys: pytest.CaptureFixture[str], run: Path, *arguments: object, status: int = 0
) -> tuple[list[str], list[str]]:
    capsys.readouterr()
    assert predict.main(["--model", str(run), *map(str, arguments)]) == status
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def answers(line: str) -> list[tuple[str, str]]:
    return re.findall(r"(\S) (\d+\.\d) %", line.rsplit(": ", 1)[1])


def expected_answers(run: Path, archives: Path, data: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """(truth, five best) of each kept record of the test writer, from the converted shard, one by one."""
    import tensorflow as tf

    spec = {"image": tf.io.FixedLenFeature([], tf.string), "sample_id": tf.io.FixedLenFeature([], tf.string)}
    by_index = {}
    for record in tf.data.TFRecordDataset(sorted(map(str, data.glob("test-*.tfrecord")))):
        example = tf.io.parse_single_example(record, spec)
        index = int(example["sample_id"].numpy().decode().rsplit("/", 1)[1])
        by_index[index] = np.frombuffer(example["image"].numpy(), np.uint8).reshape(64, 64, 1)
    records = gnt_files.parse((archives / "test" / "1241-c.gnt").read_bytes())
    found = []
    for index in sorted(by_index):
        logits = tiny_run.logits_one_by_one(run, by_index[index][None])[0].astype(np.float64)
        likely = np.exp(logits) / np.exp(logits).sum()
        five = [(tiny_run.CHARACTERS[i], f"{100 * likely[i]:.1f}") for i in np.argsort(-likely, kind="stable")[:5]]
        found.append((records[index][1].decode("gbk"), five))
    return found


def test_a_gnt_gives_what_its_converted_samples_give(
    run: Path, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_run.data_set(tmp_path, archives)
    gnt = archives / "test" / "1241-c.gnt"
    lines, errors = printed(capsys, run, gnt)
    assert not errors
    assert len(lines) == 40
    expected = expected_answers(run, archives, data)
    assert len(expected) == len(tiny_run.CHARACTERS)
    for line, (truth, five) in zip(lines, expected, strict=False):
        assert f"({truth}): " in line
        assert answers(line) == five
    assert printed(capsys, run, gnt, "--records", 3)[0] == lines[:3]


def test_a_scan_saved_as_png_reads_like_its_record(
    run: Path, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gnt = archives / "test" / "1241-c.gnt"
    by_record, _ = printed(capsys, run, gnt)
    paths = []
    for index, (_, _, bitmap) in enumerate(gnt_files.parse(gnt.read_bytes())):
        Image.fromarray(bitmap).save(path := tmp_path / f"{index:02d} 字.png")
        paths.append(path)
    by_picture, errors = printed(capsys, run, *paths)
    assert not errors
    assert [answers(line) for line in by_picture] == [answers(line) for line in by_record]
    assert [line.split(": ")[0] for line in by_picture] == list(map(str, paths))


def test_below_the_threshold_nothing_is_recognised(
    run: Path, archives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gnt = archives / "test" / "1241-c.gnt"
    lines, _ = printed(capsys, run, gnt)
    bests = sorted(float(answers(line)[0][1]) for line in lines)
    threshold = (bests[9] + bests[10]) / 200
    lines, _ = printed(capsys, run, gnt, "--threshold", threshold)
    assert sum(": not recognised" in line for line in lines) == sum(best < 100 * threshold for best in bests)
    assert sum(": not recognised" in line for line in printed(capsys, run, gnt, "--threshold", 1)[0]) == 40
    for bad in ("1.5", "-0.1", "nan"):
        _, errors = printed(capsys, run, gnt, "--threshold", bad, status=2)
        assert re.fullmatch(r"model\.predict: --threshold \S+: expected a probability, 0 to 1", "\n".join(errors))


def test_a_calibrated_run_divides_its_logits_and_has_a_threshold_of_its_own(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, gnt = tiny_run.make_run(tmp_path / "run"), archives / "test" / "1241-c.gnt"
    plain = [answers(line) for line in printed(capsys, run, gnt, "--top", 24)[0]]
    trust = {"temperature": 0.5, "threshold": 0.3, "split": "validation", "samples": 100}
    (run / "calibration.json").write_text(json.dumps(trust), "utf-8")
    lines, _ = printed(capsys, run, gnt, "--top", 24)
    refused = 0
    for line, before in zip(lines, plain, strict=True):
        # Half the temperature squares the probabilities.
        squares = [float(chance) ** 2 for _, chance in before]
        expected = [100 * square / sum(squares) for square in squares]
        found = answers(line)
        assert [character for character, _ in found] == [character for character, _ in before]
        assert [float(chance) for _, chance in found] == pytest.approx(expected, abs=0.6)
        assert (": not recognised" in line) == (float(found[0][1]) < 30)
        refused += ": not recognised" in line
    assert 0 < refused < len(lines)
    assert not any(": not recognised" in line for line in printed(capsys, run, gnt, "--threshold", 0)[0])
    (run / "calibration.json").write_text("{}", "utf-8")
    _, (error,) = printed(capsys, run, gnt, status=2)
    assert "calibration.json: expected a temperature and a threshold" in error


def test_bad_pictures_get_a_line_each_and_the_others_are_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (90, 90), 240).save(tmp_path / "blank.png")
    Image.fromarray(gnt_files.strokes(1)).save(tmp_path / "good.png")
    bitmap = gnt_files.strokes(2)
    broken = bytearray(gnt_files.member([(gnt_files.tag("啊"), bitmap)] * 5))
    broken[len(broken) // 5 + 6] ^= 0xFF  # the width of the second record
    (tmp_path / "broken.gnt").write_bytes(broken)
    (tmp_path / "empty.gnt").touch()
    names = ["text.png", "blank.png", "broken.gnt", "none.jpg", "empty.gnt", "good.png"]
    lines, errors = printed(capsys, run, *(tmp_path / name for name in names), status=2)
    assert len(lines) == 5
    assert lines[-1].startswith(f"{tmp_path}/good.png: ")
    for name, reason in zip(
        names[:5], ["expected a picture", "blank", "record 1 at byte", "No such", "empty"], strict=True
    ):
        (line,) = [error for error in errors if f"{tmp_path}/{name}" in error]
        assert reason in line
    assert len(errors) == 5


def test_whatever_is_named_gets_a_line_that_names_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.gnt").write_text("<!doctype html><title>404</title>" * 40)
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    (tmp_path / "loop.png").symlink_to("loop.png")
    expected = {
        f"{tmp_path}/a folder": "expected a file, found a folder; name the pictures in it",
        f"{tmp_path}/pipe.png": "expected a file, found a pipe or a device",
        "/dev/zero": "expected a file, found a pipe or a device",
        f"{tmp_path}/empty.png": "expected a picture, found an empty file",
        f"{tmp_path}/page.gnt": "expected GNT records, found ",
        f"{tmp_path}/drawing.eps": "expected a picture (PNG, JPEG",
        f"{tmp_path}/loop.png": "can't be read: Too many levels",
        "https://host/a.png": "expected a file on this machine, found a URL; download it",
        "s3://bucket/1001-c.gnt": "expected a file on this machine, found a URL",
    }
    lines, errors = printed(capsys, run, *expected, status=2)
    assert not lines
    assert len(errors) == len(expected)
    for error, (name, reason) in zip(errors, expected.items(), strict=True):
        assert error.startswith(f"model.predict: {name}: {reason}")


def test_pictures_of_every_kind_are_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = gnt_files.strokes(5)
    grey = Image.fromarray(pixels)
    on_nothing = np.dstack([np.zeros_like(pixels)] * 3 + [255 - pixels])
    kinds = {
        "grey.png": grey,
        "alpha.png": Image.fromarray(on_nothing),
        "sixteen.png": Image.fromarray(pixels.astype(np.uint16) * 257),
        "ink.tif": grey.convert("CMYK"),
        "float.tif": Image.fromarray(pixels.astype(np.float32)),
        "palette.gif": grey.convert("P"),
        "手写/字.png": grey,
        "a\x1b[31m.png": grey,
        os.fsdecode(b"\xff.png"): grey,
    }
    (tmp_path / "手写").mkdir()
    for name, image in kinds.items():
        image.save(tmp_path / name)
    grey.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.fromarray(255 - pixels)] * 3)
    lines, errors = printed(capsys, run, *(tmp_path / name for name in (*kinds, "moving.gif")))
    assert not errors
    assert len({tuple(answers(line)) for line in lines}) == 1
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 10


def test_hundreds_of_pictures_are_answered_in_order(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(gnt_files.strokes(5)).save(tmp_path / "x.png")
    names = [tmp_path / f"{number}.png" for number in range(300)]
    for number, name in enumerate(names):
        if number % 7:
            name.symlink_to("x.png")
    lines, errors = printed(capsys, run, *names, status=2)
    assert [line.split(": ")[0] for line in lines] == [str(name) for n, name in enumerate(names) if n % 7]
    assert len(errors) == len(names) - len(lines)


def test_a_gnt_that_is_none_is_called_by_its_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(b"<!DOCTYPE html><html>" + b"<p>not found</p>" * 900)
    _, (error,) = printed(capsys, run, tmp_path / "1001-c.gnt", status=2)
    assert "1001-c.gnt: expected GNT records, found an HTML page; it is what a download that failed leaves" in error


def test_saves_what_the_model_was_shown(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(gnt_files.strokes(3)).save(tmp_path / "picture.png")
    printed(capsys, run, tmp_path / "picture.png", "--save_seen", tmp_path / "seen")
    (seen,) = (tmp_path / "seen").iterdir()
    image = cv2.imread(str(seen), cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 64)
    assert image.max() == 255
    assert not image[:4].any()


def test_the_run_decides_how_pictures_are_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    steps = {
        "grey": "luma",
        "denoise": "none",
        "normalize": "none",
        "binarize": "none",
        "crop": "none",
        "resize": "fit",
    }
    other = tiny_run.make_run(tmp_path / "run", preprocess={"image_size": 64, **steps})
    Image.fromarray(gnt_files.strokes(4, 60, 60)).save(tmp_path / "picture.png")
    images = []
    for folder, name in ((run, "a"), (other, "b")):
        printed(capsys, folder, tmp_path / "picture.png", "--save_seen", tmp_path / name)
        images.append(cv2.imread(str(tmp_path / name / "0000.png"), cv2.IMREAD_UNCHANGED))
    assert len(np.unique(images[1])) > 2 * 2
    assert not np.array_equal(*images)
