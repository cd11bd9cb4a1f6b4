"""Sliding windows: how stride, padding and dilation place a kernel, for convolution and pooling alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import Size, format_shape
from chainrule.graph.op import Array, Spec

__all__ = [
    "Padding",
    "Pads",
    "Pair",
    "explicit_padding",
    "pair",
    "require_image",
    "span",
    "tap",
    "window_count",
]

Pair: TypeAlias = tuple[int, int]
Pads: TypeAlias = tuple[Pair, Pair]
Padding: TypeAlias = (
    Literal["valid", "same"] | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | Sequence[Any]
)


def pair(value: int | Sequence[int], what: str, minimum: int = 1) -> Pair:
    """One integer for both spatial axes, or one for each.

    Raises:
        ConfigError: not one or two integers of at least `minimum`.
    """
    values: tuple[Any, ...] = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int | np.integer) and v >= minimum for v in values):
        raise ConfigError(f"{what} must be an integer or a pair of integers >= {minimum}, got {value!r}")
    return int(values[0]), int(values[1])


def span(kernel: int, dilation: int) -> int:
    """How many input positions a dilated kernel covers, gaps included."""
    return (kernel - 1) * dilation + 1


def explicit_padding(padding: Padding, spatial: Sequence[Size], kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """The padding ``((top, bottom), (left, right))``.

    ``"valid"`` is none.  ``"same"`` makes the output ``ceil(size / stride)`` and splits as TensorFlow does,
    the odd element at the end.  An integer pads all sides, ``(h, w)`` both sides of each axis.

    Raises:
        ConfigError: any other value.
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        height, width = (
            _same(size, span(k, d), s) for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True)
        )
        return height, width
    if not isinstance(padding, str):
        values = (padding, padding) if isinstance(padding, int) else tuple(padding)
        sides = [(v, v) if isinstance(v, int) else tuple(v) for v in values]
        if len(sides) == 2 and all(
            len(side) == 2 and all(isinstance(v, int) and v >= 0 for v in side) for side in sides
        ):
            return (sides[0][0], sides[0][1]), (sides[1][0], sides[1][1])
    raise ConfigError(
        "padding must be 'valid', 'same', an integer, (height, width) or ((top, bottom), (left, right)) "
        f"with values >= 0, got {padding!r}"
    )


def _same(size: Size, covered: int, stride: int) -> Pair:
    if not isinstance(size, int):
        raise ShapeError(f"padding='same' needs a known image size, got {size}")
    total = max((-(-size // stride) - 1) * stride + covered - size, 0)
    return total // 2, total - total // 2


def require_image(x: Spec, what: str = "input") -> None:
    """An activation ``(batch, height, width, channels)`` with a known image size."""
    if x.rank != 4:
        raise ShapeError(
            f"the {what} has shape {format_shape(x.shape)} of rank {x.rank}; expected rank 4: "
            "(batch, height, width, channels)"
        )
    if not all(isinstance(size, int) for size in x.shape[1:]):
        raise ShapeError(f"the {what} {format_shape(x.shape)} must have a known height, width and channel count")


def window_count(spatial: Sequence[Size], kernel: Pair, stride: Pair, pads: Pads, dilation: Pair) -> Pair:
    """How many windows fit on each axis: ``(size + padding - span) // stride + 1``.

    Raises:
        ShapeError: not even one fits.
    """
    sizes = [int(size) + sum(pad) for size, pad in zip(spatial, pads, strict=True)]
    covered = [span(k, d) for k, d in zip(kernel, dilation, strict=True)]
    if any(size < cover for size, cover in zip(sizes, covered, strict=True)):
        raise ShapeError(
            f"the window {covered[0]}x{covered[1]} does not fit the input {sizes[0]}x{sizes[1]} "
            "(height x width, padding included), so the output would be empty; "
            "use padding='same', a smaller window, or fewer pooling layers before"
        )
    first, second = ((size - cover) // s + 1 for size, cover, s in zip(sizes, covered, stride, strict=True))
    return first, second


def tap(x: Array, offset: Pair, count: Pair, stride: Pair, dilation: Pair) -> Array:
    """View of padded images ``x``: what kernel position `offset` sees, one value per window."""
    top, left = offset[0] * dilation[0], offset[1] * dilation[1]
    return x[
        :,
        top : top + (count[0] - 1) * stride[0] + 1 : stride[0],
        left : left + (count[1] - 1) * stride[1] + 1 : stride[1],
    ]
