"""NumPyro models on their sites' own spaces: the same law, whatever the coordinates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import scan
from numpyro.distributions import biject_to, constraints

from shoal.inference import Target
from shoal.inference._mirrored_target import mirrored_target

pytestmark = pytest.mark.quick_compiler


def everything(lows, highs):
    """Every kind of site; the names are not in the order of the model."""
    with numpyro.plate("groups", 2):
        numpyro.sample("z_rates", dist.Gamma(3.0, 1.0))
        numpyro.sample("shares", dist.Dirichlet(jnp.array([2.0, 0.5, 3.0])))
    chance = numpyro.sample("chance", dist.Beta(2.0, 5.0))
    numpyro.sample("window", dist.Uniform(lows, highs).to_event(1))
    numpyro.sample("tail", dist.TruncatedNormal(0.5, 1.0, low=lows[0]))
    numpyro.sample("moving", dist.Uniform(0.0, chance))
    numpyro.sample("real", dist.Normal(jnp.ones(2), 2.0).to_event(1))
    numpyro.sample("correlation", dist.LKJCholesky(3, 1.5))
    numpyro.sample("angle", dist.VonMises(0.5, 2.0))
    scan(_step, 0.0, jnp.array([0.1, 0.2, 0.3]))
    numpyro.deterministic("twice", 2 * chance)
    numpyro.sample("y", dist.Normal(chance, 0.5), obs=lows)


def _step(carry, low):
    part = numpyro.sample("part", dist.Exponential(1.0))
    numpyro.sample("step", dist.TruncatedNormal(0.5, 1.0, low=low))
    return carry + part, None


BOUNDS = (np.array([-1.0, 0.5], np.float32), np.array([1.0, 2.0], np.float32))
MIRRORED = {"z_rates", "shares", "chance", "window", "tail", "angle", "part"}


def test_the_dual_density_is_that_of_the_unconstrained_space():
    target = Target.from_numpyro(everything, BOUNDS)
    seen = mirrored_target(target)
    assert set(seen.mirrored) == MIRRORED
    rng = np.random.default_rng(0)
    position = {
        name: jnp.asarray(rng.normal(size=one.shape), jnp.float32)
        for name, one in target.position_shape.items()
    }

    @jax.jit
    def run(seen, position):
        primal = seen.to_primal(position)
        flat, unravel = ravel_pytree(primal)
        dual = seen.mirror.to_dual(flat)
        dual_density = seen.log_density(primal) + seen.mirror.log_det_dual_hessian(dual)
        # NumPyro's map of the simplex is another one: compare the volumes of both.
        stick, shares = biject_to(constraints.simplex), position["shares"]
        theirs = stick.log_abs_det_jacobian(shares, stick(shares))
        ours = jnp.sum(jnp.log(primal["shares"]))
        return primal, {
            "density": (dual_density, seen.target.log_density(position) + ours - jnp.sum(theirs)),
            "values": (seen.constrain(primal), seen.target.constrain(position)),
            "dual": (unravel(seen.mirror.to_primal(dual)), primal),
            "unconstrained": (seen.to_unconstrained(primal), position),
            "dim": (jnp.zeros(dual.shape), jnp.zeros(seen.dim)),
        }

    primal, pairs = run(seen, position)
    for what, (ours, expected) in pairs.items():
        check = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5, err_msg=what)
        jax.tree.map(check, ours, expected)
    for name in set(position) - MIRRORED:
        np.testing.assert_array_equal(primal[name], position[name])
    # New data of the same shapes compile nothing.
    run(mirrored_target(Target.from_numpyro(everything, (BOUNDS[0] - 1, BOUNDS[1]))), position)
    assert run._cache_size() == 1


def counts(data):
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.array([2.0, 1.0, 3.0])))
    numpyro.sample("data", dist.Multinomial(6, shares), obs=data)


def test_the_evidence_is_the_model_s():
    """Sum the dual density over a grid; the evidence of the Dirichlet law is in closed form."""
    seen = mirrored_target(Target.from_numpyro(counts, (np.array([3, 0, 3]),)))
    side = np.linspace(-9.0, 9.0, 73, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)

    @jax.jit
    def total(grid):
        primal = {"shares": seen.mirror.to_primal(grid)}
        density = jax.vmap(seen.log_density)(primal) + seen.mirror.log_det_dual_hessian(grid)
        return logsumexp(density) + 2 * np.log(0.25)

    expected = dist.DirichletMultinomial(jnp.array([2.0, 1.0, 3.0]), 6).log_prob(
        jnp.array([3, 0, 3])
    )
    np.testing.assert_allclose(total(grid), expected, atol=2e-3)


def test_what_has_no_sites_or_lies_outside_is_refused():
    with pytest.raises(TypeError, match="target must be a NumPyro model's, got LogDensityTarget"):
        mirrored_target(Target.from_log_density(lambda x: -(x**2), init=1.0))
    seen = mirrored_target(Target.from_numpyro(counts, (np.array([3, 0, 3]),)))
    with pytest.raises(ValueError, match=r"position\['shares'\] has shape \(2,\).*\(3,\)"):
        seen.log_density({"shares": jnp.ones(2)})
    with pytest.raises(ValueError, match="'shares'.*not inside the support"):
        seen.to_unconstrained({"shares": jnp.array([0.5, 0.8, -0.3])})
