"""The history files: strict JSON and a table with a row per epoch."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.errors import DataError, RunFolderError
from chainrule.runs import write_history

HISTORY = {"loss": [0.5, float("nan"), float("inf")], "val_loss": [0.1, 1e-300, -2.0]}


def test_json_is_strict(tmp_path: Path) -> None:
    write_history(tmp_path, HISTORY)
    text = (tmp_path / "history.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": [0.5, None, None],
        "val_loss": [0.1, 1e-300, -2.0],
    }


def test_csv_counts_epochs_from_one(tmp_path: Path) -> None:
    write_history(tmp_path, HISTORY)
    text = (tmp_path / "history.csv").read_bytes()
    assert text == b"epoch,loss,val_loss\n1,0.5,0.1\n2,nan,1e-300\n3,inf,-2.0\n"


def test_numpy_values_and_a_second_write(tmp_path: Path) -> None:
    losses: list[Any] = [np.float32(0.5), np.float64(0.25)]
    write_history(tmp_path, {"loss": losses[:1]})
    write_history(tmp_path, {"loss": losses})
    assert json.loads((tmp_path / "history.json").read_text()) == {"loss": [0.5, 0.25]}


def test_no_epochs(tmp_path: Path) -> None:
    write_history(tmp_path, {})
    assert (tmp_path / "history.json").read_text() == "{}\n"
    assert (tmp_path / "history.csv").read_text() == "epoch\n"


def test_different_numbers_of_epochs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 for 'loss', 1 for 'val_loss'"):
        write_history(tmp_path, {"loss": [1, 2], "val_loss": [1]})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"history\.json"):
        write_history(tmp_path / "gone", HISTORY)


@settings(deadline=None, max_examples=25)  # every example waits for the disk
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        st.lists(st.floats(), min_size=3, max_size=3),
    )
)
@pytest.mark.slow
def test_every_bit_survives(tmp_path_factory: pytest.TempPathFactory, history: dict[str, list[float]]) -> None:
    folder = tmp_path_factory.mktemp("run")
    write_history(folder, history)
    loaded = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    finite = {
        metric: [value if math.isfinite(value) else None for value in values] for metric, values in history.items()
    }
    assert loaded == finite
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", *history]
    columns = np.array([[float(cell) for cell in row] for row in rows]).T
    if history:
        np.testing.assert_array_equal(columns, [[1, 2, 3], *history.values()])
