"""The four samplers against their exact update rules and stationary laws.

Every metric of every sampler but scalar ones: ``test_laws.py``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from shoal.sampling import langevin
from shoal.sampling.core import random
from shoal.sampling.core.algorithm import Status

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
PRECISION = np.array([[2.0, 0.6], [0.6, 1.0]])
CENTRE = np.array([1.0, -2.0])
SAMPLERS = {
    "ula": langevin.ula,
    "mala": langevin.mala,
    "baoab": langevin.baoab,
    "obabo": langevin.obabo,
}
METRICS = {
    "identity": None,
    "scalar": 0.7,
    "diagonal": np.array([0.5, 1.5]),
    "dense": np.array([[0.6, -0.3], [-0.3, 1.2]]),
}


def log_density(x):
    offset = x - jnp.asarray(CENTRE, x.dtype)
    return -0.5 * offset @ jnp.asarray(PRECISION, x.dtype) @ offset


def _dense(metric):
    return (
        np.eye(2)
        if metric is None
        else np.diag(np.broadcast_to(metric, 2))
        if np.ndim(metric) < 2
        else metric
    )


def _one_step_moments(sampler, position, momentum=None, num=100_000):
    algorithm = sampler(log_density)

    @jax.jit
    def run(position, momentum):
        state = algorithm.init(position, jax.random.key(0))
        if momentum is not None:
            state = state._replace(momentum=momentum)
        keys = random.particle_keys(jax.random.key(1), jnp.arange(num))
        new, _ = jax.vmap(lambda key: algorithm.step(key, state))(keys)
        return [new.position] if momentum is None else [new.position, new.momentum]

    draws = np.hstack(run(position, momentum)).astype(np.float64)
    return draws.mean(0), np.cov(draws.T), num


def _assert_moments(measured, mean, cov):
    """Each entry is within 5.2 standard errors (2e-7 a statistic), plus float32 rounding."""
    sample_mean, sample_cov, num = measured
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(sample_mean - mean) < 5.2 * sd / np.sqrt(num) + 1e-5).all()
    cov_error = np.sqrt((cov**2 + np.outer(sd, sd) ** 2) / num)
    assert (np.abs(sample_cov - cov) < 5.2 * cov_error + 1e-5).all()


@pytest.mark.parametrize("metric", ["scalar"])
def test_ula_transition_has_the_exact_mean_and_covariance(metric):
    h, matrix = 0.3, _dense(METRICS[metric])
    x = np.array([0.5, 0.5])
    mean = x - h * matrix @ PRECISION @ (x - CENTRE)
    measured = _one_step_moments(langevin.ula(h, METRICS[metric]), jnp.asarray(x))
    _assert_moments(measured, mean, 2 * h * matrix)


@pytest.mark.parametrize(
    ("word", "metric"), [("baoab", "scalar"), ("obabo", "scalar"), ("obabo", "dense")]
)
def test_kinetic_transition_is_the_product_of_its_exact_maps(word, metric):
    h, friction, factor = 0.5, 1.3, scipy.linalg.cholesky(_dense(METRICS[metric]), lower=True)
    x, w = np.array([0.5, 0.5]), np.array([1.0, -0.4])
    # Affine maps of (x - centre, w), with the covariance that O adds on the way.
    state, cov, eye, zero = (
        np.concatenate([x - CENTRE, w]),
        np.zeros((4, 4)),
        np.eye(2),
        np.zeros((2, 2)),
    )
    for letter in word:
        t = h / word.count(letter)
        if letter == "a":
            matrix = np.block([[eye, t * factor], [zero, eye]])
        elif letter == "b":
            matrix = np.block([[eye, zero], [-t * factor.T @ PRECISION, eye]])
        else:
            matrix = np.block([[eye, zero], [zero, np.exp(-friction * t) * eye]])
        state, cov = matrix @ state, matrix @ cov @ matrix.T
        if letter == "o":
            cov[2:, 2:] += (1 - np.exp(-2 * friction * t)) * eye
    sampler = SAMPLERS[word](h, friction, METRICS[metric])
    measured = _one_step_moments(sampler, jnp.asarray(x), jnp.asarray(w))
    _assert_moments(measured, state + np.concatenate([CENTRE, [0, 0]]), cov)


def _run(sampler, num_chains, num_steps):
    """Positions after steps from the centre."""
    algorithm = sampler(log_density)

    @jax.jit
    def run(start):
        keys_of = lambda key: random.particle_keys(key, jnp.arange(num_chains))

        def step(states, t):
            keys = keys_of(random.step_key(jax.random.key(1), t))
            return jax.vmap(algorithm.step)(keys, states)[0], None

        states = jax.vmap(algorithm.init, (None, 0))(start, keys_of(jax.random.key(0)))
        return jax.lax.scan(step, states, jnp.arange(num_steps))[0].position

    return run(np.float32(CENTRE))


def _stationary(name, h):
    """Exact stationary covariance of the position in the eigenbasis of the precision."""
    eigenvalues, basis = np.linalg.eigh(PRECISION)
    variance = {
        "ula": 1 / (eigenvalues * (1 - h * eigenvalues / 2)),
        "mala": 1 / eigenvalues,
        "baoab": 1 / eigenvalues,
        "obabo": 1 / (eigenvalues * (1 - h**2 * eigenvalues / 4)),
    }[name]
    return (basis * variance) @ basis.T


@pytest.mark.parametrize(
    ("name", "h"), [("ula", 0.4), ("mala", 0.6), ("baoab", 0.9), ("obabo", 0.9)]
)
def test_stationary_law_on_a_gaussian_is_the_exact_one(name, h):
    num = 20_000
    draws = np.asarray(_run(SAMPLERS[name](step_size=h), num, 60), np.float64)
    # 60 steps forget the start to below 1e-3 of a standard deviation for every row.
    _assert_moments((draws.mean(0), np.cov(draws.T), num), CENTRE, _stationary(name, h))


@pytest.mark.parametrize("metric", METRICS)
def test_mala_accepts_with_the_metropolis_hastings_probability(metric):
    """Against the textbook ratio of Gaussian proposal densities, in NumPy at double precision."""
    h, matrix = 0.3, _dense(METRICS[metric])
    quartic = lambda x: -jnp.sum(x**4) / 4 - x[0] * x[1]
    algorithm = langevin.mala(h, METRICS[metric])(quartic)
    x = np.array([0.3, -1.1])

    @jax.jit
    def run(x):
        keys = jax.random.split(jax.random.key(3), 200)
        state = algorithm.init(x)
        return jax.vmap(lambda key: algorithm.step(key, state))(keys)

    new, info = jax.tree.map(np.asarray, run(np.float32(x)))
    rows = np.flatnonzero(info.is_accepted)  # there the proposal is the new position

    value = lambda x: -np.sum(x**4) / 4 - x[0] * x[1]
    score = lambda x: -(x**3) - x[::-1]

    def log_q(start, end):
        r = end - start - h * matrix @ score(start)
        return -r @ np.linalg.solve(matrix, r) / (4 * h)

    assert 20 < len(rows) < 200
    for row in rows:
        y = np.asarray(new.position[row], np.float64)
        expected = np.exp(min(0, value(y) - value(x) + log_q(y, x) - log_q(x, y)))
        np.testing.assert_allclose(info.acceptance_rate[row], expected, rtol=2e-5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_and_structure_of_the_position_survive(name, dtype):
    with jax.enable_x64(True):
        position = {"a": jnp.ones((2, 2), dtype), "b": jnp.zeros((), dtype)}
        density = lambda p: -0.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2)
        algorithm = SAMPLERS[name](step_size=0.1)(density)
        state = jax.eval_shape(algorithm.init, position, jax.random.key(0))
        new, info = jax.eval_shape(algorithm.step, jax.random.key(1), state)
        shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        assert shapes(new) == shapes(state)
        assert new.position["a"].dtype == dtype
        assert info.status.dtype == jnp.int8


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_is_differentiable_in_position_and_step_size(name):
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def moved(position, h):
        algorithm = SAMPLERS[name](step_size=h)(log_density)
        state = algorithm.init(position, jax.random.key(0))
        return jnp.sum(algorithm.step(jax.random.key(4), state)[0].position)

    at = lambda x: moved(np.array([x, -1.5], np.float32), 0.2)
    _, gradients = at(0.4)
    assert all(np.isfinite(g).all() for g in gradients)
    step = 1e-3
    numeric = (at(0.4 + step)[0] - at(0.4 - step)[0]) / (2 * step)
    np.testing.assert_allclose(gradients[0][0], numeric, rtol=2e-2)


@functools.cache
def _path_to_the_edge(name):
    """300 steps in the half plane of positive x, with any log density beyond it."""

    @jax.jit
    def run(beyond):
        density = lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), beyond)
        algorithm = SAMPLERS[name](step_size=0.5)(density)

        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (state.position[0], info.status, info.is_accepted)

        state = algorithm.init(jnp.array([0.1, 0.0]), jax.random.key(0))
        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))

    return run


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("beyond", "status"),
    [
        (np.nan, Status.NONFINITE_LOG_DENSITY),
        (np.inf, Status.NONFINITE_LOG_DENSITY),
        (-np.inf, Status.OUTSIDE_SUPPORT),
    ],
)
def test_points_without_a_finite_density_are_never_entered(name, beyond, status):
    state, seen = _path_to_the_edge(name)(beyond)
    path, codes, accepted = map(np.asarray, seen)
    assert (path > 0).all()
    assert (codes == status).sum() > 10
    assert not accepted[codes != Status.OK].any()
    assert len(np.unique(path)) > 50
    assert np.isfinite(state.log_density)


def test_a_gradient_that_is_not_finite_is_reported_as_such():
    @jax.custom_jvp
    def density(x):
        return -0.5 * jnp.sum(x**2)

    @density.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return density(x), jnp.where(x[0] > 0.5, jnp.nan, 1.0) * -x @ dx

    algorithm = langevin.mala(step_size=0.5)(density)

    @jax.jit
    def run(start):
        keys = jax.random.split(jax.random.key(1), 200)
        return jax.lax.scan(lambda s, k: algorithm.step(k, s), algorithm.init(start), keys)[1]

    infos = jax.tree.map(np.asarray, run(np.zeros(2, np.float32)))
    assert (infos.status == Status.NONFINITE_GRADIENT).any()
    assert not infos.is_accepted[infos.status != Status.OK].any()


@pytest.mark.parametrize("word", ["obabo", "baoab"])
def test_kinetic_energy_error_is_that_of_the_deterministic_maps(word):
    """Without friction OBABO is leapfrog: its error is the change of the Hamiltonian."""
    algorithm = SAMPLERS[word](step_size=0.8, friction=0.0)(log_density)
    energy = lambda s: 0.5 * s.momentum @ s.momentum - s.log_density

    @jax.jit
    def run(start):
        state = algorithm.init(start, jax.random.key(0))
        new, info = algorithm.step(jax.random.key(1), state)
        return info, energy(new) - energy(state)

    info, change = run(np.array([2.0, 1.0], np.float32))
    np.testing.assert_allclose(info.energy_error, change, rtol=1e-4, atol=1e-5)
    assert abs(float(info.energy_error)) > 1e-2


def test_obabo_without_friction_is_leapfrog_and_reversible():
    algorithm = langevin.obabo(step_size=0.3, friction=0.0)(log_density)

    @jax.jit
    def run(start):
        state = algorithm.init(start, jax.random.key(0))
        new, _ = algorithm.step(jax.random.key(1), state)
        back, _ = algorithm.step(jax.random.key(2), new._replace(momentum=-new.momentum))
        return state, back

    state, back = run(np.array([2.0, 1.0], np.float32))
    np.testing.assert_allclose(back.position, state.position, atol=1e-6)
    np.testing.assert_allclose(-back.momentum, state.momentum, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step_size": 0.0}, ValueError, "step_size.*positive.*0.0"),
        ({"step_size": -0.1}, ValueError, "step_size.*-0.1"),
        ({"step_size": float("nan")}, ValueError, "step_size.*nan"),
        ({"step_size": "big"}, TypeError, "step_size.*'big'"),
        ({"metric": -1.0}, ValueError, "metric.*positive"),
        (
            {"metric": np.array([[1.0, 2.0], [2.0, 1.0]])},
            ValueError,
            "positive definite",
        ),
        ({"metric": np.array([[1.0, 0.5], [0.0, 1.0]])}, ValueError, "symmetric"),
        ({"metric": np.ones((2, 3))}, ValueError, r"\(2, 3\)"),
    ],
)
def test_impossible_hyperparameters_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        SAMPLERS[name](**options)


def test_a_metric_of_the_wrong_size_is_refused_at_the_start():
    with pytest.raises(ValueError, match=r"shape \(3,\).*2 coordinates"):
        langevin.mala(0.1, np.ones(3))(log_density).init(jnp.zeros(2))


def test_negative_friction_and_a_missing_key_are_refused():
    with pytest.raises(ValueError, match="friction.*-1"):
        langevin.baoab(0.1, friction=-1.0)
    with pytest.raises(ValueError, match="key is None"):
        langevin.baoab(0.1)(log_density).init(jnp.zeros(2))
