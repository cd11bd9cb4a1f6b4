"""``chainrule evaluate``: loss, accuracy and per-class accuracy of a saved model."""

from __future__ import annotations

import argparse
from typing import Any

from chainrule.cli.classifier import Classifier, Score
from chainrule.cli.opened import given_source, open_model
from chainrule.cli.output import say, say_json
from chainrule.cli.parts import Data
from chainrule.columns import text_width

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Test a model, and print how it does.

    Raises:
        ChainruleError: the model or the data cannot be used, or do not fit one another.
    """
    opened = open_model(arguments.model)
    source, data = opened.tested(arguments.data, given_source(arguments))
    classifier = Classifier(opened.model)
    score = classifier.score(data.held_out, f"the data set {source.data}", source.workers)
    class_names = opened.names(classifier.classes, data.class_names)
    if arguments.json:
        say_json(_as_json(source.data, score, class_names))
    else:
        _print(data, score, class_names)
    return 0


def _as_json(data: str, score: Score, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "data": data,
        "samples": score.samples,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "classes": [
            {"name": name, "samples": total, "correct": correct, "accuracy": correct / total if total else None}
            for name, (correct, total) in zip(names, score.by_class(), strict=True)
        ],
    }


def _print(data: Data, score: Score, names: tuple[str, ...]) -> None:
    say(data.describe_test())
    say(f"test accuracy {score}")
    width = max(map(text_width, names))
    for name, (correct, total) in zip(names, score.by_class(), strict=True):
        share = f"{100 * correct / total:6.2f} %" if total else "     - %"
        say(f"  {name}{' ' * (width - text_width(name))}  {share}  ({correct} of {total})")
