"""chainrule: train convolutional networks, with every gradient derived by the chain rule.

>>> import chainrule as cr
>>> model = cr.Sequential([cr.Input((8, 8, 1)), cr.layers.Conv2D(4, 3), cr.layers.Flatten(), cr.layers.Dense(10)])
>>> model.count_params()
1490
"""

from chainrule import (
    autodiff,
    callbacks,
    data,
    engines,
    errors,
    graph,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    random,
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

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "Tensor",
    "Variable",
    "__version__",
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
    "no_grad",
    "ops",
    "optimizers",
    "random",
    "set_seed",
    "show_versions",
    "tensor",
    "trace",
    "value_and_grad",
    "versions",
    "vjp",
]
