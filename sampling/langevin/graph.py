"""Self-repellent random walks: Markov chains on a graph that shun the nodes they know.

A base chain moves over the n nodes of a graph by transition probabilities P that are reversible
with respect to μ. The self-repellent walk keeps the share x_j of its time that it spent at each
node and moves from node i to node j with probability

    K[x]_ij ∝ P_ij (x_j / μ_j)^(-α),    α >= 0,

normalised over the neighbours j of i. Only ratios enter, so that neither μ nor x need be
normalised. Shares converge to μ / Σμ whatever α is, with the asymptotic covariance

    lim t Cov(x_t) = Σ_{λ_k < 1} (1 / (2 α (1 + λ_k) + 1)) ((1 + λ_k) / (1 - λ_k)) u_k u_kᵀ,

where λ_k and q_k are eigenvalues and unit eigenvectors of D P D⁻¹, D = diag √μ, and u_k = D q_k
(μ normalised). It falls like 1 / α. With α = 0 the walk is the base chain. The walk is no Markov
chain, and at a finite time its law is not μ's: averages over its time are what converges.

Reference: Doshi, Hu and Eun, "Self-repellent random walks on general graphs: achieving minimal
sampling variance via nonlinear Markov chains", ICML 2023, equations 4 and 5, theorem 3.3 and
corollary 4.5.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components

from shoal.sampling.core._checks import check_entries, real_parameter, real_values
from shoal.sampling.core.algorithm import Status
from shoal.sampling.core.random import check_key, particle_keys

__all__ = ["BaseChain", "Walk", "asymptotic_covariance", "metropolis_walk", "srrw"]


class BaseChain(NamedTuple):
    """A Markov chain on a graph, as lists of the nodes that each node can move to.

    Attributes
    ----------
    neighbours
        int32 ``(n, m)``: nodes, padded with the node itself.
    log_probability
        ``(n, m)``: log transition probabilities, -inf where padded.
    """

    neighbours: Any
    log_probability: Any


class WalkState(NamedTuple):
    """Where walkers are and have been; leading axes ``(w,)`` of walkers, or none.

    Attributes
    ----------
    position
        int32: the node.
    visits
        int32 ``(..., n)``: how often each node was visited, the start not counted.
    """

    position: jax.Array
    visits: jax.Array


class WalkInfo(NamedTuple):
    """What happened in a step, for each walker.

    Attributes
    ----------
    is_accepted
        Whether the walker is at another node than before.
    status
        int8 `Status` code: OK.
    """

    is_accepted: jax.Array
    status: jax.Array


class Walk(eqx.Module):
    """Self-repellent random walk; an algorithm for `shoal.inference.run`. Made by `srrw`.

    Attributes
    ----------
    neighbours
        int32 ``(n, m)``.
    log_probability
        ``(n, m)``.
    log_target
        log μ, ``(n,)``, normalised.
    alpha
        Strength of the repulsion, a scalar.
    fake_visits
        ``(n,)``: visits that are taken to have happened before the start.
    """

    neighbours: jax.Array
    log_probability: jax.Array
    log_target: jax.Array
    alpha: jax.Array
    fake_visits: jax.Array

    def init(self, position: Any, key: jax.Array | None = None) -> WalkState:
        """Start one walker at a node, or many, independent ones, at an array ``(w,)`` of nodes.

        Raises ``TypeError`` or ``ValueError`` for what is no node.
        """
        num = self.log_target.size
        nodes = _as_nodes("position", position)
        check_entries("position", nodes, lambda x: (x >= 0) & (x < num), f"a node, 0 to {num - 1}")
        if nodes.ndim > 1:
            raise ValueError(f"position must be a node or have shape (w,), got {nodes.shape}")
        nodes = jnp.asarray(nodes, jnp.int32)
        return WalkState(nodes, jnp.zeros((*nodes.shape, num), jnp.int32))

    def step(self, key: jax.Array, state: WalkState) -> tuple[WalkState, WalkInfo]:
        """Move each walker to a neighbour; walker i of many uses ``fold_in(key, i)``."""
        check_key(key)
        if state.position.ndim == 0:
            return self._step(key, state)
        keys = particle_keys(key, jnp.arange(len(state.position)))
        return jax.vmap(self._step)(keys, state)

    def shares(self, state: WalkState) -> jax.Array:
        """Return the share of time spent at each node, x, ``(..., n)``, fake visits included."""
        weights = state.visits + self.fake_visits
        return weights / jnp.sum(weights, -1, keepdims=True)

    def _step(self, key: jax.Array, state: WalkState) -> tuple[WalkState, WalkInfo]:
        nodes = self.neighbours[state.position]
        weights = jnp.log(state.visits[nodes] + self.fake_visits[nodes])
        logits = self.log_probability[state.position]
        logits = logits - self.alpha * (weights - self.log_target[nodes])
        new = nodes[jax.random.categorical(key, logits)]
        info = WalkInfo(new != state.position, jnp.asarray(Status.OK, jnp.int8))
        return WalkState(new, state.visits.at[new].add(1)), info


def srrw(transition: Any, target: Any, alpha: Any = 5.0, fake_visits: Any = 1.0) -> Walk:
    """Self-repellent random walk on a graph.

    Parameters
    ----------
    transition
        The base chain: a matrix P, ``(n, n)``, or a `BaseChain` such as `metropolis_walk` returns,
        which for a graph of many nodes and few edges takes far less memory. Its graph must be
        connected and P reversible with respect to ``target``.
    target
        μ, ``(n,)``, positive; need not be normalised.
    alpha
        α >= 0. The variance falls like 1 / α; an α far beyond the number of visits of a node makes
        the walk almost deterministic at first.
    fake_visits
        Visits that each node is taken to have had before the start: positive, a number or ``(n,)``.

    Returns
    -------
    Walk
        An algorithm with ``init(nodes)`` and ``step``; states `WalkState`. It computes in JAX's
        default float. ``alpha`` and all else are leaves: other values compile nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible, a row of P does not sum to one, a node is isolated, the graph
        falls apart or P is not reversible with respect to μ.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from shoal.inference.run import run
    >>> from shoal.sampling.langevin import graph
    >>> ring = np.array([[4, 1], [0, 2], [1, 3], [2, 4], [3, 0]])
    >>> target = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
    >>> walk = graph.srrw(graph.metropolis_walk(ring, target), target, alpha=5.0)
    >>> state = run(jax.random.key(0), walk, walk.init(0), 2000).state
    >>> bool(abs(walk.shares(state) - target / 9).max() < 0.01)
    True
    """
    mu = _as_target(target)
    chain = transition if isinstance(transition, BaseChain) else _from_matrix(transition)
    neighbours, log_probability = _check_chain(chain, mu)
    given = real_parameter("fake_visits", fake_visits, 0.0, wanted="positive and finite")
    if np.shape(given) not in ((), mu.shape):
        raise ValueError(f"fake_visits must be a number or have shape {mu.shape}, got {given}")
    strength = real_parameter("alpha", alpha, 0.0, include_low=True, scalar=True)
    as_float = lambda x: jnp.asarray(x, float)
    return Walk(
        jnp.asarray(neighbours, jnp.int32),
        as_float(log_probability),
        as_float(np.log(mu / mu.sum())),
        as_float(strength),
        jnp.broadcast_to(as_float(given), mu.shape),
    )


def metropolis_walk(neighbours: Any, target: Any) -> BaseChain:
    """Return the Metropolis chain that proposes a neighbour uniformly, reversible w.r.t. μ.

    P_ij = min(1 / deg_i, μ_j / (μ_i deg_j)) for neighbours, P_ii what is left.

    Parameters
    ----------
    neighbours
        Integers ``(n, m)``: the neighbours of each node, each once, padded with -1; symmetric (j is
        a neighbour of i if i is one of j) and without the node itself.
    target
        μ, ``(n,)``, positive; need not be normalised.

    Returns
    -------
    BaseChain
        Float64 NumPy arrays ``(n, m + 1)``; the node itself is the last neighbour.

    Raises
    ------
    TypeError, ValueError
        If an argument is impossible or a node has no neighbour.

    Examples
    --------
    >>> import numpy as np
    >>> chain = metropolis_walk(np.array([[1], [0]]), np.array([1.0, 3.0]))
    >>> np.exp(chain.log_probability).round(3).tolist()
    [[1.0, 0.0], [0.333, 0.667]]
    """
    mu, lists = _as_target(target), np.asarray(_as_nodes("neighbours", neighbours))
    num = mu.size
    if lists.ndim != 2 or len(lists) != num:
        raise ValueError(f"neighbours must have shape ({num}, m), got {lists.shape}")
    check_entries("neighbours", lists, lambda x: (x >= -1) & (x < num), f"nodes below {num} or -1")
    own = np.arange(num)[:, None]
    check_entries("neighbours", lists, lambda x: x != own, "other nodes than the row's own")
    is_edge = lists >= 0
    degree = is_edge.sum(1)
    _check_isolated("neighbours", degree)
    ends = np.nonzero(is_edge)[0], lists[is_edge]
    edges = csr_array((np.ones(degree.sum()), ends), (num, num))
    if edges.max() > 1 or (edges != edges.T).nnz:
        raise ValueError("neighbours must be symmetric, with each neighbour listed once")
    lists = np.where(is_edge, lists, own)
    ratio = mu[lists] / (mu[:, None] * degree[lists])
    moves = np.where(is_edge, np.minimum(1 / degree[:, None], ratio), 0.0)
    stays = np.maximum(1 - moves.sum(1, keepdims=True), 0)
    # Rounding of one minus a sum of one.
    stays[stays < 1e-12] = 0
    with np.errstate(divide="ignore"):
        logs = np.log(np.concatenate([moves, stays], 1))
    return BaseChain(np.concatenate([lists, own], 1), logs)


def asymptotic_covariance(transition: Any, target: Any, alpha: Any = 0.0) -> np.ndarray:
    """Return the limit of t Cov(x_t) of the shares of time x of the walk `srrw`, ``(n, n)``.

    Takes the arguments of `srrw` and raises as that does; a dense eigenproblem in float64.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> float(asymptotic_covariance(P, np.ones(2))[0, 0].round(6))
    0.25
    """
    mu = _as_target(target)
    chain = transition if isinstance(transition, BaseChain) else _from_matrix(transition)
    neighbours, log_probability = _check_chain(chain, mu)
    strength = real_parameter("alpha", alpha, 0.0, include_low=True, scalar=True)
    root = np.sqrt(mu / mu.sum())
    dense = _matrix(neighbours, log_probability).toarray()
    symmetric = root[:, None] * dense / root
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
    # The largest is one, once, for the graph is connected.
    values, vectors = values[:-1], root[:, None] * vectors[:, :-1]
    weights = (1 + values) / (1 - values) / (2 * float(strength) * (1 + values) + 1)
    return (vectors * weights) @ vectors.T


def _from_matrix(transition: Any) -> BaseChain:
    """List the non-zero entries of a matrix, each row padded to the longest."""
    matrix = np.asarray(real_values("transition", transition), np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"transition must have shape (n, n), got {matrix.shape}")
    check_entries("transition", matrix, lambda x: x >= 0, "non-negative and finite")
    is_move = matrix > 0
    width = max(is_move.sum(1).max(initial=0), 1)
    # Non-zero entries first; the sort is stable, so that nodes stay in order.
    nodes = np.argsort(~is_move, axis=1, kind="stable")[:, :width]
    weights = np.take_along_axis(matrix, nodes, 1)
    nodes = np.where(weights > 0, nodes, np.arange(len(matrix))[:, None])
    with np.errstate(divide="ignore"):
        return BaseChain(nodes, np.log(weights))


def _check_chain(chain: BaseChain, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raise unless the chain can be walked and is reversible; return its arrays."""
    nodes = np.asarray(_as_nodes("transition.neighbours", chain.neighbours))
    logs = np.asarray(real_values("transition.log_probability", chain.log_probability), np.float64)
    num = mu.size
    if nodes.ndim != 2 or len(nodes) != num or logs.shape != nodes.shape:
        raise ValueError(
            f"transition must be of the {num} nodes of target; got {nodes.shape} neighbours and "
            f"{logs.shape} probabilities"
        )
    is_node = lambda x: (x >= 0) & (x < num)
    check_entries("transition.neighbours", nodes, is_node, f"nodes below {num}")
    check_entries("transition.log_probability", logs, lambda x: x < np.inf, "below inf")
    matrix = _matrix(nodes, logs)
    _check_isolated("transition", np.diff(matrix.indptr) - (matrix.diagonal() > 0))
    sums = np.asarray(matrix.sum(1)).ravel()
    check_entries("rows of transition", sums, lambda x: np.abs(x - 1) < 1e-5, "of sum one")
    if connected_components(matrix, directed=False)[0] > 1:
        raise ValueError("transition must be of a connected graph: parts are never reached")
    flow = diags_array(mu / mu.sum()) @ matrix
    error = abs(flow - flow.T).max()
    if error > 1e-5 * flow.max():
        raise ValueError(
            "transition must be reversible with respect to target, target_i P_ij = target_j P_ji; "
            f"the two sides differ by up to {error:.2g}"
        )
    return nodes, logs


def _matrix(nodes: np.ndarray, logs: np.ndarray) -> csr_array:
    rows = np.repeat(np.arange(len(nodes)), nodes.shape[1])
    found = csr_array((np.exp(logs).ravel(), (rows, nodes.ravel())), (len(nodes), len(nodes)))
    found.eliminate_zeros()
    return found


def _check_isolated(name: str, degree: np.ndarray) -> None:
    isolated = np.flatnonzero(degree == 0)
    if isolated.size:
        raise ValueError(f"{name} has isolated nodes, with no neighbour: {isolated[:8].tolist()}")


def _as_target(target: Any) -> np.ndarray:
    values = np.asarray(real_values("target", target))
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"target must have shape (n,) with n >= 2, got {values.shape}")
    real_parameter("target", values, 0.0, wanted="positive and finite")
    return values.astype(np.float64)


def _as_nodes(name: str, nodes: Any) -> Any:
    values = real_values(name, nodes)
    if not jnp.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got dtype {values.dtype}")
    return values
