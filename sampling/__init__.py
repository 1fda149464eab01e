"""What moves particles: one core (`shoal.sampling.core`) and a folder for each family."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if __name__ != "shoal.sampling":
    raise ImportError(f"import this package as 'shoal.sampling', not as {__name__!r}")

if TYPE_CHECKING:
    from shoal.sampling import (
        core as core,
        diffusion as diffusion,
        langevin as langevin,
        stein as stein,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__, {"shoal.sampling": ["core", "diffusion", "langevin", "stein"]}
    )
