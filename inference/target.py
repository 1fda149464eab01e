"""Targets: a model or a log density as a log density on R^d, and the way back.

A `Target` is a pytree. The arrays of a model are its leaves, all else is static, so a compiled
function of a target serves other data of the same shapes without compiling again.
"""

import abc
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference._arguments import Arguments, as_arguments, check_names, freeze, split
from shoal.sampling.core._checks import (
    check_callable,
    check_finite,
    check_position,
    real_scalar,
    real_values,
)

if TYPE_CHECKING:
    from shoal.inference.numpyro import NumPyroTarget


class Target(eqx.Module):
    """A log density over a pytree of unconstrained real arrays, with its way to the model's space.

    Make one with `from_numpyro` or `from_log_density`. A target is an immutable pytree: pass it
    to compiled functions as an argument, and new data of the same shapes compile nothing.
    """

    @staticmethod
    def from_numpyro(
        model: Callable[..., Any],
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> "NumPyroTarget":
        """Make a target of a NumPyro model.

        NumPy and JAX arrays among the arguments are leaves of the target. Numbers (Python's and
        NumPy's scalars), strings and None are static: another value compiles again. A model that
        looks at its data while it is traced (``int(group.max())``) gets all its arguments as
        constants; ``dynamic_data`` is then False, and new data compile again. Arguments bound with
        ``functools.partial`` count as arguments.

        Every latent site keeps its exact law: the log density at ``z`` is the model's log joint
        density at ``constrain(z)`` plus the log determinant of the Jacobian. That holds under
        ``numpyro.handlers.scale`` and ``mask`` too, which act on the model's density and not on
        the Jacobian (NumPyro's own potential scales and masks both). ``numpyro.param`` sites are
        held at their initial values.

        Parameters
        ----------
        model
            A function with NumPyro sites. Keep the function: a new lambda is a new model.
        model_args, model_kwargs
            Its arguments, observations included.

        Returns
        -------
        NumPyroTarget

        Raises
        ------
        TypeError
            If ``model`` is not callable, the arguments do not fit it, or one is an array of
            objects or strings.
        ValueError
            If the model fails when traced, has no latent site, a latent site that is discrete or
            on a space without coordinates, a plate that subsamples, or observations outside the
            support of their distribution: the message names the site or plate.

        Examples
        --------
        >>> import jax, numpy as np, numpyro, numpyro.distributions as dist
        >>> from shoal.inference import Target
        >>> def model(y):
        ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        ...     numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
        >>> target = Target.from_numpyro(model, (np.array([0.3, -1.2]),))
        >>> target.dim, target.names
        (1, ('scale',))
        >>> position = target.unconstrain({"scale": 1.0})
        >>> print(position["scale"], target.constrain(position)["scale"])
        0.0 1.0
        """
        from shoal.inference.numpyro import make

        return make(model, *as_arguments(model_args, model_kwargs))

    @staticmethod
    def from_log_density(log_density: Callable[[Any], Any], init: Any = None) -> "LogDensityTarget":
        """Make a target of a log density over any pytree of floating arrays.

        Parameters
        ----------
        log_density
            Maps a position to a scalar. Arrays that a ``functools.partial`` or an
            ``equinox.Module`` carries are leaves of the target, unless the function looks at their
            values while it is traced; what a plain function closes over is constant.
        init
            A position, or a function ``init(key) -> position``. Needed for `Target.init`,
            `Target.dim`, `Target.names` and the early check of what ``log_density`` returns.

        Raises
        ------
        TypeError, ValueError
            If ``log_density`` is not callable or does not return a real floating scalar, or
            ``init`` has no leaves, leaves that are not floating, several dtypes, or a number that
            is not finite.

        Examples
        --------
        >>> import jax, jax.numpy as jnp
        >>> from shoal.inference import Target
        >>> target = Target.from_log_density(lambda x: -0.5 * jnp.sum(x**2), init=jnp.ones(3))
        >>> print(target.dim, target.log_density(jnp.ones(3)))
        3 -1.5
        """
        check_callable("log_density", log_density)
        if isinstance(log_density, functools.partial):
            log_density = jax.tree_util.Partial(
                log_density.func, *log_density.args, **log_density.keywords
            )
        if init is not None and not callable(init):
            check_position("init", init)
            init = jax.tree.map(jnp.asarray, init)
        start = None if init is None else split(init)
        target = LogDensityTarget(split(log_density), start)
        if init is None:
            return target
        check_position("init", target.position_shape)
        evaluate = lambda target, position: target.log_density(position)
        try:
            jax.eval_shape(evaluate, target, target.position_shape)
        except _NEEDS_VALUES:
            target = LogDensityTarget(freeze(log_density), start)
            jax.eval_shape(evaluate, target, target.position_shape)
        return target

    @property
    @abc.abstractmethod
    def is_numpyro(self) -> bool:
        """Whether the target is a NumPyro model."""

    @property
    @abc.abstractmethod
    def position_shape(self) -> Any:
        """Position with ``jax.ShapeDtypeStruct`` leaves."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of what is sampled: latent sites, or the leaves of a position."""

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates, d."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.position_shape))

    @abc.abstractmethod
    def log_density(self, position: Any) -> jax.Array:
        """Log density of one unconstrained position, a scalar; Jacobian included."""

    @abc.abstractmethod
    def constrain(self, position: Any) -> dict[str, jax.Array]:
        """Values by name on the model's own space, deterministic sites too, observed ones not."""

    @abc.abstractmethod
    def unconstrain(self, values: Mapping[str, Any]) -> Any:
        """Position of values given by name on the model's own space: `constrain`'s inverse."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Position to start at, drawn with a typed key; maps over keys with ``jax.vmap``."""

    @abc.abstractmethod
    def explain_bad_start(self, position: Any, index: int) -> str:
        """Say why a start is no start: density, leaf, value and, for a model, site and data.

        Parameters
        ----------
        position
            One concrete position whose log density or gradient is not finite.
        index
            The particle or chain to name.
        """

    def observed_data(self) -> dict[str, jax.Array] | None:
        """Values of the observed sites by name; None for a log density."""
        return None

    def log_likelihood(
        self, posterior: Mapping[str, Any], batch_ndims: int = 2
    ) -> dict[str, jax.Array] | None:
        """Log likelihood of every observation under each draw; None for a log density.

        Parameters
        ----------
        posterior
            Constrained draws by name, each with ``batch_ndims`` leading axes; names that are not
            latent sites are ignored.
        batch_ndims
            Number of leading axes that index draws.

        Returns
        -------
        dict or None
            Arrays ``(*draws, *observations)`` by observed site.
        """
        return None

    def predictive(
        self, key: jax.Array, posterior: Mapping[str, Any], batch_ndims: int = 2
    ) -> dict[str, jax.Array] | None:
        """Draw every observed site anew, once for each posterior draw; None for a log density.

        Parameters
        ----------
        key
            Typed key.
        posterior, batch_ndims
            As in `log_likelihood`.

        Returns
        -------
        dict or None
            Arrays ``(*draws, *observations)`` by observed site.
        """
        return None

    def prior_predictive(self, key: jax.Array, num_samples: int) -> dict[str, jax.Array] | None:
        """Draw latent, deterministic and observed sites from the model; None for a log density.

        Returns
        -------
        dict or None
            Arrays ``(num_samples, ...)`` by name; empty where a prior cannot be drawn from
            (``ImproperUniform``).
        """
        return None


class LogDensityTarget(Target):
    """A log density given as a function. Its unconstrained space is its own space."""

    function: Arguments
    start: Arguments | None

    @property
    def is_numpyro(self) -> bool:
        """False: there are no sites."""
        return False

    @property
    def dynamic_data(self) -> bool:
        """Whether arrays that the function carries are leaves of the target."""
        leaves = (leaf.value for leaf in self.function.structure.leaves if leaf is not None)
        return not any(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves)

    @property
    def position_shape(self) -> Any:
        """Shapes and dtypes of ``init``'s leaves."""
        return jax.eval_shape(self.init, jax.random.key(0))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the leaves of ``init``, as `constrain` gives them."""
        return tuple(_by_name(self.position_shape))

    def log_density(self, position: Any) -> jax.Array:
        """Log density of one position, a scalar.

        Raises
        ------
        TypeError, ValueError
            If the function returns anything but a real floating scalar.
        """
        return real_scalar("log_density", self.function.tree(position))

    def constrain(self, position: Any) -> dict[str, jax.Array]:
        """Leaves by name.

        A dict of arrays is itself, a lone array is ``"position"``; leaves of other pytrees are
        named by their path, joined by dots: ``"network.bias"``, ``"position.0"``.
        """
        return _by_name(position)

    def unconstrain(self, values: Mapping[str, Any]) -> Any:
        """Put named leaves back into a position.

        Raises
        ------
        TypeError, ValueError
            If the target was made without ``init``, whose structure is needed; if a name is
            missing or unknown; or if values are not numbers, not of the shape of ``init`` or
            (unless traced) not finite.
        """
        shape = self.position_shape
        check_names("values", values, self.names)
        if set(values) != set(self.names):
            raise ValueError(f"values lack {sorted(set(self.names) - set(values))}")
        leaves = []
        for name, leaf in _by_name(shape).items():
            value = real_values(f"values[{name!r}]", values[name])
            if value.shape != leaf.shape:
                raise ValueError(
                    f"values[{name!r}] has shape {value.shape}; it must have shape {leaf.shape}"
                )
            check_finite(f"values[{name!r}]", value)
            leaves.append(jnp.asarray(value, leaf.dtype))
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    def init(self, key: jax.Array) -> Any:
        """Return ``init`` as it was given, or ``init(key)``.

        Raises
        ------
        ValueError
            If the target was made without ``init``.
        """
        if self.start is None:
            raise ValueError(
                "init is missing: a log density does not say what its positions look like; "
                "use Target.from_log_density(log_density, init=position)"
            )
        start = self.start.tree
        return start(key) if callable(start) else start

    def explain_bad_start(self, position: Any, index: int) -> str:
        """Say what is not finite at a start; see `Target.explain_bad_start`."""
        value, gradient = jax.value_and_grad(self.log_density)(position)
        return explain(index, _by_name(position), value, _by_name(gradient), [])


# What JAX raises when a traced function looks at the value of an array.
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def _by_name(position: Any) -> dict[str, Any]:
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        names[name if name[:1].isidentifier() else f"position.{name}".rstrip(".")] = leaf
    return names


def explain(
    index: int,
    values: Mapping[str, Any],
    log_density: Any,
    gradient: Mapping[str, Any],
    reasons: Sequence[str],
) -> str:
    """Put together the message of `Target.explain_bad_start`."""
    broken = [name for name, leaf in values.items() if not np.all(np.isfinite(leaf))]
    slopes = [name for name, leaf in gradient.items() if not np.all(np.isfinite(leaf))]
    places = [f"{name!r}{_first_bad(gradient[name])}" for name in slopes]
    if not np.isfinite(log_density):
        what = f"the log density is {float(log_density):g}"
    elif slopes:
        what = f"the gradient of the log density is not finite in {', '.join(places)}"
    else:
        what = "log density and gradient are finite"
    shown = (broken or slopes or list(values))[:4]
    where = ", ".join(
        f"{name!r} = {_short(values[name])}{_first_bad(values[name])}"
        for name in shown
        if name in values
    )
    sentences = [f"particle {index} cannot start: {what} at init with {where}", *reasons]
    return "; ".join(sentences)


def _first_bad(value: Any) -> str:
    """Name the first entry that is not finite, as ``" (entry [1, 0])"``; "" if there is none."""
    places = np.argwhere(~np.isfinite(np.asarray(value)))
    return f" (entry {places[0].tolist()})" if places.size else ""


def _short(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=4, threshold=6).replace("\n", "")
