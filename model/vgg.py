"""VGG11, 13, 16 and 19 (Simonyan and Zisserman, 2014), for any image size and class count."""

from __future__ import annotations

from typing import Any, Literal

import keras

from model.errors import TrainError

Pooling = Literal["layer", "reshape"]

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
    pooling: Pooling = "layer",
) -> keras.Model:
    """Already normalised images [B, image_size, image_size, channels] to float32 logits [B, num_classes].

    `width` scales the convolutions' filters. The "dense" head is Simonyan and Zisserman's, two layers of `dense_width`
    units; "pool" is the mean of each feature map in their place, normalised like the maps, with the same dropout.
    `dtype` is a Keras policy, for instance "mixed_bfloat16". The training step takes `pooling="reshape"`: the same
    function, with a gradient that is deterministic under XLA; "layer" keeps to standard layers, for export. Weights fit
    both. An image that a pool would shrink to nothing isn't pooled again, so small sizes work too.
    """
    if arch not in BLOCKS:
        raise TrainError(f"--arch {arch}: expected one of {', '.join(BLOCKS)}")
    if image_size < _MIN_IMAGE_SIZE:
        raise TrainError(f"image size {image_size}: expected {_MIN_IMAGE_SIZE} pixels or more")
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
            x = _rectified(x, batch_norm, dtype, name)
        if x.shape[1] >= 2:
            x = _max_pool(x, pooling, dtype, f"block{block}_pool")
    if head == "pool":
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="mean")(x)
        if batch_norm:
            # Means differ little from image to image beside what they have in common. Without this a last layer of
            # thousands of classes sees the common part only, and the loss stays at ln(num_classes) for an epoch.
            x = _batch_norm(x, dtype, "mean_norm")
        x = keras.layers.Dropout(dropout, seed=next(keras_seeds), dtype=dtype, name="dropout1")(x)
    else:
        x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
        for number in (1, 2):
            name = f"dense{number}"
            x = keras.layers.Dense(
                dense_width, use_bias=not batch_norm, kernel_initializer=he_normal(), dtype=dtype, name=name
            )(x)
            x = _rectified(x, batch_norm, dtype, name)
            x = keras.layers.Dropout(dropout, seed=next(keras_seeds), dtype=dtype, name=f"dropout{number}")(x)
    # The last layer starts small: the loss starts at ln(num_classes), not above it.
    small = keras.initializers.RandomNormal(stddev=0.01, seed=next(keras_seeds))
    x = keras.layers.Dense(num_classes, kernel_initializer=small, dtype=dtype, name="logits")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(x)
    return keras.Model(inputs, logits, name=arch)


def _rectified(x: Any, batch_norm: bool, dtype: str, name: str) -> Any:
    if batch_norm:
        x = _batch_norm(x, dtype, f"{name}_norm")
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)


def _batch_norm(x: Any, dtype: str, name: str) -> Any:
    return keras.layers.BatchNormalization(momentum=_STATISTICS_MOMENTUM, dtype=dtype, name=name)(x)


def _max_pool(x: Any, pooling: Pooling, dtype: str, name: str) -> Any:
    """Max-pool 2 × 2, stride 2; an odd last row or column is left out, as the layer does."""
    if pooling == "layer":
        return keras.layers.MaxPooling2D(2, dtype=dtype, name=name)(x)
    side, channels = x.shape[1] // 2, x.shape[3]
    if x.shape[1] % 2:
        x = keras.layers.Cropping2D(((0, 1), (0, 1)), dtype=dtype)(x)
    x = keras.layers.Reshape((side, 2, side, 2, channels), dtype=dtype)(x)
    return keras.ops.max(x, axis=(2, 4))
