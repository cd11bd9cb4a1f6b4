"""Model files: what comes back, and every way a file can be bad."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import layers as kinds
from chainrule.errors import ConfigError, ModelFileError
from chainrule.models.saving import load_weights
from chainrule.models.summary import summarise
from tests.models.test_models import branched, classic

RNG = np.random.Generator(np.random.PCG64(1))


def _small() -> cr.Sequential:
    model = cr.Sequential(
        [
            cr.Input((6, 6, 1)),
            kinds.Rescaling(1 / 16),
            kinds.Conv2D(2, 3, activation="relu", kernel_initializer="he_normal", padding=((1, 0), (0, 1))),
            kinds.BatchNormalization(),
            kinds.MaxPooling2D(2),
            kinds.Dropout(0.5),
            kinds.Flatten(),
            kinds.Dense(3, activation="softmax", name="输出"),
        ]
    )
    model.compile(cr.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_model_comes_back_whole(tmp_path: Path) -> None:
    model = _small()
    x, y = RNG.normal(size=(40, 6, 6, 1)).astype(np.float32), RNG.integers(0, 3, 40)
    model.fit(x, y, verbose=0)
    path = model.save(tmp_path / "模型.safetensors")
    for same in (cr.load_model(path), cr.Model.load(str(path))):
        np.testing.assert_array_equal(same.predict(x), model.predict(x))
        assert same.evaluate(x, y) == model.evaluate(x, y)
        assert [w.name for w in same.weights] == [w.name for w in model.weights]
        assert same.optimizer.get_config() == model.optimizer.get_config()
        assert summarise(same) == summarise(model)
    again = cr.load_model(path).save(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [classic, branched], ids=["sequential", "functional"])
@pytest.mark.slow
def test_architectures_come_back(make: Any, tmp_path: Path) -> None:
    model = make()
    shape = model.input_spec.shape[1:]
    x = RNG.normal(size=(3, *shape)).astype(np.float32)
    same = cr.load_model(model.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(same.predict(x), model.predict(x))


@pytest.mark.slow
def test_nested_and_shared_layers_come_back(tmp_path: Path) -> None:
    inputs = cr.Input((5,))
    block = cr.Sequential([kinds.Dense(5, activation="tanh"), kinds.Dense(5)], name="block")
    hidden = block(block(inputs))
    model = cr.Model(inputs, kinds.Dense(2)(hidden - inputs))
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    same = cr.load_model(model.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(same.predict(x), model.predict(x))
    assert same.count_params() == model.count_params()


class Doubled(kinds.Layer):
    """A layer of the user's own, known by its import path."""

    def __init__(self, times: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.times = times

    def call(self, x: cr.Tensor) -> cr.Tensor:
        return x * self.times


def test_layers_of_the_user_come_back_if_their_class_is_imported(tmp_path: Path) -> None:
    model = cr.Sequential([cr.Input((2,)), Doubled(3)])
    path = model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(cr.load_model(path).predict(np.ones((1, 2))), [[3.0, 3.0]])
    content = path.read_bytes().replace(b"test_saving.Doubled", b"test_saving.Forgott")
    (tmp_path / "foreign.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"unknown layer class .*import the module that defines it"):
        cr.load_model(tmp_path / "foreign.safetensors")


def test_a_function_of_the_users_own_cannot_be_saved(tmp_path: Path) -> None:
    model = cr.Sequential([cr.Input((2,)), kinds.Dense(2, activation=lambda x: x * 2)])
    with pytest.raises(ConfigError, match="is your own function"):
        model.save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_unbuilt_model_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights yet"):
        cr.Sequential([kinds.Dense(2)]).save(tmp_path / "m.safetensors")


def test_weights_alone(tmp_path: Path) -> None:
    path = classic().save(tmp_path / "m.safetensors")
    cr.set_seed(9)
    other = classic()
    cr.set_seed(0)
    load_weights(other, path)
    np.testing.assert_array_equal(other.get_weights()[0], classic().get_weights()[0])
    before = branched()
    with pytest.raises(ModelFileError, match="do not belong to the architecture"):
        load_weights(before, path)


def test_overwriting_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: Any) -> None:
    import os

    path = _small().save(tmp_path / "m.safetensors")
    content = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ModelFileError, match=r"m\.safetensors.*no space left"):
        classic().save(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFileError, match="cannot be written"):
        _small().save(tmp_path / "file" / "m.safetensors")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        cr.load_model(tmp_path / "absent.safetensors")
    with pytest.raises(ModelFileError, match="no such model file"):
        cr.load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04pickle", b"PK\x03\x04" + b"0" * 100, b"\xff" * 4096])
