"""The model: layers with `compile`, `fit`, `evaluate`, `predict`, `summary`, `save` and `load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from chainrule.augment.base import Augmentation, get_augmentation
from chainrule.engines import chosen_engine
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import BATCH, format_shape
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor, as_tensor
from chainrule.layers.layer import Layer
from chainrule.layers.symbol import Symbol
from chainrule.losses import get_loss
from chainrule.metrics import get_metric
from chainrule.metrics.metric import LossMean
from chainrule.optimizers import get_optimizer
from chainrule.train.callback import Callback, History
from chainrule.train.loop import Trainer
from chainrule.train.options import BATCH_SIZE, FitOptions
from chainrule.train.profile import StepProfile, profile_step
from chainrule.train.progress import format_logs
from chainrule.train.step import Objective

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Model"]


class Model(Layer):
    """A network that can be trained.

    Three ways to make one: `Sequential`; ``Model(inputs, outputs)`` from `Input` symbols, with branches; or a
    subclass with layers as attributes and a `call`.

    >>> import chainrule as cr
    >>> inputs = cr.Input((4,))
    >>> hidden = cr.layers.Dense(3, activation="relu")(inputs)
    >>> outputs = cr.layers.Dense(4)(hidden) + inputs
    >>> cr.Model(inputs, outputs).count_params()
    31
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is Model and (args or "inputs" in kwargs):
            from chainrule.models.functional import Functional

            cls = Functional  # type: ignore[assignment]
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, inputs: Any = None, outputs: Any = None, *, name: str | None = None, **kwargs: Any) -> None:
        if inputs is not None or outputs is not None:
            raise ConfigError(
                f"{type(self).__name__} is a subclass with its own call(); inputs and outputs are for cr.Model itself"
            )
        super().__init__(name=name, **kwargs)
        self.engine: str | None = None
        self._objective: Objective | None = None
        self._trainer: Trainer | None = None
        self._input_spec: Spec | None = None
        self.stop_training = False

    # -- structure ----------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order of execution."""
        return self.layers_inside()

    def get_layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            ConfigError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ConfigError(f"no layer named {name!r}; the layers are {', '.join(a.name for a in self.layers)}")

    @property
    def input_spec(self) -> Spec | None:
        """Shape and dtype of the input, where they are known."""
        return self._input_spec

    def build(self, input_shape: Any) -> None:
        """A subclass's layers take their attribute names as paths."""
        for key, layer in self._sublayers.items():
            if not layer.adopted:
                layer.adopt(self._child_path(layer.given_name or key))

    def _child_path(self, name: str) -> str:
        return f"{self.path}/{name}" if self.adopted else name

    def _cast_input(self, x: Tensor, spec: Spec) -> Tensor:
        """The input in the model's dtype, its shape checked against the `Input`."""
        if x.ndim != spec.rank or x.shape[1:] != spec.shape[1:]:
            hint = (
                "; add a channel axis with x[..., None]"
                if x.ndim == spec.rank - 1 and spec.shape[-1] == 1 and x.shape[1:] == spec.shape[1:-1]
                else ""
            )
            raise ShapeError(
                f"model {self.name!r} takes inputs of shape {format_shape(spec.shape)}, "
                f"got {format_shape(x.shape)}{hint}"
            )
        return x.astype(spec.dtype)

    # -- training -----------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Sequence[Any] | None = None,
        weighted_metrics: Sequence[Any] | None = None,
        engine: str | None = None,
    ) -> None:
        """Choose what `fit` does.

        Args:
            optimizer: name or `Optimizer`, which serves one model.
            loss: name, `Loss`, or a function ``(y_true, y_pred)`` that gives one loss for each sample.
            metrics: names or metrics; ``"accuracy"`` is the one that suits the loss.
            weighted_metrics: the same, for those in which samples count by their weights.
            engine: ``"native"`` (machine code, the default) or ``"reference"`` (NumPy, slow and plain).

        Raises:
            ConfigError: an unknown name, or no loss.
        """
        if loss is None:
            raise ConfigError("compile needs a loss, such as 'sparse_categorical_crossentropy'")
        self._check_trainable()
        self.engine = chosen_engine(engine)
        chosen = get_loss(loss)
        found, weighted = (
            tuple(get_metric(metric, chosen) for metric in ([given] if isinstance(given, str) else given or ()))
            for given in (metrics, weighted_metrics)
        )
        names = ["loss", *(metric.name for metric in (*found, *weighted))]
        if len(set(names)) != len(names):
            raise ConfigError(f"metrics need distinct names, got {', '.join(names)}")
        chosen_optimizer = get_optimizer(optimizer)
        chosen_optimizer.serve(self)
        self._objective = Objective(chosen, found, chosen_optimizer, LossMean("loss"), weighted)
        self._trainer = Trainer(self, self._objective)

    def _check_trainable(self) -> None:
        """Refuse, before anything else, an architecture that `fit` cannot train."""

    @property
    def objective(self) -> Objective:
        """Loss, metrics and optimizer.

        Raises:
            ConfigError: the model was not compiled.
        """
        if self._objective is None:
            raise ConfigError(f"model {self.name!r} has no loss yet; call model.compile(...) first")
        return self._objective

    @property
    def is_compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._objective is not None

    @property
    def optimizer(self) -> Any:
        """The optimizer given to `compile`."""
        return self.objective.optimizer

    def compiled(self) -> Trainer:
        """What trains the model.

        Raises:
            ConfigError: the model was not compiled.
        """
        _ = self.objective
        assert self._trainer is not None
        return self._trainer

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | Callback | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        workers: int = 2,
        augment: Sequence[Augmentation] = (),
    ) -> History:
        """Train for some epochs.

        Args:
            x: samples ``(samples, ...)``; 8-bit integers and float64 are cast in the step.  Or a `data.Source`, which
                is read while the engine works and brings its labels.  Or batches that somebody else makes, ``(x, y)``
                or ``(x, y, sample_weight)`` each: a loader that can be iterated over again and again, a sequence with
                numbered batches, a function that gives an iterator for each epoch (and is given the epoch's number if
                it asks for it), a generator.  They are read in a thread, a few ahead; their sizes may differ; their
                order is their own affair.  What `fit` opens it closes; a generator that is given stays open.
            y: labels or targets, one for each sample; None with a source or with batches.
            batch_size: samples in a step, 32 by default; the last batch of an epoch may be shorter.  With batches, the
                largest that is expected; by default the first one's.
            epochs: the number of the epoch to end before, counted from 0: with `initial_epoch` 0, passes over the data.
            verbose: 0 silent, 1 a progress bar, 2 a line for each epoch; ``"auto"`` is 1 in a terminal, else 2.
            callbacks: see `callbacks`.
            validation_split: the last part of the data is held out, before shuffling.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)`` to evaluate after each epoch, or a source, or
                batches.
            shuffle: a new order each epoch, fixed by the seed and the epoch; nothing is shuffled that comes in batches.
            class_weight: what a sample of each class counts in the loss; 1 for classes that are left out.
            sample_weight: what each sample counts in the loss.  Losses are weighted, not normalised: the loss of a
                batch is the sum of its weighted losses divided by its samples.
            initial_epoch: the number of the first epoch, to go on counting where an earlier call ended.
            steps_per_epoch: end an epoch after so many batches, where the data have as many; the next one begins anew,
                but a generator goes on, and must have them.
            validation_steps: the same for the validation.
            validation_batch_size: samples in a batch of the validation; by default that of the training.
            validation_freq: validate after every so many epochs.
            workers: threads that read samples of a source; the order of samples does not depend on them.
            augment: random changes of the samples, in order, computed inside the step; see `augment`.

        Returns:
            What happened: ``history.history["loss"]`` is a list with a number for each epoch.

        Ctrl-C or SIGTERM ends after the running step; the weights keep what was learned, ``history.interrupted`` is
        True, and ``history.signal`` is the signal's number.  A second one takes effect at once.

        Raises:
            ConfigError, DataError, ShapeError, DTypeError: before the first step, naming what does not fit; with
                batches, also later, naming the batch.

        >>> import numpy as np
        >>> import chainrule as cr
        >>> model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> def batches(epoch):
        ...     for _ in range(3):
        ...         yield np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
        >>> history = model.fit(batches, epochs=2, verbose=0)
        >>> len(history.history["loss"])
        2
        """
        options = FitOptions(
            batch_size,
            epochs,
            verbose,
            _listed(callbacks),
            validation_split,
            validation_data,
            shuffle,
            class_weight,
            sample_weight,
            initial_epoch,
            steps_per_epoch,
            validation_steps,
            validation_batch_size,
            validation_freq,
            workers,
            tuple(map(get_augmentation, augment)),
        )
        return self.compiled().fit(x, y, options)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = 0,
        return_dict: bool = False,
        sample_weight: Any = None,
        steps: int | None = None,
    ) -> Any:
        """Mean loss and metrics over some data.

        Args:
            x, y: samples and labels, or a source, or batches, as for `fit`.
            batch_size: samples in a step, 32 by default.
            verbose: anything but 0 prints a line.
            return_dict: give numbers by name.
            sample_weight: what each sample counts in the loss.
            steps: end after so many batches.

        Returns:
            The loss, or a list of it and each metric in the order of `compile`, or a dict.
        """
        found = self.compiled().evaluate(x, y, batch_size, sample_weight, steps)
        if verbose:
            print(format_logs(found))
        if return_dict:
            return found
        return list(found.values()) if len(found) > 1 else found["loss"]

    def profile(self, x: Any, y: Any, batch_size: int = BATCH_SIZE, steps: int = 20) -> StepProfile:
        """Where the time of a training step goes, kernel by kernel; the model stays as it was.

        Args:
            x, y: samples and labels as for `fit`; as many as there are, repeated to fill a batch.
            batch_size: samples in a step.
            steps: how many steps are measured.

        Raises:
            ConfigError: the model was not compiled, or was compiled for the reference engine; or an argument is not a
                positive integer.

        >>> import chainrule as cr
        >>> model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1)])
        >>> model.compile(loss="mse")
        >>> model.profile([[1.0, 2.0]], [[3.0]]).batch_size
        32
        """
        return profile_step(self, x, y, batch_size, steps)

    def predict(self, x: Any, batch_size: int | None = None, verbose: str | int = 0, steps: int | None = None) -> Array:
        """The outputs for some samples, as one array.

        Args:
            x: samples, or a source, or an iterable of batches; of batches that are tuples or lists the first part
                counts.
            batch_size: samples in a step, 32 by default.
            verbose: anything but 0 prints how many there were.
            steps: end after so many batches.
        """
        self._check_trainable()
        trainer = self._trainer or Trainer(self, None)
        self._trainer = trainer
        result = trainer.predict(x, batch_size, steps)
        if verbose and verbose != "auto":
            print(f"predicted {len(result):,} samples")
        return result

    # -- showing and storing ------------------------------------------------------------------------------

    def summary(self) -> None:
        """Print a table of layers: output shape, parameters, and forward FLOPs for one sample.

        Raises:
            ConfigError: the input shape is not known yet.
        """
        from chainrule.models.summary import summarise

        print(summarise(self))

    def save(self, path: str | Path) -> Path:
        """Write the model to one safetensors file: weights, architecture and compile settings.

        The file is written whole or not at all.  The optimizer's slots (momenta) are not in it: a loaded model
        predicts the same and can be trained on, but its next step starts from fresh slots.

        Raises:
            ConfigError: the model holds something a file cannot (a function of your own).
            ModelFileError: the file cannot be written.
        """
        from chainrule.models.saving import save_model

        return save_model(self, path)

    def save_weights(self, path: str | Path) -> Path:
        """Write the weights alone, for an architecture that a file cannot hold; see `load_weights`.

        Raises:
            ModelFileError: the file cannot be written.
        """
        from chainrule.models.saving import save_weights

        return save_weights(self, path)

    def load_weights(self, path: str | Path) -> None:
        """Take the weights of a file that `save` or `save_weights` wrote, by name.

        Raises:
            ModelFileError: the file is bad, or a weight is missing or has another shape; nothing is changed then.
        """
        from chainrule.models.saving import load_weights

        load_weights(self, path)

    @staticmethod
    def load(path: str | Path) -> Model:
        """Read a model that `save` wrote.

        Raises:
            ModelFileError: no such file, or it is truncated, corrupted, or no chainrule model.
        """
        from chainrule.models.saving import load_model

        return load_model(path)

    def ensure_built(self, x: Array) -> None:
        """Build the weights for samples like these, if that has not happened."""
        if not self.built:
            self._input_spec = self._input_spec or _batched(Spec(x.shape, x.dtype))
            self.output_spec(self._input_spec)

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        if not isinstance(inputs, Symbol | list | tuple):
            value = as_tensor(inputs)
            if self._input_spec is None:
                self._input_spec = _batched(value.spec)
            inputs = self._cast_input(value, self._input_spec)
        return super().__call__(inputs, training)

    def output_spec(self, spec: Any) -> Spec:
        self._ensure_built(spec)
        return super().output_spec(spec)


def _listed(callbacks: Any) -> list[Callback]:
    """Callbacks from one, several, or None.

    Raises:
        ConfigError: something that is no callback.
    """
    found = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
    for callback in found:
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks are cr.callbacks.Callback objects, got {callback!r}")
    return found


def _batched(spec: Spec) -> Spec:
    """The spec of any batch of such samples, in a float dtype."""
    return Spec((BATCH, *spec.shape[1:]), spec.dtype if spec.is_float else np.dtype("float32"))
