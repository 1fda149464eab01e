"""Pairwise reductions against NumPy in float64, dense against tiled, memory, derivatives."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def points(m: int, n: int, d: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return x (m, d), y (n, d), v (n, d), w (n,) in float64, with a zero among the weights."""
    rng = np.random.default_rng(seed)
    x, y, v = (rng.normal(size=(k, d)) for k in (m, n, n))
    w = rng.normal(size=n)
    w[n // 2] = 0.0
    return x, y + 0.3, v, w


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
    slopes = jax.jit(jax.grad(number, range(4)))(x, y, bias, jnp.array(0.3))
    alive = jax.grad(
        lambda y, bias: (
            jnp.sum((jax.nn.softmax((bias - _q(x[:, None], y) / 2) / 0.3, 1) @ values[live]) ** 2)
            + jnp.sum(jax.nn.logsumexp((bias - _q(x[:, None], y) / 2) / 0.3, axis=1))
        ),
        (0, 1),
    )(y[live], bias[live])
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


def _arrays_inside(jaxpr: Any) -> Iterator[Any]:
    """Yield the type of every array that a program names, in loops and calls too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for value in equation.params.values():
            inner = value if isinstance(value, list | tuple) else [value]
            for item in inner:
                if hasattr(item, "eqns") or hasattr(getattr(item, "jaxpr", None), "eqns"):
                    yield from _arrays_inside(getattr(item, "jaxpr", item))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "matvec": lambda k, x, v: pairwise.kernel_matvec(k, x, x, v),
    "grad sum": lambda k, x, v: pairwise.kernel_grad_sum(k, x, x, v[:, 0]),
    "both": lambda k, x, v: pairwise.kernel_matvec_plus_grad_sum(k, x, x, v, v[:, 0])[0],
    "double sum": lambda k, x, v: pairwise.kernel_sum(k, x, x, v[:, 0], exclude_diagonal=True),
    "logsumexp": lambda k, x, v: pairwise.logsumexp(x, x, v[:, 0], k.bandwidth),
    "softmax mean": lambda k, x, v: pairwise.softmax_mean(x, x, v[:, 0], v, k.bandwidth),
}


@pytest.mark.parametrize("differentiate", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_no_array_grows_with_the_number_of_pairs(name: str, differentiate: bool) -> None:
    n, d = 5000, 64
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    function = REDUCTIONS[name]
    if differentiate:
        function = jax.grad(lambda *a: jnp.sum(REDUCTIONS[name](*a)), (0, 1, 2))
    for kernel in (kernels.RBF(1.0), kernels.Custom(_user_kernel)):
        if isinstance(kernel, kernels.Custom) and name in ("logsumexp", "softmax mean"):
            continue
        traced = jax.make_jaxpr(function)(kernel, x, x)
        sizes = [aval.size for aval in _arrays_inside(traced.jaxpr) if hasattr(aval, "size")]
        assert len(sizes) > 20
        # A tile of at most 2^18 pairs (times what a pair needs), or some rows of length d.
        assert max(sizes) <= max(2**18, 3 * n * (d + 2))
        assert max(sizes) < n * n / 20


@pytest.mark.usual_compiler
@pytest.mark.parametrize(("name", "d"), [("matvec", 10), *((name, 100) for name in REDUCTIONS)])
def test_compiled_memory_is_within_eight_mebibytes(name: str, d: int) -> None:
    x = jax.ShapeDtypeStruct((4096, d), jnp.float32)
    compiled = jax.jit(REDUCTIONS[name]).lower(kernels.RBF(1.0), x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 8 * 2**20


@pytest.mark.usual_compiler
@pytest.mark.parametrize("name", ["both", "softmax mean"])
def test_compiled_memory_of_derivatives_grows_with_points_not_pairs(name: str) -> None:
    d = 10
    slopes = jax.jit(jax.grad(lambda *a: jnp.sum(REDUCTIONS[name](*a)), (1, 2)))
    n = 65536
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    compiled = slopes.lower(kernels.RBF(1.0), x, x).compile()
    # Sixteen matrices of points and eight tiles, 56 MiB; the pairs would be 16 GiB.
    assert compiled.memory_analysis().temp_size_in_bytes <= 4 * (16 * n * (d + 2) + 8 * 2**18)


def test_one_key_and_many_queries_or_the_reverse_have_flat_tiles() -> None:
    from shoal.sampling.core._tiles import block_sides

    for m, n in ((1, 10**7), (10**7, 1), (10**6, 10**6), (3, 10**6), (2000, 2000)):
        rows, columns = block_sides(m, n, None, 1)
        assert rows <= m
        assert columns <= n
        assert 2**16 <= rows * columns <= 2**18
    rows, columns = block_sides(5000, 5000, None, 64)
    assert rows * columns * 64 <= 2**18


def test_changing_parameters_compiles_nothing() -> None:
    x = jnp.ones((7, 2))
    before = pairwise._jitted_kernel_sums._cache_size()
    for h in (0.5, 1.0, 2.0):
        pairwise.kernel_matvec(kernels.RBF(h) * kernels.Custom(_user_kernel), x, x, x)
    assert pairwise._jitted_kernel_sums._cache_size() == before + 1


@pytest.mark.usefixtures("x64")
def test_the_common_dtype_rules_and_a_parameter_does_not() -> None:
    x, y, v, w = points(3, 4, 2)
    single = [array.astype(np.float32) for array in (x, y, v)]
    kernel = kernels.RBF(jnp.array(1.0, jnp.float64))
    assert pairwise.kernel_matvec(kernel, *single).dtype == jnp.float32
    assert pairwise.kernel_matvec(kernel, single[0], y, single[2]).dtype == jnp.float64
    assert pairwise.logsumexp(*single[:2], w.astype(np.float32), np.float64(1)).dtype == jnp.float32


def _call(name: str, **changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "kernel": kernels.RBF(1.0),
        "x": jnp.ones((3, 2)),
        "y": jnp.ones((4, 2)),
        "v": jnp.ones((4, 2)),
        "w": jnp.ones(4),
        "bias": jnp.ones(4),
        "values": jnp.ones(4),
        "epsilon": 1.0,
        "threshold": 1.0,
    } | changed
    wanted = {
        "kernel_matvec": ["kernel", "x", "y", "v"],
        "kernel_grad_sum": ["kernel", "x", "y", "w"],
        "kernel_matvec_plus_grad_sum": ["kernel", "x", "y", "v", "w"],
        "kernel_sum": ["kernel", "x", "y"],
        "count_within": ["x", "y", "threshold"],
        "logsumexp": ["x", "y", "bias", "epsilon"],
        "softmax_mean": ["x", "y", "bias", "values", "epsilon"],
    }[name]
    options = {key: changed[key] for key in changed if key not in wanted}
    return getattr(pairwise, name)(*(arguments[key] for key in wanted), **options)


@pytest.mark.parametrize(
    ("name", "changed", "error", "message"),
    [
        (
            "kernel_matvec",
            {"x": jnp.ones(3)},
            ValueError,
            r"x must have shape \(m, d\), got \(3,\)",
        ),
        ("kernel_matvec", {"x": jnp.ones((0, 2))}, ValueError, r"x must have shape"),
        ("kernel_matvec", {"x": [[1.0, 2.0]]}, TypeError, "x must be an array, got list"),
        ("logsumexp", {"y": jnp.ones((4, 3))}, ValueError, r"y must have shape \(n, 2\)"),
        ("kernel_matvec", {"y": jnp.ones((4, 2), int)}, TypeError, "y must have dtype float32 or"),
        ("kernel_matvec", {"v": jnp.ones(3)}, ValueError, r"v must have shape \(4,\), got \(3,\)"),
        ("kernel_matvec", {"v": jnp.ones((4, 2, 1))}, ValueError, r"v must have shape \(4, p\)"),
        ("kernel_grad_sum", {"w": jnp.ones((4, 1))}, ValueError, r"w must have shape \(4,\)"),
        (
            "kernel_matvec_plus_grad_sum",
            {"v": jnp.ones((4, 3))},
            ValueError,
            r"v must have shape \(4, 2\)",
        ),
        ("kernel_matvec_plus_grad_sum", {"threshold": -1.0}, ValueError, "threshold must be"),
        ("kernel_sum", {"w": jnp.ones(4)}, ValueError, r"w must have shape \(3,\), got \(4,\)"),
        ("kernel_sum", {"exclude_diagonal": True}, ValueError, "as many points in x as in y"),
        ("softmax_mean", {"values": jnp.ones(5)}, ValueError, r"values must have shape \(4,\)"),
        ("softmax_mean", {"epsilon": 0.0}, ValueError, "epsilon must be finite and > 0, got 0.0"),
        ("logsumexp", {"epsilon": "1"}, TypeError, "epsilon must be a real number"),
        ("logsumexp", {"epsilon": jnp.ones(2)}, ValueError, "epsilon must be a scalar"),
        ("logsumexp", {"block_size": 0}, ValueError, "block_size must be at least 1, got 0"),
        ("logsumexp", {"block_size": 2.0}, TypeError, "block_size must be an integer or None"),
        ("logsumexp", {"ring": "chips"}, TypeError, "ring must be a Ring"),
        ("kernel_matvec", {"kernel": 1.0}, TypeError, "kernel must be a Kernel or a function"),
        ("kernel_matvec", {"kernel": kernels.RBF}, TypeError, "kernel must be a Kernel or"),
        (
            "kernel_matvec",
            {"kernel": kernels.RBF(jnp.ones(2))},
            ValueError,
            "kernel must have scalar parameters",
        ),
        (
            "kernel_matvec",
            {"kernel": lambda x, y: x - y},
            ValueError,
            "kernel must return a scalar for two points",
        ),
    ],
)
def test_impossible_arguments_are_refused(
    name: str, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _call(name, **changed)
