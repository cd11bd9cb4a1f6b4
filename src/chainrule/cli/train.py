"""``chainrule train``: train a network on a data set, and keep everything about it in a run folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule import random
from chainrule.callbacks import History
from chainrule.cli.classifier import Classifier, Score
from chainrule.cli.opened import MODEL_FILE, SEEDS_FILE, name_classes, read_settings
from chainrule.cli.output import say, warn
from chainrule.cli.schedule import callbacks_for
from chainrule.cli.settings import Settings, checked, source_from
from chainrule.cli.sources import fingerprint, pixel_scale
from chainrule.data import Dataset
from chainrule.errors import ConfigError
from chainrule.files import write_text_atomic
from chainrule.models import Model
from chainrule.networks import get_network
from chainrule.ops.random import random_permutation
from chainrule.optimizers import get_optimizer
from chainrule.runs import (
    confusion_matrix,
    create_run_folder,
    learning_curves,
    write_config,
    write_history,
)
from chainrule.train.interrupt import interruptible
from chainrule.versions import versions

__all__ = ["run"]

_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
_HOLD_OUT_STREAM = 0x0E5A17DA
"""The random stream of the validation part; layers' streams are hashes of their paths."""

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a training run came to; an interrupted test leaves no score."""

    score: Score | None
    interrupted: bool


@dataclass(frozen=True)
class Progress:
    """How much is printed: `verbose` is what `fit` takes, `quiet` leaves only the test accuracy."""

    verbose: int | str
    quiet: bool

    def say(self, text: str) -> None:
        """Print a line, unless nothing but the result is wanted."""
        if not self.quiet:
            say(text)


def run(arguments: argparse.Namespace) -> int:
    """Train once, or once for every seed.

    Raises:
        ChainruleError: an option, the data or the run folder cannot be used; nothing is left behind.
    """
    options = _options(arguments)
    progress = Progress(0 if arguments.quiet else arguments.verbose, arguments.quiet)
    folder = None if arguments.run is None else Path(arguments.run)
    if arguments.seeds is not None:
        if arguments.seed is not None:
            raise ConfigError("give --seed for one run or --seeds for several, not both")
        return _train_seeds(options, arguments.seeds, folder, progress)
    return _INTERRUPTED if _train(options, folder, progress).interrupted else 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The checked settings of the configuration file, overridden by those of the command line."""
    names = Settings.__dataclass_fields__
    given = checked({name: getattr(arguments, name) for name in names})
    base = {} if arguments.config is None else read_settings(arguments.config)
    if given.get("data", base.get("data")) != base.get("data"):
        base = {name: value for name, value in base.items() if name not in ("folder", "test_fraction")}
    return {**base, **given}


# -- one run ---------------------------------------------------------------------------------------------------


def _train(options: Mapping[str, Any], path: Path | None, progress: Progress) -> Outcome:
    source = source_from(options)
    with _run_folder(path, source.label) as folder:
        dataset = source.load()
        settings = Settings.complete(options, source, dataset)
        config = _describe(settings, dataset)
        model = _build(settings, dataset)
        progress.say(dataset.describe())
        progress.say(f"network {settings.network}, {model.count_params():,} parameters; run folder {folder}")
        start = time.perf_counter()
        history = _fit(model, settings, dataset, progress.verbose)
        seconds = time.perf_counter() - start
        return _conclude(folder, model, dataset, history, config, seconds, progress)


def _build(settings: Settings, dataset: Dataset) -> Model:
    random.set_seed(settings.seed)
    network = get_network(settings.network)
    model = network(dataset.x_train.shape[1:], len(dataset.class_names), scale=pixel_scale(dataset))
    optimizer = get_optimizer(settings.optimizer)
    optimizer.learning_rate = settings.learning_rate
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _fit(model: Model, settings: Settings, dataset: Dataset, verbose: int | str) -> History:
    kept, held_out = _hold_out(dataset, settings)
    return model.fit(
        *kept,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
        callbacks=callbacks_for(settings.schedule),
        validation_data=held_out,
    )


def _hold_out(dataset: Dataset, settings: Settings) -> tuple[Pair, Pair | None]:
    """The training part without a random share of it, and that share for validation."""
    x, y = dataset.x_train, dataset.y_train
    fraction = settings.validation_fraction
    if not fraction:
        return (x, y), None
    count = round(len(x) * fraction)
    if not 0 < count < len(x):
        raise ConfigError(f"validation fraction {fraction} of {len(x)} training images leaves an empty part")
    order = random_permutation(*random.words(settings.seed), size=len(x), stream=_HOLD_OUT_STREAM).numpy()
    kept, held_out = np.sort(order[count:]), np.sort(order[:count])
    return (x[kept], y[kept]), (x[held_out], y[held_out])


