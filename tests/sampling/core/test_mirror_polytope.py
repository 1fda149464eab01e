"""The polytope's Newton solve against closed forms, far out, and its derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.sampling.core import mirror

pytestmark = pytest.mark.quick_compiler
SQUARE = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])


def test_an_interval_has_a_closed_form_at_all_distances():
    # 1 / (1 - θ) - 1 / (1 + θ) = η.
    interval = mirror.polytope(np.array([[1.0], [-1.0]]), np.ones(2))
    dual = np.array([-1e5, -300.0, -1.0, 0.0, 1e-3, 2.0, 1e4])
    root = np.sqrt(1 + dual**2)
    gap = (1 + 1 / (root + np.abs(dual))) / (1 + root)  # 1 - |θ|
    log_det = -np.log(1 / gap**2 + 1 / (2 - gap) ** 2)
    run = jax.jit(lambda eta: (interval.to_primal(eta), interval.log_det_dual_hessian(eta)))
    primal, ours = run(jnp.asarray(dual[:, None], jnp.float32))
    np.testing.assert_allclose(primal[:, 0], dual / (1 + root), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(ours, log_det, rtol=1e-6)
    interval.check(primal)


@pytest.mark.usefixtures("x64")
def test_the_solve_converges_far_out_and_has_all_its_derivatives():
    rng = np.random.default_rng(0)
    num_dims = 3
    normals = np.vstack([rng.normal(size=(12, num_dims)), np.eye(num_dims), -np.eye(num_dims)])
    bounds = normals @ rng.normal(size=num_dims) + rng.uniform(0.1, 2, len(normals))
    chosen = mirror.polytope(normals, bounds)
    duals = np.array([[1.0], [1e2], [1e4]]) * rng.normal(size=(3, num_dims))
    shift = rng.normal(size=num_dims)

    @jax.jit
    def run(duals):
        def moved(eps):
            """Move the set, and scale the rows of its inequalities."""
            scale = jnp.exp(eps * jnp.arange(len(normals)))
            arrays = {
                "normals": scale[:, None] * normals,
                "bounds": scale * (bounds + eps * normals @ shift),
            }
            return dataclasses.replace(chosen, **arrays).to_primal(duals[1])

        back = chosen.to_dual(chosen.to_primal(duals))
        pushed = jax.jvp(moved, (0.0,), (1.0,))[1]
        pulled = jax.jacrev(chosen.to_primal)(duals[0])
        columns = jax.vmap(chosen.inverse_hessian_product, (None, 0))
        inverse = columns(chosen.to_primal(duals[0]), jnp.eye(num_dims))
        curvature = jax.hessian(chosen.log_det_dual_hessian)(duals[0])
        slope = jax.jacfwd(lambda eta: chosen.divergence(chosen.to_primal(eta)))(duals[0])
        return back, pushed, (pulled, inverse), (curvature, slope)

    back, pushed, *pairs = run(duals)
    np.testing.assert_allclose(back, duals, rtol=1e-7)
    np.testing.assert_allclose(pushed, shift, rtol=1e-9)
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("normals", "bounds", "message"),
    [
        (SQUARE, [1.0, -2.0, 1.0, 1.0], "c leaves no room.*radius -0.5"),
        (SQUARE, [1e3, -1e3, 1.0, 1.0], "c leaves no room"),
        (SQUARE[:3], [1.0, 1.0, 1.0], "A must bound"),
        (SQUARE[:2], [1.0, 1.0], "A must bound"),
        (np.vstack([SQUARE[:3], 0 * SQUARE[:1]]), np.ones(4), r"rows of A.*positive.*\[3\] is 0"),
        (SQUARE, np.ones(3), r"c must have shape \(4,\).*\(3,\)"),
        (SQUARE[0], np.ones(1), r"A must have shape \(p, d\), got \(2,\)"),
    ],
    ids=["empty", "flat", "open", "strip", "zero row", "short", "row"],
)
def test_impossible_polytopes_are_refused(normals, bounds, message):
    with pytest.raises(ValueError, match=message):
        mirror.polytope(normals, bounds)


def test_a_traced_polytope_is_refused():
    with pytest.raises(TypeError, match="c must not be traced"):
        jax.eval_shape(lambda c: mirror.polytope(SQUARE, c), jnp.ones(4))
