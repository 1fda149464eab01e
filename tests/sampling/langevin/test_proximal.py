"""MYULA and proximal MALA on Laplace targets: the envelope, the biases, and exactness."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import projections
from scipy import integrate

from shoal.inference.diagnostics import invariance_test
from shoal.sampling import langevin

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
RATE = 1.5  # ψ = RATE |x|₁
CENTRE = np.array([0.8, -0.3])


def soft(x, smoothing):
    return jax.tree.map(
        lambda leaf: jnp.sign(leaf) * jnp.maximum(jnp.abs(leaf) - RATE * smoothing, 0), x
    )


def penalty(x):
    return RATE * sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(x))


def smooth(x):
    """Log density of the smooth part, N(CENTRE, 1)."""
    return -0.5 * jnp.sum((x - jnp.asarray(CENTRE, x.dtype)) ** 2)


def huber(x, smoothing):
    """Moreau envelope of RATE |x|, by hand."""
    inner = x**2 / (2 * smoothing)
    return np.where(np.abs(x) < RATE * smoothing, inner, RATE * np.abs(x) - RATE**2 * smoothing / 2)


def test_log_density_and_score_of_myula_are_those_of_the_envelope():
    algorithm = langevin.myula(soft, penalty, smoothing=0.4)(smooth)
    points = np.array([[0.1, -0.2], [2.0, -0.5], [-3.0, 0.65]], np.float32)
    states = jax.jit(jax.vmap(algorithm.init))(points)
    expected = np.sum(-0.5 * (points - CENTRE) ** 2 - huber(points, 0.4), 1)
    np.testing.assert_allclose(states.log_density, expected, rtol=1e-5)
    points, step = points.astype(np.float64), 1e-6
    slope = (huber(points + step, 0.4) - huber(points - step, 0.4)) / (2 * step)
    np.testing.assert_allclose(states.score, CENTRE - points - slope, atol=1e-4)


@functools.cache
def _stationary(smoothing, h, moment):
    """Moments of the chain in one coordinate, from its transition density on a grid."""
    grid = np.linspace(-6, 7, 521)
    slope = np.clip(grid / smoothing, -RATE, RATE)
    mean = grid - h * (grid - CENTRE[0] + slope)
    kernel = np.exp(-((grid - mean[:, None]) ** 2) / (4 * h))
    equations = (kernel / kernel.sum(1, keepdims=True)).T - np.eye(len(grid))
    equations[0] = 1
    return np.linalg.solve(equations, np.eye(len(grid))[0]) @ grid**moment


def z_myula(key):
    """First and second moment of the first coordinate after 60 steps from its centre."""
    num, smoothing, h = 40_000, 0.3, 0.1
    algorithm = langevin.myula(soft, penalty, h, smoothing)(smooth)

    @jax.jit
    def run(key):
        starts = jnp.broadcast_to(jnp.asarray(CENTRE, jnp.float32), (num, 2))

        def step(states, key):
            return jax.vmap(algorithm.step)(jax.random.split(key, num), states)[0], None

        states = jax.vmap(algorithm.init)(starts)
        return jax.lax.scan(step, states, jax.random.split(key, 60))[0].position

    x = np.asarray(run(key), np.float64)[:, 0]
    first, second = (_stationary(smoothing, h, moment) for moment in (1, 2))
    return np.array(
        [(x**k - value).mean() / (x**k).std() for k, value in ((1, first), (2, second))]
    ) * np.sqrt(num)


def test_myula_has_the_law_of_its_transition_density():
    assert np.abs(z_myula(jax.random.key(1))).max() < 5.2


def test_the_law_of_myula_tends_to_the_envelope_and_that_to_the_target():
    """The quadrature that the test above compares the sampler with, against exact moments."""

    def moment(potential):
        density = lambda x: np.exp(-0.5 * (x - CENTRE[0]) ** 2 - potential(x))
        mass = lambda f: integrate.quad(f, -8, 8, points=[-0.5, 0, 0.5], limit=200)[0]
        return mass(lambda x: x**2 * density(x)) / mass(density)

    envelope = moment(lambda x: huber(x, 0.3))
    bias = [_stationary(0.3, h, 2) - envelope for h in (0.1, 0.05, 0.025)]
    np.testing.assert_allclose(bias[:2], 2 * np.array(bias[1:]), rtol=0.2)
    target = moment(lambda x: RATE * abs(x))
    assert abs(envelope - target) > 0.02
    assert abs(moment(lambda x: huber(x, 0.01)) - target) < 0.002


def draws(key, num):
    """Exact draws of exp(-f - ψ): Laplace variables, thinned by the normal density."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    x = rng.laplace(scale=1 / RATE, size=(6 * num, 2))
    keep = np.log(rng.random(6 * num)) < -0.5 * np.sum((x - CENTRE) ** 2, 1)
    return x[keep][:num].astype(np.float32)


