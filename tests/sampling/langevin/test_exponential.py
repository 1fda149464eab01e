"""UBU, ALIGN, ShOULD and QUICSORT: coefficients, linear maps, stationary laws and strong orders.

The linear maps here are made of the dynamics' own solutions, not of the coefficients' formulas:
matrix exponentials move what has no force or a constant one, and the weights of W, H and K are the
projections of the noise on Legendre polynomials, by quadrature.
"""

import functools
from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_lyapunov

from shoal.inference.diagnostics import linear_gaussian_test
from shoal.inference.gradients import gradient_cost
from shoal.sampling import langevin
from shoal.sampling.core.algorithm import Status
from shoal.sampling.langevin import _exponential_coefficients as coefficients, overdamped
from shoal.sampling.langevin.exponential import SCHEMES, Evaluation, Increment, Phase
from shoal.sampling.langevin.metric import as_metric

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
MEAN = np.array([1.0, -0.5])
PRECISION = np.array([[1.5, -0.6], [-0.6, 1.0]])
METRIC = np.array([[1.2, 0.7], [0.7, 0.9]])
FRICTION = 0.7


def log_density(x: jax.Array) -> jax.Array:
    centred = x - MEAN
    return -0.5 * centred @ jnp.asarray(PRECISION, x.dtype) @ centred


# ------------------------------------------------------------------------------------ coefficients
FORMULAS = {
    "glide": lambda h, c: (1 - (-c * h).exp()) / c,
    "push": lambda h, c: ((-c * h).exp() + c * h - 1) / (c * c * h),
    "area": lambda h, c: 6 * ((-c * h).exp() * (c * h + 2) + c * h - 2) / (c * c * h * c * h),
    "area_at_half": lambda h, c: (
        6 * ((-c * h / 2).exp() * (c * h + 2) + (c * h) ** 2 / 4 - 2) / (c * c * h * c * h)
    ),
    "second_area": lambda h, c: (
        60
        * ((-c * h).exp() * (c * h * (c * h + 6) + 12) - c * h * (c * h - 6) - 12)
        / (c * h * c * h * c * h * c)
    ),
}


def coefficient(name: str) -> Any:
    function = getattr(coefficients, name)
    return (lambda h, c: function(h, c, h)) if name == "push" else function


@pytest.mark.usual_compiler
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 2e-4), (np.float64, 1e-12)])
def test_coefficients_against_ninety_digits(name: str, dtype: Any, rtol: float) -> None:
    h = dtype(0.5)
    # Through the change from series to closed form at γh = 1, and far down.
    frictions = np.array([1e-9, 1e-4, 0.02, 0.21, 1.0, 1.9, 1.999, 2.001, 2.5, 8.0, 60.0], dtype)
    found = jax.vmap(coefficient(name), (None, 0))(jnp.asarray(h), jnp.asarray(frictions))
    assert found.dtype == dtype
    with localcontext() as context:
        context.prec = 90
        exact = [float(FORMULAS[name](Decimal(0.5), Decimal(float(c)))) for c in frictions]
    np.testing.assert_allclose(found, exact, rtol=rtol)


@pytest.mark.parametrize("name", FORMULAS)
def test_coefficients_and_slopes_are_finite_without_friction(name: str) -> None:
    value, slope = jax.value_and_grad(coefficient(name), 1)(0.5, 0.0)
    limits = {
        "glide": (0.5, -0.125), "push": (0.25, -1 / 24), "area": (0.5, -0.125),
        "area_at_half": (0.25, -3 / 128), "second_area": (0.0, -0.25),
    }  # fmt: skip
    np.testing.assert_allclose((value, slope), limits[name], rtol=1e-6)


# ------------------------------------------------------------------------- laws on Gaussian targets
def drift(t: float, friction: float) -> tuple[float, float, float, float]:
    """Weights of (w, constant force) in the position, then in the momentum, after a time t."""
    flow = expm(t * np.array([[0, 1, 0], [0, -friction, 1], [0, 0, 0.0]]))
    return flow[0, 1], flow[0, 2], flow[1, 1], flow[1, 2]


