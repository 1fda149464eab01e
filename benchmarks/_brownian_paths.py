"""Brownian increments with Lévy areas and adaptive steps on them: ours and diffrax's.

Source: the cost of one more (W, H, K) for 64 paths along 64 even steps at equal tolerance, half a
step: `advance` from cursor to cursor, and `increment` from scratch, against
``diffrax.VirtualBrownianTree``. For information, also against the normals alone.

Adaptive run: QUICSORT with the error of step doubling, the same norm and tolerance, on a Gaussian
of ten scales in 64 chains, against ``diffrax.diffeqsolve`` with ``HalfSolver``, ``PIDController``
and a virtual Brownian tree of tolerance half the smallest step. The rows state gradients and the
error of the variances too, most of which is the noise of so few draws.
"""

import diffrax
import jax
import jax.numpy as jnp
from _harness import Report, interleave

from shoal.sampling import langevin
from shoal.sampling.langevin import brownian

CHAINS, NUM_STEPS = 64, 64
INTERVAL, TOLERANCE = 1.0, 0.02
SMALLEST = INTERVAL / 512
KEYS = jax.random.split(jax.random.key(0), CHAINS)


def source(dim, tol, draw):
    """Return a call that sums the increments over all steps of all paths."""
    ends = jnp.arange(1, NUM_STEPS + 1) / NUM_STEPS

    def along(key):
        return draw(key, dim, tol, ends)

    run = jax.jit(jax.vmap(along))
    return lambda: run(KEYS)


def advanced(key, dim, tol, ends):
    path = brownian.path(key, 0.0, 1.0, (dim,), tol=tol)

    def step(carry, end):
        cursor, total = carry
        found, cursor = path.advance(cursor, end)
        return (cursor, total + found.W + found.H + found.K), None

    return jax.lax.scan(step, (path.start(), jnp.zeros(dim)), ends)[0][1]


def queried(evaluate):
    def along(key, dim, tol, ends):
        path = evaluate(key, dim, tol)

        def step(total, end):
            found = path(end - 1 / NUM_STEPS, end)
            return total + found.W + found.H + found.K, None

        return jax.lax.scan(step, jnp.zeros(dim), ends)[0]

    return along


def ours(key, dim, tol):
    return brownian.path(key, 0.0, 1.0, (dim,), tol=tol).increment


def virtual_tree(key, dim, tol):
    area = diffrax.SpaceTimeTimeLevyArea
    path = diffrax.VirtualBrownianTree(0.0, 1.0, tol, (dim,), key, area)
    return lambda s, t: path.evaluate(s, t, use_levy=True)


def normals(key, dim, tol, ends):
    def step(total, i):
        return total + jnp.sum(jax.random.normal(jax.random.fold_in(key, i), (3, dim)), 0), None

    return jax.lax.scan(step, jnp.zeros(dim), jnp.arange(NUM_STEPS))[0]


def scales(dim):
    return jnp.geomspace(0.2, 1.0, dim)


def starts(dim):
    draw = jax.random.normal(jax.random.key(1), (2, CHAINS, dim))
    return draw[0] * scales(dim), draw[1]


def our_run(dim, num_draws):
    precision = scales(dim) ** -2
    sampler = langevin.adaptive_quicsort(INTERVAL, TOLERANCE)
    algorithm = sampler(lambda x: -0.5 * jnp.sum(precision * x**2))

    @jax.jit
    def run(x, momentum):
        states = jax.vmap(algorithm.init)(x, KEYS)._replace(momentum=momentum)

        def step(states, t):
            keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, t)
            states, info = jax.vmap(algorithm.step)(keys, states)
            return states, (states.position, info.num_integration_steps)

        _, (draws, attempts) = jax.lax.scan(step, states, jnp.arange(num_draws))
        return draws, attempts.sum(0)

    return lambda: run(*starts(dim))


def diffrax_run(dim, num_draws):
    precision = scales(dim) ** -2
    end = INTERVAL * num_draws
    controller = diffrax.PIDController(
        rtol=0, atol=TOLERANCE, pcoeff=0.1, icoeff=0.4, dtmin=SMALLEST, dtmax=INTERVAL
    )

    def along(key, x, momentum):
        path = diffrax.VirtualBrownianTree(
            0.0, end, SMALLEST / 2, (dim,), key, diffrax.SpaceTimeTimeLevyArea
        )
        force = lambda x, _: precision * x
        terms = diffrax.MultiTerm(
            diffrax.UnderdampedLangevinDriftTerm(1.0, 1.0, force),
            diffrax.UnderdampedLangevinDiffusionTerm(1.0, 1.0, path),
        )
        solution = diffrax.diffeqsolve(
            terms, diffrax.HalfSolver(diffrax.QUICSORT(0.1)), 0.0, end, 0.1, (x, momentum),
            saveat=diffrax.SaveAt(ts=jnp.arange(1, num_draws + 1) * INTERVAL),
            stepsize_controller=controller, max_steps=None,
            adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return solution.ys[0], solution.stats["num_steps"]

    run = jax.jit(jax.vmap(along, out_axes=(1, 0)))
    return lambda: run(KEYS, *starts(dim))


def variance_error(draws, dim):
    """Largest deviation of a variance, relative."""
    return jnp.max(jnp.abs(jnp.mean(draws**2, (0, 1)) / scales(dim) ** 2 - 1))


def add_rows(report: Report) -> None:
    options = report.options
    for dim in (10, 100):
        tol = 0.5 / NUM_STEPS
        times = interleave(
            {
                "advance": source(dim, tol, advanced),
                "increment": source(dim, tol, queried(ours)),
                "diffrax": source(dim, tol, queried(virtual_tree)),
                "normals": source(dim, tol, normals),
            },
            rounds=options.rounds(7, 3),
        )
        times = {name: [t / NUM_STEPS for t in values] for name, values in times.items()}
        name = f"seconds a (W, H, K) of {CHAINS} x {dim}: "
        report.ratio(name + "advance / diffrax", times, 0.1, "advance", "diffrax")
        report.ratio(name + "increment / diffrax", times, None, "increment", "diffrax")
        report.ratio(name + "advance / its normals", times, None, "advance", "normals")
    dim, num_draws = 10, 20 if options.quick else 100
    runs = {"ours": our_run(dim, num_draws), "peer": diffrax_run(dim, num_draws)}
    name = f"adaptive QUICSORT, {CHAINS} x {dim}: "
    report.ratio(name + "seconds", interleave(runs, rounds=options.rounds(5, 2)), 0.2)
    (draws, attempts), (peer_draws, peer_attempts) = (run() for run in runs.values())
    counts = float(jnp.mean(attempts) * 6), float(jnp.mean(peer_attempts) * 6)
    report.row(name + "gradients a chain", *counts, counts[0] / counts[1], None)
    errors = float(variance_error(draws, dim)), float(variance_error(peer_draws, dim))
    report.row(name + "error of variances", *errors, errors[0] / errors[1], None)
