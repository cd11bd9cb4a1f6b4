"""Counter-based random numbers: Philox 4x32-10 keyed by what is drawn, never by the order of drawing.

Element ``(row, column...)`` of a drawn tensor depends only on the seed, the time (a step or an epoch), the
row's global number and the stream, which names the layer and the occurrence.  So a batch split over threads,
micro-batches or hosts draws the same numbers, and so does a run that was interrupted.

One Philox block gives four 32-bit words; the counter of block b of row r is ``(b, r, time, stream)`` and the
key is the seed.  Source: Salmon, Moraes, Dror and Shaw, SC 2011.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph.cases import case
from chainrule.graph.dims import Shape, Size, format_shape
from chainrule.graph.lowering import Indexed, Lowering, Sorting
from chainrule.graph.op import Array, Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Tensor, apply, as_tensor

__all__ = [
    "philox",
    "random_bernoulli",
    "random_bits",
    "random_normal",
    "random_permutation",
    "random_uniform",
]

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Philox 4x32-10: four uint32 words for each counter.

    >>> zero = np.zeros(1, np.uint32)
    >>> [f"{int(word[0]):08x}" for word in philox((zero, zero, zero, zero), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    words = [np.asarray(word, np.uint64) for word in counter]
    k0, k1 = key
    low32, shift = np.uint64(_MASK), np.uint64(32)
    for _ in range(_ROUNDS):
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (second >> shift) ^ words[1] ^ np.uint64(k0),
            second & low32,
            (first >> shift) ^ words[3] ^ np.uint64(k1),
            first & low32,
        ]
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return tuple(word.astype(np.uint32) for word in words)


def random_bits(seed: Any, time: Any, first_row: Any, *, shape: Shape, stream: int) -> Tensor:
    """Uniform 32-bit integers (uint32).  Gradient: zero.

    Args:
        seed: two uint32 words, low and high.
        time: uint32 scalar: the step or the epoch.
        first_row: uint32 scalar: the global number of row 0, such as a sample's position; or a vector of the global
            number of every row.
        shape: shape of the result; rows run along axis 0.
        stream: 32-bit name of the draw, distinct for each draw in a graph.

    >>> import chainrule as cr
    >>> cr.ops.random_bits(*cr.random.words(0), shape=(1, 2), stream=0).numpy().tolist()
    [[1713891541, 3781805453]]
    """
    return _draw(RANDOM_BITS, seed, time, first_row, shape=shape, stream=stream)


def random_uniform(
    seed: Any, time: Any, first_row: Any, *, shape: Shape, stream: int, dtype: str = "float32"
) -> Tensor:
    """Uniform numbers in [0, 1): multiples of 2**-24 (float32) or 2**-53 (float64).  Gradient: zero.

    Args: as `random_bits`.

    >>> import chainrule as cr
    >>> cr.ops.random_uniform(*cr.random.words(0), shape=(1, 1), stream=0).item()
    0.3990464210510254
    """
    return _draw(RANDOM_UNIFORM, seed, time, first_row, shape=shape, stream=stream, dtype=dtype)


def random_normal(seed: Any, time: Any, first_row: Any, *, shape: Shape, stream: int, dtype: str = "float32") -> Tensor:
    """Standard normal numbers by Box and Muller's transform.  Gradient: zero.

    ``z0 = sqrt(-2 log u) cos(2 pi v)`` and ``z1 = sqrt(-2 log u) sin(2 pi v)`` for each pair of uniforms.
    Logarithm, sine and cosine are fixed series of IEEE double operations (`_log`, `_turn`), each rounded on
    its own, so that any engine can repeat the bits; float32 results are rounded once at the end.

    Args: as `random_bits`.

    Source: Box and Muller, Annals of Mathematical Statistics 1958.

    >>> import chainrule as cr
    >>> cr.ops.random_normal(*cr.random.words(0), shape=(1, 1), stream=0).shape
    (1, 1)
    """
    return _draw(RANDOM_NORMAL, seed, time, first_row, shape=shape, stream=stream, dtype=dtype)


def random_bernoulli(seed: Any, time: Any, first_row: Any, *, shape: Shape, stream: int, probability: float) -> Tensor:
    """True with a probability: where a float32 uniform number lies below it.  Gradient: zero.

    Args: as `random_bits`.

    >>> import chainrule as cr
    >>> cr.ops.random_bernoulli(*cr.random.words(0), shape=(1, 1), stream=0, probability=0.5).item()
    True
    """
    return _draw(RANDOM_BERNOULLI, seed, time, first_row, shape=shape, stream=stream, probability=float(probability))


def random_permutation(seed: Any, time: Any, first_row: Any, *, size: Size, stream: int) -> Tensor:
    """A random order of 0..size-1 (int32): the stable sorting order of 64 random bits for each.

    Gradient: zero.  Args: as `random_bits`.

    >>> import chainrule as cr
    >>> sorted(cr.ops.random_permutation(*cr.random.words(0), size=4, stream=0).numpy().tolist())
    [0, 1, 2, 3]
    """
    return _draw(RANDOM_PERMUTATION, seed, time, first_row, size=size, stream=stream)


def _draw(op: Op, seed: Any, time: Any, first_row: Any, **attrs: Any) -> Tensor:
    return apply(op, as_tensor(seed), as_tensor(time), as_tensor(first_row), **attrs)


def _check_key(seed: Spec, time: Spec, first_row: Spec, stream: int) -> None:
    for name, spec, shape in (("seed", seed, (2,)), ("time", time, ())):
        if spec.shape != shape or spec.dtype != np.dtype("uint32"):
            raise DTypeError(f"{name} must be uint32{format_shape(shape)}, got {spec}")
    if first_row.rank > 1 or first_row.dtype != np.dtype("uint32"):
        raise DTypeError(f"first_row must be a uint32 number, or one for each row, got {first_row}")
    if not 0 <= stream <= _MASK:
        raise ShapeError(f"stream must be a 32-bit number, got {stream}")


def _check_rows(first_row: Spec, shape: Shape) -> None:
    if first_row.rank and first_row.shape != tuple(shape)[:1]:
        raise ShapeError(f"first_row numbers {format_shape(first_row.shape)} rows of {format_shape(tuple(shape))}")


def _bits_spec(seed: Spec, time: Spec, first_row: Spec, *, shape: Shape, stream: int) -> Spec:
    _check_key(seed, time, first_row, stream)
    _check_rows(first_row, shape)
    return Spec(tuple(shape), np.dtype("uint32"))


def _float_spec(seed: Spec, time: Spec, first_row: Spec, *, shape: Shape, stream: int, dtype: str) -> Spec:
    _check_key(seed, time, first_row, stream)
    _check_rows(first_row, shape)
    if dtype not in ("float32", "float64"):
        raise DTypeError(f"random numbers are float32 or float64, not {dtype}")
    return Spec(tuple(shape), np.dtype(dtype))


def _bernoulli_spec(seed: Spec, time: Spec, first_row: Spec, *, shape: Shape, stream: int, probability: float) -> Spec:
    _check_key(seed, time, first_row, stream)
    _check_rows(first_row, shape)
    if not 0 <= probability <= 1:
        raise ShapeError(f"a probability lies between 0 and 1, got {probability}")
    return Spec(tuple(shape), np.dtype(bool))


def _permutation_spec(seed: Spec, time: Spec, first_row: Spec, *, size: Size, stream: int) -> Spec:
    _check_key(seed, time, first_row, stream)
    _check_rows(first_row, (size,))
    return Spec((size,), np.dtype("int32"))


def _words(seed: Array, time: Array, first_row: Array, shape: tuple[int, ...], stream: int, per_element: int) -> Array:
    """Random words of shape ``(rows, elements per row * per_element)``."""
    rows = shape[0] if shape else 1
    wanted = math.prod(shape[1:]) * per_element
    blocks = -(-wanted // 4)
    if first_row.ndim:
        row = first_row.astype(np.uint64)[:, None]
    else:
        row = ((np.arange(rows, dtype=np.uint64) + np.uint64(first_row)) & np.uint64(_MASK))[:, None]
    block = np.arange(blocks, dtype=np.uint64)[None, :]
    constant = np.zeros((1, 1), np.uint64)
    counter = (block, row, constant + np.uint64(time), constant + np.uint64(stream))
    words = philox(counter, (int(seed[0]), int(seed[1])))
    return np.stack(words, axis=-1).reshape(rows, blocks * 4)[:, :wanted]


def _bits_reference(seed: Array, time: Array, first_row: Array, *, shape: tuple[int, ...], stream: int) -> Array:
    return _words(seed, time, first_row, shape, stream, 1).reshape(shape)


def _fraction53(high: Array, low: Array) -> Array:
    """A multiple of 2**-53 in [0, 1) from two words."""
    value = (high >> np.uint32(5)) * 67108864.0 + (low >> np.uint32(6))
    return value * 2.0**-53


def _uniform_reference(
    seed: Array, time: Array, first_row: Array, *, shape: tuple[int, ...], stream: int, dtype: str
) -> Array:
    if dtype == "float32":
        words = _words(seed, time, first_row, shape, stream, 1)
        return ((words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)
    words = _words(seed, time, first_row, shape, stream, 2)
    return _fraction53(words[:, 0::2], words[:, 1::2]).reshape(shape)


def _log(x: Array) -> Array:
    """Natural logarithm of positive doubles: ``x = m * 2**e``, ``s = (m-1)/(m+1)``, ``2 (s + s**3/3 + ...)``."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa, exponent = np.where(low, mantissa * 2.0, mantissa), exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.full_like(s, 1.0 / 23.0)
    for odd in range(21, 0, -2):
        series = series * square + 1.0 / odd
    return exponent * math.log(2.0) + (s * 2.0) * series


