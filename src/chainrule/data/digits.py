"""scikit-learn's small handwritten digits: a data set that needs no download."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from chainrule.data.dataset import Dataset
from chainrule.errors import ConfigError, MissingDependencyError

__all__ = ["digits"]


def digits(test_fraction: float = 0.25, seed: int = 0) -> Dataset:
    """Load scikit-learn's digits: 1797 grey images of 8x8 pixels, 10 classes.

    The split is stratified: training and test part hold the classes in the same proportions.

    Args:
        test_fraction: The share of samples that goes into the test part, between 0 and 1.
        seed: The seed of the split; the same seed gives the same split.

    Returns:
        Images (samples, 8, 8, 1), float32, 0 (background) to 16 (ink); labels int64, 0 to 9.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        ConfigError: The fraction leaves a part too small for 10 classes, or the seed is no
            integer from 0 to 2**32 - 1.

    Example:
        >>> digits().describe()
        'digits: 1347 training and 450 test images of 8x8x1 float32, 10 classes'
    """
    source = _import("sklearn.datasets").load_digits()
    split = _import("sklearn.model_selection").train_test_split
    images = source.images[..., np.newaxis].astype(np.float32)
    labels = source.target.astype(np.int64)
    try:
        x_train, x_test, y_train, y_test = split(
            images, labels, test_size=float(test_fraction), stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise ConfigError(
            f"digits: cannot split with test_fraction={test_fraction!r} and seed={seed!r}; "
            f"expected a fraction that leaves 10 samples or more in each of the two parts of "
            f"{len(labels)} samples, and a seed from 0 to 2**32 - 1"
        ) from error
    names = tuple(str(name) for name in source.target_names)
    return Dataset("digits", x_train, y_train, x_test, y_test, names)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            "the digits data set comes with scikit-learn, which cannot be imported; install it "
            'with: pip install "chainrule[scikit-learn]"'
        ) from error
