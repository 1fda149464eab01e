"""How a `Sampler` is made of hyperparameters that have gone through their checks."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from shoal.sampling.core._checks import real_parameter
from shoal.sampling.core.algorithm import Sampler
from shoal.sampling.core.mirror import MirrorMap, euclidean


@functools.cache
def check_positive(name: str, allow_zero: bool = False) -> Callable[[Any], Any]:
    """Return a function that passes a positive (or non-negative) finite number on.

    It raises ``TypeError`` for what is no real number and ``ValueError`` for one out of range,
    naming ``name`` and the value. Cached, so that equal checks are identical objects.
    """
    wanted = "non-negative and finite" if allow_zero else "positive and finite"
    return functools.partial(
        real_parameter, name, low=0.0, include_low=allow_zero, scalar=True, wanted=wanted
    )


def make_sampler(
    build: Callable[..., Any],
    parameters: Mapping[str, Any],
    prepare: Mapping[str, Callable[[Any], Any]],
    **settings: Any,
) -> Sampler:
    """Return a `Sampler` whose parameters have gone through their checks, now and in ``replace``.

    Parameters
    ----------
    build
        As in `Sampler`.
    parameters
        Dynamic hyperparameters by name, as the user gave them.
    prepare
        Check or conversion of each, by name.
    settings
        Further fields of `Sampler`: ``options``, ``target_acceptance``, ``is_adjusted``.
    """
    prepared = {name: prepare[name](value) for name, value in parameters.items()}
    return Sampler(build, prepared, prepare=tuple(prepare.items()), **settings)


def check_mirror(mirror: Any) -> MirrorMap:
    """Return a mirror map, that of all of space for None. Else raise."""
    if mirror is None:
        return euclidean()
    if not isinstance(mirror, MirrorMap):
        raise TypeError(
            "mirror must be a map of shoal.sampling.core.mirror, such as mirror.simplex(), got "
            f"{type(mirror).__name__}: {mirror!r}"
        )
    return mirror
