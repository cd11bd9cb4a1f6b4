"""Every layer: output shape, weights, configuration round trip, gradients through the traced model, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule.engines import Executable
from chainrule.errors import ChainruleError, ConfigError, DTypeError, ShapeError
from chainrule.layers.layer import snake_case
from chainrule.models.saving import describe, rebuild

IMAGE = (6, 5, 3)


@dataclass(frozen=True)
class LayerCase:
    """A layer, what it is applied to, and what Keras documents of the result."""

    make: Callable[[], kinds.Layer]
    output: tuple[int, ...]
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    input: Any = IMAGE

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        return list(self.input) if isinstance(self.input, list) else [self.input]


CASES: dict[str, LayerCase] = {
    "conv2d": LayerCase(lambda: kinds.Conv2D(4, 3), (4, 3, 4), {"kernel": (3, 3, 3, 4), "bias": (4,)}),
    "conv2d same stride": LayerCase(
        lambda: kinds.Conv2D(4, (3, 2), strides=2, padding="same", activation="relu", use_bias=False),
        (3, 3, 4),
        {"kernel": (3, 2, 3, 4)},
    ),
    "conv2d groups": LayerCase(
        lambda: kinds.Conv2D(6, 3, groups=3, dilation_rate=2), (2, 1, 6), {"kernel": (3, 3, 1, 6), "bias": (6,)}
    ),
    "max pool": LayerCase(lambda: kinds.MaxPooling2D(2), (3, 2, 3)),
    "max pool same": LayerCase(lambda: kinds.MaxPooling2D(3, strides=2, padding="same"), (3, 3, 3)),
    "average pool": LayerCase(lambda: kinds.AveragePooling2D((2, 1), strides=1), (5, 5, 3)),
    "average pool counted": LayerCase(
        lambda: kinds.AveragePooling2D(3, 2, padding="same", count_padding=True), (3, 3, 3)
    ),
    "global average pool": LayerCase(kinds.GlobalAveragePooling2D, (3,)),
    "global average pool kept": LayerCase(lambda: kinds.GlobalAveragePooling2D(keepdims=True), (1, 1, 3)),
    "flatten": LayerCase(kinds.Flatten, (90,)),
    "reshape": LayerCase(lambda: kinds.Reshape((30, -1)), (30, 3)),
    "rescaling": LayerCase(lambda: kinds.Rescaling(0.5, offset=-1.0), IMAGE),
    "dense": LayerCase(lambda: kinds.Dense(7), (7,), {"kernel": (9, 7), "bias": (7,)}, (9,)),
    "dense on images": LayerCase(lambda: kinds.Dense(2, use_bias=False), (6, 5, 2), {"kernel": (3, 2)}),
    "activation": LayerCase(lambda: kinds.Activation("gelu"), IMAGE),
    "relu": LayerCase(lambda: kinds.ReLU(max_value=1.0, negative_slope=0.1), IMAGE),
    "leaky relu": LayerCase(kinds.LeakyReLU, IMAGE),
    "prelu": LayerCase(kinds.PReLU, IMAGE, {"alpha": IMAGE}),
    "prelu shared": LayerCase(lambda: kinds.PReLU("he_normal", shared_axes=(1, 2)), IMAGE, {"alpha": (1, 1, 3)}),
    "elu": LayerCase(lambda: kinds.ELU(0.5), IMAGE),
    "softmax": LayerCase(kinds.Softmax, IMAGE),
    "batch norm": LayerCase(
        kinds.BatchNormalization,
        IMAGE,
        {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)},
    ),
    "batch norm bare": LayerCase(
        lambda: kinds.BatchNormalization(center=False, scale=False),
        (4,),
        {"moving_mean": (4,), "moving_variance": (4,)},
        (4,),
    ),
    "dropout": LayerCase(lambda: kinds.Dropout(0.5), IMAGE),
    "add": LayerCase(kinds.Add, IMAGE, input=[IMAGE, IMAGE, IMAGE]),
    "subtract": LayerCase(kinds.Subtract, IMAGE, input=[IMAGE, IMAGE]),
    "multiply": LayerCase(kinds.Multiply, IMAGE, input=[IMAGE, IMAGE]),
    "concatenate": LayerCase(kinds.Concatenate, (6, 5, 4), input=[IMAGE, (6, 5, 1)]),
    "concatenate rows": LayerCase(lambda: kinds.Concatenate(axis=1), (8, 5, 3), input=[IMAGE, (2, 5, 3)]),
}


def _any(value: Any) -> Any:
    """A value whose type the type checker does not know: what a user without one may pass."""
    return value


each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def _model(case: LayerCase, layer: kinds.Layer | None = None, dtype: str = "float64") -> Any:
    symbols = [cr.Input(shape, dtype=dtype) for shape in case.inputs]
    layer = layer or case.make()
    output = layer(symbols if isinstance(case.input, list) else symbols[0])
    return cr.Model(symbols if isinstance(case.input, list) else symbols[0], output)


def _data(case: LayerCase, dtype: str = "float64") -> Any:
    rng = np.random.Generator(np.random.PCG64(3))
    arrays = [cr.tensor(rng.normal(size=(4, *shape)).astype(dtype)) for shape in case.inputs]
    return arrays if isinstance(case.input, list) else arrays[0]


@each_case
def test_shape_weights_and_dtype(case: LayerCase) -> None:
    for dtype in ("float32", "float64"):
        model = _model(case, dtype=dtype)
        y = model(_data(case, dtype))
        assert y.shape == (4, *case.output)
        assert y.dtype == np.dtype(dtype)
        (layer,) = model.layers
        assert {w.name.split("/")[-1]: w.shape for w in layer.weights} == case.weights
        assert all(w.dtype == np.dtype(dtype) for w in layer.weights)
        assert layer.count_params() == sum(int(np.prod(shape)) for shape in case.weights.values())


def test_every_public_layer_has_a_case() -> None:
    tested = {type(item.make()).__name__ for item in CASES.values()}
    public = {name for name in kinds.__all__ if name not in ("Input", "Layer")}
    assert tested == public


@each_case
@pytest.mark.parametrize("training", [False, True])
def test_traced_equals_eager_to_the_bit(case: LayerCase, training: bool) -> None:
    if training and case.make().__class__ is kinds.Dropout:
        return  # eager and traced draws have keys of their own; tests/train covers dropout in the step
    data = _data(case, "float32")
    model = _model(case, dtype="float32")
    values = data if isinstance(data, list) else [data]
    specs = [cr.input_spec((None, *shape)) for shape in case.inputs]
    graph = cr.trace(lambda *xs: model(list(xs) if isinstance(case.input, list) else xs[0], training=training), *specs)
    before = model.get_weights()
    eager = model(data, training=training).data
    after_eager = model.get_weights()
    model.set_weights(before)
    np.testing.assert_array_equal(Executable(graph)(*(v.data for v in values)), eager)
    for a, b in zip(model.get_weights(), after_eager, strict=True):
        np.testing.assert_array_equal(a, b)


@each_case
def test_configuration_round_trip(case: LayerCase) -> None:
    layer = case.make()
    same = rebuild(describe(layer))
    assert describe(same) == describe(layer)
    first, second = _model(case, layer), _model(case, same)
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(first(_data(case)).data, second(_data(case)).data)


@each_case
def test_gradients_reach_every_trainable_weight(case: LayerCase) -> None:
    model = _model(case)
    y = model(_data(case), training=True)
    rng = np.random.Generator(np.random.PCG64(4))
    if y.requires_grad:
        y.backward(cr.tensor(rng.normal(size=y.shape)))
    for weight in model.trainable_weights:
        assert weight.grad is not None
        assert weight.grad.shape == weight.shape
    for weight in model.non_trainable_weights:
        assert weight.grad is None


def test_names_in_snake_case() -> None:
    assert [snake_case(name) for name in ("Conv2D", "MaxPooling2D", "ReLU", "GlobalAveragePooling2D")] == [
        "conv2d",
        "max_pooling2d",
        "re_lu",
        "global_average_pooling2d",
    ]


def test_batch_norm_moves_its_statistics_by_kerass_rule() -> None:
    layer = kinds.BatchNormalization(momentum=0.9)
    x = np.random.Generator(np.random.PCG64(0)).normal(3, 2, (50, 4)).astype(np.float32)
    layer(cr.tensor(x), training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 + 0.1 * x.var(0), rtol=1e-5)
    before = layer.get_weights()
    y = layer(cr.tensor(x))
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = (x - layer.moving_mean.numpy()) / np.sqrt(layer.moving_variance.numpy() + 1e-3)
    np.testing.assert_allclose(y.data, wanted, rtol=2e-5, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    cr.set_seed(0)
    layer, x = kinds.Dropout(0.5), cr.tensor(np.ones((20, 50), np.float32))
    np.testing.assert_array_equal(layer(x).data, 1)
    first, second = layer(x, training=True).data, layer(x, training=True).data
    assert set(np.unique(first)) == {0.0, 2.0}
    assert (first != second).any()


@pytest.mark.slow
def test_frozen_layers_do_not_learn_and_do_not_move() -> None:
    model = cr.Sequential([cr.Input((4,)), kinds.Dense(3), kinds.BatchNormalization(), kinds.Dense(2)])
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    assert [w.name for w in model.trainable_weights] == ["dense_1/kernel", "dense_1/bias"]
    before = model.get_weights()
    model.compile("sgd", "mse")
    rng = np.random.Generator(np.random.PCG64(0))
    model.fit(rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), verbose=0)
    after = model.get_weights()
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True] * 6 + [False] * 2
    model.layers[0].trainable = True
    model.fit(rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), verbose=0)
    assert (model.get_weights()[0] != after[0]).any()
    model.layers[1].trainable = True
    assert len(model.non_trainable_weights) == 2


def test_equal_layers_start_differently_and_repeat_with_the_seed() -> None:
    def build() -> list[np.ndarray]:
        cr.set_seed(3)
        model = cr.Sequential([cr.Input((5,)), kinds.Dense(5), kinds.Dense(5)])
        loose = kinds.Dense(5), kinds.Dense(5)
        for layer in loose:
            layer(cr.tensor(np.zeros((1, 5), np.float32)))
        cr.set_seed(0)
        return [*model.get_weights()[::2], *(layer.get_weights()[0] for layer in loose)]

    first, second = build(), build()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for i in range(4):
        for j in range(i):
            assert (first[i] != first[j]).any()


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_uniform", 2 / (144 + 288)),
        ("glorot_normal", 2 / (144 + 288)),
        ("he_uniform", 2 / 144),
        ("he_normal", 2 / 144),
        ("lecun_uniform", 1 / 144),
        ("lecun_normal", 1 / 144),
        ("random_normal", 0.05**2),
        ("random_uniform", 0.1**2 / 12),
    ],
)
def test_initializers_have_the_variance_they_are_named_for(name: str, variance: float) -> None:
    from chainrule.graph import Spec
    from chainrule.layers.initializers import get_initializer

    values = get_initializer(name)(Spec((3, 3, 16, 32), np.dtype("float64")), 0, "test")
    assert abs(values.mean()) < 4 * np.sqrt(variance / values.size)
    assert abs(values.var() / variance - 1) < 0.1
    if name.endswith("uniform") and name != "random_uniform":
        assert np.abs(values).max() <= np.sqrt(3 * variance)
    if name in ("glorot_normal", "he_normal", "lecun_normal"):
        assert np.abs(values).max() <= 2 * np.sqrt(variance) / 0.87962566103423978


IMAGE_ONLY = cr.tensor(np.zeros((1, 6, 5), np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kinds.Conv2D(4, 3)(IMAGE_ONLY), r"layer 'conv2d': .*\(1, 6, 5\) of rank 3; expected rank 4"),
        (lambda: kinds.Conv2D(4, 7, name="wide")(cr.Input(IMAGE)), "layer 'wide'.*7x7 does not fit the input 6x5"),
        (lambda: kinds.Conv2D(4, 3, groups=2)(cr.Input(IMAGE)), "groups=2 must divide the 3 input channels"),
        (lambda: kinds.MaxPooling2D(9)(cr.Input(IMAGE)), "layer 'max_pooling2d'.*would be empty"),
        (lambda: kinds.GlobalAveragePooling2D()(cr.Input((3,))), "expected rank 4"),
        (lambda: kinds.Dense(3)(cr.tensor([1.0])), "expected at least rank 2"),
        (lambda: kinds.Add()([cr.Input((2,)), cr.Input((3,))]), "joins tensors of one shape"),
        (lambda: kinds.Add()([cr.Input((2,))]), "at least two tensors"),
        (lambda: kinds.Concatenate()([cr.Input((2, 2)), cr.Input((3, 2))]), "differ in more than axis"),
        (lambda: kinds.Reshape((7,))(cr.Input((6,))), "layer 'reshape'|reshape: "),
        (lambda: kinds.BatchNormalization(axis=1)(cr.Input(IMAGE)), "is not its last"),
    ],
)
def test_shapes_that_do_not_fit_name_the_layer(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kinds.Conv2D(0, 3), "filters must be a positive integer, got 0"),
        (lambda: kinds.Conv2D(4, 0), "kernel_size must be"),
        (lambda: kinds.Conv2D(4, 3, strides=(1, 2, 3)), "strides must be"),
        (lambda: kinds.Conv2D(4, 3, padding="full"), "padding must be 'valid', 'same'"),
        (lambda: kinds.Conv2D(4, 3, activation="rely"), "unknown activation 'rely'"),
        (lambda: kinds.Conv2D(4, 3, filter=3), "Conv2D: unknown argument 'filter'; did you mean 'filters'"),
        (lambda: kinds.Conv2D(**_any({})), "Conv2D: missing a required argument: 'filters'"),
        (lambda: kinds.Conv2D(4, 3, data_format="channels_first"), "data_format must be 'channels_last'"),
        (lambda: kinds.Dense(_any(2.5)), "units must be a positive integer"),
        (lambda: kinds.Dense(2, kernel_initializer="best")(cr.Input((3,))), "unknown initializer 'best'"),
        (lambda: kinds.Dropout(1.0), "rate must lie in"),
        (lambda: kinds.BatchNormalization(momentum=2), "momentum must lie in"),
        (lambda: kinds.BatchNormalization(epsilon=0), "epsilon must be positive"),
        (lambda: kinds.ReLU(max_value=-1), "must not be negative"),
        (lambda: kinds.Dense(2, name="a/b"), "without '/'"),
        (lambda: cr.Input((28, 0)), "positive integers"),
        (lambda: cr.Input(_any((None, 3))), "positive integers"),
    ],
)
def test_arguments_that_are_none(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_layer_keeps_the_shape_it_was_built_for() -> None:
    layer = kinds.Dense(3, name="head")
    layer(cr.tensor(np.zeros((2, 5), np.float32)))
    with pytest.raises(ShapeError, match=r"layer 'head': got an input of shape \(2, 4\).*made for \(2, 5\)"):
        layer(cr.tensor(np.zeros((2, 4), np.float32)))


def test_integer_input_to_a_bare_layer_is_named() -> None:
    with pytest.raises(DTypeError, match=r"layer 'conv2d'.*float32 or float64"):
        kinds.Conv2D(2, 1)(cr.tensor(np.zeros((1, 2, 2, 1), np.uint8)))


def test_set_weights_checks_everything_before_it_changes_anything() -> None:
    layer = kinds.Dense(3)
    layer(cr.tensor(np.zeros((2, 5), np.float32)))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match="has 2 weights, got 1"):
        layer.set_weights(before[:1])
    with pytest.raises(ShapeError, match=r"'dense/bias' has shape \(3,\), got \(4,\)"):
        layer.set_weights([before[0] + 1, np.zeros(4)])
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])


@pytest.mark.slow
def test_a_layer_of_ones_own() -> None:
    class Scale(kinds.Layer):
        def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, input_shape: Any) -> None:
            self.gain = self.add_weight("gain", (input_shape[-1],), "ones")

        def call(self, x: cr.Tensor, training: bool = False) -> cr.Tensor:
            return x * self.gain * (self.factor if training else 1.0)

    model = cr.Sequential([cr.Input((3,)), Scale(3.0), kinds.Dense(1)])
    x = cr.tensor(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(model.layers[0](x, training=True).data, 3)
    np.testing.assert_array_equal(model.layers[0](x).data, 1)
    model.compile("adam", "mse")
    model.fit(np.ones((8, 3)), np.ones(8), verbose=0)
    assert (model.get_weights()[0] != 1).all()
    assert rebuild(describe(model.layers[0])).factor == 3.0  # type: ignore[attr-defined]


def test_every_error_of_a_layer_is_a_chainrule_error() -> None:
    assert issubclass(ConfigError, ChainruleError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DTypeError, TypeError)
