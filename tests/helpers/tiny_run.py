"""A small data set and an untrained run on it, for the tests of what comes after training."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案"


@cache
def data_set(folder: Path, archives: Path, *flags: str) -> Path:
    """`archives` converted, with CHARACTERS as its class list."""
    from pipeline.convert import main

    classes = folder / "list.txt"
    classes.write_text("".join(f"{character}\n" for character in CHARACTERS), "utf-8")
    inputs = [part for split in ("train", "test") for part in ("--input", f"{split}={archives / split}")]
    output = folder / "shards"
    arguments = ["--runner=DirectRunner", *inputs, "--classes", str(classes), "--output", str(output), *flags]
    assert main(arguments) == 0
    return output


def make_run(folder: Path, *, image_size: int = 64, characters: str = CHARACTERS, **changes: Any) -> Path:
    """A run folder: config.json, classes.txt and a model with random weights, made without the code under test."""
    import keras

    folder.mkdir(parents=True)
    text = "".join(f"{character}\n" for character in characters)
    (folder / "classes.txt").write_text(text, "utf-8")
    steps = {"grey": "luma", "denoise": "none", "normalize": "minmax", "binarize": "none", "crop": "edges"}
    config = {
        "format": 1,
        "arch": "vgg11",
        "image_size": image_size,
        "channels": 1,
        "num_classes": len(characters),
        "preprocess": {"image_size": image_size, **steps, "resize": "fit"},
        "class_digest": hashlib.sha256(text.encode()).hexdigest(),
        "train": {"label_smoothing": 0.1},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((image_size, image_size, 1), name="image"),
            keras.layers.Conv2D(4, 3, strides=2, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(len(characters), kernel_initializer=keras.initializers.RandomNormal(stddev=0.3)),
        ]
    )
    model.save(folder / "model.keras")
    return folder


def logits_one_by_one(run: Path, images: np.ndarray) -> np.ndarray:
    """float32 [n, classes] of uint8 [n, s, s, 1], a batch of one at a time."""
    import keras

    model = keras.models.load_model(run / "model.keras", compile=False)
    return np.concatenate([np.asarray(model(image[None].astype(np.float32) / 255)) for image in images])
