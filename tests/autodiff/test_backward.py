"""The differentiator: what it sums, what it leaves out, what it refuses, and that it can be applied to itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import GradientError, OpError, ShapeError
from chainrule.graph import Node, Op, Spec, apply, apply_all, case, no_flops, scope
from chainrule.graph.tensor import Tensor

Function = Callable[..., Any]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")


def leaf(value: Any, dtype: str = "float64") -> Tensor:
    return cr.tensor(np.asarray(value, dtype), requires_grad=True)


def values(found: Sequence[Tensor | None]) -> list[Any]:
    """Gradients as lists and numbers."""
    return [None if gradient is None else gradient.numpy().tolist() for gradient in found]


def make_op(name: str, vjp: Any, outputs: int = 1) -> Op:
    """An op that copies its first input to every output, with a VJP to try."""

    def infer(x: Spec, *rest: Spec) -> tuple[Spec, ...]:
        return (x,) * outputs

    def reference(x: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
        return (x.copy(),) * outputs

    return Op(name, lambda *_: None, infer, reference, vjp, no_flops, cases=(case((2,)),))


# --- What is summed --------------------------------------------------------------------------------


def test_a_value_that_is_used_often_sums_its_cotangents() -> None:
    x = leaf(3.0)
    assert values(cr.gradients(x * x + x * 5 - x, [x])) == [2 * 3 + 5 - 1]


def test_an_input_that_stands_twice_in_one_op_gets_both_parts() -> None:
    x = leaf([1.0, 2.0])
    assert values(cr.gradients(cr.ops.concat([x, x], axis=0), [x], [cr.tensor(np.array([1.0, 2.0, 10.0, 20.0]))])) == [
        [11.0, 22.0]
    ]


def test_paths_through_other_values_are_summed() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * x + y
    assert values(cr.gradients(z, [x, y])) == [3 * 4 + 2 * 2, 2 + 1]


def test_several_outputs_are_summed_with_their_cotangents() -> None:
    x = leaf([1.0, 2.0])
    weights = [cr.tensor(np.array(10.0)), cr.tensor(np.array([1.0, 2.0]))]
    assert values(cr.gradients([x.sum(), x * x], [x], weights)) == [[10 + 2.0, 10 + 8.0]]


def test_an_output_may_be_an_input_too() -> None:
    x = leaf(3.0)
    y = x * x
    assert values(cr.gradients(y, [y, x])) == [1.0, 6.0]
    assert values(cr.gradients(x, [x])) == [1.0]


def test_one_input_may_be_asked_for_twice() -> None:
    x = leaf(3.0)
    assert values(cr.gradients(x * x, [x, x])) == [6.0, 6.0]


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=6))
@pytest.mark.slow
def test_broadcast_operands_get_the_sum_over_their_copies(numbers: list[float]) -> None:
    row, column = leaf(numbers), leaf(np.reshape(numbers, (-1, 1)))
    found = cr.gradients((row * column).sum(), [row, column])
    total = np.sum(numbers)
    np.testing.assert_allclose(values(found)[0], [total] * len(numbers), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(values(found)[1], [[total]] * len(numbers), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_chain_of_thousands_needs_no_recursion() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y * 1.0
    assert values(cr.gradients(y, [x])) == [1.0]


# --- What has no gradient ------------------------------------------------------------------------------


def test_unused_inputs_have_none() -> None:
    x, unused = leaf(1.0), leaf(2.0)
    assert values(cr.gradients(x * 2, [unused, x])) == [None, 2.0]


def test_integers_and_comparisons_pass_nothing_on() -> None:
    x = leaf([0.5, 1.5])
    assert values(cr.gradients((x > 1).astype("float64").sum(), [x])) == [None]
    assert values(cr.gradients(x.astype("int32").astype("float64").sum(), [x])) == [None]
    assert values(cr.gradients(cr.ops.where(x > 1, x, x * 3).sum(), [x])) == [[3.0, 1.0]]


def test_stop_gradient_holds_one_path_only() -> None:
    x = leaf(3.0)
    assert values(cr.gradients(x * cr.ops.stop_gradient(x), [x])) == [3.0]
    assert values(cr.gradients(cr.ops.stop_gradient(x * x), [x])) == [None]


def test_casts_between_floats_pass_the_gradient_in_the_input_dtype() -> None:
    x = leaf(3.0, "float32")
    (found,) = cr.gradients(x.astype("float64") * 2, [x])
    assert found is not None
    assert (found.dtype, found.item()) == (FLOAT32, 2.0)


# --- Ops with several outputs --------------------------------------------------------------------------


def test_outputs_without_a_cotangent_arrive_as_none() -> None:
    arrived: list[list[bool]] = []

    def vjp(node: Node, *cotangents: Tensor | None) -> tuple[Tensor | None]:
        arrived.append([cotangent is not None for cotangent in cotangents])
        present = [cotangent for cotangent in cotangents if cotangent is not None]
        return (sum(present[1:], present[0]),)

    op = make_op("fork", vjp, outputs=3)
    x = leaf([1.0, 2.0])
    first, _, third = apply_all(op, x)
    assert values(cr.gradients(first.sum(), [x])) == [[1.0, 1.0]]
    assert values(cr.gradients((first * third).sum(), [x])) == [[2.0, 4.0]]
    assert arrived == [[True, False, False], [True, False, True]]


def test_an_output_of_several_may_be_differentiated_by() -> None:
    op = make_op("fork", lambda node, *g: (None,), outputs=2)
    first, second = apply_all(op, leaf([1.0, 2.0]))
    assert values(cr.gradients((first * second * second).sum(), [first, second])) == [[1.0, 4.0], [2.0, 8.0]]


def test_pooling_passes_the_gradient_of_its_values() -> None:
    x = leaf(np.arange(4.0).reshape(1, 2, 2, 1))
    pooled, places = cr.ops.max_pool2d(x, 2, return_indices=True)
    assert places.dtype == np.dtype("int32")
    assert np.ravel(values(cr.gradients(pooled.sum(), [x]))[0]).tolist() == [0.0, 0.0, 0.0, 1.0]


# --- What is refused -----------------------------------------------------------------------------------


def test_an_op_without_a_vjp_is_a_named_error() -> None:
    op = make_op("opaque", None)
    x = leaf([1.0, 2.0])
    with scope(layer="block/strange"):
        y = apply(op, x)
    with pytest.raises(
        GradientError, match=r"layer 'block/strange' \(opaque\) has no VJP.*vjp='zero' if its derivative"
    ):
        cr.gradients(y.sum(), [x])


def test_an_op_without_a_vjp_aside_of_the_way_is_no_error() -> None:
    op = make_op("opaque", None)
    x, other = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    assert values(cr.gradients((x * apply(op, other)).sum(), [x])) == [[3.0, 4.0]]


def test_a_zero_vjp_is_no_error() -> None:
    op = make_op("flat", "zero")
    x = leaf([1.0, 2.0])
    assert values(cr.gradients((apply(op, x) * x).sum(), [x])) == [[1.0, 2.0]]


BAD_VJPS: dict[str, tuple[Any, str]] = {
    "too few": (lambda node, g: (), r"the VJP of 'wrong' gave 0 cotangents for 1 inputs"),
    "too many": (lambda node, g: (g, g), r"the VJP of 'wrong' gave 2 cotangents for 1 inputs"),
    "shape": (lambda node, g: (g.sum(),), r"the VJP of 'wrong' gave float64\(\) for an input float64\(2,\)"),
    "dtype": (lambda node, g: (g.astype("float32"),), r"gave float32\(2,\) for an input float64\(2,\)"),
}


@pytest.mark.parametrize(("vjp", "message"), BAD_VJPS.values(), ids=BAD_VJPS.keys())
def test_a_vjp_that_breaks_its_contract_is_a_named_error(vjp: Any, message: str) -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(OpError, match=message):
        cr.gradients(apply(make_op("wrong", vjp), x).sum(), [x])


BAD_CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "not a scalar": (lambda: cr.gradients(leaf([1.0]) * 2, []), GradientError, r"shape \(1,\) needs a cotangent"),
    "not a float": (lambda: cr.gradients(cr.tensor(1), []), GradientError, r"only float tensors .* got int32\(\)"),
    "cotangent": (
        lambda: cr.gradients(leaf([1.0]), [], [cr.tensor(np.ones(2))]),
        ShapeError,
        r"the cotangent float64\(2,\) does not match the output float64\(1,\)",
    ),
    "grad of a vector": (lambda: cr.grad(lambda x: x * 2)([1.0]), GradientError, r"shape \(1,\) needs a cotangent"),
    "grad by an integer": (lambda: cr.grad(lambda x: x)(3), GradientError, r"only float tensors .* got int32\(\)"),
    "argnums": (lambda: cr.grad(lambda x: x, 1)(3.0), GradientError, r"argnums=1 for a function called with 1 arg"),
    "negative argnums": (lambda: cr.grad(lambda x: x, (0, -2))(3.0), GradientError, r"argnums=\(0, -2\)"),
    "vjp": (
        lambda: cr.vjp(lambda x: x * 2, cr.tensor([1.0]))[1](cr.tensor([1.0, 2.0])),
        ShapeError,
        r"the cotangent float32\(2,\) does not match the output float32\(1,\)",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_bad_calls_are_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- How the walk works --------------------------------------------------------------------------------


def test_a_vjp_runs_once_and_only_on_the_way_to_an_input() -> None:
    calls: list[str] = []

    def counted(name: str) -> Op:
        def vjp(node: Node, g: Tensor) -> tuple[Tensor]:
            calls.append(name)
            return (g,)

        return make_op(name, vjp)

    x, other = leaf([1.0]), leaf([2.0])
    trunk = apply(counted("trunk"), x)
    y = apply(counted("left"), trunk) * apply(counted("right"), trunk) * apply(counted("aside"), other)
    apply(counted("unused"), trunk)
    cr.gradients(y.sum(), [x])
    assert sorted(calls) == ["left", "right", "trunk"]
    assert calls[-1] == "trunk"


def test_nothing_below_the_inputs_is_walked() -> None:
    op = make_op("opaque", None)
    middle = apply(op, leaf([1.0, 2.0])) * 3
    assert values(cr.gradients((middle * middle).sum(), [middle])) == [[6.0, 12.0]]


def test_backward_nodes_carry_the_layer_of_their_op() -> None:
    seen: list[Any] = []

    def vjp(node: Node, g: Tensor) -> tuple[Tensor]:
        result = g * 2
        assert result.node is not None
        seen.append(result.node.provenance)
        return (result,)

    op = make_op("spy", vjp)

    def function(x: Tensor) -> Any:
        with scope(layer="block/spy"):
            y = apply(op, x)
        with scope(layer="elsewhere"):
            return cr.grad(lambda t: t.sum())(y), cr.gradients(y.sum(), [x])[0]

    with pytest.raises(cr.errors.GraphError, match="ops_are_registered"):
        cr.trace(function, cr.input_spec((2,)))
    assert [(place.layer, place.phase) for place in seen] == [("block/spy", "backward")]


def test_gradients_record_nothing_under_no_grad() -> None:
    x = leaf(3.0)
    y = x * x
    with cr.no_grad():
        (slope,) = cr.gradients(y, [x])
    assert slope is not None
    assert not slope.requires_grad


# --- Gradients of gradients ----------------------------------------------------------------------------


def derivatives(function: Function, order: int) -> list[Function]:
    """The function and its derivatives."""
    result = [function]
    for _ in range(order):
        result.append(cr.grad(result[-1]))
    return result


ANALYTIC: dict[str, tuple[Function, list[Callable[[float], float]]]] = {
    "x^5": (
        lambda x: x * x * x * x * x,
        [lambda x: x**5, lambda x: 5 * x**4, lambda x: 20 * x**3, lambda x: 60 * x**2],
    ),
    "power": (
        lambda x: x**2.5,
        [lambda x: x**2.5, lambda x: 2.5 * x**1.5, lambda x: 3.75 * x**0.5, lambda x: 1.875 * x**-0.5],
    ),
    "exp(-x^2)": (
        lambda x: cr.ops.exp(-x * x),
        [
            lambda x: math.exp(-x * x),
            lambda x: -2 * x * math.exp(-x * x),
            lambda x: (4 * x * x - 2) * math.exp(-x * x),
            lambda x: (12 * x - 8 * x**3) * math.exp(-x * x),
        ],
    ),
    "log": (cr.ops.log, [math.log, lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3]),
    "1/x": (lambda x: 1 / x, [lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4]),
    "tanh": (
        cr.ops.tanh,
        [
            math.tanh,
            lambda x: 1 - math.tanh(x) ** 2,
            lambda x: -2 * math.tanh(x) * (1 - math.tanh(x) ** 2),
            lambda x: (1 - math.tanh(x) ** 2) * (6 * math.tanh(x) ** 2 - 2),
        ],
    ),
    "sqrt": (
        cr.ops.sqrt,
        [math.sqrt, lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5, lambda x: 0.375 * x**-2.5],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("function", "expected"), ANALYTIC.values(), ids=ANALYTIC.keys())
@given(x=st.floats(0.3, 3.0))
def test_derivatives_to_third_order(function: Function, expected: list[Callable[[float], float]], x: float) -> None:
    argument = cr.tensor(np.array(x))
    for derivative, wanted in zip(derivatives(function, 3), expected, strict=True):
        assert derivative(argument).item() == pytest.approx(wanted(x), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("function", "expected"), ANALYTIC.values(), ids=ANALYTIC.keys())
def test_traced_derivatives_to_third_order(function: Function, expected: list[Callable[[float], float]]) -> None:
    graph = cr.trace(lambda x: tuple(f(x) for f in derivatives(function, 3)), cr.input_spec((), "float64"))
    for got, wanted in zip(Executable(graph)(np.array(0.7)), expected, strict=True):
        assert got == pytest.approx(wanted(0.7), rel=1e-9)


@given(x=st.floats(-3, 3))
@pytest.mark.slow
def test_nested_gradients_do_not_confuse_their_variables(x: float) -> None:
    inner = cr.grad(lambda x: x * cr.grad(lambda y: x + y)(x))
    assert inner(x).item() == 1.0
    same = cr.grad(lambda x: x * cr.grad(lambda y: x * y)(x))
    assert same(x).item() == pytest.approx(2 * x, abs=1e-5)
    own = cr.grad(lambda x: x * cr.grad(lambda x: x * x)(x))
    assert own(x).item() == pytest.approx(4 * x, abs=1e-5)


def test_nested_gradients_do_not_confuse_their_variables_when_traced() -> None:
    nested = cr.grad(lambda x: x * cr.grad(lambda y: x * y * y)(x))
    run = Executable(cr.trace(nested, cr.input_spec((), "float64")))
    assert run(np.array(3.0)) == pytest.approx(3 * 2 * 3.0**2)


def test_a_gradient_of_a_closure_sees_through_it() -> None:
    x = leaf(3.0)
    slope = cr.grad(lambda y: y * x * x)(2.0 * cr.tensor(np.array(1.0)))
    assert slope.item() == 9.0
    assert values(cr.gradients(slope, [x])) == [6.0]


def test_a_hessian_times_a_vector() -> None:
    rng = np.random.default_rng(0)
    matrix, at, along = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)

    def quartic(x: Tensor) -> Tensor:
        y = cr.tensor(matrix) @ (x * x).reshape(3, 1)
        return (y * y).sum()

    product = cr.grad(lambda x: (cr.grad(quartic)(x) * along).sum())(cr.tensor(at))
    inner = matrix.T @ matrix
    hessian = 8 * inner * np.outer(at, at) + np.diag(4 * inner @ (at * at))
    np.testing.assert_allclose(product.numpy(), hessian @ along, rtol=1e-10)


def test_create_graph_lets_backward_be_differentiated() -> None:
    x = leaf(2.0)
    (x * x * x).backward(create_graph=True)
    assert x.grad is not None
    slope = x.grad
    assert slope.requires_grad
    x.grad = None
    slope.backward()
    assert cr.tensor(leaf_gradient(x)).item() == 12.0


def leaf_gradient(x: Tensor) -> np.ndarray:
    assert x.grad is not None
    return x.grad.numpy()


def test_backward_alone_leaves_plain_gradients() -> None:
    x = leaf(2.0)
    (x * x * x).backward()
    assert x.grad is not None
    assert not x.grad.requires_grad


# --- Functions of functions ----------------------------------------------------------------------------


def weighted(a: Any, b: Any, c: Any) -> Tensor:
    total: Tensor = (a * a * b + c * 5).sum()
    return total


@pytest.mark.parametrize(
    ("argnums", "expected"),
    [
        (0, 12.0),
        (1, 4.0),
        (2, 5.0),
        (-1, 5.0),
        ((1,), (4.0,)),
        ((2, 0), (5.0, 12.0)),
        ((0, 0), (12.0, 12.0)),
        ([0, 1, 2], (12.0, 4.0, 5.0)),
    ],
)
def test_arguments_to_differentiate_by(argnums: Any, expected: Any) -> None:
    value, found = cr.value_and_grad(weighted, argnums)(2.0, 3.0, 4.0)
    assert value.item() == 32.0
    assert (tuple(g.item() for g in found) if isinstance(found, tuple) else found.item()) == expected
    alone = cr.grad(weighted, argnums)(2.0, 3.0, 4.0)
    assert (tuple(g.item() for g in alone) if isinstance(alone, tuple) else alone.item()) == expected


def test_other_arguments_may_be_anything() -> None:
    def function(x: Tensor, power: int, options: dict[str, float]) -> Tensor:
        return x**power * options["scale"]

    assert cr.grad(function)(2.0, 3, {"scale": 10.0}).item() == 120.0


@pytest.mark.parametrize("x", [3.0, math.inf, math.nan])
def test_an_argument_without_influence_has_gradient_zero(x: float) -> None:
    assert cr.grad(lambda x: cr.tensor(2.0) * 3)(x).item() == 0.0
    traced = cr.trace(cr.grad(lambda x: cr.tensor(2.0) * 3), cr.input_spec((None, 2)))
    assert Executable(traced)(np.full((3, 2), x, np.float32)).tolist() == [[0.0, 0.0]] * 3


def test_the_pull_back_can_be_used_again() -> None:
    y, pull_back = cr.vjp(lambda a, b: a * b, cr.tensor([1.0, 2.0]), cr.tensor([3.0, 4.0]))
    assert y.numpy().tolist() == [3.0, 8.0]
    assert values(pull_back(cr.tensor([1.0, 1.0]))) == [[3.0, 4.0], [1.0, 2.0]]
    assert values(pull_back([10.0, 0.0])) == [[30.0, 0.0], [10.0, 0.0]]


def test_the_pull_back_of_a_linear_map_is_its_transpose() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 2))
    _, pull_back = cr.vjp(lambda x: cr.tensor(matrix) @ x, cr.tensor(np.ones((2, 1))))
    columns = [pull_back(cr.tensor(np.eye(3)[:, [i]]))[0].numpy() for i in range(3)]
    np.testing.assert_allclose(np.hstack(columns), matrix.T)


def test_a_gradient_does_not_depend_on_no_grad_around_it() -> None:
    with cr.no_grad():
        assert cr.grad(lambda x: x * x)(3.0).item() == 6.0
        value, pull_back = cr.vjp(lambda x: x * x, 3.0)
        assert pull_back(1.0)[0].item() == 6.0
        assert not (cr.tensor(1.0, requires_grad=True) * 2).requires_grad
    assert value.item() == 9.0


def test_variables_can_be_differentiated_by() -> None:
    w = cr.Variable([1.0, 2.0], name="w")
    assert values(cr.gradients((w * w).sum(), [w])) == [[2.0, 4.0]]
    assert w.grad is None


# --- Eager and traced ------------------------------------------------------------------------------------


def network(x: Any, kernel: Any, gamma: Any, beta: Any, dense: Any) -> Tensor:
    """A bit of everything: convolution, normalisation, pooling, softmax cross-entropy."""
    y = cr.ops.conv2d(x, kernel, padding="same")
    y = (y - y.mean(axis=(0, 1, 2))) / cr.ops.sqrt(y.var(axis=(0, 1, 2)) + 1e-3) * gamma + beta
    y = cr.ops.max_pool2d(cr.ops.relu(y) + cr.ops.tanh(y), 2)
    y = y.reshape(y.shape[0], -1) @ dense
    target = cr.ops.one_hot(cr.ops.argmax(y * -1.0, -1), 3)
    loss: Tensor = -(cr.ops.log_softmax(y) * target).sum(axis=-1).mean()
    return loss


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(2, 6, 6, 2), (3, 3, 2, 4), (4,), (4,), (36, 3)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("symbolic", [False, True], ids=["fixed", "symbolic"])
def test_traced_gradients_equal_eager_ones_bit_for_bit(symbolic: bool) -> None:
    def everything(*args: Any) -> tuple[Tensor, ...]:
        loss, slopes = cr.value_and_grad(network, range(5))(*args)
        return (loss, *slopes)

    arrays = inputs()
    specs = [Spec(array.shape, array.dtype) for array in arrays]
    if symbolic:
        specs[0] = cr.input_spec((None, 6, 6, 2))
    traced = Executable(cr.trace(everything, *specs))(*arrays)
    eager = everything(*(cr.tensor(array) for array in arrays))
    for got, expected in zip(traced, eager, strict=True):
        assert got.dtype == FLOAT32
        assert got.tobytes() == expected.numpy().tobytes()


@pytest.mark.slow
def test_traced_second_order_equals_eager_bit_for_bit() -> None:
    def penalty(x: Any, kernel: Any, gamma: Any, beta: Any, dense: Any) -> Any:
        slope = cr.grad(lambda k: network(x, k, gamma, beta, dense))(kernel)
        return cr.grad(lambda k: (cr.grad(lambda q: network(x, q, gamma, beta, dense))(k) * slope.detach()).sum())(
            kernel
        )

    arrays = inputs()
    specs = [cr.input_spec((None, 6, 6, 2)), *(Spec(array.shape, array.dtype) for array in arrays[1:])]
    traced = Executable(cr.trace(penalty, *specs))(*arrays)
    assert traced.tobytes() == penalty(*map(cr.tensor, arrays)).numpy().tobytes()
    assert np.abs(traced).max() > 0


def test_backward_and_gradients_agree() -> None:
    tensors = [cr.tensor(array, requires_grad=True) for array in inputs()]
    network(*tensors).backward()
    again = cr.gradients(network(*tensors), tensors)
    for tensor, expected in zip(tensors, again, strict=True):
        assert expected is not None
        assert leaf_gradient(tensor).tobytes() == expected.numpy().tobytes()


def test_the_same_walk_gives_the_same_bits() -> None:
    tensors = [cr.tensor(array, requires_grad=True) for array in inputs()]
    first, second = (cr.gradients(network(*tensors), tensors) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        assert one.numpy().tobytes() == other.numpy().tobytes()
