"""A run in a few megabytes: its weights as 16-bit floats beside what a run states, in place of model.keras."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from model.answers.calibration import CALIBRATION
from model.answers.run import CLASSES, CONFIG, WEIGHTS, Run
from schemas.errors import explained
from schemas.machine import replace_text, replaced


def pack(run: Run, model: Any, folder: Path) -> int:
    """Writes `run` with its `model` into `folder`; returns its size in bytes.

    Readers take it for a run, but training can't go on with it. Statistics of batch normalisation stay 32-bit floats:
    variances may be small.
    """
    arrays = {
        f"{number:03d}": variable.numpy().astype(np.float32 if "moving" in variable.path else np.float16)
        for number, variable in enumerate(model.weights)
        if "seed" not in variable.path
    }
    # Where the data lay on the machine that trained it is nobody else's business.
    told = {name: value for name, value in run.config.get("train", {}).items() if name != "data"}
    stated = {**run.config, "train": told}
    with explained(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / WEIGHTS) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        shutil.copyfile(run.folder / CLASSES, folder / CLASSES)
        if (run.folder / CALIBRATION).is_file():
            shutil.copyfile(run.folder / CALIBRATION, folder / CALIBRATION)
        replace_text(folder / CONFIG, json.dumps(stated, ensure_ascii=False, indent=1) + "\n")
        return sum(path.stat().st_size for path in folder.iterdir())


def unpacked(run: Run) -> Any:
    """The model of a packed run. Raises OSError, ValueError, KeyError or BadZipFile where its weights don't fit."""
    from model.network.vgg import build_vgg

    config = run.config
    model = build_vgg(
        config["arch"],
        run.image_size,
        1,
        len(run.classes),
        width=config["width"],
        head=config["head"],
        dense_width=config["dense_width"],
        batch_norm=config["batch_norm"],
    )
    variables = {f"{n:03d}": variable for n, variable in enumerate(model.weights) if "seed" not in variable.path}
    with np.load(run.folder / WEIGHTS, allow_pickle=False) as arrays:
        if set(arrays) != set(variables):
            raise ValueError(f"expected {len(variables)} arrays, found {len(arrays)}")
        for name, variable in variables.items():
            variable.assign(arrays[name].astype(np.float32))
    return model
