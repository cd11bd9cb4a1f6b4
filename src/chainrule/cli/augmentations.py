"""Augmentations by short names, such as ``flip`` and ``crop:4``, as the command line and configurations take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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

__all__ = ["AUGMENTATIONS", "IN_WORDS", "augmentations", "check_augmentation"]


class _Kind(NamedTuple):
    """An amount that an augmentation takes: what is usual, the most there can be, and its unit."""

    usual: float
    most: float
    unit: str


_AFFINE: Mapping[str, Callable[[float], dict[str, Any]]] = {
    "shift": lambda amount: {"shift": amount},
    "rotate": lambda amount: {"rotation": amount},
    "scale": lambda amount: {"scale": (1 - amount, 1 + amount)},
    "shear": lambda amount: {"shear": amount},
}
"""What they are for `RandomAffine`."""

_OTHERS: Mapping[str, Callable[[float, float, int], Augmentation]] = {
    "crop": lambda amount, white, channels: RandomCrop(_pixels("crop", amount)),
    "colour": lambda amount, white, channels: RandomColour(
        amount, amount, amount if channels == 3 else 0.0, value_range=(0.0, white)
    ),
    "noise": lambda amount, white, channels: GaussianNoise(amount * white),
    "cutout": lambda amount, white, channels: Cutout(_pixels("cutout", amount)),
    "mixup": lambda amount, white, channels: MixUp(amount),
}

_AMOUNTS: Mapping[str, _Kind] = {
    "crop": _Kind(4, 10_000, "pixels"),
    "colour": _Kind(0.2, 1, "a share of brightness, contrast, saturation"),
    "noise": _Kind(0.05, 10, "a share of white"),
    "cutout": _Kind(8, 10_000, "pixels of a side"),
    "mixup": _Kind(0.2, 100, "alpha of the beta distribution"),
    "shift": _Kind(0.1, 1, "a share of a side"),
    "rotate": _Kind(10, 360, "degrees"),
    "scale": _Kind(0.1, 0.99, "a share of the size"),
    "shear": _Kind(10, 80, "degrees"),
}

_FLIPS: Mapping[str, Callable[[], Augmentation]] = {
    "horizontal": lambda: RandomFlip("horizontal"),
    "vertical": lambda: RandomFlip("vertical"),
    "both": lambda: RandomFlip("both"),
}

AUGMENTATIONS = ("flip", *_AMOUNTS)
"""The names; each may be followed by a colon and an amount, ``flip`` by a direction."""

IN_WORDS = "flip (or flip:vertical, flip:both), " + ", ".join(
    f"{name}:{kind.usual:g} ({kind.unit})" for name, kind in _AMOUNTS.items()
)
"""All of them with their usual amounts and units, for the help."""


def check_augmentation(spec: str) -> None:
    """Refuse what is no augmentation.

    Raises:
        ConfigError: an unknown name, or an amount that it cannot have.

    >>> check_augmentation("crop:4")
    """
    augmentations([spec], 1.0, 3)


def augmentations(specs: Sequence[str], white: float, channels: int) -> list[Augmentation]:
    """The augmentations that some short names mean.

    Those that move pixels between their places (shift, rotate, scale, shear) become one, where the first of them
    stands, so that pictures are interpolated once.

    Args:
        specs: such as ``["flip", "crop:4"]``.
        white: the largest value of a pixel, in the data's units.
        channels: of an image; those that are not three have no saturation.

    >>> augmentations(["rotate:15", "flip", "shift"], 255, 1)
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
            affine |= _AFFINE[name](_amount(spec, name, amount))
        else:
            made.append(_other(spec, name, amount, white, channels))
    return [item or RandomAffine(**affine) for item in made]


def _other(spec: str, name: str, amount: str, white: float, channels: int) -> Augmentation:
    if name == "flip":
        return _FLIPS[known_name("direction of flip", amount or "horizontal", _FLIPS)]()
    return _OTHERS[name](_amount(spec, name, amount), white, channels)


def _amount(spec: str, name: str, amount: str) -> float:
    kind = _AMOUNTS[name]
    if not amount and not spec.endswith(":"):
        return kind.usual
    try:
        number = float(amount)
    except ValueError:
        number = math.nan
    if not 0 < number <= kind.most:
        raise ConfigError(
            f"augmentation {spec!r}: expected a number behind the colon, above 0 and at most {kind.most:g}, such as "
            f"{kind.usual:g} ({kind.unit})"
        )
    return number


def _pixels(name: str, amount: float) -> int:
    if amount != int(amount):
        raise ConfigError(f"augmentation {name}: expected a whole number of pixels, got {amount:g}")
    return int(amount)
