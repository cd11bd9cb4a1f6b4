"""NumPy rules against definitions written out as loops, on shapes that hypothesis chooses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import chainrule as cr
from chainrule import ops
from chainrule.graph import tensor
from tests.ops.harness import relative_error

Array = NDArray[Any]


def _rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes, strides, paddings and dilations such that at least one window fits."""
    size = [draw(st.integers(1, 7)) for _ in range(2)]
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    dilation = [draw(st.integers(1, 2)) for _ in range(2)]
    pads = [(draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2)]
    for i in range(2):
        assume(size[i] + sum(pads[i]) >= (kernel[i] - 1) * dilation[i] + 1)
    return {
        "size": tuple(size),
        "kernel": tuple(kernel),
        "dilation": tuple(dilation),
        "pads": tuple(pads),
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(2)),
    }


def conv2d_by_definition(x: Array, kernel: Array, stride: Any, pads: Any, dilation: Any, groups: int) -> Array:
    """``y[n,i,j,o] = sum over u, v, c``, as the docstring has it."""
    batch, height, width, channels = x.shape
    kh, kw, per_group, outputs = kernel.shape
    (top, bottom), (left, right) = pads
    out_h = (height + top + bottom - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    out_w = (width + left + right - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((batch, out_h, out_w, outputs))
    for n, i, j, o in np.ndindex(y.shape):
        group = o // (outputs // groups)
        for u, v, c in itertools.product(range(kh), range(kw), range(per_group)):
            row, column = i * stride[0] + u * dilation[0] - top, j * stride[1] + v * dilation[1] - left
            if 0 <= row < height and 0 <= column < width:
                y[n, i, j, o] += x[n, row, column, group * per_group + c] * kernel[u, v, c, o]
    assert channels == per_group * groups
    return y


@settings(max_examples=120)
@given(windows(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(0, 99))
@pytest.mark.slow
def test_conv2d(w: dict[str, Any], batch: int, groups: int, per_group: int, multiple: int, seed: int) -> None:
    rng = _rng(seed)
    x = rng.normal(size=(batch, *w["size"], groups * per_group))
    kernel = rng.normal(size=(*w["kernel"], per_group, groups * multiple))
    found = ops.conv2d(tensor(x), tensor(kernel), w["stride"], w["pads"], w["dilation"], groups)
    wanted = conv2d_by_definition(x, kernel, w["stride"], w["pads"], w["dilation"], groups)
    assert relative_error(found.data, wanted) < 1e-12


@settings(max_examples=120)
@given(windows(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 99))
@pytest.mark.slow
def test_conv2d_gradients_are_adjoint(w: dict[str, Any], batch: int, groups: int, multiple: int, seed: int) -> None:
    """``<g, conv(x, k)> = <input_grad(g, k), x> = <kernel_grad(x, g), k>`` for random g, x, k."""
    rng = _rng(seed)
    x = tensor(rng.normal(size=(batch, *w["size"], groups)), requires_grad=True)
    kernel = tensor(rng.normal(size=(*w["kernel"], 1, groups * multiple)), requires_grad=True)
    y = ops.conv2d(x, kernel, w["stride"], w["pads"], w["dilation"], groups)
    g = tensor(rng.normal(size=y.shape))
    dx, dkernel = cr.gradients([y], [x, kernel], [g])
    assert dx is not None
    assert dkernel is not None
    value = float(np.sum(g.data * y.data))
    scale = max(1.0, float(np.abs(g.data * y.data).sum()))
    assert abs(float(np.sum(dx.data * x.data)) - value) < 1e-12 * scale
    assert abs(float(np.sum(dkernel.data * kernel.data)) - value) < 1e-12 * scale


def _pool_windows(x: Array, size: Any, stride: Any, pads: Any) -> Any:
    """Every window's output place and the image positions it sees, in row-major order."""
    (top, bottom), (left, right) = pads
    out_h = (x.shape[1] + top + bottom - size[0]) // stride[0] + 1
    out_w = (x.shape[2] + left + right - size[1]) // stride[1] + 1
    for n, i, j, c in itertools.product(range(x.shape[0]), range(out_h), range(out_w), range(x.shape[3])):
        seen = [(i * stride[0] + u - top, j * stride[1] + v - left) for u in range(size[0]) for v in range(size[1])]
        inside = [(r, q) for r, q in seen if 0 <= r < x.shape[1] and 0 <= q < x.shape[2]]
        yield (n, i, j, c), inside


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    """Pooling windows each of which sees the image."""
    size = tuple(draw(st.integers(1, 3)) for _ in range(2))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(2))
    pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in size)
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    for n, k, (before, after), s in zip(shape, size, pads, stride, strict=True):
        assume(n + before + after >= k)
        assume(((n + before + after - k) // s) * s < before + n)
    return {"shape": shape, "size": size, "stride": stride, "pads": pads}


@settings(max_examples=120)
@given(pools(), st.integers(1, 2), st.integers(0, 99), st.booleans())
@pytest.mark.slow
def test_max_pool2d_and_its_gradient(p: dict[str, Any], channels: int, seed: int, ties: bool) -> None:
    rng = _rng(seed)
    shape = (2, *p["shape"], channels)
    values = rng.integers(0, 3, shape).astype(float) if ties else rng.normal(size=shape)
    x = tensor(values, requires_grad=True)
    y = ops.max_pool2d(x, p["size"], p["stride"], p["pads"])
    g = rng.normal(size=y.shape)
    wanted, dx = np.zeros(y.shape), np.zeros(shape)
    for place, inside in _pool_windows(values, p["size"], p["stride"], p["pads"]):
        n, _, _, c = place
        best = max(inside, key=lambda position: values[n, position[0], position[1], c])  # the first maximum
        wanted[place] = values[n, best[0], best[1], c]
        dx[n, best[0], best[1], c] += g[place]
    np.testing.assert_array_equal(y.data, wanted)
    (found,) = cr.gradients([y], [x], [tensor(g)])
    assert found is not None
    assert relative_error(found.data, dx) < 1e-14


@settings(max_examples=120)
@given(pools(), st.integers(0, 99), st.booleans())
@pytest.mark.slow
def test_avg_pool2d_and_its_gradient(p: dict[str, Any], seed: int, counted: bool) -> None:
    rng = _rng(seed)
    values = rng.normal(size=(2, *p["shape"], 2))
    x = tensor(values, requires_grad=True)
    y = ops.avg_pool2d(x, p["size"], p["stride"], p["pads"], counted)
    g = rng.normal(size=y.shape)
    wanted, dx = np.zeros(y.shape), np.zeros(values.shape)
    for place, inside in _pool_windows(values, p["size"], p["stride"], p["pads"]):
        n, _, _, c = place
        divisor = p["size"][0] * p["size"][1] if counted else len(inside)
        for row, column in inside:
            wanted[place] += values[n, row, column, c] / divisor
            dx[n, row, column, c] += g[place] / divisor
    assert relative_error(y.data, wanted) < 1e-14
    (found,) = cr.gradients([y], [x], [tensor(g)])
    assert found is not None
    assert relative_error(found.data, dx) < 1e-14


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_splits_as_tensorflow_does(size: int, kernel: int, stride: int) -> None:
    """Output ceil(size / stride); the odd element of padding at the end."""
    from chainrule.ops._window import explicit_padding

    pads = explicit_padding("same", (size, size), (kernel, kernel), (stride, stride), (1, 1))
    before, after = pads[0]
    assert 0 <= after - before <= 1
    out = -(-size // stride)
    assert (size + before + after - kernel) // stride + 1 == out
    assert before + after == max((out - 1) * stride + kernel - size, 0)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4), st.integers(0, 99))
@pytest.mark.slow
def test_broadcasting_follows_numpy(shapes: Any, seed: int) -> None:
    rng = _rng(seed)
    a, b = (rng.normal(size=shape) for shape in shapes.input_shapes)
    x, y = tensor(a, requires_grad=True), tensor(b, requires_grad=True)
    product = x * y
    np.testing.assert_array_equal(product.data, a * b)
    g = rng.normal(size=product.shape)
    dx, dy = cr.gradients([product], [x, y], [tensor(g)])
    assert dx is not None
    assert dy is not None
    assert dx.shape == a.shape
    assert dy.shape == b.shape
    np.testing.assert_allclose(np.sum(dx.data * a), np.sum(g * a * b), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(dy.data * b), np.sum(g * a * b), rtol=1e-9, atol=1e-9)


@given(hnp.array_shapes(max_dims=4, max_side=4), st.data(), st.booleans())
@pytest.mark.slow
def test_reductions_follow_numpy(shape: tuple[int, ...], data: st.DataObject, keepdims: bool) -> None:
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    values = _rng(len(shape)).normal(size=shape)
    x = tensor(values)
    np.testing.assert_allclose(ops.sum(x, axes, keepdims).data, values.sum(axes, keepdims=keepdims), atol=1e-12)
    np.testing.assert_allclose(ops.mean(x, axes, keepdims).data, values.mean(axes, keepdims=keepdims), atol=1e-12)
    np.testing.assert_allclose(ops.var(x, axes, keepdims).data, values.var(axes, keepdims=keepdims), atol=1e-12)
    np.testing.assert_array_equal(ops.max(x, axes, keepdims).data, values.max(axes, keepdims=keepdims))
    mask = ops.first_max_mask(x, axes).data
    np.testing.assert_array_equal(mask.sum(axes), 1)
    np.testing.assert_array_equal(values[mask], np.sort(values.max(axes).ravel())[np.argsort(np.argsort(values[mask]))])


@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), st.data())
@pytest.mark.slow
def test_indexing_follows_numpy_and_its_gradient_puts_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    index = data.draw(hnp.basic_indices(shape, allow_ellipsis=True, allow_newaxis=True))
    entries = index if isinstance(index, tuple) else (index,)
    assume(all(not isinstance(e, slice) or (e.step or 1) > 0 for e in entries))
    values = _rng(0).normal(size=shape)
    x = tensor(values, requires_grad=True)
    part = x[index]
    np.testing.assert_array_equal(part.data, values[index])
    g = _rng(1).normal(size=part.shape)
    wanted = np.zeros(shape)
    wanted[index] = g
    (found,) = cr.gradients([part], [x], [tensor(g)])
    np.testing.assert_array_equal(np.zeros(shape) if found is None else found.data, wanted)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(1, 3))
@pytest.mark.slow
def test_matmul_follows_numpy(i: int, k: int, j: int, ta: bool, tb: bool, batch: int) -> None:
    rng = _rng(i + 7 * k + 31 * j)
    a, b = rng.normal(size=(batch, k, i) if ta else (batch, i, k)), rng.normal(size=(j, k) if tb else (k, j))
    found = ops.matmul(tensor(a), tensor(b), ta, tb).data
    np.testing.assert_allclose(found, (np.swapaxes(a, 1, 2) if ta else a) @ (b.T if tb else b), atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_products_have_the_same_bits_on_any_number_of_threads(threads: int) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    rng = _rng(5)
    a, b = rng.normal(size=(300, 700)).astype(np.float32), rng.normal(size=(700, 200)).astype(np.float32)
    wanted = ops.matmul(tensor(a), tensor(b)).data
    with threadpool_limits(threads, user_api="blas"):
        before = [pool["num_threads"] for pool in threadpool_info()]
        np.testing.assert_array_equal(ops.matmul(tensor(a), tensor(b)).data, wanted)
        assert [pool["num_threads"] for pool in threadpool_info()] == before
