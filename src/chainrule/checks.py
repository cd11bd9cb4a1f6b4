"""Checks on what a user hands to fit, evaluate, predict and profile.

Those of arrays return their argument as an array in one canonical form, or raise a `DataError` that names the
first bad sample, what it holds and what was expected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.errors import ConfigError, DataError

__all__ = [
    "check_at_least",
    "check_inputs",
    "check_labels_binary",
    "check_labels_one_hot",
    "check_labels_sparse",
    "check_positive",
    "check_same_length",
]

_SCAN_VALUES = 1 << 18  # values per block of the finiteness scan: block and mask stay in L2 cache
_SUM_TOLERANCE = 1e-3  # float16 probabilities of 1000 classes sum to 1 within this


def check_inputs(x: ArrayLike, *, name: str) -> NDArray[Any]:
    """Check that ``x`` holds finite real numbers.

    Args:
        x: Samples, (samples, ...), of an integer, float or bool dtype.
        name: What the error message calls them.

    Returns:
        ``x`` as an array; dtype and shape are kept and nothing is copied.

    Raises:
        DataError: Another dtype, no samples, or a NaN or infinite value; the message names the
            first bad sample.

    Example:
        >>> check_inputs([[1.0, 2.0], [3.0, float("nan")]], name="x")
        Traceback (most recent call last):
        chainrule.errors.DataError: x: sample 1 holds NaN at [1]; expected finite numbers
    """
    array = _numbers(x, name)
    _check_finite(array, name, "sample")
    return array


def check_labels_sparse(y: ArrayLike, classes: int, *, name: str) -> NDArray[np.int64]:
    """Check class numbers, the labels of ``sparse_categorical_crossentropy``.

    Args:
        y: Labels 0 to ``classes - 1``, (samples,) or (samples, 1): integers, or floats without a
            fractional part.
        classes: The number of classes.
        name: What the error message calls them.

    Returns:
        The labels, (samples,), int64.

    Raises:
        DataError: One-hot labels, another shape or dtype, or a label that is no class; the message
            names the first bad label.

    Example:
        >>> check_labels_sparse([[3.0], [0.0]], 10, name="labels")
        array([3, 0])
    """
    array = _numbers(y, name)
    if array.ndim == 2 and array.shape[1] > 1 and _is_one_hot(array):
        raise DataError(
            f"{name}: one-hot labels of shape {array.shape} were given to a sparse loss; expected "
            f"class numbers of shape ({len(array)},), so use categorical_crossentropy or "
            "y.argmax(axis=1)"
        )
    labels = _flat(array, name)
    _check_finite(labels, name, "label")
    if labels.dtype.kind == "f":
        _refuse_first(labels, labels != np.floor(labels), name, "a whole number")
    bad = (labels < 0) | (labels >= classes)
    from_one = labels.min() == 1 and labels.max() == classes
    hint = "; if your classes are counted from 1, subtract 1" if from_one else ""
    _refuse_first(labels, bad, name, f"0..{classes - 1} for {classes} classes{hint}")
    return labels.astype(np.int64, copy=False)


def check_labels_one_hot(y: ArrayLike, classes: int, *, name: str) -> NDArray[Any]:
    """Check one-hot labels or class probabilities, the labels of ``categorical_crossentropy``.

    Args:
        y: Labels, (samples, classes), each row of values in 0..1 that sum to 1.
        classes: The number of classes.
        name: What the error message calls them.

    Returns:
        The labels, (samples, classes); floats as they are, integers and bools as float32.

    Raises:
        DataError: Class numbers instead of rows, another shape or dtype, or a row that is no
            distribution; the message names the first bad row.

    Example:
        >>> check_labels_one_hot([[0, 1], [1, 0]], 2, name="labels")
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    array = _numbers(y, name)
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1 < classes):
        raise DataError(
            f"{name}: class numbers of shape {array.shape} were given to a loss for one-hot "
            f"labels; expected rows of shape ({len(array)}, {classes}), so use "
            "sparse_categorical_crossentropy or one-hot encode them"
        )
    if array.shape[1:] != (classes,):
        raise DataError(
            f"{name}: the labels have the shape {array.shape}; expected (samples, {classes}), one column per class"
        )
    _check_finite(array, name, "row")
    _check_distributions(array, name)
    return _as_floats(array)


