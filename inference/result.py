"""What a run returns: draws on the model's own space, statistics, honest counts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.sampling.core.algorithm import Status

if TYPE_CHECKING:
    from shoal.inference.bias import Bias


@dataclass(frozen=True)
class Result:
    """Draws and how they were made.

    Attributes
    ----------
    posterior
        NumPy arrays ``(chain, draw, ...)`` by name, on the model's own constrained space,
        deterministic sites too.
    sample_stats
        NumPy arrays ``(chain, draw)`` by ArviZ's names: ``lp`` (log density of the unconstrained
        position), ``acceptance_rate``, ``diverging``, ``status`` and what else the sampler reports.
    num_gradients
        Gradient evaluations after warm-up, summed over chains; None where they cannot be counted.
    num_gradients_warmup
        Gradient evaluations of starts and warm-up.
    status
        How many steps after warm-up ended with each `Status`, summed over chains, by name.
    status_warmup
        The same for the warm-up.
    parameters
        The sampler's parameters that were used, with a leading chain axis.
    log_weights
        Normalised log-weights ``(chain, draw)`` where particles carry them, else None.
    attributes
        Facts for the record: sampler, seed data, versions, seconds.
    bias
        Estimated bias of an unadjusted sampler's draws; None for adjusted samplers, for those whose
        steps end where the gradient is not known exactly, and after too few draws for an estimate.
    outcome
        ``"completed"``, or ``"interrupted"`` where a signal ended the run before its last draw.
    target
        The target that was sampled; None for a loaded result.
    groups
        Further ArviZ groups, by name and variable, filled when first asked for.
    """

    posterior: dict[str, np.ndarray]
    sample_stats: dict[str, np.ndarray]
    num_gradients: int | None = None
    num_gradients_warmup: int | None = None
    status: dict[str, int] = field(default_factory=dict)
    status_warmup: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    log_weights: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    outcome: str = "completed"
    target: Any = field(default=None, repr=False)
    groups: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    bias: "Bias | None" = None

    def to_arviz(self, *, resample: bool | None = None) -> Any:
        """Hand the result to ArviZ, in the form of the version that is installed.

        Groups: ``posterior``, ``sample_stats`` and, where the model gives them,
        ``log_likelihood``, ``posterior_predictive``, ``prior``, ``prior_predictive`` and
        ``observed_data``.

        Parameters
        ----------
        resample
            What to do with weights, which ArviZ's summaries ignore: True draws ``draw`` indices
            again in each chain by systematic resampling, False keeps the draws as they are. By
            default they are resampled if they are unequal. Log-weights go to
            ``sample_stats["log_weight"]`` and the effective sample size of the weights to the
            attributes.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            The former with ArviZ before 1.0.
        """
        from shoal.inference.arviz import to_arviz

        return to_arviz(self, resample=resample)

    def save(self, path: str | Path) -> Path:
        """Write everything to a NetCDF file that ArviZ reads too; return its path.

        Raises
        ------
        OSError
            If the file cannot be written; a file that was there before is left whole.
        """
        from shoal.inference.arviz import save

        return save(self, path)

    @staticmethod
    def load(path: str | Path) -> "Result":
        """Read a file written by `save`; its result has no ``target``.

        Raises
        ------
        FileNotFoundError
            If there is no file at ``path``.
        ValueError
            If the file was not written by `save`.
        """
        from shoal.inference.arviz import load

        return load(path)

    def report(self) -> str:
        """Say in sentences what went wrong and how often; empty if nothing did."""
        lines = []
        for phase, counts in (("warm-up", self.status_warmup), ("sampling", self.status)):
            total = sum(counts.values())
            for name, count in counts.items():
                if name != Status.OK.name.lower() and count:
                    sentence = Status[name.upper()].sentence
                    lines.append(f"{phase}: in {count} of {total} steps {sentence}")
        return "\n".join(lines)
