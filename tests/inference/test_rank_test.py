"""Tests of the tests of ranks and in rounds: false alarms as stated, ties, wrong kernels, rounds.

The keys are fixed. Each statistical assertion says how often it would fail over random keys.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_kernels import autoregression, normal_log_density, normals, too_little_noise
from scipy.special import erfc
from scipy.stats import chisquare, kstest, norm

from shoal.inference.diagnostics import invariance_test, rank_test, sequential_test
from shoal.sampling import langevin

# Laws and identities hold however the compiler rounds.
pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(2024)


def z_ranks(key: jax.Array) -> np.ndarray:
    """p values of the rank test of a reversible kernel, as absolute values of normals."""
    result = rank_test(key, autoregression, normals, num_replicates=20_000)
    return norm.isf(result.p_values / 2)


class TestRank:
    def test_p_values_are_those_of_a_reversible_kernel(self) -> None:
        # Twelve statistics: a false alarm in 2.4e-6 of all keys.
        assert z_ranks(KEY).max() < 5.2

    def test_p_values_are_uniform_under_a_correct_kernel(self) -> None:
        """Two features of a Metropolis kernel on {0, 1, 2}, which are full of ties."""
        weights = jnp.array([0.2, 0.5, 0.3])

        def draws(key: jax.Array, n: int) -> jax.Array:
            return jax.random.choice(key, 3, (n,), p=weights)

        def metropolis(key: jax.Array, x: jax.Array) -> jax.Array:
            key_move, key_accept = jax.random.split(key)
            y = (x + jax.random.choice(key_move, jnp.array([1, 2]))) % 3
            accept = jax.random.uniform(key_accept) < weights[y] / weights[x]
            return jnp.where(accept, y, x)

        features = lambda x: {"value": x, "is zero": x == 0}
        results = [
            rank_test(
                jax.random.fold_in(KEY, i),
                metropolis,
                draws,
                num_replicates=1000,
                num_states=5,
                features=features,
            )
            for i in range(80)
        ]
        assert results[0].counts.shape == (2, 5)
        assert (results[0].counts.sum(1) == 1000).all()
        # Fails for one key in 1000 a statistic.
        for i in range(2):
            assert kstest([result.p_values[i] for result in results], "uniform").pvalue > 1e-3

    def test_ties_are_broken_evenly(self) -> None:
        """A feature that never changes has a uniform rank."""
        result = rank_test(
            KEY,
            autoregression,
            normals,
            num_replicates=8000,
            num_states=4,
            features=lambda x: {"constant": 0.0 * x[0] + 1, "moving": x[0]},
        )
        assert result.passed  # alpha 1e-6
        assert np.abs(result.counts[0] - 2000).max() < 5 * np.sqrt(8000 * 0.25 * 0.75)
        np.testing.assert_allclose(result.p_values, chisquare(result.counts, axis=1).pvalue)

    @pytest.mark.parametrize(("kind", "is_right"), [(langevin.mala, True), (langevin.ula, False)])
    def test_mala_passes_and_ula_does_not(self, kind: Any, is_right: bool) -> None:
        algorithm = kind(0.7)(normal_log_density)
        result = rank_test(KEY, algorithm, normals, num_replicates=20_000)
        assert result.passed is is_right  # alpha 1e-6
        assert str(result).startswith("passed" if is_right else "FAILED")

    def test_it_finds_a_cycle(self) -> None:
        """0 -> 1 -> 2 -> 0 keeps the uniform law, but is not its own reversal."""
        cycle = lambda key, x: (x + 1) % 3
        draws = lambda key, n: jax.random.randint(key, (n,), 0, 3)
        features = lambda x: {"is zero": x == 0, "value": x}
        arguments = dict(features=features)
        assert invariance_test(KEY, cycle, draws, num_particles=20_000, **arguments).passed
        ranks = rank_test(KEY, cycle, draws, num_replicates=20_000, num_states=3, **arguments)
        assert not ranks.passed

    def test_values_that_are_not_finite_fail(self) -> None:
        breaks = lambda key, x: jnp.where(x > 2.5, jnp.inf, x)
        draws = lambda key, n: jax.random.normal(key, (n,))
        result = rank_test(KEY, breaks, draws, num_replicates=2000)
        assert 0 < result.num_nonfinite < 100
        assert not result.passed
        assert "not finite" in str(result)

    def test_a_kernel_that_moves_nothing_does_not_pass(self) -> None:
        result = rank_test(KEY, lambda key, x: x, normals, num_replicates=100)
        assert result.num_moved == 0
        assert not result.passed

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"num_states": 1}, "num_states must be"),
            ({"alpha": 0.0}, "alpha must be"),
            ({"num_replicates": 20}, "too few for 8 ranks"),
        ],
    )
    def test_bad_arguments(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            rank_test(KEY, autoregression, normals, **change)


def shifted(shift: float, rng: np.random.Generator) -> Callable[[jax.Array, int], float]:
    """p values of a z test of mean 0 on n normals of mean ``shift``."""
    return lambda key, n: float(erfc(abs(rng.normal(shift * np.sqrt(n))) / np.sqrt(2)))


class TestSequential:
    def test_false_alarms_are_bounded(self) -> None:
        rng = np.random.default_rng(7)
        uniform = lambda key, n: rng.uniform()
        failed = [not sequential_test(KEY, uniform, alpha=1e-2).passed for _ in range(5000)]
        # Exactly alpha for uniform p values; the mean has standard deviation 0.0014.
        assert abs(np.mean(failed) - 0.01) < 0.006

    def test_power(self) -> None:
        rng = np.random.default_rng(8)
        results = [sequential_test(KEY, shifted(0.1, rng)) for _ in range(400)]
        # Power 0.957 at a shift of 0.1 standard deviations: below 0.91 once in 50 000 runs.
        assert np.mean([not result.passed for result in results]) > 0.91
        assert {n for result in results for n in result.sample_sizes} == {1000, 4000}

    def test_rounds_follow_the_algorithm(self) -> None:
        beta = 1e-5 / 7
        gamma = beta ** (1 / 7)
        for values, passed, sizes in (
            ([0.5], True, [1000]),
            ([beta * 0.99], False, [1000]),
            ([0.1, 0.9], True, [1000, 4000]),
            ([gamma + beta * 0.99, beta / gamma * 0.99], False, [1000, 4000]),
            ([0.1, beta / gamma * 1.01, beta / gamma**2 * 0.99], False, [1000, 4000, 4000]),
            ([0.1] * 6 + [gamma * 1.01], True, [1000] + [4000] * 6),
            ([0.1] * 6 + [gamma * 0.99], False, [1000] + [4000] * 6),
        ):
            queue = iter(values)
            result = sequential_test(KEY, lambda key, n, queue=queue: next(queue))
            assert result.passed is passed
            assert result.sample_sizes == sizes
            assert next(queue, None) is None
            assert str(result).startswith("passed" if passed else "FAILED")

    def test_several_p_values_are_corrected(self) -> None:
        result = sequential_test(KEY, lambda key, n: np.array([0.3, 0.2, 0.9]))
        assert result.p_values == [pytest.approx(0.6)]

    def test_rounds_have_their_own_keys(self) -> None:
        keys = []

        def p_values(key: jax.Array, n: int) -> float:
            keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return 0.05

        sequential_test(KEY, p_values, num_rounds=3, alpha=1e-3)
        assert len(set(keys)) == len(keys) == 3

    def test_with_the_invariance_test(self) -> None:
        for kernel, is_right in ((autoregression, True), (too_little_noise, False)):

            def p_values(key: jax.Array, n: int, kernel: Any = kernel) -> np.ndarray:
                return invariance_test(key, kernel, normals, num_particles=n).p_values

            result = sequential_test(KEY, p_values, num_samples=4000)
            assert result.passed is is_right  # false alarm: 1e-5

    @pytest.mark.parametrize(
        "change", [{"alpha": 0}, {"num_rounds": 0}, {"num_samples": 0.5}, {"growth": 0.5}]
    )
    def test_bad_arguments(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(change))}=.* is out of range"):
            sequential_test(KEY, lambda key, n: 0.5, **change)

    @pytest.mark.parametrize("value", [np.nan, 1.5, -0.1, []])
    def test_impossible_p_values(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
            sequential_test(KEY, lambda key, n: value)
