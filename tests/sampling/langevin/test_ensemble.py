"""Interacting ensembles: exact laws, affine invariance, and the dead who must not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference.diagnostics import invariance_test
from shoal.inference.run import run
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import ensemble

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

PRECISION = np.array([[1.5, -0.6], [-0.6, 1.0]])
WHITENER = np.linalg.cholesky(PRECISION).T
NUM = 5
SAMPLERS = {"stretch": ensemble.stretch(), "aldi": ensemble.aldi(0.05)}


def gaussian(x):
    return -0.5 * x @ jnp.asarray(PRECISION, x.dtype) @ x


def skewed(x):
    """An equal mixture of two laws of unlike widths: no symmetry, exact draws."""
    narrow = -2 * jnp.sum((x - 1) ** 2) + 2 * jnp.log(2.0)
    return jnp.logaddexp(narrow, -0.5 * jnp.sum(x**2))


def skewed_draws(key, shape):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    white, is_narrow = rng.normal(size=(*shape, 2)), rng.random((*shape, 1)) < 0.5
    return np.where(is_narrow, 1 + white / 2, white).astype(np.float32)


def z_stretch(key):
    """Ensembles of five exact draws after four steps: points, pairs and energies."""
    algorithm = ensemble.stretch(3.0)(skewed)

    def features(x):
        one = jnp.stack([x[0], x[1]])
        return (
            one, one**2, one[:, 0] * one[:, 1], jnp.sin(2 * one), x[0] * x[1], x[1] * x[2],
            jnp.sum(jnp.var(x, 0)), jnp.sum((x[0] - x[1]) ** 2), jnp.sum((x[0] - x[2]) ** 2),
        )  # fmt: skip

    draws = skewed_draws(key, (20_000, NUM))
    result = invariance_test(key, algorithm, draws, features=features, num_steps=4)
    print(result)
    assert result.num_moved > 0.9 * result.num_particles
    return result.z


def test_the_stretch_move_keeps_the_product_law():
    assert np.abs(z_stretch(jax.random.key(0))).max() < 5.2


def second_moments(key, has_correction):
    """Mean of x xᵀ over ensembles that started exactly, in coordinates where it should be I."""
    algorithm = ensemble.aldi(0.04, has_correction=has_correction)(gaussian)
    num, num_steps = 4000, 60

    @jax.jit
    def go(white, key):
        states = jax.vmap(algorithm.init)(white @ jnp.asarray(np.linalg.inv(WHITENER).T, "f4"))
        step = lambda s, k: (jax.vmap(algorithm.step)(jax.random.split(k, num), s)[0], None)
        return jax.lax.scan(step, states, jax.random.split(key, num_steps))[0]

    states = go(jax.random.normal(jax.random.fold_in(key, 1), (num, NUM, 2)), key)
    assert states.alive.all()
    white = np.asarray(states.position, np.float64).reshape(-1, 2) @ WHITENER.T
    return white.T @ white / len(white)


def test_aldi_with_its_correction_has_the_covariance_of_the_target():
    """Five particles in two dimensions; the bias of the step is below the tolerance, as h² is.

    The standard error of an entry is below 0.011 (particles of an ensemble are dependent).
    """
    moments = second_moments(jax.random.key(1), True)
    np.testing.assert_allclose(moments, np.eye(2), atol=0.05)


def test_without_the_correction_the_ensemble_is_too_narrow():
    """The ensemble Kalman sampler's dynamics: variances fall by more than a third."""
    moments = second_moments(jax.random.key(1), False)
    assert (np.diag(moments) < 0.65).all()


def steps(algorithm, position, num=4):
    def go(position):
        state = algorithm.init(position)
        keys = jax.random.split(jax.random.key(2), num)
        return jax.lax.scan(lambda s, k: algorithm.step(k, s), state, keys)

    return jax.jit(go)(position)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SAMPLERS)
