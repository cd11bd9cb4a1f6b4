"""A run under way: its model, what it is trained with, and what is written while it trains."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from chainrule import random
from chainrule.callbacks import (
    BackupAndRestore,
    Callback,
    EarlyStopping,
    History,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
)
from chainrule.cli.augmentations import augmentations
from chainrule.cli.output import Output, warn
from chainrule.cli.parts import Data, as_arrays
from chainrule.cli.run import BEST_FILE, PLAN_FILE, Run
from chainrule.cli.schedules import schedule_for
from chainrule.cli.settings import SETTINGS, Settings
from chainrule.errors import ConfigError, DataError
from chainrule.files import write_text_atomic
from chainrule.models import Model
from chainrule.networks import get_network
from chainrule.optimizers import Optimizer, get_optimizer
from chainrule.runs import write_history
from chainrule.train.callback import Logs

__all__ = ["Training", "build_model", "extras"]

_FREE_TO_CHANGE = ("data", "folder", "preset", "checkpoint_seconds", "workers", "tensorboard")
"""Settings that change no bit, and places, since data may move: their fingerprint counts."""

_NOT_DECAYED = ("bias", "beta", "gamma")


class Training:
    """One run's training, from its beginning or from its newest checkpoint.

    Args:
        run: the folder.
        settings: complete.
        data: with the validation part held out.
        output: what is printed.
        accept_changes: go on though something has changed since the checkpoint.

    Raises:
        ConfigError: settings that do not fit one another.
    """

    def __init__(self, run: Run, settings: Settings, data: Data, output: Output, accept_changes: bool = False) -> None:
        self.run, self.settings, self.data, self.output = run, settings, data, output
        self.model = build_model(settings, data)
        self.files = RunFiles(run)
        self._accept_changes = accept_changes

    def fit(self) -> History:
        """Train to the end, or until a signal."""
        settings, data = self.settings, self.data
        return self.model.fit(
            *as_arrays(data.train),
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            verbose=self.output.progress,
            callbacks=self._callbacks(),
            validation_data=_validation(data),
            **extras(settings, data),
        )

    def settle(self) -> None:
        """Make the model what is to be kept: the best one where the run stops early, ready to be trained on."""
        self.model.optimizer.learning_rate = self.settings.learning_rate
        best = self.run.folder / BEST_FILE
        if self.settings.patience is not None and best.exists():
            self.model.load_weights(best)

    def _callbacks(self) -> list[Callback]:
        settings, folder = self.settings, self.run.folder
        watched = "loss" if self.data.validation is None else "val_loss"
        chain: list[Callback] = [EndOnNaN()]
        if settings.average is not None:
            chain.append(SwapEMAWeights())
        if settings.schedule == "plateau":
            chain.append(ReduceLROnPlateau(watched, factor=0.2, patience=2))
        if self.data.validation is not None:
            averaged = settings.average is not None
            chain.append(ModelCheckpoint(folder / BEST_FILE, "val_loss", save_best_only=True, averaged=averaged))
        if settings.patience is not None:
            chain.append(EarlyStopping("val_loss", patience=settings.patience))
        if settings.tensorboard:
            chain.append(TensorBoard(folder / "events"))
        chain.append(self.files)
        chain += self.output.callbacks()
        chain.append(Checkpoints(self.run, settings, self._accept_changes))
        return chain


class EndOnNaN(TerminateOnNaN):
    """Says it as the command line says everything."""

    def tell(self, text: str) -> None:
        warn(text)


class Checkpoints(BackupAndRestore):
    """The checkpoints of a run; beside what `BackupAndRestore` knows, the run's own settings must be the same.

    Args:
        run: the folder.
        settings: of the run.
        accept_changes: go on though something has changed.
    """

    advice = "chainrule resume --accept-changes goes on all the same, to other bits"

    def __init__(self, run: Run, settings: Settings, accept_changes: bool) -> None:
        learned = {
            SETTINGS[name].option: value for name, value in asdict(settings).items() if name not in _FREE_TO_CHANGE
        }
        facts = {"data": run.config["data_sha256"], **learned}
        super().__init__(
            run.checkpoints,
            seconds=settings.checkpoint_seconds,
            delete_checkpoint=False,
            facts=facts,
            accept_changes=accept_changes,
        )

    def tell(self, text: str) -> None:
        warn(text)


class RunFiles(Callback):
    """Writes the plan of the step and, after each epoch, the history; counts the seconds over all processes.

    Attributes:
        seconds: of training.
    """

    def __init__(self, run: Run) -> None:
        self._run, self.seconds = run, 0.0
        self._since = time.perf_counter()

    def on_train_begin(self, logs: Logs = None) -> None:
        self._since = time.perf_counter()
        text = self.fitting.plan_text()
        if text:
            write_text_atomic(self._run.folder / PLAN_FILE, text + "\n")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.write()

    def on_train_end(self, logs: Logs = None) -> None:
        self._count()

    def write(self) -> None:
        """Write ``history.json`` and ``history.csv``, if an epoch has come to its end."""
        history = next(callback for callback in self.fitting.chain if isinstance(callback, History))
        if history.epoch:
            write_history(self._run.folder, history.history)

    def get_state(self) -> dict[str, Any]:
        self._count()
        return {"seconds": self.seconds}

    def set_state(self, state: dict[str, Any]) -> None:
        self.seconds, self._since = float(state["seconds"]), time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now


def build_model(settings: Settings, data: Data) -> Model:
    """The run's network, compiled.

    Raises:
        ConfigError: settings that do not fit one another, or a network that does not fit the images.
    """
    if settings.patience is not None and data.validation is None:
        raise ConfigError("patience needs a validation part; hold one out with --validation-fraction")
    if len(data.class_names) < 2:
        raise DataError(f"the data set {data.name} has one class, {data.class_names[0]!r}; expected two or more")
    if settings.warmup >= settings.epochs:
        raise ConfigError(
            f"a warmup of {settings.warmup:g} epochs leaves nothing of {settings.epochs}; give a shorter one"
        )
    clips = [SETTINGS[n].option for n in ("clip_value", "clip_norm", "clip_global_norm") if getattr(settings, n)]
    if len(clips) > 1:
        raise ConfigError(f"give one of {' and '.join(clips)}")
    if settings.warmup and settings.schedule == "plateau":
        raise ConfigError("warmup needs a schedule by step number; plateau changes the rate by the validation loss")
    random.set_seed(settings.seed)
    network = get_network(settings.network)
    model = network(data.shape, len(data.class_names), scale=data.scale())
    model.compile(
        optimizer=_optimizer(settings, len(data.train)),
        loss="sparse_categorical_crossentropy",
        metrics=list(settings.metrics),
    )
    return model


def extras(settings: Settings, data: Data) -> dict[str, Any]:
    """What `fit` takes beside data, epochs and callbacks."""
    return {
        "class_weight": _balanced(data) if settings.balance else None,
        "workers": settings.workers,
        "augment": augmentations(settings.augment, 1 / data.scale(), data.shape[2]),
    }


def _optimizer(settings: Settings, samples: int) -> Optimizer:
    kind = type(get_optimizer(settings.optimizer))
    options: dict[str, Any] = {
        "momentum": settings.momentum,
        "nesterov": settings.nesterov or None,
        "weight_decay": settings.weight_decay,
        "no_decay": _NOT_DECAYED if settings.weight_decay else None,
        "clipvalue": settings.clip_value,
        "clipnorm": settings.clip_norm,
        "global_clipnorm": settings.clip_global_norm,
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
        "use_ema": True if settings.average is not None else None,
        "ema_momentum": settings.average,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if settings.nesterov and (settings.optimizer != "sgd" or not settings.momentum):
        raise ConfigError("nesterov is for sgd with a momentum")
    if "momentum" in given and settings.optimizer not in ("sgd", "rmsprop"):
        raise ConfigError(f"momentum is for sgd and rmsprop; {settings.optimizer} has none")
    batches = math.ceil(samples / settings.batch_size)
    updates = math.ceil(batches / settings.accumulate)
    rate = schedule_for(
        settings.schedule, settings.learning_rate, updates * settings.epochs, updates, round(settings.warmup * updates)
    )
    made: Optimizer = kind(rate, **given)
    return made


def _validation(data: Data) -> Any:
    if data.validation is None:
        return None
    x, y = as_arrays(data.validation)
    return x if y is None else (x, y)


def _balanced(data: Data) -> dict[int, float]:
    """Weights with which every class that has samples counts the same, and the mean weight of a sample is 1."""
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    present = int(np.count_nonzero(counts))
    return {number: len(data.train) / (present * count) for number, count in enumerate(counts.tolist()) if count}
