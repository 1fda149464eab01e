"""Mirrored SVGD and mirror descent: the official sums, reductions, moments, symmetry, death."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from shoal.sampling import stein
from shoal.sampling.core import kernels, mirror
from shoal.sampling.stein import _kernel_rows

pytestmark = pytest.mark.quick_compiler

NUM, DIM, H, TRUNCATION, JITTER = 7, 4, 0.7, 0.9, 1e-5
SGD = optax.sgd(1.0)
SLOPE = np.array([1.5, -0.4, 2.0, 0.7])
LOW, HIGH = -1.0, np.array([1.0, 2.0, 1.5, 3.0])
rng = np.random.default_rng(3)
INSIDE = rng.uniform(-0.9, 0.9, (NUM, DIM))
SETS = {
    "orthant": (mirror.orthant(), rng.exponential(size=(NUM, DIM))),
    "box": (mirror.box(LOW, HIGH), INSIDE),
    "simplex": (mirror.simplex(), rng.dirichlet(np.ones(DIM), NUM)),
    "ball": (mirror.ball(2.0), INSIDE),
    "product": (
        mirror.product([(mirror.orthant(), 1), (mirror.simplex(), 3)]),
        np.concatenate([rng.exponential(size=(NUM, 1)), rng.dirichlet(np.ones(3), NUM)], 1),
    ),
}


def log_density(x):
    return jnp.sum(SLOPE.astype(x.dtype) * jnp.log(x + 3))


def geometry(name, x):
    """Return H⁻¹ ``(n, k, k)``, its divergence D ``(n, k)`` and what restricts gradients."""
    eye = np.eye(DIM)
    if name == "orthant":
        return x[:, :, None] * eye, np.ones_like(x), eye
    if name == "box":
        width = (x - LOW) * (HIGH - x) / (HIGH - LOW)
        return width[:, :, None] * eye, (LOW + HIGH - 2 * x) / (HIGH - LOW), eye
    if name == "ball":
        unit = x / 2
        depth = np.sqrt(1 - (unit**2).sum(1))[:, None]
        inverse = 2 * depth[:, :, None] * (eye - unit[:, :, None] * unit[:, None])
        return inverse, -(DIM + 2) * depth * unit, eye
    if name == "product":
        # The simplex with its last coordinate left out, beside one positive number.
        theta, keep = x[:, :3], np.array([[1.0, 0, 0, 0], [0, 1, 0, -1], [0, 0, 1, -1]])
        inverse = theta[:, :, None] * np.eye(3)
        inverse[:, 1:, 1:] -= theta[:, 1:, None] * theta[:, None, 1:]
        return inverse, np.concatenate([np.ones((NUM, 1)), 1 - 3 * theta[:, 1:]], 1), keep
    theta = x[:, :-1]
    inverse = theta[:, :, None] * np.eye(DIM - 1) - theta[:, :, None] * theta[:, None]
    return inverse, 1 - DIM * theta, np.concatenate([np.eye(DIM - 1), -np.ones((DIM - 1, 1))], 1)


def official(name, x):
    """Return the directions of SVMD, those with md=True, and of MSVGD: every array in full."""
    inverse, divergence, keep = geometry(name, x)
    hessian = np.linalg.inv(inverse)
    score = (SLOPE / (x + 3)) @ keep.T
    difference = x[:, None] - x
    base = 1 + (difference**2).sum(-1) / H
    gram = base**-0.5
    slopes = (-(base**-1.5)[:, :, None] * difference / H) @ keep.T  # of k(θ_l, θ_p) in θ_l

    values, vectors = np.linalg.eigh(gram + JITTER * np.eye(NUM))
    values, vectors = values[::-1] / NUM, vectors[:, ::-1]
    rank = int((np.cumsum(values / values.sum()) < TRUNCATION).sum()) + 1
    assert 1 < rank < NUM
    root, u = np.sqrt(values[:rank]), np.sqrt(NUM) * vectors[:, :rank]
    slope_u = np.einsum("lpa,pr->lra", slopes, u) / (NUM * values[:rank, None])
    half = np.einsum("ir,r,tr->it", u, root, u)
    slope_half = np.einsum("tr,r,lra->tla", u, root, slope_u)  # of k^½(θ_t, θ_l) in θ_l
    terms = [
        np.einsum("it,tab,tl,lbc,lc->ia", half, hessian, half, inverse, score),
        np.einsum("it,tab,tlc,lbc->ia", half, hessian, slope_half, inverse),
        np.einsum("it,tab,tl,lb->ia", half, hessian, half, divergence),
    ]
    svmd = sum(terms) / NUM**2
    own = np.diagonal(half)
    extra = [
        np.einsum("lia,l->ia", slope_half.swapaxes(0, 1), own),
        np.einsum("il,lla->ia", half, slope_half),
        -np.einsum("il,l,lab,lb->ia", half, own, hessian, divergence),
    ]
    dual_score = np.einsum("lab,lb->la", inverse, score) + divergence
    msvgd = gram @ dual_score + np.einsum("lab,lib->ia", inverse, slopes)
    return svmd, svmd + sum(extra) / NUM**2, msvgd / NUM


def moves(points, *samplers):
    """Return what one step of each sampler adds to the dual points, from one program."""
    algorithms = [sampler(log_density) for sampler in samplers]

    @jax.jit
    def run(points):
        states = [algorithm.init(points) for algorithm in algorithms]
        step = lambda algorithm, state: algorithm.step(jax.random.key(0), state)[0]
        ends = [step(*pair) for pair in zip(algorithms, states, strict=True)]
        place = lambda state: state.position if state.dual is None else state.dual
        return [place(end) - place(start) for start, end in zip(states, ends, strict=True)]

    return [np.asarray(move) for move in run(jnp.asarray(points))]


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(algorithm, points, num, alive=None):
    """Return the last state and the infos of a run, all of it one program."""
    state = algorithm.init(points)
    if alive is not None:
        score = jnp.where(alive[:, None], state.score, jnp.nan)
        state = state._replace(alive=alive, score=score)
    keys = jax.random.split(jax.random.key(0), num)
    return jax.lax.scan(lambda state, key: algorithm.step(key, state), state, keys)


def assert_close(actual, wanted, tolerance=1e-12):
    error = np.max(np.abs(actual - wanted)) / np.max(np.abs(wanted))
    assert error < tolerance, f"relative error {error:.1e}"


@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("x64")
def test_one_step_is_the_sum_over_all_pairs(name):
    chosen, points = SETS[name]
    own = lambda x, y: 1 / jnp.sqrt(1 + jnp.sum((x - y) ** 2))
    svmd = lambda **options: stein.svmd(
        chosen, None, SGD, bandwidth=H, truncation=TRUNCATION, jitter=JITTER, **options
    )
    samplers = [svmd(), stein.msvgd(chosen, None, SGD, bandwidth=H)]
    if name == "simplex":
        # The kernel as a user's own function too.
        samplers += [svmd(md=True), stein.msvgd(chosen, own, SGD, bandwidth=H)]
    with pytest.MonkeyPatch.context() as patch:
        # Where each particle's product is formed, three rows at once.
        patch.setattr(_kernel_rows, "_BLOCK", 3 * NUM * DIM)
        found = moves(points, *samplers)
    descent, extended, plain = official(name, points)
    for actual, exact in zip(found, (descent, plain, extended, plain), strict=False):
        assert_close(actual, exact)


@pytest.mark.usefixtures("x64")
def test_without_a_mirror_both_are_svgd():
    kernel = kernels.RBF(1.0) + 0.1 * kernels.Linear()
    plain, mirrored, descent = moves(
        INSIDE,
        stein.svgd(kernel, SGD, bandwidth=H),
        stein.msvgd(None, kernel, SGD, bandwidth=H),
        stein.svmd(None, kernel, SGD, bandwidth=H, truncation=1.0, jitter=0.0),
    )
    assert_close(mirrored, plain)
    assert_close(descent, plain, 1e-9)


@pytest.mark.usefixtures("x64")
def test_one_particle_follows_mirror_descent_if_asked_to():
    chosen, points = SETS["simplex"]
    inverse, divergence, keep = geometry("simplex", points[:1])
    gradient = (SLOPE / (points[:1] + 3)) @ keep.T
    sampler = lambda md: stein.svmd(chosen, None, SGD, jitter=0.0, md=md)
    default, exact = moves(points[:1], sampler(False), sampler(True))
    assert_close(exact, gradient)
    assert_close(default, gradient + divergence @ np.linalg.inv(inverse[0]))


@pytest.mark.usefixtures("x64")
def test_the_kernel_of_dual_points_is_svgd_of_numpyros_unconstrained_density():
    beta = dist.Beta(2.0, 3.0)
    transform = dist.transforms.SigmoidTransform()

    def unconstrained(u):
        x = transform(u)
        return jnp.sum(beta.log_prob(x) + transform.log_abs_det_jacobian(u, x))

    start = jnp.asarray(rng.uniform(0.1, 0.9, (9, 2)))
    inside = stein.msvgd(mirror.box(0.0, 1.0), None, SGD, kernel_space="dual")
    algorithm = inside(lambda x: jnp.sum(beta.log_prob(x)))
    end, info = run(algorithm, start, 3)
    algorithm = stein.svgd(None, SGD)(unconstrained)
    wanted, other = run(algorithm, transform.inv(start), 3)
    np.testing.assert_allclose(end.position, transform(wanted.position), rtol=1e-10)
    np.testing.assert_allclose(info.bandwidth, other.bandwidth, rtol=1e-10)


def test_moments_of_a_gamma_law():
    start = jax.random.uniform(jax.random.key(1), (50, 1), minval=0.5)
    # Parameters 3 and 1: mean 3 and variance 3. At rest these ensembles have 2.99 and 2.83, and
    # 2.94 and 2.53.
    for sampler, error in ((stein.msvgd, 0.25), (stein.svmd, 0.55)):
        algorithm = sampler(mirror.orthant())(lambda x: jnp.sum(2 * jnp.log(x) - x))
        state, info = run(algorithm, start, 300)
        np.testing.assert_allclose(state.position.mean(), 3.0, atol=0.1)
        np.testing.assert_allclose(state.position.var(), 3.0, atol=error)
        assert not np.any(info.status)


@pytest.mark.usefixtures("x64")
def test_names_of_particles_and_of_probabilities_do_not_matter_to_mirror_descent():
    points = jnp.asarray(SETS["simplex"][1])
    rows, columns = np.array([3, 1, 0, 2, 6, 5, 4]), np.array([3, 0, 1, 2])
    concentration = np.array([0.5, 2.0, 3.0, 1.5])
    sampler = stein.svmd(mirror.simplex(), None, optax.sgd(0.1))
    target = lambda power: lambda p: jnp.sum((power - 1) * jnp.log(p))
    plain, _ = run(sampler(target(concentration)), points, 1)
    named, _ = run(sampler(target(concentration[columns])), points[rows][:, columns], 1)
    wanted = plain.position[rows][:, columns]
    np.testing.assert_allclose(named.position, wanted, rtol=1e-10)


@pytest.mark.parametrize("name", ["msvgd", "svmd"])
@pytest.mark.usefixtures("x64")
def test_the_dead_have_no_influence(name):
    points = jnp.asarray(SETS["simplex"][1])
    # With so large a jitter, an eigenvalue of the dead would shift the cut by one.
    options = {"truncation": 0.85, "jitter": 2.0} if name == "svmd" else {}
    sampler = getattr(stein, name)(mirror.simplex(), None, SGD, bandwidth=H, **options)
    algorithm = sampler(log_density)
    alive = np.arange(NUM) != 2
    end, info = run(algorithm, points, 1, jnp.asarray(alive))
    few, _ = run(algorithm, points[alive], 1)
    np.testing.assert_allclose(end.position[alive], few.position, rtol=1e-10)
    np.testing.assert_array_equal(end.position[2], points[2])
    assert np.all((info.status[0] == 0) == alive)


def test_particles_at_the_boundary_move_by_numbers_that_have_squares():
    points = np.array([[1e-36, 0.4, 0.6], [0.3, 1e-30, 0.7], [0.5, 0.2, 0.3]], np.float32)
    points = np.concatenate([points, points[:, ::-1]], 1)
    halves = mirror.product([(mirror.simplex(), 3), (mirror.orthant(), 3)])
    target = lambda x: jnp.sum(-0.9 * jnp.log(x)) - jnp.sum(x)
    algorithm = stein.svmd(halves, None, optax.rmsprop(0.1))(target)
    state, info = run(algorithm, jnp.asarray(points), 5)
    assert state.alive.all()
    assert np.all(np.isfinite(info.direction_norm))
    # Squares beyond the largest number would leave them where they are.
    assert np.all(np.abs(np.log(state.position) - np.log(points)).max(0) > 0.01)
