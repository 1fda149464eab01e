"""Mirror maps against automatic differentiation of their potentials, and at the edge of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import mirror

# Laws and identities hold with any rounding.
pytestmark = pytest.mark.quick_compiler
BOX = (np.array([-1.0, 0.0, 2.0]), np.array([1.0, 0.5, 5.0]))
PLANE = (np.array([2.0, -1.0, 2.0]), 0.5)
SPHERE = (2.0, np.array([0.5, -1.0, 0.25]))
FACES = (
    np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0.5], [0, 0, 4], [0, 0, -1], [1, 1, 1]]),
    np.array([1.0, 1, 1, 1, 4, 1, 1.5]),
)
# Map, its potential as a function of the k free coordinates, and a point inside.
CASES = {
    "euclidean": (mirror.euclidean(), lambda t: 0.5 * t @ t, [0.3, -2.0, 1.0]),
    "orthant": (mirror.orthant(), lambda t: jnp.sum(t * jnp.log(t) - t), [0.3, 2.0, 1.0]),
    "orthant from -2": (
        mirror.orthant(-2.0),
        lambda t: jnp.sum((t + 2) * jnp.log(t + 2) - t),
        [0.3, -1.5, 1.0],
    ),
    "box": (
        mirror.box(*BOX),
        lambda t: jnp.sum(_entropy(t - BOX[0]) + _entropy(BOX[1] - t)),
        [0.3, 0.4, 2.5],
    ),
    "simplex": (
        mirror.simplex(),
        lambda t: jnp.sum(_entropy(t)) + _entropy(1 - jnp.sum(t)),
        [0.2, 0.5, 0.05, 0.25],
    ),
    "half space": (
        mirror.half_space(*PLANE),
        lambda t: _half_space_potential(t, PLANE[0] / 3, PLANE[1] / 3),
        [0.3, -0.5, 0.25],
    ),
    "ball": (
        mirror.ball(*SPHERE),
        lambda t: -jnp.sqrt(4 - jnp.sum((t - SPHERE[1]) ** 2)),
        [1.5, 0.0, 0.75],
    ),
    "polytope": (
        mirror.polytope(*FACES),
        lambda t: -jnp.sum(jnp.log(FACES[1] - FACES[0] @ t)),
        [0.5, 0.25, -0.75],
    ),
}
MAPS = sorted(CASES)


def _entropy(t):
    return t * jnp.log(t)


def _half_space_potential(t, normal, offset):
    height = normal @ t - offset
    return height * jnp.log(height) - height + 0.5 * jnp.sum((t - normal @ t * normal) ** 2)


def _full(name, free):
    return jnp.append(free, 1 - jnp.sum(free)) if name == "simplex" else free


def _case(name):
    """Return the map, its potential, the point θ and its free coordinates."""
    chosen, potential, point = CASES[name]
    point = jnp.asarray(point)
    return chosen, potential, point, point[:-1] if name == "simplex" else point


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MAPS)
def test_closed_forms_are_derivatives_of_the_potential(name):
    chosen, potential, point, free = _case(name)
    # A gradient of a function of the full point, as one of the free coordinates.
    function = lambda full: jnp.sum(jnp.sin(3 * full) * jnp.arange(1, full.size + 1))

    @jax.jit
    def pairs(point, free):
        dual = chosen.to_dual(point)
        hessian = jax.hessian(potential)(free)
        inverse = lambda t: jnp.linalg.inv(jax.hessian(potential)(t))
        divergence = jnp.einsum("abb->a", jax.jacfwd(inverse)(free))
        gradient = jax.grad(function)(point)
        reduced = jax.grad(lambda t: function(_full(name, t)))(free)
        return {
            "to_dual": (dual, jax.grad(potential)(free)),
            "to_primal": (chosen.to_primal(dual), point),
            "its Jacobian": (jax.jacfwd(chosen.to_primal)(dual)[: free.size], inverse(free)),
            "log det": (chosen.log_det_dual_hessian(dual), -jnp.linalg.slogdet(hessian)[1]),
            "divergence": (chosen.divergence(point), divergence),
            "identity": (divergence, jax.grad(chosen.log_det_dual_hessian)(dual)),
            "Hessian": (
                chosen.hessian_product(point, gradient[: free.size]),
                hessian @ gradient[: free.size],
            ),
            "along": (chosen.along(gradient), reduced),
            "product": (
                chosen.inverse_hessian_product(point, gradient),
                inverse(free) @ reduced,
            ),
        }

    for what, (ours, expected) in pairs(point, free).items():
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12, err_msg=what)


SLACKS = FACES[1] - FACES[0] @ [0.5, 0.25, -0.75]
HESSIANS = {
    "euclidean": np.eye(3),
    "orthant": np.diag([1 / 0.3, 0.5, 1.0]),
    "box": np.diag([1 / 1.3 + 1 / 0.7, 1 / 0.4 + 1 / 0.1, 1 / 0.5 + 1 / 2.5]),
    "simplex": np.diag([5.0, 2.0, 20.0]) + 4.0,
    "half space": np.eye(3) + (3 / 1.1 - 1) * np.outer(PLANE[0], PLANE[0]) / 9,
    "ball": (np.eye(3) + np.outer([2.0, 2, 1], [2.0, 2, 1]) / 7) / np.sqrt(1.75),
    "polytope": FACES[0].T @ np.diag(SLACKS**-2) @ FACES[0],
}


@pytest.mark.parametrize("name", sorted(HESSIANS))
def test_the_noise_has_the_covariance_of_the_hessian(name):
    chosen, _, point, _ = _case(name)
    num = 50_000
    points = np.broadcast_to(point, (num, point.size))
    draw = jax.jit(lambda points: chosen.hessian_noise(jax.random.key(1), points))
    draws = np.asarray(draw(points), np.float64)
    sd = np.sqrt(np.diag(HESSIANS[name]))
    # 5.2 standard errors of each of at most 9 entries: false alarm 2e-6.
    error = np.sqrt((HESSIANS[name] ** 2 + np.outer(sd, sd) ** 2) / num)
    assert (np.abs(draws.T @ draws / num - HESSIANS[name]) < 5.2 * error).all()


def _everything(chosen, dual):
    primal = chosen.to_primal(dual)
    # The covector that is along the set what (1, ..., 1) is in its coordinates.
    ones = jnp.where(jnp.arange(primal.shape[-1]) < dual.shape[-1], 1.0, 0.0)
    product = chosen.inverse_hessian_product(primal, jnp.broadcast_to(ones, primal.shape))
    return {
        "primal": primal,
        "log": jnp.log(jnp.abs(primal)),
        "dual": chosen.to_dual(primal),
        "log det": chosen.log_det_dual_hessian(dual),
        "divergence": chosen.divergence(primal),
        "product": product,
        "Hessian": chosen.hessian_product(primal, product),
        "along": chosen.along(primal),
    }


def _with(name):
    # Rounding must do no harm however it is compiled; the polytope's factorisations take long.
    return name if name == "polytope" else pytest.param(name, marks=pytest.mark.usual_compiler)


@pytest.mark.parametrize("name", [_with(name) for name in MAPS])
def test_leading_axes_are_batches_and_far_out_all_is_finite(name):
    chosen = CASES[name][0]
    sizes = np.array([[[0.5], [300.0], [1e4]]], np.float32)
    duals = sizes * np.array([1.0, -1.0, -1.0], np.float32)

    @jax.jit
    def run(duals):
        noise = chosen.hessian_noise(jax.random.key(0), chosen.to_primal(duals))
        slope = jax.grad(lambda duals: jnp.sum(chosen.log_det_dual_hessian(duals)))(duals)
        pushed = jax.jvp(chosen.to_primal, (duals,), (jnp.ones_like(duals),))[1]
        return _everything(chosen, duals), slope, pushed, noise

    values, slope, pushed, noise = run(duals)
    for what, value in {**values, "slope": slope, "pushed": pushed, "noise": noise}.items():
        assert np.isfinite(value).all(), what
        assert value.shape[:2] == (1, 3), what
    np.testing.assert_allclose(values["divergence"][:, 0], slope[:, 0], rtol=1e-4, atol=1e-6)
    free = pushed[:, 0, : duals.shape[-1]]
    np.testing.assert_allclose(values["product"][:, 0], free, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values["Hessian"][:, 0], 1, rtol=1e-4)
    for primal in values["primal"]:
        chosen.check(primal)


@pytest.mark.usual_compiler
def test_log_volumes_far_out_are_not_rounded_to_those_of_the_edge():
    maps = (mirror.simplex(), mirror.box(0.0, 1.0))
    run = jax.jit(lambda dual: jnp.stack([chosen.log_det_dual_hessian(dual) for chosen in maps]))
    expected = [-300.0 - 3 * np.log(2), -300.0 - 2 * np.log(2)]
    np.testing.assert_allclose(run(jnp.array([-300.0, 0.0])), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "point", "message"),
    [
        ("orthant", [1.0, 0.0, 2.0], r"position.*above 0.*\[1\] is 0"),
        ("half space", [1.0, 2.0, 0.0], r"position.*positive \(inside of the half-space.*-0.16"),
        ("half space", [1.0, 2.0], r"position.*\(2,\).*half-space has 3"),
        ("ball", [2.5, -1.0, 0.5], r"position.*below 1 \(inside of the ball.*1.007"),
        ("ball", [0.5, -1.0], r"position.*\(2,\).*ball has 3"),
        ("polytope", [0.5, 0.5, 0.75], r"slack.*position.*\[6\] is -0.25"),
        ("polytope", [0.5, 0.5], r"position.*\(2,\).*polytope has 3"),
        ("box", [0.0, 0.6, 3.0], r"position.*inside of the box.*\[1\] is 0.6"),
        ("box", [0.0, 0.2], r"position.*\(2,\).*box has 3"),
        ("simplex", [0.5, 0.6, -0.1], r"position.*positive.*\[2\]"),
        ("simplex", [0.5, 0.6], r"sum of position.*1 \(in"),
        ("simplex", [1.0], r"position.*at least 2.*\(1,\)"),
    ],
)
def test_points_outside_are_refused(name, point, message):
    with pytest.raises(ValueError, match=message):
        CASES[name][0].check(jnp.asarray(point))


@pytest.mark.parametrize(
    ("low", "high", "error", "message"),
    [
        (0.0, 0.0, ValueError, "low.*below high = 0"),
        (np.zeros(2), np.array([1.0, -1.0]), ValueError, r"low.*\[1\] is 0"),
        (0.0, np.inf, ValueError, "high.*finite.*inf"),
        (0.0, "one", TypeError, "high.*'one'"),
        (np.zeros((2, 2)), 1.0, ValueError, r"low.*\(2, 2\)"),
        (np.zeros(2), np.ones(3), ValueError, r"low and high.*\(2,\).*\(3,\)"),
    ],
)
def test_impossible_boxes_are_refused(low, high, error, message):
    with pytest.raises(error, match=message):
        mirror.box(low, high)
