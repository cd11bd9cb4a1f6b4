"""``chainrule predict``: what a saved model takes images for."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from chainrule.cli.classifier import Classifier
from chainrule.cli.images import read_images
from chainrule.cli.names import unknown
from chainrule.cli.opened import Opened, open_model
from chainrule.cli.output import say
from chainrule.cli.sources import DATA_SETS
from chainrule.data import Dataset
from chainrule.errors import ConfigError
from chainrule.files import write_text_atomic

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each image, or write a table of all probabilities.

    Raises:
        ChainruleError: the model or the images cannot be used, or do not fit one another.
    """
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None:
        _check_new(out)
    opened = open_model(arguments.model)
    classifier = Classifier(opened.model)
    images, dataset = _images(arguments, opened)
    images = classifier.fit_images(images, f"'{arguments.input}'" if arguments.input else "the run's data set")
    probabilities = classifier.probabilities(images[: arguments.limit])
    names = opened.names(classifier.classes, dataset)
    if out is None:
        _print(probabilities, names)
    else:
        _check_new(out)
        write_text_atomic(out, _table(probabilities, names))
        say(f"{len(probabilities)} predictions written to {out}")
    return 0


def _images(arguments: argparse.Namespace, opened: Opened) -> tuple[NDArray[Any], Dataset | None]:
    """The images to classify, and the data set if they are its test part."""
    given = arguments.input
    if given is not None and given not in DATA_SETS:
        if not Path(given).exists():
            expected = f"expected {', '.join(DATA_SETS)} or a file of images, and there is none of that name"
            raise unknown("input", given, DATA_SETS, expected)
        if arguments.folder is not None:
            raise ConfigError(f"--data names the folder of a data set; the input is the file '{given}'")
        return read_images(given), None
    names = ("folder", "seed", "test_fraction")
    source = opened.source(given, {name: getattr(arguments, name) for name in names})
    dataset = source.load()
    opened.check_unchanged(source, dataset)
    return dataset.x_test, dataset


def _check_new(out: Path) -> None:
    if os.path.lexists(out):
        raise ConfigError(f"'{out}' already exists and is not overwritten; name a new file with --out")
    if not out.parent.is_dir():
        raise ConfigError(f"'{out.parent}' is not a folder; --out names a new file in a folder that exists")


def _print(probabilities: NDArray[Any], names: Sequence[str]) -> None:
    for index, row in enumerate(probabilities):
        best = int(row.argmax())
        print(f"{index}\t{names[best]}\t{row[best]:.4f}")


def _table(probabilities: NDArray[Any], names: Sequence[str]) -> str:
    """A row for each image: its index, the name of the likeliest class, and the probability of every class."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["index", "prediction", *names])
    for index, row in enumerate(probabilities):
        writer.writerow([index, names[int(row.argmax())], *(f"{value:.9g}" for value in row)])
    return table.getvalue()
