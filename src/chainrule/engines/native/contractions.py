"""Contractions for the planner: which problems the product generators take, and their kernels.

A contraction becomes a few kernels with memory of their own between them: weights are packed into panels, the product
runs over samples (or panels, or rows), and partial weight gradients are added in a fixed order.  How work is cut
depends on the planned batch only, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chainrule.engines.native import convolutions, matrices, sparse
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.kernels import Context, Part
from chainrule.engines.native.types import type_of
from chainrule.graph.lowering import Contraction
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.lower import Names
from chainrule.plan.placed import PlacedContraction, placing_node
from chainrule.plan.plan import Kernel, Product

__all__ = ["Generator"]

_FAMILIES = {
    "convolution": convolutions.forward,
    "convolution_input_gradient": convolutions.input_gradient,
    "convolution_kernel_gradient": convolutions.kernel_gradient,
    "matrix_product": matrices.product,
}

_SPARSE = {
    "convolution_input_gradient": sparse.input_gradient,
    "convolution_kernel_gradient": sparse.kernel_gradient,
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
        form = contraction.form([item.spec for item in node.inputs], node.specs, node.attrs)
        if form is None or contraction.generator not in _FAMILIES:
            return False
        if contraction.generator == "matrix_product":
            return matrices.takes(node, form)
        return convolutions.takes(contraction.generator, form)

    def takes_placed(self, node: Node, contraction: Contraction, placing: Node, position: int) -> bool:
        """Whether there is a generator that reads an operand as the elements and positions of a placement."""
        form = contraction.form([item.spec for item in node.inputs], node.specs, node.attrs)
        if form is None or contraction.generator not in _SPARSE:
            return False
        assert placing.op.placement is not None
        window = placing.op.placement.window(placing.attrs)
        return window is not None and sparse.takes(node, form, placing, window, position, self._module)

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
        form = contraction.form([item.spec for item in node.inputs], node.specs, node.attrs)
        assert form is not None
        if isinstance(contraction, PlacedContraction):
            placing = placing_node(node.inputs[contraction.position])
            assert placing is not None
            return _SPARSE[contraction.generator](node, form, placing, operands, result, batch, names)
        panel = 2 * self._module.lanes(type_of(result.dtype))
        return _FAMILIES[contraction.generator](node, form, operands, result, batch, names, panel)

    def scratch_bytes(self, kernel: Kernel) -> int:
        """Private memory that a kernel needs for each thread."""
        return _part(kernel).scratch_bytes if isinstance(kernel.body, Product) else 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Emit a kernel that `products` made."""
        _part(kernel).emit(context, f, kernel, buffers, batch)


def _part(kernel: Kernel) -> Part:
    assert isinstance(kernel.body, Product)
    assert isinstance(kernel.body.part, Part)
    return kernel.body.part