def projected_noise(kernel: Any, t: float, h: float) -> np.ndarray:
    """Weights of W, H and K in the integral of kernel(t - s) dB over s from 0 to t."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s, ds = (nodes + 1) * t / 2, weights * t / 2
    y = s / h
    shapes = np.array([1 + 0 * y, 12 * (1 / 2 - y), 60 * (6 * y**2 - 6 * y + 1)]) / h
    return (shapes * kernel(t - s) * ds).sum(1)


def linear_map(name: str, h: float, c: float, force: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transition of (y, w) and covariance of the noise, where the whitened force is ``force @ y``.

    A vector is a matrix: what it is made of, in terms of y, w, and the standardised W, H and K.
    """
    d = len(force)
    y, w, *areas = np.split(np.eye(5 * d), 5)
    W, H, K = (np.sqrt(2 * c * h / k) * area for k, area in zip((1, 12, 720), areas, strict=True))
    move, push, decay, kick = drift(h, c)
    free = lambda kernel, t: sum(
        k * a for k, a in zip(projected_noise(kernel, t, h), (W, H, K), strict=True)
    )
    way, left = lambda u: -np.expm1(-c * u) / c, lambda u: np.exp(-c * u)
    if name != "should":
        K = 0 * K if name != "quicsort" else K
    if name == "ubu":
        half = drift(h / 2, c)
        f = h * force @ (y + half[0] * w + free(way, h / 2))
        y, w = y + move * w + half[0] * f + free(way, h), decay * w + half[2] * f + free(left, h)
    elif name == "align":
        # A force linear in time: the part that grows from 0 to 1 over the step.
        grown = drift_of_ramp(h, c)
        g = force @ y
        y = y + move * w + push * g + free(way, h)
        w = decay * w + kick * g + grown * (force @ y - g) + free(left, h)
    elif name == "should":
        v, k = w + H + 6 * K, (W - 12 * K) / h
        half = drift(h / 2, c)
        g = force @ y
        g_half = force @ (y + half[0] * v + half[1] * (g + k))
        y = y + move * w + push * (g + 2 * g_half) / 3 + free(way, h)
        simpson = (decay * g + 4 * half[2] * g_half + force @ y) / 6
        w = decay * w + h * simpson + free(left, h)
    else:
        v, k = w + H + 6 * K, (W - 12 * K) / h
        early, late = (drift((0.5 + sign * np.sqrt(3) / 6) * h, c) for sign in (-1, 1))
        f_early = h * force @ (y + early[0] * v + early[1] * k)
        between = drift(h / 3, c)[0] * f_early
        f_late = h * force @ (y + late[0] * v + late[1] * k + between)
        y = y + move * v + push * k + (late[0] * f_early + early[0] * f_late) / 2
        w = decay * v + kick * k + (late[2] * f_early + early[2] * f_late) / 2 - H + 6 * K
    new = np.vstack([y, w])
    return new[:, : 2 * d], new[:, 2 * d :] @ new[:, 2 * d :].T


def drift_of_ramp(h: float, c: float) -> float:
    """Weight in the momentum of a force that grows from 0 to 1 in the time h."""
    rates = np.array([[-c, 1, 0], [0, 0, 1 / h], [0, 0, 0.0]])
    return expm(h * rates)[0, 2]


def package_map(name: str, cases: list[tuple[float, float, float]]) -> tuple[Any, Any]:
    """Transitions and noise factors of the package's step for one coordinate, of (h, γ, λ)."""
    rows = [*cases, *cases[:1] * (12 - len(cases))]  # of one shape, for one program
    found = compiled_map(name)(*jnp.asarray(rows).T)
    return tuple(np.asarray(part)[: len(cases)] for part in found)


@functools.cache
def compiled_map(name: str) -> Any:
    scheme, metric = SCHEMES[name], as_metric(None)

    def maps(h: jax.Array, friction: jax.Array, precision: jax.Array) -> Any:
        def step(z: jax.Array, noise: jax.Array) -> jax.Array:
            score = lambda x: (-0.5 * precision * jnp.sum(x**2), -precision * x)
            scaled = noise * jnp.sqrt(h / jnp.array([1, 12, 720]))
            increment = Increment(*scaled[: len(scheme.levy), None])
            x, w = z[:1], z[1:]
            phase = Phase(x, w, Evaluation(x, *score(x)), jnp.zeros(()))
            new, _ = scheme.step(score, metric, friction, h, increment, phase)
            return jnp.concatenate([new.position, new.momentum])

        return jax.jacobian(step, (0, 1))(jnp.zeros(2), jnp.zeros(3))

    return jax.jit(jax.vmap(maps))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEMES)
