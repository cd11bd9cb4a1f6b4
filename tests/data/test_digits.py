"""scikit-learn's digits: shapes, units, the stratified split, and what happens without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from chainrule.data import digits
from chainrule.errors import ConfigError, MissingDependencyError


def test_shapes_and_units() -> None:
    data = digits()
    assert data.x_train.shape == (1347, 8, 8, 1)
    assert data.x_test.shape == (450, 8, 8, 1)
    assert data.x_train.dtype == np.float32
    assert data.y_test.dtype == np.int64
    assert (data.x_train.min(), data.x_train.max()) == (0, 16)
    assert data.class_names == tuple("0123456789")


@pytest.mark.slow
def test_the_split_is_stratified_and_loses_nothing() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = digits(test_fraction=0.2, seed=3)
    counts = np.bincount(data.y_test, minlength=10)
    total = counts + np.bincount(data.y_train, minlength=10)
    assert np.abs(counts - 0.2 * total).max() <= 1
    images = np.concatenate([data.x_train, data.x_test])[..., 0].reshape(-1, 64)
    rows = np.unique(np.column_stack([images, np.concatenate([data.y_train, data.y_test])]), axis=0)
    source = datasets.load_digits()
    expected = np.unique(np.column_stack([source.data, source.target]), axis=0)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.slow
def test_the_seed_decides_the_split() -> None:
    first, again, other = digits(seed=1), digits(seed=1), digits(seed=2)
    np.testing.assert_array_equal(first.x_train, again.x_train)
    np.testing.assert_array_equal(first.y_test, again.y_test)
    assert not np.array_equal(first.x_train, other.x_train)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 0.001, 0.999, float("nan"), float("inf")])
def test_fractions_that_do_not_split(fraction: float) -> None:
    with pytest.raises(ConfigError, match="test_fraction"):
        digits(test_fraction=fraction)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_are_none(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"seed={seed}"):
        digits(seed=seed)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "chainrule\[scikit-learn\]"'):
        digits()
