"""Every op through the harness: shape rule, engines, gradients, second order, conventions, documentation."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ChainruleError, OpError
from chainrule.graph import Convention, Op, Spec, Trait, case, get_op, no_flops, register, registered_ops, tensor
from chainrule.graph.dims import bind_size
from tests.ops.harness import (
    ENGINES,
    Trial,
    assert_agrees,
    pullback,
    run_batched,
    run_eagerly,
    trials,
)

TRIALS = trials()
DIFFERENTIABLE = [trial for trial in TRIALS if callable(trial.op.vjp)]
CONVENTIONS = [(op, item) for op in registered_ops() for item in op.conventions]


def _id(trial: Trial) -> str:
    return trial.name


@pytest.mark.parametrize("trial", TRIALS, ids=_id)
def test_shape_rule_agrees_with_numpy_rule(trial: Trial) -> None:
    for dtype in ("float32", "float64"):
        arrays = trial.arrays(dtype)
        specs = [Spec(a.shape, a.dtype) for a in arrays]
        promised = trial.op.output_specs(specs, trial.case.attrs)
        produced = trial.op.evaluate(arrays, trial.case.attrs)
        assert [Spec(a.shape, a.dtype) for a in produced] == list(promised)
        assert bind_size(trial.op.flops(specs, promised, trial.case.attrs), 1) >= 0
        assert bind_size(trial.op.moved_bytes(specs, promised), 1) > 0


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trial", TRIALS, ids=_id)
def test_engines_agree(trial: Trial, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager and reference to the bit, machine code to rounding."""
    monkeypatch.setenv("CHAINRULE_CACHE", "off")
    arrays = trial.arrays(dtype)
    wanted = trial.op.evaluate(arrays, trial.case.attrs)
    for name, engine in ENGINES.items():
        if dtype not in engine.dtypes:
            continue
        for a, b in zip(engine.run(trial.op, arrays, trial.case.attrs), wanted, strict=True):
            assert_agrees(a, b, engine.tolerance, name)


PER_SAMPLE = [
    trial
    for trial in TRIALS
    if Trait.PER_SAMPLE in trial.op.traits
    and Trait.RANDOM not in trial.op.traits
    and not any(name.endswith("_shape") for name in trial.case.attrs)
]


@pytest.mark.parametrize("trial", PER_SAMPLE, ids=_id)
def test_ops_that_work_sample_by_sample_do(trial: Trial) -> None:
    """Sample 0 of the outputs is what sample 0 of the inputs alone gives."""
    arrays = trial.arrays()
    batched = _batched_inputs(trial)
    alone = [a[:1] if i in batched else a for i, a in enumerate(arrays)]
    whole = run_eagerly(trial.op, arrays, trial.case.attrs)
    single = run_eagerly(trial.op, alone, trial.case.attrs)
    for a, b in zip(single, whole, strict=True):
        np.testing.assert_allclose(a, b[:1], rtol=1e-12)


def _batched_inputs(trial: Trial) -> list[int]:
    """Inputs whose first axis is the output's first axis: activations, not parameters."""
    arrays = trial.arrays()
    rank = arrays[0].ndim
    return [i for i, a in enumerate(arrays) if i == 0 or (a.ndim == rank and a.dtype == np.int32)]


BATCHABLE = [
    trial
    for trial in TRIALS
    if Trait.ELEMENTWISE in trial.op.traits
    and all(a.ndim and a.shape[0] == trial.arrays()[0].shape[0] for a in trial.arrays())
    and len({a.ndim for a in trial.arrays()}) == 1
]


