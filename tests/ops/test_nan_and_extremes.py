"""A NaN is never swallowed, and nothing overflows where the result is finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.graph import tensor

NAN = float("nan")


@pytest.mark.parametrize(
    "function",
    [
        ops.relu,
        ops.leaky_relu,
        ops.elu,
        ops.gelu,
        ops.silu,
        ops.softplus,
        ops.sigmoid,
        ops.tanh,
        ops.abs,
        ops.sign,
        lambda x: ops.prelu(x, tensor(0.1)),
        lambda x: ops.clip(x, 0, 1),
        lambda x: ops.maximum(x, 0),
        lambda x: ops.maximum(0, x),
        lambda x: ops.minimum(x, 0),
        lambda x: ops.minimum(0, x),
    ],
)
def test_elementwise_ops_keep_a_nan_forward_and_backward(function: Callable[[Any], cr.Tensor]) -> None:
    x = tensor([NAN, 1.5], requires_grad=True)
    y = function(x)
    assert np.isnan(y.data[0])
    assert not np.isnan(y.data[1])


@pytest.mark.parametrize("function", [ops.relu, ops.leaky_relu, ops.silu, ops.tanh])
def test_a_nan_cotangent_passes_where_the_input_is_nan(function: Callable[[Any], cr.Tensor]) -> None:
    x = tensor([NAN], requires_grad=True)
    (g,) = cr.gradients([function(x)], [x], [tensor([NAN])])
    assert g is not None
    assert np.isnan(g.data[0])


@pytest.mark.parametrize("place", range(4))
def test_max_pool_keeps_a_nan_wherever_it_stands(place: int) -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    values[place] = NAN
    y, index = ops.max_pool2d(tensor(values.reshape(1, 2, 2, 1)), 2, return_indices=True)
    assert np.isnan(y.item())
    assert index.item() == place


def test_max_pool_of_minus_infinity_points_into_the_image() -> None:
    x = tensor(np.full((1, 2, 2, 1), -np.inf), requires_grad=True)
    y = ops.max_pool2d(x, 2, stride=2, padding=1)
    (g,) = cr.gradients([y], [x], [tensor(np.ones((1, 2, 2, 1)))])
    assert g is not None
    assert (y.data == -np.inf).all()
    assert g.data.sum() == 4


def test_reductions_keep_a_nan() -> None:
    x = tensor([1.0, NAN, 5.0])
    assert all(np.isnan(f(x).item()) for f in (ops.max, ops.sum, ops.mean, ops.var))
    assert ops.argmax(x).item() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_logits_do_not_overflow(dtype: str) -> None:
    z = tensor(np.array([[1e4, 0.0, -1e4]], dtype), requires_grad=True)
    np.testing.assert_array_equal(ops.softmax(z).data, [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(ops.log_softmax(z).data, [[0.0, -1e4, -2e4]])
    np.testing.assert_array_equal(ops.sigmoid(z).data, [[1.0, 0.5, 0.0]])
    np.testing.assert_array_equal(ops.softplus(z).data[0, [0, 2]], [1e4, 0.0])
    loss = cr.losses.sparse_categorical_crossentropy([2], z, from_logits=True)
    loss.backward()
    assert z.grad is not None
    assert loss.item() == 2e4
    np.testing.assert_array_equal(z.grad.data, [[1.0, 0.0, -1.0]])


def test_sigmoid_keeps_relative_accuracy_far_below_zero() -> None:
    x = np.array([-50.0, -80.0])
    np.testing.assert_allclose(ops.sigmoid(tensor(x)).data, np.exp(x), rtol=1e-14)


def test_where_does_not_leak_the_branch_not_taken() -> None:
    x = tensor([0.0, 4.0], requires_grad=True)
    ops.sum(ops.where(x > 0, ops.sqrt(ops.where(x > 0, x, 1)), 0)).backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0.0, 0.25])


def test_float32_sums_are_rounded_once() -> None:
    """A million summands of 0.1: a float32 accumulator would be off in the third digit."""
    x = tensor(np.full((1000, 1000), 0.1, np.float32))
    exact = np.float32(np.sum(x.data, dtype=np.float64))
    assert ops.sum(x).item() == exact
    assert ops.sum_to(x, ()).item() == exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tensor([1, 300], "uint8"), "do not fit uint8"),
        (lambda: tensor([NAN], "int32"), "do not fit int32"),
        (lambda: tensor([1.5], "int32"), "do not fit int32"),
        (lambda: tensor([1.0], "abc"), "'abc' is no dtype"),
        (lambda: tensor([True]) + 5, "have no arithmetic"),
        (lambda: tensor([[1], [1, 2]]), "do not form an array"),
        (lambda: cr.grad(lambda x: 3.0)(1.0), "must return a tensor; it returned float"),  # type: ignore[arg-type,return-value]
    ],
)
def test_values_are_never_changed_silently(call: Callable[[], object], message: str) -> None:
    with pytest.raises(cr.errors.ChainruleError, match=message):
        call()


def test_scalars_print_as_numbers_do() -> None:
    assert f"{tensor(2.5):.2f} {round(tensor(2.56), 1)}" == "2.50 2.6"


def test_an_empty_batch_passes_a_convolution() -> None:
    x = tensor(np.zeros((0, 5, 5, 2), np.float32), requires_grad=True)
    y = ops.conv2d(x, tensor(np.ones((3, 3, 2, 4), np.float32)))
    assert y.shape == (0, 3, 3, 4)
    ops.sum(y).backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
