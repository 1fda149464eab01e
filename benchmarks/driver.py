"""What the driver costs: the same steps, kept draws and statistics in one bare ``lax.scan``.

Also what it costs to save on the way, and to look at every particle's status.
"""

import io
import shutil
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from _harness import Report, interleave, parse_options

from shoal.inference import Checkpoint
from shoal.inference._draw import _describe, _keep, _tally
from shoal.inference.chains import Chains, broadcast
from shoal.inference.run import run
from shoal.inference.target import Target
from shoal.sampling import langevin
from shoal.sampling.core.random import particle_keys, step_key

KEY = jax.random.key(0)


def log_density(x):
    return -0.5 * jnp.sum(x**2)


def against_scan(num_chains, dim, num_steps, thin):
    """Return the driver with its progress line, the same saving every 1 %, the bare loop.

    Saves that take longer than a twentieth of that are made more rarely.
    """
    target = Target.from_log_density(log_density)
    sampler = broadcast(langevin.mala(0.05), num_chains)
    chains = Chains(sampler, target, jnp.arange(num_chains))
    states = chains.init(jnp.ones((num_chains, dim)), KEY)

    def driver(checkpoint=None):
        with redirect_stderr(io.StringIO()):
            return run(
                KEY, chains, states, num_steps, keep=_keep, tally=_tally, thin=thin,
                phase="sampling", describe=_describe, progress=True, checkpoint=checkpoint,
            )  # fmt: skip

    @jax.jit
    def bare(states):
        def step(t, carry):
            states, totals, _ = carry
            states, info = chains.step(step_key(KEY, t), states)
            return states, jax.tree.map(jnp.add, totals, _tally(states, info)), info

        def row(carry, i):
            carry = jax.lax.fori_loop(i * thin, (i + 1) * thin, step, carry)
            return carry, _keep(carry[0], carry[2])

        def empty(states):
            states, info = chains.step(KEY, states)
            return _tally(states, info), info

        shapes = jax.eval_shape(empty, states)
        totals, info = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(row, (states, totals, info), jnp.arange(num_steps // thin))

    driver()
    start = time.perf_counter()
    driver()
    every = (time.perf_counter() - start) / 100

    def saving():
        folder = tempfile.mkdtemp()
        try:
            result = driver(Checkpoint(folder, every=every))
            saves = max(int(path.stem[6:]) for path in Path(folder).glob("state-*.ckpt"))
            return jax.block_until_ready(result), saves
        finally:
            shutil.rmtree(folder)

    print(f"{num_chains} x {dim}: {saving()[1]} saves in a run")
    return {"driver": driver, "saving": saving, "scan": lambda: bare(states)}


class Info(NamedTuple):
    """What a step tells, without a status."""

    acceptance_rate: jax.Array


class Walkers(eqx.Module):
    """ULA chains whose info has a status, or has none."""

    sampler: object
    has_status: bool = eqx.field(static=True)

    def init(self, positions):
        """Start at some positions."""
        return jax.vmap(self.sampler(log_density).init)(positions)

    def step(self, key, states):
        """Advance all walkers."""
        keys = particle_keys(key, jnp.arange(states.log_density.size))
        states, info = jax.vmap(self.sampler(log_density).step)(keys, states)
        return states, info if self.has_status else Info(info.acceptance_rate)


def status_checks(num_chains, dim, num_steps):
    """Return the driver with and without codes to look at."""
    both = {"ours": Walkers(langevin.ula(0.05), True), "peer": Walkers(langevin.ula(0.05), False)}
    states = both["ours"].init(jnp.ones((num_chains, dim)))
    call = lambda walkers: lambda: run(KEY, walkers, states, num_steps)
    return {name: call(walkers) for name, walkers in both.items()}


def main() -> None:
    options = parse_options("run() with progress line and saves against a bare lax.scan")
    report = Report(options)
    # The last row writes draws as fast as they come, near the speed of the disk: no bar.
    sizes = [(4, 10, 800_000, 10, 1.15), (256, 100, 12_000, 10, 1.15), (256, 100, 3_000, 1, None)]
    for num_chains, dim, num_steps, thin, bar in sizes:
        num_steps = num_steps // 10 if options.quick else num_steps
        times = interleave(against_scan(num_chains, dim, num_steps, thin), options.rounds(7, 3))
        name = f"{num_steps} MALA steps, {num_chains} x {dim}, 1 in {thin} kept"
        report.ratio(f"{name}: progress", times, bar=1.15, ours="driver", peer="scan")
        report.ratio(
            f"{name}: saved every 1 %, at most", times, bar=bar, ours="saving", peer="scan"
        )
    for num_chains, dim, num_steps in [(256, 100, 4_000), (16_384, 4, 400)]:
        times = interleave(status_checks(num_chains, dim, num_steps), options.rounds(21, 7))
        report.ratio(f"{num_steps} ULA steps, {num_chains} x {dim}: status", times, bar=1.05)
    report.finish()


if __name__ == "__main__":
    main()
