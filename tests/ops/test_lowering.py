"""Every op's native lowering against its NumPy rule, by an interpreter of the expressions.

The interpreter evaluates an expression at all points at once.  A load outside its guard's condition must lie inside
the storage, so a rule that strays fails here before any code is generated from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import chainrule as cr
from chainrule import ops
from chainrule.engines import Executable
from chainrule.graph import BATCH, Op, Spec, Trait, get_op, registered_ops
from chainrule.graph.dims import Shape, Size, bind, bind_shape, bind_size, size_of
from chainrule.graph.lowering import Composed, Contraction, Elementwise, Indexed, Lowering, Reduction, Sorting, View
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Expr, Point, Rules, Storage
from tests.ops.harness import Trial, trials

Array = NDArray[Any]

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


# --- The interpreter -----------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "tanh", "sin", "cos", "expm1", "log1p", "floor", "power")},
    "erf": lambda x: np.asarray(np.frompyfunc(math.erf, 1, 1)(x.astype("float64")), "float64").astype(x.dtype),
}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negative": np.negative,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "select": np.where,
    "index_divide": np.floor_divide,
    "index_modulo": np.mod,
    "index_product": np.multiply,
    "index_minimum": np.minimum,
}


@dataclass
class Scope:
    """Values under one binding of variables and one guard; what an outer scope knows holds here too."""

    memory: Mapping[Storage, Array]
    batch: int
    bound: dict[Any, Array] = field(default_factory=dict)
    mask: Array = field(default_factory=lambda: np.array(True))
    outer: Scope | None = None
    known: dict[Any, Any] = field(default_factory=dict)

    def inside(self, *, bound: dict[Any, Array] | None = None, mask: Array | None = None) -> Scope:
        narrowed = self.mask if mask is None else self.mask & mask
        return Scope(self.memory, self.batch, {**self.bound, **(bound or {})}, narrowed, self)

    def found(self, key: Any) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if key in scope.known:
                return scope.known[key]
            scope = scope.outer
        return None

    def value(self, node: Expr) -> Array:
        """The value of an expression at every point."""
        found = self.found(node)
        if found is None:
            found = self.known[node] = np.asarray(self._computed(node))
            assert found.dtype == node.dtype, f"{node.op} gives {found.dtype}, not {node.dtype}"
        result: Array = found
        return result

    def _computed(self, node: Expr) -> Any:
        match node.op:
            case "constant":
                return np.asarray(node.attr, node.dtype)
            case "batch":
                return np.asarray(self.batch, node.dtype)
            case "variable" | "held":
                return self.bound[node.attr]
            case "affine":
                terms = (c * self.value(atom) for c, atom in zip(node.attr[1:], node.args, strict=True))
                return sum(terms, start=np.asarray(node.attr[0], node.dtype))
            case "load":
                return self._loaded(node)
            case "fold":
                return self._folded(node)
            case "guard":
                otherwise, condition = self.value(node.args[2]), self.value(node.args[0])
                return np.where(condition, self.inside(mask=condition).value(node.args[1]), otherwise)
        operands = [self.value(item) for item in node.args]
        match node.op:
            case "cast":
                return operands[0].astype(node.dtype)
            case "bits":
                return operands[0].view(node.dtype)
            case "call":
                return FUNCTIONS[node.attr](*operands)
        return OPERATIONS[node.op](*operands)

    def _loaded(self, node: Expr) -> Array:
        cells, index = self.memory[node.attr], self.value(node.args[0])
        wrong = self.mask & ((index < 0) | (index >= cells.size))
        assert not wrong.any(), f"a load strays to {index[np.broadcast_to(wrong, index.shape)]} of {node.attr}"
        if not cells.size:
            return np.zeros(index.shape, node.dtype)
        result: Array = cells[np.clip(index, 0, cells.size - 1)]
        return result

    def _folded(self, node: Expr) -> Array:
        number, slot, variables, count = node.attr
        values = self.found(("fold", number))
        if values is None:
            values = [self.value(item) for item in node.args[:count]]
            for place in np.ndindex(*(bind_size(variable.extent, self.batch) for variable in variables)):
                bound: dict[Any, Array] = {v: np.asarray(i, "int64") for v, i in zip(variables, place, strict=True)}
                bound |= {(number, held): value for held, value in enumerate(values)}
                scope = self.inside(bound=bound)
                values = [scope.value(item) for item in node.args[count:]]
            self.known["fold", number] = values
        result: Array = values[slot]
        return result


class Reader:
    """An input as a rule sees it."""

    def __init__(self, k: Rules, storage: Storage, shape: Shape) -> None:
        self.k, self.storage, self.shape, self.dtype = k, storage, shape, storage.dtype

    def __getitem__(self, place: Any) -> Expr:
        indices = place if isinstance(place, tuple) else (place,)
        assert len(indices) == len(self.shape)
        return self.at(Point(self.k, self.shape, [self.k.constant(0, "int64") + index for index in indices]))

    def at(self, point: Point) -> Expr:
        return self.flat(point.linear)

    def flat(self, number: Expr) -> Expr:
        return self.k.load(self.storage, number)

    def broadcast(self, point: Point) -> Expr:
        """The element that goes with a place in a larger shape."""
        missing = len(point.shape) - len(self.shape)
        return self[tuple(0 if size == 1 else point[missing + axis] for axis, size in enumerate(self.shape))]


class Problem:
    """One op on concrete arrays, whose specs and attributes may hold the symbolic batch size."""

    def __init__(self, op: Op, specs: Sequence[Spec], attrs: Mapping[str, Any], arrays: Sequence[Array], batch: int):
        self.specs, self.attrs, self.arrays, self.batch = list(specs), attrs, arrays, batch
        self.outputs = op.output_specs(self.specs, attrs)
        self.k = Rules()
        storages = [Storage(f"input {i}", spec.dtype, spec.size) for i, spec in enumerate(specs)]
        self.memory = {storage: array.reshape(-1) for storage, array in zip(storages, arrays, strict=True)}
        self.readers = [Reader(self.k, s, spec.shape) for s, spec in zip(storages, specs, strict=True)]

    def run(self, lowering: Lowering) -> list[Array] | None:
        """The outputs by one candidate; None where a generator would compute them."""
        match lowering:
            case Elementwise(rule=rule):
                return self._everywhere(lambda point: rule(self.k, *self._values(point), **self.attrs))
            case Indexed(rule=rule):
                return self._everywhere(lambda point: rule(self.k, point, *self.readers, **self.attrs))
            case Reduction():
                return self._everywhere(lambda point: self._reduced(lowering, point))
            case View():
                return [self.arrays[0].reshape(bind_shape(self.outputs[0].shape, self.batch))]
            case Sorting(key=key):
                (size,) = self.outputs[0].shape
                keys = self._evaluated((size,), lambda point: key(self.k, point[0], *self.readers, **self.attrs))[0]
                assert keys.dtype == np.uint64
                return [np.argsort(keys, kind="stable").astype(self.outputs[0].dtype)]
            case Composed(rule=rule):
                result = Lowered(cr.trace(lambda *xs: rule(*xs, **self.attrs), *self.specs, name="composed"))(
                    *self.arrays
                )
                return list(result) if isinstance(result, tuple) else [result]
        return None

    def _values(self, point: Point) -> list[Expr]:
        return [reader.broadcast(point) for reader in self.readers]

    def _everywhere(self, rule: Callable[[Point], Any]) -> list[Array]:
        return self._evaluated(self.outputs[0].shape, rule)

    def _evaluated(self, shape: Shape, rule: Callable[[Point], Any]) -> list[Array]:
        axes = [self.k.variable("i", size) for size in shape]
        sizes = bind_shape(shape, self.batch)
        places = np.indices(sizes).reshape(len(sizes), math.prod(sizes))
        result = rule(Point(self.k, shape, axes))
        bound = {axis.args[0].attr: place for axis, place in zip(axes, places, strict=True)}
        scope = Scope(self.memory, self.batch, bound)
        values = [scope.value(item) for item in (result if isinstance(result, tuple) else (result,))]
        return [np.broadcast_to(value, (math.prod(sizes),)).reshape(sizes) for value in values]

    def _reduced(self, how: Reduction, point: Point) -> Expr:
        axes = how.axes(self.specs, self.attrs)
        shape = self.specs[0].shape
        sizes = [size for axis, size in enumerate(shape) if axis not in axes]
        assert sizes == [size for size in self.outputs[0].shape if size != 1] or size_of(tuple(sizes)) == size_of(
            self.outputs[0].shape
        )
        kept = iter(Point(self.k, tuple(sizes), linear=point.linear))
        outer = {axis: next(kept) for axis in range(len(shape)) if axis not in axes}

        def element(place: Sequence[Expr]) -> Expr:
            inner = dict(zip(axes, place, strict=True))
            at = Point(self.k, shape, [inner[axis] if axis in inner else outer[axis] for axis in range(len(shape))])
            values = [reader.broadcast(at) for reader in self.readers]
            result: Expr = how.element(self.k, *values, **self.attrs) if how.element else values[0]
            return result

        fold = self.k.sum if how.fold == "sum" else self.k.max
        return fold([shape[axis] for axis in axes], element, self.outputs[0].dtype)


class Lowered(Executable):
    """A graph run node by node by every candidate of every op, each held against the NumPy rule."""

    def _step(self, node: Node, values: dict[tuple[int, int], Array], batch: int) -> None:
        arrays = [self._value(item, values) for item in node.inputs]
        compare(node.op, [item.spec for item in node.inputs], node.attrs, arrays, batch)
        super()._step(node, values, batch)


def compare(op: Op, specs: Sequence[Spec], attrs: Mapping[str, Any], arrays: Sequence[Array], batch: int = 0) -> int:
    """Hold every candidate against the NumPy rule; how many gave values.

    Random numbers, integers and truth values agree exactly, floats to the tolerance of their type.
    """
    wanted = op.evaluate(arrays, {name: bind(value, batch) for name, value in attrs.items()})
    compared = 0
    for lowering in op.lowering:
        found = Problem(op, specs, attrs, arrays, batch).run(lowering)
        if found is not None:
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                agree(a, b, f"{op.name}: {lowering}", exact=Trait.RANDOM in op.traits)
            compared += 1
    return compared


def agree(found: Array, wanted: Array, what: str, *, exact: bool = False) -> None:
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), what
    if exact or wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=what)
        return
    tolerance = TOLERANCES[wanted.dtype.name]
    finite = np.abs(wanted[np.isfinite(wanted)])
    np.testing.assert_allclose(
        found, wanted, rtol=tolerance, atol=tolerance * float(np.max(finite, initial=0)), err_msg=what
    )


def compare_concrete(op: Op, arrays: Sequence[Array], **attrs: Any) -> None:
    """As `compare`, on arrays alone; at least one candidate must give values."""
    with np.errstate(all="ignore"):
        assert compare(op, [Spec(a.shape, a.dtype) for a in arrays], attrs, arrays)


# --- Every op, every case ------------------------------------------------------------------------

OPS = [op for op in registered_ops() if op.function.__module__.startswith("chainrule.")]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_has_a_lowering_that_always_works(op: Op) -> None:
    assert op.lowering, f"{op.name} has no lowering; give it one in its room"
    assert not isinstance(op.lowering[-1], Contraction), "a generator may refuse, so a general definition comes last"


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trial", trials(), ids=lambda trial: trial.name)
def test_lowerings_agree_with_the_numpy_rule(trial: Trial, dtype: str) -> None:
    compare_concrete(trial.op, trial.arrays(dtype), **trial.case.attrs)


# --- Extreme values ------------------------------------------------------------------------------

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 20.0, -20.0, 100.0, -100.0, 1e-30, -1e-30, 1e30]


def _specials(count: int, dtype: str) -> list[Array]:
    """Every combination of special values for so many inputs."""
    grid = np.meshgrid(*[np.array(SPECIAL, dtype)] * count)
    return [np.ascontiguousarray(values.reshape(-1)) for values in grid]


ELEMENTWISE = [
    trial
    for trial in trials()
    if isinstance(trial.op.lowering[0], Elementwise)
    and trial.op.name != "cast"  # what a NaN is as an integer is nobody's promise
    and all(a.dtype.kind == "f" for a in trial.arrays())
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trial", ELEMENTWISE, ids=lambda trial: trial.name)
def test_elementwise_lowerings_at_special_values(trial: Trial, dtype: str) -> None:
    arrays = _specials(len(trial.case.inputs), dtype)
    lowering = trial.op.lowering[0]
    specs = [Spec(a.shape, a.dtype) for a in arrays]
    with np.errstate(all="ignore"):
        (found,) = Problem(trial.op, specs, trial.case.attrs, arrays, 0).run(lowering) or []
        (wanted,) = trial.op.evaluate(arrays, trial.case.attrs)
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCES[dtype], atol=0)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "int64", "float32", "float64"])
def test_lowerings_take_every_dtype(dtype: str) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    a, b = (rng.integers(0, 2 if dtype == "bool" else 100, (3, 4)).astype(dtype) for _ in range(2))
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        compare_concrete(get_op(name), [a, b])
    if dtype != "bool":
        for name in ("add", "subtract", "multiply"):
            compare_concrete(get_op(name), [a, b])
    compare_concrete(get_op("where"), [a > b, a, b])
    for wanted in ("bool", "int32", "uint8", "int64", "float32", "float64"):
        compare_concrete(get_op("cast"), [a], dtype=wanted)
    compare_concrete(get_op("concat"), [a, b, a], axis=1)
    compare_concrete(get_op("transpose"), [a], axes=(1, 0))
    compare_concrete(get_op("slice"), [a], bounds=((1, 3, 1), (0, 4, 3)))
    compare_concrete(get_op("pad"), [a], widths=((1, 0, 2), (0, 3, 1)))
    compare_concrete(get_op("broadcast_to"), [a], shape=(2, 3, 4))
    compare_concrete(get_op("gather"), [a, np.array([[2, 0], [1, 1]], "int64")], axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_maxima_among_ties_nans_and_infinities(seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    x = rng.choice(np.array([0.0, 1.0, 2.0, -np.inf, np.inf, np.nan]), (2, 6, 5, 2), p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05])
    for pads in (((0, 0), (0, 0)), ((1, 2), (2, 0))):
        for size, stride in (((3, 3), (2, 2)), ((3, 4), (1, 3))):
            compare_concrete(get_op("max_pool2d"), [x], size=size, stride=stride, pads=pads)
    compare_concrete(get_op("max_pool2d"), [x], size=(6, 5), stride=(1, 1), pads=((5, 0), (4, 4)))
    for axis in range(4):
        compare_concrete(get_op("argmax"), [x], axis=axis)
        compare_concrete(get_op("softmax"), [x], axis=axis)
        compare_concrete(get_op("log_softmax"), [x], axis=axis)
    for axes in ((0,), (1, 3), (0, 1, 2, 3), (2,)):
        compare_concrete(get_op("first_max_mask"), [x], axes=axes)
        compare_concrete(get_op("max"), [x], axes=axes, keepdims=False)
        compare_concrete(get_op("sum"), [x], axes=axes, keepdims=True)


@pytest.mark.slow
def test_statistics_of_a_mean_far_from_zero() -> None:
    """With a mean of a thousand deviations, float32 sums alone would be seen in the fourth digit."""
    rng = np.random.Generator(np.random.PCG64(0))
    x = (rng.normal(size=(50, 7, 3)) + 1000).astype("float32")
    one, zero = np.ones(3, "float32"), np.zeros(3, "float32")
    compare_concrete(get_op("batch_norm"), [x, one, zero], epsilon=1e-3)
    compare_concrete(get_op("var"), [x], axes=(0, 1), keepdims=False)


# --- Windows, indices, random numbers ------------------------------------------------------------


@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 1), (1, 0))])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (6, 6)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.slow
def test_pooling_and_its_adjoints(size: Any, stride: Any, pads: Any) -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    x = rng.normal(size=(2, 7, 8, 2))
    window = {"size": size, "stride": stride, "pads": pads}
    y, positions = get_op("max_pool2d").evaluate([x], window)
    g = rng.normal(size=y.shape)
    compare_concrete(get_op("max_pool2d"), [x], **window)
    compare_concrete(get_op("max_pool2d_gather"), [x, positions], **window)
    compare_concrete(get_op("max_unpool2d"), [g, positions], input_shape=x.shape, **window)
    for counted in (False, True):
        compare_concrete(get_op("avg_pool2d"), [x], count_padding=counted, **window)
        compare_concrete(get_op("avg_unpool2d"), [g], count_padding=counted, input_shape=x.shape, **window)


@pytest.mark.parametrize(("dtype", "missing"), [("float32", np.nan), ("int32", 0), ("bool", False)])
def test_an_index_out_of_range_never_reads_stray_memory(dtype: str, missing: Any) -> None:
    x, indices = np.ones((3, 2), dtype), np.array([-1, 0, 3, 2**40, 2], "int64")
    specs = [Spec(a.shape, a.dtype) for a in (x, indices)]
    (lowering,) = get_op("gather").lowering
    (found,) = Problem(get_op("gather"), specs, {"axis": 0}, [x, indices], 0).run(lowering) or []
    np.testing.assert_array_equal(found[[1, 4]], x[:2])
    np.testing.assert_array_equal(found[[0, 2, 3]], np.full((3, 2), missing))


def test_an_update_out_of_range_is_left_out() -> None:
    updates, indices = np.array([1.0, 2.0, 4.0, np.nan]), np.array([-1, 1, 1, 2], "int32")
    specs = [Spec(a.shape, a.dtype) for a in (updates, indices)]
    (lowering,) = get_op("scatter_add").lowering
    (found,) = Problem(get_op("scatter_add"), specs, {"axis": 0, "size": 2}, [updates, indices], 0).run(lowering) or []
    np.testing.assert_array_equal(found, [0.0, 6.0])


@pytest.mark.parametrize("first_row", [0, 2**32 - 2])
@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (4, 2, 3, 3), (40, 33), (3, 0)])
def test_random_numbers_repeat_to_the_bit(shape: tuple[int, ...], first_row: int) -> None:
    key = [np.array([7, 2**32 - 1], "uint32"), np.array(2**31, "uint32"), np.array(first_row, "uint32")]
    compare_concrete(get_op("random_bits"), key, shape=shape, stream=2**32 - 1)
    compare_concrete(get_op("random_bernoulli"), key, shape=shape, stream=1, probability=0.3)
    for dtype in ("float32", "float64"):
        compare_concrete(get_op("random_uniform"), key, shape=shape, stream=2, dtype=dtype)
        compare_concrete(get_op("random_normal"), key, shape=shape, stream=3, dtype=dtype)
    compare_concrete(get_op("random_permutation"), key, size=100, stream=4)


# --- Generators ----------------------------------------------------------------------------------


def _form(name: str, shapes: Sequence[Shape], **attrs: Any) -> Mapping[str, Any] | None:
    op = get_op(name)
    specs = [Spec(shape, np.dtype("float32")) for shape in shapes]
    lowering = op.lowering[0]
    assert isinstance(lowering, Contraction)
    return lowering.form(specs, op.output_specs(specs, attrs), attrs)


WINDOW = {"stride": (2, 1), "pads": ((1, 0), (1, 1)), "dilation": (1, 2)}
X, KERNEL, Y = (BATCH, 9, 8, 4), (3, 2, 4, 6), (BATCH, 4, 8, 6)
FACTS = {**WINDOW, "groups": 1, "taps": (3, 2), "channels": 4, "outputs": 6, "image": (9, 8), "count": (4, 8)}


def test_a_convolution_and_its_gradients_state_the_same_facts() -> None:
    attrs = {**WINDOW, "groups": 1}
    assert _form("conv2d", [X, KERNEL], **attrs) == FACTS
    assert _form("conv2d_input_grad", [Y, KERNEL], input_shape=X, **attrs) == FACTS
    assert _form("conv2d_kernel_grad", [X, Y], kernel_shape=KERNEL, **attrs) == FACTS


def test_a_grouped_convolution_is_left_to_the_general_definition() -> None:
    attrs = {**WINDOW, "groups": 2}
    kernel = (3, 2, 2, 6)
    assert _form("conv2d", [X, kernel], **attrs) is None
    assert _form("conv2d_input_grad", [Y, kernel], input_shape=X, **attrs) is None
    assert _form("conv2d_kernel_grad", [X, Y], kernel_shape=kernel, **attrs) is None


def test_a_matrix_product_of_two_matrices_has_a_form() -> None:
    attrs = {"transpose_a": True, "transpose_b": False}
    assert _form("matmul", [(BATCH, 3), (BATCH, 4)], **attrs) == attrs
    assert _form("matmul", [(2, BATCH, 3), (2, BATCH, 4)], **attrs) is None


# --- The symbolic batch size ---------------------------------------------------------------------


def _network(x: cr.Tensor, labels: cr.Tensor, kernel: cr.Tensor, scale: cr.Tensor, table: cr.Tensor) -> Any:
    """A bit of everything that meets a batch size in practice, with its gradients."""
    y = ops.conv2d(x, kernel, stride=2, padding=1)
    y, mean, var = ops.batch_norm(y, scale, scale * 0)
    y = ops.max_pool2d(ops.relu(y), 2, 1, "same") + ops.avg_pool2d(y, 2, 1, "same")
    y = ops.concat([y, ops.transpose(y, (0, 2, 1, 3))], axis=3)
    rows = ops.reshape(y, (-1, 72))
    rows = ops.dropout(rows, 0.5, stream=3, **cr.random.words(0)._asdict())
    logits = ops.log_softmax(ops.dense(rows, table))
    picked = ops.sum(logits * ops.one_hot(labels, 5), axis=1)
    embedded = ops.gather(table, labels)
    spread = ops.pad(rows[1:], [(0, 1), (2, 0)]) - ops.max(rows, axis=0)[0]
    order = ops.random_permutation(*cr.random.words(1), size=x.shape[0], stream=1)
    noise = ops.random_normal(*cr.random.words(1), shape=x.shape, stream=2)
    loss = ops.mean(picked) + ops.var(spread) + ops.mean(embedded) * ops.max(x * noise)
    return (loss, mean, var, order, *cr.gradients([loss], [x, kernel, scale, table]))


def _inputs(batch: int) -> list[Array]:
    rng = np.random.Generator(np.random.PCG64(batch))
    return [
        rng.normal(size=(batch, 6, 6, 2)).astype("float32"),
        rng.integers(0, 5, batch).astype("int32"),
        rng.normal(size=(3, 3, 2, 4)).astype("float32"),
        rng.normal(size=4).astype("float32"),
        rng.normal(size=(72, 5)).astype("float32"),
    ]


def _batched(array: Array, place: int) -> Spec:
    shape: tuple[Size, ...] = (BATCH, *array.shape[1:]) if place < 2 else array.shape
    return Spec(shape, array.dtype)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.slow
def test_lowerings_take_a_symbolic_batch(batch: int) -> None:
    """Every node of a graph over N samples, gradients included, at several N."""
    arrays = _inputs(batch)
    graph = cr.trace(_network, *(_batched(a, i) for i, a in enumerate(arrays)))
    used = {node.op.name for node in graph.nodes}
    assert {"conv2d_input_grad", "conv2d_kernel_grad", "max_unpool2d", "scatter_add", "first_max_mask"} <= used
    Lowered(graph)(*arrays)


def test_a_stray_load_is_noticed() -> None:
    """The interpreter itself: an unguarded read past the end fails, a guarded one does not."""
    x = np.arange(3.0)
    spec = [Spec(x.shape, x.dtype)]

    def shifted(k: Any, point: Any, x: Any) -> Any:
        return x[point[0] + 1]

    def guarded(k: Any, point: Any, x: Any) -> Any:
        return k.guard(point[0] + 1 < 3, x[point[0] + 1], 7)

    problem = Problem(get_op("identity"), spec, {}, [x], 0)
    with pytest.raises(AssertionError, match="strays"):
        problem.run(Indexed(shifted))
    (found,) = problem.run(Indexed(guarded)) or []
    np.testing.assert_array_equal(found, [1.0, 2.0, 7.0])
