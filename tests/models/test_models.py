"""Sequential, functional and subclassed models: structure, names, shapes, summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule.errors import ConfigError, ShapeError
from chainrule.layers import Input

RNG = np.random.Generator(np.random.PCG64(0))


def classic(dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(
        [
            cr.Input((28, 28, 1), dtype=dtype),
            kinds.Conv2D(32, 3, activation="relu"),
            kinds.MaxPooling2D(2),
            kinds.Conv2D(64, 3, activation="relu"),
            kinds.MaxPooling2D(2),
            kinds.Flatten(),
            kinds.Dense(64, activation="relu"),
            kinds.Dense(10, activation="softmax"),
        ]
    )


def branched() -> Any:
    inputs = cr.Input((8, 8, 3))
    stem = kinds.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    left = kinds.BatchNormalization()(kinds.Conv2D(4, 3, padding="same")(stem))
    joined = kinds.ReLU()(left + stem)
    wide = kinds.Concatenate()([joined, inputs])
    return cr.Model(inputs, kinds.Dense(5)(kinds.GlobalAveragePooling2D()(wide)))


def test_sequential_infers_sizes_and_names_by_position() -> None:
    model = classic()
    assert model.count_params() == 121_930
    assert [layer.name for layer in model.layers] == [
        "conv2d",
        "max_pooling2d",
        "conv2d_1",
        "max_pooling2d_1",
        "flatten",
        "dense",
        "dense_1",
    ]
    assert [w.name for w in model.weights][:2] == ["conv2d/kernel", "conv2d/bias"]
    assert classic().layers[2].name == "conv2d_1"  # names do not depend on what was made before


def test_input_shape_on_the_first_layer() -> None:
    model = cr.Sequential([kinds.Conv2D(2, 3, input_shape=(5, 5, 1)), kinds.Flatten(), kinds.Dense(3)])
    assert model.count_params() == 20 + 57


@pytest.mark.slow
def test_sequential_without_input_is_built_by_its_first_data() -> None:
    model = cr.Sequential([kinds.Flatten(), kinds.Dense(3)])
    assert model.weights == []
    with pytest.raises(ConfigError, match="does not know its input yet"):
        model.summary()
    assert model.predict(np.zeros((4, 2, 3), np.float32)).shape == (4, 3)
    assert model.count_params() == 21


def test_add_extends_a_model() -> None:
    model = cr.Sequential([cr.Input((4,))])
    model.add(kinds.Dense(3))
    model.add(kinds.Dense(2))
    assert [w.name for w in model.weights] == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]


def test_models_nest() -> None:
    inner = cr.Sequential([kinds.Dense(4, activation="relu"), kinds.Dense(3)])
    model = cr.Sequential([cr.Input((5,)), inner, kinds.Dense(2)])
    assert model.weights[0].name == "sequential/dense/kernel"
    assert model(np.zeros((2, 5), np.float32)).shape == (2, 2)
    outer_input = cr.Input((5,))
    functional = cr.Model(outer_input, kinds.Dense(1)(model(outer_input)))
    assert functional.count_params() == model.count_params() + 3


def test_functional_model_with_branches_computes_what_its_layers_do() -> None:
    model = branched()
    x = cr.tensor(RNG.normal(size=(2, 8, 8, 3)).astype(np.float32))
    stem, conv, norm, _, _, _, _, head = model.layers
    s = stem(x)
    joined = cr.ops.relu(norm(conv(s)) + s)
    wanted = head(cr.ops.mean(cr.ops.concat([joined, x]), (1, 2)))
    np.testing.assert_array_equal(model(x).data, wanted.data)


def test_a_layer_used_twice_shares_its_weights_and_sums_its_gradients() -> None:
    inputs = cr.Input((3,), dtype="float64")
    shared = kinds.Dense(3, use_bias=False)
    model = cr.Model(inputs, shared(shared(inputs)))
    assert len(model.weights) == 1
    w, x = model.weights[0].numpy(), RNG.normal(size=(4, 3))
    model(x).sum().backward()
    ones = np.ones((4, 3))
    assert shared.weights[0].grad is not None
    np.testing.assert_allclose(shared.weights[0].grad.data, x.T @ (ones @ w.T) + (x @ w).T @ ones)


def test_several_inputs_and_outputs() -> None:
    a, b = cr.Input((3,)), cr.Input((2,))
    joined = kinds.Concatenate()([a, b])
    model = cr.Model([a, b], [kinds.Dense(1)(joined), joined])
    values = [np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)]
    first, second = model(values)
    assert first.shape == (4, 1)
    np.testing.assert_array_equal(second.data, np.concatenate(values, 1))
    with pytest.raises(ShapeError, match="takes 2 inputs"):
        model(values[:1])
    with pytest.raises(ConfigError, match="'functional' has 2 and 2"):
        model.compile("sgd", "mse")


def test_part_of_a_model_keeps_its_weights_and_names() -> None:
    inputs = cr.Input((3,))
    hidden = kinds.Dense(4, name="hidden")(inputs)
    whole = cr.Model(inputs, kinds.Dense(2)(hidden))
    part = cr.Model(inputs, hidden)
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(part.predict(x), whole.layers[0](x).data)
    assert part.weights[0] is whole.weights[0]
    assert part.weights[0].name == "hidden/kernel"


class Residual(cr.Model):
    """A network in PyTorch's habit: layers as attributes, computation in `call`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = kinds.Conv2D(4, 3, padding="same")
        self.blocks = [kinds.Conv2D(4, 3, padding="same"), kinds.Conv2D(4, 3, padding="same")]
        self.head = kinds.Dense(3)

    def call(self, x: cr.Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = x + cr.ops.relu(block(x))
        return self.head(cr.ops.mean(x, (1, 2)))


@pytest.mark.slow
def test_a_subclassed_model_trains() -> None:
    model = Residual()
    model.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x, y = RNG.normal(size=(30, 6, 6, 1)).astype(np.float32), RNG.integers(0, 3, 30)
    history = model.fit(x, y, epochs=2, verbose=0)
    assert [w.name for w in model.weights][:4] == ["stem/kernel", "stem/bias", "blocks_0/kernel", "blocks_0/bias"]
    assert history.history["loss"][1] < history.history["loss"][0]
    with pytest.raises(ConfigError, match="whose call\\(\\) a file cannot hold"):
        model.save("never-written.safetensors")


def test_eager_training_in_pytorchs_habit_learns() -> None:
    cr.set_seed(0)
    model = Residual()
    optimizer = cr.optimizers.Adam(0.01)
    x, y = RNG.normal(size=(16, 6, 6, 1)).astype(np.float32), RNG.integers(0, 3, 16)
    values = []
    for _ in range(5):
        model.zero_grad()
        loss = cr.losses.sparse_categorical_crossentropy(y, model(cr.tensor(x), training=True), from_logits=True)
        loss.backward()
        optimizer.step(model.parameters())
        values.append(loss.item())
    assert values[-1] < values[0]


def test_summary_tells_shapes_parameters_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    classic().summary()
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["conv2d"][-2:] == ["320", f"{26 * 26 * 32 * (9 * 2 + 1 + 1):,}"]
    assert lines["dense_1"][-2] == "650"
    assert "parameters: 121,930 (121,930 trained, 0 not), 487.7 kB" in text


def test_get_layer() -> None:
    assert classic().get_layer("conv2d_1").name == "conv2d_1"
    with pytest.raises(ConfigError, match="no layer named 'conv3'; the layers are conv2d,"):
        classic().get_layer("conv3")


@pytest.mark.slow
def test_float64_models() -> None:
    model = classic("float64")
    assert all(w.dtype == np.float64 for w in model.weights)
    assert model.predict(np.zeros((1, 28, 28, 1), np.uint8)).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, bool])
