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
from chainrule.cli import training
from chainrule.cli.classifier import Classifier
from chainrule.cli.options import seed_list
from chainrule.cli.output import Output
from chainrule.cli.presets import USUAL
from chainrule.cli.schedules import SCHEDULES, schedule_for
from chainrule.cli.settings import SETTINGS, Settings
from chainrule.networks import digits
from chainrule.optimizers.schedules import Schedule
from chainrule.runs import write_history
from chainrule.train.callback import Callback, Logs
from tests.cli.support import SHORT, Command

pytestmark = pytest.mark.slow

FILES = [
    "config.json",
    "confusion.png",
    "curves.png",
    "filters.png",
    "history.csv",
    "history.json",
    "mistakes.png",
    "model.safetensors",
    "plan.txt",
    "result.json",
]
RESULT = re.compile(r"^test accuracy (\d+\.\d\d) % \((\d+) of (\d+)\), loss (\d+\.\d{4})$", re.MULTILINE)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return config


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return result


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
    assert (
        f"pictures  {', '.join(str(run / f'{name}.png') for name in ('curves', 'confusion', 'mistakes', 'filters'))}\n"
        in printed.out
    )
    assert names(inside / run) == FILES


def test_runs_are_numbered(chainrule: Command, shapes: Path, inside: Path) -> None:
    for _ in range(2):
        assert chainrule("train", shapes, "--epochs", 1, "--quiet").status == 0
    assert names(inside / "runs") == ["shapes-1", "shapes-2"]


def test_the_configuration_tells_everything(digits_run: Path) -> None:
    config = config_of(digits_run)
    settings = config["settings"]
    expected = {
        "data": "digits",
        "test_fraction": 0.85,
        "network": "digits",
        "epochs": 1,
        "batch_size": 32,
    }
    assert settings == {**USUAL, **expected, "augment": [], "metrics": ["accuracy"], "learning_rate": 2e-3}
    assert config["versions"]["chainrule"] == __version__
    assert config["class_names"] == list("0123456789")
    result = result_of(digits_run)
    assert result["test_accuracy"] == result["correct"] / result["test_samples"]
    assert result["parameters"] == digits().count_params()
    assert not result["interrupted"]


def test_the_saved_model_can_be_trained_on(digits_run: Path) -> None:
    model = cr.load_model(digits_run / "model.safetensors")
    assert model.optimizer.learning_rate == config_of(digits_run)["settings"]["learning_rate"]


def test_the_history_has_a_row_for_each_epoch(chainrule: Command, shapes: Path) -> None:
    assert chainrule("train", shapes, "--epochs", 3, "--validation-fraction", 0.25, "--run", "r").status == 0
    history = json.loads(Path("r/history.json").read_text())
    assert sorted(history) == ["accuracy", "learning_rate", "loss", "val_accuracy", "val_loss"]
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


@pytest.mark.parametrize(
    ("name", "network"), [("mnist", "conv32-conv64-dense64"), ("fashion-mnist", "conv32-conv64-conv128")]
)
def test_a_folder_of_images(chainrule: Command, mnist_folder: Path, name: str, network: str) -> None:
    printed = chainrule("train", name, "--data", mnist_folder, "--epochs", 1)
    assert (printed.status, printed.err) == (0, "")
    settings = config_of(Path(f"runs/{name}-1"))["settings"]
    assert (settings["network"], settings["folder"]) == (network, str(mnist_folder))


def test_every_option_reaches_the_run(chainrule: Command, shapes: Path) -> None:
    given = {
        "network": "conv32-dense128",
        "epochs": 2,
        "batch_size": 5,
        "learning_rate": 0.05,
        "optimizer": "sgd",
        "schedule": "step",
        "warmup": 0.5,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip_value": 3.0,
        "accumulate": 2,
        "average": 0.9,
        "augment": ["flip:both", "crop:1"],
        "metrics": ["accuracy", "top_2_accuracy"],
        "patience": 3,
        "seed": 7,
        "validation_fraction": 0.1,
        "checkpoint_seconds": 5.0,
        "workers": 1,
    }
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value))
    ]
    assert chainrule("train", shapes, *words, "--balance", "--verbose", 2, "--run", "deep/run").status == 0
    settings = config_of(Path("deep/run"))["settings"]
    assert settings == {**USUAL, **given, "data": str(shapes), "balance": True}
    history = json.loads(Path("deep/run/history.json").read_text())
    assert {"top_2_accuracy", "val_top_2_accuracy"} <= set(history)


def test_every_setting_has_an_option(chainrule: Command) -> None:
    text = chainrule("train", "--help").out
    assert set(SETTINGS) == set(Settings.__dataclass_fields__)
    for setting in SETTINGS.values():
        assert setting.name == "folder" or setting.name == "data" or setting.option in text


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_and_optimizer_learns(chainrule: Command, shapes: Path, schedule: str, optimizer: str) -> None:
    rate = "0.05" if optimizer == "sgd" else "0.002"
    words = [
        "--schedule",
        schedule,
        "--optimizer",
        optimizer,
        "--learning-rate",
        rate,
        "--epochs",
        6,
        "--batch-size",
        8,
    ]
    assert chainrule("train", shapes, *words, "--network", "conv32-dense128", "--run", "r", "--quiet").status == 0
    assert result_of(Path("r"))["test_accuracy"] > 0.8