def test_stationary_covariance_on_a_gaussian_is_the_exact_one(name: str) -> None:
    cases = [(h, c, 2.0) for h in (0.02, 0.3, 0.8, 1.3) for c in (0.1, 1.0, 5.0)]
    for (h, c, precision), a, b in zip(cases, *package_map(name, cases), strict=True):
        expected, covariance = linear_map(name, h, c, np.array([[-precision]]))
        np.testing.assert_allclose(a, expected, atol=1e-12)
        np.testing.assert_allclose(b @ b.T, covariance, atol=1e-12)
        stationary = solve_discrete_lyapunov(a, b @ b.T)
        exact = solve_discrete_lyapunov(expected, covariance)
        np.testing.assert_allclose(stationary, exact, rtol=1e-9, atol=1e-9)
        bias = np.diag(stationary) * [precision, 1] - 1
        r = h**2 * precision
        if h == 0.02 and c <= 1:  # what the documentation says of small steps
            leading = {"ubu": (-r / 6, r / 12), "align": (r / 6, -r / 12)}.get(name, (0, 0))
            np.testing.assert_allclose(bias, leading, atol=r * (0.01 if name in "ubu" else 0.02))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "limit"), [("ubu", 2.0), ("align", 2.0), ("should", 6**0.5), ("quicsort", 2.4987)]
)
def test_stability_limits_without_friction(name: str, limit: float) -> None:
    cases = [(r * limit / np.sqrt(2.0), 0.0, 2.0) for r in (0.1, 0.5, 0.999, 1.001)]
    radius = np.abs(np.linalg.eigvals(package_map(name, cases)[0])).max(1)
    assert (radius[:3] < 1 + 1e-9).all()
    assert radius[3] > 1.0001


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "defect"),
    [("ubu", -1 / 720), ("align", -1 / 720), ("should", 0), ("quicsort", 1 / 360)],
)
def test_free_momentum_has_the_documented_variance(name: str, defect: float) -> None:
    a, b = package_map(name, [(0.1, 1.0, 0.0), (0.5, 1.0, 0.0)])
    variance = np.sum(b[:, 1] ** 2, -1) / (1 - a[:, 1, 1] ** 2)
    np.testing.assert_allclose((variance - 1)[0], defect * 0.1**4, rtol=0.01, atol=2e-11)
    if name == "should":
        np.testing.assert_allclose((variance - 1)[1], -(0.5**6) / 100800, rtol=0.04)


@functools.cache
def algorithm(name: str) -> Any:
    return getattr(langevin, name)(0.8, FRICTION, METRIC)(log_density)


def z_law(key: jax.Array, name: str) -> np.ndarray:
    """Statistics of three steps of the sampler from its stationary law, with a dense metric."""
    ell, made = np.linalg.cholesky(METRIC), algorithm(name)
    transition, noise = linear_map(name, 0.8, FRICTION, -ell.T @ PRECISION @ ell)
    # From whitened to plain positions.
    plain, back = np.eye(4), np.eye(4)
    plain[:2, :2], back[:2, :2] = ell, np.linalg.inv(ell)

    def start(key: jax.Array, z: jax.Array) -> Any:
        return made.init(z[:2], key)._replace(momentum=z[2:])

    result = linear_gaussian_test(
        key, made, np.concatenate([MEAN, np.zeros(2)]), plain @ transition @ back,
        plain @ noise @ plain.T, num_particles=40_000, start=start,
        observe=lambda state: (state.position, state.momentum),
    )  # fmt: skip
    print(f"{name}: {result}")
    assert not result.num_nonfinite
    return result.z


@pytest.mark.parametrize("name", SCHEMES)
def test_the_law_is_the_known_one(name: str) -> None:
    assert np.abs(z_law(jax.random.key(3), name)).max() < 5.2


# ------------------------------------------------------------------------------------ strong orders
NUM_FINE, TIME = 256, 1.0


def well(x: jax.Array) -> jax.Array:
    """Log density, far from Gaussian and smooth, with a bounded curvature."""
    return -jnp.sum(jnp.sqrt(1 + x**2)) - 0.5 * jnp.cos(2 * x[0] + x[1])


def brownian_levels(num_paths: int) -> dict[int, np.ndarray]:
    """W, H and K of every step of size TIME / n, shape (NUM_FINE, 3, paths, 2), by n.

    Drawn at the finest level and put together by Chen's relation; past n steps they are zero.
    """
    h = TIME / NUM_FINE
    scales = np.sqrt(h / np.array([1, 12, 720]))[:, None, None]
    fine = np.random.default_rng(0).normal(size=(NUM_FINE, 3, num_paths, 2)) * scales
    levels = {NUM_FINE: fine}
    while len(fine) > 8:
        (w1, h1, k1), (w2, h2, k2) = fine[::2].swapaxes(0, 1), fine[1::2].swapaxes(0, 1)
        area = (h1 + h2) / 2 + (w1 - w2) / 4
        fine = np.stack([w1 + w2, area, (k1 + k2) / 4 + (h1 - h2) / 8], 1)
        levels[len(fine)] = fine
    pad = lambda a: np.concatenate([a, np.zeros((NUM_FINE - len(a), *a.shape[1:]))])
    return {n: pad(a) for n, a in levels.items()}


