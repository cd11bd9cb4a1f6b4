"""``chainrule train``: what it prints, what it leaves in the run folder, and that a run can be run again."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import __version__
from chainrule.cli import train as training
from chainrule.cli.classifier import Classifier
from chainrule.cli.options import seed_list
from chainrule.cli.schedule import callbacks_for
from chainrule.networks import digits
from chainrule.runs import write_history
from chainrule.train.callbacks import Callback, Logs
from tests.cli.support import SHORT, Command

pytestmark = pytest.mark.slow

FILES = ["config.json", "confusion.png", "curves.png", "history.csv", "history.json", "model.safetensors"]
RESULT = re.compile(r"^test accuracy (\d+\.\d\d) % \((\d+) of (\d+)\), loss (\d+\.\d{4})$", re.MULTILINE)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return config


def model_bytes(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# -- a run -----------------------------------------------------------------------------------------------------


def test_digits_are_the_default_data_set(chainrule: Command, inside: Path) -> None:
    printed = chainrule("train", *SHORT)
    assert (printed.status, printed.err) == (0, "")
    assert "digits: 269 training and 1528 test images of 8x8x1 float32, 10 classes\n" in printed.out
    assert "1 epoch, trained in " in printed.out
    found = RESULT.search(printed.out)
    assert found is not None
    assert float(found[1]) == round(100 * int(found[2]) / int(found[3]), 2)
    run = Path("runs") / "digits-1"
    assert f"model     {run / 'model.safetensors'}\n" in printed.out
    assert f"pictures  {run / 'curves.png'}, {run / 'confusion.png'}\n" in printed.out
    assert names(inside / run) == FILES


def test_runs_are_numbered(chainrule: Command, shapes: Path, inside: Path) -> None:
    for _ in range(2):
        assert chainrule("train", shapes, "--epochs", 1, "--quiet").status == 0
    assert names(inside / "runs") == ["shapes-1", "shapes-2"]


def test_the_configuration_tells_everything(digits_run: Path) -> None:
    config = config_of(digits_run)
    settings = config["settings"]
    assert settings.pop("learning_rate") > 0
    assert settings == {
        "data": "digits",
        "folder": None,
        "test_fraction": 0.85,
        "validation_fraction": 0.0,
        "network": "digits",
        "epochs": 1,
        "batch_size": 32,
        "schedule": "cosine",
        "optimizer": "adam",
        "seed": 0,
    }
    assert config["versions"]["chainrule"] == __version__
    assert config["class_names"] == list("0123456789")
    result = config["result"]
    assert result["test_accuracy"] == result["correct"] / result["test_samples"]
    assert result["parameters"] == digits().count_params()
    assert not result["interrupted"]


def test_the_saved_model_can_be_trained_on(digits_run: Path) -> None:
    model = cr.load_model(digits_run / "model.safetensors")
    assert model.optimizer.learning_rate == config_of(digits_run)["settings"]["learning_rate"]


def test_the_history_has_a_row_for_each_epoch(chainrule: Command, shapes: Path) -> None:
    assert chainrule("train", shapes, "--epochs", 3, "--validation-fraction", 0.25, "--run", "r").status == 0
    history = json.loads(Path("r/history.json").read_text())
    assert sorted(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert {len(values) for values in history.values()} == {3}
    assert len(Path("r/history.csv").read_text().splitlines()) == 4


def test_the_validation_part_is_of_the_training_part(
    chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit = cr.Sequential.fit

    def spy(model: cr.Sequential, x: Any, y: Any, **options: Any) -> Any:
        seen.append((x, options["validation_data"][0]))
        return fit(model, x, y, **options)

    monkeypatch.setattr(cr.Sequential, "fit", spy)
    assert chainrule("train", shapes, "--epochs", 1, "--validation-fraction", 0.25, "--seed", 1).status == 0
    ((kept, held_out),) = seen
    assert (len(kept), len(held_out)) == (72, 24)
    rows = {image.tobytes() for image in kept} | {image.tobytes() for image in held_out}
    assert rows == {image.tobytes() for image in np.load(shapes)["x_train"]}


def test_a_file_of_images_is_learned(chainrule: Command, shapes: Path) -> None:
    printed = chainrule("train", shapes, "--epochs", 8, "--quiet")
    found = RESULT.search(printed.out)
    assert found is not None
    assert printed.out == f"{found[0]}\n"
    assert float(found[1]) == 100
    assert config_of(Path("runs/shapes-1"))["settings"]["data"] == str(shapes)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_folder_of_images(chainrule: Command, mnist_folder: Path, name: str) -> None:
    printed = chainrule("train", name, "--data", mnist_folder, "--epochs", 1)
    assert (printed.status, printed.err) == (0, "")
    settings = config_of(Path(f"runs/{name}-1"))["settings"]
    assert (settings["network"], settings["folder"]) == ("conv32-conv64-dense64", str(mnist_folder))


def test_every_option_reaches_the_run(chainrule: Command, shapes: Path) -> None:
    words = "--network conv32-dense128 --epochs 2 --batch-size 5 --learning-rate 0.05 --optimizer sgd"
    more = "--schedule constant --seed 7 --validation-fraction 0.1 --verbose 2 --run deep/run"
    assert chainrule("train", shapes, *words.split(), *more.split()).status == 0
    settings = config_of(Path("deep/run"))["settings"]
    assert settings == {
        "data": str(shapes),
        "folder": None,
        "test_fraction": None,
        "validation_fraction": 0.1,
        "network": "conv32-dense128",
        "epochs": 2,
        "batch_size": 5,
        "learning_rate": 0.05,
        "schedule": "constant",
        "optimizer": "sgd",
        "seed": 7,
    }


def test_another_optimizer_has_its_own_learning_rate(chainrule: Command, shapes: Path) -> None:
    chainrule("train", shapes, "--epochs", 1, "--optimizer", "sgd", "--run", "r")
    assert config_of(Path("r"))["settings"]["learning_rate"] == cr.optimizers.SGD().learning_rate


def test_a_loss_that_diverges_is_told(chainrule: Command, shapes: Path) -> None:
    words = "--network conv32-dense128 --optimizer sgd --learning-rate 1e30 --epochs 3 --run r"
    printed = chainrule("train", shapes, *words.split())
    assert printed.status == 0
    assert printed.err.startswith("chainrule: warning: the loss is no longer finite")
    assert names(Path("r")) == FILES


# -- the same bits ---------------------------------------------------------------------------------------------


def test_a_run_can_be_run_again(chainrule: Command, digits_run: Path) -> None:
    for config in (digits_run / "config.json", digits_run):
        again = Path(f"again-{config.suffix}")
        assert chainrule("train", "--config", config, "--run", again, "--quiet").status == 0
        assert model_bytes(again) == model_bytes(digits_run)
        first, second = config_of(digits_run), config_of(again)
        assert {**first["result"], "seconds": 0} == {**second["result"], "seconds": 0}
        assert first["settings"] == second["settings"]


def test_options_override_the_configuration(chainrule: Command, digits_run: Path, shapes: Path) -> None:
    assert chainrule("train", shapes, "--config", digits_run, "--seed", 3, "--run", "r").status == 0
    settings = config_of(Path("r"))["settings"]
    assert (settings["data"], settings["seed"], settings["epochs"]) == (str(shapes), 3, 1)
    assert settings["test_fraction"] is None


def test_another_seed_gives_another_model(chainrule: Command, shapes: Path) -> None:
    for seed in (0, 1):
        chainrule("train", shapes, "--epochs", 1, "--seed", seed, "--run", f"r{seed}")
    assert model_bytes(Path("r0")) != model_bytes(Path("r1"))


# -- several seeds ---------------------------------------------------------------------------------------------


def test_several_seeds(chainrule: Command, digits_run: Path) -> None:
    printed = chainrule("train", *SHORT, "--seeds", "0-1", "--run", "r")
    assert (printed.status, printed.err) == (0, "")
    assert names(Path("r")) == ["seed-0", "seed-1", "seeds.json"]
    assert names(Path("r/seed-1")) == FILES
    assert model_bytes(Path("r/seed-0")) == model_bytes(digits_run)
    summary = json.loads(Path("r/seeds.json").read_text())
    accuracies = [config_of(Path(f"r/seed-{seed}"))["result"]["test_accuracy"] for seed in (0, 1)]
    assert summary["test_accuracy"] == accuracies
    mean = 100 * sum(accuracies) / 2
    assert f"mean test accuracy over 2 seeds {mean:.2f} % (" in printed.out
    lines = [f"seed {seed}: test accuracy {100 * accuracy:.2f} % (" for seed, accuracy in enumerate(accuracies)]
    assert all(line in printed.out for line in lines)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("0,1,2", [0, 1, 2]), ("7", [7]), ("3, 0-1", [3, 0, 1])]
)
def test_lists_of_seeds(text: str, seeds: list[int]) -> None:
    assert seed_list(text) == seeds


# -- Ctrl-C ----------------------------------------------------------------------------------------------------


class PressCtrlC(Callback):
    """Interrupts after the second step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.now = epoch == self.epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.now and batch == 1:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_keeps_what_was_learned(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "callbacks_for", lambda schedule: [PressCtrlC(epoch=1)])
    printed = chainrule("train", shapes, "--epochs", 9, "--batch-size", 8, "--validation-fraction", 0.2, "--run", "r")
    assert printed.status == 130
    assert "warning: interrupted in epoch 2 of 9; what was learned until then is in r" in printed.err
    assert names(Path("r")) == FILES
    result = config_of(Path("r"))["result"]
    assert (result["interrupted"], result["epochs"]) == (True, 2)
    assert json.loads(Path("r/history.json").read_text())["val_loss"][1] is None
    assert chainrule("evaluate", "r").status == 0


