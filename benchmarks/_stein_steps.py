"""A step of SVGD: against peers, against matrix products, and in memory.

The target is a standard normal law, whose scores cost nothing: where they cost more, all
contenders draw level. The kernel is everybody's RBF, by the median of the distances. Up to a
thousand particles each contender makes ten steps in one compiled loop, as a run does: a call from
Python takes longer than a step.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import optax
from _harness import Report, interleave

from shoal.sampling import stein
from shoal.sampling.core import kernels

MEBIBYTE = 2**20
SGD = optax.sgd(0.1)
# Least speed against a peer, by n.
BLACKJAX = {256: None, 1024: 100.0, 4096: 300.0}
MSVGD = 20.0

# One step at a size whose kernel matrix would take 16 GiB, in a process of its own.
LARGE = """
import time
import jax, jax.numpy as jnp
from shoal.sampling import stein
algorithm = stein.svgd()(lambda x: -0.5 * jnp.sum(x**2))
state = jax.jit(algorithm.init)(jax.random.normal(jax.random.key(0), (65_536, 10)))
step = jax.jit(algorithm.step)
state, _ = jax.block_until_ready(step(jax.random.key(1), state))
start = time.perf_counter()
jax.block_until_ready(step(jax.random.key(2), state))
seconds = time.perf_counter() - start
# Not ru_maxrss: it starts at the peak of the process that this one was forked from.
held = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(held) / 2**20)
"""


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def looped(step: Callable[[Any], Any], carry: Any) -> Callable[[], Any]:
    """Return a call that makes `num_steps` steps from ``carry``."""
    many = jax.jit(
        lambda carry: jax.lax.fori_loop(0, num_steps(carry), lambda _, c: step(c), carry)
    )
    return partial(many, carry)


def num_steps(carry: Any) -> int:
    """Return the number of steps that a call makes."""
    return 10 if len(getattr(carry, "position", getattr(carry, "particles", carry))) < 4096 else 1


def ours(x: jax.Array, bandwidth: Any) -> Callable[[], Any]:
    algorithm = stein.svgd(kernels.RBF(1.0), SGD, bandwidth=bandwidth)(log_density)
    key = jax.random.key(1)
    return looped(lambda state: algorithm.step(key, state)[0], jax.jit(algorithm.init)(x))


def blackjax_step(x: jax.Array) -> Callable[[], Any]:
    algorithm = blackjax.svgd(jax.grad(log_density), SGD)
    state = algorithm.init(x, {"length_scale": jnp.asarray(1.0)})
    return looped(algorithm.step, state)


def msvgd_step(x: jax.Array) -> Callable[[], Any] | None:
    """Return steps made of the parts of the package msvgd, if that is installed."""
    try:
        package = importlib.import_module("msvgd")
    except ImportError:
        return None
    peer = package.MSVGD(log_density)

    def step(x: jax.Array) -> jax.Array:
        kernel, repulsion = peer._svgd_kernel(x)
        phi = (kernel @ peer.gradient(x, None) + repulsion) / len(x)
        return x + 0.1 * phi

    return looped(step, x)


def pair(x: jax.Array) -> Callable[[], Any]:
    """Return two products with the Gram matrix of points, whose size is kept."""
    n = len(x)
    return looped(lambda x: ((x @ x.T) @ x) / n, x)


def add_rows(report: Report) -> None:
    sizes = (256, 1024) if report.options.quick else (256, 1024, 4096)
    for n in sizes:
        for d in (10, 100):
            x = jax.random.normal(jax.random.key(0), (n, d))
            _against_peers(report, x)
            _against_products(report, x)
    if not report.options.quick:
        _peak(report)
        _large(report)


def _against_peers(report: Report, x: jax.Array) -> None:
    n, d = x.shape
    contenders = {"ours": ours(x, "tracked_log")}
    other = msvgd_step(x)
    if other is not None:
        contenders["msvgd"] = other
    slow = n * n * d > 1e8
    times = interleave(contenders, 3 if slow else report.options.rounds(11, 3))
    if other is not None:
        report.ratio(f"SVGD step with median, seconds: n={n}, d={d} / msvgd", times, 1 / MSVGD,
                     peer="msvgd")  # fmt: skip
    contenders = {"ours": contenders["ours"], "BlackJAX": blackjax_step(x)}
    times = interleave(contenders, 1 if slow else report.options.rounds(5, 3))
    least = BLACKJAX[n]
    report.ratio(
        f"SVGD step with median, seconds: n={n}, d={d} / BlackJAX", times,
        None if least is None else 1 / least, peer="BlackJAX",
    )  # fmt: skip


def _against_products(report: Report, x: jax.Array) -> None:
    n, d = x.shape
    contenders = {"ours": ours(x, 2.0 * d), "pair": pair(x)}
    times = interleave(contenders, report.options.rounds(21, 5))
    most = 1.0 if n == 4096 else 2.5
    report.ratio(f"SVGD step, fixed h, seconds: n={n}, d={d} / (X Xᵀ) X", times, most, peer="pair")
    if n == 4096:
        algorithm = stein.svgd(kernels.RBF(1.0), SGD)(log_density)
        state = jax.jit(algorithm.init)(x)
        step = jax.jit(algorithm.step).lower(jax.random.key(1), state)
        found = step.compile().memory_analysis()
        held = found.temp_size_in_bytes / MEBIBYTE
        report.row(f"SVGD step, MiB of temporaries: n={n}, d={d} / 8", held, 8.0, held / 8, 1.0)


def _peak(report: Report) -> None:
    """Share of the speed of a square matrix product that a step reaches by its products alone."""
    n, d, side = 4096, 100, 2048
    x = jax.random.normal(jax.random.key(0), (n, d))
    square = jax.random.normal(jax.random.key(1), (side, side))
    contenders = {"ours": ours(x, 2.0 * d), "peak": partial(jax.jit(jnp.matmul), square, square)}
    times = interleave(contenders, report.options.rounds(21, 5))
    flops = {"ours": 4 * n * n * d, "peak": 2 * side**3}
    per_flop = {name: [t / flops[name] for t in times[name]] for name in times}
    report.ratio("SVGD step, fixed h, seconds a flop: n=4096, d=100 / sgemm", per_flop, 1 / 0.8,
                 peer="peak")  # fmt: skip


def _large(report: Report) -> None:
    told = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    seconds, held = map(float, told.stdout.split())
    report.row("SVGD step, GiB resident: n=65,536, d=10 / 1", held, 1.0, held, 1.0)
    report.row("SVGD step, seconds: n=65,536, d=10 (for information)", seconds, 1.0, seconds, None)
