"""fit, evaluate, predict: learning, determinism to the bit, history, callbacks, progress, interruption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule.callbacks import Callback
from chainrule.engines import Executable
from chainrule.engines.native import executable
from chainrule.errors import ConfigError, DataError, GradientError
from chainrule.train.callbacks import Logs
from chainrule.train.step import apply_graph, gradient_graph, step_graph

RNG = np.random.Generator(np.random.PCG64(0))
X = RNG.normal(size=(50, 6, 6, 1)).astype(np.float32)
Y = (X.mean((1, 2, 3)) > 0).astype(np.int64) + 2 * (X[:, 0, 0, 0] > 0)


def make(seed: int = 0, **settings: Any) -> cr.Sequential:
    cr.set_seed(seed)
    model = cr.Sequential(
        [
            cr.Input((6, 6, 1)),
            kinds.Conv2D(4, 3, activation="relu"),
            kinds.BatchNormalization(momentum=0.9),
            kinds.Dropout(0.2),
            kinds.Flatten(),
            kinds.Dense(4, activation="softmax"),
        ]
    )
    model.compile(
        **{
            "optimizer": cr.optimizers.Adam(0.01),
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            **settings,
        }
    )
    return model


def weights_of(model: cr.Model) -> bytes:
    return b"".join(w.tobytes() for w in model.get_weights())


def test_the_loss_falls_and_history_tells() -> None:
    model = make()
    history = model.fit(X, Y, batch_size=16, epochs=8, validation_split=0.2, verbose=0)
    cr.set_seed(0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 8 for values in history.history.values())
    assert history.epoch == list(range(8))
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    assert not history.interrupted


@pytest.mark.slow
def test_same_seed_same_bits_another_seed_others() -> None:
    results = []
    for seed in (1, 1, 2):
        model = make(seed)
        history = model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        results.append((weights_of(model), history.history["loss"], model.predict(X).tobytes()))
    cr.set_seed(0)
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


SCRIPT = """
import hashlib
import numpy as np
import chainrule as cr
from tests.train.test_fit import X, Y, make, weights_of
model = make(7)
model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
print(hashlib.sha256(weights_of(model)).hexdigest())
"""


def test_another_process_gives_the_same_bits() -> None:
    import hashlib

    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]), "PYTHONHASHSEED": "5"}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=root, env=environment
    ).stdout.strip()
    model = make(7)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    cr.set_seed(0)
    assert found == hashlib.sha256(weights_of(model)).hexdigest()


def test_draws_do_not_depend_on_other_layers() -> None:
    """Adding a second dropout elsewhere leaves the first one's masks as they were."""

    def masks(extra: bool) -> np.ndarray:
        cr.set_seed(0)
        inputs = cr.Input((200,))
        first = kinds.Dropout(0.5, name="first")(inputs)
        branch = kinds.Dropout(0.5, name="second")(inputs) if extra else inputs
        model = cr.Model(inputs, kinds.Add()([first, branch * branch]))

        def run(x: Any, seed: Any, time: Any) -> Any:
            with cr.random.key_scope(seed, time):
                model(x, training=True)
                return model.layers[0](x, training=True) if not extra else model.get_layer("first")(x, training=True)

        graph = cr.trace(run, cr.input_spec((None, 200)), cr.input_spec((2,), "uint32"), cr.input_spec((), "uint32"))
        ones = np.ones((2, 200), np.float32)
        result: np.ndarray = Executable(graph)(ones, np.zeros(2, np.uint32), np.uint32(0))
        return result

    np.testing.assert_array_equal(masks(False), masks(True))


@pytest.mark.slow
def test_fit_goes_on_where_it_stopped() -> None:
    """Two calls of one epoch see two different orders of samples, as one call of two epochs does."""
    one, two = make(3), make(3)
    one.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    two.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    two.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    cr.set_seed(0)
    assert weights_of(one) == weights_of(two)


