"""Checks on user arrays: what passes, in which form, and what each refusal says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from chainrule.checks import (
    check_inputs,
    check_labels_binary,
    check_labels_one_hot,
    check_labels_sparse,
    check_same_length,
)
from chainrule.errors import DataError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind", ["?", "u1", "i8", "f2", "f4", "f8", ">f4"])
def test_inputs_are_kept_as_they_are(kind: str) -> None:
    x = np.ones((3, 2, 2, 1), kind)
    assert check_inputs(x, name="x") is x


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([1.0, NAN, INF], "sample 1 holds NaN; expected finite"),
        ([[0, 1], [2, INF]], r"sample 1 holds an infinite value at \[1\]"),
        ([[[0, 1], [-INF, 0]]], r"sample 0 holds an infinite value at \[1, 0\]"),
        ([], r"the shape is \(0,\); expected at least one value"),
        (np.zeros((0, 28, 28, 1)), r"the shape is \(0, 28, 28, 1\)"),
        (np.zeros((3, 0)), r"the shape is \(3, 0\)"),
        (5, "a single number"),
        (["a", "b"], "the dtype is <U1"),
        ([1, None], "the dtype is object"),
        ([1j], "the dtype is complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "the dtype is datetime64"),
        ([[1, 2], [3]], "do not form one array"),
    ],
)
def test_inputs_that_are_refused(x: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^my data: .*{words}"):
        check_inputs(x, name="my data")


@pytest.mark.parametrize("sample", [0, 1, 9_999, 29_999])
def test_a_nan_is_found_in_any_block_of_the_scan(sample: int) -> None:
    x = np.zeros((30_000, 7, 5, 1), np.float32)
    x[sample, 6, 2, 0] = np.nan
    x[-1, 6, 4, 0] = np.inf
    with pytest.raises(DataError, match=rf"sample {sample} holds NaN at \[6, 2, 0\]"):
        check_inputs(x, name="x")
    view = x[:, ::-1].swapaxes(1, 2)
    with pytest.raises(DataError, match=rf"sample {sample} holds NaN at \[2, 0, 0\]"):
        check_inputs(view, name="x")


@pytest.mark.parametrize(
    "y",
    [
        [2, 0, 1],
        [[2], [0], [1]],
        np.array([2, 0, 1], np.uint8),
        np.array([2, 0, 1], np.float16),
        np.array([[2.0], [0.0], [1.0]]),
    ],
)
def test_sparse_labels(y: Any) -> None:
    labels = check_labels_sparse(y, 3, name="y")
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [2, 0, 1])


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 3, 4], r"label 1 is 3; expected 0\.\.2 for 3 classes$"),
        ([0, -1], r"label 1 is -1; expected 0\.\.2"),
        ([1, 2, 3], "label 2 is 3; .*counted from 1, subtract 1"),
        ([0, 1.5], "label 1 is 1.5; expected a whole number"),
        ([0, NAN], "label 1 holds NaN"),
        ([INF], "label 0 holds an infinite value"),
        ([1e30], r"label 0 is 1e\+30"),
        (np.array([2**64 - 1], np.uint64), "label 0 is 18446744073709551615"),
        (np.eye(3), "one-hot labels .* categorical_crossentropy or y.argmax"),
        (np.eye(4, dtype=bool), r"one-hot labels of shape \(4, 4\)"),
        (np.ones((2, 3)), r"the labels have the shape \(2, 3\)"),
        (np.ones((2, 1, 1)), r"the labels have the shape \(2, 1, 1\)"),
        (["cat"], "dtype"),
        ([], "at least one"),
    ],
)
def test_sparse_labels_that_are_refused(y: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^y: .*{words}"):
        check_labels_sparse(y, 3, name="y")


@given(
    hnp.arrays(
        st.sampled_from([np.int8, np.int64, np.uint16, np.float32]),
        hnp.array_shapes(min_dims=1, max_dims=2, max_side=6),
    ),
    st.integers(1, 6),
)
@pytest.mark.slow
def test_sparse_labels_are_classes_or_a_data_error(y: NDArray[Any], classes: int) -> None:
    try:
        labels = check_labels_sparse(y, classes, name="y")
    except DataError:
        return
    np.testing.assert_array_equal(labels, y.reshape(-1))
    assert 0 <= labels.min() <= labels.max() < classes


def test_one_hot_labels() -> None:
    assert check_labels_one_hot(np.eye(3, dtype=int), 3, name="y").dtype == np.float32
    smooth = np.full((2, 4), 0.25)
    assert check_labels_one_hot(smooth, 4, name="y") is smooth
    half = np.full((1, 1000), 1e-3, np.float16)
    assert check_labels_one_hot(half, 1000, name="y") is half


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 2], r"class numbers of shape \(2,\) .*\(2, 3\), so use sparse_categorical_cross"),
        ([[0], [2]], r"class numbers of shape \(2, 1\)"),
        (np.eye(4), r"the labels have the shape \(4, 4\); expected \(samples, 3\)"),
        (np.ones((2, 3, 1)), r"the labels have the shape \(2, 3, 1\)"),
        ([[1, 0, 0], [0.5, 0.4, 0]], "row 1 sums to 0.9; expected 1"),
        ([[1, 0, 0], [0, 0, 0]], "row 1 sums to 0; expected 1"),
        ([[1.5, -0.5, 0]], r"row 0 spans -0.5 to 1.5; expected probabilities in 0\.\.1"),
        ([[1, 0, 0], [NAN, 1, 0]], r"row 1 holds NaN at \[0\]"),
    ],
)
def test_one_hot_labels_that_are_refused(y: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^y: .*{words}"):
        check_labels_one_hot(y, 3, name="y")


@pytest.mark.parametrize("y", [[0, 1], [[0], [1]], [False, True], np.array([0, 1], np.uint8)])
def test_binary_labels(y: Any) -> None:
    labels = check_labels_binary(y, name="y")
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[0], [1]])


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 2], "label 1 is 2; expected 0 or 1"),
        ([-1, 1], "label 0 is -1"),
        ([0, NAN], "label 1 holds NaN"),
        ([[0, 1]], r"the labels have the shape \(1, 2\)"),
    ],
)
def test_binary_labels_that_are_refused(y: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"^y: .*{words}"):
        check_labels_binary(y, name="y")


def test_lengths() -> None:
    check_same_length(np.zeros((3, 2)), np.zeros(3), name="data")
    with pytest.raises(DataError, match=r"^data: 3 samples but 2 labels"):
        check_same_length(np.zeros((3, 2)), np.zeros(2), name="data")
