"""Written generators for contractions: convolution, its weight gradient, matrix products, and packing for them.

Each generator is a frozen description (`ConvolutionRows`, ...) and an `emit_...(module, name, description)` that adds
one function to a module.  A product function does nothing but the product, one loop nest per function: padding comes
before it, bias, activation, pooling and stores to their final place come after, in functions of their own.  LLVM
otherwise hoists their constants over the product and spills inside it.

Channels are handled in whole panels of ``panel_width(module, type)`` (two vectors).  Operands are padded to that by
their producers, so that no product needs masks or channel tails.
"""

from chainrule.engines.native.products.convolution import (
    ConvolutionRows,
    ConvolutionWeights,
    emit_convolution_rows,
    emit_convolution_weights,
)
from chainrule.engines.native.products.matrix import MatrixProduct, emit_matrix_product
from chainrule.engines.native.products.packing import (
    InputGradientPanels,
    Panels,
    emit_pack_input_gradient,
    emit_pack_panels,
    emit_pack_panels_transposed,
)
from chainrule.engines.native.products.tile import RUN_TIME, Tile, default_tile, panel_width

__all__ = [
    "RUN_TIME",
    "ConvolutionRows",
    "ConvolutionWeights",
    "InputGradientPanels",
    "MatrixProduct",
    "Panels",
    "Tile",
    "default_tile",
    "emit_convolution_rows",
    "emit_convolution_weights",
    "emit_matrix_product",
    "emit_pack_input_gradient",
    "emit_pack_panels",
    "emit_pack_panels_transposed",
    "panel_width",
]
