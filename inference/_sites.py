"""What replaces the values of a NumPyro model's latent sites while the model runs.

Each function here is a ``substitute_fn`` of ``numpyro.handlers.substitute``. What it finds besides
the value is put on record in a deterministic site: those pass the model's own scale, mask and
plate handlers as they are, and come stacked out of ``scan``. (A ``numpyro.factor`` would be scaled
and masked like the site's density.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import biject_to

_WRAPPERS = (dist.ExpandedDistribution, dist.MaskedDistribution, dist.Independent)


def constrained(position: dict[str, jax.Array], site: dict[str, Any]) -> Any:
    """Value of a latent site from its unconstrained one."""
    found = _constrained(position, site)
    return None if found is None else found[0]


def constrained_with_log_det(position: dict[str, jax.Array], site: dict[str, Any]) -> Any:
    """Value of a latent site from its unconstrained one, and the log Jacobian on record."""
    found = _constrained(position, site)
    if found is None:
        return None
    value, transform, z = found
    log_det = jnp.sum(transform.log_abs_det_jacobian(z, value))
    numpyro.deterministic(_label("log_det", site["name"]), log_det)
    return value


def inverted(
    position: dict[str, jax.Array], given: dict[str, jax.Array], site: dict[str, Any]
) -> Any:
    """Value of a latent site; of a given one, its unconstrained value is put on record."""
    name = site["name"]
    if site["type"] != "sample" or name not in given:
        return constrained(position, site)
    fn = site["fn"]
    value = _present(given[name], len(fn.shape()), site)
    numpyro.deterministic(_label("position", name), biject_to(fn.support).inv(value))
    numpyro.deterministic(_label("inside", name), jnp.all(fn.support(value)))
    return value


def recorded(trace: dict[str, Any], what: str, name: str) -> jax.Array:
    """Read what was put on record about a site: ``"log_det"``, ``"position"`` or ``"inside"``."""
    label = _label(what, name)
    # numpyro.handlers.scope prefixes the names of all sites, these too.
    return next(site["value"] for key, site in trace.items() if key.endswith(label))


def innermost(fn: Any) -> Any:
    """Take expansion, masks and event dimensions off a distribution."""
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def outside_support(fn: Any, value: jax.Array) -> jax.Array | None:
    """Flag values outside a scalar support that has no parameters; None for other supports.

    Values that are masked out do not count.
    """
    support = fn.support
    while isinstance(support, dist.constraints.independent):
        support = support.base_constraint
    if support.event_dim or jax.tree.leaves(support):
        return None
    outside = ~support(value)
    event_dim = 0
    while isinstance(fn, _WRAPPERS):
        if isinstance(fn, dist.MaskedDistribution):
            mask = jnp.asarray(fn._mask)
            event_dim = fn.event_dim if mask.ndim else 0
            outside = outside & mask.reshape(mask.shape + (1,) * event_dim)
        fn = fn.base_dist
    return outside


def _constrained(
    position: dict[str, jax.Array], site: dict[str, Any]
) -> tuple[jax.Array, Any, jax.Array] | None:
    if site["type"] != "sample" or site["name"] not in position:
        return None
    # The support may depend on other sites: it is the one at this moment.
    transform = biject_to(site["fn"].support)
    added = transform.codomain.event_dim - transform.domain.event_dim
    z = _present(position[site["name"]], len(site["fn"].shape()) - added, site)
    return transform(z), transform, z


def _present(values: jax.Array, ndim: int, site: dict[str, Any]) -> jax.Array:
    """Take the present step of a site inside ``scan``, whose values have a leading time axis."""
    index = site["infer"].get("_scan_current_index")
    return values if index is None or jnp.ndim(values) <= ndim else values[index]


def _label(what: str, name: str) -> str:
    return f"|{what}|{name}"
