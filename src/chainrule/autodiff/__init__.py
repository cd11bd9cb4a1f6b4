"""Reverse-mode differentiation."""

from chainrule.autodiff.backward import backward, gradients
from chainrule.autodiff.functional import grad, value_and_grad, vjp

__all__ = ["backward", "grad", "gradients", "value_and_grad", "vjp"]
