"""A table of a posterior: moments, interval, Monte Carlo errors, effective sizes and R-hat.

ArviZ computes the diagnostics; the table is made here because the one of ArviZ 1.x rounds its
numbers to text and has other columns than that of 0.23.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from shoal.inference.arviz import import_arviz
from shoal.inference.result import Result
from shoal.sampling.core._checks import real_values

Labels = Mapping[str, Sequence[str]]

_INTERVAL = (0.05, 0.95)
_HEADINGS = {
    "mean": "mean",
    "sd": "sd",
    "lower": "5%",
    "upper": "95%",
    "mcse_mean": "mcse",
    "ess_bulk": "ESS bulk",
    "ess_tail": "ESS tail",
    "r_hat": "R-hat",
}
# Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-normalization, folding, and localization",
# Bayesian Analysis 16 (2021), section 4: R-hat below 1.01 and 100 effective draws from each chain.
_R_HAT = 1.01
_ESS_PER_CHAIN = 100
# With fewer effective draws the estimate of ESS itself is too noisy to compare samplers by.
_RATED_ESS = 400


@dataclass(frozen=True)
class Summary:
    """A row for every scalar of the posterior; ``print`` shows the table.

    Attributes
    ----------
    names
        Names of the scalars, such as ``"mu"`` or ``"theta[3]"``.
    columns
        float64 arrays ``(len(names),)``: ``mean``, ``sd``, ``lower`` and ``upper`` (5 % and 95 %
        quantiles), ``mcse_mean``, ``mcse_sd`` (Monte Carlo standard errors), ``ess_bulk``,
        ``ess_tail`` and ``r_hat``; NaN where a number cannot be had, such as R-hat of one chain.
    num_chains
        Number of chains that the numbers are of.
    num_gradients, num_gradients_warmup
        What the draws cost, as in `Result`; None where it is not known.
    """

    names: list[str]
    columns: dict[str, np.ndarray]
    num_chains: int
    num_gradients: int | None = None
    num_gradients_warmup: int | None = None

    def __str__(self) -> str:
        """All rows, aligned."""
        return self.table()

    def table(self, max_rows: int | None = None) -> str:
        """Return the table as text, at most ``max_rows`` rows of it."""
        shown = self.names if max_rows is None else self.names[:max_rows]
        cells = [
            [_format(key, self.columns[key][row]) for key in _HEADINGS] for row in range(len(shown))
        ]
        widths = [max(map(len, column)) for column in zip(_HEADINGS.values(), *cells, strict=True)]
        first = max([len(name) for name in shown], default=0)
        rows = [("", list(_HEADINGS.values())), *zip(shown, cells, strict=True)]
        lines = ["  ".join([name.ljust(first), *map(str.rjust, row, widths)]) for name, row in rows]
        if len(shown) < len(self.names):
            lines.append(f"... and {len(self.names) - len(shown)} more")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Say whether the chains agree and are long enough, and name the scalar that is worst."""
        broken = np.flatnonzero(~np.isfinite(self.columns["mean"]))
        if broken.size:
            shown = ", ".join(self.names[i] for i in broken[:4])
            more = f" and {broken.size - 4} more" if broken.size > 4 else ""
            return f"Not finite: there are draws that are NaN or infinite of {shown}{more}."
        r_hat, ess = self.columns["r_hat"], self.columns["ess_bulk"]
        known = np.isfinite(r_hat) & np.isfinite(ess)
        if not known.any():
            return "No R-hat: that takes at least two chains of four draws of what varies."
        worst, fewest = np.nanargmax(r_hat), np.nanargmin(ess)
        facts = (
            f"largest R-hat {r_hat[worst]:.4f} ({self.names[worst]}), "
            f"smallest bulk ESS {ess[fewest]:.0f} ({self.names[fewest]})"
        )
        needed = _ESS_PER_CHAIN * self.num_chains
        if r_hat[worst] < _R_HAT and ess[fewest] >= needed:
            return f"Converged: {facts}."
        return f"Not converged: {facts}; want R-hat below {_R_HAT} and ESS of at least {needed}."

    def efficiency(self) -> str:
        """Say what effective draws cost in gradients, or why that is not rated.

        Returns
        -------
        str
            The smallest bulk ESS per 1,000 gradients. It is rated only where it is at least 400
            and R-hat is known and below 1.01 throughout; else the sentence says what is missing.
            Empty where gradients were not counted or nothing varies.
        """
        r_hat, ess = self.columns["r_hat"], self.columns["ess_bulk"]
        varies = self.columns["sd"] != 0
        if not self.num_gradients or not varies.any():
            return ""
        r_hat, ess = r_hat[varies], ess[varies]
        if not (np.isfinite(r_hat).all() and np.isfinite(ess).all()):
            return "efficiency not rated: R-hat and ESS are not known of everything"
        if ess.min() < _RATED_ESS:
            return f"efficiency not rated: smallest bulk ESS {ess.min():.0f} < {_RATED_ESS}"
        if r_hat.max() >= _R_HAT:
            return f"efficiency not rated: largest R-hat {r_hat.max():.4f}, want below {_R_HAT}"
        rate = lambda cost: f"{1000 * ess.min() / cost:.3g}"
        line = f"min bulk ESS per 1,000 gradients: {rate(self.num_gradients)}"
        if self.num_gradients_warmup is None:
            return line
        total = self.num_gradients + self.num_gradients_warmup
        return f"{line} (warm-up counted: {rate(total)})"


