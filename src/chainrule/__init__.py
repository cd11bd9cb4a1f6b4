"""chainrule: train convolutional networks, with every gradient derived by the chain rule.

>>> import chainrule as cr
>>> model = cr.Sequential([cr.Input((8, 8, 1)), cr.layers.Conv2D(4, 3), cr.layers.Flatten(), cr.layers.Dense(10)])
>>> model.count_params()
1490
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chainrule import (
    augment,
    autodiff,
    engines,
    errors,
    graph,
    layers,
    losses,
    metrics,
    models,
    networks,
    ops,
    optimizers,
    random,
    regularizers,
    versions,
)
from chainrule.__about__ import __version__
from chainrule.autodiff import grad, gradients, value_and_grad, vjp
from chainrule.graph import Variable, input_spec, no_grad, tensor, trace
from chainrule.graph.tensor import Tensor
from chainrule.layers import Input
from chainrule.models import Model, Sequential, load_model
from chainrule.random import set_seed
from chainrule.versions import show_versions

if TYPE_CHECKING:
    from chainrule import callbacks as callbacks
    from chainrule import data as data
    from chainrule import search as search

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "Tensor",
    "Variable",
    "__version__",
    "augment",
    "autodiff",
    "callbacks",
    "data",
    "engines",
    "errors",
    "grad",
    "gradients",
    "graph",
    "input_spec",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "networks",
    "no_grad",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "search",
    "set_seed",
    "show_versions",
    "tensor",
    "trace",
    "value_and_grad",
    "versions",
    "vjp",
]


def __getattr__(name: str) -> Any:
    """Modules that load a lot, such as those that read and write files, are imported when they are first used."""
    if name in ("callbacks", "data", "search"):
        return import_module(f"chainrule.{name}")
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")
