"""Products of mirror maps, and maps that are special cases of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to, constraints

from shoal.sampling.core import mirror

pytestmark = pytest.mark.quick_compiler
PARTS = [
    (mirror.orthant(), 2),
    (mirror.simplex(), 3, 2),
    (mirror.box(0.0, np.array([1.0, 4.0])), 2),
    (mirror.product([(mirror.ball(), 2), (mirror.simplex(), 2)]), 4),
]


@pytest.mark.usefixtures("x64")
def test_blocks_are_those_of_their_maps():
    chosen = mirror.product(PARTS)
    duals = np.random.default_rng(0).normal(size=(3, 11))

    @jax.jit
    def run(duals):
        primal = chosen.to_primal(duals)
        key = jax.random.key(0)
        jacobian = jax.vmap(jax.jacfwd(chosen.to_primal))(duals)
        covector = jnp.sin(3 * primal)
        simplexes = mirror.simplex().to_primal(duals[:, 2:6].reshape(3, 2, 2))
        product = chosen.inverse_hessian_product(primal, covector)
        noise = [
            one.hessian_noise(one_key, theta)
            for one, one_key, theta in zip(
                (PARTS[0][0], PARTS[2][0]),
                jax.random.split(key, 4)[::2],
                (primal[:, None, :2], primal[:, None, 8:10]),
                strict=True,
            )
        ]
        return {
            "simplexes": (primal[:, 2:8], simplexes.reshape(3, 6)),
            "to_dual": (chosen.to_dual(primal), duals),
            "product": (product, jnp.einsum("nmk,nm->nk", jacobian, covector)),
            "Hessian": (chosen.hessian_product(primal, product), chosen.along(covector)),
            "divergence": (
                chosen.divergence(primal),
                jax.grad(lambda eta: jnp.sum(chosen.log_det_dual_hessian(eta)))(duals),
            ),
            "log det": (
                chosen.log_det_dual_hessian(duals),
                sum(
                    one.log_det_dual_hessian(duals[:, at])
                    for one, at in (
                        (PARTS[0][0], slice(0, 2)),
                        (mirror.simplex(), slice(2, 4)),
                        (mirror.simplex(), slice(4, 6)),
                        (PARTS[2][0], slice(6, 8)),
                        (mirror.ball(), slice(8, 10)),
                        (mirror.simplex(), slice(10, 11)),
                    )
                ),
            ),
            "noise": (
                chosen.hessian_noise(key, primal)[:, [0, 1, 6, 7]],
                jnp.concatenate(noise, -1)[:, 0],
            ),
        }

    for what, (ours, expected) in run(duals).items():
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12, err_msg=what)
    assert chosen.dual_size(14) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((3, -0.1), r"part 1 of position.*positive \(in the simplex.*\[0, 1\]"),
        ((9, 4.5), r"part 2 of position.*inside of the box.*\[0, 1\] is 4.5"),
        ((0, np.zeros(2)), r"position.*\(15,\).*product has 14 coordinates"),
    ],
)
def test_points_outside_are_refused(change, message):
    point = np.array([1.0, 2, 0.2, 0.3, 0.5, 0.2, 0.3, 0.5, 0.5, 2, 0.3, 0.2, 0.4, 0.6], np.float32)
    mirror.product(PARTS).check(jnp.asarray(point))
    index, value = change
    changed = np.concatenate([point[:index], np.atleast_1d(value), point[index + 1 :]])
    with pytest.raises(ValueError, match=message):
        mirror.product(PARTS).check(jnp.asarray(changed, jnp.float32))


def test_a_box_is_the_logit_map_of_numpyro_and_the_cube_of_the_paper():
    dual = jnp.linspace(-12.0, 12.0, 9)[:, None]
    unit, cube = mirror.box(0.0, 1.0), mirror.box(-1.0, 1.0)
    sigmoid = biject_to(constraints.unit_interval)

    @jax.jit
    def run(dual):
        theta, wide = sigmoid(dual), cube.to_primal(dual)
        return [
            (unit.to_primal(dual), theta),
            (unit.log_det_dual_hessian(dual), sigmoid.log_abs_det_jacobian(dual, theta)[:, 0]),
            (wide, jnp.tanh(dual / 2)),
            (cube.to_dual(wide), jnp.log1p(wide) - jnp.log1p(-wide)),
            (cube.inverse_hessian_product(wide, jnp.ones_like(wide)), (1 - wide) * (1 + wide) / 2),
            (cube.divergence(wide), -wide),
        ]

    for ours, theirs in run(dual):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.usual_compiler
def test_a_half_space_along_an_axis_is_an_orthant_in_it_however_near_the_plane():
    half = mirror.half_space(np.array([0.0, 3.0]))
    both = mirror.product([(mirror.euclidean(), 1), (mirror.orthant(), 1)])
    dual = jnp.array([[7.0, 3.0], [-2e4, -80.0]])

    @jax.jit
    def run(dual):
        return [
            (
                one.to_primal(dual),
                one.to_dual(one.to_primal(dual)),
                one.log_det_dual_hessian(dual),
                one.inverse_hessian_product(one.to_primal(dual), jnp.ones_like(dual)),
                one.hessian_product(one.to_primal(dual), jnp.ones_like(dual)),
            )
            for one in (half, both)
        ]

    for ours, expected in zip(*run(dual), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
