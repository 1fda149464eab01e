"""Pictures of a result: densities and traces, intervals, and how the sampler fared.

Every function returns a ``matplotlib.figure.Figure`` that belongs to no window: save it with
``figure.savefig(path)``, or let a notebook show it. Nothing global is read or changed, and
matplotlib is imported when the first picture is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.inference.summary import Labels, check_draws, flatten
from shoal.sampling.core._checks import integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.inference.result import Result

# Colour-blind safe (Okabe and Ito), one for each chain, again from the start after eight.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666",
)  # fmt: skip
_INK, _FAINT, _WARNING = "#333333", "#dddddd", "#C00000"
_MAX_TRACE_POINTS = 2000


def overview(
    result: "Result",
    names: Sequence[str] | None = None,
    *,
    max_scalars: int = 8,
    labels: Labels | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw for each scalar the marginal density of each chain and the chains' traces.

    Parameters
    ----------
    result
        Draws to show.
    names
        Variables to show; by default all. Arrays count by their entries.
    max_scalars
        Number of scalars shown; the title says how many there are.
    labels
        Names of the entries along a variable's last axis, see `shoal.inference.summary.summarize`.
    title
        Heading; by default the sampler and the size of the run.

    Returns
    -------
    matplotlib.figure.Figure
        Divergent draws are marked by red ticks at the foot of both panels.

    Raises
    ------
    TypeError, ValueError
        If ``result`` holds no draws, a name or label is not in the posterior or ``max_scalars`` is
        below one.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.inference import Result
    >>> from shoal.inference.plot import overview
    >>> draws = np.random.default_rng(0).normal(size=(4, 200, 3))
    >>> len(overview(Result({"theta": draws}, {})).axes)
    6
    """
    max_scalars = integer("max_scalars", max_scalars)
    scalars = flatten(result, names, labels)
    shown = scalars[:max_scalars]
    figure = new_figure(9.0, 1.0 + 1.25 * len(shown))
    heading = _describe(result) if title is None else title
    diverging = result.sample_stats.get("diverging")
    if title is None and diverging is not None and np.any(diverging):
        heading += " (red ticks)"
    if len(shown) < len(scalars):
        heading += f"\nfirst {len(shown)} of {len(scalars)} scalars"
    figure.suptitle(heading, fontsize=11, color=_INK)
    axes = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1, 1.6))
    for (left, right), (name, draws) in zip(axes, shown, strict=True):
        draw_density(left, draws, diverging)
        draw_trace(right, draws, diverging)
        label = name.replace("[", "\n[", 1) if len(name) > 16 else name
        left.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=_INK)
    for ax, words in zip(axes[-1], ("value", "draw"), strict=True):
        ax.set_xlabel(words, fontsize=9, color=_INK)
    axes[0, 0].set_title("density, a line for each chain", fontsize=9, color=_INK)
    axes[0, 1].set_title("trace", fontsize=9, color=_INK)
    return figure


