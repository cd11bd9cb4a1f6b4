"""Remake the pictures of the README: ``.venv/bin/python docs/images/make_pictures.py``."""

from __future__ import annotations

from pathlib import Path

import chainrule as cr
from chainrule.train.step import step_graph

FOLDER = Path(__file__).parent


def training_step() -> None:
    """The whole training step of a small network, one box for each layer and pass."""
    model = cr.Sequential(
        [
            cr.Input((28, 28, 1)),
            cr.layers.Conv2D(8, 3, activation="relu"),
            cr.layers.MaxPooling2D(2),
            cr.layers.Flatten(),
            cr.layers.Dense(10),
        ]
    )
    model.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = cr.input_spec((None, 28, 28, 1)), cr.input_spec((None,), "int32")
    step_graph(model, model.objective, x, y).draw(FOLDER / "step.svg", by="layer")


if __name__ == "__main__":
    training_step()