@pytest.mark.slow
def test_without_shuffle_the_order_is_the_data_s() -> None:
    seen: list[float] = []

    model = cr.Sequential([cr.Input((1,)), kinds.Dense(1, kernel_initializer="ones", use_bias=False)])
    model.compile(cr.optimizers.SGD(0.0), "mse")
    x = np.arange(10.0)[:, None]

    class Note(Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            assert logs is not None
            seen.append(logs["loss"])

    model.fit(x, np.zeros(10), batch_size=4, shuffle=False, verbose=0, callbacks=[Note()])
    wanted = [np.mean(np.arange(n) ** 2.0) for n in (4, 8, 10)]
    np.testing.assert_allclose(seen, wanted, rtol=1e-6)


def test_evaluate_agrees_with_the_loss_of_the_predictions() -> None:
    model = make()
    found = model.evaluate(X, Y, batch_size=16, return_dict=True)
    cr.set_seed(0)
    p = model.predict(X)
    np.testing.assert_allclose(found["loss"], -np.log(p[np.arange(50), Y]).mean(), rtol=1e-5)
    assert found["accuracy"] == (p.argmax(1) == Y).mean()


@pytest.mark.slow
def test_evaluate_returns_what_keras_returns(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of loss and metrics to unpack, a number where there is no metric, a dict on demand."""
    model = make()
    loss, accuracy = model.evaluate(X, Y, verbose=1)
    cr.set_seed(0)
    assert {"loss": loss, "accuracy": accuracy} == model.evaluate(X, Y, return_dict=True)
    assert capsys.readouterr().out == f"loss {loss:.4f}  accuracy {accuracy:.4f}\n"
    assert isinstance(make(metrics=None).evaluate(X, Y), float)


def test_validation_data_and_split_hold_out_the_same_tail() -> None:
    a, b = make(), make()
    first = a.fit(X, Y, batch_size=16, validation_split=0.2, verbose=0)
    second = b.fit(X[:40], Y[:40], batch_size=16, validation_data=(X[40:], Y[40:]), verbose=0)
    cr.set_seed(0)
    assert first.history == second.history


# -- the step and its two entries ---------------------------------------------------------------------------------


def _specs() -> tuple[Any, Any]:
    return cr.input_spec((None, 6, 6, 1)), cr.input_spec((None,), "int32")


def test_grad_then_apply_is_step_to_the_bit() -> None:
    fused, split = make(4), make(4)
    y = Y.astype(np.int32)
    seed, row = np.array([4, 0], np.uint32), np.uint32(0)
    step = Executable(step_graph(fused, fused.objective, *_specs()))
    grad = Executable(gradient_graph(split, split.objective, *_specs()))
    apply = Executable(apply_graph(split, split.objective))
    for _ in range(3):
        loss = step(X, y, np.float64(0.01), seed, row, np.float64(50))
        found = grad(X, y, seed, row, np.float64(50))
        assert found.pop("loss") == loss
        apply(np.float64(0.01), *found.values())
    cr.set_seed(0)
    assert weights_of(fused) == weights_of(split)
    assert int(fused.optimizer.iterations.data) == 3


def test_gradients_of_micro_batches_sum_to_the_batch_s() -> None:
    """The count is a run-time input and dropout is keyed by the sample's global place."""
    cr.set_seed(0)
    model = cr.Sequential([cr.Input((6,)), kinds.Dropout(0.5), kinds.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    specs = cr.input_spec((None, 6)), cr.input_spec((None,), "int32")
    run = Executable(gradient_graph(model, model.objective, *specs))
    x, y = RNG.normal(size=(10, 6)).astype(np.float32), RNG.integers(0, 3, 10).astype(np.int32)
    seed = np.array([1, 0], np.uint32)
    whole = run(x, y, seed, np.uint32(0), np.float64(10))
    parts = [run(x[a:b], y[a:b], seed, np.uint32(a), np.float64(10)) for a, b in ((0, 4), (4, 10))]
    for name, value in whole.items():
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=1e-5, atol=1e-7)


def test_the_step_s_nodes_know_layer_and_pass() -> None:
    model = make()
    graph = step_graph(model, model.objective, *_specs())
    places = {(node.provenance.layer, node.provenance.phase) for node in graph.nodes}
    for layer in ("conv2d", "batch_normalization", "dropout", "flatten", "dense"):
        assert (layer, "backward") in places
    assert ("conv2d", "forward") in places
    assert ("optimizer", "update") in places
    assert ("loss", "forward") in places
    assert {e.name for e in graph.state if e.changes} >= {w.name for w in model.weights}


def test_a_weight_that_the_loss_does_not_see_is_named() -> None:
    class Idle(cr.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = kinds.Dense(1), kinds.Dense(1)

        def call(self, x: cr.Tensor) -> Any:
            self.idle(x)
            return self.used(x)

    model = Idle()
    model.compile("sgd", "mse")
    with pytest.raises(GradientError, match="does not depend on 'idle/kernel'"):
        model.fit(np.ones((4, 2)), np.ones(4), verbose=0)


# -- callbacks, progress, interruption ----------------------------------------------------------------------------


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        self.events.append(f"begin {self.params['epochs']} {self.params['steps']} {self.params['samples']}")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.events.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.events.append(f"step {batch} {sorted(logs or ())}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.events.append(f"end {epoch}")
        self.model.stop_training = epoch == 1

    def on_train_end(self, logs: Logs = None) -> None:
        self.events.append("done")


@pytest.mark.slow
def test_callbacks_see_everything_in_order_and_can_stop() -> None:
    recorder = Recorder()
    history = make().fit(X, Y, batch_size=20, epochs=9, verbose=0, callbacks=[recorder])
    epoch = [f"step {step} ['accuracy', 'loss']" for step in range(3)]
    assert recorder.events == ["begin 9 3 50", "epoch 0", *epoch, "end 0", "epoch 1", *epoch, "end 1", "done"]
    assert history.epoch == [0, 1]


@pytest.mark.slow
def test_a_batch_method_set_on_the_object_is_called_for_every_step() -> None:
    seen = list[int]()
    callback = Callback()
    vars(callback)["on_train_batch_end"] = lambda batch, logs=None: seen.append(batch)
    make().fit(X, Y, batch_size=25, verbose=0, callbacks=[callback])
    assert seen == list(range(-(-len(X) // 25)))


@pytest.mark.slow
def test_a_line_for_each_epoch_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    make().fit(X, Y, batch_size=16, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "accuracy" in lines[0]
    assert all(re.search(r" [1-9][0-9,]* samples/s$", line) for line in lines)


def test_without_a_terminal_the_progress_bar_is_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    make().fit(X, Y, batch_size=16, epochs=1, verbose=1)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    for part in ("epoch 1/1", "loss", "accuracy", "samples/s"):
        assert part in out
    assert " 0 samples/s" not in out


@pytest.mark.slow
def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    make().fit(X, Y, epochs=1, verbose=0)
    assert capsys.readouterr().out == ""


class PressCtrlC(Callback):
    """Interrupts the process in the middle of the second epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if batch == 1 and len(self.seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.seen.append(epoch)

    seen: list[int]


@pytest.mark.slow
def test_ctrl_c_ends_after_the_step_and_keeps_what_was_learned() -> None:
    model, press = make(), PressCtrlC()
    press.seen = []
    before = signal.getsignal(signal.SIGINT)
    history = model.fit(X, Y, batch_size=10, epochs=50, verbose=0, callbacks=[press])
    assert history.interrupted
    assert history.epoch == [0, 1]
    assert signal.getsignal(signal.SIGINT) is before
    assert int(model.optimizer.iterations.data) == 7
    reference = make()
    reference.fit(X, Y, batch_size=10, epochs=1, verbose=0)
    assert weights_of(model) != weights_of(reference)
    model.fit(X, Y, batch_size=10, epochs=1, verbose=0)


@pytest.mark.slow
def test_an_interrupted_epoch_keeps_the_history_even() -> None:
    press = PressCtrlC()
    press.seen = []
    history = make().fit(X, Y, batch_size=10, epochs=9, verbose=0, callbacks=[press], validation_split=0.2)
    assert {len(values) for values in history.history.values()} == {2}
    assert np.isnan(history.history["val_loss"][1])
    assert not np.isnan(history.history["loss"]).any()


@pytest.mark.slow
def test_ctrl_c_while_the_step_is_compiled_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is learned but what one step may have, and what the variables show is what is saved."""
    real = executable.compiled

    def compiled(*arguments: Any, **settings: Any) -> executable.Compiled:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **settings)

    monkeypatch.setattr(executable, "compiled", compiled)
    model = make(engine="native")
    history = model.fit(X, Y, batch_size=1, epochs=9, verbose=0)
    assert history.interrupted
    assert int(model.optimizer.iterations.data) <= 1
    assert len(history.epoch) == int(model.optimizer.iterations.data)  # an epoch without a batch is none


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.slow
def test_ctrl_c_during_validation_ends_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, held_out = make(engine=engine), np.concatenate([X] * 10)
    ran: list[tuple[int, int]] = []
    kind = executable.Executable if engine == "native" else Executable
    real = kind.run_steps

    def run_steps(run: Any, data: Any, order: Any, *rest: Any) -> int:
        if len(order) == len(held_out):
            os.kill(os.getpid(), signal.SIGINT)
        done = real(run, data, order, *rest)
        ran.append((len(order), done))
        return done

    monkeypatch.setattr(kind, "run_steps", run_steps)
    labels = np.concatenate([Y] * 10)
    history = model.fit(X, Y, batch_size=10, epochs=3, verbose=0, validation_data=(held_out, labels))
    assert history.interrupted
    assert [count for count, _ in ran] == [50, 500]
    assert ran[1][1] <= 1
    assert set(history.history) == {"loss", "accuracy"}  # no means over a part of the validation data


@pytest.mark.slow
def test_data_in_another_order_are_put_in_order_once_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what changes between two fits is seen."""
    given: list[Any] = []
    real = executable.Executable.run_steps

    def run_steps(run: Any, data: Any, *rest: Any) -> int:
        given.append(data["x"])
        return real(run, data, *rest)

    class EveryStep(Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None: ...

    monkeypatch.setattr(executable.Executable, "run_steps", run_steps)
    turned = X.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)
    one, two = make(engine="native"), make(engine="native")
    for model, data in ((one, turned), (two, X)):
        model.fit(data, Y, batch_size=10, epochs=2, verbose=0, callbacks=[EveryStep()])
    cr.set_seed(0)
    assert len(given) == 20
    assert all(array is given[0] for array in given[:10])
    assert given[0].flags.c_contiguous
    assert weights_of(one) == weights_of(two)
    turned *= 2
    one.evaluate(turned, Y)
    np.testing.assert_array_equal(given[-1], 2 * X)


@pytest.mark.slow
def test_fit_runs_outside_the_main_thread() -> None:
    model, results = make(), []
    thread = threading.Thread(target=lambda: results.append(model.fit(X, Y, epochs=1, verbose=0)))
    thread.start()
    thread.join()
    assert len(results) == 1
    assert results[0].epoch == [0]


@pytest.mark.slow
def test_an_error_in_a_callback_leaves_a_whole_model() -> None:
    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            raise RuntimeError("stop here")

    model = make()
    with pytest.raises(RuntimeError, match="stop here"):
        model.fit(X, Y, verbose=0, callbacks=[Fail()])
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.slow
def test_the_learning_rate_may_change_between_steps() -> None:
    class Stop(Callback):
        def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
            self.model.optimizer.learning_rate = 0.0

    one, two = make(optimizer="sgd"), make(optimizer="sgd")
    one.fit(X, Y, epochs=1, verbose=0)
    two.fit(X, Y, epochs=3, verbose=0, callbacks=[Stop()])
    cr.set_seed(0)
    np.testing.assert_array_equal(one.get_weights()[0], two.get_weights()[0])


# -- bad input -----------------------------------------------------------------------------------------------------


def _with(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    result = array.copy()
    result[place] = value
    return result


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :, :, 0], Y, r"takes inputs of shape \(N, 6, 6, 1\), got \(N, 6, 6\); add a channel axis"),
        (X.repeat(3, -1), Y, r"got \(N, 6, 6, 3\)"),
        (X[:, :5], Y, r"got \(N, 5, 6, 1\)"),
        (X.astype(str), Y, "x"),
        (np.array([None] * 50), Y, "x"),
        (X.astype(complex), Y, "x"),
        (X[:0], Y[:0], "x"),
        (_with(X, (7, 0, 0, 0), np.nan), Y, "x.*7"),
        (_with(X, (9, 1, 2, 0), np.inf), Y, "x.*9"),
        (X, Y[:-1], "y"),
        (X, _with(Y, 3, 4), "y.*4"),
        (X, _with(Y, 3, -1), "y.*-1"),
        (X, Y + 0.5, "y"),
        (X, np.eye(4)[Y], "one-hot"),
        (X, Y.astype(str), "y"),
        (X, _with(Y.astype(float), 2, np.nan), "y"),
    ],
)
def test_data_that_cannot_be_used_is_named_before_the_first_step(x: Any, y: Any, message: str) -> None:
    model = make()
    before = weights_of(model)
    for job in (lambda: model.fit(x, y, verbose=0), lambda: model.evaluate(x, y)):
        with pytest.raises((DataError, ValueError, TypeError), match=message) as caught:
            job()
        assert isinstance(caught.value, cr.errors.ChainruleError)
    assert weights_of(model) == before


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("categorical_crossentropy", Y, "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", np.eye(5)[Y], "y"),
        ("categorical_crossentropy", np.eye(4)[Y] * 2, "y"),
        ("mse", np.zeros((50, 3)), r"needs the shape of the model's output \(N, 4\)"),
        ("mse", _with(np.zeros((50, 4)), (3, 1), np.nan), "y"),
        ("binary_crossentropy", np.zeros((50, 3)), "needs the shape"),
    ],
)
def test_targets_that_do_not_fit_the_loss(loss: str, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(loss=loss, metrics=[]).fit(X, y, verbose=0)


@pytest.mark.slow
def test_binary_labels() -> None:
    model = cr.Sequential([cr.Input((6, 6, 1)), kinds.Flatten(), kinds.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    assert model.fit(X, Y % 2, verbose=0).history["accuracy"][0] <= 1
    with pytest.raises(DataError, match="y"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a positive integer"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"verbose": 7}, "verbose must be"),
        ({"validation_split": 1.0}, "validation_split lies in"),
        ({"validation_split": 0.999}, "leaves an empty part"),
        ({"validation_data": 3}, "a pair"),
        ({"validation_data": (X, Y), "validation_split": 0.1}, "not both"),
        ({"validation_data": (X, Y + 9)}, "validation y"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        make().fit(X, Y, **{"verbose": 0, **settings})


def test_a_model_that_is_frozen_altogether_is_said_to_learn_nothing() -> None:
    model = make()
    for layer in model.layers:
        layer.trainable = False
    before = weights_of(model)
    with pytest.warns(UserWarning, match="no trainable weights: fit learns nothing") as caught:
        model.fit(X, Y, verbose=0)
    assert caught[0].filename == __file__
    assert weights_of(model) == before


def test_training_before_compile_is_an_error() -> None:
    model = cr.Sequential([cr.Input((6, 6, 1)), kinds.Flatten(), kinds.Dense(4)])
    with pytest.raises(ConfigError, match=r"call model\.compile"):
        model.fit(X, Y)
    with pytest.raises(ConfigError, match="needs a loss"):
        model.compile("sgd")
    with pytest.raises(ConfigError, match="distinct names"):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "accuracy"])


@pytest.mark.parametrize(
    ("reduce", "shape"),
    [(lambda e: cr.ops.mean(e), r"\(\)"), (lambda e: e, r"\(N, 4\)")],
)
def test_a_loss_of_the_wrong_shape_is_refused(reduce: Any, shape: str) -> None:
    """A batch mean or a loss for each element would train with a gradient of the wrong scale."""

    class Own(cr.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return reduce((y_pred - y_true) * (y_pred - y_true))

    targets = np.zeros((50, 4), np.float32)
    model = make(loss=Own(), metrics=None)
    for job in (model.fit, model.evaluate):
        with pytest.raises(cr.errors.ShapeError, match=rf"gave float32{shape}; expected one number for each sample"):
            job(X, targets)


@pytest.mark.slow
def test_a_loss_of_ones_own_as_a_function_or_class() -> None:
    def function(y_true: Any, y_pred: Any) -> Any:
        return cr.ops.mean((y_pred - y_true) * (y_pred - y_true), axis=-1)

    targets = np.zeros((50, 4), np.float32)
    found = [
        make(loss=loss, metrics=None).fit(X, targets, verbose=0).history["loss"]
        for loss in (function, "mse", cr.losses.MeanSquaredError)
    ]
    assert found[0] == found[1] == found[2]


def test_an_optimizer_serves_one_model() -> None:
    optimizer = cr.optimizers.Adam()
    model = make(optimizer=optimizer)
    model.compile(optimizer, "mse")
    with pytest.raises(ConfigError, match="serves another model"):
        make(optimizer=optimizer)


@pytest.mark.slow
def test_callbacks_by_keras_s_older_names_alone_and_wrong_ones() -> None:
    class Old(Callback):
        batches = 0

        def on_batch_end(self, batch: int, logs: Logs = None) -> None:
            self.batches += 1

    old = Old()
    make().fit(X, Y, batch_size=25, verbose=0, callbacks=old)
    assert old.batches == 2
    with pytest.raises(ConfigError, match="callbacks are"):
        make().fit(X, Y, verbose=0, callbacks=[3])  # type: ignore[list-item]


def test_a_model_that_forgot_super_says_so() -> None:
    class Forgetful(cr.Model):
        def __init__(self) -> None:
            self.size = 3

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) first in Forgetful.__init__"):
        Forgetful()(X)


def test_data_of_another_byte_order_is_taken() -> None:
    np.testing.assert_array_equal(make().predict(X.astype(">f4")), make().predict(X))


@pytest.mark.parametrize("given", ["balanced", [1, 2, 3]])
def test_class_weights_are_a_mapping(given: Any) -> None:
    with pytest.raises(ConfigError, match="class_weight must be a mapping from class numbers to factors"):
        make().fit(X, Y, verbose=0, class_weight=given)


def test_labels_that_are_missing() -> None:
    with pytest.raises(DataError, match="y is missing; expected a label or target for each sample"):
        make().fit(X, verbose=0)