def forest(
    result: "Result",
    names: Sequence[str] | None = None,
    *,
    max_scalars: int = 60,
    labels: Labels | None = None,
    others: Mapping[str, "Result"] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw the median, the 50 % and the 90 % interval of each scalar, one under the other.

    Parameters
    ----------
    result, names, max_scalars, labels, title
        As in `overview`.
    others
        Further results of the same variables to draw beside, by the name for the legend.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a name is not in the posterior.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.inference import Result
    >>> from shoal.inference.plot import forest
    >>> draws = np.random.default_rng(0).normal(size=(4, 200, 3))
    >>> figure = forest(Result({"theta": draws}, {}), labels={"theta": ["a", "b", "c"]})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['theta[a]', 'theta[b]', 'theta[c]']
    """
    rows = min(integer("max_scalars", max_scalars), len(flatten(result, names, labels)))
    _check_others(others)
    figure = new_figure(7.0, 1.1 + (0.22 + 0.06 * len(others or {})) * rows)
    ax = figure.subplots()
    draw_forest(ax, result, names, max_scalars=max_scalars, labels=labels, others=others)
    ax.set_title(_describe(result) if title is None else title, fontsize=11, color=_INK)
    return figure


def statistics(result: "Result", title: str | None = None) -> "Figure":
    """Draw how the sampler fared: log density, acceptance and, where it has one, the energy.

    The energy panel compares the spread of the energy with that of its changes: where the changes
    are much narrower (a small E-BFMI), momenta are refreshed too little to explore the tails.
    E-BFMI is that of Betancourt, "Diagnosing suboptimal cotangent disintegrations in Hamiltonian
    Monte Carlo" (2016), equation 3.

    Parameters
    ----------
    result
        Its ``sample_stats`` are shown.
    title
        Heading; by default the sampler and the size of the run.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the result has none of these statistics.
    """
    check_draws("result", result)
    stats = result.sample_stats
    for name, value in stats.items():
        shape = np.shape(value)
        if len(shape) < 2:
            label = f"result.sample_stats[{name!r}]"
            raise ValueError(f"{label} must have shape (chain, draw), got {shape}")
    panels = [
        (name, draw)
        for name, draw in (
            ("lp", _draw_log_density),
            ("acceptance_rate", _draw_acceptance),
            ("energy", _draw_energy),
        )
        if name in stats and np.isfinite(stats[name]).all()
    ]
    if not panels:
        raise ValueError(f"result holds no statistic to draw: sample_stats has {sorted(stats)}")
    figure = new_figure(3.6 * len(panels) + 0.4, 3.2)
    figure.suptitle(_describe(result) if title is None else title, fontsize=11, color=_INK)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, draw) in zip(axes, panels, strict=True):
        draw(ax, np.asarray(stats[name], float))
        _tidy(ax)
    return figure


def _check_others(others: Any) -> None:
    """Raise for what is no dict of results."""
    if not isinstance(others, Mapping | None):
        raise TypeError(f"others must be a dict of results by name, got {others!r}")
    for name, other in (others or {}).items():
        check_draws(f"others[{name!r}]", other)


def draw_density(ax: "Axes", draws: np.ndarray, diverging: np.ndarray | None = None) -> None:
    """Draw each chain's marginal density, or frequencies of integers; ``(chain, draw)``."""
    is_count = np.issubdtype(draws.dtype, np.integer) or draws.dtype == bool
    for chain, values in enumerate(draws):
        colour = _COLOURS[chain % len(_COLOURS)]
        if is_count:
            levels, counts = np.unique(values.astype(int), return_counts=True)
            shift = 0.08 * (chain - (len(draws) - 1) / 2)
            ax.vlines(levels + shift, 0, counts / values.size, color=colour, lw=1.5)
        else:
            ax.plot(*density(values), color=colour, lw=1.1)
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, (0.001, 0.999)) if finite.size else (0, 0)
    if high > low and not is_count:  # else a single far draw would squeeze all others
        ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if diverging is not None and np.any(diverging):
        _rug(ax, draws[np.asarray(diverging, bool)])
    _tidy(ax)
    ax.spines["left"].set_visible(False)


