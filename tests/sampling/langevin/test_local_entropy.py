"""Local entropy: exact gradients on a quadratic and by quadrature, limits, and what it prefers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shoal.sampling.langevin.local_entropy import local_entropy

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
KEY = jax.random.key(0)
HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
START = np.array([1.0, -2.0], np.float32)


def slope(x):
    return jnp.asarray(HESSIAN) @ x


def exact(gamma):
    """The gradient γ A (A + γ I)⁻¹ x of the local entropy of xᵀAx/2."""
    return gamma * HESSIAN @ np.linalg.solve(HESSIAN + gamma * np.eye(2), START)


def estimate(key=KEY, params=START, **settings):
    transform = local_entropy(key, grad_fn=slope, **settings)
    return jax.jit(transform.update)(slope(params), transform.init(params), params)[0]


@pytest.mark.parametrize(("gamma", "step"), [(0.3, 0.6), (3.0, 0.05), (50.0, 1.0)])
def test_quadratic_at_zero_temperature(gamma, step):
    """Exact at any step size; γη = 50 would throw an explicit inner step out."""
    found = estimate(num_steps=400, inner_step_size=step, scope=gamma, temperature=0.0)
    np.testing.assert_allclose(found, exact(gamma), rtol=1e-4)


def test_steep_scope_and_no_steps_are_the_plain_gradient():
    steep = estimate(num_steps=5, scope=1e6, temperature=0.0)
    np.testing.assert_allclose(steep, slope(START), rtol=1e-5)
    np.testing.assert_array_equal(estimate(num_steps=0), slope(START))


def test_one_step_moves_by_the_gradient_it_was_given():
    found = estimate(num_steps=1, inner_step_size=0.2, scope=0.5, temperature=0.0)
    np.testing.assert_allclose(found, -np.expm1(-0.1) * slope(START), rtol=1e-6)


def z_noisy_mean(key):
    """The mean over keys on the quadratic, and the spread of one step, which is known."""
    keys = jax.random.split(key, 4000)
    many = lambda **settings: np.asarray(
        jax.jit(jax.vmap(functools.partial(estimate, **settings)))(keys), np.float64
    )
    found = many(num_steps=40, inner_step_size=0.5, scope=0.8, averaging=0.9, temperature=0.5)
    # The mean of the average: what the noiseless loop gives.
    quiet = estimate(num_steps=40, inner_step_size=0.5, scope=0.8, averaging=0.9, temperature=0.0)
    means = (found.mean(0) - quiet) / (found.std(0) / np.sqrt(len(found)))
    single = many(num_steps=1, inner_step_size=0.5, scope=0.8, temperature=0.5)
    variance = 0.8 * 0.5 * -np.expm1(-0.8)
    spreads = (single.var(0) / variance - 1) / np.sqrt(2 / len(single))
    return np.concatenate([means, spreads])


def test_noise_has_mean_zero_and_the_temperature_it_should():
    assert np.abs(z_noisy_mean(jax.random.key(1))).max() < 5.2


# Two minima of depth zero at -1 and 1, the second four times as wide.
def wells(x):
    return jnp.minimum(16 * (x + 1) ** 2, (x - 1) ** 2)


def gibbs_gradient(x, gamma, temperature):
    grid = np.linspace(-8, 8, 20_001)
    energy = np.minimum(16 * (grid + 1) ** 2, (grid - 1) ** 2) + gamma * (grid - x) ** 2 / 2
    weights = np.exp(-(energy - energy.min()) / temperature)
    return gamma * (x - weights @ grid / weights.sum())


def test_the_estimate_is_the_mean_of_the_local_gibbs_law():
    gamma, temperature, starts = 1.0, 2.0, jnp.array([-1.0, -0.5, 0.4])
    gradient = jax.grad(wells)

    @jax.jit
    @jax.vmap
    def estimates(key, x):
        transform = local_entropy(key, 8000, 0.005, gamma, 0.9998, temperature, gradient)
        return transform.update(gradient(x), transform.init(x), x)[0]

    for start in starts:
        found = estimates(jax.random.split(KEY, 200), jnp.full(200, start))
        error = float(jnp.std(found)) / np.sqrt(200)
        print(found.mean(), error, gibbs_gradient(float(start), gamma, temperature))
        # Besides the noise, a bias of the order of the step size.
        assert abs(found.mean() - gibbs_gradient(float(start), gamma, temperature)) < (
            5.2 * error + 0.03
        )


def test_it_leaves_the_narrow_minimum_for_the_wide_one():
    """In a chain with momentum, under jit and vmap, with gradients that are noisy besides."""
    optimizer = optax.chain(
        local_entropy(KEY, 40, 0.03, scope=0.5, averaging=0.9, temperature=1.0),
        optax.sgd(0.5, momentum=0.5),
    )
    noisy = lambda x, batch: jax.grad(wells)(x) + batch

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def run(key, plain):
        x = jnp.array(-1.0)
        state = optimizer.init(x)
        first = state[0]._replace(key=key)

        def body(carry, step):
            x, state = carry
            batches = 0.3 * jax.random.normal(jax.random.fold_in(key, step), (40,))
            gradient = noisy(x, batches[0])
            updates, new = optimizer.update(gradient, state, x, grad_fn=noisy, batches=batches[1:])
            descent = x - 0.01 * gradient
            return (jnp.where(plain, descent, x + updates), new), x

        (x, state), _ = jax.lax.scan(body, (x, (first, *state[1:])), jnp.arange(200))
        return x

    keys = jax.random.split(jax.random.key(2), 50)
    assert (run(keys, True) < -0.5).all()
    ends = run(keys, False)
    print(jnp.sort(ends))
    assert np.mean(ends > 0) > 0.9


def test_scoping_follows_its_schedule():
    schedule = optax.exponential_decay(0.5, 1, 2.0)
    transform = local_entropy(KEY, 400, 0.2, scope=schedule, temperature=0.0, grad_fn=slope)
    state = transform.init(START)
    for gamma in (0.5, 1.0):
        found, state = transform.update(slope(START), state, START)
        np.testing.assert_allclose(found, exact(gamma), rtol=1e-4)
    assert state.num_updates == 2


def test_updates_have_noise_of_their_own():
    transform = local_entropy(KEY, 3, temperature=1.0, grad_fn=slope)
    first, state = transform.update(slope(START), transform.init(START), START)
    second, _ = transform.update(slope(START), state, START)
    assert np.abs(first - second).min() > 1e-4


def test_what_update_needs():
    transform = local_entropy(KEY, 3)
    state = transform.init(START)
    with pytest.raises(ValueError, match="params is None"):
        transform.update(START, state, grad_fn=slope)
    with pytest.raises(ValueError, match="grad_fn is None"):
        transform.update(START, state, START)
    with pytest.raises(ValueError, match=r"batches\['x'\] must have num_steps - 1 = 2 rows"):
        transform.update(START, state, START, grad_fn=slope, batches={"x": jnp.ones((3, 2))})
