"""Whole networks: training steps, fit, evaluate and predict as machine code and by the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule import networks, ops
from chainrule.engines import Executable as Reference
from chainrule.engines.native.executable import Executable as Native
from chainrule.graph import input_spec
from chainrule.networks import residual as residual_networks
from tests.engines.native.support import (
    StepRun,
    assert_results_agree,
    assert_steps_agree,
    rng,
    sequential,
    small_data,
    small_network,
)
from tests.ops.harness import NATIVE_TOLERANCE, Array

pytestmark = pytest.mark.usefixtures("no_cache")

# A step joins some ten roundings of sums of hundreds of products; each op alone is held to NATIVE_TOLERANCE.
# Metrics are float64 in a step of any dtype, and as exact as what they count.
STEPS = {"float32": {"float32": 1e-4, "float64": 1e-4}, "float64": {"float64": 1e-11}}
STEP = STEPS["float32"]
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])


def images(shape: tuple[int, ...], count: int, dtype: str, classes: int = 10) -> tuple[Array, Array]:
    """Random images with random labels; 8-bit ones where the dtype is uint8."""
    random = rng(count)
    if dtype == "uint8":
        x = random.integers(0, 256, (count, *shape)).astype(np.uint8)
    else:
        x = random.normal(size=(count, *shape)).astype(dtype)
    return x, random.integers(0, classes, count).astype(np.int32)


# --- Steps of named networks -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name != "resnet20"])
def test_steps_of_the_named_networks(name: str) -> None:
    model = networks.get_network(name)((28, 28, 1), 10)
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((28, 28, 1), 23, "uint8")
    assert_steps_agree(model, x, y, 16, steps=2, tolerance=STEP)


@pytest.mark.slow
def test_steps_of_resnet20(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64: behind twenty layers, sums of float32 that round to the other side of a relu move a gradient."""
    monkeypatch.setattr(residual_networks, "image_input", lambda name, shape, smallest: cr.Input(shape, "float64"))
    model = networks.resnet20((28, 28, 1), 10)
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((28, 28, 1), 23, "float64")
    assert_steps_agree(model, x, y, 16, steps=2, tolerance=STEPS["float64"])


# --- Steps of small networks -------------------------------------------------------------------------------


def residual(dtype: str) -> cr.Model:
    """Branches that part and meet again, shared by two later layers, with a projection and a concatenation."""
    cr.set_seed(0)
    inputs = cr.Input((9, 9, 3), dtype)
    x = kinds.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    y = kinds.BatchNormalization()(kinds.Conv2D(6, 3, padding="same", use_bias=False)(x))
    y = kinds.Activation("relu")(kinds.Add()([x, y]))
    z = kinds.Conv2D(5, 3, strides=2, padding="same", activation="relu")(y)
    shortcut = kinds.Conv2D(5, 1, strides=2)(x)
    z = kinds.Multiply()([kinds.Add()([z, shortcut]), kinds.Subtract()([z, shortcut])])
    z = kinds.Concatenate()([z, kinds.AveragePooling2D(2, padding="same")(x)])
    z = kinds.GlobalAveragePooling2D()(z)
    return cr.Model(inputs, kinds.Dense(10, activation="softmax")(z))


def plain(dtype: str, *hidden: Any, shape: tuple[int, ...] = (9, 9, 3)) -> cr.Model:
    cr.set_seed(0)
    return cr.Sequential([cr.Input(shape, dtype), *hidden, kinds.Flatten(), kinds.Dense(10, activation="softmax")])


def everything(dtype: str) -> cr.Model:
    """Most layers, one after another."""
    return plain(
        dtype,
        kinds.Rescaling(0.5, 0.1),
        kinds.Conv2D(17, 3, padding="same", use_bias=False),
        kinds.BatchNormalization(),
        kinds.PReLU("glorot_uniform", shared_axes=(1, 2)),
        kinds.MaxPooling2D(2, padding="same"),
        kinds.Dropout(0.2),
        kinds.Conv2D(8, 2, activation="gelu"),
        kinds.LeakyReLU(0.1),
        kinds.MaxPooling2D(3, 1),
        kinds.Reshape((4, 8)),
        kinds.Dense(6, activation="tanh"),
        kinds.ELU(),
        kinds.ReLU(max_value=1.5, negative_slope=0.2),
        kinds.Softmax(),
    )


