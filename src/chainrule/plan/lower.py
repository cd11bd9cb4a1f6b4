"""From groups of nodes to kernels: nests by substitution, reductions, sorts, and an engine's written products."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from chainrule.graph.dims import size_of
from chainrule.graph.graph import CONSTANT, INPUT
from chainrule.graph.lowering import Contraction, Reduction, Sorting
from chainrule.graph.tensor import Node, Tensor
from chainrule.plan.elements import Elements
from chainrule.plan.expr import Expr, Point, Storage
from chainrule.plan.fuse import Fusion, Group, origin
from chainrule.plan.gathering import ORDER, source_of
from chainrule.plan.maker import KernelMaker
from chainrule.plan.nest import Store
from chainrule.plan.placed import operands
from chainrule.plan.plan import Kernel, Sort
from chainrule.plan.reduction import reduction

__all__ = ["Generators", "Lowered", "Lowering"]

UNBOUNDED = 1 << 60
"""Elements of a data set: any number."""


class Generators(Protocol):
    """What a planner asks of an engine."""

    lanes: int

    def supports(self, node: Node, contraction: Contraction) -> bool:
        """Whether the engine has a generator for this contraction."""
        ...

    def takes_placed(self, node: Node, contraction: Contraction, placing: Node, position: int) -> bool:
        """Whether there is one that reads an operand as the elements and positions of a placement."""
        ...

    def products(
        self, node: Node, contraction: Contraction, operands: tuple[Storage, ...], result: Storage, maker: KernelMaker
    ) -> Sequence[Kernel]:
        """The kernels of a contraction, in order."""
        ...


@dataclass
class Lowered:
    """Kernels in order, and the storages of everything that enters and leaves.

    Attributes:
        kernels: each reads what earlier ones wrote.
        storages: of leaves and stored values, by node and output.
        constants: what to fill the storages of constants with.
        outputs: the storage of each output.
        updates: for each changed variable its new value's storage and its own.
        sources, order: data sets of gathered inputs, and the numbers of the rows to take.
    """

    kernels: list[Kernel] = field(default_factory=list)
    storages: dict[tuple[int, int], Storage] = field(default_factory=dict)
    constants: dict[Storage, np.ndarray[Any, Any]] = field(default_factory=dict)
    outputs: dict[str, Storage] = field(default_factory=dict)
    updates: dict[Storage, Storage] = field(default_factory=dict)
    sources: dict[str, Storage] = field(default_factory=dict)
    order: Storage | None = None

    def leaf(self, item: Tensor) -> Storage:
        """The storage of an input, even of one that nobody reads."""
        assert item.node is not None
        key = (item.node.id, item.index)
        if key not in self.storages:
            self.storages[key] = leaf_storage(item)
        return self.storages[key]


def leaf_storage(item: Tensor) -> Storage:
    """The storage of a run-time input or a variable."""
    assert item.node is not None
    return Storage(f"input:{item.node.attrs['name']}", item.dtype, size_of(item.shape))


class Lowering:
    """Lowers one fused graph.

    Args:
        fusion: stored values and groups.
        generators: the engine's written kernels.
        batch: planned batch size.
        gathered: run-time inputs whose rows are taken from a data set by number, in the step itself.
    """

    def __init__(self, fusion: Fusion, generators: Generators, batch: int, gathered: Container[str] = ()) -> None:
        self.fusion, self.generators, self.gathered = fusion, generators, gathered
        self.result = Lowered()
        self.maker = KernelMaker(batch)
        self.rules = self.maker.rules
        self.elements = Elements(fusion, self.rules, self.storage)

    def run(self) -> Lowered:
        """Kernels for every group, and for results that no kernel would leave in memory of their own."""
        for name, item in self.fusion.graph.inputs.items():
            if name in self.gathered:
                self._gather(name, item)
        for group in self.fusion.groups:
            how = self.fusion.lowering[group.nodes[0].id]
            if isinstance(how, Contraction):
                self._product(group.nodes[0], how)
            elif isinstance(how, Sorting):
                self._sort(group.nodes[0], how)
            elif isinstance(how, Reduction):
                self._reduction(group.nodes[0], how)
            else:
                self._nest(group)
        graph = self.fusion.graph
        for name, item in graph.outputs.items():
            self.result.outputs[name] = self._own(item, name, taken=())
        for entry in graph.state:
            if entry.changes:
                new = self._own(entry.after, entry.name, taken=self.result.updates)
                self.result.updates[new] = self.result.leaf(entry.before)
        return self.result

    def _gather(self, name: str, item: Tensor) -> None:
        """Row i of an input is row ``order[i]`` of its data set."""
        k = self.rules
        source = Storage(source_of(name), item.dtype, UNBOUNDED)
        order = Storage(ORDER, np.dtype("int64"), item.shape[0])
        width = 1
        for size in item.shape[1:]:
            assert isinstance(size, int)
            width *= size
        i, j = k.variable("i", item.shape[0]), k.variable("j", width)
        value = k.load(source, k.load(order, i) * width + j)
        self.result.sources[name] = source
        self.result.order = order
        self._add_nest([], [i, j], [Store(self.result.leaf(item), i * width + j, value)], f"gather_{name}")

    def _own(self, item: Tensor, name: str, taken: Container[Storage]) -> Storage:
        """A result's storage; a copy where the result is a leaf or belongs to another result already."""
        shown = origin(item, self.fusion.lowering)
        assert shown.node is not None
        if shown.node.op not in (INPUT, CONSTANT) and self.storage(shown) not in taken:
            return self.storage(shown)
        copy = self.maker.temporary(f"copy:{name}", item.dtype, size_of(item.shape))
        self.elements.begin()
        axis = self.rules.variable("i", copy.size)
        point = Point(self.rules, item.shape, linear=axis)
        self._add_nest([], [axis], [Store(copy, axis, self.elements.at(item, point))], f"copy_{name}")
        return copy

    def finish(self, new: Storage, old: Storage) -> Storage:
        """Copy a new value over the old one at the end of the step; gives the storage that stands for the result."""
        after = Storage(f"after:{old.name}", old.dtype, old.size)
        axis = self.rules.variable("i", old.size)
        self._add_nest([], [axis], [Store(after, axis, self.rules.load(new, axis))], f"store_{old.name}")
        return after

    # -- storages -------------------------------------------------------------------------------------------

    def storage(self, item: Tensor) -> Storage:
        """Where a stored value, an input or a constant lies."""
        item = origin(item, self.fusion.lowering)
        assert item.node is not None
        key = (item.node.id, item.index)
        if key not in self.result.storages:
            self.result.storages[key] = self._new_storage(item)
        return self.result.storages[key]

    def _new_storage(self, item: Tensor) -> Storage:
        node = item.node
        assert node is not None
        if node.op is INPUT:
            return leaf_storage(item)
        name = f"{node.op.name}{f'.{item.index}' if item.index else ''}"
        made = self.maker.temporary(name, item.dtype, size_of(item.shape))
        if node.op is CONSTANT:
            self.result.constants[made] = node.attrs["value"].array
        return made

    # -- kernels --------------------------------------------------------------------------------------------

    def _nest(self, group: Group) -> None:
        self.elements.begin(group.nodes)
        shape = max((node.specs[0].shape for node in group.nodes), key=len)
        axes = [self.rules.variable("abcdefgh"[i % 8], size) for i, size in enumerate(shape)]
        point = Point(self.rules, shape, axes)
        stores = []
        for node in group.nodes:
            own = node.specs[0].shape
            place = point if own == shape else Point(self.rules, own, linear=point.linear)
            for index, value in enumerate(self.elements.computed(node, place)):
                stores.append(Store(self.storage(node.outputs[index]), place.linear, value))
        self._add_nest(group.nodes, axes, stores)

    def _add_nest(self, nodes: Sequence[Node], axes: Sequence[Expr], stores: Sequence[Store], name: str = "") -> None:
        self.result.kernels.append(self.maker.nest(nodes, axes, stores, name))

    def _reduction(self, node: Node, how: Reduction) -> None:
        output = self.storage(node.outputs[0])
        self.result.kernels += reduction(node, how, output, self.maker, self.elements)

    def _sort(self, node: Node, how: Sorting) -> None:
        k = self.rules
        size = size_of(node.specs[0].shape)
        keys = self.maker.temporary("keys", "uint64", size)
        axis = k.variable("i", size)
        self.elements.begin()
        key = how.key(k, axis, *self.elements.readers(node), **node.attrs)
        self._add_nest([node], [axis], [Store(keys, axis, key)])
        result = self.storage(node.outputs[0])
        spare = self.maker.temporary("sort_spare", "uint64", size * 4)
        body = Sort(keys, spare, result, size)
        name = self.maker.unique("sort")
        self.result.kernels.append(Kernel(name, body, 1, 1, (keys,), (result, spare), node.where))

    def _product(self, node: Node, how: Contraction) -> None:
        read = tuple(self.storage(item) for item in operands(node, how))
        result = self.storage(node.outputs[0])
        self.result.kernels += self.generators.products(node, how, read, result, self.maker)