def _turn(fraction: Array) -> tuple[Array, Array]:
    """Cosine and sine of ``2 pi fraction`` for fractions in [0, 1), by eighths of a turn and Taylor series."""
    quarter = np.floor(fraction * 4.0 + 0.5)
    angle = (fraction - quarter * 0.25) * (2.0 * math.pi)
    cosine, sine = _cosine_sine(angle, np.full_like(angle, 1.0))
    number = quarter.astype(np.int64) % 4
    swapped = (number == 1) | (number == 3)
    x, y = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    return np.where((number == 1) | (number == 2), -x, x), np.where(number >= 2, -y, y)


def _cosine_sine(angle: Any, one: Any) -> tuple[Any, Any]:
    """Cosine and sine of an angle up to an eighth of a turn by Taylor series, of arrays and of elements alike."""
    square = angle * angle
    cosine, sine = one * (-1.0 / math.factorial(18)), one * (1.0 / math.factorial(17))
    for n in range(16, -2, -2):
        sign = 1.0 if n % 4 == 0 else -1.0
        cosine = cosine * square + sign / math.factorial(n)
        if n > 0:
            sine = sine * square - sign / math.factorial(n - 1)
    return cosine, sine * angle


def _normal_reference(
    seed: Array, time: Array, first_row: Array, *, shape: tuple[int, ...], stream: int, dtype: str
) -> Array:
    wanted = math.prod(shape[1:])
    even = wanted + wanted % 2
    rows = (shape[0] if shape else 1, even)
    if dtype == "float32":
        words = _words(seed, time, first_row, rows, stream, 1).astype(np.float64)
        u, v = (words[:, 0::2] + 1.0) * 2.0**-32, words[:, 1::2] * 2.0**-32
    else:
        words = _words(seed, time, first_row, rows, stream, 2)
        u = _fraction53(words[:, 0::4], words[:, 1::4]) + 2.0**-53
        v = _fraction53(words[:, 2::4], words[:, 3::4])
    radius = np.sqrt(-2.0 * _log(u))
    cosine, sine = _turn(v)
    pairs = np.stack([radius * cosine, radius * sine], axis=-1).reshape(rows)
    return pairs[:, :wanted].reshape(shape).astype(dtype)


