"""Contractions for the planner: which problems the product generators take, and their kernels.

A contraction becomes a few kernels with memory of their own between them: weights are packed into panels, the product
runs over samples (or panels, or rows), and partial weight gradients are added in a fixed order.  How work is cut
depends on the planned batch only, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native import convolution, matrices
from chainrule.engines.native.convolution import sparse
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.kernels import Context, Part
from chainrule.engines.native.products.tile import panel_width
from chainrule.engines.native.request import Request
from chainrule.engines.native.types import type_of
from chainrule.graph.lowering import Contraction
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.maker import KernelMaker
from chainrule.plan.placed import PlacedContraction, placing_node
from chainrule.plan.plan import Kernel, Product

__all__ = ["Generator"]


@dataclass(frozen=True)
class _Family:
    """Generators for one kind of contraction.

    Attributes:
        takes: whether they have the problem of a node, given its form.
        kernels: the kernels of a contraction, in order.
    """

    takes: Callable[[Node, Mapping[str, Any]], bool]
    kernels: Callable[[Request], Sequence[Kernel]]


@dataclass(frozen=True)
class _PlacedFamily:
    """Generators for one kind of contraction behind a max-pool.

    Attributes:
        gradient: the operand that they read as elements and positions.
        kernels: the kernels of a contraction, in order.
    """

    gradient: int
    kernels: Callable[[Request], Sequence[Kernel]]


_DENSE = {
    "convolution": _Family(convolution.takes, convolution.forward),
    "convolution_input_gradient": _Family(convolution.takes_input_gradient, convolution.input_gradient),
    "convolution_kernel_gradient": _Family(convolution.takes, convolution.kernel_gradient),
    "matrix_product": _Family(matrices.takes, matrices.product),
}

_SPARSE = {
    "convolution_input_gradient": _PlacedFamily(0, sparse.input_gradient),
    "convolution_kernel_gradient": _PlacedFamily(1, sparse.kernel_gradient),
}


class Generator:
    """The written kernels of the native engine.

    Args:
        lanes32: how many float32 a vector holds.
    """

    def __init__(self, lanes32: int) -> None:
        self.lanes = lanes32
        self._module = Module(lanes32)

    def supports(self, node: Node, contraction: Contraction) -> bool:
        """Whether there is a generator for this contraction."""
        form, family = _form(node, contraction), _DENSE.get(contraction.generator)
        return form is not None and family is not None and family.takes(node, form)

    def takes_placed(self, node: Node, contraction: Contraction, placing: Node, position: int) -> bool:
        """Whether there is a generator that reads an operand as the elements and positions of a placement."""
        form, family = _form(node, contraction), _SPARSE.get(contraction.generator)
        if form is None or family is None or position != family.gradient:
            return False
        return sparse.takes(node, form, placing, position, self._module.lanes(type_of(placing.specs[0].dtype)))

    def products(
        self, node: Node, contraction: Contraction, operands: tuple[Storage, ...], result: Storage, maker: KernelMaker
    ) -> Sequence[Kernel]:
        """What a contraction becomes."""
        form = _form(node, contraction)
        assert form is not None
        panel = panel_width(self._module, type_of(result.dtype))
        name, placing = contraction.generator, None
        if isinstance(contraction, PlacedContraction):
            placing = placing_node(node.inputs[contraction.position])
        kernels = _DENSE[name].kernels if placing is None else _SPARSE[name].kernels
        return kernels(Request(node, form, operands, result, maker, panel, placing))

    def scratch_bytes(self, kernel: Kernel) -> int:
        """Private memory that a kernel needs for each thread."""
        return _part(kernel).scratch_bytes if isinstance(kernel.body, Product) else 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Emit a kernel that `products` made."""
        _part(kernel).emit(context, f, kernel, buffers, batch)


def _form(node: Node, contraction: Contraction) -> Mapping[str, Any] | None:
    return contraction.form([item.spec for item in node.inputs], node.specs, node.attrs)


def _part(kernel: Kernel) -> Part:
    assert isinstance(kernel.body, Product)
    assert isinstance(kernel.body.part, Part)
    return kernel.body.part
