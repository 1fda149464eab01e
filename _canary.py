"""A known wrong answer of XLA on CPU, looked for before it reaches anybody's results.

jaxlib 0.10.2 compiles a product, its sum over the last axis and a use of that sum into one fused
loop that leaves part of the output wrong once more than 32768 float32 numbers are involved
(jax-ml/jax#39103). The package excludes that version; an environment can still hold it, and a
later version can bring the fault back.
"""

import functools
import importlib.metadata
import warnings

KNOWN_WRONG = frozenset({"0.10.2"})


def version_is_known_wrong() -> bool:
    """Whether the installed jaxlib is a release with the fault; does not import jax."""
    try:
        return importlib.metadata.version("jaxlib") in KNOWN_WRONG
    except importlib.metadata.PackageNotFoundError:
        return False


def reductions_are_right() -> bool:
    """Compare ``x - sum(w * x)``, compiled for the default device, with NumPy's.

    The arrays are the smallest known to show the fault: 20 x 41 x 40 float32 numbers, where
    jaxlib 0.10.2 is off by 17 and a right answer by 4e-6.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    generator = np.random.default_rng(0)
    w = generator.standard_normal((41, 40), dtype=np.float32)
    x = generator.standard_normal((20, 41, 40), dtype=np.float32)

    @jax.jit
    def centred(w: jax.Array, x: jax.Array) -> jax.Array:
        return x - jnp.sum(w * x, axis=-1, keepdims=True)

    expected = x - np.sum(w * x, axis=-1, keepdims=True)
    return bool(np.max(np.abs(np.asarray(centred(w, x)) - expected)) < 1e-3)


@functools.cache
def warn_if_wrong() -> None:
    """Warn where jax's default device is a CPU that fails the comparison; once in a process."""
    import jax

    if jax.default_backend() != "cpu" or reductions_are_right():
        return
    warnings.warn(
        f"jaxlib {importlib.metadata.version('jaxlib')} computes wrong numbers on this CPU: a "
        "jitted product and sum over more than 32768 elements differs from NumPy's "
        "(jax-ml/jax#39103), so results of this process are not to be trusted. Install another "
        "jaxlib (pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'), or set the environment variable "
        'XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type=" before Python starts.',
        RuntimeWarning,
        stacklevel=2,
    )
