"""What the driver costs: the same steps, kept draws and statistics in one bare ``lax.scan``."""

import io
from contextlib import redirect_stderr

import jax
import jax.numpy as jnp
from _harness import Report, interleave, parse_options

from shoal.inference._sample import _describe, _keep, _tally
from shoal.inference.chains import Chains, broadcast
from shoal.inference.run import run
from shoal.inference.target import Target
from shoal.sampling import langevin
from shoal.sampling.core.random import step_key

KEY = jax.random.key(0)


def contenders(num_chains, dim, num_steps):
    """Return the driver with its progress line, and the bare loop."""
    target = Target.from_log_density(lambda x: -0.5 * jnp.sum(x**2))
    sampler = broadcast(langevin.mala(0.05), num_chains)
    chains = Chains(sampler, target, jnp.arange(num_chains))
    states = chains.init(jnp.ones((num_chains, dim)), KEY)

    def driver():
        with redirect_stderr(io.StringIO()):
            return run(
                KEY, chains, states, num_steps, keep=_keep, tally=_tally, phase="sampling",
                describe=_describe, progress=True,
            )  # fmt: skip

    @jax.jit
    def bare(states):
        def step(carry, t):
            states, totals = carry
            states, info = chains.step(step_key(KEY, t), states)
            totals = jax.tree.map(jnp.add, totals, _tally(states, info))
            return (states, totals), _keep(states, info)

        shapes = jax.eval_shape(lambda states: _tally(*chains.step(KEY, states)), states)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(step, (states, zeros), jnp.arange(num_steps))

    return {"ours": driver, "peer": lambda: bare(states)}


def main() -> None:
    options = parse_options("run() with progress line against a bare lax.scan")
    report = Report(options)
    sizes = [(4, 10, 400_000), (256, 100, 4_000)]
    for num_chains, dim, num_steps in sizes:
        num_steps = num_steps // 4 if options.quick else num_steps
        times = interleave(contenders(num_chains, dim, num_steps), options.rounds(9, 5))
        name = f"seconds for {num_steps} MALA steps, {num_chains} chains x {dim} dimensions"
        report.ratio(name, times, bar=1.15)
    report.finish()


if __name__ == "__main__":
    main()
