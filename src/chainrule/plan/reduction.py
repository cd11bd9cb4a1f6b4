"""Reductions as kernels: a fold over the axes that vanish, long ones in fixed parts that are joined in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.graph.dims import Size, size_of
from chainrule.graph.lowering import Reduction
from chainrule.graph.tensor import Node
from chainrule.plan.elements import Elements
from chainrule.plan.expr import Expr, Point, Storage
from chainrule.plan.maker import KernelMaker
from chainrule.plan.nest import Store
from chainrule.plan.plan import Kernel

__all__ = ["reduction"]

PARTS = 16
"""A reduction over the batch is done in about so many parts, which are joined in order."""
LEAST_SPLIT = 512
"""Reductions of fewer elements are done in one part."""
MOST_SPLIT_RESULTS = 4096
"""Reductions to more elements have work enough for all threads in one part."""


def reduction(node: Node, how: Reduction, output: Storage, maker: KernelMaker, elements: Elements) -> list[Kernel]:
    """The kernels of a reduction, in order."""
    gone = frozenset(how.axes([item.spec for item in node.inputs], node.attrs))
    fold = _Fold(node, how, gone, maker, elements)
    length = maker.planned(size_of(fold.lost))
    room = maker.planned(size_of(fold.kept))
    if fold.lost and length >= LEAST_SPLIT and room <= MOST_SPLIT_RESULTS:
        return fold.in_parts(output)
    return [fold.whole(output)]


@dataclass(frozen=True)
class _Fold:
    """One reduction.

    Attributes:
        node: the op.
        how: what is folded, and how.
        gone: the axes that vanish.
        maker, elements: what its kernels are made with.
    """

    node: Node
    how: Reduction
    gone: frozenset[int]
    maker: KernelMaker
    elements: Elements

    @property
    def lost(self) -> tuple[Size, ...]:
        """Sizes of the axes that vanish."""
        return tuple(size for axis, size in enumerate(self.node.inputs[0].shape) if axis in self.gone)

    @property
    def kept(self) -> tuple[Size, ...]:
        """Sizes of the other axes."""
        return tuple(size for axis, size in enumerate(self.node.inputs[0].shape) if axis not in self.gone)

    def whole(self, output: Storage) -> Kernel:
        """The reduction in one part."""
        self.elements.begin()
        axes = self._kept_axes()
        value = self._folded(axes, self.lost, output.dtype)
        return self.maker.nest([self.node], axes, [Store(output, self._linear(axes), value)])

    def in_parts(self, output: Storage) -> list[Kernel]:
        """One partial result for each stretch of the first vanishing axis, then their combination in order."""
        k, lost = self.maker.rules, self.lost
        rows = self.maker.planned(lost[0])
        inner = max(1, self.maker.planned(size_of(lost[1:])))
        chunk = max(1, -(-rows // PARTS), -(-LEAST_SPLIT // (2 * inner)))
        planned = -(-rows // chunk)
        room = size_of(self.kept)
        wide = np.dtype("float64") if self.how.fold == "sum" and output.dtype.kind == "f" else output.dtype
        parts = self.maker.temporary(f"{self.node.op.name}_parts", wide, room * planned)

        self.elements.begin()
        part = k.variable("u", planned)
        first = part * chunk
        left = k.smaller(k.constant(chunk, "int64"), k.size(lost[0]) - first)
        axes = self._kept_axes()
        value = self._folded(axes, [left, *lost[1:]], wide, first)
        store = Store(parts, part * k.size(room) + self._linear(axes), value)
        partial = self.maker.nest([self.node], [part, *axes], [store])

        self.elements.begin()
        axes = self._kept_axes()
        place = self._linear(axes)
        fold = k.sum if self.how.fold == "sum" else k.max
        total = fold([planned], lambda u: k.load(parts, u[0] * k.size(room) + place), wide)
        joined = self.maker.nest([self.node], axes, [Store(output, place, k.cast(total, output.dtype))])
        return [partial, joined]

    def _kept_axes(self) -> list[Expr]:
        return [self.maker.rules.variable("k", size) for size in self.kept]

    def _linear(self, axes: Sequence[Expr]) -> Expr:
        """The place in the result."""
        return Point(self.maker.rules, self.kept, axes).linear

    def _folded(
        self, axes: Sequence[Expr], lost: Sequence[Size | Expr], dtype: np.dtype[Any], first: Expr | None = None
    ) -> Expr:
        """The fold over the vanishing axes, the first of them counted from `first`."""
        k, node, shape = self.maker.rules, self.node, self.node.inputs[0].shape

        def value(indices: tuple[Expr, ...]) -> Expr:
            inner, outer = list(indices), list(axes)
            if first is not None:
                inner[0] = inner[0] + first
            place = [inner.pop(0) if axis in self.gone else outer.pop(0) for axis in range(len(shape))]
            values = self.elements.operands(node, Point(k, shape, place))
            element: Expr = self.how.element(k, *values, **node.attrs) if self.how.element else values[0]
            return element

        if not lost:
            return k.cast(value(()), dtype)
        fold = k.sum if self.how.fold == "sum" else k.max
        return fold(lost, value, dtype)