@pytest.mark.parametrize("trial", BATCHABLE, ids=_id)
def test_elementwise_ops_take_a_symbolic_batch(trial: Trial) -> None:
    arrays = trial.arrays()
    for a, b in zip(
        run_batched(trial.op, arrays, trial.case.attrs), run_eagerly(trial.op, arrays, trial.case.attrs), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("trial", DIFFERENTIABLE, ids=_id)
def test_gradient_against_central_differences(trial: Trial) -> None:
    assert pullback(trial).first_order_error() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("trial", DIFFERENTIABLE, ids=_id)
def test_second_order_against_central_differences_of_the_vjp(trial: Trial) -> None:
    assert pullback(trial).second_order_error() < 1e-6


@pytest.mark.parametrize("trial", [t for t in TRIALS if t.op.vjp == "zero"], ids=_id)
def test_zero_gradients_are_registered_not_accidental(trial: Trial) -> None:
    """An op whose VJP is zero never makes its output require a gradient."""
    inputs = [tensor(a, requires_grad=a.dtype.kind == "f") for a in trial.arrays()]
    outputs = cr.graph.apply_all(trial.op, *inputs, **trial.case.attrs)
    assert not any(t.requires_grad for t in outputs)


@pytest.mark.parametrize(("op", "item"), CONVENTIONS, ids=[item.says for _, item in CONVENTIONS])
def test_conventions_at_kinks_and_ties(op: Op, item: Convention) -> None:
    inputs = [tensor(a.astype("float64"), requires_grad=True) for a in item.inputs]
    output = cr.graph.apply(op, *inputs, **item.attrs)
    found = cr.gradients([output], inputs, [tensor(item.cotangent.astype("float64"))])
    for gradient, wanted in zip(found, item.gradients, strict=True):
        if wanted is None:
            assert gradient is None
        else:
            assert gradient is not None
            np.testing.assert_array_equal(gradient.data, wanted)


@pytest.mark.parametrize("op", list(registered_ops()), ids=lambda op: op.name)
def test_docstrings_hold_formula_gradient_and_example(op: Op) -> None:
    text = inspect.getdoc(op.function) or ""
    assert "radient" in text, f"{op.name}: the docstring says nothing about the gradient"
    assert ">>>" in text, f"{op.name}: the docstring has no example"


@pytest.mark.parametrize("op", list(registered_ops()), ids=lambda op: op.name)
def test_ops_are_exported_under_their_names(op: Op) -> None:
    assert getattr(cr.ops, op.name) is op.function


def test_every_listed_op_family_is_there() -> None:
    names = {op.name for op in registered_ops()}
    wanted = (
        "conv2d conv2d_input_grad conv2d_kernel_grad max_pool2d avg_pool2d matmul add subtract multiply "
        "divide equal less greater where minimum maximum clip abs exp log sqrt power relu leaky_relu prelu "
        "elu gelu silu softplus sigmoid tanh sum mean max var reshape transpose concat slice pad softmax "
        "log_softmax gather one_hot batch_norm batch_norm_inference random_uniform random_normal "
        "random_permutation stop_gradient "
    )
    assert set(wanted.split()) <= names


def test_registering_twice_is_an_error() -> None:
    with pytest.raises(OpError, match="'relu' is already registered"):
        register(get_op("relu"))


def test_registering_without_cases_is_an_error() -> None:
    bare = Op("bare", cr.ops.relu, lambda x: x, lambda x: x, "zero", no_flops)
    with pytest.raises(OpError, match="no test cases"):
        register(bare)


def test_unknown_op_is_a_named_error() -> None:
    with pytest.raises(OpError, match="'nonsense'"):
        get_op("nonsense")


def test_a_numpy_rule_that_breaks_its_shape_rule_is_named() -> None:
    liar = Op("liar", cr.ops.relu, lambda x: x, lambda x: x[:1], "zero", no_flops, cases=(case((2,)),))
    with pytest.raises(OpError, match="'liar' contradicts itself"):
        cr.graph.apply(liar, tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: cr.ops.conv2d(t((1, 3, 3)), t((2, 2, 3, 1))), "rank 3; expected rank 4"),
        (lambda t: cr.ops.conv2d(t((1, 3, 3, 2)), t((2, 2, 3, 1))), "needs 2 input channels; it has 3"),
        (lambda t: cr.ops.conv2d(t((1, 3, 3, 2)), t((5, 5, 2, 1))), "window 5x5 does not fit the input 3x3"),
        (lambda t: cr.ops.conv2d(t((1, 3, 3, 3)), t((2, 2, 1, 4)), groups=2), "2 groups do not divide"),
        (lambda t: cr.ops.conv2d(t((1, 3, 3, 1)), t((2, 2, 1, 1)), stride=0), "stride must be"),
        (lambda t: cr.ops.conv2d(t((1, 3, 3, 1)), t((2, 2, 1, 1)), padding="full"), "padding must be"),
        (lambda t: cr.ops.max_pool2d(t((1, 2, 2, 1)), 3), "would be empty"),
        (lambda t: cr.ops.max_pool2d(t((1, 2, 2, 1)), 2, padding=2), "see no element"),
        (lambda t: cr.ops.matmul(t((2, 3)), t((4, 2))), "inner sizes differ"),
        (lambda t: cr.ops.add(t((2, 3)), t((2, 4))), "do not broadcast"),
        (lambda t: cr.ops.reshape(t((2, 3)), (4, -1)), "does not fit"),
        (lambda t: cr.ops.reshape(t((2, 3)), (-1, -1)), "only one size"),
        (lambda t: cr.ops.transpose(t((2, 3)), (0, 0)), "no permutation"),
        (lambda t: cr.ops.concat([t((2, 3)), t((3, 4))], 0), "differ in more than axis"),
        (lambda t: cr.ops.concat([], 0), "at least one"),
        (lambda t: cr.ops.sum(t((2, 3)), axis=2), "axis 2 does not exist"),
        (lambda t: cr.ops.sum(t((2, 3)), axis=(0, 0)), "one axis twice"),
        (lambda t: cr.ops.max(t((0, 3)), axis=0), "nothing to take the maximum of"),
        (lambda t: cr.ops.clip(t((2,)), 1, 0), "is empty"),
        (lambda t: cr.ops.gather(t((2,)), [2]), "index 2 is outside 0..1"),
        (lambda t: cr.ops.gather(t((2,)), t((1,))), "must be integers"),
        (lambda t: cr.ops.where(t((2,)), 1, 0), "bool"),
        (lambda t: cr.ops.relu(cr.tensor([1, 2])), "float32 or float64"),
        (lambda t: cr.ops.add(t((2,)), cr.tensor(np.zeros(2))), "different dtypes"),
        (lambda t: cr.ops.batch_norm(t((2, 3)), t((2,)), t((3,))), "one number for each"),
        (lambda t: cr.ops.pad(t((2,)), [(-1, 0)]), "must not be negative"),
        (lambda t: cr.ops.slice(t((2,)), [1], [3]), "does not fit axis 0"),
        (lambda t: cr.ops.squeeze(t((2, 3)), 1), "has size 3, not 1"),
        (lambda t: cr.ops.prelu(t((2, 3)), t((4, 2, 3))), "does not broadcast"),
        (lambda t: t((3,))[3], "outside axis 0"),
        (lambda t: t((3,))[::-1], "positive step"),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    def zeros(shape: tuple[int, ...]) -> cr.Tensor:
        return tensor(np.zeros(shape, np.float32))

    assert callable(call)
    with pytest.raises(ChainruleError, match=message.replace("(", r"\(")):
        call(zeros)
