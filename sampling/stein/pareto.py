"""Pareto sets of expensive black boxes, learned by a network under a Stein update (SVH-PSL).

What is sought is every compromise between a few objectives, from few evaluations. In turn

- Gaussian processes are fitted to what was evaluated (`gpjax`; Matérn 5/2);
- a network from preferences to solutions is trained on their lower confidence bounds
  v = μ - β σ, by gradients that preferences share through a kernel and that keep their values apart
  (see `_pareto_network` for the equations);
- of its solutions for many random preferences, those are evaluated whose bounds add most
  hypervolume.

All of it is a heuristic: the front found is one of evaluated points, which is never better than the
true one, and the learned map is as good as the processes are.

The official code differs in three ways. It squares the median squared difference once more in the
kernel's bandwidth, which is then no longer one in the units of the differences
(``bandwidth="squared_median"`` does the same). It takes the variance for σ. And it chooses the
network at each step by a hypervolume whose reference point moves with the network's own values;
here the reference is that of the evaluated front, and every tenth network is looked at.

Reference: Nguyen, Dao, Nguyen et al., "Improving Pareto set learning for expensive multi-objective
optimization via Stein variational hypernetworks" (2024).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from shoal.sampling.core import _checks
from shoal.sampling.core.random import check_key
from shoal.sampling.stein import _pareto_network as networks
from shoal.sampling.stein._pareto_front import dominated_volume, nondominated

BANDWIDTHS = ("median", "squared_median")
# Of the front's range, added to the worst values where no reference point is given.
_MARGIN = 0.1
# How far the ideal point is below the best values, in their standard deviations.
_BEYOND_BEST = 0.1


class ParetoSet(NamedTuple):
    """What was evaluated, its front, and the learned map.

    Attributes
    ----------
    x
        Evaluated solutions in their order, float64 ``(n, d)``.
    y
        Their objectives, float64 ``(n, m)``.
    is_nondominated
        bool ``(n,)``: which of them no other dominates.
    hypervolume
        Volume that they dominate, up to ``reference_point``.
    reference_point
        The one given, or else the worst values that were evaluated plus a tenth of the front's
        range.
    num_invalid
        Evaluations with an objective that is not finite. They are in ``x`` and ``y``, and count
        nowhere; to the surrogate they are as bad as the worst that was seen.
    is_interrupted
        Whether an interruption ended the search early.
    bounds
        Lowest and highest solution, ``(2, d)``.
    network
        Weights of the learned map, or None if it was never trained.
    """

    x: np.ndarray
    y: np.ndarray
    is_nondominated: np.ndarray
    hypervolume: float
    reference_point: np.ndarray
    num_invalid: int
    is_interrupted: bool
    bounds: np.ndarray
    network: Any

    def solution(self, preference: Any) -> np.ndarray:
        """Return the learned compromise for preferences ``(..., m)``, of shape ``(..., d)``.

        A preference holds a nonnegative weight for each objective (their sum does not matter): the
        larger, the better that objective will be. Raises ``ValueError`` before any training.
        """
        if self.network is None:
            raise ValueError("preference needs a trained network; this set has none")
        array = np.asarray(_checks.real_values("preference", preference), np.float32)
        if array.shape[-1:] != self.y.shape[1:]:
            raise ValueError(f"preference must have {self.y.shape[1]} columns, got {array.shape}")
        is_good = lambda p: np.isfinite(p) & (p >= 0) & (p.sum(-1, keepdims=True) > 0)
        _checks.check_entries("preference", array, is_good, "nonnegative and not all zero")
        unit = array / array.sum(-1, keepdims=True)
        low, high = self.bounds
        return low + np.asarray(networks.forward(self.network, unit)[0], float) * (high - low)


class Learned(NamedTuple):
    """What was trained: the network, for which task, on how many evaluations."""

    network: networks.Network
    task: networks.Task
    num_evaluations: int


class ParetoState(NamedTuple):
    """A search at one moment: all of it follows from the key and what was evaluated.

    Attributes
    ----------
    key
        Run key.
    x, y
        Evaluated so far, float64 ``(n, d)`` and ``(n, m)``.
    learned
        Network and surrogate, or None before any training.
    """

    key: jax.Array
    x: np.ndarray
    y: np.ndarray
    learned: Learned | None


class ParetoSearch(NamedTuple):
    """A search, for whoever evaluates in their own way; made by `pareto_search`."""

    low: np.ndarray
    high: np.ndarray
    num_objectives: int
    num_initial: int
    reference_point: np.ndarray | None
    num_fit_iterations: int
    sizes: networks.Sizes
    rates: networks.Rates

    def init(self, key: jax.Array, x_initial: Any = None, y_initial: Any = None) -> ParetoState:
        """Return the state, with what was evaluated before, ``(n, d)`` and ``(n, m)``."""
        check_key(key)
        if (x_initial is None) != (y_initial is None):
            raise ValueError("x_initial and y_initial go together, got one without the other")
        state = ParetoState(
            key, np.empty((0, self.low.size)), np.empty((0, self.num_objectives)), None
        )
        if x_initial is None:
            return state
        return self._extended(state, x_initial, y_initial, ("x_initial", "y_initial"))

    def learn(self, state: ParetoState) -> ParetoState:
        """Return the state with surrogate and network trained on all of its evaluations."""
        if state.learned is not None and state.learned.num_evaluations == len(state.x):
            return state
        from shoal.sampling.stein._pareto_surrogate import fit, predict

        with jax.enable_x64(True):
            task = self._task(state, fit)
            key = jax.random.fold_in(state.key, 2 * len(state.x))
            network = networks.train(key, task, self.rates, self.sizes, predict, self.low.size)
        return state._replace(learned=Learned(network, task, len(state.x)))

    def ask(self, state: ParetoState) -> tuple[np.ndarray, ParetoState]:
        """Return solutions to evaluate next, and the state, trained where that was needed.

        The first are a Latin hypercube, of as many as are missing to ``num_initial``.
        """
        missing = self.num_initial - len(state.x)
        if missing > 0:
            return self._scaled(_latin_hypercube(state.key, missing, self.low.size)), state
        from shoal.sampling.stein._pareto_surrogate import predict

        state = self.learn(state)
        with jax.enable_x64(True):
            key = jax.random.fold_in(state.key, 2 * len(state.x) + 1)
            network, task, _ = state.learned
            unit = networks.propose(key, network, task, self.rates, self.sizes, predict)
        return self._scaled(unit), state

    def tell(self, state: ParetoState, x: Any, y: Any) -> ParetoState:
        """Return the state with solutions ``(n, d)`` and their objectives ``(n, m)`` added."""
        return self._extended(state, x, y, ("x", "objectives"))

    def result(self, state: ParetoState) -> ParetoSet:
        """Return what was found."""
        valid = np.isfinite(state.y).all(1)
        reference = self._reference(state.y[valid])
        with jax.enable_x64(True):
            volume = dominated_volume(jnp.asarray(state.y[valid]), jnp.asarray(reference))
        return ParetoSet(
            state.x, state.y, nondominated(state.y), float(volume), reference,
            int((~valid).sum()), False, np.stack([self.low, self.high]),
            None if state.learned is None else state.learned.network,
        )  # fmt: skip

    def _scaled(self, unit: Any) -> np.ndarray:
        return self.low + np.asarray(unit, float) * (self.high - self.low)

    def _reference(self, y: np.ndarray) -> np.ndarray:
        if self.reference_point is not None:
            return self.reference_point
        if not len(y):
            return np.full(self.num_objectives, np.nan)
        return y.max(0) + _MARGIN * np.ptp(y[nondominated(y)], axis=0)

    def _task(self, state: ParetoState, fit: Callable[..., Any]) -> networks.Task:
        """Return the surrogate of standardised objectives, and what goes with it."""
        valid = np.isfinite(state.y).all(1)
        if not valid.any():
            raise ValueError(f"objectives must be finite somewhere, got none in {len(valid)} rows")
        good = state.y[valid]
        y = np.where(valid[:, None], state.y, good.max(0))
        centre, spread = y.mean(0), y.std(0)
        spread = np.where(spread > 0, spread, 1.0)
        standard = lambda y: (y - centre) / spread
        surrogate = fit(
            (state.x - self.low) / (self.high - self.low), standard(y), self.num_fit_iterations
        )
        front = np.full((len(surrogate.inputs), self.num_objectives), np.inf)
        best = good[nondominated(good)]
        front[: len(best)] = standard(best)
        arrays = standard(good.min(0)) - _BEYOND_BEST, standard(self._reference(good)), front
        return networks.Task(surrogate, *map(jnp.asarray, arrays))

    def _extended(self, state: ParetoState, x: Any, y: Any, names: Any) -> ParetoState:
        x = _table(names[0], x, self.low.size)
        inside = lambda x: (x >= self.low) & (x <= self.high)
        _checks.check_entries(names[0], x, inside, "within bounds")
        y = _table(names[1], y, self.num_objectives)
        if len(x) != len(y):
            raise ValueError(
                f"{names[1]} must have a row for each of the {len(x)} rows of {names[0]}, got "
                f"shape {y.shape}"
            )
        return state._replace(x=np.concatenate([state.x, x]), y=np.concatenate([state.y, y]))


def pareto_set(
    key: jax.Array, objectives: Callable[[np.ndarray], Any], bounds: Any,
    num_objectives: int = 2, *, num_iterations: int = 20, x_initial: Any = None,
    y_initial: Any = None, on_iteration: Callable[[ParetoSet], Any] | None = None, **options: Any,
) -> ParetoSet:  # fmt: skip
    """Learn the Pareto set of objectives to be minimised, from few evaluations.

    Parameters
    ----------
    key
        Typed key; the result is a function of it.
    objectives
        From solutions, float64 ``(n, d)``, to their objectives ``(n, m)``; any Python function. An
        objective that is not finite marks a failed evaluation.
    bounds
        Lowest and highest solution: a pair of arrays ``(d,)``.
    num_objectives
        m, 2 or 3.
    num_iterations
        Batches to be evaluated after the initial design.
    x_initial, y_initial
        What was evaluated before, ``(n, d)`` and ``(n, m)``. A search with the same key and
        options goes on as the one these came from, after each of its batches.
    on_iteration
        Called with the `ParetoSet` so far after each evaluation of a batch; what it returns is
        ignored.
    **options
        Of `pareto_search`.

    Returns
    -------
    ParetoSet
        Its map is learned from all evaluations. If the search is interrupted
        (``KeyboardInterrupt``) after the first batch, what was evaluated is returned, with
        ``is_interrupted``.

    Raises
    ------
    TypeError, ValueError
        For impossible arguments, or objectives of another shape or kind than promised, or of which
        none is finite.

    References
    ----------
    Nguyen, Dao, Nguyen et al. (2024), Improving Pareto set learning for expensive multi-objective
    optimization via Stein variational hypernetworks, Algorithm 1.

    Examples
    --------
    >>> import jax
    >>> bumps = lambda x: np.stack([(x[:, 0] - 1) ** 2, x[:, 0] ** 2], 1)
    >>> found = pareto_set(
    ...     jax.random.key(0), bumps, ([-2.0], [2.0]), num_initial=6, num_iterations=2,
    ...     batch_size=2, num_steps=200, width=16, num_candidates=100,
    ... )
    >>> found.x.shape, bool(found.is_nondominated.sum() >= 4)
    ((10, 1), True)
    """
    _checks.check_callable("objectives", objectives)
    num_iterations = _checks.integer("num_iterations", num_iterations, 0)
    if on_iteration is not None:
        _checks.check_callable("on_iteration", on_iteration)
    search = pareto_search(bounds, num_objectives, **options)
    state = search.init(key, x_initial, y_initial)
    num_batches = num_iterations + (len(state.x) < search.num_initial)
    try:
        for _ in range(num_batches):
            x, state = search.ask(state)
            state = search.tell(state, x, objectives(x))
            if on_iteration is not None:
                on_iteration(search.result(state))
        return search.result(search.learn(state))
    except KeyboardInterrupt:
        if not len(state.x):
            raise
        return search.result(state)._replace(is_interrupted=True)


def pareto_search(
    bounds: Any, num_objectives: int = 2, *, num_initial: int = 20, batch_size: int = 5,
    reference_point: Any = None, num_preferences: int = 10, num_steps: int = 1000,
    num_candidates: int = 1000, width: int = 256, learning_rate: float = 1e-3,
    exploration: float = 0.1, repulsion: float = 1e-3, kernel_scale: float = 1.0,
    bandwidth: str = "median", num_fit_iterations: int = 100,
) -> ParetoSearch:  # fmt: skip
    """Return the functions of a search that asks for solutions and is told their objectives.

    Parameters
    ----------
    bounds
        Lowest and highest solution: a pair of arrays ``(d,)``.
    num_objectives
        m, 2 or 3.
    num_initial
        Size of the Latin hypercube that comes first, at least 2.
    batch_size
        Solutions asked for at a time.
    reference_point
        ``(m,)``: hypervolume counts below it. From the evaluated values when None.
    num_preferences
        Preferences in one step of training, at least 2.
    num_steps
        Steps of training, by Adam.
    num_candidates
        Solutions among which the next ones are chosen, at least ``batch_size``.
    width
        Of both hidden layers of the network.
    learning_rate
        Of Adam.
    exploration
        β ≥ 0 of the lower confidence bounds μ - β σ.
    repulsion
        α ≥ 0, with which equal values are driven apart.
    kernel_scale
        Positive factor of the kernel's bandwidth.
    bandwidth
        ``"median"``, of the squared differences, or ``"squared_median"``, its square as in the
        official code.
    num_fit_iterations
        Most iterations of L-BFGS-B for the parameters of a Gaussian process.

    Returns
    -------
    ParetoSearch

    Raises
    ------
    TypeError, ValueError
        For impossible arguments.

    Notes
    -----
    Surrogate and hypervolume are computed in float64 whatever JAX's setting, the network in
    float32. Programs are compiled for data padded to powers of two, from 32.

    Examples
    --------
    >>> import jax
    >>> search = pareto_search(([0.0, 0.0], [1.0, 1.0]), num_initial=4)
    >>> state = search.init(jax.random.key(0))
    >>> x, state = search.ask(state)
    >>> state = search.tell(state, x, np.stack([x[:, 0], 1 - x[:, 0] * x[:, 1]], 1))
    >>> search.result(state).x.shape
    (4, 2)
    """
    low, high = _corners(bounds)
    num_objectives = _checks.choice("num_objectives", num_objectives, (2, 3))
    if reference_point is not None:
        reference_point = _vector("reference_point", reference_point, num_objectives)
    batch_size = _checks.integer("batch_size", batch_size)
    sizes = networks.Sizes(
        _checks.integer("num_preferences", num_preferences, 2),
        _checks.integer("num_steps", num_steps),
        _checks.integer("num_candidates", num_candidates, batch_size),
        batch_size,
        _checks.integer("width", width),
        _checks.choice("bandwidth", bandwidth, BANDWIDTHS),
    )
    rates = networks.Rates(
        _rate("learning_rate", learning_rate),
        _rate("exploration", exploration, True),
        _rate("repulsion", repulsion, True),
        _rate("kernel_scale", kernel_scale),
    )
    num_initial = _checks.integer("num_initial", num_initial, 2)
    num_fit = _checks.integer("num_fit_iterations", num_fit_iterations)
    return ParetoSearch(
        low, high, num_objectives, num_initial, reference_point, num_fit, sizes, rates
    )


def _rate(name: str, value: Any, may_be_zero: bool = False) -> float:
    return float(_checks.real_parameter(name, value, 0.0, include_low=may_be_zero, scalar=True))


def _corners(bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be a pair of arrays, low and high; got {bounds!r}") from None
    low = _vector("bounds", low)
    high = _vector("bounds", high, low.size)
    if not (low < high).all():
        raise ValueError(f"bounds must be low < high in each coordinate, got {low} and {high}")
    return low, high


def _vector(name: str, value: Any, size: int | None = None) -> np.ndarray:
    array = np.asarray(_checks.real_values(name, value), float)
    if array.ndim != 1 or not array.size or array.size != (size or array.size):
        raise ValueError(f"{name} must have shape ({size or 'd'},), got {array.shape}")
    _checks.check_finite(name, array)
    return array


def _table(name: str, value: Any, columns: int) -> np.ndarray:
    array = np.asarray(_checks.real_values(name, value), float)
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{name} must have shape (n, {columns}), got {array.shape}")
    return array


def _latin_hypercube(key: jax.Array, num: int, dim: int) -> np.ndarray:
    seed = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
    return qmc.LatinHypercube(dim, seed=seed).random(num)
