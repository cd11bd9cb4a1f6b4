"""Where a command's data come from: a named data set, or a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chainrule.cli.names import unknown
from chainrule.data import Dataset, digits, fashion_mnist, load_npz, mnist
from chainrule.errors import ConfigError

__all__ = ["DATA_SETS", "DEFAULT_TEST_FRACTION", "Source", "fingerprint", "pixel_scale"]

DEFAULT_TEST_FRACTION = 0.25

_FOLDERS: Mapping[str, Callable[[str], Dataset]] = {"mnist": mnist, "fashion-mnist": fashion_mnist}

DATA_SETS = ("digits", *_FOLDERS)
"""The data sets by the names that the command line knows."""

_LAST_DIGITS_SEED = 2**32 - 1  # of scikit-learn's split


@dataclass(frozen=True)
class Source:
    """A data set, and all that decides which samples are in its test part.

    Args:
        data: a name from `DATA_SETS`, or the path of an ``.npz`` file.
        folder: the folder with the files of MNIST or Fashion-MNIST.
        seed: picks the split of the digits; the other data sets come split.
        test_fraction: the share of the digits that is the test part; 0.25 by default.

    Raises:
        ConfigError: an unknown data set, or an argument that the data set lacks or cannot use.

    >>> Source("digits", seed=1).load().describe()
    'digits: 1347 training and 450 test images of 8x8x1 float32, 10 classes'
    """

    data: str
    folder: str | None = None
    seed: int = 0
    test_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.data not in DATA_SETS and not self.is_file:
            expected = f"expected {', '.join(DATA_SETS)} or a file FILE.npz"
            raise unknown("data set", self.data, DATA_SETS, expected)
        if self.data in _FOLDERS and self.folder is None:
            raise ConfigError(f"the data set {self.data} is read from files; name their folder with --data FOLDER")
        if self.data not in _FOLDERS and self.folder is not None:
            raise ConfigError(f"the data set {self.data} takes no --data folder; leave the option away")
        if self.data != "digits" and self.test_fraction is not None:
            raise ConfigError(f"the data set {self.data} comes with a test part; --test-fraction is for digits only")
        if self.data == "digits" and self.seed > _LAST_DIGITS_SEED:
            raise ConfigError(f"the seed of the digits' split lies in 0..{_LAST_DIGITS_SEED}, got {self.seed}")

    @property
    def is_file(self) -> bool:
        """Whether the data are an ``.npz`` file."""
        return self.data not in DATA_SETS and self.data.lower().endswith(".npz")

    @property
    def label(self) -> str:
        """A short name, good for a folder."""
        return Path(self.data).stem if self.is_file else self.data

    def load(self) -> Dataset:
        """Read the data.

        Raises:
            DataError: a file is missing or damaged.
            MissingDependencyError: the digits need scikit-learn.
        """
        if self.data == "digits":
            return digits(self.test_fraction or DEFAULT_TEST_FRACTION, self.seed)
        if self.is_file:
            return load_npz(self.data)
        assert self.folder is not None
        return _FOLDERS[self.data](self.folder)

    def settled(self) -> Source:
        """The same source, found from any folder and with nothing left to a default."""
        data = os.path.abspath(self.data) if self.is_file else self.data
        folder = None if self.folder is None else os.path.abspath(self.folder)
        fraction = self.test_fraction or (DEFAULT_TEST_FRACTION if data == "digits" else None)
        return Source(data, folder, self.seed, fraction)


def pixel_scale(dataset: Dataset) -> float:
    """What takes a data set's pixels to 0..1: 1/255 for 8-bit images, else one over the largest training value.

    >>> pixel_scale(digits())
    0.0625
    """
    if dataset.x_train.dtype == np.uint8:
        return 1 / 255
    largest = float(np.abs(dataset.x_train).max())
    return 1 / largest if largest else 1.0


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over every image and label, and over which of them are the test part."""
    total = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
