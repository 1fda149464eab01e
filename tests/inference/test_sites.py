"""Every constrained space is mapped exactly: Jacobian, support, inverse, integral."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.transforms import OrderedTransform

from shoal.inference import Target

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(5)


def _whole(x):
    return jnp.atleast_1d(x)


def _all_but_last(x):
    return x[:-1]


def _below(x):
    return x[jnp.tril_indices(x.shape[-1], -1)]


def _lower(x):
    return x[jnp.tril_indices(x.shape[-1])]


def _ordered():
    base = dist.Normal(jnp.zeros(3), 1.0).to_event(1)
    return dist.TransformedDistribution(base, OrderedTransform())


# Distribution, and the coordinates of a value that its density is a density of.
SITES = {
    "normal": (lambda: dist.Normal(1.0, 2.0), _whole),
    "half normal": (lambda: dist.HalfNormal(2.0), _whole),
    "gamma": (lambda: dist.Gamma(2.0, 3.0), _whole),
    "log normal": (lambda: dist.LogNormal(0.3, 0.8), _whole),
    "beta": (lambda: dist.Beta(2.0, 3.0), _whole),
    "uniform": (lambda: dist.Uniform(-2.0, 3.0), _whole),
    "truncated": (lambda: dist.TruncatedNormal(0.5, 1.0, low=0.2, high=1.5), _whole),
    "truncated below": (lambda: dist.TruncatedNormal(0.5, 1.0, low=0.2), _whole),
    "truncated above": (lambda: dist.TruncatedNormal(0.5, 1.0, high=0.7), _whole),
    "pareto": (lambda: dist.Pareto(1.5, 3.0), _whole),
    "circular": (lambda: dist.VonMises(0.5, 2.0), _whole),
    "multivariate": (
        lambda: dist.MultivariateNormal(jnp.ones(2), jnp.array([[2.0, 0.6], [0.6, 1.0]])),
        _whole,
    ),
    "simplex": (lambda: dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])), _all_but_last),
    "LKJ 2": (lambda: dist.LKJ(2, 1.5), _below),
    "LKJ 3": (lambda: dist.LKJ(3, 1.5), _below),
    "LKJ Cholesky": (lambda: dist.LKJCholesky(3, 1.5), _below),
    "Wishart": (lambda: dist.Wishart(5.0, jnp.eye(2)), _lower),
    "inverse Wishart": (lambda: dist.InverseWishart(6.0, jnp.eye(2)), _lower),
    "ordered": (_ordered, _whole),
    "zero sum": (lambda: dist.ZeroSumNormal(1.5, (3,)), _whole),
    "improper ordered": (
        lambda: dist.ImproperUniform(constraints.ordered_vector, (), (3,)),
        _whole,
    ),
    "improper positive ordered": (
        lambda: dist.ImproperUniform(constraints.positive_ordered_vector, (), (3,)),
        _whole,
    ),
    "improper unit": (lambda: dist.ImproperUniform(constraints.unit_interval, (), ()), _whole),
}
# One of each kind; drawing from LKJ takes long to compile, and its integral is tested below.
DRAWABLE = ("half normal", "beta", "truncated above", "simplex", "ordered")


def _target(name):
    make = SITES[name][0]

    def model():
        numpyro.sample("x", make())

    return Target.from_numpyro(model)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SITES)
def test_site_is_mapped_exactly(name):
    make, coordinates = SITES[name]
    target = _target(name)
    shape = target.position_shape["x"].shape
    z = jax.random.normal(KEY, (6, *shape)) * 1.5

    @jax.jit
    @jax.vmap
    def check(z):
        x = target.constrain({"x": z})["x"]
        free = lambda v: coordinates(target.constrain({"x": v.reshape(shape)})["x"])
        jacobian = jax.jacfwd(free)(z.reshape(-1))
        # With as many coordinates as numbers this is log |det J|; else the volume on the subspace.
        log_det = 0.5 * jnp.linalg.slogdet(jacobian.T @ jacobian)[1]
        exact = make().log_prob(x) + log_det
        inside = jnp.all(make().support(x))
        back = target.unconstrain({"x": x})["x"]
        return target.log_density({"x": z}), exact, inside, back

    ours, exact, inside, back = check(z)
    assert ours.dtype == jnp.float64
    np.testing.assert_allclose(ours, exact, rtol=1e-7, atol=1e-7)
    assert inside.all()
    np.testing.assert_allclose(back, z, rtol=1e-6, atol=1e-7)


def _stein_scores(log_density, z):
    """Scores of E[s_i] = 0 and E[z_i s_j] = -[i = j], which hold for draws z of the density."""
    s = jax.vmap(jax.grad(log_density))(z)
    products = z[:, :, None] * s[:, None, :] + jnp.eye(z.shape[1])
    statistics = jnp.concatenate([s, products.reshape(len(z), -1)], axis=1)
    return statistics.mean(0) / (statistics.std(0) / len(z) ** 0.5)


@functools.cache
def _compiled_scores(name):
    target = _target(name)
    shape = target.position_shape["x"].shape
    flat = lambda v: target.log_density({"x": v.reshape(shape)})

    @jax.jit
    def scores(key):
        x = SITES[name][0]().sample(key, (4_000,))
        z = jax.vmap(lambda x: target.unconstrain({"x": x})["x"])(x)
        return _stein_scores(flat, z.reshape(len(x), -1))

    return scores


@pytest.mark.usefixtures("x64")
def z_stein(key, name):
    return _compiled_scores(name)(key)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DRAWABLE)
def test_exact_draws_obey_steins_identity(name):
    # Fewer than 50 statistics at |z| < 5.2: a false alarm in 1e-5 of all choices of the key.
    assert jnp.abs(z_stein(KEY, name)).max() < 5.2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "points", "reach"),
    [
        *[(name, 1001, 40.0) for name in ("half normal", "gamma", "beta", "uniform", "pareto")],
        *[(name, 1001, 40.0) for name in ("truncated", "circular", "LKJ 2")],
        ("simplex", 201, 16.0),
        ("LKJ 3", 61, 8.0),
    ],
)
def test_density_integrates_to_one(name, points, reach):
    target = _target(name)
    shape = target.position_shape["x"].shape
    axis = jnp.linspace(-reach, reach, points)
    grid = jnp.meshgrid(*[axis] * target.dim, indexing="ij")
    z = jnp.stack(grid, axis=-1).reshape(-1, *shape)
    values = jax.jit(jax.vmap(lambda z: target.log_density({"x": z})))(z)
    # The trapezoidal rule on a smooth function that vanishes at the ends: no error to speak of.
    integral = jnp.exp(values).sum() * (2 * reach / (points - 1)) ** target.dim
    np.testing.assert_allclose(integral, 1.0, rtol=1e-4)
