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
from chainrule.runs import (
    confusion_counts,
    confusion_matrix,
    first_layer_filters,
    learning_curves,
    worst_mistakes,
)
from chainrule.runs.pictures import filters, mistakes
from chainrule.runs.pictures.mosaic import grid, visible, with_gaps

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
        {"loss": [0.5, 0.4], "learning_rate": [1e-3, 1e-4]},
        {"learning_rate": [0.0, NAN, -1.0, INF], "val_loss": [NAN] * 4},
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


# -- curves: the best epoch ---------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures, instead of files."""
    figures: list[Any] = []
    for module in ("curves", "filters", "mistakes"):
        monkeypatch.setattr(f"chainrule.runs.pictures.{module}.save", lambda path, figure: figures.append(figure))
    return figures


def labels(figure: Any) -> list[list[str]]:
    return [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes if axes.get_legend()]


def test_the_best_epoch_is_that_of_validation_and_less_or_more_is_better(drawn: list[Any]) -> None:
    history = {
        "loss": [3.0, 2.0, 1.0],
        "val_loss": [NAN, 0.5, 0.75],
        "accuracy": [0.25, 0.75, 0.5],
        "mean_squared_error": [1.0, 3.0, 2.0],
    }
    learning_curves("unused", history)
    loss, accuracy, error = labels(drawn[0])
    assert loss == ["training", "validation", "best: 0.5 in epoch 2"]
    assert accuracy == ["training", "best: 0.75 in epoch 2"]
    assert error == ["training", "best: 1 in epoch 1"]


def test_one_epoch_has_no_best(drawn: list[Any]) -> None:
    learning_curves("unused", {"loss": [0.5], "val_loss": [0.25]})
    assert labels(drawn[0]) == [["training", "validation"]]


@pytest.mark.parametrize(("rates", "scale"), [([1e-2, 1e-4], "log"), ([1e-2, 0.0], "linear"), ([NAN], "linear")])
def test_learning_rates_come_last_on_a_logarithmic_axis(drawn: list[Any], rates: list[float], scale: str) -> None:
    learning_curves("unused", {"learning_rate": rates, "loss": [1.0] * len(rates)})
    assert [axes.get_title() for axes in drawn[0].axes] == ["loss", "learning rate"]
    assert [axes.get_yscale() for axes in drawn[0].axes] == ["linear", scale]


# -- mistakes -----------------------------------------------------------------------------------------------------


def some_mistakes(samples: int, classes: int, shape: tuple[int, ...] = (6, 7), seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.ones(classes), samples).reshape(samples, classes)
    return rng.integers(0, 256, (samples, *shape), np.uint8), rng.integers(0, classes, samples), chances


def captions(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_most_confident_mistakes_come_first(drawn: list[Any]) -> None:
    images, true, chances = some_mistakes(200, 3)
    predicted = chances.argmax(axis=1)
    worst_mistakes("unused", images, true, predicted, chances, ("cat", "dog", "a" * 40))
    wrong = [(float(-chances[i, predicted[i]]), i) for i in range(200) if true[i] != predicted[i]]
    names = ("cat", "dog", "a" * 10 + "…")
    expected = [
        f"true {names[true[i]]}\ntaken for {names[predicted[i]]}, {-chance:.2f}" for chance, i in sorted(wrong)[:25]
    ]
    assert captions(drawn[0]) == expected
    assert drawn[0].get_suptitle() == f"the worst 25 of {len(wrong)} mistakes in 200 images"


def test_the_images_are_those_of_the_captions(drawn: list[Any]) -> None:
    images = np.zeros((3, 2, 2), np.uint8)
    images[2] = 255
    chances = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
    worst_mistakes("unused", images, [0, 1, 1], [0, 0, 0], chances, ("a", "b"))
    assert captions(drawn[0]) == ["true b\ntaken for a, 0.70", "true b\ntaken for a, 0.60"]
    shown = [np.asarray(image.get_array()).mean() for image in drawn[0].axes[0].images]
    assert shown == [1.0, 0.0]


def test_only_the_images_that_are_drawn_are_asked_for(drawn: list[Any]) -> None:
    images, true, chances = some_mistakes(40, 2)
    asked: list[Any] = []

    def some(numbers: Any) -> Any:
        asked.append(numbers)
        return images[numbers]

    for source in (images, some):
        worst_mistakes("unused", source, true, 1 - true, chances, ("a", "b"))
    assert [len(numbers) for numbers in asked] == [25]
    first, second = ([np.asarray(image.get_array()) for image in figure.axes[0].images] for figure in drawn)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_no_mistakes_are_said(drawn: list[Any], samples: int) -> None:
    images, true, chances = some_mistakes(samples, 2)
    worst_mistakes("unused", images, true, true, chances, ("a", "b"))
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["no mistakes"]
    assert f"{samples} image" in drawn[0].get_suptitle()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1, 1), (4, 4, 3), (4, 4, 2), (5, 3, 7)])
@pytest.mark.parametrize("names", [("猫" * 20, "$a"), ("b$_{", "")])
def test_any_mistake_can_be_drawn(tmp_path: Path, shape: tuple[int, ...], names: tuple[str, str]) -> None:
    images, true, chances = some_mistakes(7, 2, shape)
    values = images.astype(np.float32)
    values[0] = NAN
    values[1] = INF
    values[2] = 3e38
    chances[:3] = NAN
    for number, given_images in enumerate((images, values, values[:1])):
        count = len(given_images)
        path = tmp_path / f"{number}.png"
        worst_mistakes(path, given_images, true[:count], 1 - true[:count], chances[:count], names)
        assert ink(path) > 0.01