def test_files_that_are_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.safetensors: not a readable safetensors file"):
        cr.load_model(path)


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="not a chainrule model"):
        cr.load_model(path)


def _edited(path: Path, change: Any) -> None:
    """Rewrite the metadata of a model file, the weights untouched."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["chainrule"])
    change(inner)
    header["__metadata__"]["chainrule"] = json.dumps(inner)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=99), "model format 99"),
        (lambda h: h.update(sha256="0" * 64), "do not match their checksum"),
        (lambda h: h.pop("architecture"), "holds weights alone"),
        (lambda h: h["architecture"].pop("layers"), "not understood"),
        (lambda h: h["architecture"].update({"class": "Evil"}), "cannot be rebuilt: unknown layer class 'Evil'"),
        (lambda h: h["architecture"]["layers"].pop(), "do not belong to the architecture"),
        (lambda h: h["architecture"]["layers"][1]["config"].update(filters=3), "expected float32"),
        (lambda h: h["architecture"]["layers"][1]["config"].update(filters="many"), "cannot be rebuilt"),
        (lambda h: h["compile"].update(loss="hinge"), "cannot be rebuilt: unknown loss"),
    ],
)
def test_metadata_that_does_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    path = _small().save(tmp_path / "m.safetensors")
    _edited(path, change)
    with pytest.raises(ModelFileError, match=message):
        cr.load_model(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.floats(0, 1), st.booleans(), st.integers(1, 255))
@pytest.mark.slow
def test_no_damage_goes_unnoticed(tmp_path: Path, place: float, cut: bool, flip: int) -> None:
    """Cut anywhere, or change any byte: the file is refused, or (for a byte of the text) means the same."""
    path = tmp_path / "m.safetensors"
    if not path.exists():
        _small().save(path)
    content = path.read_bytes()
    at = min(int(place * len(content)), len(content) - 1)
    damaged = content[:at] if cut else content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(damaged)
    (length,) = struct.unpack("<Q", content[:8])
    try:
        found = cr.load_model(broken)
    except ModelFileError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "broken.safetensors" in message
        return
    assert not cut
    assert at < 8 + length, "a changed weight was loaded"
    for a, b in zip(found.get_weights(), cr.load_model(path).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_metrics_come_back_with_their_arguments(tmp_path: Path) -> None:
    model = cr.Sequential([cr.Input((6,)), kinds.Dense(1, activation="sigmoid")])
    metric = cr.metrics.BinaryAccuracy(threshold=0.9, name="sure")
    model.compile("sgd", "binary_crossentropy", metrics=[metric])
    x, y = RNG.normal(size=(40, 6)) * 4, RNG.integers(0, 2, 40)
    same = cr.load_model(model.save(tmp_path / "m.safetensors"))
    assert same.evaluate(x, y, return_dict=True) == model.evaluate(x, y, return_dict=True)
    assert "sure" in same.evaluate(x, y, return_dict=True)


def test_frozen_layers_come_back_frozen(tmp_path: Path) -> None:
    base = cr.Sequential([kinds.Dense(4), kinds.BatchNormalization()])
    model = cr.Sequential([cr.Input((6,)), base, kinds.Dense(3), kinds.Dense(2)])
    base.trainable = False
    model.layers[1].trainable = False
    same = cr.load_model(model.save(tmp_path / "m.safetensors"))
    assert [w.name for w in same.trainable_weights] == [w.name for w in model.trainable_weights]
    assert len(same.trainable_weights) == 2


@pytest.mark.slow
def test_weights_of_a_model_that_a_file_cannot_hold(tmp_path: Path) -> None:
    from tests.models.test_models import Residual

    one, two = Residual(), Residual()
    x = RNG.normal(size=(2, 6, 6, 1)).astype(np.float32)
    one.predict(x)
    path = one.save_weights(tmp_path / "w.safetensors")
    cr.set_seed(5)
    two.predict(x)
    two.load_weights(path)
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    with pytest.raises(ModelFileError, match="holds weights alone"):
        cr.load_model(path)
