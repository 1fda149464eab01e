"""Tensor PCA and single-index models: forms and gradients by einsum, the noise's law, the signal.

Statistical checks have fixed keys and a threshold of 5.2 standard errors (two-sided p 2e-7).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy.special import factorial

from shoal.models.spiked import SingleIndex, TensorPCA, hermite, single_index, spiked_tensor

pytestmark = pytest.mark.quick_compiler

WORDS = {2: "ab,a,b", 3: "abc,a,b,c", 4: "abcd,a,b,c,d"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("order", [3, 4])
def test_form_and_derivatives_are_those_of_the_whole_tensor(order):
    rng = np.random.default_rng(order)
    tensor, x, u = rng.normal(size=(3,) * order), rng.normal(size=3), rng.normal(size=3)

    def everything(form):
        slope = jax.grad(form, 1)
        curve = jax.jvp(lambda x: slope(tensor, x), (x,), (u,))[1]
        return form(tensor, x), jax.grad(form)(tensor, x), slope(tensor, x), curve

    forms = (
        lambda tensor, x: TensorPCA(tensor).objective(x),
        lambda tensor, x: jnp.einsum(WORDS[order], tensor, *[x] * order),
    )
    ours, expected = jax.jit(lambda: [everything(form) for form in forms])()
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_the_tensor_is_read_once_for_value_and_gradient():
    problem = TensorPCA(np.ones((6, 6, 6), np.float32))
    program = str(jax.make_jaxpr(jax.value_and_grad(problem.objective))(jnp.ones(6)))
    assert program.count("f32[6,6] = dot_general") == 1
    assert "f32[6,6,6] = " not in program


@pytest.mark.parametrize("order", [3, 4])
def test_partial_trace_points_along_a_strong_spike(order):
    @jax.jit
    def overlap_and_height(key):
        problem, direction = spiked_tensor(key, 8, order, 1000.0)
        return problem.partial_trace() @ direction, problem.objective(direction)

    overlap, height = overlap_and_height(jax.random.key(1))
    assert (abs(overlap) if order == 4 else overlap) > 0.999
    assert height == pytest.approx(1000, rel=0.01)


def z_of_the_noise(key):
    """The form at fixed points, over tensors without a spike, is normal of variance one."""
    x = jnp.array([[0.6, 0.0, 0.8], [1.0, 0.0, 0.0]])
    draw = lambda key: jax.vmap(spiked_tensor(key, 3, 3, 0.0)[0].objective)(x)
    values = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(key, 20_000)), np.float64)
    num = len(values) ** 0.5
    return np.concatenate([values.mean(0) * num, (values**2 - 1).mean(0) * num / 2**0.5])


def z_of_a_single_index_model(key):
    """The objective along the direction and across it; the responses' first two moments."""
    num = 4

    def draw(key):
        problem, direction = single_index(key, num, 3, 2, 0.5)
        across = jnp.cross(direction, jnp.array([1.0, 0.0, 0.0]))
        return jnp.array(
            [
                problem.objective(direction) - num**0.5,
                problem.objective(across / jnp.linalg.norm(across)),
                jnp.mean(problem.responses),
                jnp.mean(problem.responses**2) - 1.25,
            ]
        )

    values = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(key, 40_000)), np.float64)
    return values.mean(0) / (values.std(0, ddof=1) / len(values) ** 0.5)


def test_noise_has_variance_one_in_every_direction():
    assert np.abs(z_of_the_noise(jax.random.key(2))).max() < 5.2


def test_the_signal_of_a_single_index_model_is_the_root_of_the_number():
    assert np.abs(z_of_a_single_index_model(jax.random.key(3))).max() < 5.2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("order", [0, 1, 3, 6])
def test_hermite_polynomials_are_those_of_numpy(order):
    z = np.linspace(-3, 3, 7)
    one = np.eye(order + 1)[order]
    expected = hermite_e.hermeval(z, one) / factorial(order) ** 0.5
    np.testing.assert_allclose(hermite(order, jnp.asarray(z)), expected, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_single_index_objective_is_its_sum():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(5, 3)), rng.normal(size=5), np.array([0.6, 0.0, 0.8])
    expected = sum(b * ((a @ w) ** 3 - 3 * a @ w) for a, b in zip(x, y, strict=True)) / 30**0.5
    assert SingleIndex(x, y, 3).objective(w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_draws_have_the_dtype_asked_for():
    shapes = jax.eval_shape(lambda key: spiked_tensor(key, 3, dtype="float32"), jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float32"}
    shapes = jax.eval_shape(lambda key: single_index(key, 5, 3), jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float64"}
    problem, direction = shapes
    assert (problem.dim, problem.order, direction.shape) == (3, 3, (3,))
