"""All functions by name."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.engines.native.ir import Value
from chainrule.engines.native.math.exponential import exp, expm1
from chainrule.engines.native.math.logarithm import log, log1p
from chainrule.engines.native.math.powers import power
from chainrule.engines.native.math.rounding import floor
from chainrule.engines.native.math.saturating import erf, tanh
from chainrule.engines.native.math.trigonometric import cos, sin

__all__ = ["FUNCTIONS"]


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "cos": cos,
    "erf": erf,
    "exp": exp,
    "expm1": expm1,
    "floor": floor,
    "log": log,
    "log1p": log1p,
    "power": power,
    "sin": sin,
    "tanh": tanh,
}
"""Each function by its name: ``FUNCTIONS[name](f, *arguments)``."""
