"""Convolution gradients behind a max-pool, from the pool's few elements; see `products.sparse` for how they work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.convolution.problem import Pair, Problem
from chainrule.engines.native.convolution.samples import SampleGroups, by_sample, sum_groups
from chainrule.engines.native.convolution.staging import Staged, staged_bytes
from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.kernels import RANGE, Context, Scratch, call, rounded
from chainrule.engines.native.maps import MapCopy, emit_map_copy
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.sparse import (
    SparseGradient,
    emit_sparse_input_gradient,
    emit_sparse_weight_gradient,
)
from chainrule.engines.native.request import Parts, Request
from chainrule.engines.native.types import I32, I64, type_of
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Kernel

__all__ = ["input_gradient", "kernel_gradient", "takes"]

FILTER_ROW_BYTES = 1 << 18
"""One row of taps of all filters must stay in the second cache."""
MOST_PLACES = 16
"""Larger windows have more places than lists are worth."""


def takes(node: Node, form: Mapping[str, Any], placing: Node, position: int, lanes: int) -> bool:
    """Whether the gradient of this convolution can be computed from the pool's elements."""
    gradient = node.inputs[position]
    if placing.specs[0].shape != gradient.shape or any(item is gradient for item in node.inputs[:position]):
        return False
    if tuple(form["count"]) != tuple(gradient.shape[1:3]) or form["outputs"] != gradient.shape[3]:
        return False
    window = _window(placing)
    run = form["taps"][1] * form["channels"]
    return (
        form["groups"] == 1
        and tuple(form["stride"]) == tuple(form["dilation"]) == (1, 1)
        and run % lanes == 0
        and form["outputs"] * run * type_of(gradient.dtype).bytes <= FILTER_ROW_BYTES
        and window[0] * window[1] <= MOST_PLACES
        and placing.inputs[1].dtype == "int32"
    )


def _window(placing: Node) -> Pair:
    """(height, width) of the windows of a placing node."""
    assert placing.op.placement is not None
    window = placing.op.placement.window(placing.attrs)
    assert window is not None
    return window


def input_gradient(request: Request) -> Sequence[Kernel]:
    """Turn the filters to k-major, then spread the live elements, sample by sample."""
    problem = _Pooled.of(request)
    spec = problem.product
    g, positions, weights = request.operands
    filters = request.temporary("filters", spec.outputs * spec.filter_size)
    turn = request.add_transposed(Parts(weights), spec.filter_size, spec.outputs, filters)
    operands = (g, positions, filters)
    return [turn, by_sample(request, _InputGradient(problem), operands, problem.dense.samples)]


def kernel_gradient(request: Request) -> Sequence[Kernel]:
    """Sum the samples of each group apart, k-major, then add the groups in order."""
    problem = _Pooled.of(request)
    spec = problem.product
    size = spec.outputs * spec.filter_size
    kernel, sums = sum_groups(request, lambda groups: _KernelGradient(problem, groups), problem.dense.samples, size)
    return [kernel, request.add_transposed(sums, spec.outputs, spec.filter_size)]


@dataclass(frozen=True)
class _Pooled:
    """A convolution whose output is max-pooled.

    Attributes:
        dense: the convolution.
        pooled: (height, width) of the pooled map.
        window: of the pool, (vertical, horizontal).
    """

    dense: Problem
    pooled: Pair
    window: Pair

    @staticmethod
    def of(request: Request) -> _Pooled:
        """The problem that is asked about."""
        placing = request.placing
        assert placing is not None
        _, height, width, _ = placing.inputs[0].shape
        assert isinstance(height, int)
        assert isinstance(width, int)
        return _Pooled(Problem.of(request), (height, width), _window(placing))

    @property
    def product(self) -> SparseGradient:
        """The gradient of one sample."""
        dense = self.dense
        (top, bottom), (left, right) = dense.pads
        rows, columns = top + dense.image[0] + bottom, left + dense.image[1] + right
        return SparseGradient(
            dense.type, dense.channels, dense.outputs, dense.taps, self.pooled, self.window, rows, columns
        )

    @property
    def elements(self) -> int:
        """Elements of the pooled gradient of one sample."""
        return self.product.pixels * self.dense.outputs


