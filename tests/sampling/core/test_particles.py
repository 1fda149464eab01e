"""Ensembles as matrices, dead particles, log-weights and resampling, against hand-worked cases."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import kernels, pairwise, particles
from shoal.sampling.core.algorithm import Status

pytestmark = pytest.mark.quick_compiler


def test_matrix_and_back_is_the_identity():
    ensemble = {"a": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(4.0), "c": jnp.ones((4, 2, 2))}
    matrix, from_matrix = particles.to_matrix(ensemble)
    assert matrix.shape == (4, 8)
    back = from_matrix(matrix)
    jax.tree.map(np.testing.assert_array_equal, back, ensemble)
    np.testing.assert_array_equal(matrix[2], [6, 7, 8, 2, 1, 1, 1, 1])


def test_matrix_of_other_length_maps_back():
    _, from_matrix = particles.to_matrix({"a": jnp.zeros((4, 3))})
    assert from_matrix(jnp.ones((9, 3)))["a"].shape == (9, 3)


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({}, "no array"),
        ({"a": jnp.zeros((4, 2)), "b": jnp.zeros(3)}, r"'b'.*\(3,\)"),
        ({"a": jnp.zeros(())}, "leading axis"),
    ],
)
def test_impossible_ensembles_are_refused(ensemble, message):
    with pytest.raises(ValueError, match=message):
        particles.to_matrix(ensemble)


def test_a_particle_with_any_number_not_finite_stays_and_dies():
    old = {"a": jnp.zeros((5, 2)), "b": jnp.arange(5.0)}
    new = {"a": jnp.ones((5, 2)).at[1, 1].set(jnp.nan), "b": old["b"] + 1}
    new["b"] = new["b"].at[2].set(-jnp.inf)
    alive = jnp.array([True, True, True, False, True])
    kept, still, status = jax.jit(particles.keep_finite)(old, new, alive)
    np.testing.assert_array_equal(kept["a"][:, 0], [1, 0, 0, 0, 1])
    np.testing.assert_array_equal(kept["b"], [1, 1, 2, 3, 5])
    np.testing.assert_array_equal(still, [True, False, False, False, True])
    died, dead = Status.NONFINITE_GRADIENT, Status.FROZEN
    np.testing.assert_array_equal(status, [Status.OK, died, died, dead, Status.OK])
    assert status.dtype == jnp.int8
    again, still_later, later = particles.keep_finite(kept, new, still)
    jax.tree.map(np.testing.assert_array_equal, again, kept)
    np.testing.assert_array_equal(still_later, still)
    np.testing.assert_array_equal(later, [0, dead, dead, dead, 0])


def test_keeping_finite_maps_and_differentiates():
    alive = jnp.array([True, True, False])
    new = jnp.array([[1.0, jnp.nan, 3.0], [jnp.inf, 1.0, 1.0]])
    kept, still, _ = jax.vmap(particles.keep_finite, (None, 0, None))(jnp.zeros(3), new, alive)
    np.testing.assert_array_equal(kept, [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(still, [[True, False, False], [False, True, False]])
    total = lambda old, new: jnp.sum(particles.keep_finite(old, new, alive)[0] ** 2)
    to_old, to_new = jax.grad(total, (0, 1))(jnp.full(3, 2.0), new[0])
    np.testing.assert_array_equal(to_new, [2, 0, 0])
    np.testing.assert_array_equal(to_old, [0, 4, 4])


@pytest.mark.parametrize(
    ("new", "alive", "error", "message"),
    [
        (jnp.zeros(3), jnp.ones(3), TypeError, "alive must be an array of dtype bool, got float32"),
        (jnp.zeros(3), [True] * 3, TypeError, "alive must be an array of dtype bool, got list"),
        (jnp.zeros(3), jnp.ones(2, bool), ValueError, r"alive must have shape \(n,\).*got \(2,\)"),
        (jnp.zeros((3, 1)), jnp.ones(3, bool), ValueError, "new must have the shapes of old"),
    ],
)
def test_impossible_masks_are_refused(new, alive, error, message):
    with pytest.raises(error, match=message):
        particles.keep_finite(jnp.zeros(3), new, alive)


def direction(x: Any, score: Any, alive: Any) -> jax.Array:
    """Kernel sums as a method with an ensemble writes them; see `particles`."""
    x = particles.park_dead(x, alive)
    v = jnp.where(alive[:, None], score, 0)
    return pairwise.kernel_matvec_plus_grad_sum(
        kernels.RBF(2.0), x, x, v, alive.astype(x.dtype), block_size=16
    ).total


@pytest.mark.parametrize("junk", [7.0, 1e30, np.nan])
def test_sums_over_pairs_are_those_of_the_living_alone(junk: float) -> None:
    rng = np.random.default_rng(0)
    x, score = (rng.normal(size=(50, 3)).astype(np.float32) for _ in range(2))
    alive = rng.random(50) > 0.3
    wanted = direction(*map(jnp.asarray, (x[alive], score[alive], np.ones(alive.sum(), bool))))
    x[~alive], score[~alive] = junk, np.nan
    found = direction(*map(jnp.asarray, (x, score, alive)))
    np.testing.assert_allclose(found[alive], wanted, rtol=1e-5, atol=1e-5)
    assert np.all(np.isfinite(found))


def test_sums_over_nobody_are_zero() -> None:
    found = direction(jnp.ones((4, 2)), jnp.full((4, 2), jnp.nan), jnp.zeros(4, bool))
    np.testing.assert_array_equal(found, 0)


def test_normalisation_and_effective_size_ignore_the_scale():
    weights = np.array([0.5, 0.3, 0.2, 0.0])
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(weights) - 1000)
    np.testing.assert_allclose(
        jnp.exp(particles.normalize_log_weights(log_weights)), weights, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        particles.effective_sample_size(log_weights), 1 / (weights**2).sum(), rtol=1e-4
    )


def test_dead_weights_become_uniform_not_nan():
    dead = jnp.full((2, 5), -jnp.inf)
    np.testing.assert_allclose(jnp.exp(particles.normalize_log_weights(dead)), 0.2, rtol=1e-6)
    np.testing.assert_allclose(particles.effective_sample_size(dead), 5, rtol=1e-5)


@pytest.mark.parametrize("num", [1, 7, 1000])
def test_systematic_resampling_copies_floor_or_ceil(num):
    weights = np.array([0.05, 0.0, 0.45, 0.3, 0.2, 0.0])
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(weights))
    keys = jax.random.split(jax.random.key(0), 200)
    rows = jax.vmap(lambda k: particles.systematic_resampling(k, log_weights, num))(keys)
    assert rows.shape == (200, num)
    counts = np.stack([np.bincount(row, minlength=6) for row in np.asarray(rows)])
    assert (counts >= np.floor(num * weights - 1e-4)).all()
    assert (counts <= np.ceil(num * weights + 1e-4)).all()


def z_copies(key, num):
    """Mean numbers of copies, which are exact: a particle has one more than the floor or not."""
    weights = np.array([0.05, 0.45, 0.3, 0.2])
    keys = jax.random.split(key, 20_000)
    log_weights = jnp.log(jnp.asarray(weights))
    rows = jax.vmap(lambda k: particles.systematic_resampling(k, log_weights, num))(keys)
    copies = np.stack([(np.asarray(rows) == i).sum(1) for i in range(4)])
    fraction = num * weights % 1
    error = np.sqrt(fraction * (1 - fraction) / len(keys))
    return (copies.mean(1) - num * weights) / error


def test_systematic_resampling_is_not_biased():
    # Four statistics: a false alarm in 1e-6 of all keys.
    assert np.abs(z_copies(jax.random.key(0), 7)).max() < 5.2


def test_resampling_never_picks_a_weightless_last_particle():
    # In float32 partial sums do not end at exactly one: these at 1 - 8e-7, below three points.
    keys = jax.random.split(jax.random.key(1), 5)
    log_weights = jnp.log(jnp.arange(1.0, 201.0))
    assert int(particles.systematic_resampling(keys[0], log_weights, 2**22).max()) == 199
    log_weights = jnp.zeros(100_003).at[-1].set(-jnp.inf)
    rows = jax.vmap(lambda k: particles.systematic_resampling(k, log_weights))(keys)
    assert int(rows.max()) < 100_002
    assert int(rows.min()) == 0