def test_ctrl_c_during_the_test(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "score", press)
    printed = chainrule("train", shapes, "--epochs", 1, "--run", "r")
    assert printed.status == 130
    assert names(Path("r")) == [name for name in FILES if name != "confusion.png"]
    assert config_of(Path("r"))["result"]["test_accuracy"] is None


def test_ctrl_c_while_saving(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_and_write(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write_history(*arguments)

    monkeypatch.setattr(training, "write_history", press_and_write)
    printed = chainrule("train", shapes, "--epochs", 1, "--run", "r")
    assert printed.status == 130
    assert "the test was interrupted" in printed.err
    assert chainrule("evaluate", "r").status == 0


def test_ctrl_c_ends_the_other_seeds_too(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "callbacks_for", lambda schedule: [PressCtrlC(epoch=0)])
    assert chainrule("train", shapes, "--batch-size", 8, "--seeds", "0-4", "--run", "r").status == 130
    assert names(Path("r")) == ["seed-0"]


def test_the_signal_of_ctrl_c(inside: Path) -> None:
    words = ["train", "digits", "--epochs", "500", "--verbose", "2", "--run", "r"]
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch 1/500"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.startswith("chainrule: warning: interrupted in epoch ")
    assert RESULT.search(printed)
    assert names(inside / "r") == FILES
    images = np.zeros((1, 8, 8, 1), np.float32)
    assert cr.load_model(inside / "r" / "model.safetensors").predict(images).shape == (1, 10)


# -- the schedule ----------------------------------------------------------------------------------------------


def test_the_cosine_schedule() -> None:
    model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1)])
    model.compile(optimizer=cr.optimizers.SGD(0.8), loss="mse")
    rates: list[float] = []

    class Watch(Callback):
        def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
            rates.append(self.model.optimizer.learning_rate)

        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            rates.append(self.model.optimizer.learning_rate)

    x = np.zeros((8, 2), np.float32)
    model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, callbacks=[*callbacks_for("cosine"), Watch()])
    expected = [0.4 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.5, 0.75, 1)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)
    assert model.optimizer.learning_rate == 0.8


# -- what the recipes promise ----------------------------------------------------------------------------------


def test_digits_reach_their_accuracy_over_five_seeds(chainrule: Command) -> None:
    assert chainrule("train", "digits", "--seeds", "0-4", "--quiet", "--run", "r").status == 0
    summary = json.loads(Path("r/seeds.json").read_text())
    assert summary["mean"] >= 0.985
    assert min(summary["test_accuracy"]) >= 0.98


def test_mnist_reaches_97_percent(chainrule: Command, data_set: Callable[[str], Path]) -> None:
    network = ("--network", "conv32-conv64-dense64", "--epochs", 1)
    assert chainrule("train", "mnist", "--data", data_set("mnist"), *network, "--run", "r").status == 0
    assert config_of(Path("r"))["result"]["test_accuracy"] >= 0.97
