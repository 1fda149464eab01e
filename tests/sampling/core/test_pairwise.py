"""Pairwise reductions against NumPy in float64, dense against tiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pairs import points
from scipy import special

from shoal.sampling.core import kernels, pairwise

pytestmark = pytest.mark.quick_compiler

PairFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _q(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x - y) ** 2).sum(-1)


def _g(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(-1)


def _user_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sum((x - 0.5 * y) ** 2)) + x[0] * y[-1]


# Kernel, and the same as a NumPy function of points on the last axis.
KERNELS: dict[str, tuple[Any, PairFunction]] = {
    "rbf": (kernels.RBF(1.5), lambda x, y: np.exp(-_q(x, y) / 1.5)),
    "scaled rbf": (2.0 * kernels.RBF(1.5), lambda x, y: 2 * np.exp(-_q(x, y) / 1.5)),
    "imq": (kernels.IMQ(1.5), lambda x, y: (1 + _q(x, y) / 1.5) ** -0.5),
    "matern 3/2": (
        kernels.Matern32(1.5),
        lambda x, y: (1 + np.sqrt(3 * _q(x, y)) / 1.5) * np.exp(-np.sqrt(3 * _q(x, y)) / 1.5),
    ),
    "rational quadratic": (
        kernels.RationalQuadratic(1.5, 2.0),
        lambda x, y: (1 + _q(x, y) / 9.0) ** -2.0,
    ),
    "linear": (kernels.Linear(0.5), lambda x, y: _g(x, y) + 0.5),
    "rbf + imq * linear": (
        kernels.RBF(1.5) + kernels.IMQ(2.0) * kernels.Linear(),
        lambda x, y: np.exp(-_q(x, y) / 1.5) + (_g(x, y) + 1) / np.sqrt(1 + _q(x, y) / 2),
    ),
    "a function": (
        _user_kernel,
        lambda x, y: np.exp(-_q(x, 0.5 * y)) + x[..., 0] * y[..., -1],
    ),
}


def all_pairs(f: PairFunction, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return f(x[:, None, :], y[None, :, :])


def gradient_sum(f: PairFunction, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Compute sum_j w_j grad_{y_j} k(x_i, y_j) by central differences."""
    step = 1e-5 * np.eye(x.shape[1])
    columns = [(all_pairs(f, x, y + e) - all_pairs(f, x, y - e)) @ w / 2e-5 for e in step]
    return np.stack(columns, axis=1)


def logits(x: np.ndarray, y: np.ndarray, bias: np.ndarray, epsilon: float) -> np.ndarray:
    return (bias - all_pairs(_q, x, y) / 2) / epsilon


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "block_size"),
    [*((name, 6) for name in KERNELS), ("rbf", None), ("linear", None), ("a function", None)],
)
def test_kernel_sums_are_the_brute_force_ones(name: str, block_size: int | None) -> None:
    kernel, f = KERNELS[name]
    x, y, v, w = points(11, 17, 3)
    value, gradient = all_pairs(f, x, y) @ v, gradient_sum(f, x, y, w)
    both = pairwise.kernel_matvec_plus_grad_sum(
        kernel, x, y, v, w, threshold=2.0, block_size=block_size
    )
    np.testing.assert_allclose(both.total, value + gradient, rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(both.near, (all_pairs(_q, x, y) <= 2.0).sum(1))
    if name in ("rbf", "rbf + imq * linear", "a function"):
        found = pairwise.kernel_matvec(kernel, x, y, v, block_size=block_size)
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)
        found = pairwise.kernel_grad_sum(kernel, x, y, w, block_size=block_size)
        np.testing.assert_allclose(found, gradient, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("sizes", "block_size"),
    [
        ((1, 1, 1), None),
        ((1, 1, 2), 1),
        ((1, 9, 2), 4),
        ((5, 1, 3), 2),
        ((9, 8, 1), 8),
        ((16, 33, 4), 8),
        ((3, 4, 2), 1),
    ],
)
def test_sizes_that_do_not_divide_give_the_same(
    sizes: tuple[int, int, int], block_size: int | None
) -> None:
    x, y, v, w = points(*sizes)
    args = [array.astype(np.float32) for array in (x, y, v, w)]
    f = KERNELS["imq"][1]
    found = pairwise.kernel_matvec_plus_grad_sum(kernels.IMQ(1.5), *args, block_size=block_size)
    wanted = all_pairs(f, x, y) @ v + gradient_sum(f, x, y, w)
    np.testing.assert_allclose(found.total, wanted, rtol=2e-5, atol=2e-5)
    found = pairwise.softmax_mean(*args[:2], args[3], args[2], 0.7, block_size=block_size)
    np.testing.assert_allclose(
        found, special.softmax(logits(x, y, w, 0.7), axis=1) @ v, rtol=2e-5, atol=2e-5
    )
    assert found.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("epsilon", [10.0, 0.5, 1e-4])
