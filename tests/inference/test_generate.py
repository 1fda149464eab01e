"""Generation in batches: the same samples however they are cut, and none lost in silence."""

import functools
import signal
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import Generated, GenerationError, GenerationWarning, _work, generate
from shoal.inference.progress import Progress
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import ddim, edm, flow

KEY = jax.random.key(3)
NUM, BATCH, STEPS = 50, 16, 3
MEANS = np.linspace(-20, 20, NUM, dtype=np.float32)


def shifted(mean: jax.Array) -> Denoiser:
    """Denoise N(mean, 1/4) exactly; two calls for each evaluation, it says."""
    fn = lambda x, t: (0.25 * x + t**2 * mean[:, None]) / (0.25 + t**2)
    return Denoiser(fn, "data", edm(), num_calls=2)


def broken(x: jax.Array, t: jax.Array) -> jax.Array:
    """Return NaN where some positions are at t = 0.5, infinity for others at t = 0.25."""
    is_lost = (jnp.abs(t - 0.5) < 0.01) & (x[:, :1] > 0)
    is_late = (jnp.abs(t - 0.25) < 0.01) & (x[:, :1] < -0.1)
    return jnp.where(is_lost, jnp.nan, jnp.where(is_late, jnp.inf, 0 * x))


BROKEN = Denoiser(broken, "data")


def run(**options: Any) -> Generated:
    """Generate by a stochastic solver, on a flow that starts at sigma 0.8, with a trajectory."""
    options = {"num_samples": NUM, "batch_size": BATCH, "condition": MEANS, **options}
    return generate(
        KEY, shifted, flow(), ddim(1.0), STEPS, (2, ), grid=[0.8, 0.5, 0.25, 0.1],
        trajectory=True, **{"progress": False, **options},
    )  # fmt: skip


def lose(**options: Any) -> Generated:
    return generate(
        KEY, BROKEN, flow(), ddim(), STEPS, (2,), num_samples=30, batch_size=20,
        grid=[0.8, 0.5, 0.25, 0.1], progress=False, **options,
    )  # fmt: skip


@functools.cache
def whole() -> Generated:
    return run()


def assert_same(found: Generated, expected: Generated) -> None:
    same = lambda a, b: np.testing.assert_array_equal(a, b, strict=True)
    jax.tree.map(same, found[:2], expected[:2])


def interrupt(progress: Progress) -> None:
    assert (progress.phase, progress.total) == ("generating", 4)
    if progress.done == 1:
        signal.raise_signal(signal.SIGINT)


def test_samples_are_the_same_in_batches_of_another_size() -> None:
    assert_same(run(batch_size=7), whole())


def test_record_and_conditions() -> None:
    samples, record, outcome, *_ = whole()
    assert (outcome, samples.shape, samples.dtype) == ("completed", (NUM, 2), np.float32)
    np.testing.assert_allclose(record.times, [0.8, 0.5, 0.25, 0.1], rtol=1e-5)
    np.testing.assert_array_equal(record.num_calls, np.full(NUM, 2 * STEPS))
    np.testing.assert_array_equal(record.failed_at, np.full(NUM, -1))
    assert record.trajectory is not None
    np.testing.assert_array_equal(record.trajectory[-1], samples)
    # Steps of the exact posterior mean bring every sample to its own condition: 0.9 alpha.
    np.testing.assert_allclose(samples.mean(1), 0.9 * MEANS, atol=1.5)


def z_starts(key: jax.Array) -> np.ndarray:
    """Return z-scores of the first four moments of starts over their sigma, 0.8."""
    found = generate(
        key, Denoiser(lambda x, t: 0 * x, "data"), flow(), ddim(), 1, (40,), num_samples=4000,
        grid=[0.8, 0.1], trajectory=True, progress=False,
    )  # fmt: skip
    assert found.record.trajectory is not None
    z = found.record.trajectory[0].astype(np.float64) / 0.8
    neighbours = z[1:] * z[:-1]
    scores = [z.sum(), (z**2 - 1).sum() / 2**0.5, neighbours.sum(), (z**4 - 3).sum() / 96**0.5]
    return np.array(scores) / z.size**0.5


def test_starts_are_normal_with_the_first_sigma() -> None:
    assert np.abs(z_starts(jax.random.key(8))).max() < 5.2


def test_interrupted_batches_are_kept_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)  # one batch in every chunk
    with pytest.warns(GenerationWarning, match="^interrupted after 32 of 50 samples$"):
        first = run(progress=interrupt, checkpoint=tmp_path)
    assert (first.outcome, len(first.samples)) == ("interrupted", 2 * BATCH)
    cut = lambda leaf: leaf[: 2 * BATCH]
    np.testing.assert_array_equal(first.samples, cut(whole().samples))
    np.testing.assert_array_equal(first.record.num_calls, cut(whole().record.num_calls))
    assert_same(run(checkpoint=tmp_path), whole())


def test_lost_samples_are_named_and_are_nan() -> None:
    with pytest.warns(GenerationWarning) as caught:
        found = lose()
    (message,) = (str(one.message) for one in caught)
    failed = found.record.failed_at
    assert {*failed.tolist()} == {-1, 1, 2}
    np.testing.assert_array_equal(np.isnan(found.samples).all(axis=1), failed >= 0)
    assert np.isfinite(found.samples[failed < 0]).all()
    for step, time in ((1, "0.5"), (2, "0.25")):
        ids = np.flatnonzero(failed == step)
        said = f"{len(ids)} of 30 samples are lost: the denoiser returned NaN or infinity in step"
        assert f"{said} {step} (from 0), at time {time} (samples {ids[0]}" in message
    with pytest.raises(GenerationError, match="of 30 samples are lost") as error:
        lose(on_failure="raise")
    assert_same(error.value.generated, found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(lose(on_failure="ignore"), found)
