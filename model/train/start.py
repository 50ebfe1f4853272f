"""Where a run's weights begin: at random, or at those of another run, with its convolutions held still if asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.answers.run import load_model, read_run
from schemas.classes import ClassList
from schemas.errors import UserError

LAST_LAYER = "logits"
_HEAD_LAYERS = ("mean_norm", "dense1", "dense1_norm", "dense2", "dense2_norm", LAST_LAYER)


def freeze_convolutions(model: keras.Model) -> None:
    """Holds everything before the head still, the statistics of batch normalisation too."""
    for layer in model.layers:
        layer.trainable = layer.name in _HEAD_LAYERS or isinstance(layer, keras.layers.Dropout)


def start_from(folder: Path, model: keras.Model, classes: ClassList) -> int:
    """Gives `model` the weights of the run in `folder`, and returns how many characters the two share.

    The last layer's are matched by character; one that the run doesn't know begins small, as it does without a run.
    Raises UserError where the networks differ.
    """
    run = read_run(folder)
    theirs = {layer.name: layer.weights for layer in load_model(run).layers}
    label_of = {character: label for label, character in enumerate(run.classes.characters)}
    shared = [
        (label, label_of[character]) for label, character in enumerate(classes.characters) if character in label_of
    ]
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            continue  # its weights are a seed
        given = [np.asarray(value) for value in theirs.get(layer.name, [])]
        if layer.name == LAST_LAYER and given:
            given = [_matched(np.asarray(own), other, shared) for own, other in zip(layer.weights, given, strict=True)]
        found, expected = [value.shape for value in given], [tuple(own.shape) for own in layer.weights]
        if found != expected:
            raise UserError(
                f"--init_from {folder}: its network is another one, layer {layer.name} has {_shapes(found)} there and "
                f"{_shapes(expected)} here; leave out the flags of the model, they are that run's then"
            )
        layer.set_weights(given)
    return len(shared)


def _matched(own: np.ndarray, other: np.ndarray, shared: list[tuple[int, int]]) -> np.ndarray:
    """`own` [..., classes] with the values of `other` [..., its classes] for (own label, its label) in `shared`."""
    if own.shape[:-1] != other.shape[:-1]:
        return other  # of another network; its shape tells
    result = own.copy()
    for here, there in shared:
        result[..., here] = other[..., there]
    return result


def _shapes(shapes: list[Any]) -> str:
    return " and ".join(" × ".join(str(side) for side in shape) for shape in shapes) or "no weights"