def _describe(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """What ``config.json`` says before there is a result; refused here if a file could not hold it.

    Raises:
        ConfigError: a path has characters that UTF-8 cannot hold.
    """
    config = {
        "settings": asdict(settings),
        "class_names": list(dataset.class_names),
        "data_sha256": fingerprint(dataset),
        "versions": versions(),
    }
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"the path {settings.folder or settings.data!a} is not valid text, so config.json cannot hold it; "
            "rename the folder or file"
        ) from None
    return config


def _save(folder: Path, model: Model, history: History) -> bool:
    """Write what was learned, before anything else can go wrong; whether Ctrl-C was pressed meanwhile."""
    with interruptible() as interrupt:
        model.save(folder / MODEL_FILE)
        write_history(folder, history.history)
    return interrupt.requested


def _conclude(
    folder: Path,
    model: Model,
    dataset: Dataset,
    history: History,
    config: dict[str, Any],
    seconds: float,
    progress: Progress,
) -> Outcome:
    """Save and test the model, write the rest of the run folder, and print what came out."""
    epochs, planned = len(history.epoch), config["settings"]["epochs"]
    impatient = _save(folder, model, history)
    if history.interrupted:
        warn(f"interrupted in epoch {epochs} of {planned}; what was learned until then is in {folder}")
    score = None if impatient else _test(model, dataset)
    interrupted = history.interrupted or score is None
    write_config(folder, {**config, "result": _result(score, model, epochs, seconds, interrupted)})
    learning_curves(folder / "curves.png", history.history)
    pictures = ["curves.png"]
    if score is None:
        warn("the test was interrupted, so there is no test accuracy")
    else:
        names = name_classes(dataset.class_names, len(score.confusion))
        confusion_matrix(folder / "confusion.png", score.confusion, names)
        pictures.append("confusion.png")
        say(f"test accuracy {score}")
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    progress.say(f"{model.count_params():,} parameters, {passes}, trained in {seconds:.1f} s")
    progress.say(f"model     {folder / MODEL_FILE}")
    progress.say(f"pictures  {', '.join(str(folder / picture) for picture in pictures)}")
    if not all(map(math.isfinite, history.history["loss"])):
        warn("the loss is no longer finite, so the model is of no use; try a smaller --learning-rate")
    return Outcome(score, interrupted)


def _test(model: Model, dataset: Dataset) -> Score | None:
    """The score on the test part; None if Ctrl-C ended the test."""
    try:
        return Classifier(model).score(dataset.x_test, dataset.y_test)
    except KeyboardInterrupt:
        return None


def _result(score: Score | None, model: Model, epochs: int, seconds: float, interrupted: bool) -> dict[str, Any]:
    return {
        "test_accuracy": None if score is None else score.accuracy,
        "test_loss": score.loss if score is not None and math.isfinite(score.loss) else None,
        "correct": None if score is None else score.correct,
        "test_samples": None if score is None else score.samples,
        "parameters": model.count_params(),
        "epochs": epochs,
        "seconds": round(seconds, 3),
        "interrupted": interrupted,
    }


# -- a run for each seed ---------------------------------------------------------------------------------------


def _train_seeds(options: Mapping[str, Any], seeds: Sequence[int], path: Path | None, progress: Progress) -> int:
    """Train once for every seed, each in a folder inside one; print every test accuracy and the mean."""
    sources = [source_from({**options, **checked({"seed": seed})}) for seed in seeds]
    scores: dict[int, Score] = {}
    interrupted = False
    with _run_folder(path, sources[0].label) as folder:
        for seed in seeds:
            progress.say(f"seed {seed}")
            outcome = _train({**options, "seed": seed}, folder / f"seed-{seed}", progress)
            interrupted = outcome.interrupted
            if interrupted or outcome.score is None:
                break
            scores[seed] = outcome.score
        if scores:
            _sum_up(folder, scores, progress)
    return _INTERRUPTED if interrupted else 0


def _sum_up(folder: Path, scores: Mapping[int, Score], progress: Progress) -> None:
    accuracies = [score.accuracy for score in scores.values()]
    mean, spread = statistics.fmean(accuracies), statistics.pstdev(accuracies)
    summary = {
        "seeds": list(scores),
        "test_accuracy": accuracies,
        "mean": mean,
        "standard_deviation": spread,
    }
    write_text_atomic(folder / SEEDS_FILE, json.dumps(summary, indent=2) + "\n")
    for seed, score in scores.items():
        progress.say(f"seed {seed}: test accuracy {score}")
    say(
        f"mean test accuracy over {len(scores)} seeds {100 * mean:.2f} % "
        f"(standard deviation {100 * spread:.2f}, lowest {100 * min(accuracies):.2f})"
    )


# -- the run folder --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _run_folder(path: Path | None, name: str) -> Iterator[Path]:
    """A new run folder; if nothing was written into it, it goes away again, with the parents made for it."""
    parents = [path, *path.parents] if path is not None else [Path("runs")]
    made = [parent for parent in parents if not parent.exists()]
    try:
        folder = create_run_folder(path, name)
        if path is None:
            made.insert(0, folder)
        yield folder
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