def test_a_configuration_in_toml(chainrule: Command, refused: Callable[..., str], shapes: Path) -> None:
    Path("mine.toml").write_text(f'data = "{shapes}"\nbatch-size = 8\nepochs = 1\naugment = ["flip"]\n')
    assert chainrule("train", "--config", "mine.toml", "--run", "r", "--quiet", "--epochs", 2).status == 0
    settings = config_of(Path("r"))["settings"]
    assert (settings["batch_size"], settings["epochs"], settings["augment"]) == (8, 2, ["flip"])
    Path("mine.toml").write_text("batch-sise = 8\n")
    assert "unknown setting 'batch-sise' (did you mean 'batch_size'?)" in refused("train", "--config", "mine.toml")
    Path("mine.toml").write_text("batch-size = = 8\n")
    assert "'mine.toml': the file is not valid TOML" in refused("train", "--config", "mine.toml")


def test_the_best_epoch_is_kept(chainrule: Command, shapes: Path) -> None:
    """A rate that ruins the model after its best epoch: the run stops early, and keeps the best."""
    words = ["--validation-fraction", 0.25, "--patience", 2, "--epochs", 40, "--schedule", "constant", "--run", "r"]
    assert chainrule("train", shapes, *words, "--optimizer", "sgd", "--learning-rate", 0.3, "--seed", 5).status == 0
    losses = json.loads(Path("r/history.json").read_text())["val_loss"]
    best = int(np.nanargmin([math.nan if loss is None else loss for loss in losses]))
    assert len(losses) == min(best + 3, 40)
    assert (
        cr.load_model("r/model.safetensors").get_weights()[0].tobytes()
        == cr.load_model("r/best.safetensors").get_weights()[0].tobytes()
    )


def test_json_lines(chainrule: Command, shapes: Path) -> None:
    printed = chainrule("train", shapes, "--epochs", 2, "--validation-fraction", 0.25, "--json", "--run", "r")
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "result"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(events[1])
    assert events[-1]["test_accuracy"] == result_of(Path("r"))["test_accuracy"]
    printed = chainrule("train", shapes, "--epochs", 1, "--seeds", "0-1", "--json", "--quiet", "--run", "s")
    assert [json.loads(line)["event"] for line in printed.out.splitlines()] == ["result", "result"]


def test_another_optimizer_has_its_own_learning_rate(chainrule: Command, shapes: Path) -> None:
    chainrule("train", shapes, "--epochs", 1, "--optimizer", "sgd", "--run", "r")
    assert config_of(Path("r"))["settings"]["learning_rate"] == cr.optimizers.SGD().learning_rate


def test_decay_is_of_kernels_alone(chainrule: Command, shapes: Path) -> None:
    words = ["--optimizer", "adamw", "--epochs", 1, "--run"]
    assert chainrule("train", shapes, *words, "a").status == 0
    assert chainrule("train", shapes, "--weight-decay", 0.004, *words, "b").status == 0
    assert config_of(Path("a"))["settings"]["weight_decay"] == 0.004
    assert model_bytes(Path("a")) == model_bytes(Path("b"))
    options = cr.load_model("a/model.safetensors").optimizer.options
    assert list(options.no_decay) == ["bias", "beta", "gamma"]


def test_settings_that_do_not_go_together(refused: Callable[..., str], shapes: Path, inside: Path) -> None:
    for words, message in (
        (["--metrics", "confusion_matrix"], "metric 'confusion_matrix' is no single number"),
        (["--schedule", "plateau", "--warmup", "1"], "warmup needs a schedule by step number"),
        (["--patience", "2"], "patience needs a validation part"),
        (["--nesterov", "--optimizer", "adam"], "nesterov is for sgd with a momentum"),
        (["--momentum", "0.9", "--optimizer", "adam"], "momentum is for sgd and rmsprop; adam has none"),
        (["--preset", "minst"], "unknown preset 'minst' (did you mean 'mnist'?)"),
    ):
        assert message in refused("train", shapes, *words)
    assert sorted(path.name for path in inside.iterdir()) == ["shapes.npz"]


def test_a_loss_that_diverges_is_told(chainrule: Command, shapes: Path) -> None:
    words = "--network conv32-dense128 --optimizer sgd --learning-rate 1e30 --epochs 3 --run r"
    printed = chainrule("train", shapes, *words.split())
    assert printed.status == 1
    assert "chainrule: warning: the loss is not finite from step 2 on; the training ends here\n" in printed.err
    assert "chainrule: warning: the loss is no longer finite" in printed.err
    assert names(Path("r")) == FILES


