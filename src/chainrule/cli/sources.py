"""Where a command's data come from: a named data set, or files of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from chainrule.cli.names import unknown
from chainrule.cli.options import parsed_size
from chainrule.cli.parts import Data, split_classes
from chainrule.data import Dataset, digits, fashion_mnist, load_npz, mnist, picture_folders, picture_lists
from chainrule.data.pictures import Fit
from chainrule.errors import ConfigError
from chainrule.files import openable, readable

__all__ = ["DATA_SETS", "DEFAULT_TEST_FRACTION", "FITS", "Source"]

DEFAULT_TEST_FRACTION: Mapping[str, float] = {"digits": 0.25, "pictures": 0.2}
"""What becomes the test part of data that come without one."""

FITS = ("cover", "contain", "stretch")

_FROM_FILES: Mapping[str, Callable[[str | None], Dataset]] = {"mnist": mnist, "fashion-mnist": fashion_mnist}

DATA_SETS = ("digits", *_FROM_FILES)
"""The data sets by the names that the command line knows."""

_LAST_DIGITS_SEED = 2**32 - 1  # of scikit-learn's split

Kind = Literal["digits", "idx", "npz", "csv", "pictures"]


@dataclass(frozen=True)
class Source:
    """A data set, and all that decides which samples are in its test part.

    Args:
        data: a name from `DATA_SETS`, or the path of an ``.npz`` file, a ``.csv`` list of pictures, or a folder of
            pictures by class.
        folder: the folder with the files of MNIST or Fashion-MNIST; by default they are downloaded once.
        seed: picks the test part of data that come without one.
        test_fraction: how much that is: 0.25 for digits, 0.2 for pictures.
        size: HEIGHTxWIDTH of pictures; by default that of the first.
        channels: 1 for grey pictures, 3 for colour; by default as the first.
        fit: how pictures are brought to `size`.
        workers: threads that read them.

    Raises:
        ConfigError: an unknown data set, or an argument that the data set lacks or cannot use.

    >>> Source("digits", seed=1).load().describe()
    'digits: 1347 training and 450 test images of 8x8x1 float32, 10 classes'
    """

    data: str
    folder: str | None = None
    seed: int = 0
    test_fraction: float | None = None
    size: str | None = None
    channels: int | None = None
    fit: str = "cover"
    workers: int = 2

    def __post_init__(self) -> None:
        kind, folder = self.kind, self.folder
        if kind != "idx" and folder is not None:
            raise ConfigError(f"the data set {self.data} takes no --data folder; leave the option away")
        if kind in ("idx", "npz") and self.test_fraction is not None:
            raise ConfigError(
                f"the data set {self.data} comes with a test part; --test-fraction is for data without one"
            )
        if kind not in ("csv", "pictures") and (self.size or self.channels or self.fit != "cover"):
            raise ConfigError(f"--size, --channels and --fit are for pictures; the data set {self.data} has its own")
        if kind == "digits" and self.seed > _LAST_DIGITS_SEED:
            raise ConfigError(f"the seed of the digits' split lies in 0..{_LAST_DIGITS_SEED}, got {self.seed}")

    @property
    def kind(self) -> Kind:
        """What is read.

        Raises:
            ConfigError: there is no such data set.
        """
        if self.data in DATA_SETS:
            return "digits" if self.data == "digits" else "idx"
        for suffix in ("npz", "csv"):
            if self.data.lower().endswith(f".{suffix}"):
                return suffix
        if os.path.isdir(openable(self.data)):
            return "pictures"
        files = "a folder of pictures, a list of them FILE.csv, or a file FILE.npz"
        raise unknown("data set", self.data, DATA_SETS, f"expected {', '.join(DATA_SETS)}, {files}")

    @property
    def label(self) -> str:
        """A short name, good for a folder."""
        return self.data if self.data in DATA_SETS else Path(self.data).stem or "run"

    def settings(self) -> dict[str, Any]:
        """What a configuration says of it."""
        names = ("data", "folder", "seed", "test_fraction", "size", "channels", "fit", "workers")
        return {name: getattr(self, name) for name in names}

    def load(self, *, all_to_test: bool = False) -> Data:
        """Read the data; pictures are read later, when they are needed.

        Args:
            all_to_test: pictures that come without a test part are all of them the test part.

        Raises:
            DataError: a file is missing or damaged.
            MissingDependencyError: the digits need scikit-learn, pictures Pillow.
        """
        kind = self.kind
        if kind == "digits":
            return Data.of_arrays(digits(self.test_fraction or DEFAULT_TEST_FRACTION["digits"], self.seed))
        if kind == "npz":
            return Data.of_arrays(load_npz(openable(self.data)))
        if kind == "idx":
            return Data.of_arrays(_FROM_FILES[self.data](None if self.folder is None else openable(self.folder)))
        return self._pictures(kind, all_to_test)

    def _pictures(self, kind: Kind, all_to_test: bool) -> Data:
        size, fit = parsed_size(self.size), cast(Fit, self.fit)
        if kind == "csv":
            train, test, validation = picture_lists(openable(self.data), size, self.channels, fit)
        else:
            train, test, validation = picture_folders(openable(self.data), size, self.channels, fit)
        whole = Data(self.label, train, test, validation, train.class_names, self.workers)
        if test is not None:
            if self.test_fraction is not None:
                raise ConfigError(f"'{self.data}' comes with a test part; --test-fraction is for data without one")
            return whole
        if all_to_test and self.test_fraction is None:
            return replace(whole, test=train)
        return split_classes(whole, self.test_fraction or DEFAULT_TEST_FRACTION["pictures"], self.seed)

    def settled(self) -> Source:
        """The same source, found from any folder and with nothing left to a default."""
        data = self.data if self.data in DATA_SETS else _absolute(self.data)
        folder = None if self.folder is None else _absolute(self.folder)
        fraction = self.test_fraction or (DEFAULT_TEST_FRACTION["digits"] if data == "digits" else None)
        return Source(data, folder, self.seed, fraction, self.size, self.channels, self.fit, self.workers)


def _absolute(path: str) -> str:
    """A path from the root, as text that is the same in every locale."""
    return readable(os.path.abspath(openable(readable(path))))
