"""A search for a Pareto set: what it found, its state, and the steps from one batch to the next."""

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

# Of the front's range, added to the worst values where no reference point is given.
_MARGIN = 0.1


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
        _checks.check_entries(
            "preference", array, lambda p: np.isfinite(p) & (p >= 0), "nonnegative"
        )
        if not (array.sum(-1) > 0).all():
            raise ValueError(f"preference must have a positive weight, got {preference!r}")
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
        return state._replace(learned=self._learned(state))

    def ask(self, state: ParetoState) -> tuple[np.ndarray, ParetoState]:
        """Return solutions to evaluate next, and the state, trained where that was needed.

        The first are a Latin hypercube, of as many as are missing to ``num_initial``.
        """
        missing = self.num_initial - len(state.x)
        if missing > 0:
            return self._scaled(_latin_hypercube(state.key, missing, self.low.size)), state
        from shoal.sampling.stein._pareto_surrogate import predict

        network, task, _ = learned = self._learned(state)
        with jax.enable_x64(True):
            key = jax.random.fold_in(state.key, 2 * len(state.x) + 1)
            unit = networks.propose(key, network, task, self.rates, self.sizes, predict)
        return self._scaled(unit), state._replace(learned=learned)

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

    def _learned(self, state: ParetoState) -> Learned:
        if state.learned is not None and state.learned.num_evaluations == len(state.x):
            return state.learned
        from shoal.sampling.stein._pareto_surrogate import fit, predict

        with jax.enable_x64(True):
            task = self._task(state, fit)
            key = jax.random.fold_in(state.key, 2 * len(state.x))
            network = networks.train(key, task, self.rates, self.sizes, predict, self.low.size)
        return Learned(network, task, len(state.x))

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
        unit = (state.x - self.low) / (self.high - self.low)
        surrogate = fit(unit, standard(y), self.num_fit_iterations)
        front = np.full((len(surrogate.inputs), self.num_objectives), np.inf)
        solutions = np.zeros((len(front), unit.shape[1]), np.float32)
        is_best = nondominated(state.y)
        front[: is_best.sum()], solutions[: is_best.sum()] = standard(y[is_best]), unit[is_best]
        arrays = standard(self._reference(good)), front, solutions
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


def _table(name: str, value: Any, columns: int) -> np.ndarray:
    array = np.asarray(_checks.real_values(name, value), float)
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{name} must have shape (n, {columns}), got {array.shape}")
    return array


def _latin_hypercube(key: jax.Array, num: int, dim: int) -> np.ndarray:
    seed = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
    return qmc.LatinHypercube(dim, seed=seed).random(num)
