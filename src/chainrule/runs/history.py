"""The history of a run: one value per metric and epoch, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from chainrule.errors import DataError
from chainrule.files import write_text_atomic

__all__ = ["write_history"]


def write_history(folder: str | os.PathLike[str], history: Mapping[str, Sequence[float]]) -> None:
    """Write ``history.json`` and ``history.csv``, each whole or not at all.

    The JSON file maps each metric to its values; a NaN or infinite value, which JSON has no word
    for, becomes null. The CSV file has a row per epoch, counted from 1, and writes such a value as
    nan, inf or -inf.

    Args:
        folder: The run folder; an older history there is replaced.
        history: The values of each metric, one per epoch, such as
            ``{"loss": [0.5, 0.3], "val_loss": [0.6, 0.4]}``.

    Raises:
        DataError: The metrics have different numbers of epochs.
        RunFolderError: A file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_history(folder, {"loss": [0.5, 0.25], "accuracy": [0.75, float("nan")]})
        ...     print((Path(folder) / "history.csv").read_text(), end="")
        ...     json.loads((Path(folder) / "history.json").read_text())["accuracy"]
        epoch,loss,accuracy
        1,0.5,0.75
        2,0.25,nan
        [0.75, None]
    """
    values = {metric: [float(value) for value in column] for metric, column in history.items()}
    _check_lengths(values)
    write_text_atomic(Path(folder) / "history.json", _to_json(values))
    write_text_atomic(Path(folder) / "history.csv", _to_csv(values))


def _check_lengths(history: dict[str, list[float]]) -> None:
    epochs = {metric: len(column) for metric, column in history.items()}
    if len(set(epochs.values())) > 1:
        came = ", ".join(f"{count} for {metric!r}" for metric, count in epochs.items())
        raise DataError(f"history: the numbers of epochs are {came}; expected the same for all")


def _to_json(history: dict[str, list[float]]) -> str:
    strict = {
        metric: [value if math.isfinite(value) else None for value in column] for metric, column in history.items()
    }
    return json.dumps(strict, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_csv(history: dict[str, list[float]]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["epoch", *history])
    for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
        writer.writerow([epoch, *row])
    return table.getvalue()
