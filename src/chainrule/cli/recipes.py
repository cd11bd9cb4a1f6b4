"""How each data set is trained when nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chainrule.data import Dataset

__all__ = ["RECIPES", "Recipe", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """The defaults of `train`: what the command line and a configuration leave open."""

    network: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    schedule: str


# Chosen by cross-validation inside the training parts of the splits 0 to 4; no test part was looked at.
_DIGITS = Recipe("digits", 25, 32, 2e-3, "adam", "cosine")
_IMAGES = Recipe("conv32-conv64-dense64", 5, 64, 1e-3, "adam", "cosine")

RECIPES: Mapping[str, Recipe] = {"digits": _DIGITS, "mnist": _IMAGES, "fashion-mnist": _IMAGES}
"""The recipes of the named data sets; a file gets that of the data set whose images its own resemble."""

_SMALLEST_IMAGE = 10  # pixels on a side that two valid 3x3 convolutions, each pooled, need


def recipe_for(data: str, dataset: Dataset) -> Recipe:
    """The recipe of a data set: by its name, or for a file by the size of its images."""
    if data in RECIPES:
        return RECIPES[data]
    return _IMAGES if min(dataset.x_train.shape[1:3]) >= _SMALLEST_IMAGE else _DIGITS