def check_labels_binary(y: ArrayLike, *, name: str) -> NDArray[Any]:
    """Check the labels of ``binary_crossentropy``.

    Args:
        y: Labels 0 or 1, or probabilities between, (samples,) or (samples, 1).
        name: What the error message calls them.

    Returns:
        The labels, (samples, 1), the shape of a one-unit output; floats as they are, integers and
        bools as float32.

    Raises:
        DataError: Another shape or dtype, or a value outside 0..1; the message names the first bad
            label.

    Example:
        >>> check_labels_binary([0, 1], name="labels").shape
        (2, 1)
    """
    labels = _flat(_numbers(y, name), name)
    _check_finite(labels, name, "label")
    _refuse_first(labels, (labels < 0) | (labels > 1), name, "0 or 1, or a probability between")
    return _as_floats(labels)[:, np.newaxis]


def check_same_length(x: NDArray[Any], y: NDArray[Any], *, name: str) -> None:
    """Check that there is one label per sample.

    Args:
        x: Samples, (samples, ...).
        y: Labels, (samples, ...).
        name: What the error message calls the two.

    Raises:
        DataError: The lengths differ.

    Example:
        >>> check_same_length(np.zeros((3, 2)), np.zeros(2), name="training data")
        Traceback (most recent call last):
        chainrule.errors.DataError: training data: 3 samples but 2 labels; expected one per sample
    """
    if len(x) != len(y):
        raise DataError(f"{name}: {len(x)} samples but {len(y)} labels; expected one per sample")


def _numbers(values: ArrayLike, name: str) -> NDArray[Any]:
    """``values`` as a non-empty array of real numbers, of rank 1 or more."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: the values do not form one array ({error}); expected samples of one shape") from error
    if array.dtype.kind not in "buif":
        raise DataError(f"{name}: the dtype is {array.dtype}; expected integers or floats")
    if array.ndim == 0:
        raise DataError(f"{name}: a single number came; expected an array (samples, ...)")
    if array.size == 0:
        raise DataError(f"{name}: the shape is {array.shape}; expected at least one value")
    return array


def _check_finite(array: NDArray[Any], name: str, item: str) -> None:
    if array.dtype.kind != "f":
        return
    rows = max(1, _SCAN_VALUES // (array.size // len(array)))
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            row, *position = (int(i) for i in np.argwhere(~finite)[0])
            value = array[(start + row, *position)]
            came = "NaN" if np.isnan(value) else "an infinite value"
            place = f" at {position}" if position else ""
            raise DataError(f"{name}: {item} {start + row} holds {came}{place}; expected finite numbers")


def _flat(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Labels (samples,) from (samples,) or (samples, 1)."""
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return array.reshape(-1)
    raise DataError(f"{name}: the labels have the shape {array.shape}; expected (samples,) or (samples, 1)")


def _refuse_first(labels: NDArray[Any], bad: NDArray[np.bool_], name: str, expected: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise DataError(f"{name}: label {index} is {labels[index]}; expected {expected}")


def _is_one_hot(array: NDArray[Any]) -> bool:
    ones = array == 1
    return bool((ones | (array == 0)).all() and (ones.sum(axis=1) == 1).all())


def _check_distributions(array: NDArray[Any], name: str) -> None:
    outside = ((array < 0) | (array > 1)).any(axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"{name}: row {row} spans {array[row].min()} to {array[row].max()}; expected probabilities in 0..1"
        )
    sums = array.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1) > _SUM_TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise DataError(f"{name}: row {row} sums to {sums[row]:g}; expected 1")


def _as_floats(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def check_positive(value: Any, what: str) -> None:
    """Check that an argument is a positive integer.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{what} must be a positive integer, got {value!r}")


def check_at_least(value: Any, lowest: int, what: str) -> int:
    """Check that an argument is an integer that is no smaller.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> check_at_least(3, 0, "patience")
        3
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ConfigError(f"{what} must be an integer >= {lowest}, got {value!r}")
    return int(value)
