"""Convolutions as kernels: forward, input gradient, weight gradient, each sample by sample.

What a product cannot take as it lies is copied to the thread's private memory first: maps into a frame of zeros
(padding), gradients with channels that do not fill their panels.  An epilogue, the ops that follow a convolution, runs
on blocks of rows while they are still in the first cache.
"""

from chainrule.engines.native.convolution.forward import forward
from chainrule.engines.native.convolution.input_gradient import input_gradient, takes_input_gradient
from chainrule.engines.native.convolution.kernel_gradient import kernel_gradient
from chainrule.engines.native.convolution.problem import takes

__all__ = ["forward", "input_gradient", "kernel_gradient", "takes", "takes_input_gradient"]
