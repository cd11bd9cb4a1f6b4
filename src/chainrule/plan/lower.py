"""From groups of nodes to kernels: expressions by substitution, boxes, reductions in fixed parts."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from chainrule.graph.dims import Shape, Size, bind_size, size_of
from chainrule.graph.graph import CONSTANT, INPUT
from chainrule.graph.lowering import Contraction, Elementwise, Indexed, Reduction, Sorting
from chainrule.graph.tensor import Node, Tensor
from chainrule.plan.expr import Expr, Point, Rules, Storage, walk
from chainrule.plan.fuse import Fusion, Group, origin
from chainrule.plan.nest import Nest, Store
from chainrule.plan.placed import operands
from chainrule.plan.plan import Kernel, Sort

__all__ = ["Generators", "Lowered", "Lowering"]

PARTS = 16
"""A reduction over the batch is done in about so many parts, which are joined in order."""
UNBOUNDED = 1 << 60
"""Elements of a data set: any number."""
LEAST_SPLIT = 512
"""Reductions of fewer elements are done in one part."""


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
        self,
        node: Node,
        contraction: Contraction,
        operands: tuple[Storage, ...],
        result: Storage,
        batch: int,
        names: Names,
    ) -> Sequence[Kernel]:
        """The kernels of a contraction, in order."""
        ...


class Names(Protocol):
    """What a generator may ask of the planner: fresh names, and nests around its products."""

    def __call__(self, name: str) -> str:
        """A name that nothing else has."""
        ...

    def add_matrices(
        self,
        parts: Storage,
        count: int,
        size: int,
        stride: int,
        result: Storage,
        rows: Size,
        columns: int,
        node: Node,
    ) -> Kernel:
        """``result[i][j]`` is the sum over u < count, in order, of ``parts[u * size + i * stride + j]``."""
        ...

    def add_parts(
        self, parts: Storage, count: int, size: int, result: Storage, rows: int, columns: int, panel: int, node: Node
    ) -> Kernel:
        """``result[i][j]`` is the sum over u, in order, of element (i, j) of the packed matrix ``parts[u * size:]``.

        With panel 0 the parts are matrices ``[columns][rows]``.
        """
        ...

    def transposed(self, source: Storage, result: Storage, rows: int, columns: int, node: Node) -> Kernel:
        """``result[j][i] = source[i][j]``."""
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


class _Reader:
    """An input as `Indexed` rules see it."""

    def __init__(self, lowering: Lowering, item: Tensor) -> None:
        self._lowering, self._item = lowering, item
        self.shape, self.dtype = item.shape, item.dtype

    def __getitem__(self, place: Any) -> Expr:
        k = self._lowering.rules
        indices = place if isinstance(place, tuple) else (place,)
        coordinates = [i if isinstance(i, Expr) else k.constant(i, "int64") for i in indices]
        assert len(coordinates) == len(self.shape), f"{len(coordinates)} indices for {self.shape}"
        return self._lowering.element(self._item, Point(k, self.shape, coordinates))

    def flat(self, number: Expr) -> Expr:
        """The element of that row-major number."""
        return self._lowering.element(self._item, Point(self._lowering.rules, self.shape, linear=number))

    def at(self, point: Point) -> Expr:
        """The element at a place of the same shape."""
        return self._lowering.element(self._item, point)


class Lowering:
    """Lowers one fused graph.

    Args:
        fusion: stored values and groups.
        generators: the engine's written kernels.
        batch: planned batch size.
        gathered: run-time inputs whose rows are taken from a data set by number, in the step itself.
    """

    def __init__(self, fusion: Fusion, generators: Generators, batch: int, gathered: Container[str] = ()) -> None:
        self.fusion, self.generators, self.batch = fusion, generators, batch
        self.gathered = gathered
        self.rules = Rules()
        self.result = Lowered()
        self._here: set[int] = set()
        self._elements: dict[tuple[Any, ...], tuple[Expr, ...]] = {}
        self._names: dict[str, int] = {}

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
        source = Storage(f"source:{name}", item.dtype, UNBOUNDED)
        order = Storage("order", np.dtype("int64"), item.shape[0])
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
        copy = self.temporary(f"copy:{name}", item.dtype, size_of(item.shape))
        self._elements.clear()
        axis = self.rules.variable("i", copy.size)
        point = Point(self.rules, item.shape, linear=axis)
        self._add_nest([], [axis], [Store(copy, axis, self.element(item, point))], f"copy_{name}")
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
        name = self._unique(f"{node.op.name}{f'.{item.index}' if item.index else ''}")
        made = Storage(name, item.dtype, size_of(item.shape))
        if node.op is CONSTANT:
            self.result.constants[made] = node.attrs["value"].array
        return made

    def temporary(self, name: str, dtype: Any, size: Size) -> Storage:
        """Memory that only one group's kernels use."""
        return Storage(self._unique(name), np.dtype(dtype), size)

    def _unique(self, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", name)
        self._names[plain] = self._names.get(plain, -1) + 1
        return f"{plain}.{self._names[plain]}"

    # -- elements -------------------------------------------------------------------------------------------

    def element(self, item: Tensor, point: Point) -> Expr:
        """One element of a tensor: loaded if it is stored elsewhere, else computed here."""
        shown = origin(item, self.fusion.lowering)
        node = shown.node
        assert node is not None
        if shown is not item and shown.shape != point.shape:
            point = Point(self.rules, shown.shape, linear=point.linear)
        if node.op is CONSTANT and node.attrs["value"].array.size == 1:
            return self.rules.constant(node.attrs["value"].array.item(), shown.dtype)
        leaf = node.op in (INPUT, CONSTANT)
        if leaf or (node.id in self.fusion.stored and node.id not in self._here):
            return self.rules.load(self.storage(shown), point.linear)
        return self._computed(node, point)[shown.index]

    def _computed(self, node: Node, point: Point) -> tuple[Expr, ...]:
        key = (node.id, *(index.id for index in point.coordinates)) if point.shape else (node.id,)
        if key not in self._elements:
            how = self.fusion.lowering[node.id]
            if isinstance(how, Elementwise):
                values = [self.element(item, self._broadcast(point, item.shape)) for item in node.inputs]
                result = how.rule(self.rules, *values, **node.attrs)
            else:
                assert isinstance(how, Indexed)
                readers = [_Reader(self, item) for item in node.inputs]
                result = how.rule(self.rules, point, *readers, **node.attrs)
            self._elements[key] = result if isinstance(result, tuple) else (result,)
        return self._elements[key]

    def _broadcast(self, point: Point, shape: Shape) -> Point:
        """The place in a smaller operand that goes with a place in the result."""
        if shape == point.shape:
            return point
        if all(size == 1 for size in shape):
            zero = self.rules.constant(0, "int64")
            return Point(self.rules, shape, [zero] * len(shape), zero)
        missing = len(point.shape) - len(shape)
        zero = self.rules.constant(0, "int64")
        place = [zero if size == 1 else point[missing + axis] for axis, size in enumerate(shape)]
        return Point(self.rules, shape, place)

    # -- kernels --------------------------------------------------------------------------------------------

    def _nest(self, group: Group) -> None:
        self._here = {node.id for node in group.nodes}
        self._elements.clear()
        shape = max((node.specs[0].shape for node in group.nodes), key=len)
        axes = [self.rules.variable("abcdefgh"[i % 8], size) for i, size in enumerate(shape)]
        point = Point(self.rules, shape, axes)
        stores = []
        for node in group.nodes:
            own = node.specs[0].shape
            place = point if own == shape else Point(self.rules, own, linear=point.linear)
            for index, value in enumerate(self._computed(node, place)):
                stores.append(Store(self.storage(node.outputs[index]), place.linear, value))
        self._here = set()
        self._add_nest(group.nodes, axes, stores)

    def _add_nest(self, nodes: Sequence[Node], axes: Sequence[Expr], stores: Sequence[Store], name: str = "") -> None:
        self.result.kernels.append(self._nest_kernel(nodes, axes, stores, name))

    def _nest_kernel(
        self, nodes: Sequence[Node], axes: Sequence[Expr], stores: Sequence[Store], name: str = ""
    ) -> Kernel:
        name = self._unique(name or "_".join(dict.fromkeys(node.op.name for node in nodes[-3:])))
        variables = tuple(axis.args[0].attr for axis in axes if axis.args)
        nest = Nest(name, variables, tuple(stores))
        reads = {node.attr for node in walk(*nest.roots()) if node.op == "load"}
        writes = tuple(store.storage for store in stores)
        where = ", ".join(dict.fromkeys(node.where for node in nodes)) or name
        extent = nest.extent
        return Kernel(name, nest, extent, nest.chunk, tuple(sorted(reads, key=repr)), writes, where)

    def _reduction(self, node: Node, how: Reduction) -> None:
        specs = [item.spec for item in node.inputs]
        gone = set(how.axes(specs, node.attrs))
        shape = specs[0].shape
        kept = [size for axis, size in enumerate(shape) if axis not in gone]
        lost = [size for axis, size in enumerate(shape) if axis in gone]
        output = self.storage(node.outputs[0])
        length = bind_size(size_of(tuple(lost)), self.batch)
        room = bind_size(size_of(tuple(kept)), self.batch)
        self._elements.clear()
        if lost and length >= LEAST_SPLIT and room <= 4096:
            self._in_parts(node, how, kept, lost, gone, output)
            return
        axes = [self.rules.variable("k", size) for size in kept]
        value = self._folded(node, how, axes, lost, gone, output.dtype, None)
        place = Point(self.rules, tuple(kept), axes).linear
        self._add_nest([node], axes, [Store(output, place, value)])

    def _in_parts(
        self, node: Node, how: Reduction, kept: list[Size], lost: list[Size], gone: set[int], output: Storage
    ) -> None:
        """One partial result for each stretch of the first vanishing axis, then their combination in order."""
        k = self.rules
        rows = bind_size(lost[0], self.batch)
        inner = max(1, bind_size(size_of(tuple(lost[1:])), self.batch))
        chunk = max(1, -(-rows // PARTS), -(-LEAST_SPLIT // (2 * inner)))
        wide = np.dtype("float64") if how.fold == "sum" and output.dtype.kind == "f" else output.dtype
        room = size_of(tuple(kept))
        planned = -(-rows // chunk)
        parts = self.temporary(f"{node.op.name}_parts", wide, room * planned)
        part = k.variable("u", planned)
        first = part * chunk
        left = k.smaller(k.constant(chunk, "int64"), k.size(lost[0]) - first)
        axes = [k.variable("k", size) for size in kept]
        value = self._folded(node, how, axes, [left, *lost[1:]], gone, wide, first)
        place = Point(k, tuple(kept), axes).linear
        self._add_nest([node], [part, *axes], [Store(parts, part * k.size(room) + place, value)])
        self._elements.clear()
        again = [k.variable("k", size) for size in kept]
        place = Point(k, tuple(kept), again).linear
        fold = k.sum if how.fold == "sum" else k.max
        total = fold([planned], lambda u: k.load(parts, u[0] * k.size(room) + place), wide)
        self._add_nest([node], again, [Store(output, place, k.cast(total, output.dtype))])

    def _folded(
        self,
        node: Node,
        how: Reduction,
        axes: Sequence[Expr],
        lost: Sequence[Any],
        gone: set[int],
        dtype: np.dtype[Any],
        first: Expr | None,
    ) -> Expr:
        """The fold over the vanishing axes, the first of them counted from `first`."""

        def value(indices: tuple[Expr, ...]) -> Expr:
            inner, outer = list(indices), list(axes)
            if first is not None:
                inner[0] = inner[0] + first
            shape = node.inputs[0].shape
            place = [inner.pop(0) if axis in gone else outer.pop(0) for axis in range(len(shape))]
            point = Point(self.rules, shape, place)
            values = [self.element(item, self._broadcast(point, item.shape)) for item in node.inputs]
            return how.element(self.rules, *values, **node.attrs) if how.element else values[0]

        if not lost:
            return self.rules.cast(value(()), dtype)
        fold = self.rules.sum if how.fold == "sum" else self.rules.max
        return fold(lost, value, dtype)

    def _sort(self, node: Node, how: Sorting) -> None:
        k = self.rules
        size = size_of(node.specs[0].shape)
        keys = self.temporary("keys", "uint64", size)
        axis = k.variable("i", size)
        readers = [_Reader(self, item) for item in node.inputs]
        self._add_nest([node], [axis], [Store(keys, axis, how.key(k, axis, *readers, **node.attrs))])
        result = self.storage(node.outputs[0])
        spare = self.temporary("sort_spare", "uint64", size * 4)
        body = Sort(keys, spare, result, size)
        name = self._unique("sort")
        self.result.kernels.append(Kernel(name, body, 1, 1, (keys,), (result, spare), node.where))

    def _product(self, node: Node, how: Contraction) -> None:
        read = tuple(self.storage(item) for item in operands(node, how))
        result = self.storage(node.outputs[0])
        self.result.kernels += self.generators.products(node, how, read, result, self.batch, self)

    # -- nests around products ------------------------------------------------------------------------------

    def __call__(self, name: str) -> str:
        """A name that nothing else has."""
        return self._unique(name)

    def add_matrices(
        self,
        parts: Storage,
        count: int,
        size: int,
        stride: int,
        result: Storage,
        rows: Size,
        columns: int,
        node: Node,
    ) -> Kernel:
        """``result[i][j]`` is the sum over u < count, in order, of ``parts[u * size + i * stride + j]``."""
        i, j = self.rules.variable("i", rows), self.rules.variable("j", columns)
        total = self._total(parts, count, size, i * stride + j, result.dtype)
        return self._nest_kernel([node], [i, j], [Store(result, i * columns + j, total)])

    def _total(self, parts: Storage, count: int, size: int, place: Expr, dtype: np.dtype[Any]) -> Expr:
        """The sum over u < count of ``parts[u * size + place]``."""
        k = self.rules

        def step(u: tuple[Expr, ...], held: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (held[0] + k.load(parts, u[0] * size + place),)

        return k.load(parts, place) if count == 1 else k.fold([count], (k.constant(0, dtype),), step)[0]

    def add_parts(
        self, parts: Storage, count: int, size: int, result: Storage, rows: int, columns: int, panel: int, node: Node
    ) -> Kernel:
        """``result[i][j]`` is the sum over u, in order, of element (i, j) of the packed matrix ``parts[u * size:]``."""
        k = self.rules
        i, j = k.variable("i", rows), k.variable("j", columns)
        place = (j // panel) * (rows * panel) + i * panel + j % panel if panel else j * rows + i
        total = self._total(parts, count, size, place, result.dtype)
        axes = [i, j] if panel else [j, i]
        return self._nest_kernel([node], axes, [Store(result, i * columns + j, total)])

    def transposed(self, source: Storage, result: Storage, rows: int, columns: int, node: Node) -> Kernel:
        """``result[j][i] = source[i][j]``."""
        k = self.rules
        i, j = k.variable("i", rows), k.variable("j", columns)
        return self._nest_kernel([node], [i, j], [Store(result, j * rows + i, k.load(source, i * columns + j))])