@pytest.mark.slow
def test_inputs_of_any_number_type_are_cast(dtype: Any) -> None:
    x = RNG.integers(0, 2, (3, 28, 28, 1))
    model = classic()
    np.testing.assert_array_equal(model.predict(x.astype(dtype)), model.predict(x.astype(np.float32)))


@pytest.mark.slow
def test_the_last_batch_may_be_short() -> None:
    model = classic()
    x = RNG.normal(size=(10, 28, 28, 1)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x, batch_size=4), model.predict(x, batch_size=10), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: cr.Sequential([kinds.Dense]), ConfigError, "entry 0 is .*not a layer"),
        (lambda: cr.Sequential([kinds.Dense(2), cr.Input((3,))]), ConfigError, "can only be the first entry"),
        (lambda: cr.Sequential([kinds.Dense(2, name="a"), kinds.Dense(2, name="a")]), ConfigError, "named 'a'"),
        (lambda: cr.Sequential([(d := kinds.Dense(2)), d]), ConfigError, "stands in the chain twice"),
        (
            lambda: cr.Sequential([cr.Input((5, 5, 1)), kinds.Conv2D(2, 3), kinds.Conv2D(2, 5, name="deep")]),
            ShapeError,
            "layer 'deep' .*5x5 does not fit the input 3x3",
        ),
        (
            lambda: cr.Sequential([cr.Input((4, 4, 1)), *[kinds.MaxPooling2D(2) for _ in range(3)]]),
            ShapeError,
            "layer 'max_pooling2d_2' .*output would be empty",
        ),
        (
            lambda: cr.Sequential([cr.Input((28, 28)), kinds.Conv2D(2, 3)]),
            ShapeError,
            r"layer 'conv2d': .*\(N, 28, 28\) of rank 3; expected rank 4.*x\[..., None\]",
        ),
        (
            lambda: cr.Model(cr.Input((3,)), cr.Input((3,)) + cr.Input((3,))),
            ConfigError,
            "not among the model's inputs",
        ),
        (lambda: cr.Model(kinds.Dense(2)(cr.Input((3,))), cr.Input((3,))), ConfigError, "not an Input"),
        (lambda: cr.Model(np.zeros(3), cr.Input((3,))), ConfigError, "symbols from cr.Input"),
        (lambda: cr.Input((3,)) + 1, ConfigError, "joined with another symbol"),
        (lambda: kinds.Add()([cr.Input((3,)), np.zeros((2, 3))]), ConfigError, "symbols and values"),
        (
            lambda: classic()(np.zeros((2, 28, 28))),
            ShapeError,
            r"takes inputs of shape \(N, 28, 28, 1\).*x\[..., None\]",
        ),
        (lambda: classic().predict(np.zeros((2, 28, 28, 3))), ShapeError, r"got \(N, 28, 28, 3\)"),
    ],
)
def test_models_that_do_not_fit(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_input_is_one_thing_under_two_names() -> None:
    assert cr.Input is Input
