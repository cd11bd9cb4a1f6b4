"""Derives the polynomials of `chainrule.engines.native.math` and prints its tables, from the standard library alone.

Each polynomial is the one with the smallest largest error: Remez's exchange algorithm in decimal arithmetic on a fine
grid, its coefficients then rounded to the format that evaluates them::

    python tools/derive_polynomials.py            the tables, as they stand in math/tables.py
    python tools/derive_polynomials.py errors     what each polynomial leaves, as a power of two

The elementary functions below are good to about 50 digits; the tests take their references from here, too.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, getcontext, localcontext
from functools import cache
from typing import NamedTuple

DIGITS = 70
GRID_PER_EXTREMUM = 24

# From here on the hyperbolic tangent and the error function are 1, to so many digits.
_ONE_FROM = 100

Function = Callable[[Decimal], Decimal]

# --- Elementary functions --------------------------------------------------------------------------------


@cache
def pi(digits: int) -> Decimal:
    """Machin's formula."""
    with localcontext() as context:
        context.prec = digits + 10
        one: int = 10 ** (digits + 10)

        def arctangent_of_inverse(n: int) -> int:
            term = one // n
            total = term
            k = 1
            while term:
                term //= -(n * n)
                k += 2
                total += term // k
            return total

        whole = 4 * (4 * arctangent_of_inverse(5) - arctangent_of_inverse(239))
        return Decimal(whole).scaleb(-(digits + 10))


def expm1(x: Decimal) -> Decimal:
    """``e**x - 1``."""
    if abs(x) > Decimal("0.01"):
        return x.exp() - 1
    return _series(x, lambda n, term: term * x / (n + 1))


def log1p(x: Decimal) -> Decimal:
    """``log(1 + x)``."""
    if abs(x) > Decimal("0.01"):
        return (1 + x).ln()
    with localcontext() as context:
        # Short of enough digits for the sum 1 + x to hold x whole, the logarithm is x.
        context.prec = getcontext().prec + max(0, -x.adjusted())
        return +(1 + x).ln() if x and x.adjusted() > -400 else x


def sin(x: Decimal) -> Decimal:
    """Sine, of any number."""
    turn, r = _quarter(x)
    return (_sin, _cos, lambda v: -_sin(v), lambda v: -_cos(v))[turn](r)


def cos(x: Decimal) -> Decimal:
    """Cosine, of any number."""
    turn, r = _quarter(x)
    return (_cos, lambda v: -_sin(v), lambda v: -_cos(v), _sin)[turn](r)


def tanh(x: Decimal) -> Decimal:
    """Hyperbolic tangent."""
    if abs(x) > _ONE_FROM:
        return Decimal(1).copy_sign(x)
    doubled = expm1(2 * abs(x))
    return (doubled / (doubled + 2)).copy_sign(x)


def erf(x: Decimal) -> Decimal:
    """Error function."""
    if abs(x) > _ONE_FROM:
        return Decimal(1).copy_sign(x)
    total = _series(x, lambda n, term: term * 2 * x * x / (2 * n + 1))
    return 2 / pi(DIGITS + 20).sqrt() * (-x * x).exp() * total


def _series(first: Decimal, following: Callable[[int, Decimal], Decimal]) -> Decimal:
    """The sum of terms, the n-th of which follows from the one before it."""
    total, term, n = first, first, 1
    while term and term.adjusted() > total.adjusted() - getcontext().prec - 2:
        term = following(n, term)
        total += term
        n += 1
    return total


def _sin(x: Decimal) -> Decimal:
    return _series(x, lambda n, term: -term * x * x / (2 * n * (2 * n + 1)))


def _cos(x: Decimal) -> Decimal:
    return _series(Decimal(1), lambda n, term: -term * x * x / (2 * n * (2 * n - 1)))


def _quarter(x: Decimal) -> tuple[int, Decimal]:
    """Which quarter turn is nearest, modulo 4, and how far x is from it."""
    digits = DIGITS + max(0, 2 * x.adjusted()) + 20
    with localcontext() as context:
        context.prec = digits
        quarter = pi(digits) / 2
        turns = (x / quarter).to_integral_value()
        rest = x - turns * quarter
        turn = int(turns) % 4
    return turn, +rest


