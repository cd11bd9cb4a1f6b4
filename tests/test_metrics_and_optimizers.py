"""Metrics and optimizers: results by definition, eager and traced alike, names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, metrics, optimizers
from chainrule.engines import Executable
from chainrule.errors import ConfigError, GradientError
from chainrule.graph import tensor

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.4, 0.4, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("metric", "target", "prediction", "wanted"),
    [
        (metrics.SparseCategoricalAccuracy(), np.array([1, 0, 0, 0]), SCORES, 0.75),
        (metrics.SparseCategoricalAccuracy(), np.array([[1], [0], [0], [1]]), SCORES, 0.5),
        (metrics.CategoricalAccuracy(), np.eye(3)[[1, 0, 0, 0]], SCORES, 0.75),
        (metrics.BinaryAccuracy(), np.array([[1.0], [0.0]]), np.array([[0.9], [0.2]], np.float32), 1.0),
        (metrics.BinaryAccuracy(), np.array([1.0, 0.0]), np.array([[0.9], [0.7]], np.float32), 0.5),
        (metrics.BinaryAccuracy(0.0), np.array([[1, 1], [0, 0]]), np.array([[3.0, -1], [-2, -3]], np.float32), 0.75),
    ],
)
def test_accuracies(metric: metrics.Metric, target: Any, prediction: np.ndarray, wanted: float) -> None:
    metric.update_state(target, tensor(prediction))
    assert metric.result() == wanted
    metric.reset_state()
    assert np.isnan(metric.result())
    for part in (slice(0, 1), slice(1, None)):
        metric.update_state(target[part], tensor(prediction[part]))
    assert metric.result() == pytest.approx(wanted)


def test_metrics_average_over_samples_not_batches() -> None:
    metric = metrics.SparseCategoricalAccuracy()
    metric.update_state([1], tensor(SCORES[:1]))
    metric.update_state([2, 1, 2], tensor(SCORES[1:]))
    assert metric.result() == 0.25


def test_a_traced_metric_keeps_its_totals_in_state() -> None:
    metric = metrics.SparseCategoricalAccuracy()

    def update(y: Any, p: Any) -> dict[str, Any]:
        metric.update_state(y, p)
        return {}

    run = Executable(cr.trace(update, cr.input_spec((None,), "int32"), cr.input_spec((None, 3))))
    run(np.array([1, 0, 0, 0], np.int32), SCORES)
    run(np.array([1], np.int32), SCORES[:1])
    assert metric.result() == 0.8


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("sparse_categorical_crossentropy", metrics.SparseCategoricalAccuracy),
        ("categorical_crossentropy", metrics.CategoricalAccuracy),
        ("binary_crossentropy", metrics.BinaryAccuracy),
    ],
)
def test_accuracy_by_name_suits_the_loss(loss: str, kind: type[metrics.Metric]) -> None:
    found = metrics.get_metric("accuracy", losses.get_loss(loss))
    assert isinstance(found, kind)
    assert found.name == "accuracy"


def test_binary_accuracy_of_logits_has_its_threshold_at_zero() -> None:
    found = metrics.get_metric("accuracy", losses.BinaryCrossentropy(from_logits=True))
    assert isinstance(found, metrics.BinaryAccuracy)
    assert found.threshold == 0.0


@pytest.mark.parametrize("name", ["accuracy", "acuity"])
def test_metrics_that_do_not_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="has no accuracy" if name == "accuracy" else "unknown metric 'acuity'"):
        metrics.get_metric(name, losses.MeanSquaredError())


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.05),
        lambda: optimizers.SGD(0.05, momentum=0.9),
        lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: optimizers.Adam(0.05),
        lambda: optimizers.RMSprop(0.05),
        lambda: optimizers.RMSprop(0.05, momentum=0.5),
    ],
)
def test_eager_steps_and_traced_steps_give_the_same_bits(make: Callable[[], optimizers.Optimizer]) -> None:
    start = np.random.Generator(np.random.PCG64(0)).normal(size=(3, 2)).astype(np.float32)
    eager, traced = cr.Variable(start, name="w"), cr.Variable(start, name="w")
    first, second = make(), make()

    def step(rate: Any) -> Any:
        loss = ((traced * traced) * 0.5 + traced).sum()
        second.apply([g for g in cr.gradients(loss, [traced]) if g is not None], [traced], rate)
        return loss

    run = Executable(cr.trace(step, cr.input_spec((), "float64")))
    for _ in range(5):
        first.zero_grad([eager])
        ((eager * eager) * 0.5 + eager).sum().backward()
        first.step([eager])
        run(np.float64(second.learning_rate))
    np.testing.assert_array_equal(eager.numpy(), traced.numpy())
    assert int(first.iterations.data) == int(second.iterations.data) == 5
    for a, b in zip(first.variables(), second.variables(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_adam_follows_kerass_formula() -> None:
    w = cr.Variable(np.array([1.0, -2.0]), name="w")
    adam = optimizers.Adam(0.1, 0.8, 0.9, epsilon=0.5)
    value, m, v = w.numpy(), np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        g = np.array([0.3, -0.7]) * t
        w.grad = tensor(g)
        adam.step([w])
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        value = value - 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 0.5)
        np.testing.assert_allclose(w.numpy(), value, rtol=1e-14)


def test_rmsprop_follows_kerass_formula() -> None:
    w = cr.Variable(np.array([1.0, -2.0]), name="w")
    rms = optimizers.RMSprop(0.1, 0.8, momentum=0.6, epsilon=0.5)
    value, v, u = w.numpy(), np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        g = np.array([0.3, -0.7]) * t
        w.grad = tensor(g)
        rms.step([w])
        v = 0.8 * v + 0.2 * g * g
        u = 0.6 * u + 0.1 * g / np.sqrt(v + 0.5)
        value = value - u
        np.testing.assert_allclose(w.numpy(), value, rtol=1e-14)


def test_step_without_gradients_is_an_error() -> None:
    with pytest.raises(GradientError, match=r"call loss\.backward"):
        optimizers.SGD().step([cr.Variable([1.0])])


def test_step_leaves_parameters_without_gradient_alone() -> None:
    a, b = cr.Variable([1.0], name="a"), cr.Variable([1.0], name="b")
    (a * 2).sum().backward()
    optimizers.SGD(0.5).step([a, b])
    assert (a.numpy()[0], b.numpy()[0]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.SGD(-1), "learning rate is a number >= 0"),
        (
            lambda: optimizers.get_optimizer({"class": "SGD", "config": {"learning_rate": "fast"}}),
            "learning rate is a number >= 0",
        ),
        (lambda: optimizers.SGD(momentum=1.0), "momentum lies in"),
        (lambda: optimizers.Adam(beta_1=2), "beta_1 lies in"),
        (lambda: optimizers.Adam(epsilon=-1), "epsilon must not be negative"),
        (lambda: optimizers.RMSprop(rho=-0.1), "rho lies in"),
        (lambda: optimizers.get_optimizer("adamax"), "unknown optimizer 'adamax'"),
        (lambda: setattr(optimizers.SGD(), "learning_rate", float("nan")), "learning rate"),
    ],
)
def test_arguments_that_are_none(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_optimizers_by_name_and_configuration() -> None:
    for name, kind in (("sgd", optimizers.SGD), ("Adam", optimizers.Adam), ("rmsprop", optimizers.RMSprop)):
        found = optimizers.get_optimizer(name)
        assert isinstance(found, kind)
        again = optimizers.get_optimizer({"class": kind.__name__, "config": found.get_config()})
        assert again.get_config() == found.get_config()
