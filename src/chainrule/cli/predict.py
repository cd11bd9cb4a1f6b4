"""``chainrule predict``: what a saved model takes images for."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.cli.classifier import Classifier
from chainrule.cli.images import pictures_in, read_images
from chainrule.cli.names import unknown
from chainrule.cli.opened import Opened, given_source, open_model
from chainrule.cli.output import check_new_file, say, say_json
from chainrule.cli.parts import batches_of, sample_name
from chainrule.cli.sources import DATA_SETS
from chainrule.data import ArraySource, Source
from chainrule.errors import ConfigError
from chainrule.files import write_text_atomic

__all__ = ["run"]

_BATCH = 256
_WORKERS = 2

Predictions = Iterator[tuple[str | int, NDArray[Any]]]
"""An image's number or file, and the probability of every class."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each image, or write a table of all probabilities.

    Raises:
        ChainruleError: the model or the images cannot be used, or do not fit one another.
    """
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None:
        check_new_file(out, "--out")
    opened = open_model(arguments.model)
    classifier = Classifier(opened.model)
    part, given_names = _images(arguments, opened, classifier)
    if arguments.limit is not None and arguments.limit < len(part):
        part = part.part(range(arguments.limit))
    what = f"'{arguments.input}'" if arguments.input else "the run's data set"
    found = _predictions(classifier, part, what)
    names = opened.names(classifier.classes, given_names)
    if out is not None:
        table = _table(found, names)
        check_new_file(out, "--out")
        write_text_atomic(out, table)
        if arguments.json:
            say_json({"file": str(out), "predictions": len(part)})
        else:
            say(f"{len(part)} predictions written to {out}")
    elif arguments.json:
        for name, row in found:
            chances = {label: float(value) for label, value in zip(names, row, strict=True)}
            say_json({"image": name, "prediction": names[int(row.argmax())], "probabilities": chances})
    else:
        for name, row in found:
            best = int(row.argmax())
            print(f"{name}\t{names[best]}\t{row[best]:.4f}")
    return 0


def _images(arguments: argparse.Namespace, opened: Opened, classifier: Classifier) -> tuple[Source, Sequence[str]]:
    """The images to classify, and the class names of their data set."""
    given = arguments.input
    if given is None or given in DATA_SETS:
        _, data = opened.tested(given, given_source(arguments))
        return data.held_out, data.class_names
    if not os.path.exists(given):
        expected = (
            f"expected {', '.join(DATA_SETS)}, a folder of pictures or a file of images, and there is none of that name"
        )
        raise unknown("input", given, DATA_SETS, expected)
    if arguments.folder is not None:
        raise ConfigError(f"--data names the folder of a data set; the input is the file '{given}'")
    pictures = pictures_in(given, classifier.input_shape, (opened.settings or {}).get("fit", "cover"))
    if pictures is not None:
        return pictures, ()
    images = classifier.fit_images(read_images(given), f"'{given}'")
    return ArraySource(images, np.zeros(len(images), np.int64)), ()


def _predictions(classifier: Classifier, part: Source, what: str) -> Predictions:
    done = 0
    for images, _ in batches_of(part, _BATCH, _WORKERS):
        for row in classifier.probabilities(classifier.fit_images(images, what)):
            yield sample_name(part, done), row
            done += 1


def _table(found: Predictions, names: Sequence[str]) -> str:
    """A row for each image: its number or file, the name of the likeliest class, and the probability of every class."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["index", "prediction", *names])
    for name, row in found:
        writer.writerow([name, names[int(row.argmax())], *(f"{value:.9g}" for value in row)])
    return table.getvalue()
