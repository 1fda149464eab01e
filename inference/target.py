"""A density to sample, as a pytree: the one form in which the driver knows models."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Target(eqx.Module):
    """A log density on unconstrained positions, and the way back to what the user asked for.

    Make one with `from_numpyro` or `from_log_density`. A target is a pytree whose arrays are the
    model's data: programs compiled for it serve other data of the same shape.

    Attributes
    ----------
    is_numpyro
        Whether it came from a NumPyro model.
    """

    is_numpyro = False

    @staticmethod
    def from_log_density(log_density: Callable[[Any], jax.Array]) -> "Target":
        """Make a target of a log density over a pytree of floating arrays.

        Parameters
        ----------
        log_density
            Maps one position to a scalar, up to a constant. A bound method of an
            ``equinox.Module`` brings its arrays along as data.

        Raises
        ------
        TypeError
            If it cannot be called.
        """
        if not callable(log_density):
            raise TypeError(f"log_density must be a function, got {log_density!r}")
        return LogDensityTarget(log_density)

    @staticmethod
    def from_numpyro(
        model: Callable,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> "Target":
        """Make a target of a NumPyro model and its data.

        Positions are dicts of unconstrained values; the log density has the Jacobian of the
        transforms, so that draws on the constrained space follow the model's posterior.

        Parameters
        ----------
        model
            A function of NumPyro primitives, whose latent sites are all continuous.
        model_args, model_kwargs
            Its arguments. Arrays (of NumPy or JAX) become data of compiled programs; all else, such
            as integers that give a size, is part of the program. A model that looks at the values
            of its arrays in Python is recognised, and its arrays become part of the program too.

        Raises
        ------
        TypeError, ValueError
            If the model cannot be called with these arguments or has sites that cannot be sampled:
            none, discrete ones, ``param`` sites, subsampling plates. The message names the site.

        Examples
        --------
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from shoal.inference import Target
        >>> def model():
        ...     numpyro.sample("scale", dist.HalfNormal(1.0))
        >>> target = Target.from_numpyro(model)
        >>> bool(target.constrain(target.init(jax.random.key(0)))["scale"] > 0)
        True
        """
        from shoal.inference.numpyro import numpyro_target

        return numpyro_target(model, tuple(model_args), dict(model_kwargs or {}))

    def log_density(self, position: Any) -> jax.Array:
        """Return the log density, a scalar, of one unconstrained position."""
        raise NotImplementedError

    def constrain(self, position: Any) -> dict[str, jax.Array]:
        """Return the values a position stands for, by name: latent and deterministic sites."""
        raise NotImplementedError

    def init(self, key: jax.Array) -> Any:
        """Return a start, one unconstrained position."""
        raise NotImplementedError

    def explain_bad_start(self, position: Any, chain: int) -> str:
        """Say what is not finite at a start: the leaf, the value, and for a model the site."""
        value, gradient = jax.value_and_grad(self.log_density)(position)
        words = [f"init: chain {chain} starts where the log density is {float(value)}"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
            if len(bad):
                name = "position" + jax.tree_util.keystr(path)
                index = tuple(bad[0].tolist())
                at = np.asarray(jax.tree.leaves(_get(position, path))[0])[index]
                words.append(
                    f"the gradient is {np.asarray(leaf)[index]} at {name}{list(index)} = {at}"
                )
        return "; ".join(words) + self._hint(position)

    def _hint(self, position: Any) -> str:
        return ". Start inside the support, where density and gradient are finite"


class LogDensityTarget(Target):
    """A user's log density; constraining is naming."""

    function: Callable[[Any], jax.Array]

    def log_density(self, position: Any) -> jax.Array:
        """Return the log density of a position, checked to be a floating scalar."""
        value = jnp.asarray(self.function(position))
        if value.shape != ():
            raise ValueError(
                f"log_density must return a scalar, got shape {value.shape}; sum over coordinates"
            )
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"log_density must return a float, got dtype {value.dtype}")
        return value

    def constrain(self, position: Any) -> dict[str, jax.Array]:
        """Return a dict as it is, other pytrees by the paths of their leaves."""
        if isinstance(position, dict) and all(eqx.is_array(v) for v in position.values()):
            return position
        leaves = jax.tree_util.tree_leaves_with_path(position)
        name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
        return {name(path) or "position": leaf for path, leaf in leaves}

    def init(self, key: jax.Array) -> Any:
        """Raise: nothing is known about where a bare log density lives."""
        raise ValueError("a log density does not say where to start: give init")


def _get(tree: Any, path: Any) -> Any:
    """Return the leaf of a pytree at a path."""
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]
