"""Which engine trains, what it says of an op that it cannot compile, and where a step's time goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import executable
from chainrule.engines.native.executable import compiled
from chainrule.engines.reference import Executable as Reference
from chainrule.errors import ConfigError
from chainrule.graph import BATCH, Spec
from chainrule.random import words
from chainrule.train.step import apply_graph, gradient_graph, step_graph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 8, 8, 1)).astype(np.float32)
Y = RNG.integers(0, 3, 24)


def small_model(engine: str | None = None) -> cr.Sequential:
    cr.set_seed(0)
    layers = [
        cr.Input((8, 8, 1)),
        cr.layers.Conv2D(4, 3, activation="relu"),
        cr.layers.MaxPooling2D(2),
        cr.layers.Flatten(),
        cr.layers.Dropout(0.25),
        cr.layers.Dense(3),
    ]
    model = cr.Sequential(layers)
    loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"], engine=engine)
    return model


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine must be one of native, reference, got 'fast'"):
        small_model("fast")


def test_the_environment_chooses_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_ENGINE", "reference")
    model = small_model()
    assert model.engine == "reference"
    graph = cr.trace(lambda x: x + 1, cr.input_spec((None,)), name="f")
    assert isinstance(executable(graph), Reference)


def test_both_engines_learn_the_same() -> None:
    curves = [
        small_model(engine).fit(X, Y, batch_size=5, epochs=3, verbose=0).history for engine in ("native", "reference")
    ]
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(curves[0][name], curves[1][name], rtol=1e-4)


def test_gradients_then_update_is_the_step() -> None:
    model = small_model()
    model.ensure_built(X)
    specs = [Spec((BATCH, 8, 8, 1), np.dtype("float32")), Spec((BATCH,), np.dtype("int32"))]
    seed, _, first_row = (item.data for item in words(0))
    rate, count = np.float64(1e-3), np.float64(24)
    labels = Y.astype(np.int32)
    graphs = {
        "step": step_graph(model, model.objective, *specs),
        "grad": gradient_graph(model, model.objective, *specs),
        "apply": apply_graph(model, model.objective),
    }
    state = {entry.name: entry.variable.numpy() for entry in graphs["step"].state}
    runs = {name: executable(graph, "native") for name, graph in graphs.items()}

    def part(name: str) -> dict[str, np.ndarray]:
        return {entry.name: state[entry.name] for entry in graphs[name].state}

    _, whole = runs["step"].run((X, labels, rate, seed, first_row, count), state)
    found, between = runs["grad"].run((X, labels, seed, first_row, count), part("grad"))
    gradients = [found[weight.name] for weight in model.trainable_weights]
    _, after = runs["apply"].run((rate, *gradients), {**part("apply"), **_shared(between, graphs["apply"])})
    for name, value in after.items():
        assert value.tobytes() == whole[name].tobytes(), name


def _shared(values: dict[str, np.ndarray], graph: cr.Graph) -> dict[str, np.ndarray]:
    names = {entry.name for entry in graph.state}
    return {name: value for name, value in values.items() if name in names}


@pytest.mark.slow
def test_gradients_of_micro_batches_add_up() -> None:
    model = small_model()
    model.layers[3].rate = 0.0  # the same row draws another mask in another micro-batch
    model.ensure_built(X)
    specs = [Spec((BATCH, 8, 8, 1), np.dtype("float32")), Spec((BATCH,), np.dtype("int32"))]
    graph = gradient_graph(model, model.objective, *specs)
    run = executable(graph, "native")
    seed, _, first_row = (item.data for item in words(0))
    count = np.float64(24)
    state = {entry.name: entry.variable.numpy() for entry in graph.state}
    labels = Y.astype(np.int32)
    whole, _ = run.run((X, labels, seed, first_row, count), state)
    rows = [slice(i, i + 8) for i in (0, 8, 16)]
    parts = [run.run((X[part], labels[part], seed, first_row, count), state)[0] for part in rows]
    for name, value in whole.items():
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_profile_names_layers_and_leaves_the_model_alone() -> None:
    model = small_model()
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
    before = [weight.numpy() for weight in model.weights]
    profile = model.profile(X, Y, batch_size=8, steps=5)
    assert profile.batch_size == 8
    assert any("conv2d" in row.where for row in profile.kernels)
    assert sum(row.seconds for row in profile.kernels) <= 1.05 * profile.seconds
    assert "ms a step of 8 samples" in str(profile)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": -1}, {"batch_size": 0}, {"batch_size": 2.5}])
def test_a_profile_takes_positive_numbers(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} must be a positive integer"):
        small_model().profile(X, Y, **wrong)


@pytest.mark.slow
def test_bits_do_not_depend_on_earlier_batches() -> None:
    """A plan for more samples joins its sums in another order; so each size has its own."""

    def make() -> cr.Sequential:
        cr.set_seed(0)
        kinds = cr.layers
        model = cr.Sequential([cr.Input((8, 8, 1)), kinds.Conv2D(4, 3), kinds.Flatten(), kinds.Dense(3)])
        model.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def bits(model: cr.Sequential) -> tuple[bytes, ...]:
        found = model.predict(x[:9])
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        return (found.tobytes(), *(weight.numpy().tobytes() for weight in model.weights))

    x, y = RNG.normal(size=(600, 8, 8, 1)).astype(np.float32), RNG.integers(0, 3, 600)
    fresh, used = make(), make()
    start = used.get_weights()
    used.predict(x, batch_size=600)
    used.fit(x, y, batch_size=600, verbose=0)
    used.set_weights(start)
    assert bits(used) == bits(fresh)


@pytest.mark.slow
def test_small_batches_share_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    def counted(graph: Any, batch: int, *rest: Any, **settings: Any) -> Any:
        made.append(batch)
        return compiled(graph, batch, *rest, **settings)

    monkeypatch.setattr("chainrule.engines.native.executable.compiled", counted)
    model = small_model()
    for samples in range(1, 25):
        model.predict(X[:samples])
    assert made == [32]
    model.predict(X, batch_size=5)
    model.predict(np.resize(X, (70, *X.shape[1:])), batch_size=1000)
    assert made == [32, 5, 128]
    for size in range(6, 24):
        model.predict(X, batch_size=size)
    assert made[3:] == list(range(6, 24))
    trainer = model._trainer
    assert trainer is not None
    assert len(trainer._plans._kept) == 8
    model.predict(X, batch_size=23)
    assert made[3:] == list(range(6, 24))


def test_the_reference_engine_has_no_kernels() -> None:
    with pytest.raises(ConfigError, match="only the native engine"):
        small_model("reference").profile(X, Y)
