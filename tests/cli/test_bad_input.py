"""Bad input: one sentence, exit status 2, and nothing left behind or touched."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from tests.cli.support import SHORT, Command

Refused = Callable[..., str]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["cifar"],
            "unknown data set 'cifar'; expected digits, mnist, fashion-mnist, a folder of pictures, a list of ",
        ),
        (["fashion_mnist"], "unknown data set 'fashion_mnist' (did you mean 'fashion-mnist'?)"),
        (["digits", "--data", "."], "the data set digits takes no --data folder"),
        (["mnist", "--data", ".", "--test-fraction", "0.5"], "the data set mnist comes with a test part"),
        (["mnist", "--data", "nowhere"], "'nowhere' does not exist; expected a folder with the idx files of mnist"),
        (["mnist", "--data", "."], "'.' holds no file with the train-images"),
        (["absent.npz"], "absent.npz': cannot be read (No such file or directory)"),
    ],
)
def test_data_that_are_not_there(refused: Refused, inside: Path, words: list[str], message: str) -> None:
    found = refused("train", *words)
    assert message.replace("'.'", f"'{inside}'").replace("'nowhere'", f"'{inside / 'nowhere'}'") in found
    assert list(inside.iterdir()) == []


def test_a_truncated_file_of_images(refused: Refused, mnist_folder: Path) -> None:
    path = mnist_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"'{path}': the gzip stream is truncated" in refused("train", "mnist", "--data", mnist_folder)
    path.write_bytes(gzip.compress(gzip.decompress((mnist_folder / "t10k-images-idx3-ubyte.gz").read_bytes())[:-1]))
    assert "so the file is truncated" in refused("train", "mnist", "--data", mnist_folder)
    assert not Path("runs").exists()


def test_swapped_images_and_labels(refused: Refused, mnist_folder: Path) -> None:
    images, labels = (mnist_folder / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    first, second = images.read_bytes(), labels.read_bytes()
    images.write_bytes(second)
    labels.write_bytes(first)
    message = refused("train", "mnist", "--data", mnist_folder)
    assert message.startswith(f"'{images}': the file holds 64 uint8, rank 1; expected images")


def test_a_corrupted_archive(refused: Refused, shapes: Path) -> None:
    content = bytearray(shapes.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shapes.write_bytes(content)
    assert refused("train", shapes).startswith(f"'{shapes}': ")
    shapes.write_bytes(content[: len(content) // 2])
    assert "truncated, corrupted or not an .npz archive" in refused("train", shapes)
    assert not Path("runs").exists()


def test_images_that_are_too_small_for_the_network(refused: Refused, shapes: Path) -> None:
    assert "max_pooling2d_1" in refused("train", shapes, "--network", "conv32-conv64-dense64")
    assert not Path("runs").exists()


def test_a_validation_part_that_leaves_nothing(refused: Refused, shapes: Path) -> None:
    for fraction in ("0.999", "0.001"):
        assert "leaves an empty part" in refused("train", shapes, "--validation-fraction", fraction)


def test_digits_without_scikit_learn(refused: Refused, monkeypatch: pytest.MonkeyPatch, inside: Path) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"] + ["sklearn"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert 'install it with: pip install "chainrule[scikit-learn]"' in refused("train")
    assert list(inside.iterdir()) == []


# -- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "0", "epochs must be an integer of at least 1, got 0"),
        ("--epochs", "-3", "epochs must be an integer of at least 1, got -3"),
        ("--epochs", "2.5", "--epochs: expected a whole number, got '2.5'"),
        ("--batch-size", "0", "batch size must be an integer of at least 1, got 0"),
        ("--learning-rate", "-1", "learning rate must be a positive number, got -1.0"),
        ("--learning-rate", "0", "learning rate must be a positive number, got 0.0"),
        ("--learning-rate", "nan", "learning rate must be a positive number, got nan"),
        ("--learning-rate", "fast", "--learning-rate: expected a number, got 'fast'"),
        ("--optimizer", "adma", "unknown optimizer 'adma' (did you mean 'adam'?); expected one of adam, "),
        ("--network", "dgits", "unknown network 'dgits' (did you mean 'digits'?)"),
        ("--schedule", "cosin", "unknown schedule 'cosin' (did you mean 'cosine'?)"),
        ("--seed", "-1", "seed must be an integer in 0.."),
        ("--seed", str(2**64), "seed must be an integer in 0.."),
        ("--seed", str(2**32), "the seed of the digits' split lies in 0..4294967295"),
        ("--test-fraction", "1", "test fraction must be a number between 0 and 1, got 1.0"),
        ("--test-fraction", "0.0001", "digits: cannot split with test_fraction=0.0001"),
        ("--validation-fraction", "1", "validation fraction must be a number in [0, 1), got 1.0"),
        ("--seeds", "4-0", "--seeds: expected 1 to 1000 seeds in rising ranges"),
        ("--seeds", "0-99999999999", "--seeds: expected 1 to 1000 seeds"),
        ("--seeds", "1,1", "--seeds: a seed appears twice"),
        ("--seeds", "", "--seeds: expected seeds such as 0-4 or 0,1,2, got ''"),
        ("--seeds", str(2**64), "seed must be an integer in 0.."),
        ("--verbose", "3", "--verbose: expected 0, 1, 2 or auto, got '3'"),
        ("--config", "absent.json", "'absent.json': cannot be read"),
    ],
)
def test_values_out_of_range(refused: Refused, inside: Path, option: str, value: str, message: str) -> None:
    assert refused("train", option, value).startswith(message)
    assert list(inside.iterdir()) == []


def test_one_seed_or_several(refused: Refused) -> None:
    assert refused("train", "--seed", 0, "--seeds", "0,1") == "give --seed for one run or --seeds for several, not both"


# -- run folders -----------------------------------------------------------------------------------------------


def test_a_run_folder_that_holds_something_is_untouched(refused: Refused, inside: Path) -> None:
    precious = inside / "old"
    precious.mkdir()
    (precious / "model.safetensors").write_bytes(b"precious")
    assert "already holds 'model.safetensors'" in refused("train", *SHORT, "--run", precious)
    assert everything(inside) == {os.path.join("old", "model.safetensors"): b"precious"}


@pytest.mark.parametrize("path", ["file/run", "file", pytest.param("/proc/run/deep", id="a system folder")])
def test_a_run_folder_that_cannot_be(refused: Refused, inside: Path, path: str) -> None:
    Path("file").write_text("a file")
    assert refused("train", *SHORT, "--run", path).startswith(f"run folder '{path}' ")
    assert everything(inside) == {"file": b"a file"}


def test_a_failed_training_leaves_no_folder(refused: Refused, inside: Path) -> None:
    for run in ([], ["--run", "deep/er/run"]):
        refused("train", "mnist", "--data", "nowhere", *run)
        refused("train", "mnist", "--data", "nowhere", "--seeds", "0-1", *run)
    assert list(inside.iterdir()) == []


def test_a_failed_training_leaves_the_users_own_folders(refused: Refused, inside: Path) -> None:
    (inside / "mine").mkdir()
    (inside / "runs").mkdir()
    refused("train", "mnist", "--data", "nowhere", "--run", "mine")
    refused("train", "mnist", "--data", "nowhere")
    assert sorted(entry.name for entry in inside.iterdir()) == ["mine", "runs"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "the top level is a list"),
        ("{}", "the configuration holds no settings"),
        ('{"settings": {"epoch": 3}}', "unknown setting 'epoch' (did you mean 'epochs'?)"),
        ('{"settings": {"epochs": "3"}}', "epochs must be an integer of at least 1, got '3'"),
        ('{"settings": {"epochs": true}}', "epochs must be an integer of at least 1, got True"),
        ('{"settings": {"learning_rate": 1e999}}', "learning rate must be a positive number, got inf"),
        ('{"settings": {"network": 3}}', "network must be a name, got 3"),
    ],
)
def test_a_configuration_that_is_none(refused: Refused, text: str, message: str) -> None:
    Path("config.json").write_text(text)
    found = refused("train", "--config", "config.json")
    assert found.startswith("'config.json': ")
    assert message in found


@pytest.mark.slow
def test_a_folder_that_is_no_run(refused: Refused, chainrule: Command, shapes: Path) -> None:
    Path("empty").mkdir()
    for command in (["evaluate", "empty"], ["predict", "empty"], ["summary", "empty"], ["train", "--config", "empty"]):
        assert "'empty' holds no config.json" in refused(*command)
    assert chainrule("train", shapes, "--epochs", 1, "--seeds", "0,1", "--run", "r").status == 0
    assert "a run for each of several seeds; name one of seed-0, seed-1" in refused("evaluate", "r")


# -- model files -----------------------------------------------------------------------------------------------


def change(path: Path, damage: Callable[[bytes], bytes]) -> Path:
    damaged = Path("damaged.safetensors")
    damaged.write_bytes(damage(path.read_bytes()))
    return damaged


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content[:-8] + bytes(8),
        lambda content: b"PK" + content,
        lambda content: os.urandom(64),
        lambda content: content.replace(b"Conv2D", b"Conv9D"),
    ],
    ids=["empty", "header cut", "one byte short", "weights changed", "shifted", "noise", "unknown layer"],
)
@pytest.mark.parametrize("command", ["evaluate", "predict", "summary"])
def test_a_damaged_model_file(
    refused: Refused, digits_run: Path, command: str, damage: Callable[[bytes], bytes]
) -> None:
    path = change(digits_run / "model.safetensors", damage)
    words = [] if command == "summary" else ["digits"]
    assert refused(command, path, *words).startswith("damaged.safetensors: ")


def test_a_model_of_another_library(refused: Refused) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, "foreign.safetensors")
    assert "not a chainrule model" in refused("evaluate", "foreign.safetensors", "digits")


def test_a_model_that_is_not_there(refused: Refused, digits_run: Path, inside: Path) -> None:
    assert refused("evaluate", "absent") == "there is no run folder and no model file 'absent'"
    for name in ("config.json", "result.json"):
        (inside / name).write_bytes((digits_run / name).read_bytes())
    assert "no such model file" in refused("evaluate", inside)


def test_a_model_with_several_inputs(refused: Refused, shapes: Path) -> None:
    inputs: list[Any] = [cr.Input((4,)), cr.Input((4,))]
    cr.Model(inputs, inputs[0] + inputs[1]).save("two.safetensors")
    assert "has several inputs" in refused("evaluate", "two.safetensors", shapes)


@pytest.mark.slow
def test_results_are_strict_json(chainrule: Command, shapes: Path) -> None:
    words = "--network conv32-dense128 --optimizer sgd --learning-rate 1e30 --epochs 2 --quiet --run r"
    chainrule("train", shapes, *words.split())

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for text in (Path("r/config.json").read_text(), chainrule("evaluate", "r", "--json").out):
        json.loads(text, parse_constant=refuse)
