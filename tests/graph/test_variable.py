"""Variables: boxes for values that training changes, each change checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Spec
from chainrule.graph.tensor import as_tensor

FLOAT2 = Spec((2,), np.dtype("float32"))


def gradient(variable: cr.Variable) -> list[float]:
    """The gradient that `backward` left."""
    assert variable.grad is not None
    values: list[float] = variable.grad.numpy().tolist()
    return values


# --- First values ---------------------------------------------------------------------------------


def test_the_spec_follows_from_the_first_value() -> None:
    variable = cr.Variable([[1.0, 2.0]], name="w")
    assert (variable.shape, variable.dtype, variable.spec) == ((1, 2), np.dtype("float32"), cr.input_spec((1, 2)))


def test_an_initializer_runs_once_and_late() -> None:
    asked: list[Spec] = []

    def ones(spec: Spec) -> np.ndarray:
        asked.append(spec)
        return np.ones(spec.shape, spec.dtype)

    variable = cr.Variable(ones, FLOAT2, name="w")
    assert asked == []
    assert variable.numpy().tolist() == [1.0, 1.0]
    assert (variable * 2).numpy().tolist() == [2.0, 2.0]
    assert asked == [FLOAT2]


def test_tracing_draws_no_first_value() -> None:
    def refuse(spec: Spec) -> np.ndarray:
        raise AssertionError("drawn while tracing")

    variable = cr.Variable(refuse, FLOAT2, name="w")
    cr.trace(lambda x: x * variable, cr.input_spec((None, 2)))


def test_an_assignment_replaces_a_first_value_that_was_never_drawn() -> None:
    variable = cr.Variable(lambda spec: np.zeros(2, np.float32), FLOAT2, name="w")
    variable.assign([3.0, 4.0])
    assert variable.numpy().tolist() == [3.0, 4.0]


def test_an_initializer_needs_a_spec() -> None:
    with pytest.raises(ShapeError, match="variable 'w': an initializer needs the spec of what to make"):
        cr.Variable(lambda spec: np.zeros(2, np.float32), name="w")


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (np.zeros(3, np.float32), ShapeError, r"variable 'w' has shape \(2,\).* of shape \(3,\)"),
        (np.zeros(2), DTypeError, r"variable 'w' is float32; it cannot be assigned float64"),
    ],
)
def test_what_an_initializer_makes_is_checked(made: np.ndarray, error: type[Exception], message: str) -> None:
    variable = cr.Variable(lambda spec: made, FLOAT2, name="w")
    with pytest.raises(error, match=message):
        variable.numpy()


# --- Assignments ----------------------------------------------------------------------------------


VALUES: list[Any] = [
    [5.0, 6.0],
    [5, 6],
    (5, 6),
    np.array([5.0, 6.0]),
    np.array([5.0, 6.0], np.float32),
    cr.tensor([5.0, 6.0]),
    cr.Variable([5.0, 6.0], name="other"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_that_can_be_assigned(value: Any) -> None:
    variable = cr.Variable([1.0, 2.0], name="w")
    variable.assign(value)
    assert variable.numpy().tolist() == [5.0, 6.0]
    assert variable.dtype == np.dtype("float32")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1.0], ShapeError, r"variable 'w' has shape \(2,\); it cannot be assigned a value of shape \(1,\)"),
        (3.0, ShapeError, r"a value of shape \(\)"),
        (cr.tensor([[1.0, 2.0]]), ShapeError, r"a value of shape \(1, 2\)"),
        (cr.tensor(np.zeros(2)), DTypeError, r"variable 'w' is float32; it cannot be assigned float64"),
        (cr.tensor([1, 2]), DTypeError, r"variable 'w' is float32; it cannot be assigned int32"),
    ],
)
def test_values_that_cannot_be_assigned(value: Any, error: type[Exception], message: str) -> None:
    variable = cr.Variable([1.0, 2.0], name="w")
    with pytest.raises(error, match=message):
        variable.assign(value)
    assert variable.numpy().tolist() == [1.0, 2.0]


def test_a_traced_value_of_another_dtype_is_refused() -> None:
    variable = cr.Variable([1.0, 2.0], name="w")

    def function(x: cr.Tensor) -> cr.Tensor:
        variable.assign(x)
        return x

    with pytest.raises(DTypeError, match="variable 'w' is float32; it cannot be assigned float64"):
        cr.trace(function, cr.input_spec((2,), "float64"))


def test_the_value_is_read_only_and_ones_own() -> None:
    array = np.array([5.0, 6.0], np.float32)
    variable = cr.Variable(array, name="w")
    array[:] = 0
    assert variable.numpy().tolist() == [5.0, 6.0]
    variable.assign(array)
    array[:] = 9
    assert variable.numpy().tolist() == [0.0, 0.0]
    variable.numpy()[:] = 7
    assert variable.numpy().tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        variable.data[0] = 1


def test_an_earlier_result_does_not_change_with_the_variable() -> None:
    variable = cr.Variable([1.0, 2.0], name="w")
    before, product = as_tensor(variable), variable * 2
    variable.assign([5.0, 6.0])
    assert before.numpy().tolist() == [1.0, 2.0]
    assert product.numpy().tolist() == [2.0, 4.0]


# --- As an operand --------------------------------------------------------------------------------


def test_a_variable_stands_for_its_value() -> None:
    w = cr.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
    x = np.array([[1.0, -1.0]], np.float32)
    assert (x @ w).numpy().tolist() == [[-2.0, -2.0]]
    assert (w @ x.T).numpy().tolist() == [[-1.0], [-1.0]]
    assert (2 - w).numpy().tolist() == [[1.0, 0.0], [-1.0, -2.0]]
    assert w[0].numpy().tolist() == [1.0, 2.0]
    assert w.T.numpy().tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert w.sum().item() == 10.0
    assert cr.ops.concat([w, w], axis=0).shape == (4, 2)


# --- Gradients ------------------------------------------------------------------------------------


def test_backward_fills_the_gradient_of_the_variable() -> None:
    w = cr.Variable([1.0, 2.0], name="w")
    (w * w).sum().backward()
    (w * 3).sum().backward()
    assert gradient(w) == [5.0, 7.0]


def test_backward_after_an_assignment_belongs_to_the_value_that_was_read() -> None:
    w = cr.Variable([1.0, 2.0], name="w")
    loss = (w * w).sum()
    w.assign([10.0, 20.0])
    loss.backward()
    assert gradient(w) == [2.0, 4.0]
    w.grad = None
    (w * w).sum().backward()
    assert gradient(w) == [20.0, 40.0]


def test_frozen_variables_have_no_gradient() -> None:
    w, frozen = cr.Variable([1.0], name="w"), cr.Variable([5.0], name="frozen", trainable=False)
    (w * frozen).sum().backward()
    assert gradient(w) == [5.0]
    assert frozen.grad is None


def test_freezing_and_thawing_takes_effect_at_once() -> None:
    w = cr.Variable([3.0], name="w")
    assert as_tensor(w).requires_grad
    w.trainable = False
    assert not (w * 2).requires_grad
    w.trainable = True
    (w * 2).sum().backward()
    assert gradient(w) == [2.0]


def test_gradients_of_a_traced_function_reach_frozen_variables_too() -> None:
    frozen = cr.Variable([5.0], name="frozen", trainable=False)
    graph = cr.trace(lambda x: cr.gradients((x * frozen).sum(), [frozen])[0], cr.input_spec((1,)))
    assert Executable(graph)(np.array([3.0], np.float32)).tolist() == [3.0]


def test_representation() -> None:
    assert repr(cr.Variable([1.0], name="w")) == "<Variable 'w' float32(1,)>"
    assert repr(cr.Variable([1.0], name="w", trainable=False)) == "<Variable, not trainable 'w' float32(1,)>"
