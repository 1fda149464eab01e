"""Derivatives of pairwise reductions against those of the same by hand, and under vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pairs import points

from shoal.sampling.core import kernels, pairwise

pytestmark = pytest.mark.quick_compiler


def _scalar(kind: str, block_size: int | None) -> Callable[..., jax.Array]:
    """Return a smooth number made by one reduction, as a function of all of its arrays."""

    def number(p: jax.Array, x: jax.Array, y: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        if kind == "sums":
            kernel = kernels.RBF(p) + kernels.Matern52(p) * kernels.Linear()
            out = pairwise.kernel_matvec_plus_grad_sum(kernel, x, y, v, w, block_size=block_size)[0]
        elif kind == "function":
            kernel = kernels.Custom(lambda x, y, p: jnp.exp(-p * jnp.sum((x - y) ** 2)), p)
            out = pairwise.kernel_matvec_plus_grad_sum(kernel, x, y, v, w, block_size=block_size)[0]
        elif kind == "logsumexp":
            out = pairwise.logsumexp(x, y, w, p, block_size=block_size)
        else:
            out = pairwise.softmax_mean(x, y, w, v, p, block_size=block_size)
        return jnp.sum(jnp.sin(out))

    return number


def _scalar_by_hand(kind: str) -> Callable[..., jax.Array]:
    """The same from the pairwise differences, an m x n x d array."""

    def number(p: jax.Array, x: jax.Array, y: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        q = jnp.sum((x[:, None] - y) ** 2, -1)
        if kind in ("sums", "function"):
            kernel: Any = kernels.RBF(p) + kernels.Matern52(p) * kernels.Linear()
            if kind == "function":
                kernel = lambda x, y: jnp.exp(-p * jnp.sum((x - y) ** 2))
            table = lambda f: jax.vmap(lambda a: jax.vmap(lambda b: f(a, b))(y))(x)
            out = table(kernel) @ v + jnp.einsum("ijd,j->id", table(jax.grad(kernel, 1)), w)
        elif kind == "logsumexp":
            out = jax.nn.logsumexp((w - q / 2) / p, axis=1)
        else:
            out = jax.nn.softmax((w - q / 2) / p, axis=1) @ v
        return jnp.sum(jnp.sin(out))

    return number


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "block_size"),
    [("sums", None), ("sums", 4), ("function", 4), ("logsumexp", 4), ("softmax", 4)],
)
def test_derivatives_in_every_argument_both_ways(kind: str, block_size: int | None) -> None:
    arguments = (jnp.array(1.7), *map(jnp.asarray, points(6, 9, 2)))
    tangents = jax.tree.map(jnp.cos, arguments)
    number = _scalar(kind, block_size)

    @jax.jit
    def both_ways(arguments: Any, tangents: Any) -> Any:
        backward = jax.grad(number, range(5))(*arguments)
        return backward, jax.jvp(number, arguments, tangents)[1]

    wanted = jax.jit(jax.grad(_scalar_by_hand(kind), range(5)))(*arguments)
    backward, forward = both_ways(arguments, tangents)
    for found, exact in zip(backward, wanted, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-10)
    exact = sum(np.vdot(a, b) for a, b in zip(wanted, tangents, strict=True))
    np.testing.assert_allclose(forward, exact, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_second_derivatives_hold_where_points_coincide() -> None:
    x = jnp.asarray(points(5, 5, 2)[0])
    total = lambda x, y: pairwise.kernel_sum(kernels.Matern52(1.3), x, y, block_size=2)
    by_hand = lambda x, y: jnp.sum(
        jax.vmap(lambda a: jax.vmap(lambda b: kernels.Matern52(1.3)(a, b))(y))(x)
    )
    # In both arguments: were x and y one, what coincides would move together.
    wanted = jax.jit(jax.hessian(by_hand, (0, 1)))(x, x)
    found = jax.jit(jax.hessian(total, (0, 1)))(x, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_derivatives_are_finite_where_keys_have_no_weight() -> None:
    x, y, values, bias = map(jnp.asarray, points(6, 13, 2))
    bias = bias.at[3:11].set(-jnp.inf)

    def number(x: jax.Array, y: jax.Array, bias: jax.Array, e: jax.Array) -> jax.Array:
        mean = pairwise.softmax_mean(x, y, bias, values, e, block_size=4)
        return jnp.sum(mean**2) + jnp.sum(pairwise.logsumexp(x, y, bias, e, block_size=4))

    live = np.isfinite(bias)
    logits = lambda y, bias: (bias - jnp.sum((x[:, None] - y) ** 2, -1) / 2) / 0.3
    by_hand = lambda y, bias: (
        jnp.sum((jax.nn.softmax(logits(y, bias), 1) @ values[live]) ** 2)
        + jnp.sum(jax.nn.logsumexp(logits(y, bias), axis=1))
    )
    slopes = jax.jit(jax.grad(number, range(4)))(x, y, bias, jnp.array(0.3))
    alive = jax.jit(jax.grad(by_hand, (0, 1)))(y[live], bias[live])
    assert all(np.isfinite(slope).all() for slope in slopes)
    np.testing.assert_allclose(slopes[1][live], alive[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slopes[2][live], alive[1], rtol=1e-9, atol=1e-12)
    assert not np.any(slopes[1][~live])
    assert not np.any(slopes[2][~live])


def test_vmap_over_points_kernels_and_temperatures() -> None:
    x, y, v, w = (
        jnp.stack([jnp.asarray(points(6, 9, 2, s)[i], jnp.float32) for s in range(3)])
        for i in range(4)
    )
    scale = jnp.array([0.5, 1.0, 2.0])

    def both(h: jax.Array, *a: jax.Array) -> tuple[jax.Array, ...]:
        sums = pairwise.kernel_matvec_plus_grad_sum(kernels.IMQ(h), *a, block_size=4)
        return sums.total, pairwise.logsumexp(a[0], a[1], a[3], h, block_size=4)

    batched = jax.jit(jax.vmap(both))(scale, x, y, v, w)
    for i in range(3):
        single = both(scale[i], x[i], y[i], v[i], w[i])
        for found, wanted in zip(batched, single, strict=True):
            np.testing.assert_allclose(found[i], wanted, rtol=1e-5, atol=1e-5)
