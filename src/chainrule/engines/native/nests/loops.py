"""The loops of a nest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.nests.sizes import size_value
from chainrule.engines.native.nests.values import Values
from chainrule.engines.native.types import I64
from chainrule.graph.dims import Dim
from chainrule.plan.expr import Storage, Variable
from chainrule.plan.nest import Nest, axis_size
from chainrule.plan.pieces import pieces

__all__ = ["emit_nest", "ends_whole"]

FOLDED_REGISTERS = 4
"""Registers that one fold accumulates in, if the axis is long enough."""


def emit_nest(
    f: Function,
    nest: Nest,
    buffers: Mapping[Storage, Buffer],
    batch: Value,
    low: Index,
    high: Index,
    lanes: int,
    bound: Sequence[Value] = (),
) -> None:
    """Emit the part ``[low, high)`` of the nest's first axis.

    Args:
        f: the function under construction.
        nest: what to compute.
        buffers: where each storage lies.
        batch: the run-time batch size.
        low, high: the range of the first axis (ignored by a nest without axes, or whose first axes are bound).
        lanes: how many elements a vector register holds.
        bound: values of the first axes, which are then not looped over.
    """
    for piece in pieces(nest, len(bound)):
        first, last = low, high
        if piece.size is not None:
            first = f.max(f.sub(low, piece.start), 0)
            last = f.max(f.min(f.sub(high, piece.start), piece.size), first)  # a unit beyond the piece has none of it
        _Loops(f, piece.nest, buffers, batch, lanes).run(first, last, bound)


def ends_whole(nest: Nest, position: int, lanes: int) -> bool:
    """Whether every range of an axis is a whole number of vectors, so that no scalar tail is needed."""
    if lanes == 1:
        return False
    extent = axis_size(nest.axes[position])
    sizes = [extent.scale, extent.offset] if isinstance(extent, Dim) else [extent]
    return all(size % lanes == 0 for size in sizes) and (position > 0 or nest.chunk % lanes == 0)


class _Loops:
    """Writes the loops; what their bodies store comes from `Values`."""

    def __init__(self, f: Function, nest: Nest, buffers: Mapping[Storage, Buffer], batch: Value, lanes: int) -> None:
        self.f, self.nest, self.buffers, self.batch = f, nest, buffers, batch
        self.values = Values(f, nest, buffers, batch)
        self._wanted = lanes

    def run(self, low: Index, high: Index, bound: Sequence[Value]) -> None:
        with ExitStack() as outer:
            for axis, value in zip(self.nest.axes, bound, strict=False):
                outer.enter_context(self.values.bound(axis, value))
            self.values.prepare(self.values.nodes)
            position = len(bound)
            if position == len(self.nest.axes):
                self._stores()
            elif position:
                self._axis(position, 0, size_value(self.f, axis_size(self.nest.axes[position]), self.batch))
            else:
                self._axis(0, low, high)

    def _axis(self, position: int, low: Index, high: Index) -> None:
        axis = self.nest.axes[position]
        if position < len(self.nest.axes) - 1:

            def turn(i: Value, _: list[Value]) -> None:
                with self.values.bound(axis, i):
                    self.values.prepare(self.values.nodes)
                    self._axis(position + 1, 0, size_value(self.f, axis_size(self.nest.axes[position + 1]), self.batch))

            self.f.loop(low, high, turn)
            return
        start, widths = low, self._widths(axis, low, high)
        for lanes in widths:
            count = self.f.sub(high, start)
            whole = count // lanes * lanes if isinstance(count, int) else self._down(count, lanes)
            middle = self.f.add(start, whole)
            if whole != 0:
                self._last(axis, start, middle, lanes)
            start = middle
        if not ends_whole(self.nest, position, min(widths, default=1)) and not (
            isinstance(start, int) and isinstance(high, int) and start >= high
        ):
            self._last(axis, start, high, 1)

    def _down(self, count: Value, lanes: int) -> Value:
        return self.f.let(I64, f"and i64 {self.f.index(count).text}, {-lanes}")

    def _widths(self, axis: Variable, low: Index, high: Index) -> list[int]:
        """How many lanes are computed at once: so many while the range lasts, then fewer; nothing for one by one."""
        if self._mostly_scattered(axis) or self._folds_differ(axis):
            return []
        wanted, extent = self._wanted, axis_size(axis)
        if isinstance(low, int) and isinstance(high, int):
            while wanted > 1 and wanted > high - low:
                wanted //= 2
        if wanted == 1:
            return []
        if isinstance(extent, int) and any(node.op == "fold" for node in self.values.nodes):
            # Several registers at once: a fold waits for its own last turn, several go on side by side.
            several = [count * wanted for count in (FOLDED_REGISTERS, FOLDED_REGISTERS // 2)]
            several = [lanes for lanes in several if lanes <= extent]
            even = [lanes for lanes in several if extent % lanes == 0]
            return even[:1] or [*several[:1], wanted]
        return [wanted]

    def _folds_differ(self, axis: Variable) -> bool:
        """Whether the length of some fold depends on the axis, so that lanes would leave it at different times."""
        return any(
            axis in self.values.free[length]
            for node in self.values.nodes
            if node.op == "fold"
            for length in node.args[2 * node.attr[3] :]
        )

    def _mostly_scattered(self, axis: Variable) -> bool:
        """Whether lanes would mostly be loaded and stored one by one, so that vectors gain nothing."""
        places = [node.args[0] for node in self.values.nodes if node.op == "load"]
        places += [store.index for store in self.nest.stores]
        with self.values.vectorised(axis, self._wanted):
            steps = [self.values.step(place) for place in places]
        return 2 * sum(step not in (0, 1) for step in steps) > sum(step != 0 for step in steps)

    def _last(self, axis: Variable, low: Index, high: Index, lanes: int) -> None:
        def turn(i: Value, _: list[Value]) -> None:
            with self.values.bound(axis, i):
                self._stores()

        with self.values.vectorised(axis, lanes) if lanes > 1 else nullcontext():
            self.f.loop(low, high, turn, step=lanes)

    def _stores(self) -> None:
        lanes = self.values.lanes
        values = [self.values.value(store.value, lanes, None) for store in self.nest.stores]
        for store, value in zip(self.nest.stores, values, strict=True):
            buffer = self.buffers[store.storage]
            step = self.values.step(store.index) if lanes > 1 else 1
            base = self.values.value(store.index, 1, None)
            if step == 1 or lanes == 1:
                self.f.store(value, buffer, base)
            elif step is not None:
                for lane in range(lanes):
                    self.f.store(self.f.extract(value, lane), buffer, self.f.add(base, lane * step))
            else:
                places = self.values.value(store.index, lanes, None)
                for lane in range(lanes):
                    self.f.store(self.f.extract(value, lane), buffer, self.f.extract(places, lane))
