"""Manifold projection for classifier-free guidance: CFG-MP and CFG-MP+.

On straight paths z = t x_0 + (1 - t) noise, with the velocities c and u of the model with and
without the condition, a step from t to t + h of plain guidance is z + h (u + w (c - u)). Before it,
where the velocities are evaluated, z is moved at fixed t by K rounds of

    G(z) = y + (h / 2) c(y, t),    y = z - (h / 2) u(z, t),

which is meant to close the gap between c and u. CFG-MP+ speeds the rounds up as Anderson does, with
one round of memory: with F_k = G(z_k) - z_k,

    z_{k+1} = (1 - g) G(z_k) + g G(z_{k-1}),   g = <F_k - F_{k-1}, F_k> / (|F_k - F_{k-1}|² + r),

where r is relative here, a share of the mean of |F_k|² and |F_{k-1}|²: a number, as published,
would make the method depend on the units of the data. G is no projection: with c = u it is not the
identity. What it does to the samples' law was measured; see `manifold_projected`.

Reference: Cai, Liu, Su and Wang, "Improving classifier-free guidance of flow matching via manifold
projection", 2026, arXiv 2601.21892.
"""

# ruff: noqa: D102 (methods are documented in the protocol)

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import _checks
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales
from shoal.sampling.diffusion.guidance import branches
from shoal.sampling.diffusion.solver import Problem, Record, Solver, check_reach


@dataclasses.dataclass(frozen=True)
class ManifoldProjected:
    """See `manifold_projected`."""

    num_iterations: int
    accelerate: bool
    fraction: float
    ridge: float

    def run(self, problem: Problem) -> tuple[jax.Array, Record]:
        num = self._num_intervals(problem.num_steps)
        first = self._num_projected(num)
        clock = problem.steps(num)
        _check(clock, problem)
        x = problem.position
        cast = lambda value: jnp.asarray(value, x.dtype)
        rows = [cast(row) for row in _rows(clock)]
        scale = problem.scale(clock)
        alpha, sigma = unit_scales(clock)
        to_path = alpha + sigma
        failed_at = jnp.full(x.shape[:1], -1, jnp.int32)
        none = jnp.zeros((), jnp.int32)
        carry = (x / cast(scale[0] * to_path[0]), none, none, failed_at)
        head, tail = ([row[part] for row in rows] for part in (slice(first), slice(first, None)))
        step = lambda num: lambda carry, row: self._step(problem.denoiser, num, carry, row)
        carry, before = jax.lax.scan(step(self.num_iterations), carry, head)
        (z, _, num_calls, failed_at), after = jax.lax.scan(step(0), carry, tail)
        visits = np.where(np.arange(num) < first, self.num_iterations + 1, 1)
        at = np.append(np.repeat(np.arange(num), visits), num)
        end = z * cast(scale[-1] * to_path[-1])
        trajectory = None
        if problem.trajectory:
            # Rounds at one time are positions on the way too.
            before = before.reshape(-1, *x.shape)
            found = jnp.concatenate([before, after[:, 0], z[None]])
            trajectory = found * cast((scale * to_path)[at]).reshape(-1, *[1] * x.ndim)
        times, calls = cast(problem.schedule.time(clock[at])), jnp.broadcast_to(num_calls, len(x))
        return end, Record(times, cast(clock[at]), calls, failed_at, trajectory)

    def _step(
        self, denoiser: Denoiser, num: int, carry: Any, row: list[jax.Array]
    ) -> tuple[Any, jax.Array]:
        """Project in ``num`` rounds, then take a step of guidance."""
        z, done, num_calls, failed_at = carry
        half_log_snr, noise, step = row
        to_unit = functools.reduce(jnp.add, unit_scales(half_log_snr))

        def velocity(denoiser: Denoiser, z: jax.Array) -> jax.Array:
            return (denoiser.data(z * to_unit, half_log_snr) - z) / noise

        conditional, unconditional = branches(denoiser)

        def project(z: jax.Array) -> jax.Array:
            y = z - 0.5 * step * velocity(unconditional, z)
            return y + 0.5 * step * velocity(conditional, y)

        def see(velocity: jax.Array, done: jax.Array, failed_at: jax.Array) -> jax.Array:
            is_finite = jnp.all(jnp.isfinite(velocity), tuple(range(1, z.ndim)))
            return jnp.where((failed_at < 0) & ~is_finite, done, failed_at)

        def iterate(carry: Any, k: jax.Array) -> tuple[Any, jax.Array]:
            z, image, shift, done, num_calls, failed_at = carry
            new = project(z)
            new_shift = new - z
            failed_at = see(new, done, failed_at)
            after = new
            if self.accelerate:
                mixed = _mix(new, new_shift, image, shift, self.ridge)
                after = jnp.where(k > 0, mixed, new)
            cost = conditional.num_calls + unconditional.num_calls
            return (after, new, new_shift, done + 1, num_calls + cost, failed_at), z

        carry = (z, z, z, done, num_calls, failed_at)
        (z, _, _, done, num_calls, failed_at), visited = jax.lax.scan(
            iterate, carry, jnp.arange(num)
        )
        guided = velocity(denoiser, z)
        failed_at = see(guided, done, failed_at)
        carry = (z + step * guided, done + 1, num_calls + denoiser.num_calls, failed_at)
        return carry, jnp.concatenate([visited, z[None]])

    def _num_projected(self, num_intervals: int) -> int:
        return math.ceil(self.fraction * num_intervals)

    def _num_intervals(self, num_steps: int) -> int:
        """Return how many steps ``num_steps`` evaluations allow."""
        cost = lambda num: num + self.num_iterations * self._num_projected(num)
        if cost(1) > num_steps:
            raise ValueError(
                f"num_steps must be at least {cost(1)}, the evaluations of one projected step; got "
                f"{num_steps}"
            )
        return max(num for num in range(1, num_steps + 1) if cost(num) <= num_steps)


