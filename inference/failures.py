"""What went wrong in a run: how often, and where first. Counted in the loop, told in sentences.

An algorithm whose info carries a `Status` for each particle gets this from the driver for nothing:
in a step in which all is well it costs one look at the codes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.algorithm import Status

_NUM_CODES = len(Status)


class Failures(NamedTuple):
    """Counts by `Status`; integers of shape ``(num_codes,)``, on the host 64 bits wide.

    Attributes
    ----------
    count
        How many steps of single particles ended with the code. That of ``OK`` is filled in on the
        host.
    first_step
        The absolute step in which the code first occurred, -1 if it never did.
    first_particle
        The lowest particle in which it occurred then, -1 likewise.
    """

    count: Any
    first_step: Any
    first_particle: Any

    def by_name(self) -> dict[str, int]:
        """Name the counts."""
        return {status.name.lower(): int(self.count[status]) for status in Status}

    def words(self) -> list[str]:
        """Say in few words what went wrong, for a progress line."""
        return [
            f"{count} {name.replace('_', ' ')}"
            for name, count in self.by_name().items()
            if count and name != "ok"
        ]

    def problems(self) -> list[str]:
        """Say how often what went wrong, and where first.

        A proposal outside a bounded support is an ordinary rejection and not mentioned.
        """
        total = int(np.sum(self.count))
        return [
            f"in {self.count[status]} of {total} steps {status.sentence} (first: particle "
            f"{self.first_particle[status]} in step {self.first_step[status]})"
            for status in Status
            if status not in (Status.OK, Status.OUTSIDE_SUPPORT) and self.count[status]
        ]


def no_failures(like: Any = jnp) -> Failures:
    """Return empty counts: JAX's for the loop, NumPy's (``like=np``) for the host."""
    integer = jnp.int32 if like is jnp else np.int64
    never = like.full(_NUM_CODES, -1, integer)
    return Failures(like.zeros(_NUM_CODES, integer), never, never)


def record(failures: Failures, info: Any, step: jax.Array, particles: jax.Array) -> Failures:
    """Enter the codes of one step.

    Parameters
    ----------
    failures
        Counts so far.
    info
        What the algorithm's step returned; without ``status`` nothing is entered.
    step
        Absolute step.
    particles
        Index of each particle, int32 ``(n,)``; negative where a row only fills up a device.
    """
    if not hasattr(info, "status"):
        return failures
    status = jnp.reshape(info.status, -1)
    status = jnp.where(particles < 0, Status.OK, status) if status.size > 1 else status

    def enter(failures: Failures) -> Failures:
        hit = status[:, None] == jnp.arange(_NUM_CODES, dtype=status.dtype)
        hit = hit.at[:, Status.OK].set(False)
        is_first = (failures.first_step < 0) & jnp.any(hit, axis=0)
        particle = particles[jnp.argmax(hit, axis=0)]
        return Failures(
            failures.count + jnp.sum(hit, axis=0, dtype=jnp.int32),
            jnp.where(is_first, step, failures.first_step).astype(jnp.int32),
            jnp.where(is_first, particle, failures.first_particle).astype(jnp.int32),
        )

    return jax.lax.cond(jnp.any(status != Status.OK), enter, lambda same: same, failures)


def combine(earlier: Failures, later: Failures, num_ok_and_bad: int) -> Failures:
    """Add up, on the host, the counts so far and those of the next chunk.

    Parameters
    ----------
    earlier
        Counts so far.
    later
        Counts of a chunk, shape ``(num_codes,)`` or, with a row for each device,
        ``(num_devices, num_codes)``.
    num_ok_and_bad
        Number of codes that the chunk has seen in all.
    """
    counts, steps, particles = (np.atleast_2d(np.asarray(a, np.int64)) for a in later)
    bad = counts.sum(axis=0)
    bad[Status.OK] = num_ok_and_bad - bad.sum()
    # Of devices that met the code in the same step argmin takes the first, whose particles are
    # the lowest.
    row = np.argmin(np.where(steps < 0, np.iinfo(np.int64).max, steps), axis=0)
    column = np.arange(_NUM_CODES)
    new = (earlier.first_step < 0) & (steps[row, column] >= 0)
    return Failures(
        earlier.count + bad,
        np.where(new, steps[row, column], earlier.first_step),
        np.where(new, particles[row, column], earlier.first_particle),
    )
