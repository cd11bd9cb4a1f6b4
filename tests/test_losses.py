"""Losses: values against their definitions, the stable rewriting, gradients, and targets that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, ops
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.graph import tensor
from tests.ops.harness import central_differences, relative_error

RNG = np.random.Generator(np.random.PCG64(11))
LOGITS = RNG.normal(size=(6, 4))
LABELS = RNG.integers(0, 4, 6)
ONE_HOT = np.eye(4)[LABELS]
YES = RNG.integers(0, 2, (6, 4)).astype(float)


def _softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(
    ("loss", "target", "prediction", "wanted"),
    [
        (losses.MeanSquaredError(), YES, LOGITS, ((LOGITS - YES) ** 2).mean(1)),
        (losses.CategoricalCrossentropy(), ONE_HOT, _softmax(LOGITS), -np.log((_softmax(LOGITS) * ONE_HOT).sum(1))),
        (losses.CategoricalCrossentropy(True), ONE_HOT, LOGITS, -np.log((_softmax(LOGITS) * ONE_HOT).sum(1))),
        (
            losses.CategoricalCrossentropy(True, 0.1),
            ONE_HOT,
            LOGITS,
            -((ONE_HOT * 0.9 + 0.025) * np.log(_softmax(LOGITS))).sum(1),
        ),
        (losses.SparseCategoricalCrossentropy(True), LABELS, LOGITS, -np.log((_softmax(LOGITS) * ONE_HOT).sum(1))),
        (
            losses.SparseCategoricalCrossentropy(),
            LABELS,
            _softmax(LOGITS),
            -np.log((_softmax(LOGITS) * ONE_HOT).sum(1)),
        ),
        (
            losses.BinaryCrossentropy(True),
            YES,
            LOGITS,
            -(YES * np.log(_sigmoid(LOGITS)) + (1 - YES) * np.log(1 - _sigmoid(LOGITS))).mean(1),
        ),
        (
            losses.BinaryCrossentropy(),
            YES,
            _sigmoid(LOGITS),
            -(YES * np.log(_sigmoid(LOGITS)) + (1 - YES) * np.log(1 - _sigmoid(LOGITS))).mean(1),
        ),
    ],
)
def test_values_and_gradients(loss: losses.Loss, target: Any, prediction: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(loss.call(target, tensor(prediction)).data, wanted, rtol=1e-6)
    np.testing.assert_allclose(loss(target, tensor(prediction)).data, wanted.mean(), rtol=1e-6)
    x = tensor(prediction, requires_grad=True)
    loss(target, x).backward()
    assert x.grad is not None
    numeric = central_differences(lambda a: float(loss(target, tensor(a[0])).data), [prediction], 0)
    assert relative_error(x.grad.data, numeric) < 1e-6


@pytest.mark.parametrize(
    ("function", "activation", "target"),
    [
        (losses.sparse_categorical_crossentropy, ops.softmax, LABELS),
        (losses.categorical_crossentropy, ops.softmax, ONE_HOT),
        (losses.binary_crossentropy, ops.sigmoid, YES),
    ],
)
def test_probabilities_of_an_activation_are_rewritten_to_logits(
    function: Callable[..., cr.Tensor], activation: Callable[[Any], cr.Tensor], target: Any
) -> None:
    """Far out, the probability rounds to 0 and 1, the loss from logits does not; gradients stay exact."""
    scale = 200.0
    z = tensor(LOGITS * scale, requires_grad=True)
    found = function(target, activation(z))
    wanted = function(target, tensor(LOGITS * scale), from_logits=True)
    np.testing.assert_array_equal(found.data, wanted.data)
    found.backward()
    w = tensor(LOGITS * scale, requires_grad=True)
    function(target, w, from_logits=True).backward()
    assert z.grad is not None
    assert w.grad is not None
    np.testing.assert_array_equal(z.grad.data, w.grad.data)


def test_the_rewriting_happens_in_the_traced_step_too() -> None:
    model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(4, activation="softmax")])
    graph = cr.trace(
        lambda x, y: losses.sparse_categorical_crossentropy(y, model(x)),
        cr.input_spec((None, 4)),
        cr.input_spec((None,), "int32"),
    )
    names = [node.op.name for node in graph.nodes]
    assert "log_softmax" in names
    assert "softmax" not in names


def test_a_softmax_over_another_axis_is_left_alone() -> None:
    z = tensor(LOGITS, requires_grad=True)
    p = ops.softmax(z, axis=0)
    wanted = losses.categorical_crossentropy(ONE_HOT, tensor(p.data))
    np.testing.assert_allclose(losses.categorical_crossentropy(ONE_HOT, p).data, wanted.data)


def test_probabilities_of_zero_stay_finite() -> None:
    p = tensor(np.array([[0.0, 1.0]]))
    assert np.isfinite(losses.categorical_crossentropy([[1.0, 0.0]], p).item())
    assert np.isfinite(losses.binary_crossentropy([[1.0, 0.0]], p).item())


def test_sparse_labels_for_every_pixel() -> None:
    logits = RNG.normal(size=(2, 3, 3, 5))
    labels = RNG.integers(0, 5, (2, 3, 3))
    found = losses.sparse_categorical_crossentropy(labels, tensor(logits), from_logits=True)
    wanted = -np.log(np.take_along_axis(_softmax(logits), labels[..., None], -1)).mean()
    np.testing.assert_allclose(found.data, wanted)


def test_targets_of_one_output_may_lack_the_last_axis() -> None:
    y, p = np.array([1.0, 0.0]), tensor(np.array([[2.0], [1.0]]))
    assert losses.mean_squared_error(y, p).item() == 1.0


def test_reductions() -> None:
    y, p = np.array([[1.0], [3.0]]), tensor(np.zeros((2, 1)))
    assert losses.mean_squared_error(y, p, reduction="sum").item() == 10.0
    np.testing.assert_array_equal(losses.mean_squared_error(y, p, reduction=None).data, [1.0, 9.0])
    with pytest.raises(ConfigError, match="reduction must be"):
        losses.mean_squared_error(y, p, reduction="average")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: losses.mean_squared_error(np.zeros(3), tensor(np.zeros((3, 2)))), ShapeError, "do not fit"),
        (lambda: losses.mean_squared_error(np.zeros((3, 1)), tensor(np.zeros(3))), ShapeError, "do not fit"),
        (lambda: losses.categorical_crossentropy(LABELS, tensor(LOGITS)), ShapeError, "do not fit"),
        (lambda: losses.sparse_categorical_crossentropy(ONE_HOT, tensor(LOGITS)), DTypeError, "integer labels"),
        (
            lambda: losses.sparse_categorical_crossentropy(ONE_HOT.astype(int), tensor(LOGITS)),
            ShapeError,
            "for one-hot labels use categorical_crossentropy",
        ),
        (lambda: losses.CategoricalCrossentropy(label_smoothing=1.0), ConfigError, "label_smoothing"),
        (lambda: losses.get_loss("hinge"), ConfigError, "unknown loss 'hinge'"),
    ],
)
def test_targets_that_do_not_fit(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_losses_by_name_function_and_configuration() -> None:
    for value in ("mse", "mean_squared_error", "MeanSquaredError", losses.mean_squared_error):
        assert isinstance(losses.get_loss(value), losses.MeanSquaredError)
    loss = losses.get_loss({"class": "SparseCategoricalCrossentropy", "config": {"from_logits": True}})
    assert loss.get_config() == {"from_logits": True}
