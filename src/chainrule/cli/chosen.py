"""The model that a command is to look at: a named network, a run folder or a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

from chainrule.cli.names import unknown
from chainrule.cli.opened import Opened, open_model
from chainrule.errors import ConfigError
from chainrule.networks import NETWORKS, get_network

__all__ = ["chosen_model"]

_INPUT_SHAPES = {"digits": (8, 8, 1)}
_USUAL_SHAPE = (28, 28, 1)
_CLASSES = 10


def chosen_model(arguments: argparse.Namespace) -> Opened:
    """What ``RUN_OR_MODEL_OR_NETWORK``, ``--input-shape`` and ``--classes`` name.

    Raises:
        ChainruleError: there is no such model or network, or the network does not fit the shape.
    """
    name = arguments.model
    if name in NETWORKS:
        shape = arguments.input_shape or _INPUT_SHAPES.get(name, _USUAL_SHAPE)
        return Opened(get_network(name)(shape, arguments.classes or _CLASSES))
    if not Path(name).exists():
        expected = f"expected {', '.join(NETWORKS)}, a run folder or a model file"
        raise unknown("network", name, NETWORKS, expected)
    if arguments.input_shape or arguments.classes:
        raise ConfigError("a saved model has its own shape; --input-shape and --classes are for named networks")
    return open_model(name)
