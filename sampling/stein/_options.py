"""Options that Stein samplers share: the bandwidth by number or rule, kernel and optimiser."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from shoal.sampling.core import bandwidth as bandwidths, pairwise
from shoal.sampling.core._checks import choice, real_parameter
from shoal.sampling.core.kernels import IMQ, Kernel, as_kernel

RULES = ("tracked", "tracked_log", *(rule for rule in bandwidths.RULES if rule != "fixed"))
_FIRST_UPDATES = 5
# One object, so that samplers made with it share their compiled programs.
_ADAM = optax.adam(0.05)


class Bandwidth(eqx.Module):
    """A rule by name, or h as a number.

    Attributes
    ----------
    value
        h, or None.
    rule
        One of `RULES`, or None. Static.
    """

    value: Any
    rule: str | None = eqx.field(static=True)

    @property
    def is_tracked(self) -> bool:
        """Whether the state follows the median."""
        return self.rule in ("tracked", "tracked_log")

    def start(
        self, points: jax.Array, alive: jax.Array | None = None
    ) -> bandwidths.TrackedMedian | None:
        """Start to follow the median of points ``(n, d)``, those alive, if that is the rule."""
        if not self.is_tracked:
            return None
        refine = lambda _, median: bandwidths.update(
            median, pairwise.count_within(points, points, median.threshold), alive
        )
        return jax.lax.fori_loop(0, _FIRST_UPDATES, refine, bandwidths.track(points, alive))

    def at(
        self, points: jax.Array, alive: jax.Array, median: bandwidths.TrackedMedian | None
    ) -> jax.Array:
        """Return h for the living among ``points``."""
        if self.rule is None:
            return jnp.asarray(self.value, points.dtype)
        if median is None:
            return bandwidths.from_rule(self.rule, points, where=alive)
        num = jnp.sum(alive)
        if self.rule == "tracked_log":
            return median.bandwidth(num)
        return jnp.where(num > 1, median.threshold, 1)

    def follow(
        self,
        median: bandwidths.TrackedMedian | None,
        points: jax.Array,
        alive: jax.Array,
        near: jax.Array | None,
    ) -> bandwidths.TrackedMedian | None:
        """Correct the median by the count of near pairs, taken here if the method has not."""
        if median is None:
            return None
        if near is None:
            near = pairwise.count_within(points, points, median.threshold)
        return bandwidths.update(median, near, alive)


def check_bandwidth(value: Any) -> Bandwidth:
    """Return a `Bandwidth` for the name of a rule or a positive number; else raise."""
    if isinstance(value, Bandwidth):
        return value
    if isinstance(value, str):
        return Bandwidth(None, choice("bandwidth", value, RULES))
    if value is None:
        raise TypeError(f"bandwidth must be a positive number or one of {RULES}, got None")
    return Bandwidth(real_parameter("bandwidth", value, 0.0, scalar=True), None)


def check_kernel(kernel: Any) -> Kernel:
    """Return a kernel with scalar parameters; the inverse multiquadric for None. Else raise."""
    kernel = IMQ(1.0) if kernel is None else as_kernel(kernel)
    if kernel.has_jet and any(jnp.ndim(leaf) for leaf in jax.tree.leaves(kernel)):
        raise ValueError(f"kernel must have scalar parameters, got {kernel}")
    return kernel


def check_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """Return an optax transformation, Adam with learning rate 0.05 for None. Else raise."""
    if optimizer is None:
        return _ADAM
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be an optax transformation such as optax.adam(0.05), got "
            f"{type(optimizer).__name__}: {optimizer!r}"
        )
    return optimizer
