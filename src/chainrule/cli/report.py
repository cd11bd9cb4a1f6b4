"""The end of a run: its model is saved and tested, pictures are drawn, and the result is printed."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.callbacks import History
from chainrule.cli.classifier import Classifier, Score
from chainrule.cli.opened import name_classes
from chainrule.cli.output import warn
from chainrule.cli.run import MODEL_FILE
from chainrule.cli.training import Training
from chainrule.layers import Conv2D
from chainrule.runs import confusion_matrix, first_layer_filters, learning_curves, worst_mistakes
from chainrule.train.interrupt import interruptible

__all__ = ["accuracy", "conclude", "is_finite"]


def conclude(training: Training, history: History) -> dict[str, Any]:
    """Save and test the model, and write the rest of the run folder.

    Returns:
        What ``result.json`` says; ``test_accuracy`` is None if a signal ended the test.
    """
    run, settings, model = training.run, training.settings, training.model
    folder, planned, position = run.folder, settings.epochs, training.files.fitting.position
    epochs = position.epoch
    impatient = _save(training)
    if history.interrupted:
        running = position.batches or epochs < planned
        where = f"in epoch {epochs + 1} of {planned}" if running else f"after epoch {planned}"
        warn(f"interrupted {where}; chainrule resume {folder} goes on from there")
    terminated = history.signal == signal.SIGTERM  # whoever sends it waits for the end, not for a test
    score = None if impatient or terminated else _test(training)
    interrupted = history.interrupted or score is None
    result = _result(training, history, score, interrupted)
    pictures = _pictures(training, history, score)
    run.write_result(result)  # last: from now on the run has come to its end
    if score is not None:
        training.output.result(f"test accuracy {accuracy(result)}")
    elif not terminated:
        warn("the test was interrupted, so there is no test accuracy")
    training.output.event("result", run=str(folder), **result)
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    training.output.say(f"{model.count_params():,} parameters, {passes}, trained in {training.files.seconds:.1f} s")
    training.output.say(f"model     {folder / MODEL_FILE}")
    training.output.say(f"pictures  {', '.join(str(folder / picture) for picture in pictures)}")
    if not is_finite(history):
        warn("the loss is no longer finite, so the model is of no use; try a smaller --learning-rate")
    return result


def is_finite(history: History) -> bool:
    """Whether the loss was a number in every epoch."""
    return all(map(math.isfinite, history.history.get("loss", ())))


def accuracy(result: Mapping[str, Any]) -> str:
    """The test accuracy in a result, for people."""
    loss = math.nan if result["test_loss"] is None else result["test_loss"]
    share = f"{100 * result['test_accuracy']:.2f} %"
    return f"{share} ({result['correct']} of {result['test_samples']}), loss {loss:.4f}"


def _save(training: Training) -> bool:
    """Write what was learned, before anything else can go wrong; whether a signal came meanwhile."""
    with interruptible() as interrupt:
        training.settle()
        training.model.save(training.run.folder / MODEL_FILE)
        training.files.write()
    return interrupt.requested


def _test(training: Training) -> Score | None:
    """The score on the test part; None if Ctrl-C ended the test."""
    try:
        return Classifier(training.model).score(training.data.held_out, "the test images", training.data.workers)
    except KeyboardInterrupt:
        return None


def _pictures(training: Training, history: History, score: Score | None) -> list[str]:
    """Draw the run's pictures; gives the names of their files."""
    folder = training.run.folder
    drawn = []
    if history.epoch:
        learning_curves(folder / "curves.png", history.history)
        drawn.append("curves.png")
    if score is not None:
        names = name_classes(training.data.class_names, len(score.confusion))
        confusion_matrix(folder / "confusion.png", score.confusion, names)
        drawn.append("confusion.png")
        _draw_mistakes(folder / "mistakes.png", training, score, names)
        drawn.append("mistakes.png")
    if _draw_filters(folder / "filters.png", training):
        drawn.append("filters.png")
    return drawn


def _draw_mistakes(path: Path, training: Training, score: Score, names: Sequence[str]) -> None:
    test = training.data.held_out

    def images(numbers: NDArray[np.int64]) -> NDArray[Any]:
        return np.stack([test.read(int(number)) for number in numbers])

    worst_mistakes(path, images, score.labels, score.predicted, score.probabilities, names)


def _draw_filters(path: Path, training: Training) -> bool:
    """Draw the first convolution's kernel; false if there is none."""
    first = next((layer for layer in training.model.layers if isinstance(layer, Conv2D)), None)
    if first is None:
        return False
    first_layer_filters(path, first.kernel.numpy(), first.name)
    return True


def _result(training: Training, history: History, score: Score | None, interrupted: bool) -> dict[str, Any]:
    return {
        "test_accuracy": None if score is None else score.accuracy,
        "test_loss": score.loss if score is not None and math.isfinite(score.loss) else None,
        "correct": None if score is None else score.correct,
        "test_samples": None if score is None else score.samples,
        "parameters": training.model.count_params(),
        "epochs": training.files.fitting.position.epoch,
        "seconds": round(training.files.seconds, 3),
        "finite_loss": is_finite(history),
        "interrupted": interrupted,
    }
