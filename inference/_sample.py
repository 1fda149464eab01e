"""The front door: draws from a NumPyro model or a log density, with any sampler."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from shoal import _canary
from shoal.inference import _recipe
from shoal.inference._arguments import as_arguments
from shoal.inference._draw import Conduct, Options, Plan, draw, split_key
from shoal.inference._journal import Checkpoint, as_checkpoint
from shoal.inference._lock import Lock
from shoal.inference._recipe import Model
from shoal.inference.interruption import Interruption
from shoal.inference.progress import Progress
from shoal.inference.result import Result
from shoal.inference.samplers import is_ensemble
from shoal.inference.starts import (
    as_target,
    ensemble_positions,
    initial_positions,
    usable_starts,
)
from shoal.sampling.core._checks import real_parameter
from shoal.sampling.core.random import check_key


class SamplingWarning(UserWarning):
    """The run ended, but something in it deserves attention."""


class SamplingError(RuntimeError):
    """The run went wrong and ``on_failure="raise"``; ``result`` holds what was drawn."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def sample(
    key: jax.Array,
    model: Callable | Any,
    sampler: Any = "nuts",
    *,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_chains: int = 4,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    thin: int = 1,
    init: Any = None,
    tune_metric: str | None = "diagonal",
    target_acceptance: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    checkpoint: str | Path | Checkpoint | None = None,
    mesh: Mesh | None = None,
    bad_starts: str = "raise",
    on_failure: str = "warn",
) -> Result:
    """Draw from a posterior.

    The first Ctrl-C (SIGINT) or SIGTERM ends the run after the current chunk and returns what was
    drawn, with ``outcome="interrupted"``; the second one raises ``KeyboardInterrupt`` at once.

    Parameters
    ----------
    key
        Typed key of shape ``()``, such as ``jax.random.key(0)``. Same key, same draws.
    model
        A NumPyro model; or a log density over a pytree of floating arrays, with ``init``; or a
        `shoal.inference.Target`.
    sampler
        A sampler of this package (``langevin.mala()``), any BlackJAX algorithm with its parameters
        bound (``functools.partial(blackjax.hmc, step_size=..., ...)``), or a name: ``"nuts"``,
        ``"mclmc"`` (BlackJAX's), ``"auto"``, ``"malt"``, ``"mams"``, ``"mala"``, ``"ula"``,
        ``"baoab"``, ``"obabo"``. Of an unadjusted sampler the scores are kept beside the draws
        until the end of the run, twice the memory, and ``result.bias`` estimates its bias from
        them.
    model_args, model_kwargs
        Arguments of a NumPyro model. Arrays are arguments of the compiled program: other data of
        the same shape compile nothing.
    num_chains
        Number of independent chains, run side by side. With an ensemble method (``stein.svgd()``
        and its kin, ``langevin.ensemble.aldi()``) each chain is an ensemble of its own.
    num_warmup
        Steps before the draws. They tune step size and metric where the sampler has them; 0 uses
        the sampler's parameters as they are. Of an ensemble method these are all its steps.
    num_samples
        Draws to keep from each chain. With an ensemble method: the number of particles of each
        ensemble, whose positions after the last step are the draws.
    thin
        Keep every ``thin``-th step.
    init
        Where to start. For a NumPyro model: None (uniform on (-2, 2) in unconstrained space, drawn
        again until density and gradient are finite) or a dict of values on the constrained space,
        of one point or with a leading chain axis; sites left out start at random. For a log
        density: a position with a leading chain axis, one position for all chains, or a function
        ``init(key) -> position`` that is called for every chain. Of an ensemble method every
        particle needs a start: leading axes ``(num_chains, num_samples)``, or a function.
    tune_metric
        ``"diagonal"``, ``"dense"`` or None, for samplers with a metric (``metric`` in ours,
        ``inverse_mass_matrix`` in BlackJAX's).
    target_acceptance
        Acceptance rate that warm-up tunes the step size for, in (0, 1); the method's own by
        default.
    progress
        True for a live line, False for silence, or a function that receives a `Progress`.
    checkpoint
        Folder to save the run to, every ten seconds and at its end, or a `Checkpoint` that says
        more. The same call with the same folder continues where the run was when it was killed or
        interrupted, bit for bit, and returns at once if it was finished; with a larger
        ``num_samples`` it goes on from there. See also `resume`.
    mesh
        Mesh of one axis, such as ``jax.make_mesh((jax.device_count(),), ("chains",))``, over whose
        devices to split the chains. They never communicate. With several processes each one gets
        all draws.
    bad_starts
        When density or gradient are not finite at the start of a chain: ``"raise"``, ``"drop"`` the
        chain, or ``"resample"``: start it as a copy of another chain's start, drawn at random.
    on_failure
        When chains got stuck or steps met densities that are not finite: ``"warn"``, ``"raise"``
        (`SamplingError`, which holds the result) or ``"ignore"``. Counts are in the result anyhow.

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, or a start is: the message names the argument, the leaf, the
        chain and the value. If ``checkpoint`` holds another run, or is damaged.
    BlockingIOError
        If another process works in ``checkpoint``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from shoal.inference import sample
    >>> from shoal.sampling import langevin
    >>> result = sample(
    ...     jax.random.key(0),
    ...     lambda x: -0.5 * jnp.sum(x**2),
    ...     langevin.mala(step_size=0.5),
    ...     init=jnp.zeros((4, 3)),
    ...     num_warmup=100,
    ...     num_samples=200,
    ...     progress=False,
    ... )
    >>> result.posterior["position"].shape
    (4, 200, 3)
    """
    check_key(key)
    _check_numbers(num_chains=num_chains, num_samples=num_samples, thin=thin)
    _check_numbers(lowest=0, num_warmup=num_warmup)
    _check_choice("tune_metric", tune_metric, ("diagonal", "dense", None))
    _check_choice("on_failure", on_failure, ("warn", "raise", "ignore"))
    _check_choice("bad_starts", bad_starts, ("raise", "drop", "resample"))
    if target_acceptance is not None:
        real_parameter("target_acceptance", target_acceptance, 0.0, 1.0, scalar=True)
    args, kwargs = as_arguments(model_args, model_kwargs)
    _canary.warn_if_wrong()

    folder = as_checkpoint(checkpoint)
    target = as_target(model, args, kwargs, init)
    key_starts = split_key(key)[0]
    # Ids of chains are not negative, so that this key is none of theirs.
    key_choice = jax.random.fold_in(key_starts, jnp.int32(-1))
    if is_ensemble(sampler):
        _check_ensemble(thin, bad_starts)
        positions = ensemble_positions(target, init, num_chains, num_samples, key_starts)
        positions, remarks = usable_starts(target, positions, bad_starts, key_choice)
        split = lambda leaf: leaf.reshape(num_chains, num_samples, *leaf.shape[1:])
        positions = jax.tree.map(split, positions)
    else:
        positions = initial_positions(target, init, num_chains, key_starts)
        positions, remarks = usable_starts(target, positions, bad_starts, key_choice)
        num_chains = len(jax.tree.leaves(positions)[0])
    options = Options(num_chains, num_warmup, num_samples, thin, tune_metric, target_acceptance)
    plan = Plan(key, target, sampler, positions, options)
    return _conduct(
        plan, Model(model, args, kwargs), Conduct(mesh, folder, progress), on_failure, remarks
    )


