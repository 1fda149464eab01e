"""Annealed SVGD: its factors step by step, where it ends, and modes far from the start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stein_targets import steps

from shoal.sampling import stein
from shoal.sampling.core import kernels

pytestmark = pytest.mark.quick_compiler


def factors(num, **options):
    """One particle with score 1 moves by γ k(0) in each step."""
    algorithm = stein.annealed_svgd(kernels.RBF(1.0), optax.sgd(1.0), **options)(jnp.sum)
    _, info = steps(algorithm, algorithm.init(jnp.zeros((1, 1))), num)
    return np.asarray(info.direction_norm)


def test_the_factors_of_every_schedule():
    ramp = (np.arange(1, 5) / 4) ** 2
    found = factors(14, num_steps=12, num_cycles=3, power=2.0)
    np.testing.assert_allclose(found, [*ramp, *ramp, *np.ones(6)], rtol=1e-5)
    # Cycles of two steps; what is left over belongs to the last.
    found = factors(8, num_steps=7, num_cycles=3, power=1.0)
    np.testing.assert_allclose(found, [0.5, 1, 0.5, 1, 1, 1, 1, 1], rtol=1e-5)
    found = factors(6, num_steps=4, schedule="hyperbolic", power=3.0)
    expected = np.tanh((1.3 * np.arange(1, 5) / 4) ** 3)
    np.testing.assert_allclose(found, [*expected, 1, 1], rtol=1e-5)
    linear = optax.linear_schedule(0.0, 1.0, 4)
    found = factors(5, num_steps=4, schedule=linear)
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1], rtol=1e-5)


def test_it_ends_where_svgd_does_and_finds_the_other_mode():
    """Variance that of SVGD, not the 1/n of a law to the n-th power; modes ten widths apart."""
    optimizer, num = optax.adam(0.2), 600
    normal = lambda x: -0.5 * jnp.sum(x**2)
    modes = lambda x: jnp.sum(jnp.logaddexp(-0.5 * (x - 5) ** 2, -0.5 * (x + 5) ** 2))
    annealed = stein.annealed_svgd(None, optimizer, num_steps=num)
    plain = stein.svgd(None, optimizer)
    start = 5 + jax.random.normal(jax.random.key(0), (30, 1))

    def ends(sampler, density):
        algorithm = sampler(density)
        return steps(algorithm, algorithm.init(start), num)[0].position

    found, expected = ends(annealed, normal), ends(plain, normal)
    np.testing.assert_allclose(found.var(), expected.var(), rtol=0.05)
    assert found.var() > 0.9
    assert (ends(plain, modes) > 0).all()
    assert 0.2 < jnp.mean(ends(annealed, modes) < 0) < 0.8


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="num_cycles must be at most num_steps=5, got 10"):
        stein.annealed_svgd(num_steps=5)
    with pytest.raises(ValueError, match=r"schedule must return a scalar.*\(2,\)"):
        factors(1, num_steps=5, num_cycles=2, schedule=lambda step: jnp.ones(2))
