"""The algebra of the symbolic batch size: every operation agrees with the same operation on integers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.errors import ShapeError, TraceError
from chainrule.graph import BATCH, Dim, bind_shape, format_shape
from chainrule.graph.dims import Size, bind, bind_size, is_static, size_of

COEFFICIENTS = st.integers(-6, 6)
DIMS = st.builds(Dim, COEFFICIENTS.filter(bool), COEFFICIENTS)
SIZES = DIMS | COEFFICIENTS
BATCHES = st.integers(0, 50)
LINEAR: list[Callable[[Any, Any], Any]] = [operator.add, operator.sub]


# --- Operations agree with integers ---------------------------------------------------------------


@pytest.mark.parametrize("operation", LINEAR)
@given(left=SIZES, right=SIZES, batch=BATCHES)
@pytest.mark.slow
def test_sums_and_differences(operation: Callable[[Any, Any], Any], left: Size, right: Size, batch: int) -> None:
    assert bind_size(operation(left, right), batch) == operation(bind_size(left, batch), bind_size(right, batch))


@given(dim=DIMS, factor=COEFFICIENTS, batch=BATCHES)
@pytest.mark.slow
def test_products_with_a_number(dim: Dim, factor: int, batch: int) -> None:
    assert bind_size(dim * factor, batch) == dim.bind(batch) * factor
    assert factor * dim == dim * factor


@given(dim=DIMS, batch=BATCHES)
@pytest.mark.slow
def test_negation(dim: Dim, batch: int) -> None:
    assert (-dim).bind(batch) == -dim.bind(batch)


@given(dim=DIMS, divisor=COEFFICIENTS.filter(bool), batch=BATCHES)
@pytest.mark.slow
def test_exact_quotients_by_a_number(dim: Dim, divisor: int, batch: int) -> None:
    whole = dim * divisor
    assert whole // divisor == dim
    assert bind_size(whole // divisor, batch) == bind_size(whole, batch) // divisor


@given(dim=DIMS, factor=COEFFICIENTS)
@pytest.mark.slow
def test_exact_quotients_by_a_dim(dim: Dim, factor: int) -> None:
    quotient = (dim * factor) // dim
    assert quotient == factor
    assert isinstance(quotient, int)


@given(dim=DIMS, divisor=st.integers(1, 6), batch=BATCHES)
@pytest.mark.slow
def test_remainders_that_do_not_depend_on_the_batch(dim: Dim, divisor: int, batch: int) -> None:
    shifted = dim * divisor + dim.offset
    assert shifted % divisor == bind_size(shifted, batch) % divisor


@given(dim=DIMS, divisor=COEFFICIENTS.filter(bool))
@pytest.mark.slow
def test_quotients_and_remainders_are_exact_or_refused(dim: Dim, divisor: int) -> None:
    exact = dim.scale % divisor == 0 and dim.offset % divisor == 0
    if exact:
        assert bind_size(dim // divisor, 7) * divisor == dim.bind(7)
    else:
        with pytest.raises(ShapeError, match=r"cannot be divided evenly by -?\d for every batch size N"):
            dim // divisor


@given(dim=DIMS)
@pytest.mark.slow
def test_a_vanishing_batch_leaves_an_integer(dim: Dim) -> None:
    zero = dim - dim
    assert zero == 0
    assert isinstance(zero, int)
    assert dim * 0 == 0


@given(left=DIMS, right=DIMS)
@pytest.mark.slow
def test_equality_is_that_of_the_linear_form(left: Dim, right: Dim) -> None:
    same = (left.scale, left.offset) == (right.scale, right.offset)
    assert (left == right) == same
    assert not same or hash(left) == hash(right)
    assert left != left + 1


def test_a_dim_is_no_integer() -> None:
    sizes: list[Size] = [1, BATCH]
    assert sizes[0] != sizes[1]
    assert BATCH * 1 == BATCH


# --- What a batch size cannot do ------------------------------------------------------------------


def test_a_product_of_batch_sizes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"the product N \* 2\*N is not linear in the batch size N"):
        BATCH * (BATCH * 2)


@pytest.mark.parametrize(("dividend", "divisor"), [(BATCH * 3, BATCH * 2), (BATCH + 1, BATCH), (BATCH, BATCH + 1)])
def test_quotients_of_dims_that_depend_on_the_batch_are_refused(dividend: Dim, divisor: Dim) -> None:
    with pytest.raises(ShapeError, match="is not a whole multiple of"):
        dividend // divisor


def test_a_number_holds_no_batches() -> None:
    assert 0 // BATCH == 0
    with pytest.raises(ShapeError, match="6 is not a whole multiple of N"):
        6 // BATCH


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(ShapeError, match="cannot be divided evenly by 0"):
        BATCH // 0


def test_a_remainder_that_depends_on_the_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"N % 2 depends on the batch size N"):
        BATCH % 2


VALUE_NEEDED: list[Callable[[], Any]] = [
    lambda: BATCH < 3,
    lambda: BATCH <= 3,
    lambda: BATCH > 3,
    lambda: BATCH >= 3,
    lambda: int(BATCH),
    lambda: range(BATCH),
    lambda: [0] * BATCH.__index__(),
]


@pytest.mark.parametrize("use", VALUE_NEEDED)
def test_asking_for_the_value_is_a_named_error(use: Callable[[], Any]) -> None:
    with pytest.raises(TraceError, match=r"the batch size is symbolic here \(N\)") as caught:
        use()
    assert "cr.ops.element_count" in str(caught.value)


# --- Shapes ---------------------------------------------------------------------------------------


@given(shape=st.lists(st.integers(0, 5), max_size=4), dim=DIMS, place=st.integers(0, 4), batch=BATCHES)
@pytest.mark.slow
def test_sizes_of_shapes(shape: list[int], dim: Dim, place: int, batch: int) -> None:
    symbolic: list[Size] = [*shape]
    symbolic.insert(place, dim)
    product = 1
    for size in bind_shape(tuple(symbolic), batch):
        product *= size
    assert bind_size(size_of(tuple(symbolic)), batch) == product
    assert is_static(tuple(shape))
    assert not is_static(tuple(symbolic))


def test_a_size_with_two_batches_is_refused() -> None:
    with pytest.raises(ShapeError, match="a shape may hold the batch size once"):
        size_of((BATCH, 3, BATCH))


def test_binding_reaches_into_nested_tuples() -> None:
    assert bind(((0, BATCH, 1), (0, 5, 1), "axis", None, (BATCH * 2 + 1,)), 4) == (
        (0, 4, 1),
        (0, 5, 1),
        "axis",
        None,
        (9,),
    )
    assert bind("N", 4) == "N"


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((), "()"),
        ((3,), "(3,)"),
        ((BATCH, 28, 28, 1), "(N, 28, 28, 1)"),
        ((BATCH * 3 + 1,), "(3*N+1,)"),
        ((BATCH - 2, 1), "(N-2, 1)"),
        ((-BATCH,), "(-1*N,)"),
    ],
)
def test_shapes_as_messages_print_them(shape: tuple[Size, ...], text: str) -> None:
    assert format_shape(shape) == text
