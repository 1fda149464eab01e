"""Stein discrepancies against coreax and stein-thinning, where they are installed.

Both get the same float32 samples. coreax takes scores from a function and returns the root of the
discrepancy, of which the square is compared; stein-thinning keeps float32 as it is given.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from _harness import Report, interleave

from shoal.inference import discrepancy
from shoal.sampling.core import kernels

DIM = 10
# IMQ(DIM), the kernel (1 + q / DIM)^(-1/2), in coreax's units.
LENGTH_SCALE = (DIM / 2) ** 0.5
CHOSEN = 256


def add_rows(report: Report) -> None:
    """Add KSD and thinning; a peer that is not installed has no row."""
    if importlib.util.find_spec("coreax"):
        for num in (1024,) if report.options.quick else (1024, 4096):
            _ksd(report, num)
    if importlib.util.find_spec("stein_thinning"):
        _thinning(report)


def _samples(num: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (num, DIM), jnp.float32)


def _score(x: jax.Array) -> jax.Array:
    return -x


def _ksd(report: Report, num: int) -> None:
    from coreax.data import Data
    from coreax.kernels import PCIMQKernel, SteinKernel
    from coreax.metrics import KSD

    x = _samples(num)
    ours = jax.jit(lambda x: discrepancy.ksd(x, _score(x), kernels.IMQ(float(DIM))))
    metric = KSD(SteinKernel(PCIMQKernel(length_scale=LENGTH_SCALE), _score))
    peer = jax.jit(lambda x: metric.compute(Data(x), Data(x)))
    contenders = {"ours": functools.partial(ours, x), "coreax": functools.partial(peer, x)}
    seconds = interleave(contenders, report.options.rounds(10, 3))
    name = f"KSD of {num} samples, d = {DIM}"
    report.ratio(f"{name}, seconds: ours / coreax", seconds, 1 / 30, peer="coreax")
    values = float(ours(x)), float(peer(x)) ** 2
    off = abs(values[0] / values[1] - 1)
    report.row(f"{name}, squared: relative difference from coreax", *values, off, 1e-5)


def _thinning(report: Report) -> None:
    from stein_thinning.thinning import thin

    x = _samples(4096)
    s = _score(x)
    arrays = np.asarray(x), np.asarray(s)
    contenders = {
        "ours": lambda: discrepancy.stein_thinning(x, s, CHOSEN),
        "stein-thinning": lambda: thin(*arrays, CHOSEN),
    }
    seconds = interleave(contenders, report.options.rounds(15, 5), 0.2)
    name = f"thinning of 4096 samples to {CHOSEN}, d = {DIM}"
    report.ratio(f"{name}, seconds: ours / stein-thinning", seconds, 0.1, peer="stein-thinning")
    chosen = (np.asarray(call()) for call in contenders.values())
    other = float(np.mean(np.not_equal(*chosen)))
    report.row(f"{name}: share of other indices", other, 0.0, other, 0.0)
