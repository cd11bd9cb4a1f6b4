"""Exponentials, logarithms, powers and their relatives as vector code, without a mathematics library.

A function is emitted once per module and type, as an internal function that is called where it is needed; the machine
code of a lane does not depend on how many lanes there are, so a scalar gets the same bits as an element of a vector.

Errors in units in the last place: the largest one found, with or without fused multiply-add, among at least 10**7
float32 and 4 * 10**4 float64 arguments.  The tests hold all of them to 2.

==============  ========  ========
function         float32   float64
==============  ========  ========
exp                 1.01      0.99
expm1               1.31      1.74
log                 0.87      0.78
log1p               0.88      0.77
tanh                1.31      1.28
erf                 1.33      1.33
power               0.51      1.12
sin, cos            0.51      0.77
floor                  0         0
==============  ========  ========

Infinities, signed zeros and NaN are treated as NumPy treats them.  Results and arguments below the smallest normal
number are right where the processor keeps them.  Where it takes them for zeros, so do the functions, except that those
which are their argument near 0 (expm1, log1p, sin) may hand such a number through.  Sine and cosine hold for every
angle; beyond 2**20 a lane takes a slow path of its own.
"""

from chainrule.engines.native.math.code import mul_add
from chainrule.engines.native.math.exponential import exp, expm1
from chainrule.engines.native.math.functions import FUNCTIONS
from chainrule.engines.native.math.logarithm import log, log1p
from chainrule.engines.native.math.outlined import Outlined
from chainrule.engines.native.math.powers import power
from chainrule.engines.native.math.rounding import floor
from chainrule.engines.native.math.saturating import erf, tanh
from chainrule.engines.native.math.trigonometric import cos, sin

__all__ = [
    "FUNCTIONS",
    "Outlined",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "log",
    "log1p",
    "mul_add",
    "power",
    "sin",
    "tanh",
]