# --- The best polynomial ---------------------------------------------------------------------------------


class Fit(NamedTuple):
    """What a polynomial approximates.

    Attributes:
        name: its table in math/tables.py.
        form: in which formula it stands.
        bits: the format of its coefficients, 32 or 64.
        target: the function of the polynomial's own variable.
        weight: what an error of the polynomial is multiplied by to give the relative error of the result.
        low, high: the range of the variable.
        degree: of the polynomial.
    """

    name: str
    form: str
    bits: int
    target: Function
    weight: Function
    low: str | Decimal
    high: str | Decimal
    degree: int


def minimax(fit: Fit) -> tuple[list[Decimal], Decimal]:
    """The coefficients, from the constant up, and the largest weighted error."""
    low, high, count = Decimal(fit.low), Decimal(fit.high), fit.degree + 2
    size = count * GRID_PER_EXTREMUM
    # Chebyshev's points, neither of them an end of the range, where some targets are 0/0.
    half_turn = pi(DIGITS) / (2 * size)
    grid = [(low + high - (high - low) * cos((2 * i + 1) * half_turn)) / 2 for i in range(size)]
    targets, weights = [fit.target(x) for x in grid], [fit.weight(x) for x in grid]
    chosen = [(2 * i + 1) * size // (2 * count) for i in range(count)]
    while True:
        rows = [[*_powers(grid[i], fit.degree), (-1) ** n / weights[i]] for n, i in enumerate(chosen)]
        *coefficients, level = _solve(rows, [targets[i] for i in chosen])
        errors = [w * (t - evaluate(coefficients, x)) for x, t, w in zip(grid, targets, weights, strict=True)]
        following = _alternating(errors, count)
        largest = max(map(abs, errors))
        if following == chosen or largest < abs(level) * Decimal("1.0001"):
            return coefficients, largest
        chosen = following


def evaluate(coefficients: Sequence[Decimal], x: Decimal) -> Decimal:
    """A polynomial's value."""
    total = Decimal(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _powers(x: Decimal, degree: int) -> list[Decimal]:
    powers = [Decimal(1)]
    for _ in range(degree):
        powers.append(powers[-1] * x)
    return powers


def _alternating(errors: list[Decimal], count: int) -> list[int]:
    """The places of the largest errors whose signs alternate."""
    extrema: list[int] = []
    for i, error in enumerate(errors):
        if extrema and (errors[extrema[-1]] > 0) == (error > 0):
            if abs(error) > abs(errors[extrema[-1]]):
                extrema[-1] = i
        else:
            extrema.append(i)
    while len(extrema) > count:
        del extrema[0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1]
    return extrema


def _solve(rows: list[list[Decimal]], right: list[Decimal]) -> list[Decimal]:
    """Gauss's elimination with partial pivoting."""
    table = [[*row, value] for row, value in zip(rows, right, strict=True)]
    size = len(table)
    for i in range(size):
        pivot = max(range(i, size), key=lambda j: abs(table[j][i]))
        table[i], table[pivot] = table[pivot], table[i]
        for j in range(i + 1, size):
            factor = table[j][i] / table[i][i]
            table[j] = [a - factor * b for a, b in zip(table[j], table[i], strict=True)]
    solution = [Decimal(0)] * size
    for i in reversed(range(size)):
        rest = sum((table[i][j] * solution[j] for j in range(i + 1, size)), Decimal(0))
        solution[i] = (table[i][size] - rest) / table[i][i]
    return solution


# --- What math/tables.py needs ----------------------------------------------------------------------------


def _one(x: Decimal) -> Decimal:
    return Decimal(1)


def _exp(x: Decimal) -> Decimal:
    return (expm1(x) - x) / (x * x)


def _exp_weight(x: Decimal) -> Decimal:
    return x * x / x.exp()


def _log(x: Decimal) -> Decimal:
    return (log1p(x) - x + x * x / 2) / x**3


def _log_weight(x: Decimal) -> Decimal:
    return abs(x**3 / log1p(x))


def _atanh2(z: Decimal) -> Decimal:
    """``2 atanh(s)/s`` of ``z = s*s``."""
    s = z.sqrt()
    return ((1 + s) / (1 - s)).ln() / s


def _atanh(z: Decimal) -> Decimal:
    return (_atanh2(z) - 2) / z


def _atanh_weight(z: Decimal) -> Decimal:
    return z / _atanh2(z)


def _atanh_longer(z: Decimal) -> Decimal:
    return (_atanh2(z) - 2 - 2 * z / 3) / (z * z)


def _atanh_longer_weight(z: Decimal) -> Decimal:
    return z * z / _atanh2(z)


def _tanh(z: Decimal) -> Decimal:
    x = z.sqrt()
    return (tanh(x) / x - 1) / z


def _tanh_weight(z: Decimal) -> Decimal:
    x = z.sqrt()
    return z * x / tanh(x)


def _erf(z: Decimal) -> Decimal:
    x = z.sqrt()
    return erf(x) / x - 1


def _erf_weight(z: Decimal) -> Decimal:
    x = z.sqrt()
    return x / erf(x)


def _erfc(u: Decimal) -> Decimal:
    return -(1 - erf(1 + u)).ln()


def _erfc_weight(u: Decimal) -> Decimal:
    inner = erf(1 + u)
    return (1 - inner) / inner


def _sine(z: Decimal) -> Decimal:
    x = z.sqrt()
    return (_sin(x) / x - 1) / z


def _cosine(z: Decimal) -> Decimal:
    return (_cos(z.sqrt()) - 1 + z / 2) / (z * z)


# Half of log(2) and a little more: the nearest multiple of log(2) is found with rounding.
_HALF_LOG2 = "0.34659"
_LOG_LOW, _LOG_HIGH = "-0.29290", "0.41422"
# ((sqrt(2) - 1) / (sqrt(2) + 1))**2
_ATANH_HIGH = "0.029438"
_ATANH_LONGER = "log((1 + s)/(1 - s)) = 2*s + 2/3*s*z + s*z*z*p(z), z = s*s"
# (pi/4)**2, and a little more
_QUARTER_HIGH = "0.6169"
_TANH_HIGH = "0.390625"

FITS = (
    Fit("EXP", "exp(r) = 1 + r + r*r*p(r)", 32, _exp, _exp_weight, "-" + _HALF_LOG2, _HALF_LOG2, 4),
    Fit("EXP", "", 64, _exp, _exp_weight, "-" + _HALF_LOG2, _HALF_LOG2, 9),
    Fit("EXP_OF_POWER32", "the same, for float32 results", 64, _exp, _exp_weight, "-" + _HALF_LOG2, _HALF_LOG2, 5),
    Fit("LOG", "log(1 + t) = t - t*t/2 + t*t*t*p(t)", 32, _log, _log_weight, _LOG_LOW, _LOG_HIGH, 7),
    Fit("ATANH", "log((1 + s)/(1 - s)) = 2*s + s*z*p(z), z = s*s", 64, _atanh, _atanh_weight, "0", _ATANH_HIGH, 6),
    Fit("ATANH_OF_POWER32", "the same, for float32 results", 64, _atanh, _atanh_weight, "0", _ATANH_HIGH, 3),
    Fit("ATANH_OF_POWER64", _ATANH_LONGER, 64, _atanh_longer, _atanh_longer_weight, "0", _ATANH_HIGH, 6),
    Fit("TANH", "tanh(x) = x + x*z*p(z), z = x*x", 32, _tanh, _tanh_weight, "0", _TANH_HIGH, 4),
    Fit("TANH", "", 64, _tanh, _tanh_weight, "0", _TANH_HIGH, 10),
    Fit("ERF", "erf(x) = x + x*p(z), z = x*x", 32, _erf, _erf_weight, "0", "1", 6),
    Fit("ERF", "", 64, _erf, _erf_weight, "0", "1", 11),
    Fit("ERFC", "erf(1 + u) = 1 - exp(-p(u))", 32, _erfc, _erfc_weight, "0", "3", 6),
    Fit("ERFC", "", 64, _erfc, _erfc_weight, "0", "5", 17),
    Fit("SIN", "sin(r) = r + r*z*p(z), z = r*r", 64, _sine, lambda z: z, "0", _QUARTER_HIGH, 5),
    Fit("SIN_OF_FLOAT32", "the same, for float32 results", 64, _sine, lambda z: z, "0", _QUARTER_HIGH, 3),
    Fit("COS", "cos(r) = 1 - z/2 + z*z*p(z), z = r*r", 64, _cosine, lambda z: z * z, "0", _QUARTER_HIGH, 5),
    Fit("COS_OF_FLOAT32", "the same, for float32 results", 64, _cosine, lambda z: z * z, "0", _QUARTER_HIGH, 3),
)


def rounded(number: Decimal, bits: int) -> float:
    """The nearest number of a format."""
    if bits == 64:
        return float(number)
    nearest: float = struct.unpack("<f", struct.pack("<f", float(number)))[0]
    return nearest


def split(number: Decimal, widths: Sequence[int]) -> list[float]:
    """A number as a sum of parts with so many significant bits each."""
    parts: list[float] = []
    rest = number
    for width in widths:
        exponent = (rest.ln() / Decimal(2).ln()).to_integral_value("ROUND_FLOOR")
        unit = Decimal(2) ** (exponent - width + 1)
        # Only the last part is rounded: all of them are positive then.
        rounding = "ROUND_HALF_EVEN" if len(parts) + 1 == len(widths) else "ROUND_FLOOR"
        part = (rest / unit).to_integral_value(rounding) * unit
        parts.append(float(part))
        rest -= part
    return parts


def derive() -> dict[str, tuple[float, ...]]:
    """Every table of math/tables.py by its name; where there are two formats, by name and bits."""
    tables: dict[str, tuple[float, ...]] = {}
    names = [fit.name for fit in FITS]
    with localcontext() as context:
        context.prec = DIGITS
        for fit in FITS:
            key = f"{fit.name}[{fit.bits}]" if names.count(fit.name) > 1 else fit.name
            tables[key] = tuple(rounded(c, fit.bits) for c in minimax(fit)[0])
        log2, quarter = Decimal(2).ln(), pi(DIGITS) / 2
        # Times a whole number of 9 (11) bits, the first part is still exact.
        tables["LOG2[32]"] = tuple(split(log2, (15, 24)))
        tables["LOG2[64]"] = tuple(split(log2, (42, 53)))
        # Times a whole number of 20 bits, the first three parts are still exact.
        tables["QUARTER_TURN"] = tuple(split(quarter, (33, 33, 33, 53)))
        # Rounded, and what is left of it.
        for name, number in (("QUARTER_TURN_ROUNDED", quarter), ("TWO_THIRDS", Decimal(2) / 3)):
            tables[name] = (float(number), float(number - Decimal(float(number))))
    return tables


def two_over_pi(words: int) -> list[int]:
    """The bits of ``2/pi`` behind the point, 64 in each word."""
    digits = words * 20 + 40
    with localcontext() as context:
        context.prec = digits
        whole = int((2 / pi(digits)) * Decimal(2) ** (64 * words))
    return [whole >> 64 * (words - 1 - i) & (1 << 64) - 1 for i in range(words)]


def main() -> None:
    """Print the tables, or the errors."""
    if "errors" in sys.argv[1:]:
        with localcontext() as context:
            context.prec = DIGITS
            for fit in FITS:
                error = minimax(fit)[1]
                print(f"{fit.name:20} float{fit.bits} degree {fit.degree:2}  2**{error.ln() / Decimal(2).ln():.1f}")
        return
    for name, numbers in derive().items():
        print(f"{name} = {numbers}")
    print("TWO_OVER_PI =", tuple(f"0x{word:016X}" for word in two_over_pi(20)))


if __name__ == "__main__":
    main()