def test_moves_follow_affine_maps(name):
    """Ensemble and target mapped: the same moves, mapped."""
    matrix, shift = np.array([[30.0, 1.0], [-2.0, 0.01]]), np.array([5.0, -1e3])
    inverse = np.linalg.inv(matrix)
    mapped = lambda y: skewed(jnp.asarray(inverse) @ (y - shift))
    start = np.random.default_rng(0).normal(size=(NUM + 1, 2))
    here, _ = steps(SAMPLERS[name](skewed), start)
    there, _ = steps(SAMPLERS[name](mapped), start @ matrix.T + shift)
    assert np.abs(here.position - start).min(1).max() > 0.01
    np.testing.assert_allclose((there.position - shift) @ inverse.T, here.position, atol=1e-8)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_dead_stay_and_have_no_influence(name):
    """Whatever a dead particle holds; rows appended to fill up devices are dead too."""
    algorithm = SAMPLERS[name](skewed)
    start = algorithm.init(jax.random.normal(jax.random.key(1), (NUM, 2)))
    alive = start.alive.at[2].set(False)

    def go(value):
        position = start.position.at[2].set(value)
        state = start._replace(position=position, alive=alive)
        return jax.lax.scan(
            lambda s, k: algorithm.step(k, s), state, jax.random.split(jax.random.key(3), 6)
        )

    go = jax.jit(go)
    (one, info), (other, _) = go(0.5), go(jnp.inf)
    others = np.arange(NUM) != 2
    np.testing.assert_array_equal(one.position[others], other.position[others])
    assert (one.position[2] == 0.5).all()
    assert (info.status[:, 2] == Status.FROZEN).all()
    assert (info.status[:, others] == Status.OK).all()
    assert (one.position[others] != start.position[others]).any(1).all()
    assert one.alive.tolist() == alive.tolist()


def test_a_particle_whose_density_breaks_dies_and_the_others_go_on():
    edge = lambda x: jnp.where(x[0] < 1.0, -0.5 * jnp.sum(x**2), jnp.nan)
    algorithm = ensemble.aldi(0.1)(edge)
    start = -jnp.abs(jax.random.normal(jax.random.key(4), (40, 2)))
    finished = run(jax.random.key(5), algorithm, algorithm.init(start), 100, on_failure="ignore")
    state = finished.state
    assert 0 < (~state.alive).sum() < 20
    assert jnp.isfinite(state.position).all()
    assert jnp.isfinite(state.score).all()
    assert finished.failures.count[Status.NONFINITE_LOG_DENSITY] == (~state.alive).sum()


def test_without_derivatives_a_linear_model_gives_the_same_moves():
    rng = np.random.default_rng(2)
    design, y = rng.normal(size=(3, 2)).astype("f4"), rng.normal(size=3).astype("f4")
    noise = np.array([[0.5, 0.1, 0], [0.1, 0.4, 0], [0, 0, 0.3]], np.float32)
    prior = lambda x: -0.5 * jnp.sum(x**2)

    def posterior(x):
        residual = design @ x - y
        return prior(x) - 0.5 * residual @ jnp.asarray(np.linalg.inv(noise)) @ residual

    start = rng.normal(size=(NUM, 2)).astype(np.float32)
    options = dict(step_size=0.1, is_adaptive=True)
    free = ensemble.kalman_aldi(lambda x: design @ x, y, noise, **options)(prior)
    (one, info), (other, info_other) = (
        steps(algorithm, start) for algorithm in (ensemble.aldi(**options)(posterior), free)
    )
    np.testing.assert_allclose(one.position, other.position, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.log_density, other.log_density, rtol=1e-4)
    np.testing.assert_allclose(info.step_size, info_other.step_size, rtol=1e-4)
    # The adaptive step, by hand from the definition.
    scores = np.asarray(jax.vmap(jax.grad(posterior))(start), np.float64)
    push = scores @ (start - start.mean(0)).T / NUM
    np.testing.assert_allclose(info.step_size[0], 0.1 / (1 + np.linalg.norm(push)), rtol=1e-5)


def test_ensembles_that_are_too_small_or_broken():
    algorithm = ensemble.aldi()(gaussian)
    assert algorithm.init(jnp.eye(4, 2)).position.shape == (4, 2)
    with pytest.raises(ValueError, match="3 particles of 2 coordinates; ALDI needs more than 3"):
        algorithm.init(jnp.eye(3, 2))
    with pytest.raises(ValueError, match="5 particles of 3 coordinates.*at least 6"):
        ensemble.stretch()(lambda x: -jnp.sum(x**2)).init(jnp.eye(5, 3))
    for sampler in SAMPLERS.values():
        with pytest.raises(ValueError, match=r"log_density at the start.*\[3\] is nan"):
            sampler(lambda x: jnp.log(x[0])).init(jnp.ones((6, 2)).at[3, 0].set(-1.0))
    with pytest.raises(ValueError, match="noise_covariance.*positive definite"):
        ensemble.kalman_aldi(jnp.exp, jnp.ones(2), -jnp.eye(2))
    algorithm = ensemble.kalman_aldi(lambda x: jnp.ones(3), jnp.ones(2), jnp.eye(2))(gaussian)
    with pytest.raises(ValueError, match=r"forward must return shape \(2,\).*\(3,\)"):
        algorithm.init(jnp.eye(4, 2))
