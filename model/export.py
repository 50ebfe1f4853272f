"""python -m model.export: a run's model as a SavedModel, ONNX or LiteRT file, checked against the Keras model."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from model.answers.calibration import read_calibration
from model.answers.run import CLASSES, add_model_flag, load_model, place_for, read_run
from model.network.devices import setup_tensorflow
from schemas.command import Parser, local_path, run_command
from schemas.command.outputs import (
    Owned,
    as_summed,
    check_output,
    files_below,
    mark_of,
    output,
    sha256_of,
    sums_text,
)
from schemas.errors import UserError, explained

COMMAND = "model.export"
SUMS = "assets.extra/hwdb-shards.sha256"
"""In a SavedModel, where nothing of it is read: its other files, each with its SHA-256."""
_SAVED_MODEL_FOLDERS = ("assets", "assets.extra", "variables")
DEFAULT_TOLERANCE = 1e-3
_CHECKED_IMAGES = 12


@dataclass(frozen=True)
class Format:
    """A format to export to."""

    name: str
    """Of the file or folder, by default, in the run's folder."""
    suffix: str
    run: Callable[[Path, np.ndarray], np.ndarray]
    """The logits, float32 [n, classes], of float32 [n, size, size, 1], computed without Keras."""
    keras_name: str
    mark: Callable[[Path], None]
    """Has what was exported say who wrote it."""
    owned: Owned | None = None
    packages: tuple[str, ...] = ()
    """What it takes beyond TensorFlow."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(
        COMMAND,
        "Exports a trained model: float32 [n, size, size, 1], ink 1 on 0, to logits [n, characters]; "
        f"{CLASSES} of the run names the characters.",
    )
    add_model_flag(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=local_path, metavar="PATH", help="default: in RUN, named by the format")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar="D",
        help="largest difference of a logit from the Keras model's (default: 0.001)",
    )

    def body() -> int:
        flags = parser.parse_args(argv)
        path = flags.output or place_for(FORMATS[flags.format].name, flags.model)
        difference = export(flags.model, flags.format, path, tolerance=flags.tolerance)
        print(
            f"{path}: {_size_bytes(path):,} bytes; logits differ from the Keras model's by {difference:.2g} at "
            f"most, over {_CHECKED_IMAGES} images; characters in {flags.model / CLASSES}"
        )
        trust = read_calibration(flags.model)
        if trust.samples:
            print(
                f"for calibrated probabilities divide the logits by {trust.temperature:.4g} before the softmax; "
                f"below {trust.threshold:.3g} an answer is better not given"
            )
        return 0

    return run_command(COMMAND, body)


def export(model_folder: Path, format_name: str, path: Path, *, tolerance: float = DEFAULT_TOLERANCE) -> float:
    """Writes `path` and returns the largest difference of a logit. Raises UserError; nothing is left then.

    A file appears under its name only once it has been checked; only an earlier export makes room for it.
    """
    form = FORMATS[format_name]
    if path.suffix != form.suffix:
        raise UserError(f"--output {path}: expected a name that ends in {form.suffix or 'no suffix'}; change it")
    check_packages(format_name)
    check_output(path, COMMAND, form.owned)
    run = read_run(model_folder)
    setup_tensorflow()
    import tensorflow as tf

    # A GPU's shortened products would show as a difference of the formats.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    model = load_model(run)
    images = check_images(run.image_size)
    expected = np.asarray(model(images, training=False))
    with explained(f"write {path}"), output(path, COMMAND, form.owned) as temporary:
        signature = [tf.TensorSpec([None, run.image_size, run.image_size, 1], tf.float32, name="image")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf2onnx's own, about NumPy 2
            model.export(temporary, format=form.keras_name, verbose=False, input_signature=signature)
        form.mark(temporary)
        found = form.run(temporary, images)
        difference = float(np.max(np.abs(found - expected)))
        if not difference <= tolerance:
            raise UserError(
                f"{path}: a logit differs from the Keras model's by {difference:.2g}, expected {tolerance:.2g} at "
                "most; nothing was written; allow more with --tolerance if that is good enough"
            )
    return difference


def check_packages(format_name: str) -> None:
    """Raises UserError where a format's packages aren't installed."""
    missing = [name for name in FORMATS[format_name].packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {format_name}: needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed; pip install {' '.join(missing)}"
        )


def check_images(size: int) -> np.ndarray:
    """float32 [n, size, size, 1] in 0 … 1: drawn strokes, the same every time; the last two are blank and full."""
    rng = np.random.default_rng(0)
    images = np.zeros((_CHECKED_IMAGES, size, size), np.uint8)
    for image in images[:-2]:
        for _ in range(4):
            ends = rng.integers(0, size, 4).tolist()
            cv2.line(image, ends[:2], ends[2:], 255, max(1, size // 16), cv2.LINE_AA)
    images[-1] = 255
    return images[..., None].astype(np.float32) / 255.0


def mark_saved_model(path: Path) -> None:
    digests = {name: sha256_of(file) for name, file in files_below(path).items()}
    (path / SUMS).parent.mkdir(exist_ok=True)
    (path / SUMS).write_text(sums_text(digests), "utf-8")


def mark_litert(path: Path) -> None:
    """At the file's end, where TensorFlow Lite's own tools put what goes with a model."""
    with path.open("ab") as file:
        file.write(f"\n{mark_of(COMMAND)}\n".encode())


def mark_onnx(path: Path) -> None:
    """And better names: tf2onnx calls the batch "unk__68", the result "Identity:0"."""
    onnx = importlib.import_module("onnx")
    proto = onnx.load(path)
    proto.producer_name = mark_of(COMMAND)
    result = proto.graph.output[0]
    for node in proto.graph.node:
        for index, name in enumerate(node.output):
            if name == result.name:
                node.output[index] = "logits"
    result.name = "logits"
    for value in (proto.graph.input[0], result):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def run_saved_model(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return np.asarray(loaded.serve(images))


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would tell its makers of every start
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def run_litert(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that the interpreter will move to a package of its own
        interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    return np.asarray(next(iter(runner(**{name: images}).values())))


FORMATS = {
    "saved_model": Format(
        "saved_model", "", run_saved_model, "tf_saved_model", mark_saved_model, as_summed(SUMS, _SAVED_MODEL_FOLDERS)
    ),
    "onnx": Format("model.onnx", ".onnx", run_onnx, "onnx", mark_onnx, packages=("onnx", "tf2onnx", "onnxruntime")),
    "litert": Format("model.tflite", ".tflite", run_litert, "litert", mark_litert),
}


def _size_bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    return 0


if __name__ == "__main__":
    sys.exit(main())
