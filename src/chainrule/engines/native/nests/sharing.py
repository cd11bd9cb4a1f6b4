"""Nests that compute the same of different storages, such as an optimizer's updates, and so can share one function."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from chainrule.engines.native.nests.loops import ends_whole
from chainrule.plan.expr import Expr, Storage, Variable, walk
from chainrule.plan.nest import Nest

__all__ = ["Likeness", "likeness"]

_ALONE = frozenset({"guard", "fold", "held"})
"""Nests with these are never shared: their loops depend on sizes too."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What nests of one function have in common: equal ones give the same loops.

    Attributes:
        form: axes and expressions, storages being numbers.
        nest: one of these nests.
        storages: its storages, by their number.
    """

    form: Hashable
    nest: Nest = field(compare=False, repr=False)
    storages: tuple[Storage, ...] = field(compare=False, repr=False)


def likeness(nest: Nest, lanes: int) -> Likeness | None:
    """What a nest has in common with others, its first axis being of any extent; None if it must stand alone.

    Args:
        nest: the nest.
        lanes: how many elements a vector register holds.
    """
    if not nest.axes:
        return None
    storages: dict[Storage, int] = {}
    numbers: dict[Expr, int] = {}
    nodes: list[tuple[Hashable, ...]] = []
    for node in walk(*nest.roots()):
        if node.op in _ALONE or (node.op == "variable" and node.attr not in nest.axes):
            return None
        numbers[node] = len(nodes)
        nodes.append((node.op, node.dtype, *(numbers[arg] for arg in node.args), _attribute(node, nest.axes, storages)))
    stores = tuple(
        (storages.setdefault(store.storage, len(storages)), numbers[store.index], numbers[store.value])
        for store in nest.stores
    )
    box = (ends_whole(nest, 0, lanes), *(axis.extent for axis in nest.axes[1:]))
    kinds = tuple(storage.dtype for storage in storages)
    return Likeness((box, kinds, tuple(nodes), stores), nest, tuple(storages))


def _attribute(node: Expr, axes: tuple[Variable, ...], storages: dict[Storage, int]) -> Hashable:
    if node.op == "load":
        return storages.setdefault(node.attr, len(storages))
    if node.op == "variable":
        return axes.index(node.attr)
    # By its bits, as 0.0 equals -0.0 and NaN not even itself.
    return np.asarray(node.attr, node.dtype).tobytes() if node.op == "constant" else node.attr
