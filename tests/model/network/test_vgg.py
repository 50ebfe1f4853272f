from __future__ import annotations

import keras
import numpy as np
import pytest

from model.network.vgg import build_vgg
from schemas.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "channels", "classes", "parameters"),
    [("vgg19", 3, 1000, 143_667_240), ("vgg16", 1, 10, 134_300_362)],
)
def test_parameter_count_is_that_of_the_paper(arch: str, channels: int, classes: int, parameters: int) -> None:
    model = build_vgg(arch, 224, channels, classes, batch_norm=False)
    assert model.count_params() == parameters


def test_vgg19_at_64_pixels_and_3754_classes() -> None:
    shapes = [tuple(v.shape) for v in _narrow("vgg19", 64, classes=3754, batch_norm=False).trainable_variables]
    assert len(shapes) == 2 * (16 + 3)
    assert shapes[-6] == (2 * 2 * 64, 32)
    assert shapes[-2:] == [(32, 3754), (3754,)]


def test_the_pooling_head_is_the_normalised_mean_of_each_map_and_one_layer() -> None:
    model = _narrow("vgg19", 64, classes=3754, head="pool", dropout=0.0)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    assert shapes[-2:] == [(64, 3754), (3754,)]
    assert len(shapes) == 3 * 16 + 2 + 2
    inner = keras.Model(model.inputs[0], [model.get_layer("block5_pool").output, model.output])
    images = np.random.default_rng(0).random((16, 64, 64, 1), np.float32)
    maps, logits = (np.asarray(found) for found in inner(images, training=True))
    means = maps.mean(axis=(1, 2))
    normal = (means - means.mean(0)) / np.sqrt(means.var(0) + 1e-3)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(logits, normal @ kernel + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_every_weighted_layer_but_the_last_is_normalised(head: str) -> None:
    model = _narrow("vgg11", 32, head=head)
    kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    for layer in kernels[:-1]:
        assert not layer.use_bias
        assert isinstance(model.get_layer(f"{layer.name}_norm"), keras.layers.BatchNormalization)


def test_the_means_are_normalised_by_their_moving_statistics_outside_training() -> None:
    model = _narrow("vgg11", 32, head="pool")
    norm = model.get_layer("mean_norm")
    rng = np.random.default_rng(0)
    shift, scale, mean, variance = (rng.uniform(0.5, 1.5, 64).astype(np.float32) for _ in range(4))
    norm.set_weights([scale, shift, mean, variance])
    inner = keras.Model(model.inputs[0], [model.get_layer("mean").output, model.output])
    means, logits = (np.asarray(found) for found in inner(rng.random((3, 32, 32, 1), np.float32), training=False))
    kernel, bias = model.get_layer("logits").get_weights()
    normal = (means - mean) / np.sqrt(variance + 1e-3) * scale + shift
    np.testing.assert_allclose(logits, normal @ kernel + bias, rtol=1e-4, atol=1e-4)


def test_without_batch_normalisation_the_pooling_head_has_none_either() -> None:
    model = _narrow("vgg11", 32, head="pool", batch_norm=False)
    assert not [layer for layer in model.layers if "norm" in layer.name]


@pytest.mark.parametrize("size", [8, 28, 32, 50, 64])
def test_any_image_size_gives_float32_logits(size: int) -> None:
    model = _narrow("vgg11", size, dtype="mixed_bfloat16")
    logits = model(np.zeros((2, size, size, 1), np.float32))
    assert logits.shape == (2, 10)
    assert logits.dtype == "float32"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("head", ["pool", "dense"])
def test_the_last_layer_has_all_bits_of_float32_whatever_the_policy(head: str, policy: str) -> None:
    """Held to NumPy. Among thousands of logits of 16 bits two are the highest now and then."""
    model = _narrow("vgg11", 32, classes=3_000, head=head, dtype=policy)
    inner = keras.Model(model.inputs[0], [model.layers[-1].input, model.output])
    images = np.random.default_rng(1).random((64, 32, 32, 1), np.float32)
    features, logits = (np.asarray(found).astype(np.float64) for found in inner(images, training=True))
    kernel, bias = (weight.astype(np.float64) for weight in model.get_layer("logits").get_weights())
    np.testing.assert_allclose(logits, features @ kernel + bias, rtol=1e-4, atol=1e-6)
    assert (logits == logits.max(1, keepdims=True)).sum() == len(images)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("size", [32, 50])
def test_both_kinds_of_gradients_are_of_the_same_function_of_the_same_weights(size: int, batch_norm: bool) -> None:
    derived, written = (
        _narrow("vgg13", size, gradients=gradients, batch_norm=batch_norm, dropout=0.0)
        for gradients in ("derived", "written")
    )
    images = np.random.default_rng(0).random((3, size, size, 1), np.float32)
    assert [v.path for v in derived.trainable_variables] == [v.path for v in written.trainable_variables]
    for a, b in zip(derived.trainable_variables, written.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for training in (False, True):
        np.testing.assert_allclose(
            derived(images, training=training), written(images, training=training), rtol=1e-4, atol=1e-4
        )


def test_the_plain_model_holds_standard_layers_only() -> None:
    for layer in _narrow("vgg19", 32).layers:
        assert layer.__class__.__module__.startswith("keras.src.layers"), layer
        assert hasattr(keras.layers, type(layer).__name__)


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (_narrow("vgg11", 32, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()


def test_signal_survives_nineteen_layers_without_batch_norm() -> None:
    """He initialisation: with a smaller one the activations of a plain VGG19 die out."""
    model = build_vgg("vgg19", 64, 1, 10, width=0.25, dense_width=64, batch_norm=False)
    inner = keras.Model(model.inputs[0], model.get_layer("flatten").output)
    images = np.random.default_rng(0).standard_normal((4, 64, 64, 1)).astype(np.float32)
    assert 0.1 < float(np.std(inner(images))) < 10


@pytest.mark.parametrize(
    ("arch", "size", "message"), [("vgg12", 64, "expected one of vgg11"), ("vgg11", 4, "expected 8 pixels or more")]
)
def test_what_cannot_be_built_is_refused(arch: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_vgg(arch, size, 1, 10)


def _narrow(arch: str, size: int, *, classes: int = 10, **options: object) -> keras.Model:
    return build_vgg(arch, size, 1, classes, width=1 / 8, dense_width=32, **options)  # type: ignore[arg-type]
