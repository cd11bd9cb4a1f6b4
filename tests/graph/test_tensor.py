"""Tensors: values that never change, dtypes that never mix, and errors in a trace that say what to do."""

from __future__ import annotations

import gc
import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import DTypeError, GradientError, ShapeError, TraceError
from chainrule.graph import scope
from chainrule.graph.tensor import as_tensor, lift

Use = Callable[[Any], Any]


def floats(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Random numbers, none of them near zero."""
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(dtype)


def gradient(x: cr.Tensor) -> np.ndarray:
    """The gradient that `backward` left."""
    assert x.grad is not None
    return x.grad.numpy()


# --- Making tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "float32"),
        ([1, 2], "int32"),
        (True, "bool"),
        ([[1.0], [2.0]], "float32"),
        (np.zeros(2), "float64"),
        (np.zeros(2, np.int64), "int64"),
        (np.float64(1.0), "float64"),
        (np.uint8(3), "uint8"),
    ],
)
def test_default_dtypes(value: Any, dtype: str) -> None:
    assert cr.tensor(value).dtype == np.dtype(dtype)


def test_a_dtype_may_be_given() -> None:
    assert cr.tensor([1, 2], dtype="float64").dtype == np.dtype("float64")
    assert cr.tensor(cr.tensor([1.0]), dtype="int32").dtype == np.dtype("int32")
    assert cr.tensor(2**40, dtype="int64").item() == 2**40


def test_integers_beyond_int32_are_refused_rather_than_wrapped() -> None:
    with pytest.raises(DTypeError, match=r"does not fit int32.*dtype='int64'"):
        cr.tensor([1, 2**40])


@pytest.mark.parametrize("value", [1j, "text", np.zeros(1, np.float16), [object()], np.array(["a"])])
def test_unknown_dtypes_are_refused(value: Any) -> None:
    with pytest.raises(DTypeError, match=r"the tensor's value has dtype .*; expected one of bool, float32, float64"):
        cr.tensor(value)


def test_only_floats_require_gradients() -> None:
    with pytest.raises(DTypeError, match="only float tensors have gradients; got int32"):
        cr.tensor([1], requires_grad=True)


def test_a_tensor_of_a_variable_is_its_value() -> None:
    variable = cr.Variable([1.0, 2.0])
    assert cr.tensor(variable).numpy().tolist() == [1.0, 2.0]


# --- Tensors never change -------------------------------------------------------------------------


MAKERS: dict[str, Callable[[np.ndarray], cr.Tensor]] = {
    "tensor": cr.tensor,
    "op": lambda x: cr.ops.relu(x),
    "view": lambda x: cr.tensor(x).reshape(-1)[None],
    "identity": lambda x: cr.ops.identity(x),
    "broadcast": lambda x: cr.ops.broadcast_to(x, (2, *x.shape)),
    "recorded": lambda x: cr.tensor(x, requires_grad=True) * 2,
    "variable": lambda x: as_tensor(cr.Variable(x)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_arrays_are_read_only(make: Callable[[np.ndarray], cr.Tensor]) -> None:
    data = make(floats(2, 3)).data
    with pytest.raises(ValueError, match="read-only"):
        data[...] = 0


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_tensor_does_not_see_later_changes_of_its_array(make: Callable[[np.ndarray], cr.Tensor]) -> None:
    array = floats(2, 3)
    made = make(array)
    before = made.numpy()
    array[...] = 99.0
    np.testing.assert_array_equal(made.data, before)


def test_numpy_gives_a_copy_of_ones_own() -> None:
    x = cr.tensor([1.0, 2.0])
    copy = x.numpy()
    copy[0] = 5.0
    assert x.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("change", [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow])
def test_in_place_operators_rebind(change: Callable[[Any, Any], Any]) -> None:
    x = cr.tensor([1.0, 2.0])
    alias = x
    x = change(x, 3.0)
    assert x is not alias
    assert alias.numpy().tolist() == [1.0, 2.0]


def test_items_cannot_be_assigned() -> None:
    x: Any = cr.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="does not support item assignment"):
        x[0] = 5.0


# --- A traced tensor has no value -----------------------------------------------------------------


NEEDS_A_VALUE: dict[str, tuple[Use, str]] = {
    "bool": (bool, "used as a Python bool"),
    "if": (lambda x: 1 if x else 2, "used as a Python bool"),
    "and": (lambda x: x and x, "used as a Python bool"),
    "float": (float, "converted to a Python number"),
    "int": (int, "converted to a Python number"),
    "item": (lambda x: x.item(), "converted to a Python number"),
    "numpy": (lambda x: x.numpy(), "read as a NumPy array"),
    "data": (lambda x: x.data, "read as a NumPy array"),
    "asarray": (np.asarray, "read as a NumPy array"),
    "norm": (np.linalg.norm, "read as a NumPy array"),
}


@pytest.mark.parametrize(("use", "action"), NEEDS_A_VALUE.values(), ids=NEEDS_A_VALUE.keys())
def test_asking_a_traced_tensor_for_its_value_is_a_named_error(use: Use, action: str) -> None:
    def function(x: cr.Tensor) -> Any:
        with scope(layer="gate"):
            total = x.sum()
        return use(total)

    with pytest.raises(TraceError) as caught:
        cr.trace(function, cr.input_spec((None, 3)))
    message = str(caught.value)
    assert message.startswith("a traced tensor float32()")
    assert "layer 'gate' (sum)" in message
    assert f"cannot be {action}" in message
    assert "use chainrule ops such as cr.ops.where" in message


def test_the_batch_cannot_be_counted_in_a_trace() -> None:
    for use in (len, list):
        with pytest.raises(TraceError, match=r"measured by len\(\); use x\.shape\[0\], which is symbolic"):
            cr.trace(lambda x, use=use: use(x), cr.input_spec((None, 3)))


def test_known_axes_can_be_counted_and_iterated_in_a_trace() -> None:
    graph = cr.trace(lambda x: sum(row * len(x) for row in x), cr.input_spec((3, 2)))
    x = floats(3, 2)
    np.testing.assert_allclose(cr.engines.Executable(graph)(x), 3 * x.sum(axis=0), rtol=1e-6)


def test_the_batch_size_is_no_operand() -> None:
    with pytest.raises(TraceError, match=r"divide by it at run time with cr\.ops\.mean or cr\.ops\.element_count"):
        cr.trace(lambda x: x.sum() / x.shape[0], cr.input_spec((None,)))


def test_traced_tensors_show_their_spec() -> None:
    seen: list[str] = []

    def function(x: cr.Tensor) -> cr.Tensor:
        seen.append(repr(x))
        return x

    cr.trace(function, cr.input_spec((None, 3)))
    assert seen == ["Tensor(float32(N, 3), traced)"]


# --- dtypes ---------------------------------------------------------------------------------------


ARITHMETIC: list[Callable[[Any, Any], Any]] = [operator.add, operator.sub, operator.mul, operator.truediv]
COMPARISONS: list[Callable[[Any, Any], Any]] = [
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]


@pytest.mark.parametrize("operation", ARITHMETIC + COMPARISONS)
@pytest.mark.parametrize("other", ["float64", "int32", "bool"])
def test_mixing_dtypes_is_an_error(operation: Callable[[Any, Any], Any], other: str) -> None:
    left, right = cr.tensor(floats(2)), cr.tensor(np.ones(2, other))
    with pytest.raises(DTypeError, match=rf"{other}.*; convert (one|it) with \.astype"):
        operation(left, right)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("number", [2, 3.0, True])
def test_python_numbers_take_the_dtype_of_the_tensor(dtype: str, number: Any) -> None:
    x = cr.tensor(np.array([1, 2], dtype))
    if isinstance(number, float) and x.dtype.kind != "f":
        with pytest.raises(DTypeError, match=r"the number 3\.0 cannot combine with a tensor of dtype"):
            x * number
        return
    for result in (x * number, number * x, x + number, number - x):
        assert result.dtype == x.dtype


def test_a_weak_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DTypeError, match="the number 300 does not fit the dtype uint8"):
        cr.tensor(np.array([1], np.uint8)) + 300
    with pytest.raises(DTypeError, match="the number -1 does not fit the dtype uint32"):
        -1 + cr.tensor(np.array([1], np.uint32))


def test_weak_numbers_follow_the_first_real_tensor() -> None:
    a, b, c = lift(1, cr.tensor(np.array(2.0)), 3.5)
    assert {t.dtype.name for t in (a, b, c)} == {"float64"}


def test_numpy_scalars_of_a_fixed_dtype_are_strict() -> None:
    x: Any = cr.tensor([1.0])
    assert (np.float32(2.0) * x).dtype == np.dtype("float32")
    with pytest.raises(DTypeError, match="different dtypes"):
        x * np.int64(2)


def test_division_of_integers_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"divide: expected a float32 or float64 tensor, got int32"):
        cr.tensor([1, 2]) / 2


def test_casts_convert() -> None:
    x = cr.tensor([1.7, -1.7])
    assert x.astype("int32").numpy().tolist() == [1, -1]
    assert x.astype("float32") is x


# --- Operators and NumPy --------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [*ARITHMETIC, *COMPARISONS, operator.pow, operator.matmul])
@pytest.mark.parametrize("trace", [False, True], ids=["eager", "traced"])
def test_operators_with_arrays_on_either_side(operation: Callable[[Any, Any], Any], trace: bool) -> None:
    a, b = floats(2, 2, seed=1), floats(2, 2, seed=2)
    sides: list[Callable[[cr.Tensor], cr.Tensor]] = [lambda t: operation(t, b), lambda t: operation(b, t)]
    for apply, expected in zip(sides, (operation(a, b), operation(b, a)), strict=True):
        if trace:
            got = cr.engines.Executable(cr.trace(apply, cr.input_spec((2, 2))))(a)
        else:
            result = apply(cr.tensor(a))
            assert isinstance(result, cr.Tensor)
            got = result.numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert got.dtype == expected.dtype


def test_ufuncs_do_not_swallow_tensors() -> None:
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.add(floats(2), cr.tensor(floats(2)))


def test_an_array_does_not_take_a_tensor_in_place() -> None:
    array: Any = floats(2)
    with pytest.raises(TypeError, match="does not support ufuncs"):
        array += cr.tensor(floats(2))


def test_unary_operators_and_methods() -> None:
    x = floats(2, 3) - 1.2
    t = cr.tensor(x)
    np.testing.assert_array_equal((-t).numpy(), -x)
    np.testing.assert_array_equal(abs(t).numpy(), abs(x))
    np.testing.assert_array_equal((~(t > 0)).numpy(), ~(x > 0))
    np.testing.assert_array_equal(((t > 0) & (t < 1)).numpy(), (x > 0) & (x < 1))
    np.testing.assert_array_equal(((t > 1) | (t < 0)).numpy(), (x > 1) | (x < 0))
    np.testing.assert_array_equal(t.T.numpy(), x.T)
    np.testing.assert_array_equal(t.transpose(1, 0).numpy(), x.T)
    np.testing.assert_array_equal(t.reshape(3, 2).numpy(), x.reshape(3, 2))
    np.testing.assert_allclose(t.var(axis=1).numpy(), x.var(axis=1), rtol=1e-5)
    np.testing.assert_allclose(t.mean().numpy(), x.mean(), rtol=1e-5)
    assert t.max().item() == x.max()


# --- Properties -----------------------------------------------------------------------------------


def test_shape_size_and_rank() -> None:
    x = cr.tensor(floats(2, 3))
    assert (x.shape, x.size, x.ndim, len(x)) == ((2, 3), 6, 2, 2)
    with pytest.raises(ShapeError, match=r"len\(\) of a tensor without axes"):
        len(cr.tensor(1.0))


def test_one_element_becomes_a_number() -> None:
    assert float(cr.tensor([[2.5]])) == 2.5
    assert int(cr.tensor(3)) == 3
    assert bool(cr.tensor([0.0])) is False
    assert ["a", "b"][cr.tensor(1)] == "b"


@pytest.mark.parametrize("use", [float, int, bool, lambda x: x.item()])
def test_several_elements_are_no_number(use: Use) -> None:
    with pytest.raises(ShapeError, match=r"item\(\) needs a tensor with one element; got shape \(2,\)"):
        use(cr.tensor([1.0, 2.0]))


def test_a_float_is_no_index() -> None:
    with pytest.raises(DTypeError, match=r"only an integer tensor can be an index; got float32\(\)"):
        ["a", "b"][cr.tensor(1.0)]


def test_representation() -> None:
    assert repr(cr.tensor([1.0])) == "Tensor([1.], dtype=float32)"
    assert repr(cr.tensor([1.0], requires_grad=True)) == "Tensor([1.], dtype=float32, requires_grad=True)"


def test_tensors_can_be_keys() -> None:
    x = cr.tensor([1.0, 2.0])
    assert {x: "a"}[x] == "a"
    assert hash(x * 2) != hash(x * 2)


# --- Indexing -------------------------------------------------------------------------------------


SLICES = st.builds(
    slice,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(1, 4),
)


@st.composite
def indices(draw: st.DrawFn) -> Any:
    """A NumPy index of a (4, 3, 5) array made of integers, slices, None and at most one ellipsis."""
    entries: list[Any] = [
        draw(SLICES | st.integers(-size, size - 1) | st.integers(0, size - 1).map(np.int64))
        for size in draw(st.sampled_from([(), (4,), (4, 3), (4, 3, 5)]))
    ]
    for _ in range(draw(st.integers(0, 2))):
        entries.insert(draw(st.integers(0, len(entries))), None)
    if draw(st.booleans()):
        entries.append(Ellipsis)
    return tuple(entries) if len(entries) != 1 or draw(st.booleans()) else entries[0]


@given(index=indices())
@pytest.mark.slow
def test_indexing_is_that_of_numpy(index: Any) -> None:
    x = np.arange(60.0).reshape(4, 3, 5)
    np.testing.assert_array_equal(cr.tensor(x)[index].numpy(), x[index])


@given(index=indices())
@pytest.mark.slow
def test_the_gradient_of_indexing_counts_what_was_read(index: Any) -> None:
    x = np.zeros((4, 3, 5))
    t = cr.tensor(x, requires_grad=True)
    weights = floats(*x[index].shape, dtype="float64")
    (t[index] * weights).sum().backward()
    x[index] = weights
    np.testing.assert_array_equal(gradient(t), x)


@pytest.mark.parametrize("index", [[2, 0, 2], np.array([[0, 1], [2, 2]])])
def test_an_array_of_integers_gathers_rows(index: Any) -> None:
    x = floats(3, 2)
    np.testing.assert_array_equal(cr.tensor(x)[index].numpy(), x[index])
    np.testing.assert_array_equal(cr.tensor(x)[cr.tensor(index)].numpy(), x[index])


BAD_INDICES: dict[str, tuple[Any, type[Exception], str]] = {
    "outside": (4, ShapeError, r"index 4 is outside axis 0 of \(4, 3\)"),
    "too many": ((0, 0, 0), ShapeError, r"3 indices for a tensor of shape \(4, 3\)"),
    "two ellipses": ((..., ...), ShapeError, "may hold '...' once"),
    "backwards": (slice(None, None, -1), ShapeError, "slices need a positive step, got -1"),
    "name": ("a", ShapeError, "index 'a' on axis 0"),
    "bool": (True, ShapeError, "cr.ops.gather and cr.ops.where"),
    "mask": ([True, False, True, True], DTypeError, r"indices must be integers, got bool\(4,\)"),
    "row outside": ([4], ShapeError, r"gather: index 4 is outside 0\.\.3"),
}


@pytest.mark.parametrize(("index", "error", "message"), BAD_INDICES.values(), ids=BAD_INDICES.keys())
def test_bad_indices_are_named(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cr.tensor(floats(4, 3))[index]


def test_the_batch_axis_can_be_shortened_in_a_trace() -> None:
    graph = cr.trace(lambda x: (x[1:], x[:-1], x[1:-2], x[:, 0]), cr.input_spec((None, 2)))
    assert [repr(t.spec) for t in graph.outputs.values()] == [
        "float32(N-1, 2)",
        "float32(N-1, 2)",
        "float32(N-3, 2)",
        "float32(N,)",
    ]
    x = floats(5, 2)
    for got, expected in zip(cr.engines.Executable(graph)(x), (x[1:], x[:-1], x[1:-2], x[:, 0]), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("index", [0, slice(2), slice(-2, None), slice(None, None, 2)])
def test_other_cuts_of_the_batch_axis_are_named_errors(index: Any) -> None:
    with pytest.raises(ShapeError, match="while the batch size N is symbolic"):
        cr.trace(lambda x: x[index], cr.input_spec((None, 2)))


# --- Gradients of eager tensors -------------------------------------------------------------------


def test_gradients_accumulate_until_forgotten() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert gradient(x).tolist() == [4.0, 8.0]
    x.grad = None
    (x * 3).sum().backward()
    assert gradient(x).tolist() == [3.0, 3.0]


def test_gradients_reach_every_leaf_and_only_leaves() -> None:
    a, b = cr.tensor([2.0], requires_grad=True), cr.tensor([3.0], requires_grad=True)
    constant = cr.tensor([4.0])
    middle = a * b
    (middle * constant).sum().backward()
    assert (gradient(a).item(), gradient(b).item()) == (12.0, 8.0)
    assert middle.grad is None
    assert constant.grad is None


def test_detached_values_carry_no_gradient() -> None:
    x = cr.tensor([2.0], requires_grad=True)
    assert not x.detach().requires_grad
    (x * x.detach()).sum().backward()
    assert gradient(x).item() == 2.0


def test_no_grad_records_nothing() -> None:
    x = cr.tensor([2.0], requires_grad=True)
    with cr.no_grad():
        y = x * 3
    assert not y.requires_grad
    assert (x * 3).requires_grad
    with pytest.raises(GradientError, match="found no tensor that requires a gradient"):
        y.sum().backward()


def test_no_grad_ends_with_an_error_inside() -> None:
    x = cr.tensor([2.0], requires_grad=True)
    with pytest.raises(ShapeError), cr.no_grad():
        x.reshape(2)
    assert (x * 3).requires_grad


def test_a_cotangent_weighs_the_elements() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    (x * x).backward([10.0, 1.0])
    assert gradient(x).tolist() == [20.0, 4.0]


BAD_BACKWARDS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no leaf": (lambda: cr.tensor(1.0).backward(), GradientError, r"make one with cr\.tensor\(\.\.\., requires_grad"),
    "not a scalar": (
        lambda: (cr.tensor([1.0, 2.0], requires_grad=True) * 2).backward(),
        GradientError,
        r"shape \(2,\) needs a cotangent of that shape.*take a sum or mean first",
    ),
    "cotangent of another shape": (
        lambda: (cr.tensor([1.0, 2.0], requires_grad=True) * 2).backward([1.0]),
        ShapeError,
        r"the cotangent float32\(1,\) does not match the output float32\(2,\)",
    ),
    "cotangent of another dtype": (
        lambda: (cr.tensor([1.0, 2.0], requires_grad=True) * 2).backward(np.ones(2)),
        ShapeError,
        r"the cotangent float64\(2,\) does not match the output float32\(2,\)",
    ),
    "traced": (
        lambda: cr.trace(lambda x: x.sum().backward(), cr.input_spec((2,))),
        GradientError,
        r"inside a trace use cr\.gradients\(loss, inputs\)",
    ),
}


@pytest.mark.parametrize(("use", "error", "message"), BAD_BACKWARDS.values(), ids=BAD_BACKWARDS.keys())
def test_what_backward_refuses(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()


def test_a_leaf_is_its_own_output() -> None:
    x = cr.tensor(3.0, requires_grad=True)
    x.backward()
    assert gradient(x).item() == 1.0


@pytest.mark.slow
def test_a_node_frees_its_inputs_with_the_last_tensor() -> None:
    x = cr.tensor([1.0], requires_grad=True)
    y = x * 2
    watch = weakref.ref(y)
    z = y * 2
    del y, z
    gc.collect()
    assert watch() is None