def _bernoulli_reference(
    seed: Array, time: Array, first_row: Array, *, shape: tuple[int, ...], stream: int, probability: float
) -> Array:
    uniform = _uniform_reference(seed, time, first_row, shape=shape, stream=stream, dtype="float32")
    return uniform < np.float32(probability)


def _permutation_reference(seed: Array, time: Array, first_row: Array, *, size: int, stream: int) -> Array:
    words = _words(seed, time, first_row, (size, 2), stream, 1).astype(np.uint64)
    keys = (words[:, 0] << np.uint64(32)) | words[:, 1]
    order = np.argsort(keys)
    if (keys[order[1:]] == keys[order[:-1]]).any():  # stable sorting takes twice the time, and equal keys are rare
        order = np.argsort(keys, kind="stable")
    return order.astype(np.int32)


def _block(k: Any, block: Any, row: Any, seed: Any, time: Any, first_row: Any, *, stream: int) -> tuple[Any, ...]:
    """The four words of a Philox block, as uint64 below 2**32."""

    def wide(value: Any) -> Any:
        return k.cast(value, "uint64")

    words = (
        wide(block),
        wide(first_row[row]) if first_row.shape else (wide(row) + wide(first_row[()])) & _MASK,
        wide(time[()]),
        k.constant(stream, "uint64"),
    )
    k0, k1 = wide(seed[0]), wide(seed[1])
    for _ in range(_ROUNDS):
        first, second = words[0] * int(_MULTIPLIERS[0]), words[2] * int(_MULTIPLIERS[1])
        words = (
            (second >> 32) ^ words[1] ^ k0,
            second & _MASK,
            (first >> 32) ^ words[3] ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return words


def _row_column(k: Any, point: Any, shape: Shape) -> tuple[Any, Any]:
    """The row of an element and its number within the row."""
    column = k.constant(0, "int64")
    for place, size in zip(point.coordinates[1:], shape[1:], strict=True):
        column = column * k.size(size) + place
    return (point[0] if shape else k.constant(0, "int64")), column


def _chosen(k: Any, number: Any, words: Any) -> Any:
    """``words[number]`` for a number that is not known yet."""
    value = words[-1]
    for place, word in reversed(list(enumerate(words[:-1]))):
        value = k.select(number.equals(place), word, value)
    return value


def _word(k: Any, row: Any, column: Any, *key: Any, stream: int) -> Any:
    """Word `column` of a row of words, as uint64."""
    return _chosen(k, k.modulo(column, 4), _block(k, k.floor_divide(column, 4), row, *key, stream=stream))


def _bits_element(k: Any, point: Any, *key: Any, shape: Shape, stream: int) -> Any:
    return k.cast(_word(k, *_row_column(k, point, shape), *key, stream=stream), "uint32")


def _double(k: Any, word: Any) -> Any:
    """A 32-bit word as float64."""
    return k.cast(k.cast(word, "uint32"), "float64")


def _fraction53_element(k: Any, high: Any, low: Any) -> Any:
    return (_double(k, high >> 5) * 67108864.0 + _double(k, low >> 6)) * 2.0**-53


def _uniform_element(k: Any, point: Any, *key: Any, shape: Shape, stream: int, dtype: str) -> Any:
    row, column = _row_column(k, point, shape)
    if dtype == "float32":
        word = _word(k, row, column, *key, stream=stream) >> 8
        return k.cast(k.cast(word, "uint32"), "float32") * 2.0**-24
    words = _block(k, k.floor_divide(column, 2), row, *key, stream=stream)
    second = k.modulo(column, 2).differs(0)
    high, low = k.select(second, words[2], words[0]), k.select(second, words[3], words[1])
    return _fraction53_element(k, high, low)


def _bernoulli_element(k: Any, point: Any, *key: Any, shape: Shape, stream: int, probability: float) -> Any:
    return _uniform_element(k, point, *key, shape=shape, stream=stream, dtype="float32") < probability


def _log_element(k: Any, x: Any) -> Any:
    """`_log` in the same operations; the double's own bits hold its mantissa and exponent."""
    bits = k.bits(x, "uint64")
    mantissa = k.bits((bits & (2**52 - 1)) | (1022 << 52), "float64")
    exponent = k.cast(bits >> 52, "int32") - 1022
    low = mantissa < math.sqrt(0.5)
    mantissa, exponent = k.select(low, mantissa * 2.0, mantissa), k.select(low, exponent - 1, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = k.constant(1.0 / 23.0, "float64")
    for odd in range(21, 0, -2):
        series = series * square + 1.0 / odd
    return k.cast(exponent, "float64") * math.log(2.0) + (s * 2.0) * series


def _turn_element(k: Any, fraction: Any) -> tuple[Any, Any]:
    """`_turn` in the same operations."""
    quarter = k.call("floor", fraction * 4.0 + 0.5)
    angle = (fraction - quarter * 0.25) * (2.0 * math.pi)
    cosine, sine = _cosine_sine(angle, k.constant(1.0, "float64"))
    number = k.cast(quarter, "int32") & 3
    first, second, third = (number.equals(n) for n in (1, 2, 3))
    swapped = first | third
    x, y = k.select(swapped, sine, cosine), k.select(swapped, cosine, sine)
    return k.select(first | second, -x, x), k.select(second | third, -y, y)


def _normal_element(k: Any, point: Any, *key: Any, shape: Shape, stream: int, dtype: str) -> Any:
    """Neighbours in a row share a pair of uniforms: one takes the cosine, the other the sine."""
    row, column = _row_column(k, point, shape)
    pair, odd = k.floor_divide(column, 2), k.modulo(column, 2).differs(0)
    if dtype == "float32":
        words = _block(k, k.floor_divide(pair, 2), row, *key, stream=stream)
        second = k.modulo(pair, 2).differs(0)
        u, v = k.select(second, words[2], words[0]), k.select(second, words[3], words[1])
        u, v = (_double(k, u) + 1.0) * 2.0**-32, _double(k, v) * 2.0**-32
    else:
        words = _block(k, pair, row, *key, stream=stream)
        u, v = _fraction53_element(k, *words[:2]) + 2.0**-53, _fraction53_element(k, *words[2:])
    cosine, sine = _turn_element(k, v)
    return k.cast(k.sqrt(-2.0 * _log_element(k, u)) * k.select(odd, sine, cosine), dtype)


def _permutation_key(k: Any, number: Any, *key: Any, size: Size, stream: int) -> Any:
    words = _block(k, k.constant(0, "int64"), number, *key, stream=stream)
    return (words[0] << 32) | words[1]


_SEED = np.array([1, 2], np.uint32)
_TIME = np.array(3, np.uint32)
_ROW = np.array(4, np.uint32)
_ROWS = np.array([9, 0, 2**32 - 1], np.uint32)


def _has_rows(attr: dict[str, Any]) -> bool:
    """Whether a case draws as many rows as there are in `_ROWS`."""
    return bool(attr.get("shape", ())[:1] == (3,))


def _random(
    name: str, function: Any, spec: Any, reference: Any, lowering: Lowering, flops: int, *attrs: dict[str, Any]
) -> Op:
    return register(
        Op(
            name,
            function,
            spec,
            reference,
            "zero",
            per_element(flops),
            traits=frozenset({Trait.RANDOM, Trait.PER_SAMPLE}),
            cases=(
                *(case(_SEED, _TIME, _ROW, stream=5, **attr) for attr in attrs),
                *(
                    case(_SEED, _TIME, _ROWS, stream=5, name="rows by number", **attr)
                    for attr in attrs
                    if _has_rows(attr)
                ),
            ),
            lowering=(lowering,),
        )
    )


RANDOM_BITS = _random(
    "random_bits",
    random_bits,
    _bits_spec,
    _bits_reference,
    Indexed(_bits_element, cheap=False),
    0,
    {"shape": (3, 5)},
    {"shape": ()},
)
RANDOM_UNIFORM = _random(
    "random_uniform",
    random_uniform,
    _float_spec,
    _uniform_reference,
    Indexed(_uniform_element, cheap=False),
    2,
    {"shape": (3, 5), "dtype": "float32"},
    {"shape": (2, 3, 3), "dtype": "float64"},
)
RANDOM_NORMAL = _random(
    "random_normal",
    random_normal,
    _float_spec,
    _normal_reference,
    Indexed(_normal_element, cheap=False),
    60,
    {"shape": (3, 5), "dtype": "float32"},
    {"shape": (2, 3, 3), "dtype": "float64"},
)
RANDOM_BERNOULLI = _random(
    "random_bernoulli",
    random_bernoulli,
    _bernoulli_spec,
    _bernoulli_reference,
    Indexed(_bernoulli_element, cheap=False),
    2,
    {"shape": (3, 5), "probability": 0.25},
)
RANDOM_PERMUTATION = _random(
    "random_permutation",
    random_permutation,
    _permutation_spec,
    _permutation_reference,
    Sorting(_permutation_key),
    0,
    {"size": 7},
)