def kinetic_run(name: str) -> Any:
    scheme, metric, evaluate = SCHEMES[name], as_metric(0.8), jax.value_and_grad(well)

    def path(h: jax.Array, increments: jax.Array, num_steps: jax.Array) -> jax.Array:
        def step(i: jax.Array, phase: Phase) -> Phase:
            increment = Increment(*increments[i, : len(scheme.levy)])
            return scheme.step(evaluate, metric, jnp.asarray(1.5), h, increment, phase)[0]

        x = jnp.array([0.5, -0.3])
        phase = Phase(x, 0.5 * x, Evaluation(x, *evaluate(x)), jnp.zeros(()))
        return jax.lax.fori_loop(0, num_steps, step, phase).position

    return path


def overdamped_run(h: jax.Array, increments: jax.Array, num_steps: jax.Array) -> jax.Array:
    """ULA with a given path: its normal vectors are W / √h."""
    made = langevin.ula(0.1, 0.8).replace(step_size=h)(well)

    def step(i: jax.Array, state: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            noise = increments[i, 0] / jnp.sqrt(h)
            patch.setattr(overdamped.jax.random, "normal", lambda *_: noise)
            return made.step(jax.random.key(0), state)[0]

    state = made.init(jnp.array([0.5, -0.3]))
    return jax.lax.fori_loop(0, num_steps, step, state).position


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "order"), [("ula", 1), ("ubu", 2), ("align", 2), ("should", 3), ("quicsort", 3)]
)
def test_strong_order_by_slope_with_common_noise(name: str, order: int) -> None:
    path = overdamped_run if name == "ula" else kinetic_run(name)
    run = jax.jit(jax.vmap(path, (None, 2, None)))
    levels = brownian_levels(64)
    ends = {n: np.asarray(run(jnp.asarray(TIME / n), levels[n], n)) for n in (8, 16, 32, NUM_FINE)}
    # The reference has an error too: of order 1, an eighth of that with 32 steps.
    numbers = [8, 16, 32]
    errors = [np.sqrt(np.mean((ends[n] - ends[NUM_FINE]) ** 2)) for n in numbers]
    slope = np.polyfit(np.log(numbers), np.log(errors), 1)[0]
    print(f"{name}: errors {errors}, order {-slope:.2f}")
    assert abs(-slope - order) < 0.25


# -------------------------------------------------------------------------------------- as samplers
@pytest.mark.parametrize("name", SCHEMES)
def test_gradients_states_and_dtypes(name: str) -> None:
    sampler = getattr(langevin, name)(0.1)
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            position = {"a": jnp.ones((2, 2), dtype), "b": jnp.zeros((), dtype)}
            density = lambda p: -0.5 * (jnp.sum(p["a"] ** 2) + p["b"] ** 2)
            state = sampler(density).init(position, jax.random.key(0))
            new, info = jax.eval_shape(sampler(density).step, jax.random.key(1), state)
            shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
            assert shapes(new) == shapes(state)
            assert new.position["a"].dtype == dtype
            assert info.status.dtype == jnp.int8
        assert gradient_cost(sampler, density, state) == (SCHEMES[name].num_gradients, 0)
    # No log density is claimed for a point that was not evaluated.
    assert hasattr(state, "log_density") == SCHEMES[name].fsal


# One that knows the density of its end and one that does not; both have an inner stage.
@pytest.mark.parametrize("name", ["should", "quicsort"])
def test_turns_back_where_the_density_is_not_finite(name: str) -> None:
    density = lambda x: jnp.where(x[0] > 0, well(x), -jnp.inf)
    made = getattr(langevin, name)(0.5)(density)

    @jax.jit
    def run(state: Any) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            state, info = made.step(key, state)
            return state, (state, info)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))[1]

    states, info = run(made.init(jnp.array([0.1, 0.0]), jax.random.key(0)))
    bad = np.asarray(info.status) == Status.OUTSIDE_SUPPORT
    assert 5 < bad.sum() < 200
    assert not info.is_accepted[bad].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    if SCHEMES[name].fsal:
        assert (states.position[:, 0] > 0).all()
        value, score = jax.vmap(jax.value_and_grad(well))(states.position)
        np.testing.assert_allclose(states.log_density, value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(states.score, score, rtol=1e-3, atol=1e-4)
    else:
        assert (states.evaluated.position[:, 0] > 0).all()
