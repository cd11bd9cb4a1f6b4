"""The layer: weights, a `call`, a name, and the path that its nodes carry."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import Size, format_shape
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor, as_tensor, scope
from chainrule.graph.trace import trace
from chainrule.graph.variable import Variable
from chainrule.layers.initializers import InitializerLike, get_initializer
from chainrule.layers.symbol import Call, Symbol
from chainrule.random import get_seed, occurrence
from chainrule.regularizers import RegularizerLike, get_regularizer

__all__ = ["Layer", "layer_class", "observed_outputs", "training_mode"]

Nested: TypeAlias = Any
"""One tensor, or a list of tensors for layers that join several."""

_TRAINING: ContextVar[bool] = ContextVar("training", default=False)
_OBSERVER: ContextVar[list[tuple[Layer, Spec]] | None] = ContextVar("observer", default=None)
_CLASSES: dict[str, type[Layer]] = {}


@contextmanager
def training_mode(training: bool) -> Iterator[None]:
    """Layers called inside run in this mode unless their call says otherwise."""
    token = _TRAINING.set(training)
    try:
        yield
    finally:
        _TRAINING.reset(token)


@contextmanager
def observed_outputs() -> Iterator[list[tuple[Layer, Spec]]]:
    """Collect every layer called inside with the spec of its output, in the order of completion."""
    seen: list[tuple[Layer, Spec]] = []
    token = _OBSERVER.set(seen)
    try:
        yield seen
    finally:
        _OBSERVER.reset(token)


class Layer:
    """A piece of a network: subclass it, make weights in `build`, compute in `call`.

    Args:
        name: unique in its model; by default the class's name in snake case, numbered by position.
        dtype: of the weights; by default the input's, if that is a float, else float32.
        trainable: whether training changes the weights.
        input_shape: shape of one sample, on the first layer of a `Sequential`, instead of an `Input`.

    >>> import chainrule as cr
    >>> class Scale(cr.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight("factor", (input_shape[-1],), "ones")
    ...
    ...     def call(self, x):
    ...         return x * self.factor
    >>> Scale()(cr.tensor([[1.0, 2.0]])).shape
    (1, 2)
    """

    class_key: ClassVar[str] = "Layer"
    _takes_training: ClassVar[bool] = False
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__module__.startswith("chainrule.")
        cls.class_key = cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"
        cls._takes_training = "training" in inspect.signature(cls.call).parameters
        _CLASSES[cls.class_key] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        _refuse_unknown(cls, kwargs)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from None
        object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))
        object.__setattr__(self, "_sublayers", {})
        return self

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        check_name(name)
        self._sublayers: dict[str, Layer]
        self.given_name = name
        self.path = name or snake_case(type(self).__name__)
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.built = False
        self._trainable = bool(trainable)
        self._weights: list[Variable] = []
        self._learned: list[Variable] = []
        self._penalties: list[tuple[Variable, Callable[[Any], Tensor]]] = []
        self._input_specs: list[Spec] = []
        self._seed = get_seed()
        self.adopted = False

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(value, Layer):
            self._sublayers[key] = value
        elif isinstance(value, list | tuple) and value and all(isinstance(v, Layer) for v in value):
            for number, layer in enumerate(value):
                self._sublayers[f"{key}_{number}"] = layer
        object.__setattr__(self, key, value)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            if "_weights" not in self.__dict__:
                raise AttributeError(f"{kind}.{name}: call super().__init__() first in {kind}.__init__")
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def adopt(self, path: str) -> None:
        """Take a place in a model: this layer's path, and so its weights' names and random streams."""
        self.path, self.adopted = path, True
        for weight in self._weights:
            weight.name = f"{path}/{weight.name.rsplit('/', 1)[-1]}"
        for key, layer in self._sublayers.items():
            layer.adopt(f"{path}/{layer.given_name or key}")

    # -- to be written by subclasses -------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights for an input shape (a list of shapes for layers that join tensors)."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; take a `training` argument if the layer acts differently in training.

        Not abstract: a layer that only holds others may be made and never called.
        """
        raise NotImplementedError(f"layer {self.path!r}: {type(self).__name__} has no call()")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return dict(self._arguments)

    # -- calling ------------------------------------------------------------------------------------------

    def __call__(self, inputs: Nested, training: bool | None = None) -> Any:
        """Apply the layer to a tensor, to values that become one, or to a `Symbol` of a functional model.

        Raises:
            ShapeError, DTypeError: the input does not fit; the message names the layer.
        """
        listed = list(inputs) if isinstance(inputs, list | tuple) else None
        if any(isinstance(item, Symbol) for item in (listed if listed is not None else [inputs])):
            return self._symbolic(inputs, listed)
        given = [as_tensor(item) for item in listed] if listed is not None and _holds_tensors(listed) else None
        value: Nested = as_tensor(inputs) if given is None else given
        self._ensure_built([t.spec for t in given] if given is not None else value.spec)
        return self._run(value, training)

    def _run(self, value: Nested, training: bool | None) -> Any:
        mode = _TRAINING.get() if training is None else training
        with scope(layer=self.path), training_mode(mode):
            result = self.call(value, training=mode) if self._takes_training else self.call(value)
        seen = _OBSERVER.get()
        if seen is not None and isinstance(result, Tensor):
            seen.append((self, result.spec))
        return result

    def _symbolic(self, inputs: Nested, listed: list[Any] | None) -> Symbol:
        symbols = [inputs] if listed is None else listed
        for item in symbols:
            if not isinstance(item, Symbol):
                raise ConfigError(f"layer {self.path!r} got symbols and values in one call; give one kind")
        if self.given_name is None and not self.adopted:
            self.path = _free_name(self.path, symbols)
        specs = [symbol.spec for symbol in symbols]
        self._ensure_built(specs[0] if listed is None else specs)
        return Symbol(
            self.output_spec(specs if listed is not None else specs[0]),
            Call(self, symbols, listed is not None),
        )

    def output_spec(self, spec: Spec | list[Spec]) -> Spec:
        """The spec of the output for an input spec, found by tracing `call`."""
        if isinstance(spec, list):
            graph = trace(lambda *xs: self._run(list(xs), None), *spec, name=self.path)
        else:
            graph = trace(lambda x: self._run(x, None), spec, name=self.path)
        return next(iter(graph.outputs.values())).spec

    def _ensure_built(self, spec: Spec | list[Spec]) -> None:
        if self.built:
            self._check_built(spec)
            return
        first = spec[0] if isinstance(spec, list) else spec
        if self.dtype is None:
            self.dtype = first.dtype if first.is_float else np.dtype("float32")
        with scope(layer=self.path):
            try:
                self.build([s.shape for s in spec] if isinstance(spec, list) else spec.shape)
            except ShapeError as error:
                raise ShapeError(self._named(str(error))) from None
        self._input_specs = spec if isinstance(spec, list) else [spec]
        self.built = True

    def _check_built(self, spec: Spec | list[Spec]) -> None:
        """Weights fix the last axis (and `build` the rank) of what a layer can be called on again."""
        if not self._weights or isinstance(spec, list):
            return
        known = self._input_specs[0]
        if spec.rank != known.rank or spec.shape[-1:] != known.shape[-1:]:
            raise ShapeError(
                self._named(
                    f"got an input of shape {format_shape(spec.shape)}; its weights were made for "
                    f"{format_shape(known.shape)}"
                )
            )

    def _named(self, message: str) -> str:
        return message if message.startswith("layer ") else f"layer {self.path!r}: {message}"

    # -- weights ------------------------------------------------------------------------------------------

    def add_weight(
        self,
        name: str,
        shape: Sequence[Size],
        initializer: InitializerLike = "glorot_uniform",
        trainable: bool = True,
        dtype: Any = None,
        regularizer: RegularizerLike = None,
    ) -> Variable:
        """Make a weight; its first value is drawn when it is first needed, from the layer's path and the seed.

        Args:
            name: unique in the layer.
            shape: of integers.
            initializer: see `layers.initializers`.
            trainable: whether training changes it (unless the layer is frozen).
            dtype: by default the layer's.
            regularizer: a penalty on it that joins the loss; see `regularizers`.
        """
        for size in shape:
            if not isinstance(size, int):
                raise ShapeError(
                    self._named(f"the weight {name!r} would have the unknown size {size}; give the input a fixed size")
                )
        maker = get_initializer(initializer)
        spec = Spec(tuple(shape), np.dtype(dtype) if dtype is not None else (self.dtype or np.dtype("float32")))

        def first_value(wanted: Spec) -> Array:
            return maker(wanted, self._seed, self._stream(variable))

        variable = Variable(first_value, spec, name=f"{self.path}/{name}", trainable=trainable and self._trainable)
        self._weights.append(variable)
        if trainable:
            self._learned.append(variable)
        penalty = get_regularizer(regularizer)
        if penalty is not None:
            self._penalties.append((variable, penalty))
        return variable

    def penalties(self) -> list[Tensor]:
        """The value of every regularizer of a weight that training changes, here and in the layers inside."""
        own = [ops.sum(penalty(weight)) for weight, penalty in self._penalties if weight.trainable]
        return own + [value for layer in self._sublayers.values() for value in layer.penalties()]

    def _stream(self, variable: Variable) -> str:
        """The variable's name; a layer outside any model is told from its namesakes by order."""
        if self.adopted:
            return variable.name
        return f"{variable.name}#{occurrence(f'initial/{variable.name}')}"

    @property
    def weights(self) -> list[Variable]:
        """All variables: this layer's, then its sublayers'; each layer's in the order they were made."""
        own = list(self._weights)
        for layer in self._sublayers.values():
            own.extend(layer.weights)
        return own

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it freezes or frees this layer and those inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for weight in self._learned:
            weight.trainable = self._trainable
        for layer in self._sublayers.values():
            layer.trainable = value

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that gradients follow."""
        return [weight for weight in self.weights if weight.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Running statistics and frozen weights."""
        return [weight for weight in self.weights if not weight.trainable]

    def parameters(self) -> list[Variable]:
        """PyTorch's word for `trainable_weights`."""
        return self.trainable_weights

    def layers_inside(self) -> list[Layer]:
        """The layers that are attributes of this one."""
        return list(self._sublayers.values())

    def zero_grad(self) -> None:
        """Forget accumulated gradients."""
        for weight in self.weights:
            weight.grad = None

    def count_params(self) -> int:
        """Number of elements of all weights."""
        return sum(int(np.prod([int(size) for size in weight.shape])) for weight in self.weights)

    def get_weights(self) -> list[Array]:
        """A copy of every weight, in the order of `weights`."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, values: Sequence[Any]) -> None:
        """Replace every weight.

        Raises:
            ShapeError: the number of arrays or a shape differs; nothing is changed then.
        """
        weights = self.weights
        if len(values) != len(weights):
            raise ShapeError(f"{self.path!r} has {len(weights)} weights, got {len(values)} arrays")
        arrays = [np.asarray(value) for value in values]
        for weight, array in zip(weights, arrays, strict=True):
            if array.shape != weight.shape:
                raise ShapeError(
                    f"weight {weight.name!r} has shape {format_shape(weight.shape)}, got {format_shape(array.shape)}"
                )
        for weight, array in zip(weights, arrays, strict=True):
            weight.assign(array)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}>"


def _refuse_unknown(cls: type[Layer], kwargs: Mapping[str, Any]) -> None:
    """Refuse a keyword that no constructor on the way to `Layer` names, and offer the nearest that is."""
    if not cls.__module__.startswith("chainrule."):
        return  # a class of the user's own may do what it likes with its keywords
    known = {
        name for base in cls.__mro__[:-1] for name in inspect.signature(vars(base).get("__init__", cls)).parameters
    } - {"self", "args", "kwargs"}
    for name in kwargs:
        if name not in known:
            import difflib  # only a mistake needs it

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(sorted(known))}"
            raise ConfigError(f"{cls.__name__}: unknown argument {name!r}{hint}")


def check_name(name: Any) -> None:
    """Refuse a name that a path could not hold.

    Raises:
        ConfigError: it is not None and not a non-empty string without a slash.
    """
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise ConfigError(f"a layer's name is a non-empty string without '/', got {name!r}")


def layer_class(key: str) -> type[Layer]:
    """The layer class that a model file calls by this name.

    Raises:
        ConfigError: no such class has been defined or imported.
    """
    try:
        return _CLASSES[key]
    except KeyError:
        raise ConfigError(
            f"unknown layer class {key!r}; import the module that defines it before loading the model"
        ) from None


def snake_case(name: str) -> str:
    """A class name as a layer name.

    >>> snake_case("MaxPooling2D"), snake_case("PReLU")
    ('max_pooling2d', 'p_re_lu')
    """
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def numbered_names(layers: Sequence[Layer]) -> list[str]:
    """Names for the layers of one model: given ones, and ``conv2d, conv2d_1, ...`` by position.

    A layer that has a place in another model keeps its name.

    Raises:
        ConfigError: a name stands twice.
    """
    fixed = [layer.name if layer.adopted else layer.given_name for layer in layers]
    for name in fixed:
        if name is not None and fixed.count(name) > 1:
            raise ConfigError(f"two layers are named {name!r}; names must be unique in a model")
    taken = {name for name in fixed if name is not None}
    result = []
    for layer, given in zip(layers, fixed, strict=True):
        name = given or _next_free(snake_case(type(layer).__name__), taken)
        taken.add(name)
        result.append(name)
    return result


def _next_free(base: str, taken: set[str]) -> str:
    number = 0
    name = base
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def _free_name(base: str, symbols: Sequence[Symbol]) -> str:
    """A name that no layer before this one in a functional model has, for messages."""
    taken = {call.layer.path for symbol in symbols for call in symbol.history()}
    return _next_free(base, taken)


def _holds_tensors(items: Sequence[Any]) -> bool:
    return bool(items) and all(isinstance(item, Tensor | Variable | np.ndarray) for item in items)
