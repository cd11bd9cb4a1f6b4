"""Pictures: they are PNG files, deterministic, and no name or number can break them."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.errors import DataError, RunFolderError
from chainrule.runs import confusion_counts, confusion_matrix, learning_curves

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error")]

HISTORY = {
    "loss": [1.0, 0.6, 0.4],
    "accuracy": [0.5, 0.7, 0.8],
    "val_loss": [1.1, 0.7, 0.6],
    "val_accuracy": [0.4, 0.6, 0.7],
}
NAN, INF = float("nan"), float("inf")


def chunks(path: Path) -> list[bytes]:
    """The names of a PNG file's chunks, in order."""
    stream = io.BytesIO(path.read_bytes())
    assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
    names = []
    while header := stream.read(8):
        size, name = struct.unpack(">I4s", header)
        stream.seek(size + 4, io.SEEK_CUR)
        names.append(name)
    return names


def ink(path: Path) -> float:
    """The share of pixels that are not white."""
    from matplotlib.image import imread

    pixels: Any = imread(path)
    return float((pixels[..., :3] < 0.99).any(axis=-1).mean())


def test_learning_curves(tmp_path: Path) -> None:
    learning_curves(tmp_path / "curves.png", HISTORY)
    assert chunks(tmp_path / "curves.png")[-1] == b"IEND"
    assert list(tmp_path.iterdir()) == [tmp_path / "curves.png"]
    assert ink(tmp_path / "curves.png") > 0.02


def test_a_panel_for_each_metric(tmp_path: Path) -> None:
    from matplotlib.image import imread

    widths = []
    for metrics in (["loss"], ["loss", "val_loss"], ["loss", "accuracy"], list(HISTORY)):
        learning_curves(tmp_path / "a.png", {metric: HISTORY[metric] for metric in metrics})
        picture: Any = imread(tmp_path / "a.png")
        widths.append(picture.shape[1])
    assert widths[0] == widths[1]
    assert widths[2] == widths[3] == 2 * widths[0]


@pytest.mark.parametrize(
    "history",
    [
        {"loss": [0.5]},
        {"val_loss": [0.5, 0.4]},
        {"loss": [NAN, NAN]},
        {"loss": [0.5, INF, NAN, 0.1]},
        {"loss": [1e308, -1e308, 1e-308]},
        {"loss": [0.0] * 1000},
        {"loss": [1.0, 0.5], "accuracy": []},
        {"$loss_{": [1.0, 2.0], "val_$loss_{": [1.0, 2.0], "准确率": [1.0, 2.0]},
    ],
)
def test_unusual_histories(tmp_path: Path, history: dict[str, list[float]]) -> None:
    learning_curves(tmp_path / "a.png", history)
    assert ink(tmp_path / "a.png") > 0.01


@pytest.mark.parametrize("history", [{}, {"loss": []}])
def test_a_history_without_values(tmp_path: Path, history: dict[str, list[float]]) -> None:
    with pytest.raises(DataError, match="holds no values"):
        learning_curves(tmp_path / "a.png", history)


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    matrix = np.arange(9).reshape(3, 3)
    learning_curves(tmp_path / "a.png", HISTORY)
    confusion_matrix(tmp_path / "b.png", matrix, "abc")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        learning_curves(tmp_path / "c.png", HISTORY)
        confusion_matrix(tmp_path / "d.png", matrix, "abc")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "d.png").read_bytes()
    assert {b"tEXt", b"iTXt", b"zTXt", b"tIME"}.isdisjoint(chunks(tmp_path / "a.png"))


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 21, 100])
def test_confusion_matrix(tmp_path: Path, classes: int) -> None:
    names = [f"class {number}" for number in range(classes)]
    confusion_matrix(tmp_path / "a.png", np.eye(classes, dtype=np.int64) * 7, names)
    assert chunks(tmp_path / "a.png")[-1] == b"IEND"
    assert ink(tmp_path / "a.png") > 0.1


@pytest.mark.parametrize("names", [("猫", "狗"), ("$a", "b$"), ("\\frac{", "_"), ("", " "), ("a" * 60, "b\nc")])
def test_any_name_can_be_drawn(tmp_path: Path, names: tuple[str, str]) -> None:
    confusion_matrix(tmp_path / "a.png", [[0, 0], [5, 10**6]], names)
    assert ink(tmp_path / "a.png") > 0.05


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.zeros((2, 3), int), r"the shape is \(2, 3\) with 2 class names"),
        (np.zeros((3, 3), int), r"the shape is \(3, 3\) with 2 class names"),
        (np.full((2, 2), 0.5), "the values are float64 from 0.5"),
        (np.full((2, 2), -1), "the values are int64 from -1"),
    ],
)
def test_matrices_that_are_refused(tmp_path: Path, matrix: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        confusion_matrix(tmp_path / "a.png", matrix, ("cat", "dog"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot be written"):
        learning_curves(tmp_path / "gone" / "a.png", HISTORY)


@given(st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(k), pairs(k))))
def test_counts_agree_with_counting(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, labels = case
    true, predicted = zip(*labels, strict=True)
    counts = confusion_counts(true, predicted, classes)
    assert counts.dtype == np.int64
    assert counts.shape == (classes, classes)
    for row, column in np.ndindex(classes, classes):
        assert counts[row, column] == labels.count((row, column))


def pairs(classes: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    label = st.integers(0, classes - 1)
    return st.lists(st.tuples(label, label), min_size=1)


def test_counts_of_labels_that_are_refused() -> None:
    with pytest.raises(DataError, match="predicted labels: label 1 is 2"):
        confusion_counts([0, 1], [0, 2], 2)
    with pytest.raises(DataError, match="2 samples but 1 labels"):
        confusion_counts([0, 1], [0], 2)
