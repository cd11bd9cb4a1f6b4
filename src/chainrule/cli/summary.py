"""``chainrule summary``: the layers of a saved model or a named network."""

from __future__ import annotations

import argparse
from pathlib import Path

from chainrule.cli.names import unknown
from chainrule.cli.opened import open_model
from chainrule.errors import ConfigError
from chainrule.networks import NETWORKS, get_network

__all__ = ["run"]

_INPUT_SHAPES = {"digits": (8, 8, 1)}
_USUAL_SHAPE = (28, 28, 1)
_CLASSES = 10


def run(arguments: argparse.Namespace) -> int:
    """Print the table of layers.

    Raises:
        ChainruleError: there is no such model or network, or the network does not fit the shape.
    """
    name = arguments.model
    if name in NETWORKS:
        shape = arguments.input_shape or _INPUT_SHAPES.get(name, _USUAL_SHAPE)
        get_network(name)(shape, arguments.classes or _CLASSES).summary()
        return 0
    if not Path(name).exists():
        expected = f"expected {', '.join(NETWORKS)}, a run folder or a model file"
        raise unknown("network", name, NETWORKS, expected)
    if arguments.input_shape or arguments.classes:
        raise ConfigError("a saved model has its own shape; --input-shape and --classes are for named networks")
    open_model(name).model.summary()
    return 0
