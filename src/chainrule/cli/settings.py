"""The settings of a training run: from the command line, a configuration file, and the recipe of the data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chainrule import optimizers
from chainrule.cli.names import known_name, unknown
from chainrule.cli.recipes import Recipe, recipe_for
from chainrule.cli.schedule import SCHEDULES
from chainrule.cli.sources import Source
from chainrule.data import Dataset
from chainrule.errors import ConfigError
from chainrule.networks import NETWORKS
from chainrule.optimizers import Optimizer, get_optimizer

__all__ = ["OPTIMIZERS", "Settings", "checked", "source_from"]

OPTIMIZERS = tuple(
    sorted(
        name.lower()
        for name in optimizers.__all__
        if isinstance(kind := getattr(optimizers, name), type) and issubclass(kind, Optimizer) and kind is not Optimizer
    )
)
"""The optimizers by the names that the command line knows."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run learns."""

    data: str
    folder: str | None
    test_fraction: float | None
    validation_fraction: float
    network: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    optimizer: str
    seed: int

    @classmethod
    def complete(cls, options: Mapping[str, Any], source: Source, dataset: Dataset) -> Settings:
        """Checked options, with the recipe of the data set where they are silent."""
        recipe = recipe_for(source.data, dataset)
        optimizer = options.get("optimizer", recipe.optimizer)
        return cls(
            data=source.data,
            folder=source.folder,
            test_fraction=source.test_fraction,
            validation_fraction=options.get("validation_fraction", 0.0),
            network=options.get("network", recipe.network),
            epochs=options.get("epochs", recipe.epochs),
            batch_size=options.get("batch_size", recipe.batch_size),
            learning_rate=options.get("learning_rate", _usual_rate(optimizer, recipe)),
            schedule=options.get("schedule", recipe.schedule),
            optimizer=optimizer,
            seed=source.seed,
        )


def _usual_rate(optimizer: str, recipe: Recipe) -> float:
    return recipe.learning_rate if optimizer == recipe.optimizer else get_optimizer(optimizer).learning_rate


def source_from(options: Mapping[str, Any]) -> Source:
    """The data that checked options name; scikit-learn's digits where they name none."""
    return Source(
        options.get("data", "digits"),
        options.get("folder"),
        options.get("seed", 0),
        options.get("test_fraction"),
    ).settled()


def checked(options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Options with every value held to what it may be; those that are None are left out.

    Args:
        options: by the names of the fields of `Settings`.
        where: what the message starts with, such as the name of a file.

    Raises:
        ConfigError: an unknown name, or a value that is out of range.

    >>> checked({"epochs": 3, "seed": None})
    {'epochs': 3}
    """
    result = {}
    for name, value in options.items():
        if name not in _CHECKS:
            raise ConfigError(f"{where}{unknown('setting', name, _CHECKS)}")
        if value is not None:
            try:
                result[name] = _CHECKS[name](value)
            except ConfigError as error:
                raise ConfigError(f"{where}{error}") from None
    return result


def _text(what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ConfigError(f"{what} must be a name, got {value!r}")
        return value

    return check


def _one_of(what: str, known: tuple[str, ...]) -> Callable[[Any], str]:
    text = _text(what)
    return lambda value: known_name(what, text(value), known)


def _whole(what: str, lowest: int, highest: int | None = None) -> Callable[[Any], int]:
    wanted = f"an integer of at least {lowest}" if highest is None else f"an integer in {lowest}..{highest}"

    def check(value: Any) -> int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        if not fits or (highest is not None and value > highest):
            raise ConfigError(f"{what} must be {wanted}, got {value!r}")
        return int(value)

    return check


def _real(what: str, wanted: str, accepts: Callable[[float], bool]) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not accepts(value):
            raise ConfigError(f"{what} must be {wanted}, got {value!r}")
        return float(value)

    return check


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "data": _text("data set"),
    "folder": _text("data folder"),
    "test_fraction": _real("test fraction", "a number between 0 and 1", lambda value: 0 < value < 1),
    "validation_fraction": _real("validation fraction", "a number in [0, 1)", lambda value: 0 <= value < 1),
    "network": _one_of("network", tuple(NETWORKS)),
    "epochs": _whole("epochs", 1),
    "batch_size": _whole("batch size", 1),
    "learning_rate": _real("learning rate", "a positive number", lambda value: value > 0),
    "schedule": _one_of("schedule", SCHEDULES),
    "optimizer": _one_of("optimizer", OPTIMIZERS),
    "seed": _whole("seed", 0, 2**64 - 1),
}
