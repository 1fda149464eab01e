"""Randomness that depends on who and when, never on how the work was cut.

Every random number is a function of (run key, particle id, absolute step). A run is therefore
bitwise the same whatever the length of its chunks, its interruptions and, for particles that do
not interact, the number of devices: nothing is ever split by count.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.sampling.core._checks import floating_dtype, integer


def step_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Return the key of one absolute step of a run.

    Parameters
    ----------
    key
        Run key, a typed key of shape ``()``.
    step
        Absolute step, an integer scalar, counted from 0 over the whole run and never reset.

    Returns
    -------
    jax.Array
        Typed key of shape ``()``: what an algorithm's ``step`` receives.

    Raises
    ------
    TypeError, ValueError
        If ``key`` is not one typed key or ``step`` no integer of at least 0.
    """
    check_key(key)
    return jax.random.fold_in(key, _as_step(step))


def particle_keys(key: jax.Array, particle_ids: jax.Array) -> jax.Array:
    """Return one key for each particle, from the key of a step.

    Parameters
    ----------
    key
        Typed key of shape ``()``, as from `step_key`.
    particle_ids
        Integer ids, shape ``(n,)``. A particle keeps its id through resampling and resharding.

    Returns
    -------
    jax.Array
        Typed keys, shape ``(n,)``.

    Raises
    ------
    TypeError
        If ``key`` is not one typed key or ``particle_ids`` no vector of integers.
    """
    check_key(key)
    dtype: Any = getattr(particle_ids, "dtype", None)
    if not jnp.issubdtype(dtype, np.integer) or len(particle_ids.shape) != 1:
        raise TypeError(
            "particle_ids must be an array of integers of shape (n,), got "
            + (repr(particle_ids) if dtype is None else f"{dtype} of shape {particle_ids.shape}")
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(key, particle_ids)


def normal(
    key: jax.Array,
    particle_ids: jax.Array,
    step: jax.Array | int,
    shape: tuple[int, ...] = (),
    dtype: Any = None,
) -> jax.Array:
    """Draw standard normal numbers for each particle at one step.

    Parameters
    ----------
    key
        Run key, a typed key of shape ``()``.
    particle_ids
        Integer ids, shape ``(n,)``.
    step
        Absolute step of the run.
    shape
        Shape of one particle's draw.
    dtype
        Floating dtype; JAX's default float when None.

    Returns
    -------
    jax.Array
        Shape ``(n, *shape)``.

    Raises
    ------
    TypeError, ValueError
        If ``key`` is not one typed key, ``particle_ids`` no vector of integers, ``step`` no integer
        of at least 0, ``shape`` no shape or ``dtype`` not floating.

    Examples
    --------
    The numbers of a particle do not depend on its company:

    >>> import jax, jax.numpy as jnp
    >>> from shoal.sampling.core import random
    >>> key = jax.random.key(0)
    >>> together = random.normal(key, jnp.arange(8), step=3, shape=(2,))
    >>> alone = random.normal(key, jnp.array([5]), step=3, shape=(2,))
    >>> bool((together[5] == alone[0]).all())
    True
    """
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape must be a tuple of integers, got {shape!r}")
    sizes = tuple(integer(f"shape={shape}", size, 0) for size in shape)
    dtype = floating_dtype("dtype", dtype)
    keys = particle_keys(step_key(key, step), particle_ids)
    return jax.vmap(lambda k: jax.random.normal(k, sizes, dtype))(keys)


def _as_step(step: Any) -> Any:
    """Pass on an integer scalar; only Python's and NumPy's are looked at."""
    if not isinstance(step, jax.Array):
        return integer("step", step, 0)
    if step.shape or not jnp.issubdtype(step.dtype, np.integer):
        raise TypeError(f"step must be an integer, got {step.dtype} of shape {step.shape}")
    return step


def check_key(key: Any, name: str = "key") -> None:
    """Raise ``TypeError`` unless ``key`` is one typed PRNG key, saying how to make one."""
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"{name} must be a typed key such as jax.random.key(0), got {type(key).__name__} of "
            f"dtype {getattr(key, 'dtype', None)}; wrap an old-style key with "
            "jax.random.wrap_key_data"
        )
    if key.shape != ():
        raise TypeError(f"{name} must be one key of shape (), got shape {key.shape}")
