"""The named networks: their layers, sizes and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import ops, set_seed
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.op import Array
from chainrule.layers import BatchNormalization
from chainrule.models import Model
from chainrule.networks import (
    NETWORKS,
    conv32_conv64_dense64,
    conv32_dense128,
    digits,
    get_network,
    resnet20,
)
from chainrule.optimizers import Adam


def kinds(model: Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def test_conv32_conv64_dense64_has_its_known_size() -> None:
    model = conv32_conv64_dense64((28, 28, 1), 10)
    assert model.count_params() == 121_930
    pooled = ["Conv2D", "MaxPooling2D"]
    assert kinds(model) == ["Rescaling", *pooled, *pooled, "Flatten", "Dense", "Dense"]


def test_conv32_dense128() -> None:
    model = conv32_dense128((28, 28, 1), 10)
    assert model.count_params() == (9 + 1) * 32 + (13 * 13 * 32 + 1) * 128 + (128 + 1) * 10
    assert kinds(model) == ["Rescaling", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]


def test_digits_takes_the_digits_by_default() -> None:
    model = digits()
    assert model.input_spec is not None
    assert model.input_spec.shape[1:] == (8, 8, 1)
    assert model.output_spec(model.input_spec).shape[1] == 10


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_outputs_are_probabilities(network: Callable[..., Model]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 14, 3), np.uint8)
    outputs = network((12, 14, 3), 4).predict(pixels)
    assert outputs.shape == (3, 4)
    assert (outputs > 0).all()
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_pixels_are_rescaled_inside(network: Callable[..., Model]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1)).astype(np.float32)
    raw, rescaled = network((12, 12, 1), 4, scale=1 / 255), network((12, 12, 1), 4, scale=1.0)
    rescaled.set_weights(raw.get_weights())
    np.testing.assert_allclose(raw.predict(pixels), rescaled.predict(pixels / 255), rtol=1e-4)


def test_an_image_that_is_too_small_names_the_layer() -> None:
    with pytest.raises(ShapeError, match="max_pooling2d"):
        conv32_conv64_dense64((8, 8, 1), 10)


def test_an_unknown_network_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="unknown network 'lenet'; expected one of conv32-dense128, "):
        get_network("lenet")


# --- Networks with batch normalisation -----------------------------------------------------------------------

SMALLEST = {"conv32-conv64-conv128": 8, "conv32-conv64-conv128-conv256": 8, "resnet20": 4}


CHAINS = {
    "conv32-conv64-conv128": ((28, 28, 1), (32, 64, 128), (4, 4)),
    "conv32-conv64-conv128-conv256": ((32, 32, 3), (32, 64, 128, 256), (2, 2)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_convolutions(name: str) -> None:
    input_shape, filters, last = CHAINS[name]
    model = get_network(name)(input_shape, 10)
    stage = ["Conv2D", "BatchNormalization", "Activation", "MaxPooling2D"]
    assert kinds(model) == ["Rescaling", *len(filters) * stage, "Flatten", "Dense"]
    convolutions = sum(9 * before * after for before, after in zip((input_shape[-1], *filters), filters, strict=False))
    dense = (last[0] * last[1] * filters[-1] + 1) * 10
    assert model.count_params() == convolutions + 4 * sum(filters) + dense


@pytest.mark.slow
def test_resnet20_has_twenty_layers_and_the_papers_weights() -> None:
    model = resnet20((32, 32, 3), 10)
    kernels = [weight for weight in model.weights if weight.name.endswith("/kernel")]
    assert len([kernel for kernel in kernels if kernel.shape[:2] != (1, 1)]) == 20
    paper = 269_722  # with padded shortcuts; weights of convolutions, of normalisation, and of the dense layer
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert sum(weight.data.size for weight in model.trainable_weights) == paper + projections


def _resnet20_by_hand(weights: list[Array], pixels: Array) -> Array:
    """Probabilities of the network of He et al., in the order in which its weights were made."""
    left = iter(weights)

    def convolution(x: Any, strides: int = 1) -> Any:
        kernel, scale, shift, mean, variance = (next(left) for _ in range(5))
        y = ops.conv2d(x, kernel, strides, "same")
        return (y - mean) / np.sqrt(variance + np.float32(1e-3)) * scale + shift

    x = ops.relu(convolution(ops.cast(pixels, "float32") / 255))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            found = convolution(ops.relu(convolution(x, strides)))
            x = ops.relu(found + (convolution(x, strides) if strides == 2 else x))
        assert x.shape[-1] == filters
    kernel, bias = next(left), next(left)
    assert next(left, None) is None
    return ops.softmax(ops.mean(x, axis=(1, 2)) @ kernel + bias).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (9, 13)])
def test_resnet20_computes_what_its_formula_says(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    model = resnet20((*size, 3), 10)
    for weight in model.weights:
        if not weight.name.endswith("/kernel"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape).astype(np.float32))
    pixels = random.integers(0, 256, (3, *size, 3), np.uint8)
    expected = _resnet20_by_hand(model.get_weights(), pixels)
    np.testing.assert_allclose(model.predict(pixels), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", SMALLEST)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=15)
@pytest.mark.slow
def test_any_size_works_or_is_named(name: str, height: int, width: int, channels: int) -> None:
    network = get_network(name)
    if min(height, width) >= SMALLEST[name]:
        model = network((height, width, channels), 4)
        assert model.input_spec is not None
        assert model.output_spec(model.input_spec).shape[1:] == (4,)
        return
    with pytest.raises(ShapeError, match=f"network '{name}' takes .* of {SMALLEST[name]} .* got {height}x{width} "):
        network((height, width, channels), 4)


@pytest.mark.parametrize("name", SMALLEST)
def test_what_is_no_image_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"network '{name}' takes images .*\(28, 28\); add a channel axis"):
        get_network(name)((28, 28), 10)


@pytest.mark.parametrize("name", SMALLEST)
def test_running_statistics_follow_a_short_training(name: str) -> None:
    layers = [layer for layer in get_network(name)((16, 16, 1), 2).layers if isinstance(layer, BatchNormalization)]
    assert layers
    assert all(layer.momentum == 0.9 for layer in layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_learns_the_colour_of_a_square(name: str) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 256)
    pixels = random.integers(0, 100, (256, 16, 16, 3), np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = random.integers(0, 12, 2)
        image[row : row + 4, column : column + 4] = colours[label]
    set_seed(0)
    model = get_network(name)((16, 16, 3), 4)
    model.compile(Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pixels[:192], labels[:192], batch_size=16, epochs=8, verbose=0)
    assert model.evaluate(pixels[192:], labels[192:], return_dict=True)["accuracy"] > 0.9
