"""VGG11, 13, 16 and 19 (Simonyan and Zisserman, 2014), for any image size and class count."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from model.network.normalization import NormalizedReLU
from schemas.errors import UserError

Gradients = Literal["derived", "written"]

BLOCKS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Architecture -> the convolutions of each of its five blocks."""

_FILTERS = (64, 128, 256, 512, 512)
_STATISTICS_MOMENTUM = 0.9
_MIN_IMAGE_SIZE = 8
_POOL = 2
_PIXEL_MAX = 255.0


def build_vgg(
    arch: str,
    image_size: int,
    channels: int,
    num_classes: int,
    *,
    width: float = 1.0,
    head: str = "dense",
    dense_width: int = 4096,
    batch_norm: bool = True,
    dropout: float = 0.5,
    seed: int = 0,
    dtype: str = "float32",
    gradients: Gradients = "derived",
) -> keras.Model:
    """What `normalize` gives, [B, image_size, image_size, channels] to float32 logits [B, num_classes].

    `width` scales the convolutions' filters. The "dense" head is Simonyan and Zisserman's, two layers of `dense_width`
    units; "pool" is the mean of each feature map in their place, normalised like the maps, with the same dropout.
    `dtype` is a Keras policy, for instance "mixed_bfloat16", of all layers but the last. The training step takes
    `gradients="written"`: the same function, with gradients that are deterministic under XLA and read less memory;
    "derived" keeps to standard layers, for export. Weights fit both. An image that a pool would shrink to nothing isn't
    pooled again, so small sizes work.
    """
    if arch not in BLOCKS:
        raise UserError(f"--arch {arch}: expected one of {', '.join(BLOCKS)}")
    if image_size < _MIN_IMAGE_SIZE:
        raise UserError(f"image size {image_size}: expected {_MIN_IMAGE_SIZE} pixels or more")
    keras_seeds = iter(range(seed * 1_000, (seed + 1) * 1_000))

    def he_normal() -> Any:
        return keras.initializers.HeNormal(seed=next(keras_seeds))

    inputs = keras.Input((image_size, image_size, channels), name="image", dtype="float32")
    x = inputs
    for block, (convolutions, filters) in enumerate(zip(BLOCKS[arch], _FILTERS, strict=True), start=1):
        filters = max(1, round(filters * width))
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=not batch_norm,  # batch normalisation has one of its own
                kernel_initializer=he_normal(),
                dtype=dtype,
                name=name,
            )(x)
            pool = f"block{block}_pool" if number == convolutions and x.shape[1] >= _POOL else None
            x = _rectified(x, batch_norm, gradients, dtype, name, pool)
    if head == "pool":
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="mean")(x)
        if batch_norm:
            # Means differ little from image to image beside what they have in common. Without this a last layer of
            # thousands of classes sees the common part only, and the loss stays at ln(num_classes) for an epoch.
            x = _batch_norm(x, gradients, dtype, "mean_norm")
        x = keras.layers.Dropout(dropout, seed=next(keras_seeds), dtype=dtype, name="dropout1")(x)
    else:
        x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
        for number in (1, 2):
            name = f"dense{number}"
            x = keras.layers.Dense(
                dense_width, use_bias=not batch_norm, kernel_initializer=he_normal(), dtype=dtype, name=name
            )(x)
            x = _rectified(x, batch_norm, gradients, dtype, name)
            x = keras.layers.Dropout(dropout, seed=next(keras_seeds), dtype=dtype, name=f"dropout{number}")(x)
    # The last layer starts small: the loss starts at ln(num_classes), not above it. It is computed in float32: of
    # thousands of logits with 16 bits two are the highest now and then. It has a thousandth of the network's work.
    small = keras.initializers.RandomNormal(stddev=0.01, seed=next(keras_seeds))
    logits = keras.layers.Dense(num_classes, kernel_initializer=small, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=arch)


def normalize(images: Any) -> Any:
    """uint8 to float32 in 0 … 1, what the model takes: full ink is 1."""
    return tf.cast(images, tf.float32) / _PIXEL_MAX


def _rectified(x: Any, batch_norm: bool, gradients: Gradients, dtype: str, name: str, pool: str | None = None) -> Any:
    """Batch normalisation if asked for, ReLU, and a layer called `pool` if it has a name: 2 × 2, stride 2."""
    if batch_norm and gradients == "written":
        options: dict[str, Any] = {"momentum": _STATISTICS_MOMENTUM, "dtype": dtype, "name": f"{name}_norm"}
        return NormalizedReLU(pooled=pool is not None, **options)(x)
    if batch_norm:
        x = _batch_norm(x, gradients, dtype, f"{name}_norm")
    x = keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)
    return x if pool is None else _max_pool(x, gradients, dtype, pool)


def _batch_norm(x: Any, gradients: Gradients, dtype: str, name: str) -> Any:
    options: dict[str, Any] = {"momentum": _STATISTICS_MOMENTUM, "dtype": dtype, "name": name}
    if gradients == "written":
        return NormalizedReLU(rectified=False, **options)(x)
    return keras.layers.BatchNormalization(**options)(x)


def _max_pool(x: Any, gradients: Gradients, dtype: str, name: str) -> Any:
    """An odd last row or column is left out, as the layer does."""
    if gradients == "derived":
        return keras.layers.MaxPooling2D(_POOL, dtype=dtype, name=name)(x)
    side, channels = x.shape[1] // _POOL, x.shape[3]
    if x.shape[1] % _POOL:
        x = keras.layers.Cropping2D(((0, 1), (0, 1)), dtype=dtype)(x)
    x = keras.layers.Reshape((side, _POOL, side, _POOL, channels), dtype=dtype)(x)
    return keras.ops.max(x, axis=(2, 4))
