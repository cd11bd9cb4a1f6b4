"""Convolution, pooling and products at odd shapes, with batches shorter than the planned one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.engines import Executable as Reference
from chainrule.engines.native.executable import Executable as Native
from chainrule.graph import Graph, input_spec
from tests.engines.native.support import assert_results_agree, rng
from tests.ops.harness import NATIVE_TOLERANCE, Array

pytestmark = pytest.mark.usefixtures("no_cache")

BATCHES = (33, 7, 1, 33)
"""The first one is planned for; after it come shorter ones, and it again."""
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])


@dataclass(frozen=True)
class Shape:
    """One convolution."""

    image: tuple[int, int, int]
    outputs: int
    taps: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: Any = "valid"
    dilation: int | tuple[int, int] = 1
    groups: int = 1

    def __str__(self) -> str:
        parts = [f"{'x'.join(map(str, self.image))}->{self.outputs}", "x".join(map(str, self.taps))]
        parts += [f"s{self.stride}", f"p{self.padding}", f"d{self.dilation}", f"g{self.groups}"]
        return " ".join(parts)


WIDE = ((3, 4), (4, 3))
SHAPES = (
    *(Shape((5, 6, c), k) for c, k in itertools.product((1, 3, 5, 17), (1, 3, 5, 17)) if c != k),
    # One pixel, and maps smaller than kernel and stride.
    Shape((1, 1, 3), 5, (1, 1)),
    Shape((1, 1, 3), 5, padding="same"),
    Shape((1, 1, 17), 17, (5, 5), padding="same"),
    Shape((2, 3, 3), 5, (5, 7), padding=WIDE),
    Shape((2, 3, 3), 5, (4, 4), stride=(5, 6), padding=WIDE),
    Shape((3, 3, 3), 4, (1, 1), stride=7),
    Shape((3, 2, 1), 1, (2, 2), stride=4, padding="same"),
    Shape((1, 9, 5), 3, (1, 3), padding="same"),
    Shape((9, 1, 5), 3, (3, 1), stride=(2, 1)),
    # Strides that leave taps or pixels out.
    Shape((7, 8, 3), 5, stride=2),
    Shape((7, 8, 3), 5, stride=(3, 2), padding="same"),
    Shape((7, 7, 3), 5, (2, 2), stride=3),
    Shape((8, 8, 5), 17, (5, 3), stride=2, padding="same"),
    Shape((6, 6, 3), 5, padding=((0, 2), (3, 0))),
    # Dilation.
    Shape((7, 9, 3), 5, dilation=2),
    Shape((5, 5, 3), 5, (2, 3), dilation=(3, 2), padding="same"),
    Shape((9, 9, 3), 5, (2, 2), stride=2, dilation=3, padding="same"),
    # Groups and depthwise.
    Shape((5, 5, 6), 9, groups=3, padding="same"),
    Shape((5, 5, 5), 5, groups=5),
    Shape((6, 5, 17), 34, groups=17, stride=2, padding="same"),
    Shape((5, 5, 4), 6, (2, 2), groups=2, dilation=2),
)


def convolutions(shapes: Sequence[Shape], dtype: str) -> tuple[Graph, Any]:
    """Forward pass and both gradients of each shape in one graph, and its inputs for a batch size."""
    random = rng(5)
    kernels = [random.normal(size=(*s.taps, s.image[2] // s.groups, s.outputs)).astype(dtype) for s in shapes]

    def forward(x: Any, kernel: Any, s: Shape) -> Any:
        return ops.conv2d(x, kernel, s.stride, s.padding, s.dilation, s.groups)

    def everything(*items: Any) -> list[Any]:
        results = []
        for i, shape in enumerate(shapes):
            x, kernel, g = items[3 * i : 3 * i + 3]
            y = forward(x, kernel, shape)
            results += [y, *cr.gradients([y], [x, kernel], [g])]
        return results

    specs, sizes = [], []
    for shape, kernel in zip(shapes, kernels, strict=True):
        y = forward(cr.tensor(np.zeros((1, *shape.image), dtype)), cr.tensor(kernel), shape)
        sizes.append(y.shape[1:])
        image = input_spec((None, *shape.image), dtype)
        specs += [image, input_spec(kernel.shape, dtype), input_spec((None, *y.shape[1:]), dtype)]

    def inputs(n: int) -> list[Array]:
        random = rng(n)
        return [
            array
            for shape, kernel, size in zip(shapes, kernels, sizes, strict=True)
            for array in (
                random.normal(size=(n, *shape.image)).astype(dtype),
                kernel,
                random.normal(size=(n, *size)).astype(dtype),
            )
        ]

    return cr.trace(everything, *specs, name="convolutions"), inputs


def agree_at_every_batch(graph: Graph, inputs: Any, **settings: Any) -> None:
    """Planned for the largest batch, run with it and shorter ones, without compiling anew."""
    native, reference = Native(graph, batch=max(BATCHES), **settings), Reference(graph)
    planned = native._compiled
    for n in BATCHES:
        given = inputs(n)
        assert_results_agree(native(*given), reference(*given), NATIVE_TOLERANCE, f"batch {n}, result")
    assert native._compiled is planned


GROUPS = {"channels": SHAPES[:12], "small maps": SHAPES[12:21], "strides": SHAPES[21:26], "others": SHAPES[26:]}


@pytest.mark.slow
@FLOATS
@pytest.mark.parametrize("name", GROUPS)
def test_convolutions_and_their_gradients(name: str, dtype: str) -> None:
    graph, inputs = convolutions(GROUPS[name], dtype)
    agree_at_every_batch(graph, inputs, threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[::4], ids=str)
def test_checked_convolutions(shape: Shape) -> None:
    """No access strays; a scratch or a panel that is too small would be named."""
    graph, inputs = convolutions([shape], "float32")
    agree_at_every_batch(graph, inputs, checked=True)


POOLS = (
    ((1, 1, 3), 1, None, "valid"),
    ((1, 1, 3), 3, 2, "same"),
    ((5, 7, 5), 2, None, "valid"),
    ((5, 7, 1), (3, 2), (2, 3), "same"),
    ((4, 4, 17), 3, 1, "valid"),
    ((6, 6, 3), 2, 5, "valid"),
    ((5, 5, 3), (5, 5), 7, "same"),
    ((7, 1, 2), (3, 1), (2, 1), ((1, 1), (0, 0))),
)


@pytest.mark.slow
@FLOATS
@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
def test_pooling_and_its_gradient(kind: str, dtype: str) -> None:
    def everything(*items: Any) -> list[Any]:
        results = []
        for x, weights, (_, size, stride, padding) in zip(items[::2], items[1::2], POOLS, strict=True):
            y = getattr(ops, kind)(x, size, stride, padding)
            weighed = ops.sum(y * y * y, axis=(1, 2, 3)) + ops.sum(x * weights, axis=(1, 2, 3))
            results += [y, *cr.gradients([ops.sum(weighed)], [x])]
        return results

    images = [image for image, *_ in POOLS for _ in range(2)]
    graph = cr.trace(everything, *(input_spec((None, *image), dtype) for image in images), name=kind)
    agree_at_every_batch(graph, lambda n: [rng(n + i).normal(size=(n, *s)).astype(dtype) for i, s in enumerate(images)])


@pytest.mark.slow
@FLOATS
def test_products_and_their_gradients(dtype: str) -> None:
    sizes = [(1, 1), (1, 17), (17, 1), (3, 5), (5, 3), (17, 17), (33, 31), (300, 2), (2, 300), (700, 5)]

    def everything(*items: Any) -> list[Any]:
        results = []
        for x, weights, g in zip(items[::3], items[1::3], items[2::3], strict=True):
            y = ops.matmul(x, weights)
            results += [y, *cr.gradients([y], [x, weights], [g])]
        return results

    specs = [
        spec
        for a, b in sizes
        for spec in (input_spec((None, a), dtype), input_spec((a, b), dtype), input_spec((None, b), dtype))
    ]
    graph = cr.trace(everything, *specs, name="products")

    def inputs(n: int) -> list[Array]:
        random = rng(n)
        return [
            random.normal(size=tuple(size if isinstance(size, int) else n for size in spec.shape)).astype(dtype)
            for spec in specs
        ]

    agree_at_every_batch(graph, inputs, threads=2)


@FLOATS
@pytest.mark.slow
def test_products_of_several_matrices(dtype: str) -> None:
    """Leading axes on the left, on both sides, and a batch that is part of a size."""
    specs = [input_spec((None, 3, 5), dtype), input_spec((5, 7), dtype), input_spec((None, 5, 2), dtype)]

    def everything(x: Any, weights: Any, z: Any) -> list[Any]:
        flat = ops.matmul(ops.reshape(x, (x.shape[0] * 3, 5)), weights)
        return [ops.matmul(x, weights), ops.matmul(x, z), flat, *cr.gradients([ops.sum(flat * flat)], [x, weights])]

    graph = cr.trace(everything, *specs, name="products")

    def inputs(n: int) -> list[Array]:
        random = rng(n)
        return [random.normal(size=s).astype(dtype) for s in ((n, 3, 5), (5, 7), (n, 5, 2))]

    agree_at_every_batch(graph, inputs)
