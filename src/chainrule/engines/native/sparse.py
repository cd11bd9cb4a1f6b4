"""Convolution gradients behind a max-pool as kernels; see `products.sparse` for how they work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.convolutions import GROUPS, PARTIAL_BYTES, UNITS
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.kernels import RANGE, Context, Scratch, call, each_unit, rounded
from chainrule.engines.native.maps import MapCopy, emit_map_copy
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.sparse import (
    SparseGradient,
    emit_sparse_input_gradient,
    emit_sparse_weight_gradient,
)
from chainrule.engines.native.types import I32, I64, type_of
from chainrule.graph.dims import Size, bind_size
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.lower import Names
from chainrule.plan.plan import Kernel, Product

__all__ = ["input_gradient", "kernel_gradient", "takes"]

FILTER_ROW_BYTES = 1 << 18
"""One row of taps of all filters must stay in the second cache."""
MOST_PLACES = 16
"""Larger windows have more places than lists are worth."""


def takes(
    node: Node, form: Mapping[str, Any], placing: Node, window: tuple[int, int], position: int, module: Module
) -> bool:
    """Whether the gradient of this convolution can be computed from the pool's elements."""
    gradient = node.inputs[position]
    if placing.specs[0].shape != gradient.shape or (position == 0) != (node.inputs[0] is gradient):
        return False
    if tuple(form["count"]) != tuple(gradient.shape[1:3]) or form["outputs"] != gradient.shape[3]:
        return False
    type = type_of(gradient.dtype)
    run = form["taps"][1] * form["channels"]
    return (
        form["groups"] == 1
        and tuple(form["stride"]) == tuple(form["dilation"]) == (1, 1)
        and run % module.lanes(type) == 0
        and form["outputs"] * run * type.bytes <= FILTER_ROW_BYTES
        and window[0] * window[1] <= MOST_PLACES
        and placing.inputs[1].dtype == "int32"
    )


@dataclass(frozen=True)
class _Problem:
    """The product's problem, and how samples lie.

    Attributes:
        spec: one sample.
        samples: batch axis.
        image: (H, W).
        pads: ((top, bottom), (left, right)).
    """

    spec: SparseGradient
    samples: Size
    image: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def elements(self) -> int:
        """Elements of the pooled gradient of one sample."""
        return self.spec.pixels * self.spec.outputs

    @property
    def x_size(self) -> int:
        """Elements of one input map."""
        return self.image[0] * self.image[1] * self.spec.channels

    @property
    def framed(self) -> bool:
        return any(map(any, self.pads))

    @property
    def frame(self) -> MapCopy:
        """The input map into its frame of zeros."""
        (top, bottom), (left, right) = self.pads
        c = self.spec.channels
        strides = (self.image[1] * c, c)
        return MapCopy(self.spec.type, *self.image, c, strides, (self.spec.columns * c, c), (top, bottom, left, right))

    @property
    def crop(self) -> MapCopy:
        """The input map out of its frame."""
        c = self.spec.channels
        return MapCopy(self.spec.type, *self.image, c, (self.spec.columns * c, c), (self.image[1] * c, c))


def _problem(node: Node, form: Mapping[str, Any], placing: Node) -> _Problem:
    assert placing.op.placement is not None
    window = placing.op.placement.window(placing.attrs)
    assert window is not None
    pooled = placing.inputs[0].shape
    (top, bottom), (left, right) = form["pads"]
    height, width = form["image"]
    assert isinstance(pooled[1], int)
    assert isinstance(pooled[2], int)
    spec = SparseGradient(
        type_of(node.specs[0].dtype),
        form["channels"],
        form["outputs"],
        tuple(form["taps"]),
        (pooled[1], pooled[2]),
        window,
        height + top + bottom,
        width + left + right,
    )
    return _Problem(spec, pooled[0], (height, width), form["pads"])


