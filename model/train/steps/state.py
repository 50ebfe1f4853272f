"""What a training step changes: weights, batch statistics, moments, moving averages. Everything a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model.answers.run import load_model, read_run
from model.network.devices import own_part
from model.network.vgg import build_vgg
from model.train.options import TrainConfig
from schemas.classes import ClassList
from schemas.errors import UserError

LAST_LAYER = "logits"
_HEAD_LAYERS = ("mean_norm", "dense1", "dense1_norm", "dense2", "dense2_norm", LAST_LAYER)


STATE_FIELDS = (
    "weights",
    "statistics",
    "first_moments",
    "second_moments",
    "average_weights",
    "average_statistics",
)
"""The lists of variables in TrainState."""


class TrainState(tf.Module):
    """Variables of which every replica has its own copy, all the same, since all make the same update.

    The Keras model is a function of them and keeps no state of its own: steps call it with the values to use.
    """

    def __init__(self, model: keras.Model, strategy: Any, config: TrainConfig) -> None:
        super().__init__(name="train_state")
        weights = [np.asarray(variable) for variable in model.trainable_variables]
        statistics = [np.asarray(variable) for variable in statistics_of(model)]
        with strategy.scope():
            self.weights = [_per_replica(value) for value in weights]
            self.statistics = [_per_replica(value) for value in statistics]
            self.first_moments = [_per_replica(np.zeros_like(value)) for value in weights]
            self.second_moments = [_per_replica(np.zeros_like(value)) for value in weights]
            average = bool(config.ema)
            self.average_weights = [_per_replica(value) for value in weights] if average else []
            self.average_statistics = [_per_replica(value) for value in statistics] if average else []

    @property
    def evaluated(self) -> tuple[list[Any], list[Any]]:
        """The weights and statistics to evaluate and to save: the moving averages, where there are any."""
        if self.average_weights:
            return self.average_weights, self.average_statistics
        return self.weights, self.statistics


def statistics_of(model: keras.Model) -> list[Any]:
    """The moving means and variances of batch normalisation, in order; and the weights that are held still."""
    return [variable for variable in model.non_trainable_variables if not _is_seed(variable)]


def non_trainable_values(model: keras.Model, statistics: Sequence[Any], seed: Any | None) -> list[Any]:
    """What stateless_call takes for `model.non_trainable_variables`: the statistics, and a seed for each dropout.

    `seed` is int32 [2]; None leaves the dropout without one, which is right outside training.
    """
    remaining = iter(statistics)
    values = []
    for position, variable in enumerate(model.non_trainable_variables):
        if not _is_seed(variable):
            values.append(next(remaining))
        elif seed is None:
            values.append(tf.zeros(variable.shape, variable.dtype))
        else:
            values.append(tf.cast(seed, variable.dtype) + tf.constant([(position + 1) * 0x9E3779, 0], variable.dtype))
    return values


def statistics_among(model: keras.Model, values: Sequence[Any]) -> list[Any]:
    """The statistics among the new non-trainable values that stateless_call returns."""
    variables = model.non_trainable_variables
    return [value for variable, value in zip(variables, values, strict=True) if not _is_seed(variable)]


def build_step_model(config: TrainConfig, image_size: int, num_classes: int, policy: str) -> keras.Model:
    """The model that the steps trace. Its own weights, the initial ones, lie in host memory."""
    return _build(config, image_size, num_classes, dtype=policy, gradients="written")


def build_plain_model(config: TrainConfig, image_size: int, num_classes: int) -> keras.Model:
    """The model to keep: float32, standard layers only."""
    return _build(config, image_size, num_classes, dtype="float32", gradients="derived")


def set_evaluated_weights(model: keras.Model, state: TrainState) -> None:
    """Gives `model`, a plain one, the weights and statistics that are evaluated."""
    weights, statistics = state.evaluated
    with tf.device("CPU:0"):
        for variable, value in zip(model.trainable_variables, weights, strict=True):
            variable.assign(first_copy(value))
        for variable, value in zip(statistics_of(model), statistics, strict=True):
            variable.assign(first_copy(value))


def own_copies(variables: Sequence[Any]) -> list[Any]:
    """Of variables of which every replica has a copy, those of the replica that asks."""
    return [own_part(variable.values) if hasattr(variable, "values") else variable for variable in variables]


def own_variables(state: TrainState) -> dict[str, list[Any]]:
    """All that a step changes, of the replica that asks."""
    return {name: own_copies(getattr(state, name)) for name in STATE_FIELDS}


def first_variables(state: TrainState) -> dict[str, list[Any]]:
    """The first local replica's."""
    return {
        name: [variable.values[0] if hasattr(variable, "values") else variable for variable in getattr(state, name)]
        for name in STATE_FIELDS
    }


def first_copy(variable: Any) -> np.ndarray:
    """The first local replica's value."""
    return (variable.values[0] if hasattr(variable, "values") else variable).numpy()


def _build(config: TrainConfig, image_size: int, num_classes: int, **options: Any) -> keras.Model:
    options |= {
        name: getattr(config, name) for name in ("width", "head", "dense_width", "batch_norm", "dropout", "seed")
    }
    with tf.device("CPU:0"):
        model = build_vgg(config.arch, image_size, 1, num_classes, **options)
    if config.freeze:
        freeze_convolutions(model)
    return model


def _per_replica(value: Any) -> Any:
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _is_seed(variable: Any) -> bool:
    return str(variable.path).endswith("seed_generator_state")


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