def summarize(
    result: "Result", names: Sequence[str] | None = None, labels: Labels | None = None
) -> Summary:
    """Summarize the draws of a result.

    Parameters
    ----------
    result
        Its ``posterior`` is summarized; weights must be equal (else resample, see
        `Result.to_arviz`).
    names
        Variables to summarize; all by default.
    labels
        For a variable, what to call the entries along its last axis; by default those of
        ``result.attributes["labels"]`` (JSON), or indices.

    Returns
    -------
    Summary

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no `Result` with draws ``(chain, draw, ...)``, a name, a variable's labels
        or their number does not fit the posterior, or weights are unequal.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.inference import Result
    >>> from shoal.inference.summary import summarize
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> summary = summarize(Result({"theta": draws}, {}))
    >>> summary.names
    ['theta[0]', 'theta[1]']
    >>> bool((summary.columns["r_hat"] < 1.01).all())
    True
    """
    check_draws("result", result)
    if result.log_weights is not None and np.ptp(result.log_weights) > 0:
        raise ValueError("result has unequal weights; summarize result.to_arviz(), which resamples")
    scalars = flatten(result, names, labels)
    draws = np.stack([value for _, value in scalars], axis=-1).astype(float)
    with _quiet():
        lower, upper = np.quantile(draws, _INTERVAL, axis=(0, 1))
        columns = {
            "mean": draws.mean(axis=(0, 1)),
            "sd": draws.std(axis=(0, 1), ddof=1),
            "lower": lower,
            "upper": upper,
            **_diagnostics(draws),
        }
    names = [name for name, _ in scalars]
    cost = result.num_gradients, result.num_gradients_warmup
    return Summary(names, columns, draws.shape[0], *cost)


def facts(result: "Result") -> str:
    """Say in a few lines what was run, what it cost and, of unadjusted samplers, its bias."""
    attributes, first = result.attributes, next(iter(result.posterior.values()))
    words = [f"{first.shape[0]} chains of {first.shape[1]} draws"]
    if "sampler" in attributes:
        words = [f"{attributes['sampler']}: {words[0]}"]
    if attributes.get("thin", 1) > 1:
        words.append(f"one step in {attributes['thin']} kept")
    if "num_warmup" in attributes:
        words.append(f"after {attributes['num_warmup']} steps of warm-up")
    cost, seconds = [], attributes.get("sampling_time")
    if result.num_gradients is not None:
        time = "" if seconds is None else f" in {seconds:.1f} s"
        cost.append(f"{result.num_gradients:,} gradients{time}")
        if result.num_gradients_warmup is not None:
            cost.append(f"{result.num_gradients_warmup:,} more in warm-up")
    elif seconds is not None:
        cost.append(f"{seconds:.1f} s of sampling")
    if "compile_time" in attributes:
        cost.append(f"{attributes['compile_time']:.1f} s of compiling")
    lines = [", ".join(line) for line in (words, cost) if line]
    if result.bias is not None:
        lines.append(str(result.bias))
    return "\n".join(lines)