NETWORKS: dict[str, Callable[[str], cr.Model]] = {
    "everything": everything,
    "residual": residual,
    "conv, bias, relu, pool": lambda dtype: plain(
        dtype,
        kinds.Conv2D(5, 3, activation="relu", bias_initializer="glorot_uniform"),
        kinds.MaxPooling2D(2),
        kinds.Conv2D(4, 2, activation="relu"),
    ),
    "strided same": lambda dtype: plain(
        dtype,
        kinds.Conv2D(7, 3, strides=2, padding="same", activation="relu"),
        kinds.Conv2D(5, (2, 3), strides=(1, 3), padding="same", activation="sigmoid"),
    ),
    "grouped and depthwise": lambda dtype: plain(
        dtype,
        kinds.Conv2D(6, 3, groups=3, padding="same", activation="relu"),
        kinds.Conv2D(6, 3, groups=6, activation="relu"),
        kinds.Conv2D(4, 1, groups=2),
    ),
    "dilated": lambda dtype: plain(dtype, kinds.Conv2D(4, 3, dilation_rate=2, activation="silu")),
    "average pooling": lambda dtype: plain(
        dtype,
        kinds.Conv2D(4, 3, activation="softplus"),
        kinds.AveragePooling2D(3, 2, padding="same"),
        kinds.AveragePooling2D(2, padding="same", count_padding=True),
    ),
    "batch norm, dropout": lambda dtype: plain(
        dtype,
        kinds.Conv2D(4, 3, use_bias=False),
        kinds.BatchNormalization(momentum=0.5),
        kinds.Activation("relu"),
        kinds.Dropout(0.4),
        kinds.Flatten(),
        kinds.Dense(12, activation="relu", use_bias=False),
        kinds.BatchNormalization(center=False, scale=False),
        kinds.Dropout(0.3),
    ),
    "nearly linear": lambda dtype: plain(dtype, kinds.Conv2D(1, 1), kinds.Conv2D(1, 9), shape=(9, 9, 1)),
}


@pytest.mark.slow
@FLOATS
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_of_small_networks(name: str, dtype: str) -> None:
    model = NETWORKS[name](dtype)
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((9, 9, 1 if name == "nearly linear" else 3), 11, dtype)
    assert_steps_agree(model, x, y, 7, tolerance=STEPS[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["everything", "residual", "grouped and depthwise", "average pooling"])
def test_checked_steps_of_small_networks(name: str) -> None:
    """No load or store strays, in the last short batch neither."""
    model = NETWORKS[name]("float32")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((9, 9, 3), 11, "float32")
    run = StepRun(model, x, y, 7)
    native = Native(run.graph, checked=True, threads=2)
    state = run.first_state()
    for step in range(2):
        _, state = native.run(run.inputs(step), state)


# --- Optimizers, losses, metrics ---------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[], cr.optimizers.Optimizer]] = {
    "sgd": lambda: cr.optimizers.SGD(0.1),
    "momentum": lambda: cr.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: cr.optimizers.SGD(0.1, momentum=0.8, nesterov=True),
    "adam": lambda: cr.optimizers.Adam(0.01),
    "adamw": lambda: cr.optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: cr.optimizers.RMSprop(0.01),
    "rmsprop, momentum": lambda: cr.optimizers.RMSprop(0.01, momentum=0.5),
}


