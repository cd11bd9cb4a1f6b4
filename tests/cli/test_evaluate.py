"""``chainrule evaluate``: the score of a run or a model file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.classifier import Classifier
from tests.cli.support import Command, shapes_images


def json_of(chainrule: Command, *words: object) -> dict[str, Any]:
    printed = chainrule("evaluate", *words, "--json")
    assert (printed.status, printed.err) == (0, "")
    result: dict[str, Any] = json.loads(printed.out)
    return result


def test_a_run_is_tested_on_its_own_split(chainrule: Command, digits_run: Path) -> None:
    result = json.loads((digits_run / "result.json").read_text())
    printed = chainrule("evaluate", digits_run)
    assert (printed.status, printed.err) == (0, "")
    share = f"{100 * result['test_accuracy']:.2f} % ({result['correct']} of 1528)"
    assert f"test accuracy {share}, loss {result['test_loss']:.4f}\n" in printed.out
    assert len([line for line in printed.out.splitlines() if line.startswith("  ")]) == 10


def test_json(chainrule: Command, digits_run: Path) -> None:
    found = json_of(chainrule, digits_run)
    assert found["data"] == "digits"
    assert found["accuracy"] == found["correct"] / found["samples"]
    assert [entry["name"] for entry in found["classes"]] == list("0123456789")
    assert sum(entry["correct"] for entry in found["classes"]) == found["correct"]
    assert sum(entry["samples"] for entry in found["classes"]) == found["samples"] == 1528


def test_a_model_file_needs_a_data_set(chainrule: Command, refused: Callable[..., str], digits_run: Path) -> None:
    model = digits_run / "model.safetensors"
    assert "name one, for example: chainrule evaluate model.safetensors digits" in refused("evaluate", model)
    split = ("--seed", 0, "--test-fraction", 0.85)
    assert json_of(chainrule, model, "digits", *split) == json_of(chainrule, digits_run)
    assert json_of(chainrule, model, "digits")["samples"] == 450


def test_another_data_set_for_a_run(chainrule: Command, refused: Callable[..., str], digits_run: Path) -> None:
    x, y = shapes_images(12, 0)
    np.savez("other.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert json_of(chainrule, digits_run, "other.npz")["samples"] == 12
    np.savez("large.npz", x_train=x.repeat(2, 1), y_train=y, x_test=x.repeat(2, 1), y_test=y)
    message = refused("evaluate", digits_run, "large.npz")
    assert message.endswith("large.npz has the shape 12x16x8x1; the model takes images of 8x8x1")


@pytest.mark.slow
def test_a_run_finds_its_file_from_another_folder(
    chainrule: Command, shapes: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chainrule("train", shapes.name, "--epochs", 1, "--run", "r").status == 0
    (inside / "elsewhere").mkdir()
    monkeypatch.chdir(inside / "elsewhere")
    assert json_of(chainrule, inside / "r")["samples"] == 30


@pytest.mark.slow
def test_changed_data_are_told(chainrule: Command, shapes: Path) -> None:
    assert chainrule("train", shapes, "--epochs", 1, "--run", "r").status == 0
    with np.load(shapes) as archive:
        arrays = dict(archive)
    np.savez(shapes, **{**arrays, "x_test": 255 - arrays["x_test"]})
    printed = chainrule("evaluate", "r")
    assert printed.status == 0
    assert printed.err.startswith(f"chainrule: warning: the data set {shapes} has changed since the run")


@pytest.mark.slow
def test_labels_that_the_model_does_not_know(chainrule: Command, refused: Callable[..., str], shapes: Path) -> None:
    chainrule("train", shapes, "--epochs", 1, "--run", "r")
    message = refused("evaluate", "r", "digits")
    assert message.startswith("test labels: label ")
    assert "expected 0..2 for 3 classes" in message


# -- models of other makers ------------------------------------------------------------------------------------


def saved(path: str, units: int, activation: str | None, loss: Any) -> str:
    layers = [cr.Input((8, 8, 1)), cr.layers.Rescaling(1 / 255), cr.layers.Flatten()]
    model = cr.Sequential([*layers, cr.layers.Dense(units, activation=activation)])
    if loss is not None:
        model.compile(loss=loss)
    model.save(path)
    return path


LOGITS = cr.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.slow
def test_logits_and_probabilities_are_told_apart(chainrule: Command, shapes: Path) -> None:
    models = {
        "softmax": saved("a.safetensors", 3, "softmax", "sparse_categorical_crossentropy"),
        "logits": saved("b.safetensors", 3, None, LOGITS),
        "one-hot": saved("c.safetensors", 3, "softmax", "categorical_crossentropy"),
        "softmax, not compiled": saved("d.safetensors", 3, "softmax", None),
        "logits, not compiled": saved("e.safetensors", 3, None, None),
    }
    found = {kind: json_of(chainrule, model, shapes) for kind, model in models.items()}
    assert {entry["correct"] for entry in found.values()} == {found["softmax"]["correct"]}
    losses = [entry["loss"] for entry in found.values()]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.slow
def test_a_single_output_is_two_classes(chainrule: Command, from_logits: bool) -> None:
    x, y = shapes_images(30, 0)
    x, y = x[y < 2], y[y < 2]
    np.savez("two.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    loss = cr.losses.BinaryCrossentropy(from_logits=from_logits)
    model = saved("m.safetensors", 1, None if from_logits else "sigmoid", loss)
    found = json_of(chainrule, model, "two.npz")
    assert [entry["samples"] for entry in found["classes"]] == [10, 10]
    probabilities = Classifier(cr.load_model(model)).probabilities(x[..., np.newaxis])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert found["correct"] == int((probabilities.argmax(axis=1) == y).sum())


def test_a_model_that_is_no_classifier(refused: Callable[..., str], shapes: Path) -> None:
    cr.Sequential([cr.Input((8, 8, 1)), cr.layers.Conv2D(3, 3)]).save("m.safetensors")
    assert "gives an output of rank 4; expected one number for each class" in refused(
        "evaluate", "m.safetensors", shapes
    )


def photos(folder: Path, classes: dict[str, int], size: tuple[int, int] = (8, 8), samples: int = 12) -> Path:
    """A folder of pictures, whose classes differ by their brightness."""
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for name, light in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(samples):
            pixels = random.integers(light, light + 30, (*size, 3)).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


LIGHTS = {"bird": 0, "dog": 100, "猫": 200}


@pytest.mark.slow
def test_other_pictures_are_matched_by_the_names_of_their_classes(
    chainrule: Command, refused: Callable[..., str], inside: Path
) -> None:
    photos(inside / "all", LIGHTS)
    words = ["--network", "conv32-dense128", "--epochs", 15, "--batch-size", 4, "--run", "r", "--quiet"]
    assert chainrule("train", "all", *words).status == 0
    assert json_of(chainrule, "r")["accuracy"] == 1
    photos(inside / "some", {name: LIGHTS[name] for name in ("dog", "猫")}, size=(11, 9))
    found = json_of(chainrule, "r", "some")
    assert (found["accuracy"], found["samples"]) == (1, 24)  # all of them, in the model's size
    assert {entry["name"]: entry["samples"] for entry in found["classes"]} == {"bird": 0, "dog": 12, "猫": 12}
    photos(inside / "cow", {"cow": 0, "dog": 100})
    assert "the class 'cow' of the data is none of the model's: bird, dog, 猫" in refused("evaluate", "r", "cow")


@pytest.mark.slow
def test_a_path_is_the_runs_own_however_it_is_written(
    chainrule: Command, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(inside / "all", LIGHTS)
    words = ["--network", "conv32-dense128", "--size", "6x6", "--channels", 1, "--seed", 3, "--epochs", 1, "--run", "r"]
    assert chainrule("train", "all", *words).status == 0
    own = json_of(chainrule, "r")
    assert own["samples"] == 6
    for name in ("all", "./all", str(inside / "all"), "r/../all/"):
        assert {**json_of(chainrule, "r", name), "data": ""} == {**own, "data": ""}


@pytest.mark.slow
def test_predictions_of_pictures_name_their_files(chainrule: Command, inside: Path) -> None:
    photos(inside / "all", LIGHTS)
    assert chainrule("train", "all", "--network", "conv32-dense128", "--epochs", 1, "--run", "r").status == 0
    lines = chainrule("predict", "r").out.splitlines()
    assert len(lines) == 6
    assert all(Path(line.split("\t")[0]).is_file() for line in lines)
    found = [json.loads(line) for line in chainrule("predict", "r", "all/dog", "--json").out.splitlines()]
    assert [entry["image"] for entry in found] == [str(path) for path in sorted(Path("all/dog").iterdir())]
    assert chainrule("predict", "r", "all/dog/0.png", "--limit", 1).out.startswith("all/dog/0.png\t")


def test_one_class_is_refused(refused: Callable[..., str], inside: Path) -> None:
    photos(inside / "one", {"bird": 0})
    assert "has one class, 'bird'; expected two or more" in refused("train", "one")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locale")
def test_a_chinese_path_is_the_same_in_every_locale(inside: Path) -> None:
    """A run begun where the system knows no Chinese characters is evaluated where it does, and the other way round."""
    photos(inside / "图", LIGHTS)
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    other = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    for first, second, run in ((plain, other, "r"), (other, plain, "s")):
        words = ["train", "图", "--network", "conv32-dense128", "--epochs", "1", "--quiet", "--run", run]
        results = [
            subprocess.run(
                [sys.executable, "-m", "chainrule", *line], env={**os.environ, **env}, capture_output=True, check=False
            )
            for line, env in ((words, first), (["evaluate", run], second), (["evaluate", run, "图"], second))
        ]
        assert [(done.returncode, done.stderr) for done in results] == [(0, b"")] * 3
        assert results[1].stdout == results[2].stdout