@dataclass(frozen=True)
class _InputGradient:
    problem: _Pooled

    @property
    def scratch_bytes(self) -> int:
        """Lists of live elements, and the framed result."""
        spec = self.problem.product
        lists = rounded(spec.lists_size() * spec.type.bytes) + rounded(spec.lists_size() * I32.bytes)
        return lists + rounded(spec.counts_size() * I64.bytes) + staged_bytes(self.problem.dense.framed)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Spread the elements of a range of samples."""
        problem, dense, spec = self.problem, self.problem.dense, self.problem.product
        g, positions, filters = (buffers[s] for s in kernel.reads)
        x = buffers[kernel.writes[0]]
        scratch = Scratch()
        values = scratch.take(f, spec.type, spec.lists_size(), "values")
        numbers = scratch.take(f, I32, spec.lists_size(), "numbers")
        counts = scratch.take(f, I64, spec.counts_size(), "counts")
        framed = dense.framed
        frame = scratch.take(f, spec.type, spec.x_size, "frame") if any(framed.frame) else None
        name, crop = f"{kernel.name}.sparse", f"{kernel.name}.crop"
        emit_sparse_input_gradient(context.module, name, spec)
        if frame is not None:
            out_of_frame = MapCopy(
                spec.type, *dense.image, dense.channels, framed.target_strides, framed.source_strides
            )
            emit_map_copy(context.module, crop, out_of_frame)

        def sample(n: Value, _: list[Value]) -> None:
            first = f.mul(n, problem.elements)
            target = f.at(x, f.mul(n, dense.x_size), dense.x_size)
            elements, places = f.at(g, first, problem.elements), f.at(positions, first, problem.elements)
            call(f, name, elements, places, filters, target if frame is None else frame, values, numbers, counts)
            if frame is not None:
                corner = framed.frame[0] * framed.target_strides[0] + framed.frame[2] * framed.target_strides[1]
                call(f, crop, f.at(frame, corner), target)

        low, high = RANGE
        last = f.min(f.mul(high, kernel.chunk), size_value(f, dense.samples, batch))
        f.loop(f.mul(low, kernel.chunk), last, sample)


@dataclass(frozen=True)
class _KernelGradient:
    problem: _Pooled
    groups: SampleGroups

    @property
    def scratch_bytes(self) -> int:
        """A list of live elements, and the framed map."""
        spec = self.problem.product
        lists = rounded(spec.pixels * spec.type.bytes) + rounded(spec.pixels * I32.bytes)
        return lists + staged_bytes(self.problem.dense.framed)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Sum over the samples of each group of the range."""
        problem, dense, spec = self.problem, self.problem.dense, self.problem.product
        x, g, positions = (buffers[s] for s in kernel.reads)
        scratch = Scratch()
        values = scratch.take(f, spec.type, spec.pixels, "values")
        numbers = scratch.take(f, I32, spec.pixels, "numbers")
        frame = Staged(f, scratch, f"{kernel.name}.frame", dense.framed, "frame")
        name = f"{kernel.name}.sparse"
        emit_sparse_weight_gradient(context.module, name, spec)
        frame.emit(context.module)

        def add(n: Value, total: Buffer) -> None:
            image = frame.of(f, f.at(x, f.mul(n, dense.x_size), dense.x_size))
            first = f.mul(n, problem.elements)
            elements, places = f.at(g, first, problem.elements), f.at(positions, first, problem.elements)
            call(f, name, image, elements, places, total, values, numbers)

        self.groups.each_sample(f, buffers[kernel.writes[0]], batch, add)
