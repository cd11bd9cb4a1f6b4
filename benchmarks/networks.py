"""The networks that every framework trains here, their arithmetic, their first weights, and their data.

A network is a list of layers in words that each worker turns into its framework's own. The weights and the data are
made with NumPy, so that all frameworks start from the same numbers and must reach the same loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "IMAGE", "NETWORKS", "Layer", "Network", "first_weights", "images", "resnet20"]

IMAGE = (28, 28, 1)
"""Height, width and channels of an image."""

CLASSES = 10
KERNEL = 3
POOL = 2


@dataclass(frozen=True)
class Layer:
    """One layer: ``conv`` (3x3, valid), ``pool`` (max, 2x2), ``flatten`` or ``dense``."""

    kind: str
    units: int = 0
    relu: bool = False


@dataclass(frozen=True)
class Network:
    """A named stack of layers that ends in logits."""

    name: str
    layers: tuple[Layer, ...]

    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes without the batch: the image's, then each layer's output."""
        shapes: list[tuple[int, ...]] = [IMAGE]
        for layer in self.layers:
            shapes.append(_output_shape(layer, shapes[-1]))
        return shapes

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Kernel and bias of each layer that has them: (height, width, in, out) or (in, out), then (out,)."""
        found: list[tuple[int, ...]] = []
        for layer, shape in zip(self.layers, self.shapes(), strict=False):
            if layer.kind == "conv":
                found += [(KERNEL, KERNEL, shape[-1], layer.units), (layer.units,)]
            elif layer.kind == "dense":
                found += [(shape[0], layer.units), (layer.units,)]
        return found

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(prod(shape) for shape in self.weight_shapes())

    def step_flops(self) -> int:
        """FLOPs of one sample's training step, by the dense direct algorithm.

        A multiplication and an addition count as two. Products only: forward, weight gradient, and the input
        gradient of every layer but the first. An algorithm that does less arithmetic shows as a larger share of peak.
        """
        total = 0
        products = 2  # the first layer's input needs no gradient
        for layer, before, after in zip(self.layers, self.shapes(), self.shapes()[1:], strict=False):
            if layer.kind == "conv":
                total += products * 2 * prod(after) * KERNEL * KERNEL * before[-1]
            elif layer.kind == "dense":
                total += products * 2 * prod(after) * before[0]
            if layer.kind in ("conv", "dense"):
                products = 3
        return total


def _output_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if layer.kind == "conv":
        return (shape[0] - KERNEL + 1, shape[1] - KERNEL + 1, layer.units)
    if layer.kind == "pool":
        return (shape[0] // POOL, shape[1] // POOL, shape[2])
    if layer.kind == "flatten":
        return (prod(shape),)
    return (layer.units,)


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "conv32-dense128",
            (
                Layer("conv", 32, relu=True),
                Layer("pool"),
                Layer("flatten"),
                Layer("dense", 128, relu=True),
                Layer("dense", CLASSES),
            ),
        ),
        Network(
            "conv32-conv64-dense64",
            (
                Layer("conv", 32, relu=True),
                Layer("pool"),
                Layer("conv", 64, relu=True),
                Layer("pool"),
                Layer("flatten"),
                Layer("dense", 64, relu=True),
                Layer("dense", CLASSES),
            ),
        ),
    )
}
"""The same networks as `chainrule.networks` has under these names, less the rescaling and the softmax."""


def first_weights(network: Network, seed: int = 0) -> list[NDArray[np.float32]]:
    """Glorot-uniform kernels and zero biases, in the order and shapes of `Network.weight_shapes`."""
    generator = np.random.default_rng(seed)
    weights = []
    for shape in network.weight_shapes():
        area = prod(shape[:-2])
        limit = sqrt(6 / (area * (shape[-2] + shape[-1]))) if len(shape) > 1 else 0.0
        weights.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return weights


def images(samples: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures of ten kinds of strokes, about four fifths of them background, as handwritten digits are.

    Returns:
        ``x (samples, 28, 28, 1)`` in 0..1 and labels ``y (samples,)``.
    """
    generator = np.random.default_rng(seed)
    strokes = _smooth(generator.standard_normal((CLASSES, *IMAGE[:2])))
    y = generator.integers(0, CLASSES, samples)
    own = _smooth(generator.standard_normal((samples, *IMAGE[:2]), dtype=np.float32))
    mixed = strokes[y] + 0.4 * own
    threshold = np.quantile(mixed[: min(samples, 256)], 0.8)
    x = np.clip((mixed - threshold) * 1.5, 0, 1).astype(np.float32)
    return np.ascontiguousarray(x[..., np.newaxis]), y.astype(np.int64)


def _smooth(noise: NDArray[Any]) -> NDArray[Any]:
    """Blur over the last two axes by repeated neighbour means, then scale to unit deviation."""
    for axis in (1, 2):
        for _ in range(3):
            noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 3
    scaled: NDArray[Any] = noise / noise.std()
    return scaled


def resnet20(framework: Any, shape: tuple[int, ...], classes: int = CLASSES) -> Any:
    """ResNet-20 for small pictures: three stages of three residual blocks with 16, 32 and 64 channels.

    About 41 million multiply-adds forward for a picture of 32x32x3; logits.

    Args:
        framework: the module of chainrule or Keras.
        shape: height, width and channels of a picture, 8 bits each.
        classes: how many there are.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, section 4.2.
    """
    layers = framework.layers

    def unit(x: Any, channels: int, stride: int = 1, kernel: int = KERNEL) -> Any:
        x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    def block(x: Any, channels: int, stride: int) -> Any:
        inside = layers.ReLU()(unit(x, channels, stride))
        beside = unit(x, channels, stride, kernel=1) if stride > 1 else x
        return layers.ReLU()(layers.Add()([unit(inside, channels), beside]))

    pictures = framework.Input(shape)
    x = layers.ReLU()(unit(layers.Rescaling(1 / 255)(pictures), 16))
    for channels in (16, 32, 64):
        for number in range(3):
            x = block(x, channels, stride=2 if channels > 16 and number == 0 else 1)
    x = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return framework.Model(pictures, x, name="resnet20")
