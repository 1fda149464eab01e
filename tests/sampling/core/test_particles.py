"""Ensembles as matrices, log-weights and resampling, against hand-worked cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import particles


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
    # The mean number of copies is exact; each z is at most standard normal, |z| > 5.2 once in 5e6.
    fraction = num * weights - np.floor(num * weights)
    error = np.sqrt(fraction * (1 - fraction) / 200) + 1e-3
    assert (np.abs(counts.mean(0) - num * weights) < 5.2 * error).all()


def test_resampling_never_picks_a_weightless_last_particle():
    # In float32 the partial sums of many weights do not end at exactly one.
    log_weights = jnp.zeros(100_003).at[-1].set(-jnp.inf)
    keys = jax.random.split(jax.random.key(1), 5)
    rows = jax.vmap(lambda k: particles.systematic_resampling(k, log_weights))(keys)
    assert int(rows.max()) < 100_002
    assert int(rows.min()) == 0
