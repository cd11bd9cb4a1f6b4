"""The op registry: one record per op, with every rule that the rest of the library reads.

The differentiator, the engines, the verifier, the tests and the documentation all work from these records
and name no op.  Adding an op is therefore one file with one [`register`][] call (see CONTRIBUTING.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import OpError
from chainrule.graph.cases import Case, Convention
from chainrule.graph.dims import Shape, Size, format_shape, size_of
from chainrule.graph.lowering import Lowering, Placement

if TYPE_CHECKING:
    from chainrule.graph.tensor import Tensor

__all__ = [
    "Array",
    "Op",
    "Spec",
    "Trait",
    "get_op",
    "is_own",
    "no_flops",
    "own_ops_end_here",
    "per_element",
    "register",
    "registered_ops",
]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype of a tensor.

    >>> Spec((2, 3), np.dtype("float32"))
    float32(2, 3)
    """

    shape: Shape
    dtype: np.dtype[Any]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        return size_of(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"

    def with_shape(self, shape: Sequence[Size]) -> Spec:
        return Spec(tuple(shape), self.dtype)

    def with_dtype(self, dtype: str) -> Spec:
        return Spec(self.shape, np.dtype(dtype))

    def __repr__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"


class Trait(Enum):
    """What a planner may assume about an op without knowing its name."""

    ELEMENTWISE = "each output element depends on the same element of every (broadcast) input"
    PER_SAMPLE = "sample n of the output depends on sample n of the inputs only"
    LINEAR = "linear in its first input for fixed others"
    CONTRACTION = "sums of products: convolution, matrix product, and their gradients"
    REDUCTION = "combines elements along axes"
    BATCH_REDUCING = "may combine elements of different samples"
    DATA_MOVEMENT = "copies elements, computes nothing"
    RANDOM = "draws counter-based random numbers"


VjpRule: TypeAlias = "Callable[..., Sequence[Tensor | None]]"
"""``vjp(node, *cotangents)``: the input cotangents, written with ops.  A cotangent is None where no gradient
flows; the rule returns None for inputs that have no gradient (integers, shapes)."""


def _default_bytes(inputs: Sequence[Spec], outputs: Sequence[Spec]) -> Size:
    total: Size = 0
    for spec in (*inputs, *outputs):
        total = total + spec.size * spec.dtype.itemsize
    return total


@dataclass(frozen=True, eq=False)
class Op:
    """Everything that is known about one op.

    Args:
        name: unique name, as graphs print it.
        function: the public callable, whose docstring holds the formula, the gradients and the conventions.
        infer: shape rule ``infer(*input_specs, **attrs)``, giving one `Spec` or a tuple of them.
        reference: NumPy rule ``reference(*arrays, **attrs)``: the definition that every engine is held against.
        vjp: the rule ``vjp(node, *cotangents)``; ``"zero"`` where the derivative is zero or does not exist by
            nature (comparisons, integer results, stop-gradient); None where nobody has written it, in which
            case asking for a gradient is an error.
        flops: ``flops(input_specs, output_specs, attrs)``: floating-point operations, a multiply-add being two.
        traits: what planners may assume.
        cases: inputs that the tests draw for every engine.
        conventions: exact gradients at kinks and ties, tested literally.
        lowering: how the op may become native code, best candidate first; without one it runs in NumPy only.
        placement: said of an op that only moves elements to places in a map of zeros.
    """

    name: str
    function: Callable[..., Any]
    infer: Callable[..., Spec | tuple[Spec, ...]]
    reference: Callable[..., Array | tuple[Array, ...]]
    vjp: VjpRule | Literal["zero"] | None
    flops: Callable[[Sequence[Spec], Sequence[Spec], Mapping[str, Any]], Size]
    traits: frozenset[Trait] = frozenset()
    cases: tuple[Case, ...] = ()
    conventions: tuple[Convention, ...] = ()
    lowering: tuple[Lowering, ...] = ()
    placement: Placement | None = None
    moved_bytes: Callable[[Sequence[Spec], Sequence[Spec]], Size] = field(default=_default_bytes)

    def output_specs(self, inputs: Sequence[Spec], attrs: Mapping[str, Any]) -> tuple[Spec, ...]:
        """The shape rule, always as a tuple."""
        result = self.infer(*inputs, **attrs)
        return result if isinstance(result, tuple) else (result,)

    def evaluate(self, inputs: Sequence[Array], attrs: Mapping[str, Any]) -> tuple[Array, ...]:
        """The NumPy rule, always as a tuple of arrays."""
        result = self.reference(*inputs, **attrs)
        values = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(value) for value in values)

    def __repr__(self) -> str:
        return f"Op({self.name})"


_REGISTRY: dict[str, Op] = {}
_OWN: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add an op to the registry and return it.

    Raises:
        OpError: the name is taken by another op, or the op has no test case.
    """
    existing = _REGISTRY.get(op.name)
    if existing is not None:
        raise OpError(f"op {op.name!r} is already registered; choose another name")
    if not op.cases:
        raise OpError(f"op {op.name!r} has no test cases; every op states at least one Case")
    _REGISTRY[op.name] = op
    return op


def own_ops_end_here() -> None:
    """Note that the ops registered so far are the package's; all later ones are a user's."""
    _OWN.update(_REGISTRY)


def is_own(op: Op) -> bool:
    """Whether an op is the package's, whose rules depend on nothing but the package's version."""
    return _OWN.get(op.name) is op


def get_op(name: str) -> Op:
    """The op of that name.

    Raises:
        OpError: no such op is registered.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        raise OpError(f"no op named {name!r} is registered") from None


def registered_ops() -> Iterator[Op]:
    """Every op, in order of registration."""
    return iter(tuple(_REGISTRY.values()))


def per_element(count: int) -> Callable[[Sequence[Spec], Sequence[Spec], Mapping[str, Any]], Size]:
    """A FLOP rule: `count` operations for each element of the first output."""

    def flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Mapping[str, Any]) -> Size:
        return outputs[0].size * count

    return flops


def no_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Mapping[str, Any]) -> Size:
    """A FLOP rule: the op computes nothing."""
    return 0
