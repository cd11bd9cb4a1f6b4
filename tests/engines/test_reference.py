"""The reference engine: any batch size, state in and out, wrong inputs named, and no value kept too long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import DTypeError, EngineError, OpError, ShapeError
from chainrule.graph import BATCH, Graph, Op, Spec, apply, case, get_op, no_flops, scope
from chainrule.graph import op as registry

FLOAT = np.dtype("float32")


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Op], Op]:
    """Registers ops for one test."""

    def add(op: Op) -> Op:
        monkeypatch.setitem(registry._REGISTRY, op.name, op)
        assert get_op(op.name) is op
        return op

    return add


def copying(name: str, reference: Any) -> Op:
    """An op whose shape rule promises a copy of its input."""
    return Op(name, lambda *_: None, lambda x: x, reference, "zero", no_flops, cases=(case((2,)),))


# --- Batches -----------------------------------------------------------------------------------------


def test_one_executable_runs_every_batch_size() -> None:
    run = Executable(cr.trace(lambda x: (x.mean(axis=0), x.reshape(-1, 2)), cr.input_spec((None, 4))))
    for batch in (1, 7, 2, 7):
        x = floats(batch, 4, seed=batch)
        mean, split = run(x)
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(split, x.reshape(-1, 2))


def test_a_short_last_batch_has_its_own_mean() -> None:
    run = Executable(cr.trace(lambda x: x.mean(), cr.input_spec((None,))))
    assert [float(run(np.full(n, 2.0, np.float32))) for n in (4, 4, 1)] == [2.0, 2.0, 2.0]


def test_an_empty_batch_runs() -> None:
    run = Executable(cr.trace(lambda x: (x * 2, x.sum()), cr.input_spec((None, 3))))
    doubled, total = run(np.zeros((0, 3), np.float32))
    assert doubled.shape == (0, 3)
    assert total == 0


def test_a_graph_without_a_batch_runs() -> None:
    assert Executable(cr.trace(lambda x: x * 2, cr.input_spec((2,))))(np.ones(2, np.float32)).tolist() == [2.0, 2.0]
    assert Executable(cr.trace(lambda: cr.tensor(3.0), name="constant"))() == 3.0


def test_inputs_that_disagree_on_the_batch_are_named() -> None:
    graph = cr.trace(
        lambda image, scale, label: image.sum() * scale + label.sum(),
        cr.input_spec((None, 2)),
        cr.input_spec(()),
        cr.input_spec((None,)),
        name="pair",
    )
    message = r"the inputs of pair disagree on the batch size \(image: 3, label: 4\)"
    with pytest.raises(ShapeError, match=message):
        Executable(graph)(floats(3, 2), np.float32(1), floats(4))


def test_a_batch_may_enter_as_a_multiple() -> None:
    graph = cr.trace(lambda x, y: x.reshape(-1, 3) * y, Spec((BATCH * 3,), FLOAT), Spec((BATCH, 1), FLOAT))
    run = Executable(graph)
    assert run(np.arange(6, dtype=np.float32), np.ones((2, 1), np.float32)).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"input 'x': size 7 is not of the form 3\*N"):
        run(floats(7), floats(2, 1))
    with pytest.raises(ShapeError, match=r"\(x: 2, y: 3\)"):
        run(floats(6), floats(3, 1))


def test_a_batch_that_is_too_small_for_a_slice_is_named() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        with scope(layer="lag"):
            return x[3:]

    run = Executable(cr.trace(function, cr.input_spec((None,))))
    assert run(np.arange(4, dtype=np.float32)).tolist() == [3.0]
    assert run(np.arange(3, dtype=np.float32)).tolist() == []
    with pytest.raises(ShapeError, match=r"layer 'lag' \(slice\): a batch of 1 is too small"):
        run(np.arange(1, dtype=np.float32))


# --- Inputs --------------------------------------------------------------------------------------------


BAD_INPUTS: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "too few": ((floats(2, 3),), EngineError, r"f takes 2 inputs \(image, label\); got 1"),
    "too many": ((floats(2, 3),) * 3, EngineError, r"f takes 2 inputs \(image, label\); got 3"),
    "shape": ((floats(2, 4), np.zeros(2, np.int32)), ShapeError, r"'image' has shape \(2, 4\); expected \(N, 3\)"),
    "rank": ((floats(2, 3, 1), np.zeros(2, np.int32)), ShapeError, r"'image' has shape \(2, 3, 1\); expected \(N, 3\)"),
    "dtype": ((floats(2, 3), np.zeros(2)), DTypeError, r"'label' is float64; expected int32"),
    "list": (([[1.0, 2.0, 3.0]], np.zeros(1, np.int32)), DTypeError, r"'image' is float64; expected float32"),
}


@pytest.mark.parametrize(("given", "error", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_wrong_inputs_are_named(given: tuple[Any, ...], error: type[Exception], message: str) -> None:
    graph = cr.trace(
        lambda image, label: image.sum() + label.astype("float32").sum(),
        cr.input_spec((None, 3)),
        cr.input_spec((None,), "int32"),
        name="f",
    )
    with pytest.raises(error, match=message):
        Executable(graph)(*given)


def test_tensors_may_be_given() -> None:
    assert Executable(cr.trace(lambda x: x * 2, cr.input_spec((2,))))(cr.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


def test_inputs_are_not_written_to() -> None:
    x = floats(2, 3)
    before = x.copy()
    Executable(cr.trace(lambda x: (cr.ops.relu(x), x.reshape(3, 2)), cr.input_spec((2, 3))))(x)
    np.testing.assert_array_equal(x, before)
    assert x.flags.writeable


def test_results_do_not_change_when_the_caller_fills_its_arrays_anew() -> None:
    variable = cr.Variable(np.zeros((2, 3), np.float32), name="last")

    def function(x: cr.Tensor) -> Any:
        variable.assign(x)
        return x, x.reshape(-1), x.T, x[:1], cr.ops.identity(x)

    x = floats(2, 3)
    results = Executable(cr.trace(function, cr.input_spec((2, 3))))(x)
    expected = [x.copy(), x.ravel().copy(), x.T.copy(), x[:1].copy(), x.copy()]
    x[...] = 99.0
    for got, wanted in zip((*results, variable.numpy()), (*expected, expected[0]), strict=True):
        np.testing.assert_array_equal(got, wanted)


# --- State -----------------------------------------------------------------------------------------------


def counting() -> tuple[cr.Variable, cr.Variable, Graph]:
    """A variable that counts, one that is only read, and the graph."""
    calls, scale = cr.Variable(np.array(0, np.int32), name="calls"), cr.Variable([10.0], name="scale")

    def function(x: cr.Tensor) -> cr.Tensor:
        calls.assign(calls + 1)
        return x * scale

    return calls, scale, cr.trace(function, cr.input_spec((None,)))


def test_state_is_written_back() -> None:
    calls, scale, graph = counting()
    run = Executable(graph)
    assert run(np.ones(1, np.float32)).tolist() == [10.0]
    scale.assign([20.0])
    assert run(np.ones(1, np.float32)).tolist() == [20.0]
    assert calls.numpy() == 2
    assert scale.numpy().tolist() == [20.0]


def test_a_variable_that_is_only_read_keeps_its_array() -> None:
    _, scale, graph = counting()
    before = scale.data
    Executable(graph)(np.ones(1, np.float32))
    assert scale.data is before


def test_two_variables_can_swap() -> None:
    a, b = cr.Variable([1.0], name="a"), cr.Variable([2.0], name="b")

    def swap() -> dict[str, Any]:
        old = a + 0
        a.assign(b)
        b.assign(old)
        return {}

    run = Executable(cr.trace(swap))
    run()
    assert (a.numpy().item(), b.numpy().item()) == (2.0, 1.0)
    run()
    assert (a.numpy().item(), b.numpy().item()) == (1.0, 2.0)


def test_state_can_be_given_and_is_then_left_alone() -> None:
    calls, _, graph = counting()
    state = {"calls": np.array(41, np.int32), "scale": np.array([2.0], np.float32)}
    result, after = Executable(graph).run([np.ones(1, np.float32)], state)
    assert result.tolist() == [2.0]
    assert {name: value.tolist() for name, value in after.items()} == {"calls": 42, "scale": [2.0]}
    assert calls.numpy() == 0
    assert state["calls"] == 41


def test_given_state_is_checked() -> None:
    _, _, graph = counting()
    state = {"calls": np.array(41, np.int32), "scale": np.array([2.0])}
    with pytest.raises(DTypeError, match="'scale' is float64; expected float32"):
        Executable(graph).run([np.ones(1, np.float32)], state)


def test_a_failing_run_leaves_the_state(register: Callable[[Op], Op]) -> None:
    def fail(x: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    op = register(copying("failing", fail))
    calls = cr.Variable(np.array(0, np.int32), name="calls")

    def function(x: cr.Tensor) -> cr.Tensor:
        calls.assign(calls + 1)
        return apply(op, x)

    run = Executable(cr.trace(function, cr.input_spec((1,))))
    with pytest.raises(ZeroDivisionError):
        run(np.ones(1, np.float32))
    assert calls.numpy() == 0


def test_results_and_state_are_read_only() -> None:
    calls, _, graph = counting()
    result = Executable(graph)(np.ones(1, np.float32))
    for array in (result, calls.data):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


# --- Ops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros(2)], ids=["shape", "dtype"])
def test_an_op_that_breaks_its_promise_is_named(register: Callable[[Op], Op], wrong: np.ndarray) -> None:
    op = register(copying("liar", lambda x: wrong))
    run = Executable(cr.trace(lambda x: apply(op, x), cr.input_spec((2,))))
    with pytest.raises(OpError, match=r"op 'liar' contradicts itself: its shape rule says float32\(2,\)"):
        run(floats(2))


def test_numpy_warnings_are_kept_from_the_user() -> None:
    run = Executable(cr.trace(lambda x: (cr.ops.log(x), x / 0.0), cr.input_spec((2,))))
    logarithm, quotient = run(np.array([0.0, -1.0], np.float32))
    assert np.isneginf(logarithm[0])
    assert np.isnan(logarithm[1])
    assert np.isnan(quotient[0])


def test_running_again_gives_the_same_bits() -> None:
    run = Executable(cr.trace(lambda x: cr.ops.softmax(x @ x.T), cr.input_spec((8, 8))))
    x = floats(8, 8)
    assert run(x).tobytes() == run(x).tobytes()


# --- Memory ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_value_is_dropped_after_its_last_use(register: Callable[[Op], Op]) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def reference(x: np.ndarray) -> np.ndarray:
        gc.collect()
        alive.append(sum(ref() is not None for ref in made))
        result = x + 1
        made.append(weakref.ref(result))
        return result

    op = register(copying("watched", reference))

    def chain(x: cr.Tensor) -> cr.Tensor:
        for _ in range(6):
            x = apply(op, x)
        return x

    result = Executable(cr.trace(chain, cr.input_spec((4,))))(floats(4))
    assert alive == [0, 1, 1, 1, 1, 1]
    gc.collect()
    assert [ref() is not None for ref in made] == [False] * 5 + [True]
    del result
    gc.collect()
    assert made[-1]() is None


@pytest.mark.slow
def test_a_value_lives_until_its_last_reader(register: Callable[[Op], Op]) -> None:
    kept: list[weakref.ref[np.ndarray]] = []
    seen: list[bool] = []

    def reference(x: np.ndarray) -> np.ndarray:
        gc.collect()
        seen.append(bool(kept) and kept[0]() is not None)
        result = x + 1
        kept.append(weakref.ref(result))
        return result

    op = register(copying("watched", reference))

    def function(x: cr.Tensor) -> cr.Tensor:
        first = apply(op, x)
        second = apply(op, first)
        third = apply(op, second + first)
        return apply(op, third)

    Executable(cr.trace(function, cr.input_spec((4,))))(floats(4))
    assert seen == [False, True, False, False]


@pytest.mark.slow
def test_outputs_that_nobody_reads_are_dropped(register: Callable[[Op], Op]) -> None:
    spare: list[weakref.ref[np.ndarray]] = []
    seen: list[bool] = []

    def fork(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unused = x * 2
        spare.append(weakref.ref(unused))
        return x + 1, unused

    def look(x: np.ndarray) -> np.ndarray:
        gc.collect()
        seen.append(spare[0]() is not None)
        return x.copy()

    fork_op = register(Op("fork", lambda *_: None, lambda x: (x, x), fork, "zero", no_flops, cases=(case((2,)),)))
    look_op = register(copying("look", look))
    run = Executable(cr.trace(lambda x: apply(look_op, apply(fork_op, x)), cr.input_spec((4,))))
    run(floats(4))
    assert seen == [False]


# --- A training step -------------------------------------------------------------------------------------


def test_a_step_by_hand() -> None:
    """One step of gradient descent on a line, against NumPy."""
    weight, bias = cr.Variable([[1.0], [2.0]], name="weight"), cr.Variable([0.5], name="bias")

    def step(x: cr.Tensor, y: cr.Tensor, rate: cr.Tensor) -> Any:
        error = x @ weight + bias - y
        loss = (error * error).mean()
        for variable, slope in zip((weight, bias), cr.gradients(loss, [weight, bias]), strict=True):
            assert slope is not None
            variable.assign(variable - rate * slope)
        return loss

    run = Executable(cr.trace(step, cr.input_spec((None, 2)), cr.input_spec((None, 1)), cr.input_spec(())))
    w, b = np.array([[1.0], [2.0]]), np.array([0.5])
    for seed, batch in enumerate((4, 4, 3)):
        x, y = floats(batch, 2, seed=seed), floats(batch, 1, seed=seed + 10)
        error = x @ w + b - y
        loss = run(x, y, np.array(0.1, np.float32))
        assert loss == pytest.approx(np.mean(error**2), rel=1e-5)
        w, b = w - 0.1 * 2 * x.T @ error / batch, b - 0.1 * 2 * error.mean(axis=0)
        np.testing.assert_allclose(weight.numpy(), w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias.numpy(), b, rtol=1e-4, atol=1e-6)
