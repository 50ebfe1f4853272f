"""What a training step changes: weights, batch statistics, moments, moving averages. Everything a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model.network.devices import own_part
from model.network.vgg import build_vgg
from model.train.options import TrainConfig
from model.train.start import freeze_convolutions
from model.train.update import INITIAL_LOSS_SCALE


class TrainState(tf.Module):
    """Variables of which every replica has its own copy, all the same, since all make the same update.

    The Keras model is a function of them and keeps no state of its own: steps call it with the values to use.
    """

    def __init__(self, model: keras.Model, strategy: Any, config: TrainConfig, *, loss_scaling: bool = False) -> None:
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
            self.loss_scale = [_per_replica(np.float32(INITIAL_LOSS_SCALE))] if loss_scaling else []
            self.good_steps = [_per_replica(np.int32(0))] if loss_scaling else []

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
