"""What both kinds of pooling share: attributes, shapes, elements of windows, test cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.dims import Shape, Size, bind_shape, format_shape
from chainrule.graph.op import Array, Spec, Trait
from chainrule.graph.tensor import Node, Tensor
from chainrule.ops._rules import require_float
from chainrule.ops._window import Padding, Pads, Pair, explicit_padding, pair, require_image, window_count

__all__ = [
    "CASES",
    "LINEAR",
    "NO_PADS",
    "ONE",
    "attributes",
    "attributes_of",
    "covering",
    "element",
    "explicit",
    "flops",
    "image_mask",
    "pad_image",
    "pool_spec",
    "pooled_shape",
]

ONE = (1, 1)
"""The dilation of every pooling."""

NO_PADS = ((0, 0), (0, 0))

LINEAR = frozenset({Trait.PER_SAMPLE, Trait.LINEAR})

CASES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("plain", (2, 4, 6, 2), {"size": (2, 2), "stride": (2, 2), "pads": NO_PADS}),
    ("left over", (1, 5, 5, 2), {"size": (2, 2), "stride": (2, 2), "pads": NO_PADS}),
    ("overlapping", (1, 5, 6, 2), {"size": (3, 3), "stride": (2, 2), "pads": NO_PADS}),
    ("overlapping, stride 1", (1, 4, 4, 1), {"size": (2, 3), "stride": (1, 1), "pads": NO_PADS}),
    ("padded", (1, 4, 5, 2), {"size": (3, 3), "stride": (2, 2), "pads": ((1, 1), (1, 0))}),
    ("gaps", (1, 7, 7, 1), {"size": (2, 2), "stride": (3, 3), "pads": NO_PADS}),
    ("one pixel", (2, 1, 1, 3), {"size": (1, 1), "stride": (1, 1), "pads": NO_PADS}),
)
"""Of each test case: its name, the shape of the image, the attributes."""


def attributes(x: Tensor, size: Any, stride: Any, padding: Padding) -> dict[str, Any]:
    """The attributes of a pooling, from what a user says."""
    sizes = pair(size, "the pooling size")
    strides = sizes if stride is None else pair(stride, "stride")
    spatial = x.shape[1:3] if x.ndim == 4 else (1, 1)  # the shape rule names the wrong rank
    return {
        "size": sizes,
        "stride": strides,
        "pads": explicit_padding(padding, spatial, sizes, strides, ONE),
    }


def explicit(window: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an unpooling, whose padding is none unless told otherwise."""
    return {"pads": NO_PADS, **window}


def pool_spec(x: Spec, *, size: Pair, stride: Pair, pads: Pads) -> Spec:
    """What pooling gives; every window must see some of the image."""
    require_image(x)
    require_float(x)
    count = window_count(x.shape[1:3], size, stride, pads, ONE)
    for axis, extent in enumerate(x.shape[1:3]):
        last = (count[axis] - 1) * stride[axis]
        if pads[axis][0] >= size[axis] or last >= pads[axis][0] + int(extent):
            raise ShapeError(
                f"padding {pads[axis]} lets a window of size {size[axis]} see no element of the image "
                f"{format_shape(x.shape)}; use padding smaller than the window"
            )
    return Spec((x.shape[0], *count, x.shape[3]), x.dtype)


def pad_image(x: Array, pads: Pads) -> Array:
    """An image with zeros around it."""
    return np.pad(x, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else x


def image_mask(shape: Sequence[int], pads: Pads) -> Array:
    """1 for the image and 0 for its padding: ``(1, height, width, 1)``."""
    return pad_image(np.ones((1, shape[1], shape[2], 1), bool), pads)


def attributes_of(node: Node) -> dict[str, Any]:
    """The attributes of a node that say where its windows are."""
    return {name: node.attrs[name] for name in ("size", "stride", "pads")}


def flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Any) -> Size:
    """One operation for each element of each window."""
    height, width = attrs["size"]
    return outputs[0].size * int(height * width)


def element(k: Any, x: Any, point: Any, offset: Any, stride: Pair, pads: Pads, padding: float) -> tuple[Any, Any]:
    """Whether position `offset` of the window at `point` lies in the image, and the element there, else `padding`."""
    n, i, j, c = point
    inside, place = k.constant(True, "bool"), []
    for axis, window in enumerate((i, j)):
        place.append(window * stride[axis] + offset[axis] - pads[axis][0])
        inside = inside & (place[axis] >= 0) & (place[axis] < k.size(x.shape[axis + 1]))
    return inside, k.guard(inside, x[n, place[0], place[1], c], padding)


def covering(k: Any, point: Any, count: Shape, size: Pair, stride: Pair, pads: Pads) -> Iterator[tuple[Any, Any, Any]]:
    """The windows that cover a pixel, by increasing position in them.

    Yields:
        Whether there is such a window, its place ``(n, i, j, c)``, and the pixel's position ``u * width + v`` in it.
    """
    n, h, w, c = point
    for back in np.ndindex(*(-(-extent // step) for extent, step in zip(size, stride, strict=True))):
        there, window, position = k.constant(True, "bool"), [], []
        for axis, pixel in enumerate((h, w)):
            start = pixel + pads[axis][0]
            window.append(k.floor_divide(start, stride[axis]) - int(back[axis]))
            position.append(k.modulo(start, stride[axis]) + int(back[axis]) * stride[axis])
            there = there & (window[axis] >= 0) & (window[axis] < k.size(count[axis])) & (position[axis] < size[axis])
        yield there, (n, window[0], window[1], c), position[0] * size[1] + position[1]


def pooled_shape(shape: tuple[int, ...], window: dict[str, Any]) -> tuple[int, ...]:
    """The shape that pooling gives, in a test case."""
    return bind_shape(pool_spec(Spec(shape, np.dtype("float64")), **window).shape, 0)