def input_gradient(
    node: Node,
    form: Mapping[str, Any],
    placing: Node,
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
) -> Sequence[Kernel]:
    """Turn the filters to k-major, then spread the live elements, sample by sample."""
    problem = _problem(node, form, placing)
    spec = problem.spec
    g, positions, weights = operands
    filters = Storage(names("filters"), result.dtype, spec.outputs * spec.filter_size)
    turn = names.transposed(weights, filters, spec.filter_size, spec.outputs, node)
    part = _InputGradient(problem, max(1, -(-bind_size(problem.samples, batch) // UNITS)))
    reads = (g, positions, filters)
    product = Product(part, reads, result)
    return [turn, Kernel(names(node.op.name), product, problem.samples, part.chunk, reads, (result,), node.where)]


@dataclass(frozen=True)
class _InputGradient:
    problem: _Problem
    chunk: int

    @property
    def scratch_bytes(self) -> int:
        """Lists of live elements, and the framed result."""
        spec = self.problem.spec
        lists = rounded(spec.lists_size() * spec.type.bytes) + rounded(spec.lists_size() * 4)
        frame = rounded(spec.x_size * spec.type.bytes) if self.problem.framed else 0
        return lists + rounded(spec.counts_size() * 8) + frame

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Spread the elements of a range of samples."""
        problem, spec, module = self.problem, self.problem.spec, context.module
        g, positions, filters = (buffers[s] for s in kernel.reads)
        x = buffers[kernel.writes[0]]
        scratch = Scratch()
        values = scratch.take(f, spec.type, spec.lists_size(), "values")
        numbers = scratch.take(f, I32, spec.lists_size(), "numbers")
        counts = scratch.take(f, I64, spec.counts_size(), "counts")
        frame = scratch.take(f, spec.type, spec.x_size, "frame") if problem.framed else None
        name = f"{kernel.name}.sparse"
        emit_sparse_input_gradient(module, name, spec)
        if frame is not None:
            emit_map_copy(module, f"{kernel.name}.crop", problem.crop)
        (top, _), (left, _) = problem.pads

        def sample(n: Value, _: list[Value]) -> None:
            first = f.mul(n, problem.elements)
            target = f.at(x, f.mul(n, problem.x_size), problem.x_size)
            elements, places = f.at(g, first, problem.elements), f.at(positions, first, problem.elements)
            call(f, name, elements, places, filters, target if frame is None else frame, values, numbers, counts)
            if frame is not None:
                corner = (top * spec.columns + left) * spec.channels
                call(f, f"{kernel.name}.crop", f.at(frame, corner), target)

        low, high = RANGE
        last = f.min(f.mul(high, self.chunk), size_value(f, problem.samples, batch))
        f.loop(f.mul(low, self.chunk), last, sample)


def kernel_gradient(
    node: Node,
    form: Mapping[str, Any],
    placing: Node,
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
) -> Sequence[Kernel]:
    """Sum the samples of each group apart, then add the groups in order."""
    problem = _problem(node, form, placing)
    spec = problem.spec
    size = spec.outputs * spec.filter_size
    samples = max(1, bind_size(problem.samples, batch))
    groups = max(1, min(GROUPS, samples, PARTIAL_BYTES // (size * spec.type.bytes)))
    chunk = -(-samples // groups)
    groups = -(-samples // chunk)
    partial = Storage(names("partial"), result.dtype, groups * size)
    product = Product(_KernelGradient(problem, chunk), operands, partial)
    kernel = Kernel(names(node.op.name), product, groups, 1, operands, (partial,), node.where)
    return [kernel, names.add_parts(partial, groups, size, result, spec.filter_size, spec.outputs, 0, node)]


@dataclass(frozen=True)
class _KernelGradient:
    problem: _Problem
    chunk: int

    @property
    def scratch_bytes(self) -> int:
        """A list of live elements, and the framed map."""
        spec = self.problem.spec
        frame = rounded(spec.x_size * spec.type.bytes) if self.problem.framed else 0
        return rounded(spec.pixels * spec.type.bytes) + rounded(spec.pixels * 4) + frame

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Sum over the samples of each group of the range."""
        problem, spec, module = self.problem, self.problem.spec, context.module
        assert isinstance(kernel.body, Product)
        x, g, positions = (buffers[s] for s in kernel.body.operands)
        partial = buffers[kernel.writes[0]]
        scratch = Scratch()
        values = scratch.take(f, spec.type, spec.pixels, "values")
        numbers = scratch.take(f, I32, spec.pixels, "numbers")
        frame = scratch.take(f, spec.type, spec.x_size, "frame") if problem.framed else None
        name = f"{kernel.name}.sparse"
        emit_sparse_weight_gradient(module, name, spec)
        if frame is not None:
            emit_map_copy(module, f"{kernel.name}.frame", problem.frame)
        size = spec.outputs * spec.filter_size
        samples = size_value(f, problem.samples, batch)
        lanes = module.lanes(spec.type)
        zero = f.constant(0.0, spec.type.of(lanes))

        def unit(u: Value) -> None:
            target = f.at(partial, f.mul(u, size), size)
            f.loop(0, size, lambda i, _: f.store(zero, target, i), step=lanes)
            first = f.mul(u, self.chunk)

            def sample(n: Value, _: list[Value]) -> None:
                image = f.at(x, f.mul(n, problem.x_size), problem.x_size)
                if frame is not None:
                    call(f, f"{kernel.name}.frame", image, frame)
                    image = frame
                start = f.mul(n, problem.elements)
                elements, places = f.at(g, start, problem.elements), f.at(positions, start, problem.elements)
                call(f, name, image, elements, places, target, values, numbers)

            f.loop(first, f.min(f.add(first, self.chunk), samples), sample)

        each_unit(f, unit)
