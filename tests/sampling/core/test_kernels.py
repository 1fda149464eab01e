"""Kernels: values and derivatives against formulas written out here, combinations, checks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import kernels

pytestmark = pytest.mark.quick_compiler

RADIAL: dict[str, tuple[kernels.Kernel, Callable[[np.ndarray], np.ndarray]]] = {
    "rbf": (kernels.RBF(1.7), lambda q: np.exp(-q / 1.7)),
    "imq": (kernels.IMQ(1.7), lambda q: 1 / np.sqrt(1 + q / 1.7)),
    "imq, any power": (kernels.IMQ(1.7, -0.8, 0.6), lambda q: (0.36 + q / 1.7) ** -0.8),
    "rational quadratic": (
        kernels.RationalQuadratic(1.3, 0.7),
        lambda q: (1 + q / (2 * 0.7 * 1.69)) ** -0.7,
    ),
    "matern 3/2": (
        kernels.Matern32(1.3),
        lambda q: (1 + np.sqrt(3 * q) / 1.3) * np.exp(-np.sqrt(3 * q) / 1.3),
    ),
    "matern 5/2": (
        kernels.Matern52(1.3),
        lambda q: (1 + np.sqrt(5 * q) / 1.3 + 5 * q / (3 * 1.69)) * np.exp(-np.sqrt(5 * q) / 1.3),
    ),
    "scaled product and sum": (
        2.0 * kernels.RBF(1.7) * kernels.IMQ(0.9) + kernels.Matern52(1.3) * 0.5,
        lambda q: 2 * np.exp(-q / 1.7) / np.sqrt(1 + q / 0.9) + 0.5 * RADIAL["matern 5/2"][1](q),
    ),
}
SQUARED_DISTANCES = np.array([0.01, 0.3, 1.0, 7.0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RADIAL)
def test_profile_and_its_derivatives_are_the_formula_s(name: str) -> None:
    kernel, formula = RADIAL[name]
    q, step = SQUARED_DISTANCES, 1e-3 * SQUARED_DISTANCES
    below, at, above = formula(q - step), formula(q), formula(q + step)
    np.testing.assert_allclose(kernel.profile(jnp.array(q)), at, rtol=1e-12)
    np.testing.assert_allclose(kernel.slope(jnp.array(q)), (above - below) / (2 * step), rtol=1e-5)
    second = (above - 2 * at + below) / step**2
    np.testing.assert_allclose(kernel.curvature(jnp.array(q)), second, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RADIAL)
def test_autodiff_of_the_profile_gives_the_closed_forms(name: str) -> None:
    kernel, _ = RADIAL[name]
    q = jnp.array(SQUARED_DISTANCES)
    first, second = jax.grad(kernel.profile), jax.grad(jax.grad(kernel.profile))
    np.testing.assert_allclose(jax.jit(jax.vmap(first))(q), kernel.slope(q), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(second))(q), kernel.curvature(q), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RADIAL)
def test_coincident_points_have_exact_derivatives(name: str) -> None:
    # k(x, y) = f(|x - y|^2): at x = y the gradient is zero and d^2 k / dx dy is -2 f'(0) I.
    kernel, formula = RADIAL[name]
    x = jnp.array([0.3, -1.2, 2.0])
    np.testing.assert_array_equal(jax.jit(jax.grad(kernel))(x, x), np.zeros(3))
    step = 1e-10
    slope = (formula(np.array(step)) - formula(np.array(0.0))) / step
    mixed = jax.jit(jax.jacfwd(jax.jacrev(kernel, argnums=1), argnums=0))(x, x)
    np.testing.assert_allclose(mixed, -2 * slope * np.eye(3), rtol=1e-3, atol=1e-12)
    zero = jnp.zeros(())
    assert np.isfinite([kernel.slope(zero), kernel.curvature(zero)]).all()
    assert zero * kernel.curvature(zero) == 0


@pytest.mark.usefixtures("x64")
def test_jets_of_mixed_kernels_are_the_derivatives_in_distance_and_inner_product() -> None:
    linear = kernels.Linear(0.5)
    kernel = kernels.RBF(2.0) * linear * linear + 3.0 * kernels.IMQ(1.5) * linear + linear
    value = lambda q, g: (
        jnp.exp(-q / 2) * (g + 0.5) ** 2 + (g + 0.5) * (3 / jnp.sqrt(1 + q / 1.5) + 1)
    )
    q, g = jnp.array(0.7), jnp.array(-1.3)
    (k_q, k_g), second = jax.jit(
        lambda *a: (jax.grad(value, (0, 1))(*a), jax.hessian(value, (0, 1))(*a))
    )(q, g)
    wanted = kernels.Jet(value(q, g), k_q, k_g, second[0][0], second[0][1], second[1][1])
    np.testing.assert_allclose(kernel.jet(q, g), wanted, rtol=1e-12)
    assert not kernel.is_radial
    with pytest.raises(ValueError, match="function of the distance alone"):
        kernel.profile(q)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*RADIAL, "linear"])
def test_gram_matrices_are_positive_semi_definite(name: str) -> None:
    kernel = kernels.Linear(0.2) if name == "linear" else RADIAL[name][0]
    x = jax.random.normal(jax.random.key(0), (40, 3))
    gram = jax.jit(jax.vmap(lambda a: jax.vmap(lambda b: kernel(a, b))(x)))(x)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12)
    assert np.linalg.eigvalsh(gram).min() > -1e-10


def test_linear_kernel_is_the_inner_product_plus_its_bias() -> None:
    assert float(kernels.Linear(2.0)(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))) == 13.0


def test_constant_log_slopes_are_found_and_no_others() -> None:
    assert (3.0 * kernels.RBF(2.0) * kernels.RBF(4.0)).log_slope == -0.75
    for kernel in (kernels.IMQ(1.0), kernels.RBF(1.0) + kernels.RBF(2.0), kernels.Linear()):
        assert kernel.log_slope is None


def test_a_function_becomes_a_kernel_and_combines() -> None:
    kernel = kernels.RBF(1.0) + (lambda x, y: 2.0 * jnp.sum(x * y))
    x = jnp.array([1.0, 2.0])
    assert float(kernel(x, x)) == 11.0
    assert not kernel.has_jet
    assert float(((lambda x, y: 3.0) * kernels.RBF(1.0))(x, x)) == 3.0
    with pytest.raises(TypeError, match="no closed form"):
        kernels.Custom(lambda x, y: 0.0).jet(x)


def test_changing_any_parameter_compiles_nothing() -> None:
    traces = 0

    @jax.jit
    def value(kernel: kernels.Kernel, x: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return kernel(x, 2 * x)

    def kernel(p: float) -> kernels.Kernel:
        stationary = kernels.RBF(p) + kernels.IMQ(p, -p, p) * kernels.Matern32(p)
        return p * (stationary + kernels.Matern52(p) + kernels.RationalQuadratic(p, p)) + (
            kernels.Linear(p) * kernels.Custom(lambda_kernel, p)
        )

    values = [float(value(kernel(p), jnp.ones(2))) for p in (0.5, 0.7, 0.9)]
    assert traces == 1
    assert len(set(values)) == 3


def lambda_kernel(x: jax.Array, y: jax.Array, rate: jax.Array) -> jax.Array:
    return jnp.exp(-rate * jnp.sum(jnp.abs(x - y)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: kernels.RBF(0.0), ValueError, "bandwidth must be finite and > 0, got 0.0"),
        (lambda: kernels.RBF(float("nan")), ValueError, "bandwidth must be finite"),
        (lambda: kernels.RBF("1"), TypeError, "bandwidth must be a real number, got '1'"),
        (lambda: kernels.RBF(True), TypeError, "bandwidth must be a real number, got True"),
        (lambda: kernels.IMQ(1.0, 0.5), ValueError, "beta must be finite and < 0, got 0.5"),
        (lambda: kernels.IMQ(1.0, offset=0.0), ValueError, "offset must be finite and > 0"),
        (lambda: kernels.Matern32(-1), ValueError, "length_scale must be finite and > 0, got -1"),
        (lambda: kernels.Matern52(np.inf), ValueError, "length_scale must be finite and > 0"),
        (lambda: kernels.RationalQuadratic(1.0, -1.0), ValueError, "alpha must be finite and > 0"),
        (lambda: kernels.Linear(-0.1), ValueError, "bias must be finite and >= 0, got -0.1"),
        (lambda: -1.0 * kernels.RBF(1.0), ValueError, "scale must be finite and > 0, got -1.0"),
        (lambda: kernels.RBF(1.0) + 1.0, TypeError, "unsupported operand"),
        (lambda: kernels.Custom(3), TypeError, "function must be a callable"),
        (lambda: kernels.as_kernel(kernels.RBF), TypeError, "kernel must be a Kernel"),
        (lambda: kernels.as_kernel("rbf"), TypeError, "kernel must be a Kernel"),
    ],
)
def test_impossible_parameters_are_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_an_integer_parameter_is_a_float() -> None:
    assert isinstance(kernels.RBF(2).bandwidth, float)
