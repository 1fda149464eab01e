"""How tests compile: as for users, or quickly, where numbers hold with any rounding.

Few passes, no fused loops and no program in 32 parts take a quarter of the time to compile and
make slower programs; ``level`` 1 makes faster ones again, for long loops, in twice the time.
"""

from collections.abc import Callable
from typing import Any

from jax._src import compiler

USUAL_OPTIONS = compiler.get_compile_options
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def quick_options(level: int = 0) -> Callable[..., Any]:
    """Return what may stand in for `jax._src.compiler.get_compile_options`."""
    chosen = QUICK | {"xla_backend_optimization_level": level}

    def options(*arguments: Any, **given: Any) -> Any:
        made = USUAL_OPTIONS(*arguments, **given)
        made.env_option_overrides = [*made.env_option_overrides, *chosen.items()]
        return made

    return options


def compile_quickly() -> None:
    """Compile so from now on, in a process of a test's own."""
    compiler.get_compile_options = quick_options()
