"""One element of a tensor as an expression: loaded where the tensor is stored, else computed from its inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from chainrule.graph.dims import Shape
from chainrule.graph.graph import CONSTANT, INPUT
from chainrule.graph.lowering import Elementwise, Indexed
from chainrule.graph.tensor import Node, Tensor
from chainrule.plan.expr import Expr, Point, Rules, Storage
from chainrule.plan.fuse import Fusion, origin

__all__ = ["Elements"]


class Elements:
    """Writes elements of a fused graph's tensors for one kernel after the other.

    Args:
        fusion: which values are stored.
        rules: the language that they are written in.
        storage: where a stored value, an input or a constant lies.
    """

    def __init__(self, fusion: Fusion, rules: Rules, storage: Callable[[Tensor], Storage]) -> None:
        self.fusion, self.rules, self.storage = fusion, rules, storage
        self._here: set[int] = set()
        self._known: dict[tuple[Any, ...], tuple[Expr, ...]] = {}

    def begin(self, nodes: Collection[Node] = ()) -> None:
        """Begin a kernel: the nodes are computed in it, other stored values are loaded."""
        self._here = {node.id for node in nodes}
        self._known.clear()

    def at(self, item: Tensor, point: Point) -> Expr:
        """One element of a tensor."""
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
        return self.computed(node, point)[shown.index]

    def operands(self, node: Node, point: Point) -> list[Expr]:
        """The elements of a node's inputs that go with a place, smaller inputs repeated."""
        return [self.at(item, self._broadcast(point, item.shape)) for item in node.inputs]

    def readers(self, node: Node) -> list[_Reader]:
        """A node's inputs as `Indexed` rules see them."""
        return [_Reader(self, item) for item in node.inputs]

    def computed(self, node: Node, point: Point) -> tuple[Expr, ...]:
        """One element of each result of a node, computed here."""
        key = (node.id, *(index.id for index in point.coordinates)) if point.shape else (node.id,)
        if key not in self._known:
            how = self.fusion.lowering[node.id]
            if isinstance(how, Elementwise):
                result = how.rule(self.rules, *self.operands(node, point), **node.attrs)
            else:
                assert isinstance(how, Indexed)
                result = how.rule(self.rules, point, *self.readers(node), **node.attrs)
            self._known[key] = result if isinstance(result, tuple) else (result,)
        return self._known[key]

    def _broadcast(self, point: Point, shape: Shape) -> Point:
        """The place in a smaller operand that goes with a place in the result."""
        if shape == point.shape:
            return point
        zero = self.rules.constant(0, "int64")
        if all(size == 1 for size in shape):
            return Point(self.rules, shape, [zero] * len(shape), zero)
        missing = len(point.shape) - len(shape)
        place = [zero if size == 1 else point[missing + axis] for axis, size in enumerate(shape)]
        return Point(self.rules, shape, place)


class _Reader:
    """An input as `Indexed` rules see it."""

    def __init__(self, elements: Elements, item: Tensor) -> None:
        self._elements, self._item = elements, item
        self.shape, self.dtype = item.shape, item.dtype

    def __getitem__(self, place: Any) -> Expr:
        k = self._elements.rules
        indices = place if isinstance(place, tuple) else (place,)
        coordinates = [i if isinstance(i, Expr) else k.constant(i, "int64") for i in indices]
        assert len(coordinates) == len(self.shape), f"{len(coordinates)} indices for {self.shape}"
        return self._elements.at(self._item, Point(k, self.shape, coordinates))

    def flat(self, number: Expr) -> Expr:
        """The element of that row-major number."""
        return self._elements.at(self._item, Point(self._elements.rules, self.shape, linear=number))

    def at(self, point: Point) -> Expr:
        """The element at a place of the same shape."""
        return self._elements.at(self._item, point)
