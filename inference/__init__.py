"""What a user runs: a model in, draws, diagnostics and pictures out."""

from typing import TYPE_CHECKING

from shoal._lazy import attach

if __name__ != "shoal.inference":
    raise ImportError(f"import this package as 'shoal.inference', not as {__name__!r}")

if TYPE_CHECKING:
    from shoal.inference import (
        checkpoint as checkpoint,
        diagnostics as diagnostics,
        plot as plot,
        run as run,
    )
    from shoal.inference._generate import (
        Generated as Generated,
        GenerationError as GenerationError,
        GenerationWarning as GenerationWarning,
        generate as generate,
    )
    from shoal.inference._journal import Checkpoint as Checkpoint
    from shoal.inference._sample import (
        SamplingError as SamplingError,
        SamplingWarning as SamplingWarning,
        resume as resume,
        sample as sample,
    )
    from shoal.inference.cache import enable_compilation_cache as enable_compilation_cache
    from shoal.inference.result import Result as Result
    from shoal.inference.target import Target as Target
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "shoal.inference": ["checkpoint", "diagnostics", "plot", "run"],
            "shoal.inference._generate": [
                "Generated",
                "GenerationError",
                "GenerationWarning",
                "generate",
            ],
            "shoal.inference._sample": ["SamplingError", "SamplingWarning", "resume", "sample"],
            "shoal.inference.cache": ["enable_compilation_cache"],
            "shoal.inference._journal": ["Checkpoint"],
            "shoal.inference.result": ["Result"],
            "shoal.inference.target": ["Target"],
        },
    )