def z_prox_mala_law(key):
    """At about half of the proposals accepted, five steps."""
    algorithm = langevin.prox_mala(soft, penalty, 0.35, 0.6, np.array([0.8, 1.3]))(smooth)
    result = invariance_test(key, algorithm, draws(key, 40_000), reversible=True)
    print(result)
    assert 0.3 * result.num_particles < result.num_moved
    assert not result.num_nonfinite
    return result.z


def test_prox_mala_keeps_the_true_law():
    assert np.abs(z_prox_mala_law(jax.random.key(3))).max() < 5.2


def test_a_constraint_by_projection():
    """The normal law in the unit ball: `prox_mala` never leaves it, `myula` hardly."""
    ball = lambda x, smoothing: projections.projection_l2_ball(x, 1.0)
    outside = lambda x: jnp.where(jnp.sum(x**2) <= 1, 0.0, jnp.inf)

    def path(sampler):
        algorithm = sampler(lambda x: -0.5 * jnp.sum((x - 1) ** 2))

        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (jnp.sum(state.position**2) ** 0.5, info.acceptance_rate)

        keys = jax.random.split(jax.random.key(0), 2000)
        return jax.jit(lambda: jax.lax.scan(step, algorithm.init(jnp.zeros(3)), keys)[1])()

    norm, rate = path(langevin.prox_mala(ball, outside, 0.02, 0.05))
    assert norm.max() <= 1
    assert 0.2 < rate.mean() < 0.9
    norm, rate = path(langevin.myula(ball, None, 0.001, 0.002))
    assert norm.max() < 1.3
    assert rate.mean() > 0.9


def test_positions_may_be_trees_and_no_penalty_is_plain_langevin():
    position = {"a": jnp.array([1.0, -0.2]), "b": jnp.array(0.5)}
    density = lambda x: -0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(x))
    key = jax.random.key(0)

    def step(sampler):
        algorithm = sampler(density)
        return jax.jit(lambda p: algorithm.step(key, algorithm.init(p)))(position)

    state, _ = step(langevin.prox_mala(soft, penalty, 0.1))
    assert jax.tree.structure(state.position) == jax.tree.structure(position)
    for ours, plain in ((langevin.myula, langevin.ula), (langevin.prox_mala, langevin.mala)):
        jax.tree.map(
            np.testing.assert_array_equal, step(ours(step_size=0.1)), step(plain(step_size=0.1))
        )


@pytest.mark.parametrize("make", [langevin.myula, langevin.prox_mala])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prox": 3.0, "penalty": penalty}, TypeError, "prox.*float: 3.0"),
        ({"prox": soft, "penalty": "l1"}, TypeError, "penalty.*'l1'"),
        ({"penalty": penalty}, ValueError, "prox is None|prox=None"),
        ({"smoothing": 0.0}, ValueError, "smoothing.*positive.*0.0"),
    ],
)
def test_impossible_arguments_are_refused(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_prox_mala_needs_the_penalty():
    with pytest.raises(ValueError, match="prox and penalty belong together"):
        langevin.prox_mala(soft)


@pytest.mark.parametrize(
    ("prox", "psi", "error", "message"),
    [
        (lambda x, s: x[:1], penalty, ValueError, r"prox.*\(2,\)"),
        (lambda x, s: {"a": x}, penalty, ValueError, "prox"),
        (lambda x, s: x / 0.0, penalty, ValueError, "finite.*nan"),
        (soft, lambda x: jnp.abs(x), ValueError, r"penalty.*scalar.*\(2,\)"),
        (soft, lambda x: jnp.inf, ValueError, "penalty.*finite.*-inf"),
    ],
)
def test_unusable_functions_are_refused_at_the_start(prox, psi, error, message):
    with pytest.raises(error, match=message):
        langevin.myula(prox, psi)(smooth).init(jnp.zeros(2))
