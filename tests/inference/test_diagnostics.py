"""Tests of the tests of a step: silent on correct kernels, loud on wrong ones, honest about values.

The keys are fixed. Each statistical assertion says how often it would fail over random keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_kernels import (
    autoregression,
    normal_log_density,
    normals,
    too_little_noise,
    z_of_z,
)
from scipy.stats import norm

from shoal.inference.diagnostics import (
    invariance_test,
    linear_gaussian_test,
    transition_test,
)
from shoal.sampling import langevin

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(2024)


def rotation(key: jax.Array, x: jax.Array) -> jax.Array:
    """Keeps N(0, I) and the length of every point, and turns one way round only."""
    angle = 0.3 + 0.2 * jax.random.uniform(key)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]])


def z_of_invariance_z(key: jax.Array) -> np.ndarray:
    results = [
        invariance_test(
            jax.random.fold_in(key, i),
            autoregression,
            normals,
            num_particles=1000,
            reversible=True,
            log_density=normal_log_density,
        )
        for i in range(100)
    ]
    return z_of_z(np.stack([result.z for result in results]))


class TestInvariance:
    def test_z_is_standard_normal_under_a_correct_kernel(self) -> None:
        z = z_of_invariance_z(KEY)
        # Mean and variance of 18 features: a false alarm in 7e-6 of all keys.
        assert z.shape == (36,)
        assert np.abs(z).max() < 5.2

    def test_z_is_that_of_the_paired_differences(self) -> None:
        """A known move, so that NumPy can tell every statistic."""
        x = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32) + np.array([0, 1])
        turn = np.array([[0.8, 0.7], [-0.3, 0.5]])
        end = x @ (turn @ turn).T
        move = lambda key, x: jnp.asarray(turn, x.dtype) @ x
        result = invariance_test(
            KEY, move, jnp.asarray(x), num_steps=2, reversible=True, batch_size=20
        )
        low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        u, v = ((points - middle) * 1.349 / (high - low) for points in (x, end))
        differences = {
            "x[0]": v[:, 0] - u[:, 0],
            "x[1]^2": v[:, 1] ** 2 - u[:, 1] ** 2,
            "x[0]*x[1]": v[:, 0] * v[:, 1] - u[:, 0] * u[:, 1],
            "cos x[0]": np.cos(v[:, 0]) - np.cos(u[:, 0]),
            "x[0]+x[1]>1": (v.sum(1) > 1) * 1.0 - (u.sum(1) > 1),
            "x[0]*y[1] - y[0]*x[1]": u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1],
            "x[1]^3*y[0] - y[1]^3*x[0]": u[:, 1] ** 3 * v[:, 0] - v[:, 1] ** 3 * u[:, 0],
        }
        for name, change in differences.items():
            wanted = change.mean() / (change.std(ddof=1) / np.sqrt(50))
            assert result.z[result.names.index(name)] == pytest.approx(wanted, rel=1e-3), name

    def test_p_values_are_two_sided_and_corrected(self) -> None:
        result = invariance_test(KEY, autoregression, normals, num_particles=1000)
        np.testing.assert_allclose(result.p_values, 2 * norm.sf(np.abs(result.z)), rtol=1e-9)
        assert result.p_value == min(1, result.z.size * result.p_values.min())
        worse = result._replace(z=np.array([0.3, -6.0]))
        np.testing.assert_allclose(worse.p_value, 4 * norm.sf(6), rtol=1e-9)

    def test_it_finds_too_little_noise(self) -> None:
        result = invariance_test(KEY, too_little_noise, normals, num_particles=20_000)
        assert not result.passed
        assert result.max_z > 10
        assert result.p_value < 1e-12
        assert str(result).startswith("FAILED: max |z|")
        worst = result.names[int(np.argmax(np.abs(result.z)))]
        assert worst in str(result)

    def test_only_reversibility_tells_a_rotation_from_an_autoregression(self) -> None:
        one_way = {
            reversible: invariance_test(
                KEY, rotation, normals, num_particles=20_000, reversible=reversible
            )
            for reversible in (False, True)
        }
        assert one_way[False].passed  # false alarm: 14 features, 3e-6
        assert one_way[True].max_z > 50

    def test_rounding_of_a_conserved_quantity_is_no_error(self) -> None:
        result = invariance_test(
            KEY,
            rotation,
            normals,
            num_particles=100_000,
            num_steps=20,
            features=lambda x: {"length": jnp.sum(x**2), "first": x[0]},
        )
        assert result.passed  # false alarm: 2e-7
        assert result.names == ["first", "length"]
        assert result.z[1] == 0

    def test_a_shift_of_every_particle_is_found(self) -> None:
        result = invariance_test(
            KEY, lambda key, x: x + 0.5, jnp.arange(100.0), features=lambda x: x
        )
        assert result.z[0] == np.inf
        assert not result.passed

    def test_a_kernel_that_moves_nothing_does_not_pass(self) -> None:
        result = invariance_test(KEY, lambda key, x: x, normals, num_particles=100)
        assert result.num_moved == 0
        assert not result.passed
        assert result.p_value == 0
        assert "no particle moved" in str(result)

    def test_values_that_are_not_finite_fail_and_are_counted(self) -> None:
        draws = normals(KEY, 5000)
        lost = np.asarray(draws)[:, 0] > 2

        def breaks(key: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.where((x[0] > 2) | jnp.isnan(x[0]), jnp.nan, x) + 0 * x

        result = invariance_test(KEY, breaks, draws)
        assert result.num_nonfinite == lost.sum() > 0
        assert not result.passed
        assert result.p_value == 0
        assert f"{lost.sum()} of 5000" in str(result)

    def test_a_log_density_that_is_not_finite_at_the_end_fails(self) -> None:
        leaves = invariance_test(
            KEY,
            autoregression,
            lambda key, n: jax.random.uniform(key, (n, 1)),
            num_particles=1000,
            log_density=lambda x: jnp.where((x[0] > 0) & (x[0] < 1), 0.0, -jnp.inf),
        )
        assert leaves.num_nonfinite > 100
        assert not leaves.passed

    def test_the_size_of_batches_does_not_matter(self) -> None:
        whole, parts = (
            invariance_test(KEY, autoregression, normals, num_particles=1003, batch_size=size)
            for size in (5000, 100)
        )
        np.testing.assert_allclose(whole.z, parts.z, rtol=1e-4, atol=1e-4)
        assert whole.num_moved == parts.num_moved == 1003

    def test_float64(self) -> None:
        with jax.enable_x64(True):
            result = invariance_test(
                jax.random.key(1), autoregression, normals, num_particles=2000, reversible=True
            )
            assert result.passed

    def test_many_coordinates_take_pairs_of_neighbours(self) -> None:
        draws = lambda key, n: jax.random.normal(key, (n, 30))
        result = invariance_test(KEY, autoregression, draws, num_particles=3000)
        assert len(result.names) == len(result.z) == 5 * 30 + 2 * 29
        assert result.passed  # false alarm: 4e-5
        assert "x[28]*x[29]" in result.names
        assert "x[0]*x[2]" not in result.names

    def test_trees_and_whole_numbers(self) -> None:
        def draws(key: jax.Array, n: int) -> dict[str, jax.Array]:
            coins = jax.random.bernoulli(key, 0.5, (n,)).astype(jnp.int32)
            return {"coin": coins, "point": normals(key, n)}

        def step(key: jax.Array, x: dict[str, jax.Array]) -> dict[str, jax.Array]:
            flip = jax.random.bernoulli(key).astype(jnp.int32)
            return {"coin": x["coin"] ^ flip, "point": x["point"]}

        result = invariance_test(KEY, step, draws, num_particles=5000)
        assert result.passed
        assert result.names[:3] == ["x['coin']", "x['point'][0]", "x['point'][1]"]

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"key": 0}, TypeError, "typed key"),
            ({"kernel": 3}, TypeError, "kernel must be a function"),
            ({"kernel": langevin.mala(0.1)}, TypeError, "without a log density"),
            ({"kernel": lambda key, x: (x, 0)}, TypeError, "kernel must return a state"),
            ({"draws": jnp.zeros(())}, ValueError, "leading axis"),
            ({"draws": (jnp.zeros((3, 1)), jnp.zeros((4, 1)))}, ValueError, "leading axis"),
            ({"draws": jnp.array([0.0, jnp.nan, 1.0])}, ValueError, "not finite at particle 1"),
            ({"draws": jnp.zeros(5)}, ValueError, "num_particles=100, but draws holds 5"),
            ({"draws": lambda key, n: jnp.zeros(n - 1)}, ValueError, "returned 99 points"),
            ({"num_particles": 1}, ValueError, "num_particles must be"),
            ({"num_steps": 0}, ValueError, "num_steps must be"),
            ({"batch_size": 0}, ValueError, "batch_size must be"),
            ({"features": lambda x: {}}, ValueError, "at least one number"),
        ],
    )
    def test_bad_arguments(self, change: dict[str, Any], error: type, words: str) -> None:
        arguments = {
            "key": KEY,
            "kernel": autoregression,
            "draws": normals,
            "num_particles": None if "not finite" in words or "leading" in words else 100,
        }
        with pytest.raises(error, match=words):
            invariance_test(**{**arguments, **change})


class TestTransition:
    def test_it_sees_a_wrong_friction_that_invariance_cannot(self) -> None:
        def slower(key: jax.Array, x: jax.Array) -> jax.Array:
            return 0.9 * x + np.sqrt(1 - 0.81) * jax.random.normal(key, x.shape)

        products = lambda x, y: jnp.outer(y, x)
        for kernel, is_right in ((autoregression, True), (slower, False)):
            assert invariance_test(KEY, kernel, normals, num_particles=20_000).passed
            result = transition_test(
                KEY,
                kernel,
                normals,
                products,
                0.8**3 * np.eye(2),
                num_particles=20_000,
                num_steps=3,
            )
            assert result.passed is is_right

    def test_expected_must_fit(self) -> None:
        features = lambda x, y: {"a": x * y, "b": x[0]}
        for wrong in ({"a": np.zeros(2)}, {"a": np.zeros(3), "b": 0.0}):
            with pytest.raises(ValueError, match="expected must be one number or"):
                transition_test(KEY, autoregression, normals, features, wrong, num_particles=10)
        with pytest.raises(ValueError, match="expected must be finite"):
            transition_test(KEY, autoregression, normals, features, np.nan, num_particles=10)


def z_of_linear_gaussian_z(key: jax.Array) -> np.ndarray:
    case = TestLinearGaussian
    law = case.mean, case.transition, case.noise
    results = [
        linear_gaussian_test(jax.random.fold_in(key, i), LINEAR_KERNEL, *law, num_particles=2000)
        for i in range(100)
    ]
    return z_of_z(np.stack([result.z for result in results]))


class TestLinearGaussian:
    transition = np.array([[0.7, 0.2], [-0.3, 0.6]])
    noise = np.array([[1.0, 0.4], [0.4, 0.5]])
    mean = np.array([3.0, -1.0])

    def kernel(self, key: jax.Array, x: jax.Array) -> jax.Array:
        white = jax.random.normal(key, x.shape)
        centred = jnp.asarray(self.transition, x.dtype) @ (x - self.mean)
        return self.mean + centred + jnp.asarray(np.linalg.cholesky(self.noise), x.dtype) @ white

    def test_z_is_standard_normal_under_the_right_law(self) -> None:
        z = z_of_linear_gaussian_z(KEY)
        # Mean and variance of 16 features: a false alarm in 6e-6 of all keys.
        assert z.shape == (32,)
        assert np.abs(z).max() < 5.2

    @pytest.mark.parametrize("wrong", ["mean", "transition", "noise"])
    def test_it_finds_every_wrong_part(self, wrong: str) -> None:
        parts = {"mean": self.mean, "transition": self.transition, "noise": self.noise}
        parts[wrong] = parts[wrong] * 1.05
        result = linear_gaussian_test(KEY, self.kernel, *parts.values(), num_particles=100_000)
        assert result.max_z > 8

    @pytest.mark.parametrize(("factor", "is_right"), [(1.0, True), (1.05, False)])
    def test_the_stationary_law_is_that_of_ula(self, factor: float, is_right: bool) -> None:
        """Its variance is 1 / (λ (1 - h λ / 2)), and starts drawn from that law fit."""
        h, precision = 0.7, 1.6
        algorithm = langevin.ula(h)(lambda x: -0.5 * precision * jnp.sum((x - 2) ** 2))
        spread = factor * (precision * (1 - h * precision / 2)) ** -0.5
        result = linear_gaussian_test(
            KEY,
            algorithm,
            [2.0],
            [[1 - h * precision]],
            [[2 * h]],
            num_particles=20_000,
            start=lambda key, z: algorithm.init(2 + spread * jax.random.normal(key, (1,))),
            num_steps=4,
        )
        assert result.passed is is_right

    def test_laws_that_do_not_exist(self) -> None:
        run = lambda f, q: linear_gaussian_test(KEY, self.kernel, self.mean, f, q)
        with pytest.raises(ValueError, match="spectral radius 1"):
            run(np.eye(2), self.noise)
        with pytest.raises(ValueError, match="degenerate"):
            run(self.transition * np.eye(2), np.diag([1.0, 0.0]))
        with pytest.raises(ValueError, match="shapes"):
            run(np.eye(3), self.noise)


# One function object, compiled once.
LINEAR_KERNEL = TestLinearGaussian().kernel
