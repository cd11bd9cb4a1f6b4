"""``chainrule predict``: images from files and data sets, printed or written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.output import say_json
from chainrule.data import digits, fashion_mnist
from tests.cli.support import Command, idx_bytes


@pytest.fixture(scope="module")
def five() -> np.ndarray:
    """Images of the test part."""
    return digits(0.85, 0).x_test[:5]


def lines(chainrule: Command, *words: object) -> list[list[str]]:
    printed = chainrule("predict", *words)
    assert (printed.status, printed.err) == (0, "")
    return [line.split("\t") for line in printed.out.splitlines()]


@pytest.fixture
def expected(digits_run: Path, five: np.ndarray) -> list[list[str]]:
    """The lines for the five images."""
    probabilities = cr.load_model(digits_run / "model.safetensors").predict(five)
    return [[str(i), str(row.argmax()), f"{row.max():.4f}"] for i, row in enumerate(probabilities)]


@pytest.mark.parametrize("grey", [False, True], ids=["with channel", "grey"])
@pytest.mark.parametrize("kind", ["npy", "npz", "idx", "idx.gz"])
def test_files_of_images(
    chainrule: Command, digits_run: Path, five: np.ndarray, expected: list[list[str]], kind: str, grey: bool
) -> None:
    images = five[..., 0] if grey else five
    path = Path(f"图像.{kind}")
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez(path, anything=images)
    else:
        content = idx_bytes(images)
        path.write_bytes(gzip.compress(content) if kind == "idx.gz" else content)
    assert lines(chainrule, digits_run, path) == expected


@pytest.mark.parametrize("grey", [False, True], ids=["with channel", "grey"])
def test_a_single_image(
    chainrule: Command, digits_run: Path, five: np.ndarray, expected: list[list[str]], grey: bool
) -> None:
    np.save("one.npy", five[0, ..., 0] if grey else five[0])
    assert lines(chainrule, digits_run, "one.npy") == expected[:1]


def test_the_images_of_a_data_set_file(
    chainrule: Command, digits_run: Path, five: np.ndarray, expected: list[list[str]]
) -> None:
    np.savez("set.npz", x_train=five[:1], x_test=five)
    assert lines(chainrule, digits_run, "set.npz", "--limit", 2) == expected[:2]


def test_the_test_part_of_a_data_set(chainrule: Command, digits_run: Path, expected: list[list[str]]) -> None:
    model = digits_run / "model.safetensors"
    assert lines(chainrule, digits_run, "--limit", 5) == expected
    assert lines(chainrule, digits_run, "digits", "--limit", 5) == expected
    assert lines(chainrule, model, "digits", "--test-fraction", 0.85, "--limit", 5) == expected


@pytest.mark.slow
def test_a_folder_of_images(chainrule: Command, mnist_folder: Path) -> None:
    assert chainrule("train", "fashion-mnist", "--data", mnist_folder, "--epochs", 1, "--run", "r").status == 0
    found = lines(chainrule, "r")
    assert found == lines(chainrule, "r/model.safetensors", "fashion-mnist", "--data", mnist_folder)
    assert len(found) == 20
    np.save("one.npy", np.zeros((12, 12), np.uint8))
    assert lines(chainrule, "r", "one.npy")[0][1] in fashion_mnist(mnist_folder).class_names


def test_all_probabilities_as_a_table(chainrule: Command, digits_run: Path, five: np.ndarray) -> None:
    np.save("images.npy", five)
    printed = chainrule("predict", digits_run, "images.npy", "--out", "表.csv")
    assert (printed.status, printed.out) == (0, "5 predictions written to 表.csv\n")
    with open("表.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "prediction", *"0123456789"]
    probabilities = cr.load_model(digits_run / "model.safetensors").predict(five)
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], np.float32), probabilities)
    assert [row[:2] for row in rows] == [[str(i), str(row.argmax())] for i, row in enumerate(probabilities)]


def test_a_table_is_never_overwritten(refused: Callable[..., str], digits_run: Path) -> None:
    Path("old.csv").write_text("precious")
    assert "'old.csv' already exists and is not overwritten" in refused("predict", digits_run, "--out", "old.csv")
    assert Path("old.csv").read_text() == "precious"
    assert "'nowhere' is not a folder" in refused("predict", digits_run, "--out", "nowhere/new.csv")


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 8, 8, 3), (8,), (), (0, 8, 8)])
def test_images_of_another_shape(refused: Callable[..., str], digits_run: Path, shape: tuple[int, ...]) -> None:
    np.save("images.npy", np.zeros(shape, np.float32))
    message = refused("predict", digits_run, "images.npy")
    assert message.startswith("'images.npy' h")
    assert ("x".join(map(str, shape)) or "single number") in message


def test_what_is_no_image(refused: Callable[..., str], digits_run: Path, five: np.ndarray) -> None:
    np.save("nan.npy", np.full((1, 8, 8), np.nan))
    assert "NaN" in refused("predict", digits_run, "nan.npy")
    np.save("text.npy", np.full((1, 8, 8), "a"))
    assert "expected integers or floats" in refused("predict", digits_run, "text.npy")
    np.savez("two.npz", a=five, b=five)
    assert "the archive holds a, b; expected one array" in refused("predict", digits_run, "two.npz")
    assert "(did you mean 'digits'?)" in refused("predict", digits_run, "digit")
    assert "is the file 'nan.npy'" in refused("predict", digits_run, "nan.npy", "--data", "folder")
    Path("empty").mkdir()
    assert refused("predict", digits_run, "empty") == "'empty' holds no pictures"
    assert "--limit: expected a positive integer" in refused("predict", digits_run, "--limit", 0)


def test_a_pickle_is_never_loaded(refused: Callable[..., str], digits_run: Path) -> None:
    np.save("objects.npy", np.array([{}, []], object), allow_pickle=True)
    assert "holds no plain numbers" in refused("predict", digits_run, "objects.npy")


@pytest.mark.parametrize("kind", ["npy", "npz", "idx"])
def test_damaged_files(refused: Callable[..., str], digits_run: Path, five: np.ndarray, kind: str) -> None:
    path = Path(f"images.{kind}")
    if kind == "idx":
        path.write_bytes(idx_bytes(five))
    elif kind == "npy":
        np.save(path, five)
    else:
        np.savez(path, x=five)
    whole = path.read_bytes()
    for length in {0, 1, 3, 7, 20, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert refused("predict", digits_run, path)


def test_numbers_that_are_none_are_null(chainrule: Command, digits_run: Path, five: np.ndarray) -> None:
    model = cr.load_model(digits_run / "model.safetensors")
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(Path("nan.safetensors"))
    np.save("images.npy", five)
    printed = chainrule("predict", "nan.safetensors", "images.npy", "--json")
    assert (printed.status, printed.err) == (0, "")
    for line in printed.out.splitlines():
        found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert set(found["probabilities"].values()) == {None}


def test_json_is_json_on_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "utf-8", "latin-1"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        monkeypatch.setattr("sys.stdout", stream)
        say_json({"猫": [math.nan, 0.5, (math.inf, "é\udcff")]})
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        assert json.loads(text) == {"猫": [None, 0.5, [None, "é\udcff"]]}
