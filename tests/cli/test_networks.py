"""The named networks: their layers, sizes and outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from chainrule.errors import ConfigError, ShapeError
from chainrule.models import Sequential
from chainrule.networks import NETWORKS, conv32_conv64_dense64, conv32_dense128, digits, get_network


def kinds(model: Sequential) -> list[str]:
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


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_outputs_are_probabilities(network: Callable[..., Sequential]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 14, 3), np.uint8)
    outputs = network((12, 14, 3), 4).predict(pixels)
    assert outputs.shape == (3, 4)
    assert (outputs > 0).all()
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_pixels_are_rescaled_inside(network: Callable[..., Sequential]) -> None:
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