def test_softmax_is_scipy_s_with_keys_of_no_weight(epsilon: float, block_size: int | None) -> None:
    x, y, values, bias = points(7, 18, 3)
    bias[4:12] = -np.inf  # a whole block of keys, and more
    wanted = logits(x, y, bias, epsilon)
    found = pairwise.logsumexp(x, y, bias, epsilon, block_size=block_size)
    np.testing.assert_allclose(found, special.logsumexp(wanted, axis=1), rtol=1e-12)
    found = pairwise.softmax_mean(x, y, bias, values, epsilon, block_size=block_size)
    weights = special.softmax(wanted, axis=1)
    np.testing.assert_allclose(found, weights @ values, rtol=1e-9, atol=1e-12)
    found = pairwise.softmax_mean(x, y, bias, values[:, 0], epsilon, block_size=block_size)
    np.testing.assert_allclose(found, weights @ values[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block_size", [None, 2])
def test_no_key_at_all_gives_minus_infinity_and_no_mean(block_size: int | None) -> None:
    x, dead = jnp.ones((3, 2)), jnp.full(5, -jnp.inf)
    y = jnp.zeros((5, 2))
    value, slopes = jax.value_and_grad(
        lambda x, e: jnp.sum(pairwise.logsumexp(x, y, dead, e, block_size=block_size)), (0, 1)
    )(x, 1.0)
    assert value == -jnp.inf
    assert not np.any(np.concatenate([np.ravel(s) for s in slopes]))
    assert np.isnan(pairwise.softmax_mean(x, y, dead, y, 1.0, block_size=block_size)).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block_size", [None, 5])
def test_double_sums_with_and_without_the_diagonal(block_size: int | None) -> None:
    x, y, _, u = points(12, 12, 3)
    w = np.linspace(-1, 2, 12)
    for name in ("linear", "a function"):
        kernel, f = KERNELS[name]
        pairs = all_pairs(f, x, y)
        found = pairwise.kernel_sum(kernel, x, y, w, u, block_size=block_size)
        np.testing.assert_allclose(found, w @ pairs @ u, rtol=1e-11)
        found = pairwise.kernel_sum(kernel, x, y, exclude_diagonal=True, block_size=block_size)
        np.testing.assert_allclose(found, pairs.sum() - np.trace(pairs), rtol=1e-11)
    near = pairwise.count_within(x, x, 3.0, exclude_diagonal=True, block_size=block_size)
    np.testing.assert_array_equal(near, (all_pairs(_q, x, x) <= 3.0).sum(1) - 1)


@pytest.mark.usual_compiler
@pytest.mark.parametrize("block_size", [None, 100])
def test_float32_keeps_its_digits_at_an_offset_of_a_thousand(block_size: int | None) -> None:
    n, d = 256, 10
    x, y, v, w = points(n, n, d)
    x, y, v, w = (array.astype(np.float32) for array in (x + 1000, y + 1000, v, w))
    exact = [array.astype(np.float64) for array in (x, y, v, w)]
    bandwidth, epsilon = 2.0 * d, 1.0
    pairs = np.exp(-all_pairs(_q, *exact[:2]) / bandwidth)
    slope = -2 / bandwidth * pairs * exact[3]
    soft = logits(exact[0], exact[1], exact[3], epsilon)
    kernel = kernels.RBF(bandwidth)
    options = {"block_size": block_size}
    for found, wanted in (
        (
            lambda: pairwise.softmax_mean(x, y, w, y, epsilon, **options),
            special.softmax(soft, axis=1) @ exact[1],
        ),
        (lambda: pairwise.kernel_matvec(kernel, x, y, v, **options), pairs @ exact[2]),
        (
            lambda: pairwise.kernel_grad_sum(kernel, x, y, w, **options),
            slope @ exact[1] - slope.sum(1, keepdims=True) * exact[0],
        ),
        (lambda: pairwise.logsumexp(x, y, w, epsilon, **options), special.logsumexp(soft, axis=1)),
    ):
        error = np.linalg.norm(found() - wanted) / np.linalg.norm(wanted - wanted.mean(0))
        assert error < 1e-4


@pytest.mark.usefixtures("x64")
def test_the_common_dtype_rules_and_a_parameter_does_not() -> None:
    x, y, v, w = points(3, 4, 2)
    single = [array.astype(np.float32) for array in (x, y, v)]
    kernel = kernels.RBF(jnp.array(1.0, jnp.float64))
    assert pairwise.kernel_matvec(kernel, *single).dtype == jnp.float32
    assert pairwise.kernel_matvec(kernel, single[0], y, single[2]).dtype == jnp.float64
    assert pairwise.logsumexp(*single[:2], w.astype(np.float32), np.float64(1)).dtype == jnp.float32
