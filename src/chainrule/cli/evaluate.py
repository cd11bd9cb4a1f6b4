"""``chainrule evaluate``: loss, accuracy and per-class accuracy of a saved model."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from chainrule.cli.classifier import Classifier, Score
from chainrule.cli.opened import open_model
from chainrule.cli.output import say
from chainrule.data import Dataset

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Test a model, and print how it does.

    Raises:
        ChainruleError: the model or the data cannot be used, or do not fit one another.
    """
    opened = open_model(arguments.model)
    names = ("folder", "seed", "test_fraction")
    source = opened.source(arguments.data, {name: getattr(arguments, name) for name in names})
    dataset = source.load()
    opened.check_unchanged(source, dataset)
    classifier = Classifier(opened.model)
    images = classifier.fit_images(dataset.x_test, f"the data set {source.data}")
    score = classifier.score(images, dataset.y_test)
    class_names = opened.names(classifier.classes, dataset)
    if arguments.json:
        say(json.dumps(_as_json(source.data, score, class_names), ensure_ascii=False))
    else:
        _print(dataset, score, class_names)
    return 0


def _as_json(data: str, score: Score, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "data": data,
        "samples": score.samples,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "loss": score.loss if math.isfinite(score.loss) else None,
        "classes": [
            {"name": name, "samples": total, "correct": correct, "accuracy": correct / total if total else None}
            for name, (correct, total) in zip(names, score.by_class(), strict=True)
        ],
    }


def _print(dataset: Dataset, score: Score, names: tuple[str, ...]) -> None:
    say(dataset.describe())
    say(f"test accuracy {score}")
    width = max(map(len, names))
    for name, (correct, total) in zip(names, score.by_class(), strict=True):
        share = f"{100 * correct / total:6.2f} %" if total else "     - %"
        say(f"  {name.ljust(width)}  {share}  ({correct} of {total})")
