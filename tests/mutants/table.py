"""What a row of the table of seeded bugs is, how it is judged, and all rows together.

A row is a bug (module, old text, new text) and the check that must find it: a function of a test
file, with its arguments. There are two kinds of checks:

- ``z_...(key, *arguments)`` returns statistics that are standard normal on correct code. One that
  exceeds `THRESHOLD` is an alarm.
- Any other is a test of the suite, with one set of its parameters, that must fail.

The suite runs both kinds on the correct package. A family adds its rows as a module here, with a
tuple ``BUGS``, and its name to `FAMILIES`.
"""

import contextlib
import importlib
from typing import Any, NamedTuple

import jax
import numpy as np
from mutants import seeding

THRESHOLD = 5.2
FAMILIES = (
    "auto",
    "bandwidth",
    "bias",
    "brownian",
    "chains",
    "denoisers",
    "densities",
    "diagnostics",
    "diffusion",
    "diffusion_guidance",
    "diffusion_multistep",
    "diffusion_search",
    "diffusion_v3",
    "discrepancy",
    "driver",
    "exponential",
    "generate",
    "guided",
    "interacting",
    "kernels",
    "kinetic",
    "langevin",
    "microcanonical",
    "mirror",
    "numpyro_bridge",
    "overdamped",
    "pairwise",
    "pareto",
    "particles",
    "randomness",
    "spherical",
    "stein_discrepancy",
    "stein_newton",
    "stein_svgd",
    "stein_mirrored",
    "stochastic",
    "training",
    "warmup",
)


class Check(NamedTuple):
    """A function of a file of ``tests/`` and its arguments.

    Attributes
    ----------
    file
        Path below ``tests/``.
    name
        Name in that file; a method of a test class as ``"Class.method"``.
    arguments
        Arguments, without the key of a statistical check.
    """

    file: str
    name: str
    arguments: tuple[Any, ...] = ()

    @property
    def is_statistical(self) -> bool:
        """Whether the check draws random numbers and returns statistics."""
        return self.name.startswith("z_")

    def __str__(self) -> str:
        return f"{self.file}::{self.name}{list(self.arguments) or ''}"


class Bug(NamedTuple):
    """A row: edit ``old`` into ``new`` in ``module``, and ``check`` must raise the alarm."""

    name: str
    module: str
    old: str
    new: str
    check: Check

    @property
    def edit(self) -> seeding.Edit:
        """What `seeding.seeded` takes."""
        return self.module, self.old, self.new


def found_by(file: str, name: str, arguments: tuple[Any, ...], *rows: tuple) -> tuple[Bug, ...]:
    """Make rows ``(name, module, old, new)`` that one check must find."""
    return tuple(Bug(*row, Check(file, name, arguments)) for row in rows)


def alarm(check: Check) -> str | None:
    """Run a check against the package as it is now; say what it found wrong, None if nothing.

    Exceptions other than failed assertions pass through: a bug that crashes is not one that
    needs a test to be seen.
    """
    function = load(check)
    with precision(function):
        try:
            if not check.is_statistical:
                function(*check.arguments)
                return None
            largest = float(np.max(np.abs(function(jax.random.key(20), *check.arguments))))
        except AssertionError as error:
            return str(error).strip().split("\n")[0] or "assertion"
    return None if largest <= THRESHOLD else f"max |z| = {largest:.1f}"


def load(check: Check) -> Any:
    """Return the check's function, of a test file executed anew."""
    owner: Any = seeding.execute(check.file)
    *classes, name = check.name.split(".")
    for one in classes:
        owner = getattr(owner, one)()
    return getattr(owner, name)


def precision(function: Any) -> contextlib.AbstractContextManager:
    """Return the context of the precision that a check asks for by its marks."""
    wanted = [name for mark in marks(function, "usefixtures") for name in mark.args]
    return jax.enable_x64(True) if "x64" in wanted else contextlib.nullcontext()


def marks(function: Any, name: str) -> list[Any]:
    """Return the marks that pytest has put on a function."""
    return [mark for mark in getattr(function, "pytestmark", []) if mark.name == name]


def families() -> dict[str, tuple[Bug, ...]]:
    """Return the rows of every family."""
    return {name: importlib.import_module(f"mutants.{name}").BUGS for name in FAMILIES}
