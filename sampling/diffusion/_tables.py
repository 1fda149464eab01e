"""Solvers as tables of one shape, so that one compiled program runs any of them.

With N calls of the denoiser every deterministic linear solver is

    x_{i+1} = w_{i0} x_0 + w_{i1} + Σ_{j <= i} w_{i,j+2} m_j,

where m_j is the j-th prediction of the data and x_0 where the first was made, itself a factor times
the start, plus an offset. Here programs of `program` are unrolled into that form and executed.
"""

# ruff: noqa: D102 (methods are documented in the base class)

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.program import DATA, ONE, Program, Tape, constant
from shoal.sampling.diffusion.solver import LinearSolver, Problem, Record, Steps
from shoal.sampling.diffusion.usf import Unified, check_ends, execute_from


class Table(NamedTuple):
    """See the module's head.

    Attributes
    ----------
    half_log_snr
        λ of the start, of the N calls and of the result, ``(N + 2,)``.
    first
        Factor and offset of the first call's position, ``(2, *shape)``.
    weights
        ``(N, N + 2, *shape)``; ``shape`` is that of a sample, or empty.
    """

    half_log_snr: Any
    first: Any
    weights: Any


def unroll(program: Program) -> np.ndarray:
    """Return the weights of a program that neither draws nor differentiates."""
    num, num_registers = program.matrices.shape[:2]
    shape = program.matrices.shape[3:]
    unit = lambda index: np.eye(num + 2)[index].reshape(num + 2, *[1] * len(shape))
    registers = np.zeros((num_registers, num + 2, *shape))
    registers[0] += unit(0)
    weights = []
    for row, matrix in enumerate(program.matrices):
        inputs = {DATA: unit(row + 2), ONE: unit(1)}
        columns = [*registers, *(inputs[name] for name in program.inputs)]
        registers = sum(matrix[:, c, None] * column[None] for c, column in enumerate(columns))
        weights.append(registers[0])
    return np.stack(weights)


def tabulate(solver: Unified, shape: tuple[int, ...]) -> Table:
    """Return the table of a solver whose schedule has its own λ."""
    clock = np.array(solver.schedule.half_log_snr)
    program, first = solver.record(clock)
    weights = unroll(program)
    rows, given = weights.shape[:2], weights.shape[2:]
    weights = weights.reshape(*rows, *[1] * (len(shape) - len(given)), *given)
    weights = np.broadcast_to(weights, (*rows, *shape))
    begins = np.stack([np.broadcast_to(part, shape) for part in first])
    return Table(np.array([clock[0], *program.half_log_snr]), begins, weights)


def run_table(denoiser: Denoiser, table: Table, position: jax.Array) -> jax.Array:
    """Return where a table leads from ``position``, ``(n, ...)``; all at unit variance."""
    num = len(table.weights)
    shape = position.shape[1:]
    wide = lambda w: w.reshape(len(w), 1, *(w.shape[1:] or [1] * len(shape)))
    factor, offset = wide(table.first)
    origin = factor * position + offset

    def step(carry: tuple, row: tuple) -> tuple:
        x, seen = carry
        i, half_log_snr, weights = row
        seen = seen.at[i].set(denoiser.data(x, half_log_snr))
        weights = wide(weights)
        x = weights[0] * origin + weights[1] + jnp.sum(weights[2:] * seen, axis=0)
        return (x, seen), None

    rows = (jnp.arange(num), table.half_log_snr[1:-1], table.weights)
    seen = jnp.zeros((num, *position.shape), position.dtype)
    return jax.lax.scan(step, (origin, seen), rows)[0][0]


@dataclasses.dataclass(frozen=True, eq=False)
class Tabled(LinearSolver):
    """A table as a solver, for the λ that it has."""

    table: Table

    def program(self, steps: Steps, num_steps: int, lower_order_final: bool) -> Program:
        clock, weights = self.table.half_log_snr, self.table.weights
        if num_steps != len(weights):
            raise ValueError(f"num_steps must be {len(weights)} for this solver, got {num_steps}")
        check_ends(clock, steps)
        tape = Tape()
        x, seen = tape.start, []
        for half_log_snr, row in zip(clock[1:-1], weights, strict=True):
            seen.append(tape.evaluate(x, half_log_snr).data)
            x = row[0] * tape.start + constant(row[1])
            for weight, data in zip(row[2:], seen, strict=False):
                x = x + weight * data
        return tape.finish(x, clock[-1])

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        program = self.program(problem.steps, problem.num_steps, problem.lower_order_final)
        clock = self.table.half_log_snr
        return execute_from(problem, clock[0], tuple(self.table.first), program)


@eqx.filter_jit
def errors(denoiser: Denoiser, tables: Table, position: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean squared error of each sample under each table of a population, ``(P, n)``."""

    def one(table: Table) -> jax.Array:
        apart = run_table(denoiser, table, position) - target
        return jnp.mean(apart**2, tuple(range(1, apart.ndim)))

    return jax.vmap(one)(tables)


@eqx.filter_jit
def reference(
    denoiser: Denoiser, position: jax.Array, half_log_snr: jax.Array, num_inner: int
) -> jax.Array:
    """Return positions at all ``half_log_snr``, the first of which ``position`` has.

    Classical Runge-Kutta steps, ``num_inner`` between two λ, of dz/dλ = e^λ x_0 with z = x / sigma.
    """

    def step(z: jax.Array, ends: jax.Array) -> tuple[jax.Array, None]:
        low, h = ends[0], ends[1] - ends[0]
        slope = lambda z, at: jnp.exp(at) * denoiser.data(z * unit_scales(at)[1], at)
        first = slope(z, low)
        second = slope(z + h / 2 * first, low + h / 2)
        third = slope(z + h / 2 * second, low + h / 2)
        fourth = slope(z + h * third, low + h)
        return z + h / 6 * (first + 2 * (second + third) + fourth), None

    def interval(z: jax.Array, ends: jax.Array) -> tuple[jax.Array, jax.Array]:
        inner = jnp.linspace(ends[0], ends[1], num_inner + 1)
        z, _ = jax.lax.scan(step, z, jnp.stack([inner[:-1], inner[1:]], axis=1))
        return z, z * unit_scales(ends[1])[1]

    ends = jnp.stack([half_log_snr[:-1], half_log_snr[1:]], axis=1)
    _, path = jax.lax.scan(interval, position / unit_scales(half_log_snr[0])[1], ends)
    return jnp.concatenate([position[None], path])
