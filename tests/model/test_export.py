"""Exports run outside Keras and give the Keras model's logits; what differs or can't be made is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from model import export

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.FORMATS["onnx"].packages),
    reason="ONNX needs onnx, tf2onnx and onnxruntime",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [5, 64, 64, 1], others than export checks with."""
    return np.random.default_rng(8).integers(0, 256, (5, 64, 64, 1), dtype=np.uint8)


def exported(run: Path, form: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["--model", str(run), "--format", form, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{output}: ")
    assert "logits differ from the Keras model's by" in printed


def test_saved_model(run: Path, images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf

    exported(run, "saved_model", tmp_path / "saved", capsys)
    sums = (tmp_path / "saved" / export.SUMS).read_text().splitlines()
    named = {line.split("  ")[1]: line.split("  ")[0] for line in sums}
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    found = {str(path.relative_to(tmp_path / "saved")): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found.pop(export.SUMS)
    assert found == named
    trust = {"temperature": 0.625, "threshold": 0.5, "split": "validation", "samples": 9}
    (run / "calibration.json").write_text(json.dumps(trust), "utf-8")
    assert export.main(["--model", str(run), "--format", "saved_model", "--output", str(tmp_path / "again")]) == 0
    assert "divide the logits by 0.625 before the softmax" in capsys.readouterr().out
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    (logits,) = signature(tf.constant(images.astype(np.float32) / 255)).values()
    assert np.allclose(logits, tiny_run.logits_one_by_one(run, images), atol=1e-4)


def test_litert_takes_any_batch(
    run: Path, images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    exported(run, "litert", tmp_path / "model.tflite", capsys)
    with pytest.warns(UserWarning, match="deprecated"):
        interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    index = interpreter.get_input_details()[0]["index"]
    for batch in (1, 5):
        interpreter.resize_tensor_input(index, [batch, 64, 64, 1])
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, images[:batch].astype(np.float32) / 255)
        interpreter.invoke()
        logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert np.allclose(logits, tiny_run.logits_one_by_one(run, images[:batch]), atol=1e-4)


@needs_onnx
def test_onnx(run: Path, images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    exported(run, "onnx", tmp_path / "model.onnx", capsys)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "logits"]
    # onnx's own evaluator, not the runtime that the export was checked with.
    (logits,) = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"image": images.astype(np.float32) / 255})
    assert np.allclose(logits, tiny_run.logits_one_by_one(run, images), atol=1e-4)


def refused(run: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert export.main(["--model", str(run), *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("model.export: ")
    assert error.count("\n") == 1
    return error


def test_an_export_that_differs_is_not_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export.FORMATS["litert"]
    off = replace(honest, run=lambda path, images: honest.run(path, images) + 0.01)
    monkeypatch.setitem(export.FORMATS, "litert", off)
    output = tmp_path / "model.tflite"
    error = refused(run, capsys, "--format", "litert", "--output", output)
    assert "differs from the Keras model's by 0.01, expected 0.001 at most" in error
    off = replace(honest, run=lambda path, images: honest.run(path, images) * np.nan)
    monkeypatch.setitem(export.FORMATS, "litert", off)
    refused(run, capsys, "--format", "litert", "--output", output)
    assert list(tmp_path.iterdir()) == []


def test_refusals_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ends in .tflite" in refused(run, capsys, "--format", "litert", "--output", tmp_path / "model.bin")
    (tmp_path / "file").touch()
    assert "stays as it is" in refused(run, capsys, "--format", "saved_model", "--output", tmp_path / "file")
    blocked = tmp_path / "file" / "model.tflite"
    assert "can't write" in refused(run, capsys, "--format", "litert", "--output", blocked)
    assert "found none" in refused(tmp_path / "none", capsys, "--format", "litert")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    error = refused(run, capsys, "--format", "onnx")
    assert "needs onnx, tf2onnx, onnxruntime, which are not installed; pip install onnx tf2onnx onnxruntime" in error
