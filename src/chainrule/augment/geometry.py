"""Augmentations that move pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from chainrule import ops
from chainrule.augment.base import Augmentation, Key
from chainrule.checks import check_at_least
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor, tensor

__all__ = [
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "centre_mask",
    "cosine",
    "each",
    "sine",
    "size_of_axis",
    "within_half_a_turn",
]

_Direction = Literal["horizontal", "vertical", "both"]


class RandomFlip(Augmentation):
    """Mirrors half of the samples, left to right, upside down, or each by itself.

    Args:
        direction: ``"horizontal"``, ``"vertical"`` or ``"both"``.

    >>> RandomFlip("vertical")
    RandomFlip(direction=vertical)
    """

    def __init__(self, direction: _Direction = "horizontal") -> None:
        if direction not in ("horizontal", "vertical", "both"):
            raise ConfigError(f"RandomFlip: direction must be 'horizontal', 'vertical' or 'both', got {direction!r}")
        self.direction: _Direction = direction

    def change(self, x: Tensor, key: Key) -> Tensor:
        for axis, name in ((2, "horizontal"), (1, "vertical")):
            if self.direction in (name, "both"):
                order = np.arange(size_of_axis(x, axis), dtype=np.int32)[::-1].copy()
                x = ops.where(each(key.uniform() < 0.5), ops.gather(x, tensor(order), axis=axis), x)
        return x


class RandomCrop(Augmentation):
    """Cuts a window of the sample's own size out of the sample with a margin around it: a shift by whole pixels.

    Args:
        padding: pixels of the margin on each side, or (vertical, horizontal).
        fill: the margin's value.

    >>> RandomCrop(4)
    RandomCrop(padding=4, fill=0.0)
    """

    def __init__(self, padding: int | Sequence[int], fill: float = 0.0) -> None:
        both = (padding, padding) if isinstance(padding, int) else tuple(padding)
        if len(both) != 2:
            raise ConfigError(f"RandomCrop: padding must be one or two integers, got {padding!r}")
        self.padding, self.fill = padding, float(fill)
        self._both = [check_at_least(most, 0, "RandomCrop: padding") for most in both]

    def change(self, x: Tensor, key: Key) -> Tensor:
        shifts = [
            ops.cast(key.uniform() * float(2 * most + 1), "int32") - tensor(np.array(most, np.int32))
            for most in self._both
        ]
        rows, columns = (
            ops.expand_dims(_numbers(size_of_axis(x, axis), axis - 1), 0) + ops.expand_dims(shift, -1)
            for axis, shift in zip((1, 2), shifts, strict=True)
        )
        return _picked(x, rows, columns, self.fill)


class RandomAffine(Augmentation):
    """Turns, scales, shifts and shears, all in one step of bilinear sampling.

    Args:
        rotation: degrees to either side at most.
        scale: factors from and to which pictures are scaled, such as ``(0.9, 1.1)``.
        shift: share of the height and width by which they are moved at most, or (vertical, horizontal).
        shear: degrees to either side at most.
        fill: the value of what lies outside.

    Each number is drawn evenly.

    >>> RandomAffine(rotation=10).rotation
    10.0
    """

    def __init__(
        self,
        rotation: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shift: float | Sequence[float] = 0.0,
        shear: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        self.rotation, self.shear, self.fill = float(rotation), float(shear), float(fill)
        self.scale = tuple(map(float, scale))
        self.shift = shift
        self._shifts = (float(shift),) * 2 if isinstance(shift, int | float) else tuple(map(float, shift))
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"RandomAffine: scale must be two rising positive factors, got {scale!r}")
        if len(self._shifts) != 2 or min(self._shifts) < 0:
            raise ConfigError(f"RandomAffine: shift must be one or two shares >= 0, got {shift!r}")

    def change(self, x: Tensor, key: Key) -> Tensor:
        height, width = size_of_axis(x, 1), size_of_axis(x, 2)
        angle = within_half_a_turn(key.uniform(-self.rotation, self.rotation) * (math.pi / 180))
        lean = key.uniform(-self.shear, self.shear) * (math.pi / 180)
        factor = 1 / key.uniform(self.scale[0], self.scale[1])
        down = key.uniform(-self._shifts[0], self._shifts[0]) * float(height)
        right = key.uniform(-self._shifts[1], self._shifts[1]) * float(width)
        turned_cosine, turned_sine = cosine(angle) * factor, sine(angle) * factor
        slope = sine(lean) / cosine(lean)
        # From where a pixel of the result is taken, about the centre: turned, scaled, sheared, moved.
        y, x_ = (_centred(size, axis) for axis, size in enumerate((height, width)))
        y, x_ = y - each(down, 3), x_ - each(right, 3)
        c, s = turned_cosine, turned_sine
        rows = each(c, 3) * y + each(s, 3) * x_ + (height - 1) / 2
        columns = each(c * slope - s, 3) * y + each(c + s * slope, 3) * x_ + (width - 1) / 2
        return _sampled(x, rows, columns, self.fill)


# --- Reading pixels elsewhere --------------------------------------------------------------------------------


def _picked(x: Tensor, rows: Tensor, columns: Tensor, fill: float) -> Tensor:
    """Pixels by whole coordinates, int32, that broadcast to ``(batch, height, width)``; `fill` outside."""
    height, width, channels = size_of_axis(x, 1), size_of_axis(x, 2), size_of_axis(x, 3)
    inside = _between(rows, height) & _between(columns, width)
    row, column = _clipped(rows, height), _clipped(columns, width)
    sample = ops.reshape(ops.arange(x.shape[0]), (-1, 1, 1))
    place = (sample * height + row) * width + column
    pixels = ops.gather(ops.reshape(x, (x.shape[0] * height * width, channels)), place)
    return ops.where(ops.expand_dims(inside, -1), pixels, fill)


def _sampled(x: Tensor, rows: Tensor, columns: Tensor, fill: float) -> Tensor:
    """Pixels by coordinates between them, float32 ``(batch, height, width)``: bilinear, `fill` outside."""
    top, left = _floor(rows), _floor(columns)
    down, right = (
        ops.expand_dims(part - ops.cast(whole, "float32"), -1) for part, whole in ((rows, top), (columns, left))
    )
    one = tensor(np.array(1, np.int32))
    upper = _picked(x, top, left, fill) * (1 - right) + _picked(x, top, left + one, fill) * right
    lower = _picked(x, top + one, left, fill) * (1 - right) + _picked(x, top + one, left + one, fill) * right
    return upper * (1 - down) + lower * down


_FAR = 1 << 14  # coordinates are kept this near, so that they fit into integers


def _floor(x: Tensor) -> Tensor:
    """The next lower integer, int32."""
    near = ops.clip(x, -float(_FAR), float(_FAR))
    return ops.cast(near + float(2 * _FAR), "int32") - tensor(np.array(2 * _FAR, np.int32))


def _between(numbers: Tensor, size: int) -> Tensor:
    return (numbers >= tensor(np.array(0, np.int32))) & (numbers < tensor(np.array(size, np.int32)))


def _clipped(numbers: Tensor, size: int) -> Tensor:
    low, high = tensor(np.array(0, np.int32)), tensor(np.array(size - 1, np.int32))
    return ops.where(numbers < low, low, ops.where(numbers > high, high, numbers))


def _numbers(size: int, axis: int) -> Tensor:
    """0, 1, ... along the rows (axis 0) or columns (1) of a picture."""
    return tensor(np.arange(size, dtype=np.int32).reshape((-1, 1) if axis == 0 else (1, -1)))


def _centred(size: int, axis: int) -> Tensor:
    """Distances from the middle, ``(1, height, 1)`` or ``(1, 1, width)``, float32."""
    values = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return tensor(values.reshape((1, -1, 1) if axis == 0 else (1, 1, -1)))


def centre_mask(x: Tensor, down: Tensor, right: Tensor, side: float) -> Tensor:
    """Which pixels lie in a square of that side, whose centre is at these shares of height and width."""
    near = []
    for axis, share in enumerate((down, right)):
        size = size_of_axis(x, axis + 1)
        distance = _centred(size, axis) - (each(share, 3) - 0.5) * float(size)
        near.append(ops.abs(distance) * 2.0 <= side)
    return ops.expand_dims(ops.logical_and(near[0], near[1]), -1)


def each(values: Tensor, rank: int = 4) -> Tensor:
    """A number for each sample, ``(batch, 1)``, to broadcast over the sample's axes."""
    return ops.reshape(values, (values.shape[0], *(1,) * (rank - 1)))


def within_half_a_turn(angle: Tensor) -> Tensor:
    """The same angle without whole turns; one that is within half a turn stays as it is, to the bit."""
    turns = angle * (0.5 / math.pi)
    whole = ops.cast(turns + ops.where(turns < 0, -0.5, 0.5), "int32")
    return angle - ops.cast(whole, angle.dtype) * (2 * math.pi)


def cosine(angle: Tensor) -> Tensor:
    """By its series, good to float32 within half a turn."""
    return _series(angle * angle, [(-1) ** n / math.factorial(2 * n) for n in range(9)])


def sine(angle: Tensor) -> Tensor:
    """By its series, good to float32 within half a turn."""
    return _series(angle * angle, [(-1) ** n / math.factorial(2 * n + 1) for n in range(9)]) * angle


def _series(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        total = total * x + coefficient
    return total


def size_of_axis(x: Tensor, axis: int) -> int:
    size = x.shape[axis]
    if not isinstance(size, int):
        raise ConfigError(f"augmentations need pictures (batch, height, width, channels), got {x.spec}")
    return size
