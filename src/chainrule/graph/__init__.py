"""Tensors, nodes, the op registry, tracing, and the laws of a graph."""

from chainrule.graph.cases import Arg, Case, Convention, case, convention
from chainrule.graph.dims import BATCH, Dim, bind_shape, format_shape
from chainrule.graph.graph import CONSTANT, INPUT, Graph, StateEntry
from chainrule.graph.op import (
    Op,
    Spec,
    Trait,
    get_op,
    no_flops,
    per_element,
    register,
    registered_ops,
)
from chainrule.graph.passes import remove_dead_nodes, run_passes
from chainrule.graph.tensor import (
    Node,
    Provenance,
    Tensor,
    apply,
    apply_all,
    as_tensor,
    lift,
    no_grad,
    scope,
    tensor,
)
from chainrule.graph.trace import input_spec, trace
from chainrule.graph.variable import Variable
from chainrule.graph.verify import verify

__all__ = [
    "BATCH",
    "CONSTANT",
    "INPUT",
    "Arg",
    "Case",
    "Convention",
    "Dim",
    "Graph",
    "Node",
    "Op",
    "Provenance",
    "Spec",
    "StateEntry",
    "Tensor",
    "Trait",
    "Variable",
    "apply",
    "apply_all",
    "as_tensor",
    "bind_shape",
    "case",
    "convention",
    "format_shape",
    "get_op",
    "input_spec",
    "lift",
    "no_flops",
    "no_grad",
    "per_element",
    "register",
    "registered_ops",
    "remove_dead_nodes",
    "run_passes",
    "scope",
    "tensor",
    "trace",
    "verify",
]