def test_one_class_has_no_mistakes(tmp_path: Path) -> None:
    worst_mistakes(tmp_path / "a.png", np.zeros((2, 3, 3)), [0, 0], [0, 0], [[1.0], [1.0]], ("only",))
    assert ink(tmp_path / "a.png") > 0.001


def test_the_mean_of_channels_is_said(drawn: list[Any]) -> None:
    images, true, chances = some_mistakes(3, 2, (4, 4, 5))
    worst_mistakes("unused", images, true, 1 - true, chances, ("a", "b"))
    assert drawn[0].get_suptitle().endswith("(the mean of 5 channels)")
    shown = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert (shown[..., 0] == shown[..., 1]).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images": np.zeros((3, 4))}, "the images are float64 of shape"),
        ({"images": np.zeros((3, 0, 4))}, "the images are float64 of shape"),
        ({"images": np.full((3, 2, 2), "a")}, "the images are <U1"),
        ({"true": [0, 1]}, "the true labels have shape"),
        ({"predicted": [0, 1, 2]}, "predicted labels: label 2 is 2"),
        ({"probabilities": np.zeros((3, 3))}, r"the probabilities are float64 of shape \(3, 3\)"),
    ],
)
def test_mistakes_that_are_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    good = {"images": np.zeros((3, 2, 2)), "true": [0, 1, 1], "predicted": [0, 1, 0], "probabilities": np.zeros((3, 2))}
    with pytest.raises(DataError, match=words):
        worst_mistakes(tmp_path / "a.png", class_names=("a", "b"), **{**good, **changed})
    assert list(tmp_path.iterdir()) == []


# -- filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(3, 3, 1, 32), (5, 5, 3, 1), (1, 7, 3, 65), (3, 3, 4, 8), (2, 1, 64, 500), (90, 90, 1, 2)]
)
def test_any_kernel_can_be_drawn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    first_layer_filters(tmp_path / "a.png", kernel, "层 $x_{")
    assert ink(tmp_path / "a.png") > 0.03


@pytest.mark.parametrize("value", [0.0, NAN, INF, 1e308, 1e-320])
def test_any_weight_can_be_drawn(tmp_path: Path, value: float) -> None:
    first_layer_filters(tmp_path / "a.png", np.full((3, 3, 1, 2), value))
    first_layer_filters(tmp_path / "b.png", np.array([value, -value, 1.0, NAN]).reshape(1, 1, 4, 1))
    assert ink(tmp_path / "a.png") > 0.01


def test_filters_are_drawn_on_a_symmetric_scale(drawn: list[Any]) -> None:
    kernel = np.array([0.0, 0.5, -0.25, NAN]).reshape(1, 1, 1, 4)
    first_layer_filters("unused", kernel, "conv")
    pixels = np.asarray(drawn[0].axes[0].images[0].get_array())
    step, half = filters._FILTER_PIXELS + filters._GAP, filters._GAP + filters._FILTER_PIXELS // 2
    found = [pixels[half + step * (n // 2), half + step * (n % 2)].tolist() for n in range(4)]
    assert found == [[0.5] * 3, [1.0] * 3, [0.25] * 3, [1.0, 0.0, 1.0]]
    title = drawn[0].axes[0].get_title()
    assert title == "conv: 4 filters of 1x1x1\nblack -0.5, white 0.5\nnot finite, in magenta: 1 of 4 weights"


def test_the_title_says_what_is_left_out(drawn: list[Any]) -> None:
    first_layer_filters("unused", np.ones((3, 3, 8, 100)))
    title = drawn[0].axes[0].get_title()
    assert title.startswith("first convolution: the first 64 of 100 filters of 3x3x8\nmean over 8 input channels\n")


@pytest.mark.parametrize("kernel", [np.zeros((3, 3, 1)), np.zeros((3, 3, 0, 4)), np.full((1, 1, 1, 1), "a")])
def test_kernels_that_are_refused(tmp_path: Path, kernel: Any) -> None:
    with pytest.raises(DataError, match="filters of first convolution: the kernel is"):
        first_layer_filters(tmp_path / "a.png", kernel)
    assert list(tmp_path.iterdir()) == []


def test_the_new_pictures_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    images, true, chances = some_mistakes(9, 2)
    for name in "ab":
        with matplotlib.rc_context({} if name == "a" else {"image.cmap": "jet", "font.size": 20}):
            worst_mistakes(tmp_path / f"m{name}", images, true, 1 - true, chances, ("猫", "b"))
            first_layer_filters(tmp_path / f"f{name}", np.linspace(-1, 1, 36).reshape(3, 3, 1, 4))
    assert (tmp_path / "ma").read_bytes() == (tmp_path / "mb").read_bytes()
    assert (tmp_path / "fa").read_bytes() == (tmp_path / "fb").read_bytes()


@given(st.integers(1, 200), st.integers(1, 8))
def test_grids_hold_what_they_should(count: int, most: int) -> None:
    rows, columns = grid(count, most)
    assert columns <= most
    assert (rows - 1) * columns < count <= rows * columns


def test_a_mosaic_keeps_every_pixel() -> None:
    images = [visible(np.full((2, 3, 1), value), 0, 4) for value in (0, 1, 2)]
    mosaic = with_gaps(images, 2, 2, 1)
    assert mosaic.shape == (2 * 5 + 1, 2 * 7 + 1, 3)
    assert [float(mosaic[place][0]) for place in ((1, 1), (4, 6), (1, 8), (6, 1), (6, 8))] == [0, 0, 0.25, 0.5, 1]


def test_how_many_are_drawn_at_most() -> None:
    assert mistakes._MOST == mistakes._COLUMNS**2
    assert filters._MOST == filters._COLUMNS**2
