"""How an op may be lowered: the records that op rooms declare and that a planner reads.

A rule is handed the expression builder ``k`` (`plan.expr.Rules`) as an argument, so op rooms import no planner and no
engine.  An op lists candidates, best first; a planner takes the first one that it can use for the node at hand.

=================  ==========================================================================================
`Elementwise`      ``rule(k, *values, **attrs)``: one output element from the same element of every input
`Indexed`          ``rule(k, point, *inputs, **attrs)``: one output element from any elements of the inputs
`Reduction`        elements combined along axes by a named fold, with its parts joined in a fixed order
`View`             the same elements in the same order under another shape: no work at all
`Composed`         the op written with other ops
`Contraction`      a sum of products with a generator of its own
`Sorting`          the stable order of keys along the only axis
=================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from chainrule.graph.op import Spec

__all__ = [
    "Composed",
    "Contraction",
    "Elementwise",
    "Indexed",
    "Lowering",
    "Placement",
    "Reduction",
    "Sorting",
    "View",
]

Attrs: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Elementwise:
    """One output element from the same element of every input; smaller inputs are broadcast by the planner.

    Attributes:
        rule: ``rule(k, *values, **attrs)`` gives an expression, or a tuple of them for several outputs.
        cheap: whether computing it again costs less than storing and loading the result.
    """

    rule: Callable[..., Any]
    cheap: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class Indexed:
    """One output element from any elements of the inputs.

    Attributes:
        rule: ``rule(k, point, *inputs, **attrs)``.  `point` is the place in the (first) output: ``point[axis]``,
            ``point.linear``.  An input is a reader: ``x[i, j]`` at a multi-index, ``x.flat(number)`` by row-major
            number, ``x.at(point)``, with ``x.shape`` and ``x.dtype``.  Attributes come with sizes that may hold N;
            ``k.size(size)`` makes an index of one.
        cheap: whether computing an element again costs less than storing and loading it.
        reads: how often an input's element is read, about; a planner stores the input first if that is often.
    """

    rule: Callable[..., Any]
    cheap: bool = True
    reads: int = 1


@dataclass(frozen=True, eq=False, repr=False)
class Reduction:
    """Elements combined along axes.

    Attributes:
        fold: ``sum`` or ``max``.
        axes: ``axes(input_specs, attrs)``: the axes of the first input that vanish; what is left, in order, is the
            output (whether vanished axes are kept with size 1 makes no difference).
        element: ``element(k, *values, **attrs)``: what is combined; the first input's element by default.
    """

    fold: Literal["sum", "max"]
    axes: Callable[[Sequence[Spec], Attrs], tuple[int, ...]]
    element: Callable[..., Any] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """The same elements in the same row-major order under another shape."""


@dataclass(frozen=True, eq=False, repr=False)
class Composed:
    """The op written with other ops: ``rule(*tensors, **attrs)`` gives a tensor or a tuple of them."""

    rule: Callable[..., Any]


@dataclass(frozen=True, eq=False, repr=False)
class Contraction:
    """A sum of products for which engines have a generator.

    Attributes:
        generator: the generator's name, such as ``"convolution"``.
        form: ``form(input_specs, output_specs, attrs)``: the problem in the generator's terms, or None where the
            generator cannot take it, so that the next candidate is used.
    """

    generator: str
    form: Callable[[Sequence[Spec], Sequence[Spec], Attrs], Mapping[str, Any] | None]


@dataclass(frozen=True, eq=False, repr=False)
class Sorting:
    """The stable ascending order of keys: output ``i`` is the number of the i-th smallest key.

    Attributes:
        key: ``key(k, number, *inputs, **attrs)``: the uint64 key of an element, inputs as in `Indexed`.
    """

    key: Callable[..., Any]


@dataclass(frozen=True, eq=False, repr=False)
class Placement:
    """The op puts each element of its first input at a place of its own in a map of zeros.

    A planner uses this to compute with the few elements instead of the map: an elementwise op that keeps zeros can be
    done before the placing, and a sum over the map is a sum over the elements.

    Attributes:
        disjoint: ``disjoint(attrs)``: whether no two elements share a place, so that nothing is added up.
        axes: the axes within which elements are moved.
        read: ``read(node, tensor)``: the tensor's values at the places, if they are at hand without reading it; else
            None.
        window: ``window(attrs)``: (height, width) of windows that lie side by side from the first pixel on, if the
            op's second input numbers the places of each window row by row; else None.
    """

    disjoint: Callable[[Attrs], bool]
    axes: tuple[int, ...]
    read: Callable[[Any, Any], Any]
    window: Callable[[Attrs], tuple[int, int] | None]


Lowering: TypeAlias = Elementwise | Indexed | Reduction | View | Composed | Contraction | Sorting
