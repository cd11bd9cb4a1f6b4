"""Random numbers: the generator's published vectors, the normal's series, keys, and independence of order."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph import tensor
from chainrule.ops.random import _log, _turn, philox

WORDS = cr.random.words(0)


def _words(*values: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([value], np.uint32) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_matches_the_published_vectors(
    counter: tuple[int, int, int, int], key: tuple[int, int], wanted: tuple[int, ...]
) -> None:
    a, b, c, d = _words(*counter)
    assert tuple(int(word[0]) for word in philox((a, b, c, d), key)) == wanted


def test_the_logarithm_of_the_normal_is_exact_to_the_last_bits() -> None:
    x = np.concatenate([np.arange(1, 5000) * 2.0**-32, np.linspace(1e-3, 1, 5001), [2.0**-53, 1.0]])
    wanted = np.array([math.log(v) for v in x])
    np.testing.assert_allclose(_log(x), wanted, rtol=4e-16, atol=1e-16)


def test_sine_and_cosine_of_the_normal_are_exact_to_the_last_bits() -> None:
    turn = np.arange(0, 2**14) * 2.0**-14
    cosine, sine = _turn(turn)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * turn), atol=4e-16)
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * turn), atol=4e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_are_normal(dtype: str) -> None:
    z = ops.random_normal(*WORDS, shape=(200, 1001), stream=3, dtype=dtype).data.astype(np.float64).ravel()
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    for limit in (-2.0, -1.0, 0.0, 0.5, 1.5):
        share = 0.5 * (1 + math.erf(limit / math.sqrt(2)))
        assert abs((z < limit).mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_numbers_fill_the_half_open_interval(dtype: str) -> None:
    u = ops.random_uniform(*WORDS, shape=(100, 1000), stream=4, dtype=dtype).data.astype(np.float64).ravel()
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    chi_square = float(((counts - 2000.0) ** 2 / 2000.0).sum())
    assert chi_square < 49 + 4 * math.sqrt(2 * 49)


@pytest.mark.parametrize("kind", ["random_bits", "random_uniform", "random_normal"])
def test_rows_depend_on_their_global_number_only(kind: str) -> None:
    """A batch drawn in two parts is the batch drawn at once."""
    draw = getattr(ops, kind)
    whole = draw(*WORDS, shape=(7, 3, 5), stream=9).data
    head = draw(*WORDS, shape=(3, 3, 5), stream=9).data
    seed, time, _ = WORDS
    tail = draw(seed, time, tensor(np.array(3, np.uint32)), shape=(4, 3, 5), stream=9).data
    np.testing.assert_array_equal(np.concatenate([head, tail]), whole)


def test_seed_time_and_stream_each_change_the_numbers() -> None:
    base = ops.random_bits(*cr.random.words(1, 2), shape=(4, 4), stream=3).data
    for key, stream in ((cr.random.words(2, 2), 3), (cr.random.words(1, 3), 3), (cr.random.words(1, 2), 4)):
        assert (ops.random_bits(*key, shape=(4, 4), stream=stream).data != base).all()
    high = ops.random_bits(*cr.random.words(1 + 2**40, 2), shape=(4, 4), stream=3).data
    assert (high != base).all()


@pytest.mark.slow
def test_permutation_is_one_and_fair() -> None:
    firsts = []
    for time in range(600):
        order = ops.random_permutation(*cr.random.words(0, time), size=6, stream=1).data
        assert sorted(order.tolist()) == list(range(6))
        firsts.append(int(order[0]))
    counts = np.bincount(firsts, minlength=6)
    assert float(((counts - 100.0) ** 2 / 100).sum()) < 5 + 4 * math.sqrt(10)


def test_dropout_keeps_the_mean_and_reuses_its_mask_in_the_gradient() -> None:
    x = tensor(np.ones((100, 100), np.float64), requires_grad=True)
    y = ops.dropout(x, 0.3, stream=5, **WORDS._asdict())
    kept = y.data != 0
    assert abs(kept.mean() - 0.7) < 4 * math.sqrt(0.21 / 10000)
    np.testing.assert_allclose(y.data[kept], 1 / 0.7, rtol=1e-15)
    (g,) = cr.gradients([y], [x], [tensor(np.full((100, 100), 2.0))])
    assert g is not None
    np.testing.assert_array_equal(g.data, y.data * 2)


def test_dropout_of_rate_zero_is_the_identity() -> None:
    x = tensor([1.0, 2.0])
    assert ops.dropout(x, 0.0, stream=5, **WORDS._asdict()) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_rates_outside_the_interval_are_errors(rate: float) -> None:
    with pytest.raises(ConfigError, match="dropout rate"):
        ops.dropout(tensor([1.0]), rate, stream=5, **WORDS._asdict())


def test_set_seed_fixes_draws_and_draws_differ_from_one_another() -> None:
    cr.set_seed(5)
    first = [cr.random.normal((3,)).numpy(), cr.random.normal((3,)).numpy(), cr.random.uniform((3,)).numpy()]
    cr.set_seed(5)
    second = [cr.random.normal((3,)).numpy(), cr.random.normal((3,)).numpy(), cr.random.uniform((3,)).numpy()]
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).all()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", True])
def test_seeds_that_are_none(seed: object) -> None:
    with pytest.raises(ConfigError, match="a seed is an integer"):
        cr.set_seed(seed)  # type: ignore[arg-type]


def test_scaled_draws() -> None:
    cr.set_seed(0)
    u = cr.random.uniform((1000,), low=-2, high=3).data
    assert -2 <= u.min() < -1.9
    assert 2.9 < u.max() < 3
    z = cr.random.normal((1000,), mean=5, stddev=0.1).data
    assert abs(z.mean() - 5) < 0.02
    assert sorted(cr.random.permutation(5).numpy().tolist()) == [0, 1, 2, 3, 4]


def test_equal_keys_of_a_permutation_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    few = np.random.Generator(np.random.PCG64(0)).integers(0, 3, (500, 2)).astype(np.uint32)
    monkeypatch.setattr("chainrule.ops.random._words", lambda *arguments: few)
    order = ops.random_permutation(*cr.random.words(0), size=500, stream=1).data
    pairs = [tuple(pair) for pair in few.tolist()]
    assert order.tolist() == sorted(range(500), key=lambda number: pairs[number])
