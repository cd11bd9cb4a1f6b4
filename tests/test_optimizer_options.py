"""What every optimizer takes: decay, clipping, averages, accumulation, rates by layer; against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import optimizers
from chainrule.errors import ConfigError

Array = np.ndarray[Any, Any]


def stepped(
    optimizer: optimizers.Optimizer, values: dict[str, Array], gradients: list[dict[str, Array]]
) -> dict[str, Array]:
    """Variables after steps with given gradients."""
    variables = [cr.Variable(value, name=name) for name, value in values.items()]
    for given in gradients:
        optimizer.apply([cr.tensor(given[v.name]) for v in variables], variables)
    return {v.name: v.numpy() for v in variables}


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(3))


VALUES = {"a/kernel": rng().normal(size=(3, 2)), "b/kernel": rng().normal(size=4)}
GRADIENTS = [{name: rng().normal(size=value.shape) * 3 for name, value in VALUES.items()} for _ in range(3)]


def sgd(
    values: dict[str, Array], change: Callable[[str, dict[str, Array]], Array], rate: float = 0.1
) -> dict[str, Array]:
    result = dict(values)
    for given in GRADIENTS:
        result = {name: value - rate * change(name, given) for name, value in result.items()}
    return result


def assert_close(found: dict[str, Array], wanted: dict[str, Array]) -> None:
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)


def test_clipvalue() -> None:
    found = stepped(optimizers.SGD(0.1, clipvalue=0.5), VALUES, GRADIENTS)
    assert_close(found, sgd(VALUES, lambda name, given: np.clip(given[name], -0.5, 0.5)))


def test_clipnorm() -> None:
    def clipped(name: str, given: dict[str, Array]) -> Array:
        norm = np.linalg.norm(given[name])
        return given[name] * min(1, 2.0 / norm)

    assert_close(stepped(optimizers.SGD(0.1, clipnorm=2.0), VALUES, GRADIENTS), sgd(VALUES, clipped))


def test_global_clipnorm() -> None:
    def clipped(name: str, given: dict[str, Array]) -> Array:
        norm = np.sqrt(sum((value**2).sum() for value in given.values()))
        return given[name] * min(1, 2.0 / norm)

    assert_close(stepped(optimizers.SGD(0.1, global_clipnorm=2.0), VALUES, GRADIENTS), sgd(VALUES, clipped))


def test_short_gradients_are_left_alone_to_the_bit() -> None:
    gradient = {"w": np.array([1e-3, -2e-3])}
    for options in ({"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}):
        found = stepped(optimizers.SGD(0.5, **options), {"w": np.zeros(2)}, [gradient])  # type: ignore[arg-type]
        assert found["w"].tolist() == (-0.5 * gradient["w"]).tolist()


def test_a_norm_of_nan_stays_nan() -> None:
    for options in ({"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}):
        found = stepped(optimizers.SGD(0.5, **options), {"w": np.zeros(2)}, [{"w": np.array([np.nan, 1.0])}])  # type: ignore[arg-type]
        assert np.isnan(found["w"][0])


def test_large_float32_norms_do_not_overflow() -> None:
    found = stepped(
        optimizers.SGD(1.0, clipnorm=1.0), {"w": np.zeros(2, np.float32)}, [{"w": np.array([3e30, 4e30], np.float32)}]
    )
    np.testing.assert_allclose(found["w"], [-0.6, -0.8], rtol=1e-6)


def test_decoupled_decay_comes_before_the_update() -> None:
    result = dict(VALUES)
    for given in GRADIENTS:
        result = {name: value * (1 - 0.1 * 0.01) - 0.1 * given[name] for name, value in result.items()}
    assert_close(stepped(optimizers.SGD(0.1, weight_decay=0.01), VALUES, GRADIENTS), result)


def test_some_weights_are_not_decayed() -> None:
    plain = stepped(optimizers.SGD(0.1), VALUES, GRADIENTS)
    decayed = stepped(optimizers.SGD(0.1, weight_decay=0.5), VALUES, GRADIENTS)
    found = stepped(optimizers.SGD(0.1, weight_decay=0.5, no_decay=["b/"]), VALUES, GRADIENTS)
    assert_close(found, {"a/kernel": decayed["a/kernel"], "b/kernel": plain["b/kernel"]})


def test_adamw_is_adam_with_decay() -> None:
    one = stepped(optimizers.AdamW(0.01, weight_decay=0.1), VALUES, GRADIENTS)
    other = stepped(optimizers.Adam(0.01, weight_decay=0.1), VALUES, GRADIENTS)
    plain = stepped(optimizers.AdamW(0.01, weight_decay=None), VALUES, GRADIENTS)
    assert_close(one, other)
    assert_close(plain, stepped(optimizers.Adam(0.01), VALUES, GRADIENTS))
    assert np.abs(one["a/kernel"] - plain["a/kernel"]).max() > 1e-4


def test_rates_by_layer() -> None:
    found = stepped(optimizers.SGD(0.1, rate_multipliers={"a": 0.5, "b/kernel": 0.0}), VALUES, GRADIENTS)
    assert_close(found, {"a/kernel": sgd(VALUES, lambda n, g: g[n], 0.05)["a/kernel"], "b/kernel": VALUES["b/kernel"]})


def test_the_average_of_a_weight_that_joins_later_begins_with_its_value() -> None:
    optimizer = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    first, later = cr.Variable(np.array([1.0]), name="a"), cr.Variable(np.array([5.0]), name="b")
    for _ in range(2):
        optimizer.apply([cr.tensor(np.array([1.0]))], [first])
    optimizer.apply([cr.tensor(np.array([1.0]))] * 2, [first, later])
    np.testing.assert_allclose(optimizer.average_of(later).numpy(), 0.9 * 5.0 + 0.1 * 4.9, rtol=1e-12)


def test_averages() -> None:
    optimizer = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    variable = cr.Variable(np.array([1.0, 2.0]), name="w")
    average = np.zeros(2)
    for gradient in ([1.0, 0.0], [0.0, 1.0], [2.0, 2.0]):
        optimizer.apply([cr.tensor(np.array(gradient))], [variable])
        first = int(optimizer.iterations.data) == 1
        average = variable.numpy() if first else 0.9 * average + 0.1 * variable.numpy()
    np.testing.assert_allclose(optimizer.average_of(variable).numpy(), average, rtol=1e-12)
    with pytest.raises(ConfigError, match="keeps no averages; make it with use_ema=True"):
        optimizers.SGD().average_of(variable)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(engine: str) -> None:
    """Dropout too: rows are counted through the group.  The last group of an epoch has fewer batches."""
    x = rng().normal(size=(44, 6)).astype(np.float64)
    y = rng().normal(size=(44, 2)).astype(np.float64)

    def trained(batch_size: int, steps: int | None) -> list[Array]:
        cr.set_seed(5)
        kinds = cr.layers
        model = cr.Sequential(
            [
                cr.Input((6,), dtype="float64"),
                kinds.Dense(5, activation="tanh", kernel_regularizer="l2"),
                kinds.Dropout(0.3),
                kinds.Dense(2),
            ]
        )
        model.compile(optimizers.Adam(0.01, gradient_accumulation_steps=steps), "mse", engine=engine)
        history = model.fit(x, y, batch_size=batch_size, epochs=3, verbose=0)
        return [*model.get_weights(), np.array(history.history["loss"])]

    for found, wanted in zip(trained(4, 4), trained(16, None), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipnorm": -1}, "SGD: clipnorm must be a positive number or None, got -1"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "SGD: give one of clipvalue and clipnorm, not both"),
        ({"ema_momentum": 1.0}, r"SGD: ema_momentum lies in \[0, 1\), got 1.0"),
        ({"gradient_accumulation_steps": 0}, "must be a positive integer, got 0"),
        ({"rate_multipliers": {"a": -1}}, "the rate multiplier of 'a' must be a number >= 0, got -1"),
        ({"momentun": 0.9}, "SGD: unknown argument 'momentun'; beside its own it takes weight_decay"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizers.SGD(0.1, **options)


def test_a_multiplier_for_no_weight_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="for 'c', but no weight's name begins so; the weights are a/kernel, b/kernel"
    ):
        stepped(optimizers.SGD(0.1, rate_multipliers={"c": 2.0}), VALUES, GRADIENTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.AdamW(0.1, weight_decay=None),
        lambda: optimizers.Adam(0.1, clipnorm=1.0, use_ema=True, rate_multipliers={"a": 0.5}, no_decay=("bias",)),
        lambda: optimizers.RMSprop(0.1, gradient_accumulation_steps=4),
    ],
)
def test_options_survive_a_description(make: Callable[[], optimizers.Optimizer]) -> None:
    optimizer = make()
    again = optimizers.get_optimizer({"class": type(optimizer).__name__, "config": optimizer.get_config()})
    assert again.get_config() == optimizer.get_config()
