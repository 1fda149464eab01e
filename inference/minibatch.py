"""Targets whose log density is estimated from minibatches: arrays, or a subsampling NumPyro model.

A target made here runs through `sample` with `langevin.sgld`, `sghmc` or `sgnht`. Its full log
density remains: starts are checked by it, any other sampler uses it, and of a NumPyro model all
that a result says (log likelihoods, predictions) is of all the data.

A model subsamples by ``numpyro.plate(name, size, subsample_size=m)``, whose indices are drawn here
with the key of the step, without replacement. The plate scales the log densities of its sites by
size/m; all sites outside it, and every Jacobian, enter as they are. So the estimate is unbiased.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from shoal.inference._arguments import Static, as_arguments
from shoal.inference._inspection import model_name, why_it_fails
from shoal.inference._sites import constrained
from shoal.inference.numpyro import NumPyroTarget, make
from shoal.inference.target import LogDensityTarget, Target
from shoal.sampling.core import minibatches
from shoal.sampling.core._checks import check_callable, check_position
from shoal.sampling.core.random import check_key
from shoal.sampling.langevin import gradient_estimators


class MinibatchTarget(Target):
    """What targets with minibatches share: a log density that is a `StochasticDensity`.

    Attributes
    ----------
    estimator
        How scores are estimated; see `control_variates` and `svrg`.
    """

    estimator: Any

    @property
    def minibatches(self) -> minibatches.Minibatches:
        """The minibatches of the log density."""
        raise NotImplementedError

    @property
    def log_density(self) -> gradient_estimators.StochasticDensity:
        """The log density by all the data, a function of a position that has minibatches too."""
        return gradient_estimators.StochasticDensity(self.minibatches, self.estimator)

    def control_variates(self, center: Any) -> "MinibatchTarget":
        """Return the target with scores that are exact at a point and have little noise near it.

        Parameters
        ----------
        center
            Unconstrained position, close to the mode. One gradient of all the data is computed.

        Raises
        ------
        TypeError, ValueError
            If ``center`` is no finite position of the target.
        """
        check_position("center", center)
        density = gradient_estimators.control_variates(self.minibatches, center)
        return eqx.tree_at(lambda target: target.estimator, self, density.estimator)

    def svrg(self, refresh_every: int) -> "MinibatchTarget":
        """Return the target with scores relative to the chain's own point of some steps ago.

        Parameters
        ----------
        refresh_every
            Steps after which the chain's present point takes over, for one gradient of all the
            data.

        Raises
        ------
        TypeError, ValueError
            If ``refresh_every`` is no positive integer.
        """
        density = gradient_estimators.svrg(self.minibatches, refresh_every)
        return eqx.tree_at(lambda target: target.estimator, self, density.estimator)


class ArrayTarget(MinibatchTarget, LogDensityTarget):
    """Log prior and log likelihood of rows of arrays; made by `from_arrays`."""

    @property
    def minibatches(self) -> minibatches.Minibatches:
        """The minibatches of the log density."""
        return self.function.tree


class SubsampledTarget(MinibatchTarget, NumPyroTarget):
    """A NumPyro model with plates that subsample; made by `from_numpyro`.

    Attributes
    ----------
    plates
        Name, size and subsample size of each of these plates.
    """

    plates: tuple[tuple[str, int, int], ...] = eqx.field(static=True)

    @property
    def minibatches(self) -> minibatches.Minibatches:
        """The minibatches of the log density."""
        return _Plates(self)


def from_arrays(
    log_prior: Callable[[Any], jax.Array],
    log_likelihood: Callable[[Any, Any], jax.Array],
    data: Any,
    batch_size: int,
    init: Any = None,
) -> ArrayTarget:
    """Make a target of a log prior, a log likelihood of rows and arrays in memory.

    Parameters
    ----------
    log_prior, log_likelihood, data, batch_size
        As in `shoal.sampling.core.minibatches.from_arrays`.
    init
        As in `Target.from_log_density`.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from shoal.inference import minibatch
    >>> target = minibatch.from_arrays(
    ...     lambda x: -0.5 * x**2, lambda x, y: -0.5 * (y - x) ** 2, jnp.arange(10.0), batch_size=2,
    ...     init=jnp.array(0.0),
    ... )
    >>> print(target.dim, target.log_density(jnp.array(4.0)))
    1 -50.5
    """
    density = minibatches.from_arrays(log_prior, log_likelihood, data, batch_size)
    whole = Target.from_log_density(density, init)
    return ArrayTarget(
        function=whole.function, start=whole.start, estimator=gradient_estimators.Plain()
    )


def from_numpyro(
    model: Callable[..., Any],
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> SubsampledTarget:
    """Make a target of a NumPyro model with plates that subsample.

    Parameters
    ----------
    model, model_args, model_kwargs
        As in `Target.from_numpyro`. Latent sites must lie outside the plates that subsample, and
        data within them must be those of the plate's indices: ``obs=y[rows]`` where
        ``with plate as rows``, or ``numpyro.subsample(y, event_dim=0)``.

    Raises
    ------
    TypeError, ValueError
        As `Target.from_numpyro`; also if no plate subsamples, or one that does holds a latent site.

    Examples
    --------
    >>> import jax, numpy as np, numpyro, numpyro.distributions as dist
    >>> from shoal.inference import minibatch, sample
    >>> from shoal.sampling import langevin
    >>> def model(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    ...     with numpyro.plate("rows", len(y), subsample_size=50) as rows:
    ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])
    >>> y = np.random.default_rng(0).normal(3.0, size=1000)
    >>> target = minibatch.from_numpyro(model, (y,))
    >>> result = sample(
    ...     jax.random.key(0), target.svrg(refresh_every=20), langevin.sgld(1e-4), num_chains=2,
    ...     num_warmup=100, num_samples=100, progress=False,
    ... )
    >>> bool(abs(result.posterior["mean"].mean() - y.mean()) < 0.1)
    True
    """
    check_callable("model", model)
    args, kwargs = as_arguments(model_args, model_kwargs)
    while isinstance(model, functools.partial):
        args, kwargs = (*model.args, *args), {**model.keywords, **kwargs}
        model = model.func
    whole = make(_Whole(model), args, kwargs)
    fields = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    target = SubsampledTarget(
        **fields, plates=_find_plates(model, whole), estimator=gradient_estimators.Plain()
    )
    _check_batch(model, target)
    return target


@dataclasses.dataclass(frozen=True)
class _Whole:
    """A model whose plates hold all they could draw from; equal if the models are."""

    model: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _FullPlates():
            return self.model(*args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What `inspect.signature` looks at."""
        return self.model

    @property
    def __name__(self) -> str:
        return model_name(self.model)


