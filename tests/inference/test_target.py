"""Targets as pytrees: what compiles again and what does not; what is refused, and in what words."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import Target

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(2)


def model(x, y, power=1):
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(slope * x**power, sigma), obs=y)


def _data(seed, size=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=size), rng.normal(size=size)


@pytest.fixture
def evaluate():
    """A compiled function of a target that has compiled nothing yet."""
    return jax.jit(lambda target, position: target.log_density(position))


def test_new_data_and_new_targets_compile_nothing(evaluate):
    traces = []

    def counted(x, y):
        traces.append(1)
        model(x, y)

    position = {"slope": jnp.float32(0.5), "sigma": jnp.float32(0.1)}
    values = []
    for seed in (0, 1):
        x, y = _data(seed)
        target = Target.from_numpyro(counted, (x,), {"y": y})
        assert target.dynamic_data
        before = len(traces)
        values.append(evaluate(target, position))
        assert seed == 0 or len(traces) == before
        exact = dist.Normal(0, 1).log_prob(0.5) + dist.HalfNormal(1).log_prob(np.exp(0.1)) + 0.1
        exact += dist.Normal(0.5 * x, np.exp(0.1)).log_prob(y).sum()
        np.testing.assert_allclose(values[-1], exact, rtol=1e-5)
    assert evaluate._cache_size() == 1
    assert values[0] != values[1]
    # Starts and predictions of a new target use the old programs too.
    target.init(KEY)
    before = len(traces)
    Target.from_numpyro(counted, _data(2)[:1], {"y": _data(2)[1]}).init(KEY)
    assert len(traces) - before == 1  # the look at its sites


def test_static_arguments_other_shapes_and_other_models_compile(evaluate):
    position = {"slope": jnp.float32(0.5), "sigma": jnp.float32(0.1)}
    run = lambda *args, **kwargs: evaluate(Target.from_numpyro(model, args, kwargs), position)
    first = run(*_data(0))
    assert run(*_data(0), 2) != first
    assert evaluate._cache_size() == 2
    run(*_data(0), 2.0)  # equal to 2 in Python, but another program
    assert evaluate._cache_size() == 3
    run(*_data(0), power=2)
    run(*_data(1), power=2)
    assert evaluate._cache_size() == 4
    run(*_data(0, size=7))
    assert evaluate._cache_size() == 5


def test_bound_arguments_are_data(evaluate):
    position = {"slope": jnp.float32(0.5), "sigma": jnp.float32(0.1)}
    for seed in (0, 1):
        x, y = _data(seed)
        bound = Target.from_numpyro(functools.partial(model, x), (), {"y": y})
        plain = Target.from_numpyro(model, (x,), {"y": y})
        assert evaluate(bound, position) == evaluate(plain, position)
    assert evaluate._cache_size() == 1


def grouped(group, y):
    number = int(group.max()) + 1
    with numpyro.plate("groups", number):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean[jnp.asarray(group)], 1), obs=y)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_a_model_that_looks_at_its_data_gets_constants(evaluate, kind):
    group, y = np.array([0, 1, 1, 2]), np.arange(4.0)
    target = Target.from_numpyro(grouped, (kind(group), kind(y)))
    assert not target.dynamic_data
    assert target.dim == 3
    position = {"mean": jnp.zeros(3)}
    first = evaluate(target, position)
    # The same content is the same program; other data are not.
    assert evaluate(Target.from_numpyro(grouped, (kind(group), kind(y))), position) == first
    assert evaluate._cache_size() == 1
    y[0] = 3.0
    assert evaluate(target, position) == first
    assert evaluate(Target.from_numpyro(grouped, (kind(group), kind(y))), position) != first


def test_a_target_goes_through_every_transformation():
    target = Target.from_numpyro(model, _data(0))
    positions = jax.vmap(target.init)(jax.random.split(KEY, 5))
    each = [target.log_density(jax.tree.map(lambda v, i=i: v[i], positions)) for i in range(5)]
    np.testing.assert_allclose(jax.vmap(target.log_density)(positions), each, rtol=1e-5)
    position = {name: float(value[0]) for name, value in positions.items()}
    gradient = jax.grad(target.log_density)(position)
    for name in position:
        step = lambda h, name=name: target.log_density({**position, name: position[name] + h})
        difference = (step(1e-2) - step(-1e-2)) / 2e-2
        np.testing.assert_allclose(gradient[name], difference, rtol=0.02, atol=0.02)
    by_data = jax.grad(lambda t: t.log_density(position), allow_int=True)(target)
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(by_data))


@pytest.mark.usefixtures("x64")
def test_float64():
    target = Target.from_numpyro(model, _data(0))
    position = target.init(jax.random.key(0))
    assert position["slope"].dtype == jnp.float64
    assert target.log_density(position).dtype == jnp.float64
    assert target.constrain(position)["sigma"].dtype == jnp.float64


def _discrete():
    numpyro.sample("kind", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("x", dist.Normal(0, 1))


def _subsampled():
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("rows", 10, subsample_size=3):
        numpyro.sample("y", dist.Normal(mean, 1), obs=jnp.zeros(3))


def _branches():
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(1.0 if x > 0 else 2.0, 1))


def _labels(y):
    p = numpyro.sample("p", dist.Beta(1, 1))
    numpyro.sample("y", dist.Bernoulli(p), obs=y)


MODELS = {
    "no function": ((3,), TypeError, "model must be callable, got int"),
    "discrete": ((_discrete,), ValueError, "latent site 'kind' is discrete .Categorical"),
    "no latent site": (
        (lambda: numpyro.sample("y", dist.Normal(0, 1), obs=1.0),),
        ValueError,
        "no latent site to sample; its sites are: observed .'y'",
    ),
    "subsampling": ((_subsampled,), ValueError, "plate 'rows' takes 3 of 10 at random"),
    "point mass": ((lambda: numpyro.sample("x", dist.Delta(1.0)),), ValueError, "'x' is a point"),
    "sphere": (
        (lambda: numpyro.sample("x", dist.ProjectedNormal(jnp.ones(3))),),
        ValueError,
        "'x' .ProjectedNormal. lives on .* reparametrise",
    ),
    "branch on a latent value": ((_branches,), ValueError, "_branches fails .* use jnp.where"),
    "shapes": (
        (model, (np.zeros(3), np.zeros(4))),
        ValueError,
        r"'y': values of shape \(4,\) and a distribution of shape \(3,\) do not broadcast",
    ),
    "table of rows": (
        (model, (np.zeros(3), np.zeros((3, 1)))),
        ValueError,
        r"'y': values of shape \(3, 1\) .* broadcast to \(3, 3\)",
    ),
    "failing model": ((model, (np.zeros(3), np.zeros(3), "2")), ValueError, "model fails when it"),
    "argument missing": ((model, (np.zeros(3),)), TypeError, "do not fit model.*argument: 'y'"),
    "argument unknown": ((model, (), {"z": 1}), TypeError, "do not fit model"),
    "strings": (
        (model, (np.zeros(2), np.array(["a", "b"]))),
        TypeError,
        r"model_args\[1\] has dtype <U1, which is not numeric",
    ),
    "objects": (
        (model, (np.zeros(2),), {"y": np.array([None, 1])}),
        TypeError,
        r"model_kwargs\['y'\] has dtype object",
    ),
    "masked array": (
        (model, (np.zeros(2), np.ma.masked_array([1.0, 2.0], [True, False]))),
        TypeError,
        r"model_args\[1\] is a masked array",
    ),
    "overflow": (
        (model, (np.zeros(2), np.array([1e300, 0.0]))),
        ValueError,
        r"model_args\[1\] holds 1 values of dtype float64 that do not fit float32",
    ),
    "NaN observed": (
        (model, (np.zeros(2), np.array([np.nan, 1.0]))),
        ValueError,
        r"site 'y': 1 of 2 values .* nan at \[0\]; model_args\[1\] holds 1 non-finite values",
    ),
    "labels of a coin": (
        (_labels, (np.array([1, 2, 2]),)),
        ValueError,
        r"site 'y': 2 of 3 values lie outside the support .* first is 2 at \[1\]",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_models_and_data_are_refused(name):
    arguments, error, words = MODELS[name]
    with pytest.raises(error, match=words):
        Target.from_numpyro(*arguments)


DENSITIES = {
    "vector": (lambda x: x, jnp.zeros(3), ValueError, r"scalar of shape \(\), got shape \(3,\)"),
    "integer": (lambda x: jnp.argmax(x), jnp.zeros(3), TypeError, "a float, got dtype int32"),
    "nothing": (lambda x: None, jnp.zeros(3), TypeError, "got NoneType"),
    "no function": (1.0, jnp.zeros(3), TypeError, "log_density must be callable"),
    "integers in": (jnp.sum, {"a": jnp.arange(3)}, TypeError, r"init\['a'\] must hold floats"),
    "no leaves": (jnp.sum, {}, ValueError, "init holds no array"),
    "mixed": (
        jnp.sum,
        {"a": jnp.zeros(2, jnp.float16), "b": jnp.zeros(2)},
        TypeError,
        "must share one dtype, .*float16.*float32",
    ),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_bad_log_densities_and_starts_are_refused(name):
    log_density, init, error, words = DENSITIES[name]
    with pytest.raises(error, match=words):
        Target.from_log_density(log_density, init=init)


def test_values_outside_the_support_are_refused():
    target = Target.from_numpyro(model, _data(0))
    good = {"slope": 0.0, "sigma": 1.0}
    assert target.unconstrain(good)["sigma"] == 0
    for sigma in (-1.0, 0.0, np.nan):
        with pytest.raises(ValueError, match=rf"values\['sigma'\] is {sigma}.* not inside"):
            target.unconstrain({**good, "sigma": sigma})
    with pytest.raises(ValueError, match="lack the latent sites .'sigma'"):
        target.unconstrain({"slope": 0.0})
    with pytest.raises(ValueError, match=r"names \['tau'\], but there are only"):
        target.unconstrain({**good, "tau": 1.0})
    with pytest.raises(ValueError, match=r"\['slope'\] has shape \(2,\); it must have shape \(\)"):
        target.unconstrain({**good, "slope": np.zeros(2)})
    with pytest.raises(TypeError, match="must be a dict by name"):
        target.unconstrain(jnp.zeros(2))


def test_values_are_placed_into_random_starts():
    target = Target.from_numpyro(model, _data(0))
    random = jax.vmap(target.init)(jax.random.split(KEY, 3))
    placed = target.place(random, {"sigma": np.array([1.0, 2.0, 3.0])}, 3)
    np.testing.assert_allclose(placed["sigma"], np.log([1, 2, 3]), atol=1e-6)
    np.testing.assert_array_equal(placed["slope"], random["slope"])
    assert (target.place(random, {"sigma": 1.0}, 3)["sigma"] == 0).all()
    with pytest.raises(ValueError, match=r"init\['sigma'\] of chain 1 is -2.0"):
        target.place(random, {"sigma": np.array([1.0, -2.0, 3.0])}, 3)
    with pytest.raises(ValueError, match=r"shape \(2,\); it must have shape \(\) or \(3,\)"):
        target.place(random, {"sigma": np.ones(2)}, 3)
    with pytest.raises(ValueError, match="init gives no latent site"):
        target.place(random, {}, 3)


def test_a_bad_start_is_explained():
    x, y = _data(0)
    x[:3] = np.nan
    target = Target.from_numpyro(model, (x, y))
    message = target.explain_bad_start({"slope": jnp.float32(0), "sigma": jnp.float32(0)}, 7)
    for words in ("particle 7", "density is nan", "site 'y'", "model_args[0] holds 3 non-finite"):
        assert words in message
    density = Target.from_log_density(lambda p: -jnp.sum(p["a"]) - jnp.sqrt(p["b"]))
    start = {"a": jnp.ones(2), "b": jnp.float32(0)}
    message = density.explain_bad_start(start, 0)
    assert "gradient of the log density is not finite in 'b'" in message
    assert "'b' = 0" in message
    message = density.explain_bad_start({**start, "a": jnp.array([1.0, jnp.nan])}, 0)
    assert "'a' = [ 1. nan]" in message


class Scaled(eqx.Module):
    scale: jax.Array

    def log_density(self, x):
        return -0.5 * jnp.sum((x / self.scale) ** 2)


def test_arrays_that_a_log_density_carries_are_leaves(evaluate):
    x = jnp.array([1.0, 2.0])
    for scale in (1.0, 2.0):
        bound = Scaled(jnp.asarray(scale)).log_density
        partial = functools.partial(lambda scale, x: Scaled(scale).log_density(x), np.array(scale))
        for density in (bound, partial):
            target = Target.from_log_density(density, init=x)
            assert target.dynamic_data
            assert evaluate(target, x) == -2.5 / scale**2
    assert evaluate._cache_size() == 3  # one for the method, one for each lambda
    needs_value = functools.partial(lambda n, x: -jnp.sum(x ** int(n)), np.array(2))
    target = Target.from_log_density(needs_value, init=x)
    assert not target.dynamic_data
    assert evaluate(target, x) == -5


def test_positions_of_a_log_density_by_name():
    density = lambda p: -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))
    cases = [
        (jnp.ones(3), ("position",)),
        ({"a": jnp.ones(3), "b": jnp.ones(())}, ("a", "b")),
        ({"net": {"bias": jnp.ones(3)}}, ("net.bias",)),
        ((jnp.ones(3), jnp.ones(2)), ("position.0", "position.1")),
    ]
    for position, names in cases:
        target = Target.from_log_density(density, init=lambda key, position=position: position)
        assert target.names == names
        assert target.dim == sum(leaf.size for leaf in jax.tree.leaves(position))
        back = target.unconstrain(target.constrain(target.init(KEY)))
        assert jax.tree.structure(back) == jax.tree.structure(position)
        assert target.log_likelihood({}) is target.observed_data() is None
    with pytest.raises(ValueError, match="init is missing"):
        Target.from_log_density(density).init(KEY)
