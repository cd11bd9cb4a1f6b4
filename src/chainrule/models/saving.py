"""Model files: one safetensors file with the weights, and the architecture as JSON in its metadata.

Nothing in the file is code.  A checksum over the weights tells a damaged file from a good one.  What only storing
needs is imported where it is used, so that `import chainrule` stays fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.__about__ import __version__
from chainrule.errors import ChainruleError, ConfigError, ModelFileError, RunFolderError
from chainrule.graph.dims import format_shape
from chainrule.graph.op import Array
from chainrule.layers.activations import activation_name
from chainrule.layers.initializers import Initializer, initializer_config
from chainrule.layers.layer import Layer, layer_class
from chainrule.layers.symbol import Input, Symbol
from chainrule.regularizers import Regularizer, regularizer_config

if TYPE_CHECKING:
    from pathlib import Path

    from chainrule.models.model import Model

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

FORMAT = 1
_KEY = "chainrule"


def save_model(model: Model, path: str | Path) -> Path:
    """See `Model.save`."""
    if not model.built:
        raise ConfigError(f"model {model.name!r} has no weights yet; call it or fit it before saving")
    return _write(model, path, {"architecture": describe(model), "compile": _compile_config(model)})


def save_weights(model: Model, path: str | Path) -> Path:
    """See `Model.save_weights`."""
    return _write(model, path, {})


def _write(model: Model, path: str | Path, content: dict[str, Any]) -> Path:
    import json
    from pathlib import Path

    from safetensors.numpy import save

    from chainrule.files import write_bytes_atomic

    arrays = {weight.name: np.ascontiguousarray(weight.data) for weight in model.weights}
    header = {"format": FORMAT, "version": __version__, **content, "sha256": _digest(arrays)}
    try:
        write_bytes_atomic(path, save(arrays, metadata={_KEY: json.dumps(header, ensure_ascii=False)}))
    except RunFolderError as error:
        raise ModelFileError(str(error)) from None
    return Path(path)


def load_model(path: str | Path) -> Model:
    """A model from a file that `Model.save` wrote, compiled as it was.

    Raises:
        ModelFileError: no such file, or it is truncated, corrupted, or no chainrule model.

    >>> import chainrule as cr, tempfile, pathlib
    >>> model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = model.save(pathlib.Path(folder) / "model.safetensors")
    ...     same = cr.load_model(file)
    >>> bool((same.get_weights()[0] == model.get_weights()[0]).all())
    True
    """
    header, arrays = _read(path)
    if "architecture" not in header:
        raise ModelFileError(f"{path}: holds weights alone; build the model and call its load_weights")
    try:
        model: Any = rebuild(header["architecture"])
        if header.get("compile"):
            model.compile(**header["compile"])
    except ChainruleError as error:
        raise ModelFileError(f"{path}: the architecture cannot be rebuilt: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{path}: the architecture is not understood ({error!r})") from None
    _fill(model, arrays, path)
    result: Model = model
    return result


def load_weights(model: Model, path: str | Path) -> None:
    """Give a model the weights of a file, by name.

    Raises:
        ModelFileError: as `load_model`, or a weight is missing or has another shape; nothing is changed then.
    """
    _fill(model, _read(path)[1], path)


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise ModelFileError(f"{path}: no such model file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); it is truncated, corrupted, or something else"
        ) from None
    header = _header(path, metadata)
    if header.get("sha256") != _digest(arrays):
        raise ModelFileError(f"{path}: the weights do not match their checksum; the file is corrupted")
    return header, arrays


def _header(path: str | Path, metadata: dict[str, str]) -> dict[str, Any]:
    import json

    if _KEY not in metadata:
        raise ModelFileError(f"{path}: a safetensors file, but not a chainrule model (it has no {_KEY!r} metadata)")
    try:
        header = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{path}: the architecture is not JSON ({error}); the file is corrupted") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ModelFileError(f"{path}: model format {found!r}; this version reads format {FORMAT}")
    return header


def _digest(arrays: dict[str, Array]) -> str:
    import hashlib

    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _fill(model: Model, arrays: dict[str, Array], path: str | Path) -> None:
    weights = {weight.name: weight for weight in model.weights}
    if set(weights) != set(arrays):
        missing, extra = sorted(set(weights) - set(arrays)), sorted(set(arrays) - set(weights))
        raise ModelFileError(
            f"{path}: the weights do not belong to the architecture (missing {missing or 'none'}, "
            f"unknown {extra or 'none'})"
        )
    for name, weight in weights.items():
        if arrays[name].shape != weight.shape or arrays[name].dtype != weight.dtype:
            raise ModelFileError(
                f"{path}: weight {name!r} is {arrays[name].dtype}{format_shape(arrays[name].shape)}; "
                f"expected {weight.spec}"
            )
    for name, weight in weights.items():
        weight.set_array(arrays[name])


# -- architecture as plain data --------------------------------------------------------------------------------


def describe(layer: Layer) -> dict[str, Any]:
    """A layer, or a model with its layers, as JSON can hold it."""
    from chainrule.models.functional import Functional
    from chainrule.models.sequential import Sequential

    if isinstance(layer, Sequential):
        return {
            "class": "Sequential",
            "name": layer.given_name,
            "input": None if layer.input_spec is None else _input_config(layer.input_spec),
            "layers": [_named(child) for child in layer.layers],
        }
    if isinstance(layer, Functional):
        return _describe_functional(layer)
    if layer.layers_inside():
        raise ConfigError(
            f"{layer.path!r} is a subclass with layers of its own, whose call() a file cannot hold; "
            "save its weights, or build it from Sequential or Model(inputs, outputs)"
        )
    return {"class": layer.class_key, "config": {k: _plain(v) for k, v in layer.get_config().items()}}


def _named(layer: Layer) -> dict[str, Any]:
    """A layer of a model: with its name, and whether it learns (the layers of a nested model say so themselves)."""
    return {**describe(layer), "name": layer.name, "trainable": layer.trainable}


def _describe_functional(model: Any) -> dict[str, Any]:
    calls = {id(call): number for number, call in enumerate(model.calls)}
    inputs = {id(symbol): number for number, symbol in enumerate(model.inputs)}

    def reference(symbol: Symbol) -> list[Any]:
        return ["input", inputs[id(symbol)]] if symbol.call is None else ["call", calls[id(symbol.call)]]

    return {
        "class": "Functional",
        "name": model.given_name,
        "inputs": [_input_config(symbol.spec) for symbol in model.inputs],
        "layers": [_named(child) for child in model.layers],
        "calls": [
            {
                "layer": call.layer.name,
                "listed": call.listed,
                "inputs": [reference(symbol) for symbol in call.inputs],
            }
            for call in model.calls
        ],
        "outputs": [reference(symbol) for symbol in model.outputs],
        "one_input": model._one_input,
        "one_output": model._one_output,
    }


def _input_config(spec: Any) -> dict[str, Any]:
    return {"shape": list(spec.shape[1:]), "dtype": spec.dtype.name}


def _plain(value: Any) -> Any:
    if isinstance(value, Initializer):
        return initializer_config(value)
    if isinstance(value, Regularizer):
        return regularizer_config(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if callable(value):
        return activation_name(value)
    return value


def rebuild(config: dict[str, Any]) -> Layer:
    """The layer or model that `describe` described, with fresh weights."""
    from chainrule.models.functional import Functional
    from chainrule.models.sequential import Sequential

    if config["class"] == "Sequential":
        first = [] if config["input"] is None else [Input(**config["input"])]
        return Sequential([*first, *map(_rebuild_named, config["layers"])], name=config["name"])
    if config["class"] != "Functional":
        return layer_class(config["class"])(**_flattened(config["config"]))
    inputs = [Input(**entry) for entry in config["inputs"]]
    layers = {entry["name"]: _rebuild_named(entry) for entry in config["layers"]}
    results: list[Symbol] = []

    def symbol(reference: list[Any]) -> Any:
        kind, number = reference
        return inputs[number] if kind == "input" else results[number]

    for call in config["calls"]:
        arguments = [symbol(entry) for entry in call["inputs"]]
        results.append(layers[call["layer"]](arguments if call["listed"] else arguments[0]))
    outputs = [symbol(entry) for entry in config["outputs"]]
    return Functional(
        inputs[0] if config["one_input"] else inputs,
        outputs[0] if config["one_output"] else outputs,
        name=config["name"],
    )


def _rebuild_named(config: dict[str, Any]) -> Layer:
    layer = rebuild(config)
    layer.given_name = layer.path = config["name"]
    if not layer.layers_inside():
        layer.trainable = config["trainable"]
    return layer


def _flattened(config: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments with those caught by ``**kwargs`` beside the others."""
    return {**{k: v for k, v in config.items() if k != "kwargs"}, **config.get("kwargs", {})}


def _compile_config(model: Model) -> dict[str, Any] | None:
    """What `compile` was given, where a file can hold it."""
    if not model.is_compiled:
        return None
    objective = model.objective
    parts: list[object] = [objective.loss, objective.optimizer, *objective.metrics]
    if not all(type(part).__module__.startswith("chainrule.") for part in parts):
        return None  # a loss or metric of the user's own is code, which a file does not hold
    return {
        "optimizer": {
            "class": type(objective.optimizer).__name__,
            "config": objective.optimizer.get_config(),
        },
        "loss": {"class": type(objective.loss).__name__, "config": objective.loss.get_config()},
        "metrics": [{"class": type(metric).__name__, "config": metric.get_config()} for metric in objective.metrics],
    }
