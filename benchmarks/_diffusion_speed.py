"""What a solver costs beside the network, and what statistics cost.

The floor is the same number of calls of the network in one compiled loop, each on the result of
the last one; the network is a small one, which makes the floor low.
"""

import time

import jax
import jax.numpy as jnp
from _diffusion_problems import SCHEDULE
from _harness import Report, interleave

from shoal.models import denoisers
from shoal.sampling import diffusion
from shoal.sampling.core.denoiser import Denoiser

CALLS, WIDTH, DIM = 10, 256, 64


def network(key: jax.Array) -> Denoiser:
    """Return a network of three layers that predicts noise."""
    keys = jax.random.split(key, 3)
    sizes = (DIM + 1, WIDTH, WIDTH, DIM)
    weights = [
        jax.random.normal(k, (a, b), jnp.float32) / a**0.5
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]

    def fn(x: jax.Array, t: jax.Array) -> jax.Array:
        hidden = jnp.concatenate([x, jnp.broadcast_to(t, (len(x), 1))], 1)
        for weight in weights[:-1]:
            hidden = jax.nn.silu(hidden @ weight)
        return hidden @ weights[-1]

    return Denoiser(fn, "noise")


def add_rows(report: Report) -> None:
    denoiser = network(jax.random.key(0))
    solvers = {"2M": diffusion.dpm_solver_pp(2), "UniPC-3": diffusion.unipc(3)}
    for batch, most in ((1024, 1.05), (1, 1.3)):
        x = jax.random.normal(jax.random.key(1), (batch, DIM), jnp.float32)
        times = SCHEDULE.time(jnp.linspace(-5.0, 4.5, CALLS, dtype=jnp.float32))
        body = lambda x, t: (denoiser.fn(x, t), None)
        bare = jax.jit(lambda x: jax.lax.scan(body, x, times)[0])
        contenders = {"bare": lambda x=x: bare(x)}
        for name, solver in solvers.items():
            run = jax.jit(lambda x, s=solver: diffusion.solve(denoiser, SCHEDULE, s, x, CALLS)[0])
            contenders[name] = lambda x=x, run=run: run(x)
        seconds = interleave(contenders, report.options.rounds(30, 10), 0.05)
        for name in solvers:
            row = f"{CALLS} calls of a batch of {batch}, seconds: {name} / network alone"
            report.ratio(row, seconds, most, ours=name, peer="bare")
    if not report.options.quick:
        _statistics(report)


def _statistics(report: Report) -> None:
    mixture = denoisers.digits_mixture()
    data = mixture.fn.sample(jax.random.key(2), 1024)
    start = time.perf_counter()
    diffusion.estimate_statistics(
        jax.random.key(3), mixture, SCHEDULE, data.astype(jnp.float32), num_points=120
    )
    seconds = time.perf_counter() - start
    report.row("statistics of the digits mixture, seconds / 10", seconds, 10.0, seconds / 10, 1.0)
