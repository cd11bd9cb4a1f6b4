"""Makes what the kernels of a plan consist of: names that nothing else has, memory between kernels, loop nests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.graph.dims import Size, bind_size
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Expr, Rules, Storage, walk
from chainrule.plan.nest import Nest, Store
from chainrule.plan.plan import Kernel

__all__ = ["KernelMaker"]


class KernelMaker:
    """Makes the kernels of one plan and the memory between them.

    Args:
        batch: planned batch size.

    Attributes:
        rules: the language that nests are written in.
    """

    def __init__(self, batch: int) -> None:
        self.rules = Rules()
        self._batch = batch
        self._names: dict[str, int] = {}

    def planned(self, size: Size) -> int:
        """A size at the planned batch size."""
        return bind_size(size, self._batch)

    def unique(self, name: str) -> str:
        """A name that nothing else has."""
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", name)
        self._names[plain] = self._names.get(plain, -1) + 1
        return f"{plain}.{self._names[plain]}"

    def temporary(self, name: str, dtype: Any, size: Size) -> Storage:
        """Memory under a name of its own."""
        return Storage(self.unique(name), np.dtype(dtype), size)

    def nest(self, nodes: Sequence[Node], axes: Sequence[Expr], stores: Sequence[Store], name: str = "") -> Kernel:
        """A loop nest over the axes that are variables; by default it is called after the last of the nodes."""
        name = self.unique(name or "_".join(dict.fromkeys(node.op.name for node in nodes[-3:])))
        variables = tuple(axis.args[0].attr for axis in axes if axis.args)
        nest = Nest(name, variables, tuple(stores))
        reads = {node.attr for node in walk(*nest.roots()) if node.op == "load"}
        writes = tuple(store.storage for store in stores)
        where = ", ".join(dict.fromkeys(node.where for node in nodes)) or name
        extent = nest.extent
        return Kernel(name, nest, extent, nest.chunk, tuple(sorted(reads, key=repr)), writes, where)