def test_every_optimizer_is_here() -> None:
    from chainrule.optimizers.optimizer import _CLASSES

    own = {kind for kind in _CLASSES.values() if kind.__module__.startswith("chainrule.")}
    assert own == {type(make()) for make in OPTIMIZERS.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    """In float64: the quotient that Adam and RMSprop make of a small gradient magnifies rounding."""
    model = plain("float64", kinds.Conv2D(3, 3, activation="tanh"), kinds.AveragePooling2D(2))
    model.compile(OPTIMIZERS[name](), "sparse_categorical_crossentropy")
    x, y = images((9, 9, 3), 10, "float64")
    assert_steps_agree(model, x, y, 4, steps=4, tolerance={"float64": 1e-9})


def one_hot(y: Array) -> Array:
    return np.eye(10, dtype=np.float32)[y]


LOSSES: dict[str, tuple[Any, int, str | None, Callable[[Array], Array]]] = {
    # loss, outputs, activation, targets from labels
    "mse": ("mse", 1, None, lambda y: y.astype(np.float32)),
    "mse, one column": ("mse", 1, None, lambda y: y[:, None].astype(np.float64)),
    "sparse, probabilities": ("sparse_categorical_crossentropy", 10, "softmax", lambda y: y),
    "sparse, sums not 1": ("sparse_categorical_crossentropy", 10, "sigmoid", lambda y: y),
    "sparse, logits": (cr.losses.SparseCategoricalCrossentropy(from_logits=True), 10, None, lambda y: y),
    "sparse, int64": ("sparse_categorical_crossentropy", 10, "softmax", lambda y: y.astype(np.int64)),
    "categorical": ("categorical_crossentropy", 10, "softmax", one_hot),
    "categorical, smoothed": (
        cr.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        10,
        None,
        one_hot,
    ),
    "binary": ("binary_crossentropy", 1, "sigmoid", lambda y: (y > 4).astype(np.int32)),
    "binary, tanh": (cr.losses.BinaryCrossentropy(label_smoothing=0.1), 1, "sigmoid", lambda y: (y > 4) * 1.0),
    "binary, logits": (cr.losses.BinaryCrossentropy(from_logits=True), 1, None, lambda y: (y > 4).astype(np.uint8)),
    "own": (lambda t, p: ops.sum(ops.abs(p - ops.cast(t, p.dtype)), axis=1), 1, None, lambda y: y[:, None] * 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_accuracies(name: str) -> None:
    loss, outputs, activation, targets = LOSSES[name]
    metrics = [] if name in ("own",) or name.startswith("mse") else ["accuracy"]
    model = sequential(
        (6,),
        kinds.Dense(9, activation="relu"),
        kinds.Dense(outputs, activation=activation),
        loss=loss,
        metrics=metrics,
        optimizer=cr.optimizers.SGD(0.1),
    )
    x, y = images((6,), 13, "float32")
    assert_steps_agree(model, x, targets(y), 8, tolerance=STEP)


# --- fit, evaluate, predict --------------------------------------------------------------------------------


def test_fit_follows_the_reference() -> None:
    curves = {}
    for engine in ("native", "reference"):
        model = small_network(engine)
        x, y = small_data()
        history = model.fit(x, y, batch_size=16, epochs=4, validation_split=0.2, verbose=0)
        curves[engine] = history.history
    assert set(curves["native"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name, wanted in curves["reference"].items():
        np.testing.assert_allclose(curves["native"][name], wanted, rtol=2e-3, err_msg=name)
    assert curves["native"]["loss"][-1] < curves["native"]["loss"][0]


@pytest.mark.slow
def test_evaluate_and_predict_with_a_short_last_batch() -> None:
    x, y = small_data(53)
    results = {}
    for engine in ("native", "reference"):
        model = small_network(engine)
        prediction = model.predict(x, batch_size=16)
        results[engine] = (prediction, model.evaluate(x, y, batch_size=16, verbose=0), model.predict(x[:1]))
    found, wanted = results["native"], results["reference"]
    assert_results_agree(found[0], wanted[0], NATIVE_TOLERANCE)
    assert_results_agree(found[2], wanted[2], NATIVE_TOLERANCE)
    assert found[1] == pytest.approx(wanted[1], rel=1e-5)


@pytest.mark.parametrize(
    ("pixel", "label"), [("uint8", "int64"), ("uint8", "uint8"), ("float64", "int32"), ("float32", "int64")]
)
@pytest.mark.slow
def test_data_of_many_dtypes_enter_the_step_as_they_are(pixel: str, label: str) -> None:
    model = sequential(
        (6, 6, 1), kinds.Rescaling(1 / 255), kinds.Conv2D(3, 3), kinds.Flatten(), kinds.Dense(10, activation="softmax")
    )
    x, y = images((6, 6, 1), 9, "uint8")
    x, y = x.astype(pixel), y.astype(label)
    run = StepRun(model, x, y, 4)
    assert run.graph.inputs["x"].dtype == np.dtype(pixel)
    assert run.graph.inputs["y"].dtype == np.dtype(label)
    assert_steps_agree(model, x, y, 4, tolerance=STEP)


def test_a_model_that_grows_is_planned_anew_and_one_that_shrinks_is_not() -> None:
    graph = cr.trace(lambda x: ops.relu(x) + 1, input_spec((None, 3)))
    run, reference = Native(graph), Reference(graph)
    seen = []
    for size in (4, 2, 4, 1, 9, 8):
        x = rng().normal(size=(size, 3)).astype(np.float32)
        np.testing.assert_array_equal(run(x), reference(x))
        seen.append(run._compiled)
    assert seen[0] is seen[1] is seen[2] is seen[3] is not seen[4]
    assert seen[4] is seen[5]
