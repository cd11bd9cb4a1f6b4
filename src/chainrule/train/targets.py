"""Data and labels, held to what the model and the loss take before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.checks import (
    check_at_least,
    check_inputs,
    check_labels_binary,
    check_labels_one_hot,
    check_labels_sparse,
    check_same_length,
)
from chainrule.errors import ConfigError, DataError, DTypeError
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.op import Array
from chainrule.graph.tensor import SUPPORTED_DTYPES
from chainrule.losses import Loss

__all__ = ["prepared_inputs", "prepared_targets", "prepared_weights"]


def prepared_inputs(x: Any, name: str) -> Array:
    """Finite samples in a dtype that engines take.

    Raises:
        DataError, DTypeError: naming the first bad sample.
    """
    array = check_inputs(x, name=name)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype not in SUPPORTED_DTYPES:
        if array.dtype.kind in "iu":
            return array.astype(np.int64)
        raise DTypeError(f"{name} is {array.dtype}; expected integers, float32 or float64")
    return array


def prepared_targets(y: Any, x: Array, output: Shape, loss: Loss, name: str) -> Array:
    """Labels or targets as the loss takes them: int32 class numbers, or floats.

    Args:
        y: one label for each sample of x.
        x: the samples.
        output: shape of the model's prediction.
        loss: whose `labels` say what is expected.
        name: how messages call y.

    Raises:
        DataError: out of range, the wrong kind of label for the loss, or another number than of samples.
    """
    classes = output[-1] if output else 1
    if loss.labels == "sparse" and len(output) == 2 and isinstance(classes, int):
        result: Array = check_labels_sparse(y, classes, name=name).astype(np.int32)
    elif loss.labels == "sparse" and isinstance(classes, int):
        result = _label_maps(y, classes, name)
    elif loss.labels == "one_hot" and len(output) == 2 and isinstance(classes, int):
        result = check_labels_one_hot(y, classes, name=name)
    elif loss.labels == "binary" and len(output) == 2 and classes == 1:
        result = check_labels_binary(y, name=name)
    else:
        result = prepared_inputs(y, name)
        _check_target_shape(result, output, loss, name)
    check_same_length(x, result, name=name)
    return result


def prepared_weights(
    given: Any, by_class: Mapping[int, float] | None, y: Array, output: Shape, loss: Loss
) -> Array | None:
    """A weight for each sample, float32; None where all count the same.

    Args:
        given: a number for each sample, or None.
        by_class: a factor for each class, 1 for classes that are left out; or None.
        y: the prepared labels.
        output: shape of the model's prediction.
        loss: whose `labels` say how classes are read from them.

    Raises:
        DataError, ConfigError: weights that are negative or not finite, too many or too few, or for no class.
    """
    if given is None and by_class is None:
        return None
    weights = np.ones(len(y), np.float32)
    if given is not None:
        array = check_inputs(given, name="sample_weight")
        if array.shape != (len(y),):
            raise DataError(
                f"sample_weight has shape {format_shape(array.shape)}; expected ({len(y)},), one for each sample"
            )
        if (array < 0).any():
            bad = int(np.argmax(array < 0))
            raise DataError(f"sample_weight: sample {bad} has the weight {array[bad]}; expected 0 or more")
        weights = array.astype(np.float32)
    return weights if by_class is None else weights * _class_factors(by_class, y, output, loss)


def _class_factors(by_class: Mapping[int, float], y: Array, output: Shape, loss: Loss) -> Array:
    one_hot = loss.labels == "one_hot" and y.ndim == 2
    if loss.labels == "values" or not (one_hot or y.size == len(y)):
        raise ConfigError(
            f"class_weight is for labels of classes, one for each sample; the loss {loss.name!r} takes "
            f"{'values' if loss.labels == 'values' else f'labels of shape {format_shape(y.shape)}'}"
        )
    classes = y.argmax(axis=-1) if one_hot else np.rint(y.reshape(len(y))).astype(np.int64)
    count = 2 if loss.labels == "binary" else output[-1]
    assert isinstance(count, int), "labels were held to the number of classes"
    factors = np.ones(count, np.float32)
    for key, value in by_class.items():
        if check_at_least(key, 0, "class_weight: a class number") >= count:
            raise ConfigError(f"class_weight: there is no class {key}; expected 0..{count - 1}")
        factors[key] = _factor(key, value)
    found: Array = factors[classes]
    return found


def _factor(key: Any, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        raise ConfigError(f"class_weight: class {key} has the weight {value!r}; expected a number >= 0")
    return float(value)


def _label_maps(y: Any, classes: int, name: str) -> Array:
    """Class numbers for every position of an image or a sequence."""
    array = check_inputs(y, name=name)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} holds {array.dtype}; expected integer class numbers")
    if array.min() < 0 or array.max() >= classes:
        bad = int(np.argmax((array < 0) | (array >= classes)))
        where = tuple(int(i) for i in np.unravel_index(bad, array.shape))
        raise DataError(f"{name} holds label {array[where]} at {where}; expected 0..{classes - 1}")
    return array.astype(np.int32)


def _check_target_shape(y: Array, output: Shape, loss: Loss, name: str) -> None:
    fits = y.shape[1:] == output[1:] or (y.ndim == len(output) - 1 and output[-1] == 1)
    if not fits:
        raise DataError(
            f"{name} has shape {format_shape(y.shape)}; the loss {loss.name!r} needs the shape of the model's "
            f"output {format_shape(output)}"
        )
