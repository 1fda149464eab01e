"""Programs of pairwise reductions: memory, tiles, when they are compiled, bad arguments."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from shoal.sampling.core import kernels, pairwise

pytestmark = pytest.mark.quick_compiler


def _user_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.sum((x - 0.5 * y) ** 2)) + x[0] * y[-1]


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
