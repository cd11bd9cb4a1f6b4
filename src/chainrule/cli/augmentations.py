"""Augmentations by short names, such as ``flip`` and ``crop:4``, as the command line and configurations take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainrule.augment import (
    Augmentation,
    Cutout,
    GaussianNoise,
    MixUp,
    RandomAffine,
    RandomColour,
    RandomCrop,
    RandomFlip,
)
from chainrule.cli.names import known_name
from chainrule.errors import ConfigError

__all__ = ["AUGMENTATIONS", "augmentations", "check_augmentation"]

_AFFINE: Mapping[str, tuple[float, Callable[[float], dict[str, Any]]]] = {
    "shift": (0.1, lambda amount: {"shift": amount}),
    "rotate": (10.0, lambda amount: {"rotation": amount}),
    "scale": (0.1, lambda amount: {"scale": (1 - amount, 1 + amount)}),
    "shear": (10.0, lambda amount: {"shear": amount}),
}
"""Default amounts, and what they are for `RandomAffine`: shares of a side, degrees, a share of the size, degrees."""

_OTHERS: Mapping[str, tuple[float, Callable[[float, float], Augmentation]]] = {
    "crop": (4, lambda amount, white: RandomCrop(_pixels("crop", amount))),
    "colour": (0.2, lambda amount, white: RandomColour(amount, amount, amount, value_range=(0.0, white))),
    "noise": (0.05, lambda amount, white: GaussianNoise(amount * white)),
    "cutout": (8, lambda amount, white: Cutout(_pixels("cutout", amount))),
    "mixup": (0.2, lambda amount, white: MixUp(amount)),
}

_DIRECTIONS = ("horizontal", "vertical", "both")

AUGMENTATIONS = ("flip", *_OTHERS, *_AFFINE)
"""The names; each may be followed by a colon and an amount, ``flip`` by a direction."""


def check_augmentation(spec: str) -> None:
    """Refuse what is no augmentation.

    Raises:
        ConfigError: an unknown name, or an amount that it cannot have.

    >>> check_augmentation("crop:4")
    """
    augmentations([spec], 1.0)


def augmentations(specs: Sequence[str], white: float) -> list[Augmentation]:
    """The augmentations that some short names mean.

    Those that move pixels between their places (shift, rotate, scale, shear) become one, where the first of them
    stands, so that pictures are interpolated once.

    Args:
        specs: such as ``["flip", "crop:4"]``.
        white: the largest value of a pixel, in the data's units.

    >>> augmentations(["rotate:15", "flip", "shift"], 255)
    [RandomAffine(rotation=15.0, scale=(1.0, 1.0), shift=0.1, shear=0.0, fill=0.0), RandomFlip(direction=horizontal)]
    """
    made: list[Augmentation | None] = []
    affine: dict[str, Any] = {}
    for spec in specs:
        name, _, amount = spec.partition(":")
        known_name("augmentation", name, AUGMENTATIONS)
        if name in _AFFINE:
            if not affine:
                made.append(None)
            usual, arguments = _AFFINE[name]
            affine |= arguments(_amount(spec, amount, usual))
        else:
            made.append(_other(spec, name, amount, white))
    return [item or RandomAffine(**affine) for item in made]


def _other(spec: str, name: str, amount: str, white: float) -> Augmentation:
    if name == "flip":
        return RandomFlip(known_name("direction of flip", amount or "horizontal", _DIRECTIONS))  # type: ignore[arg-type]
    usual, make = _OTHERS[name]
    return make(_amount(spec, amount, usual), white)


def _amount(spec: str, amount: str, usual: float) -> float:
    if not amount and not spec.endswith(":"):
        return usual
    try:
        number = float(amount)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"augmentation {spec!r}: expected a positive number behind the colon, such as {usual:g}")
    return number


def _pixels(name: str, amount: float) -> int:
    if amount != int(amount):
        raise ConfigError(f"augmentation {name}: expected a whole number of pixels, got {amount:g}")
    return int(amount)
