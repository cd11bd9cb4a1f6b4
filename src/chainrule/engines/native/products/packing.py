"""Packing of matrices and convolution weights into panels.

A packed matrix of `rows` rows is ``[panel][rows][PANEL]``; columns beyond the last one are zeros.  The functions take
a range of panels, so that threads can share the work or one panel can be packed into scratch just before its use.
The packed pointer is where panel 0 lies (or would lie: nothing outside the range is touched), the natural one where
the whole matrix begins.

``Panels``: ``void @f(ptr %natural, ptr %packed, i64 %rows, i64 %panel_low, i64 %panel_high[, i64 %columns,
i64 %stride, i64 %packed_stride])``
    `emit_pack_panels`: ``packed[p][i][j] = natural[i][p*PANEL + j]``.  Convolution weights HWIO are such a matrix of
    R*S*C rows and K columns, dense weights one of I rows and O columns.
    `emit_pack_panels_transposed`: ``packed[p][i][j] = natural[p*PANEL + j][i]``, by transposing square blocks in
    registers: dense weights ``[I][O]`` for the input gradient (columns=I, rows=O).

``InputGradientPanels``: ``void @f(ptr %natural, ptr %packed, i64 %panel_low, i64 %panel_high)``
    HWIO to ``[panel of C][taps][K][PANEL]`` with the taps in the order that the input gradient reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.products.tile import panel_width
from chainrule.engines.native.types import I64, Type

__all__ = [
    "InputGradientPanels",
    "Panels",
    "emit_pack_input_gradient",
    "emit_pack_panels",
    "emit_pack_panels_transposed",
]


@dataclass(frozen=True, slots=True)
class Panels:
    """A matrix to be packed; see the module for the functions' signatures.

    Attributes:
        type: scalar type.
        columns: columns of the packed matrix that hold data, in all panels together.
        stride: from one row of the natural matrix to the next, in elements.
        packed_stride: from one panel to the next; ``rows * PANEL`` if None.
        width: columns per panel, a multiple of the vector length; two vectors if None.
        run_time: whether columns and both strides are parameters; of the number of columns the function knows only
            how many are beyond whole panels, so that it serves all matrices with as many.
    """

    type: Type
    columns: int
    stride: int
    packed_stride: int | None = None
    width: int | None = None
    run_time: bool = False

    def common(self, panel: int) -> Panels:
        """What the function must know of it for panels of so many columns; the rest are parameters."""
        columns = self.columns % panel + (panel if self.columns >= panel else 0)
        return replace(self, columns=columns, stride=0, packed_stride=None, run_time=True)


@dataclass(frozen=True, slots=True)
class InputGradientPanels:
    """Convolution weights to be packed for the input gradient; see the module for the function's signature.

    Packed tap (i, j) is the filter's tap ``(first[0] - i*step[0], first[1] - j*step[1])``.  By default these are all
    taps turned by 180 degrees, as a convolution of stride 1 needs them.  For stride (sy, sx) each phase has the taps
    that fall on it, with ``step = stride``.

    Attributes:
        type: scalar float type.
        kernel: (R, S) of the filter.
        channels, outputs: C and K.
        first: tap that comes first; the last one of the filter if None.
        count: how many taps each way; all if None.
        step: how far apart they are.
    """

    type: Type
    kernel: tuple[int, int]
    channels: int
    outputs: int
    first: tuple[int, int] | None = None
    count: tuple[int, int] | None = None
    step: tuple[int, int] = (1, 1)

    @property
    def taps(self) -> tuple[int, int]:
        """Packed taps each way."""
        return self.count or self.kernel

    def packed_size(self, panel: int) -> int:
        """Elements of the packed weights, for panels of so many channels."""
        return -(-self.channels // panel) * self.taps[0] * self.taps[1] * self.outputs * panel


def emit_pack_panels(module: Module, name: str, spec: Panels) -> None:
    """Add a function that packs a row-major matrix."""
    lanes, panel = module.lanes(spec.type), spec.width or panel_width(module, spec.type)
    p = _begin(module, name, spec, transposed=False)
    f = p.f

    def one(number: Index, columns: int) -> None:
        start, packed_start = f.mul(number, panel), f.mul(number, p.packed_stride)
        pieces = [(v * lanes, lanes) for v in range(columns // lanes)]
        pieces += [(place, 1) for place in range(columns // lanes * lanes, columns)]

        def row(i: Value, _: list[Value]) -> None:
            outside = f.add(start, f.mul(i, p.stride))
            inside = f.add(packed_start, f.mul(i, panel))
            for place, width in pieces:
                f.store(f.load(p.natural, f.add(outside, place), width), p.packed, f.add(inside, place))
            for place in range(columns, panel):
                f.store(f.constant(0.0, spec.type), p.packed, f.add(inside, place))

        f.loop(0, p.rows, row, guard=True)

    _ranged(f, p.columns, spec.columns % panel, panel, one)


def emit_pack_panels_transposed(module: Module, name: str, spec: Panels) -> None:
    """Add a function that packs the transpose of a row-major matrix."""
    panel = spec.width or panel_width(module, spec.type)
    p = _begin(module, name, spec, transposed=True)
    f, lanes = p.f, module.lanes(spec.type)

    def one(number: Index, columns: int) -> None:
        source, target = f.mul(f.mul(number, panel), p.stride), f.mul(number, p.packed_stride)
        _transpose(f, p.natural, source, p.stride, p.packed, target, p.rows, columns, panel, lanes)

    _ranged(f, p.columns, spec.columns % panel, panel, one)


def emit_pack_input_gradient(module: Module, name: str, spec: InputGradientPanels) -> None:
    """Add a function that packs convolution weights for the input gradient."""
    panel = panel_width(module, spec.type)
    f = Function(module, name, [("ptr", "natural"), ("ptr", "packed"), ("i64", "panel_low"), ("i64", "panel_high")])
    tap = spec.channels * spec.outputs
    natural = Buffer("%natural", spec.type, spec.kernel[0] * spec.kernel[1] * tap, f"{name} natural")
    packed = Buffer("%packed", spec.type, spec.packed_size(panel), f"{name} packed")
    first = spec.first or (spec.kernel[0] - 1, spec.kernel[1] - 1)

    def one(number: Index, columns: int) -> None:
        def down(i: Value, _: list[Value]) -> None:
            def along(j: Value, _: list[Value]) -> None:
                r, s = f.sub(first[0], f.mul(i, spec.step[0])), f.sub(first[1], f.mul(j, spec.step[1]))
                position = f.add(f.mul(r, spec.kernel[1]), s)
                source = f.add(f.mul(position, tap), f.mul(number, panel * spec.outputs))
                place = f.add(f.mul(number, spec.taps[0] * spec.taps[1]), f.add(f.mul(i, spec.taps[1]), j))
                target = f.mul(place, spec.outputs * panel)
                _transpose(
                    f,
                    natural,
                    source,
                    spec.outputs,
                    packed,
                    target,
                    spec.outputs,
                    columns,
                    panel,
                    module.lanes(spec.type),
                )

            f.loop(0, spec.taps[1], along)

        f.loop(0, spec.taps[0], down)

    _ranged(f, spec.channels, spec.channels % panel, panel, one)


@dataclass(frozen=True, slots=True)
class _Packing:
    """A packing function under construction: its operands, and what it knows of them."""

    f: Function
    natural: Buffer
    packed: Buffer
    rows: Value
    columns: Index
    stride: Index
    packed_stride: Index


def _begin(module: Module, name: str, spec: Panels, *, transposed: bool) -> _Packing:
    panel = spec.width or panel_width(module, spec.type)
    given = ("rows", "panel_low", "panel_high", *(("columns", "stride", "packed_stride") if spec.run_time else ()))
    f = Function(module, name, [("ptr", "natural"), ("ptr", "packed"), *(("i64", one) for one in given)])
    rows = Value("%rows", I64)
    columns: Index = spec.columns
    stride: Index = spec.stride
    packed_stride = f.mul(rows, panel) if spec.packed_stride is None else spec.packed_stride
    if spec.run_time:
        columns, stride, packed_stride = (Value(f"%{one}", I64) for one in given[3:])
    if transposed:
        size = f.add(f.mul(f.sub(columns, 1), stride), rows)
    else:
        size = f.add(f.mul(f.sub(rows, 1), stride), columns)
    last_panel = f.div(f.sub(columns, 1), panel)
    packed_size = f.add(f.mul(packed_stride, last_panel), f.mul(rows, panel))
    natural = Buffer("%natural", spec.type, size, f"{name} natural")
    packed = Buffer("%packed", spec.type, packed_size, f"{name} packed")
    return _Packing(f, natural, packed, rows, columns, stride, packed_stride)


def _ranged(f: Function, columns: Index, rest: int, panel: int, body: Callable[[Index, int], None]) -> None:
    """Run ``body(panel number, real columns)`` on the panels from %panel_low to %panel_high; `rest` is in the last."""
    low, high = Value("%panel_low", I64), Value("%panel_high", I64)
    whole = f.div(columns, panel)

    def full(number: Value, _: list[Value]) -> None:
        body(number, panel)

    if whole != 0:
        f.loop(low, f.min(high, whole), full)
    if rest:
        # The last panel, if it is in the range: a loop of one turn or none.
        def last(number: Value, _: list[Value]) -> None:
            body(whole, rest)

        f.loop(f.max(low, whole), high, last)


def _transpose(
    f: Function,
    natural: Buffer,
    source: Index,
    stride: Index,
    packed: Buffer,
    target: Index,
    rows: Index,
    columns: int,
    panel: int,
    lanes: int,
) -> None:
    """``packed[target + i*panel + j] = natural[source + j*stride + i]`` for all rows i, zeros from `columns` on."""
    zero = f.constant(0.0, natural.type)
    whole_rows = f.mul(f.div(rows, lanes), lanes)
    whole, rest = divmod(columns, lanes)

    def place(i: Index, j: Index) -> Index:
        return f.add(target, f.add(f.mul(i, panel), j))

    def square(i: Value, j: Index, real: int) -> None:
        """Of the square's rows `real` hold data."""
        blank = f.constant(0.0, natural.type.of(lanes))
        starts = [f.add(source, f.add(f.mul(f.add(j, z), stride), i)) for z in range(real)]
        vectors = [f.load(natural, start, lanes) for start in starts] + [blank] * (lanes - real)
        for z, vector in enumerate(transposed(f, vectors) if real else vectors):
            f.store(vector, packed, place(f.add(i, z), j))

    def squares(i: Value, _: list[Value]) -> None:
        f.loop(0, whole * lanes, lambda j, _: square(i, j, lanes), step=lanes)
        if rest:
            square(i, whole * lanes, rest)
        for j in range(-(-columns // lanes) * lanes, panel, lanes):
            square(i, j, 0)

    def single(i: Value, _: list[Value]) -> None:
        def copy(j: Value, _: list[Value]) -> None:
            f.store(f.load(natural, f.add(source, f.add(f.mul(j, stride), i))), packed, place(i, j))

        f.loop(0, columns, copy)
        f.loop(columns, panel, lambda j, _: f.store(zero, packed, place(i, j)))

    if whole_rows != 0:
        f.loop(0, whole_rows, squares, step=lanes)
    if whole_rows != rows:
        f.loop(whole_rows, rows, single)


def transposed(f: Function, rows: Sequence[Value]) -> list[Value]:
    """The transpose of a square of as many vectors as each has lanes, a power of two, in registers.

    Halves are exchanged between rows a distance apart, the distance doubling: log2(lanes) shuffles per vector.
    """
    lanes, distance = len(rows), 1
    result = list(rows)
    while distance < lanes:
        low = [i if not i & distance else lanes + i - distance for i in range(lanes)]
        high = [i + distance if not i & distance else lanes + i for i in range(lanes)]
        for i in range(lanes):
            if not i & distance:
                a, b = result[i], result[i + distance]
                result[i], result[i + distance] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        distance *= 2
    return result
