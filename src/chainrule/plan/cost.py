"""What the kernels of a plan cost: floating-point operations, and bytes that they read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.graph.dims import Size, bind_size
from chainrule.plan.expr import Expr, Storage, free_variables, walk
from chainrule.plan.lower import UNBOUNDED
from chainrule.plan.nest import Nest, axis_size
from chainrule.plan.plan import Kernel, Plan, Product

__all__ = ["KernelCost", "kernel_costs", "nest_flops"]

_FREE = frozenset(("affine", "batch", "cast", "constant", "fold", "held", "load", "select", "variable"))
"""Expressions that compute nothing: a fold's own work is that of what it repeats."""


@dataclass(frozen=True)
class KernelCost:
    """What one run of a kernel costs.

    Attributes:
        flops: floating-point operations; a multiply-add is two, a function such as exp is one.
        bytes: of every storage that it reads or writes, each once.
    """

    flops: int
    bytes: int


def kernel_costs(plan: Plan, products: Mapping[Any, Size]) -> dict[str, KernelCost]:
    """The cost of every kernel, by name, at the planned batch size.

    Args:
        plan: the plan.
        products: FLOPs of written kernels by their parts; other parts move data only.
    """
    return {
        kernel.name: KernelCost(_flops(kernel, plan.batch, products), _bytes(kernel, plan)) for kernel in plan.kernels
    }


def _flops(kernel: Kernel, batch: int, products: Mapping[Any, Size]) -> int:
    if isinstance(kernel.body, Nest):
        return nest_flops(kernel.body, batch)
    if not isinstance(kernel.body, Product):
        return 0
    body = kernel.body
    nests = [prologue.nest for prologue in body.prologues]
    nests += [] if body.epilogue is None else [body.epilogue.nest]
    return bind_size(products.get(body.part, 0), batch) + sum(nest_flops(nest, batch) for nest in nests)


def nest_flops(nest: Nest, batch: int) -> int:
    """Arithmetic on floats over all indices: what folds repeat counts as often as they repeat it."""
    box = 1
    for axis in nest.axes:
        box *= max(0, bind_size(axis_size(axis), batch))
    nodes = list(walk(*(store.value for store in nest.stores)))
    folds = {node.attr[0]: node.attr[2] for node in nodes if node.op == "fold"}
    known: dict[Expr, frozenset[Any]] = {}
    return box * sum(_times(node, folds, known, batch) for node in nodes if _computes(node))


def _computes(node: Expr) -> bool:
    return node.dtype.kind == "f" and node.op not in _FREE


def _times(node: Expr, folds: Mapping[int, Sequence[Any]], known: dict[Expr, frozenset[Any]], batch: int) -> int:
    """How often an expression is computed for one index of the nest."""
    inside: set[Any] = set()
    for item in free_variables(node, known):
        held = isinstance(item, tuple)  # an accumulator: it changes with all indices of its fold
        inside.update(folds[item[0]] if held else (item,))
    total = 1
    for variable in inside & {variable for variables in folds.values() for variable in variables}:
        total *= _extent(variable.extent, batch)
    return total


def _extent(extent: Size | Expr, batch: int) -> int:
    if isinstance(extent, Expr):
        return batch if extent.high is None else extent.high
    return bind_size(extent, batch)


def _bytes(kernel: Kernel, plan: Plan) -> int:
    written = sum(_size(storage, plan.batch) for storage in kernel.writes)
    read = [storage for storage in kernel.reads if storage not in kernel.writes]
    # Of a data set a step reads as many rows as it writes.
    return written + sum(written if storage.size == UNBOUNDED else _size(storage, plan.batch) for storage in read)


def _size(storage: Storage, batch: int) -> int:
    return max(0, bind_size(storage.size, batch)) * storage.dtype.itemsize