def _mix(
    image: jax.Array, shift: jax.Array, old_image: jax.Array, old_shift: jax.Array, ridge: float
) -> jax.Array:
    """Return Anderson's combination of two rounds, for each sample its own."""
    axes = tuple(range(1, image.ndim))
    dot = lambda a, b: jnp.sum(a * b, axes, keepdims=True)
    change = shift - old_shift
    size = dot(change, change) + ridge * 0.5 * (dot(shift, shift) + dot(old_shift, old_shift))
    share = dot(change, shift) / jnp.where(size > 0, size, 1.0)
    return (1 - share) * image + share * old_image


def _rows(clock: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return λ, 1 - t and h of the steps, where t = alpha / (alpha + sigma)."""
    alpha, sigma = unit_scales(clock)
    noise = sigma / (alpha + sigma)
    return clock[:-1], noise[:-1], noise[:-1] - noise[1:]


def _check(clock: np.ndarray, problem: Problem) -> None:
    if clock[-1] < clock[0]:
        raise ValueError("grid must go from noise to data: guidance with projection cannot encode")
    for branch in branches(problem.denoiser):
        check_reach(branch, clock)


def manifold_projected(
    num_iterations: Any = 2, *, accelerate: bool = True, fraction: Any = 0.6, ridge: Any = 1e-4
) -> Solver:
    """DDIM for classifier-free guidance with manifold projection: CFG-MP and CFG-MP+.

    For denoisers made by `guidance.classifier_free` or `guidance.combine`. It brings the
    predictions with and without the condition together, and makes the samples' law worse: see the
    notes before use. Without projected steps it is `ddim`.

    ``num_steps`` counts evaluations as everywhere: a projected step is 1 + K of them, 2 + 2 K calls
    of the network. Of N steps the first ``fraction`` N, rounded up, are projected; N is the largest
    that ``num_steps`` allows. A grid given as times has N + 1 of them.

    Parameters
    ----------
    num_iterations
        K, rounds before each projected step.
    accelerate
        Whether rounds are combined as Anderson does (CFG-MP+), or each follows from the last alone
        (CFG-MP).
    fraction
        Share of the steps, from the noise on, that are projected, from 0 to 1.
    ridge
        r over the mean of |F_k|² and |F_{k-1}|².

    Notes
    -----
    Measured with exact fields: the plane, four classes of two Gaussians each of deviation 0.25,
    class k at distance 2 from the origin and its two means at distance 1 from each other; 8192
    samples of one class on an even grid of straight paths, each with 44 calls. Sliced Wasserstein-2
    distance to the true law of the class (0.011 between two exact samples), and in brackets the
    deviation between the two means over the true one:

    ==================  ============  ============  ============
    guidance scale      1             2             4
    ==================  ============  ============  ============
    `ddim`, 22 steps    0.02 (0.96)   0.20 (0.79)   0.37 (0.69)
    CFG-MP, 10 steps    0.19 (0.75)   0.29 (0.68)   0.43 (0.62)
    CFG-MP+, 10 steps   0.61 (0.21)   0.62 (0.21)   0.63 (0.22)
    ==================  ============  ============  ============

    Plain guidance is nearer at every scale; at scale 1, where it is exact but for its steps, the
    projection alone makes the error nine times as large. It moves samples to the far side of the
    class and makes them alike, acceleration more so. A smaller gap between the predictions is no
    sign of better samples.

    References
    ----------
    Cai, Liu, Su and Wang (2026), Improving classifier-free guidance of flow matching via manifold
    projection, arXiv 2601.21892.

    Examples
    --------
    >>> from shoal.sampling.core.denoiser import Denoiser
    >>> from shoal.sampling.diffusion import edm, guidance, solve
    >>> part = lambda mean: Denoiser(lambda x, t: mean + (x - mean) / (1 + t**2), "data", edm())
    >>> denoiser = guidance.combine(part(1.0), part(0.0), 2.0)
    >>> noise = 80.0 * jax.random.normal(jax.random.key(0), (4, 2))
    >>> x, record = solve(denoiser, edm(), manifold_projected(), noise, 22, grid="karras")
    >>> x.shape, record.num_calls[0]
    ((4, 2), Array(44, dtype=int32))
    """
    _checks.check_flag("accelerate", accelerate)
    number = lambda name, value: float(
        _checks.real_parameter(name, value, 0.0, include_low=True, scalar=True)
    )
    if not (share := number("fraction", fraction)) <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction!r}")
    num = _checks.integer("num_iterations", num_iterations)
    return ManifoldProjected(num, accelerate, share, number("ridge", ridge))
