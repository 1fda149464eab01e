"""NumPyro models on their sites' own spaces: the same law, whatever the coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.contrib.control_flow import scan

from shoal.inference import Target
from shoal.inference._mirrored_target import mirrored_target

pytestmark = pytest.mark.quick_compiler
KEY = jax.random.key(3)


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
    numpyro.sample("step", dist.Uniform(low, 1.0))
    return carry + part, None


BOUNDS = (np.array([-1.0, 0.5], np.float32), np.array([1.0, 2.0], np.float32))
MIRRORED = {"z_rates", "shares", "chance", "window", "tail", "angle", "part"}


def test_the_dual_density_is_that_of_the_unconstrained_space():
    target = Target.from_numpyro(everything, BOUNDS)
    seen = mirrored_target(target)
    assert set(seen.mirrored) == MIRRORED

    @jax.jit
    def run(seen, position):
        primal = seen.to_primal(position)
        flat, unravel = ravel_pytree(primal)
        dual = seen.mirror.to_dual(flat)
        dual_density = seen.log_density(primal) + seen.mirror.log_det_dual_hessian(dual)
        again = unravel(seen.mirror.to_primal(dual))
        return primal, again, dual, dual_density, seen.constrain(primal)

    position = jax.vmap(target.init)(jax.random.split(KEY, 1))
    position = jax.tree.map(lambda leaf: leaf[0], position)
    primal, again, dual, dual_density, values = run(seen, position)
    assert dual.shape == (seen.dim,) == (target.dim,)
    for name, value in target.constrain(position).items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, err_msg=name)
    back = seen.to_unconstrained(primal)
    for name, value in position.items():
        np.testing.assert_allclose(again[name], primal[name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(back[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        if name not in MIRRORED:
            np.testing.assert_array_equal(primal[name], value)
            np.testing.assert_array_equal(back[name], value)
    # Exp and sigmoid are NumPyro's; both maps of a simplex have the volume of its coordinates.
    stick = dist.biject_to(dist.constraints.simplex)
    shares = position["shares"]
    theirs = jnp.sum(stick.log_abs_det_jacobian(shares, stick(shares)))
    ours = jnp.sum(jnp.log(values["shares"]))
    expected = target.log_density(position) - theirs + ours
    np.testing.assert_allclose(dual_density, expected, rtol=1e-5)