def draw_trace(ax: "Axes", draws: np.ndarray, diverging: np.ndarray | None = None) -> None:
    """Draw values against the draw's index, a line for each chain; ``(chain, draw)``."""
    stride = -(-draws.shape[1] // _MAX_TRACE_POINTS)
    index = np.arange(0, draws.shape[1], stride)
    for chain, values in enumerate(draws):
        colour = _COLOURS[chain % len(_COLOURS)]
        ax.plot(index, values[::stride].astype(float), color=colour, lw=0.5, alpha=0.7)
    ax.set_xlim(0, max(1, draws.shape[1] - 1))
    if diverging is not None and np.any(diverging):
        _rug(ax, np.nonzero(diverging)[1])
    _tidy(ax)


def draw_forest(
    ax: "Axes",
    result: "Result",
    names: Sequence[str] | None = None,
    *,
    max_scalars: int = 60,
    labels: Labels | None = None,
    others: Mapping[str, "Result"] | None = None,
) -> None:
    """Draw what `forest` draws into given axes."""
    contenders = {_sampler(result): result, **(others or {})}
    for number, (legend, contender) in enumerate(contenders.items()):
        scalars = flatten(contender, names, labels)[:max_scalars]
        draws = np.stack([value.astype(float) for _, value in scalars], axis=-1)
        low, first, middle, third, high = np.quantile(
            draws, (0.05, 0.25, 0.5, 0.75, 0.95), axis=(0, 1)
        )
        spread = 0.3 if len(contenders) > 1 else 0.0
        y = np.arange(len(scalars)) + spread * (number - (len(contenders) - 1) / 2)
        colour = _COLOURS[number % len(_COLOURS)]
        ax.hlines(y, low, high, color=colour, lw=1)
        ax.hlines(y, first, third, color=colour, lw=3.2)
        ax.plot(middle, y, "o", ms=4, mfc="white", mec=colour, mew=1.2, label=legend)
    ax.set_yticks(range(len(scalars)), [name for name, _ in scalars], fontsize=8)
    ax.set_ylim(len(scalars) - 0.4, -0.6)
    ax.axvline(0, color=_FAINT, lw=1, zorder=0)
    ax.set_xlabel("median, 50 % and 90 % interval", fontsize=9, color=_INK)
    if len(contenders) > 1:
        ax.legend(fontsize=8, loc="lower right", framealpha=0.9, edgecolor=_FAINT)
    _tidy(ax)
    ax.grid(axis="y", color=_FAINT, lw=0.4)
    ax.set_axisbelow(True)


def density(values: np.ndarray, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a density on the range of the values, without leaking over its ends.

    A histogram is smoothed by a Gaussian (Silverman, "Density estimation", 1986, equation 3.31)
    and reflected at both ends, so that it stays upright at the bound of a positive variable.

    Parameters
    ----------
    values
        Shape ``(n,)``; those that are not finite are left out.
    size
        Number of points.

    Returns
    -------
    grid, density
        Shapes ``(size,)``; the density integrates to one.
    """
    from scipy.ndimage import gaussian_filter1d

    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.zeros(size), np.zeros(size)
    low, high = values.min(), values.max()
    if low == high:
        half = max(abs(low), 1.0) * 1e-3
        low, high = low - half, high + half
    counts, edges = np.histogram(values, bins=size, range=(low, high))
    quartiles = np.subtract(*np.quantile(values, (0.75, 0.25))) / 1.34
    scale = min(values.std(), quartiles) if quartiles > 0 else values.std()
    step = (high - low) / size
    bins = max(1.0, 0.9 * scale * values.size**-0.2 / step)
    smooth = gaussian_filter1d(counts / (values.size * step), bins, mode="reflect")
    return (edges[1:] + edges[:-1]) / 2, smooth


def _draw_log_density(ax: "Axes", values: np.ndarray) -> None:
    draw_trace(ax, values)
    ax.set_title("log density", fontsize=9, color=_INK)
    ax.set_xlabel("draw", fontsize=9, color=_INK)


def _draw_acceptance(ax: "Axes", values: np.ndarray) -> None:
    for chain, rates in enumerate(values):
        colour = _COLOURS[chain % len(_COLOURS)]
        ax.hist(rates, bins=25, range=(0, 1), histtype="step", color=colour, lw=1.1)
    ax.axvline(values.mean(), color=_INK, lw=1, ls="--")
    ax.set_title(f"acceptance rate, mean {values.mean():.2f}", fontsize=9, color=_INK)
    ax.set_xlim(0, 1)
    ax.set_yticks([])
    ax.set_xlabel("probability", fontsize=9, color=_INK)


def _draw_energy(ax: "Axes", values: np.ndarray) -> None:
    changes = np.diff(values, axis=1)
    # Betancourt (2016), equation 3, chain by chain.
    bfmi = np.mean(changes**2, axis=1) / np.var(values, axis=1)
    ax.plot(*density((values - values.mean()).ravel()), color=_COLOURS[0], label="energy")
    ax.plot(*density(changes.ravel()), color=_COLOURS[1], label="its changes")
    ax.set_title(f"energy, smallest E-BFMI {bfmi.min():.2f}", fontsize=9, color=_INK)
    ax.legend(fontsize=8, frameon=False)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches that is known to no window and can be saved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _tidy(ax: "Axes") -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#999999")
    ax.tick_params(labelsize=8, colors=_INK)


def _rug(ax: "Axes", places: np.ndarray) -> None:
    """Mark places on the x axis by ticks at its foot."""
    transform: Any = ax.get_xaxis_transform()
    ax.vlines(places, 0, 0.08, color=_WARNING, lw=0.8, transform=transform, zorder=5)


def _sampler(result: "Result") -> str:
    return str(result.attributes.get("sampler", "draws"))


def _describe(result: "Result") -> str:
    first = next(iter(result.posterior.values()))
    words = f"{_sampler(result)}: {first.shape[0]} chains of {first.shape[1]} draws"
    diverging = result.sample_stats.get("diverging")
    if diverging is not None and np.any(diverging):
        words += f", {int(np.sum(diverging))} divergent"
    broken = {k: int(np.sum(~np.isfinite(v))) for k, v in result.posterior.items()}
    words += "".join(f", {count} of {name} not finite" for name, count in broken.items() if count)
    return words