class _FullPlates(Messenger):
    """Make plates full; how many they would have drawn is noted in the trace."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "plate" and msg["value"] is None:
            size, msg["subsample_size"] = msg["args"]
            msg["args"], msg["value"] = (size, size), jnp.arange(size)


class _Plates(eqx.Module):
    """The minibatches of a model: indices of every plate that subsamples, by name."""

    target: SubsampledTarget

    def __call__(self, position: Any) -> jax.Array:
        return NumPyroTarget.log_density(self.target, position)

    def draw(self, key: jax.Array) -> dict[str, jax.Array]:
        check_key(key)
        return {
            name: minibatches.draw_subset(jax.random.fold_in(key, i), size, subsample_size)
            for i, (name, size, subsample_size) in enumerate(self.target.plates)
        }

    def estimate(self, position: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return _on_batch(self.target, batch).log_density(position)


class _Batch(NumPyroTarget):
    """A subsampling model with its plates' indices given."""

    indices: dict[str, jax.Array]

    def runnable(self) -> Callable[..., Any]:
        return handlers.substitute(super().runnable(), data=self.indices)


def _on_batch(target: SubsampledTarget, batch: dict[str, jax.Array]) -> _Batch:
    fields = {
        field.name: getattr(target, field.name) for field in dataclasses.fields(NumPyroTarget)
    }
    return _Batch(**{**fields, "model": Static(target.model.value.model)}, indices=batch)


def _find_plates(model: Callable[..., Any], whole: NumPyroTarget) -> tuple[Any, ...]:
    """Return name, size and subsample size of plates; raise if there is none to draw from."""
    trace = _abstract_trace(whole, whole.position_shape)
    plates = {
        name: (name, site["args"][0], site["subsample_size"])
        for name, site in trace.items()
        if site["type"] == "plate" and "subsample_size" in site
    }
    if not plates:
        raise ValueError(
            f"model {model_name(model)} has no plate with a subsample_size; without minibatches "
            "it is a Target.from_numpyro"
        )
    for site in whole.names:
        local = [frame.name for frame in trace[site]["cond_indep_stack"] if frame.name in plates]
        if local:
            raise ValueError(
                f"model {model_name(model)}: latent site {site!r} lies in plate {local[0]!r}, "
                "which subsamples; only sites outside it can be sampled from minibatches"
            )
    return tuple(plates.values())


def _check_batch(model: Callable[..., Any], target: SubsampledTarget) -> None:
    """Raise unless the model runs on a batch, and its observations there are those of the batch."""
    batch = jax.eval_shape(target.minibatches.draw, jax.random.key(0))
    try:
        trace = _abstract_trace(_on_batch(target, batch), target.position_shape)
    except Exception as error:
        raise ValueError(why_it_fails(model, error)) from error
    sizes = {name: subsample_size for name, _, subsample_size in target.plates}
    for name in target.observed:
        site = trace[name]
        value = jnp.shape(site["value"])
        rows = value[: len(value) - site["fn"].event_dim]
        for frame in site["cond_indep_stack"]:
            if frame.name in sizes and rows[frame.dim :][:1] not in ((), (sizes[frame.name],)):
                raise ValueError(
                    f"model {model_name(model)}: observed site {name!r} holds values of shape "
                    f"{value} in plate {frame.name!r}, which takes {sizes[frame.name]} rows: "
                    "index the data by the plate (obs=y[rows])"
                )


def _abstract_trace(target: NumPyroTarget, position: Any) -> dict[str, Any]:
    """Return the trace of a model that was run on shapes alone."""
    found: dict[str, Any] = {}

    def run(target: NumPyroTarget, position: Any) -> None:
        fill = functools.partial(constrained, position)
        found.update(target.run(handlers.substitute(target.runnable(), substitute_fn=fill)))

    jax.eval_shape(run, target, position)
    return found
