"""How a batch is cut: units of samples where each has its own result, groups of samples where results are summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.kernels import RANGE, Part, each_unit
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.request import Parts, Request
from chainrule.graph.dims import Size
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Kernel

__all__ = ["SampleGroups", "by_sample", "each_sample", "sum_groups"]

UNITS = 32
"""A batch is cut into about so many units, if it has as many samples."""
GROUPS = 16
"""Weight gradients are summed in about so many groups of samples, which are then added in order."""
PARTIAL_BYTES = 1 << 25
"""Partial weight gradients of one layer take no more memory than this, if two groups fit at all."""


def by_sample(request: Request, part: Part, operands: tuple[Storage, ...], samples: Size) -> Kernel:
    """A kernel that computes the result sample by sample."""
    chunk = max(1, -(-request.maker.planned(samples) // UNITS))
    return request.product(part, operands, request.result, samples, chunk)


def each_sample(f: Function, kernel: Kernel, batch: Value, body: Callable[[Value], None]) -> None:
    """Run the body for every sample of the kernel's units."""
    low, high = RANGE
    first = f.mul(low, kernel.chunk)
    last = f.min(f.mul(high, kernel.chunk), size_value(f, kernel.extent, batch))
    f.loop(first, last, lambda n, _: body(n))


@dataclass(frozen=True)
class SampleGroups:
    """Samples whose contributions are summed group by group.

    Attributes:
        samples: batch axis.
        length: samples of one group.
        size: elements of one sum.
    """

    samples: Size
    length: int
    size: int

    def each_sample(self, f: Function, sums: Buffer, batch: Value, add: Callable[[Value, Buffer], None]) -> None:
        """For each group of the kernel's range: clear its sum, and ``add(n, sum)`` for each of its samples."""
        samples = size_value(f, self.samples, batch)
        lanes = f.module.lanes(sums.type)
        zero = f.constant(0.0, sums.type.of(lanes))

        def group(u: Value) -> None:
            total = f.at(sums, f.mul(u, self.size), self.size)
            f.loop(0, self.size, lambda i, _: f.store(zero, total, i), step=lanes)
            first = f.mul(u, self.length)
            f.loop(first, f.min(f.add(first, self.length), samples), lambda n, _: add(n, total))

        each_unit(f, group)


def sum_groups(
    request: Request, part: Callable[[SampleGroups], Part], samples: Size, size: int
) -> tuple[Kernel, Parts]:
    """A kernel that sums over the samples of each group apart, and these sums."""
    planned = max(1, request.maker.planned(samples))
    most = max(1, min(GROUPS, planned, PARTIAL_BYTES // (size * request.result.dtype.itemsize)))
    length = -(-planned // most)
    sums = request.parts("partial", -(-planned // length), size)
    groups = SampleGroups(samples, length, size)
    return request.product(part(groups), request.operands, sums.storage, sums.count), sums