# -- the same bits ---------------------------------------------------------------------------------------------


def test_a_run_can_be_run_again(chainrule: Command, digits_run: Path) -> None:
    for config in (digits_run / "config.json", digits_run):
        again = Path(f"again-{config.suffix}")
        assert chainrule("train", "--config", config, "--run", again, "--quiet").status == 0
        assert model_bytes(again) == model_bytes(digits_run)
        first, second = result_of(digits_run), result_of(again)
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
        assert config_of(digits_run)["settings"] == config_of(again)["settings"]


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
    accuracies = [result_of(Path(f"r/seed-{seed}"))["test_accuracy"] for seed in (0, 1)]
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
    monkeypatch.setattr(Output, "callbacks", lambda self: [PressCtrlC(epoch=1)])
    printed = chainrule("train", shapes, "--epochs", 9, "--batch-size", 8, "--validation-fraction", 0.2, "--run", "r")
    assert printed.status == 130
    assert "warning: interrupted in epoch 2 of 9; chainrule resume r goes on from there" in printed.err
    assert names(Path("r")) == sorted([*FILES, "best.safetensors", "checkpoints"])
    result = result_of(Path("r"))
    assert (result["interrupted"], result["epochs"]) == (True, 1)  # whole ones
    assert json.loads(Path("r/history.json").read_text())["val_loss"][1] is None
    assert chainrule("evaluate", "r").status == 0


def test_ctrl_c_during_the_test(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "score", press)
    printed = chainrule("train", shapes, "--epochs", 1, "--run", "r")
    assert printed.status == 130
    assert names(Path("r")) == sorted({*FILES, "checkpoints"} - {"confusion.png", "mistakes.png"})
    assert result_of(Path("r"))["test_accuracy"] is None


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
    monkeypatch.setattr(Output, "callbacks", lambda self: [PressCtrlC(epoch=0)])
    assert chainrule("train", shapes, "--batch-size", 8, "--seeds", "0-4", "--run", "r").status == 130
    assert names(Path("r")) == ["seed-0", "seeds.json"]


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
    assert names(inside / "r") == sorted([*FILES, "checkpoints"])
    images = np.zeros((1, 8, 8, 1), np.float32)
    assert cr.load_model(inside / "r" / "model.safetensors").predict(images).shape == (1, 10)


# -- the schedule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.8, 0.8, 0.8]),
        ("step", [0.8, 0.8, 0.008]),
        ("exponential", [0.8, 0.08, 0.008]),
        ("polynomial", [0.8, 0.4, 0.0]),
        ("cosine", [0.8, 0.4, 0.0]),
        ("one-cycle", [0.8 / 25, 0.6487, 0.8 / 25 / 1e4]),
    ],
)
def test_schedules_last_as_long_as_the_training(name: str, rates: list[float]) -> None:
    made = schedule_for(name, 0.8, updates=1000, updates_per_epoch=100)
    found = [made(step) if isinstance(made, Schedule) else made for step in (0, 500, 1000)]
    np.testing.assert_allclose(found, rates, rtol=0.02, atol=1e-9)


def test_a_rate_that_warms_up() -> None:
    made = schedule_for("cosine", 0.8, updates=110, updates_per_epoch=10, warmup=10)
    assert isinstance(made, Schedule)
    np.testing.assert_allclose([made(step) for step in (0, 5, 10, 60, 110)], [0, 0.4, 0.8, 0.4, 0], atol=1e-12)


# -- what the recipes promise ----------------------------------------------------------------------------------


def test_digits_reach_their_accuracy_over_five_seeds(chainrule: Command) -> None:
    assert chainrule("train", "digits", "--seeds", "0-4", "--quiet", "--run", "r").status == 0
    summary = json.loads(Path("r/seeds.json").read_text())
    assert summary["mean"] >= 0.985
    assert min(summary["test_accuracy"]) >= 0.98


def test_mnist_reaches_97_percent(chainrule: Command, data_set: Callable[[str], Path]) -> None:
    network = ("--network", "conv32-conv64-dense64", "--epochs", 1)
    assert chainrule("train", "mnist", "--data", data_set("mnist"), *network, "--run", "r").status == 0
    assert result_of(Path("r"))["test_accuracy"] >= 0.97


@pytest.mark.slow
def test_classes_that_are_never_learned_or_tested(chainrule: Command, inside: Path) -> None:
    x = np.random.default_rng(0).random((12, 8, 8, 1), np.float32)
    np.savez("a.npz", x_train=x, y_train=np.arange(12) % 3, x_test=x[:4], y_test=np.array([0, 1, 4, 3]))
    printed = chainrule("train", "a.npz", "--epochs", 1, "--run", "r")
    assert printed.status == 0
    assert "warning: the class '3' and 1 more has no training image: it cannot be learned" in printed.err
    assert "warning: the class '2' has no test image" in printed.err