def flatten(
    result: "Result", names: Sequence[str] | None = None, labels: Labels | None = None
) -> list[tuple[str, np.ndarray]]:
    """Split a posterior into named scalars, arrays ``(chain, draw)``; see `summarize`."""
    check_draws("result", result)
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
        raise TypeError(f"names must be a list of names, got {names!r}")
    if labels is None:
        labels = json.loads(result.attributes.get("labels", "{}"))
    elif not isinstance(labels, Mapping):
        raise TypeError(f"labels must be a dict by name of a variable, got {labels!r}")
    elif not set(labels) <= set(result.posterior):
        raise ValueError(f"labels: {sorted(labels)} are not all among {sorted(result.posterior)}")
    unknown = sorted(set(names or ()) - set(result.posterior))
    if unknown:
        raise ValueError(f"names: there is no {unknown} among {sorted(result.posterior)}")
    if any(np.shape(value)[1] == 0 for value in result.posterior.values()):
        raise ValueError(f"result has no draws; its outcome is {result.outcome!r}")
    scalars = []
    for name in names or result.posterior:
        value = np.asarray(result.posterior[name])
        axes: list[Sequence[str]] = [[str(i) for i in range(n)] for n in value.shape[2:]]
        if name in labels:
            if not axes or len(labels[name]) != len(axes[-1]):
                raise ValueError(
                    f"labels[{name!r}] has {len(labels[name])} entries, "
                    f"but the last axis of {name} is that of shape {value.shape[2:]}"
                )
            axes[-1] = labels[name]
        rows = value.reshape(*value.shape[:2], -1)
        for i, index in enumerate(product(*axes)):
            scalars.append((f"{name}[{', '.join(index)}]" if axes else name, rows[..., i]))
    if not scalars:
        raise ValueError(
            f"the posterior of result holds no number: its names are {list(result.posterior)}"
        )
    return scalars


def check_draws(argument: str, result: Any) -> None:
    """Raise unless a result's posterior holds numbers ``(chain, draw, ...)``, as many of each."""
    if not isinstance(result, Result):
        raise TypeError(f"{argument} must be a shoal.inference.Result, got {type(result).__name__}")
    leading = None
    for name, value in result.posterior.items():
        label, array = f"{argument}.posterior[{name!r}]", np.asarray(value)
        if array.dtype != bool:
            real_values(label, array)
        leading = array.shape[:2] if leading is None else leading
        if array.ndim < 2 or array.shape[:2] != leading:
            raise ValueError(
                f"{label} must have shape (chain, draw, ...), as many of each for all names; got "
                f"{array.shape}"
            )


def _diagnostics(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Compute what ArviZ computes, for draws of shape ``(chain, draw, scalar)``."""
    import xarray

    arviz = import_arviz()
    dataset = xarray.Dataset(
        {"x": (("chain", "draw", "scalar"), draws)},
        coords={"chain": np.arange(draws.shape[0]), "draw": np.arange(draws.shape[1])},
    )
    found = {
        "mcse_mean": arviz.mcse(dataset, method="mean"),
        "mcse_sd": arviz.mcse(dataset, method="sd"),
        "ess_bulk": arviz.ess(dataset, method="bulk"),
        "ess_tail": arviz.ess(dataset, method="tail", prob=_INTERVAL),
        "r_hat": arviz.rhat(dataset),
    }
    varies = np.ptp(draws, axis=(0, 1)) > 0
    return {key: np.where(varies, value["x"].values, np.nan) for key, value in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what is said about few draws and constants: the table shows that as a dash."""
    # ArviZ before 1.0 has a logger that is not in the registry.
    logger = getattr(import_arviz(), "_log", logging.getLogger("arviz"))
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _format(key: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if key in ("ess_bulk", "ess_tail"):
        return f"{value:.0f}"
    if key == "r_hat":
        return f"{value:.4f}" if value < 10 else f"{value:.3g}"
    if key == "mcse_mean":
        return f"{value:.2g}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"
