"""A second call of `sample` with other numbers of the same shapes compiles nothing at all."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import sample
from shoal.sampling import langevin

pytestmark = pytest.mark.quick_compiler
COMPILED: list[float] = []


@pytest.fixture(scope="module", autouse=True)
def _listen() -> None:
    """Note every compilation of the process; JAX has no public way to stop listening."""

    def note(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            COMPILED.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)


@contextmanager
def compilations() -> Iterator[list[float]]:
    """Yield the list that holds, afterwards, the seconds of each compilation in the block."""
    before, seconds = len(COMPILED), []
    yield seconds
    seconds.extend(COMPILED[before:])


def log_density(position: jax.Array, data: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum((position - data.mean(0)) ** 2) * data.shape[0]


def model(data: Any) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(jnp.ones(2)))
    numpyro.sample("data", dist.Normal(0.0, scale), obs=data)


def mala(a: float) -> Any:
    return langevin.mala(step_size=0.1 * a, metric=a * jnp.ones(2))


def baoab(a: float) -> Any:
    return langevin.baoab(step_size=0.1 * a, friction=a, metric=a * jnp.eye(2))


def hmc(a: float) -> Any:
    matrix = a * jnp.ones(2)
    return functools.partial(
        blackjax.hmc, step_size=0.1 * a, inverse_mass_matrix=matrix, num_integration_steps=2
    )


def run(seed: int, a: float, sampler: Any, target_acceptance: float | None, numpyro: bool) -> None:
    """Sample with numbers that all depend on ``a``."""
    data = a * np.random.default_rng(seed).normal(size=(5, 2)).astype(np.float32)
    described = (
        dict(model=model, model_args=(data,))
        if numpyro
        else dict(model=functools.partial(log_density, data=data), init=a * jnp.ones((2, 2)))
    )
    sample(
        jax.random.key(seed),
        **described,
        sampler=sampler,
        target_acceptance=target_acceptance,
        num_chains=2,
        num_warmup=10,
        num_samples=10,
        progress=False,
        on_failure="ignore",
    )


@pytest.mark.parametrize(
    ("sampler", "is_tuned", "is_numpyro"),
    [(mala, True, True), (baoab, True, False), (hmc, True, False)]
    + [("nuts", True, False), ("mclmc", False, False)],
    ids=["mala, NumPyro", "baoab", "blackjax.hmc", "nuts", "mclmc"],
)
def test_other_numbers_compile_nothing(sampler: Any, is_tuned: bool, is_numpyro: bool) -> None:
    make = (lambda a: sampler) if isinstance(sampler, str) else sampler
    rates = (0.6, 0.7) if is_tuned else (None, None)
    with compilations() as first:
        run(0, 1.0, make(1.0), rates[0], is_numpyro)
    assert first
    with compilations() as second:
        run(1, 1.5, make(1.5), rates[1], is_numpyro)
    assert second == []