def resume(
    checkpoint: str | Path | Checkpoint,
    model: Callable | Any = None,
    sampler: Any = None,
    *,
    model_args: Sequence[Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    mesh: Mesh | None = None,
    on_failure: str = "warn",
) -> Result:
    """Continue a run of `sample` from its folder.

    The draws are those of a run that was never interrupted, bit for bit, on the same machine with
    the same versions and numbers of chains on a device.

    Parameters
    ----------
    checkpoint
        The folder given to `sample`, or a `Checkpoint`.
    model, sampler
        Needed only where the folder cannot tell: it stores a model by its name, which is looked up
        among the functions of imported modules that are no installed library, and a sampler of this
        package or one given by name.
    model_args, model_kwargs
        Needed only where they were not arrays and numbers in lists, tuples and dicts.
    num_samples
        Draws from each chain in all; more than before makes the run longer.
    progress, mesh, on_failure
        As in `sample`. The number of devices may be another one than before.

    Returns
    -------
    Result
        All draws, those made before too.

    Raises
    ------
    FileNotFoundError
        If the folder holds no run.
    ValueError
        If the folder is damaged, if the model or its data have changed, or if something is to be
        given that the folder cannot tell; the message says what.
    BlockingIOError
        If another process works in the folder.

    Examples
    --------
    >>> import tempfile, jax, jax.numpy as jnp
    >>> from shoal.inference import resume, sample
    >>> density = lambda x: -0.5 * jnp.sum(x**2)
    >>> quiet = dict(progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = sample(
    ...         jax.random.key(0), density, "mala", init=jnp.zeros(2), num_warmup=20,
    ...         num_samples=30, checkpoint=folder, **quiet,
    ...     )
    ...     longer = resume(folder, density, num_samples=50, **quiet)
    >>> longer.posterior["position"].shape
    (4, 50, 2)
    """
    folder = as_checkpoint(checkpoint)
    if folder is None:
        raise TypeError("checkpoint is None: name the folder of the run to continue")
    if num_samples is not None:
        _check_numbers(num_samples=num_samples)
    _check_choice("on_failure", on_failure, ("warn", "raise", "ignore"))
    _canary.warn_if_wrong()
    plan, given = _recipe.read(
        Path(folder.directory), model, model_args, model_kwargs, sampler, num_samples
    )
    return _conduct(plan, given, Conduct(mesh, folder, progress), on_failure)


def _conduct(
    plan: Plan, given: Model, conduct: Conduct, on_failure: str, remarks: Sequence[str] = ()
) -> Result:
    """Draw, in the run's folder if there is one, and speak up about what went wrong."""
    with ExitStack() as stack:
        stack.enter_context(Interruption())
        folder = conduct.checkpoint
        if folder is not None:
            stack.enter_context(Lock(Path(folder.directory)))
            _recipe.write(Path(folder.directory), plan, given, folder.allow_changed_target)
        result, problems = draw(plan, conduct)
        problems = [*remarks, *problems]
    if result.outcome == "interrupted" and folder is not None:
        problems.append(f"resume({str(folder.directory)!r}) continues")
    if problems and on_failure == "raise" and result.outcome != "interrupted":
        raise SamplingError("; ".join(problems), result)
    if problems and on_failure != "ignore":
        warnings.warn("; ".join(problems), SamplingWarning, stacklevel=3)
    return result


def _check_ensemble(thin: int, bad_starts: str) -> None:
    if thin != 1:
        raise ValueError(
            f"thin must be 1 for an ensemble, whose draws are its particles after num_warmup steps;"
            f" got {thin}"
        )
    if bad_starts == "drop":
        raise ValueError(
            "bad_starts='drop' would leave ensembles of different sizes: take 'resample'"
        )


def _check_numbers(lowest: int = 1, **numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value}")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
