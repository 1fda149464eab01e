"""What diffusion solvers are compared on, reference solutions, and figures published for peers.

The peers' figures were measured with their unmodified code in float64 on the same problems; they
are root mean squared errors, of samples drawn with other keys, so that they differ by a few per
cent from a run here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal.models import denoisers
from shoal.sampling import diffusion
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.schedules import unit_scales

CALLS = (5, 6, 8, 10, 12, 15, 20)
SCHEDULE = diffusion.vp_linear()
_REFERENCE_STEPS = 400

# By problem and solver, at the numbers of calls above.
FIGURES = {
    "digits mixture": {
        "DDIM": (0.1775, 0.1558, 0.1260, 0.1071, 0.0943, 0.0821, 0.0671),
        "DPM-Solver++(2M)": (0.1096, 0.0875, 0.0662, 0.0561, 0.0420, 0.0296, 0.0210),
        "DPM-Solver++(3M)": (0.0957, 0.0797, 0.0548, 0.0698, 0.0360, 0.0190, 0.0073),
        "UniPC-2 bh2": (0.0929, 0.0755, 0.0495, 0.0308, 0.0226, 0.0109, 0.0043),
        "UniPC-3 bh1": (0.1098, 0.1040, 0.0553, 0.0376, 0.0239, 0.0099, 0.0031),
        "UniPC-3 bh2": (0.0863, 0.0767, 0.0435, 0.0305, 0.0201, 0.0086, 0.0029),
        "v3-3": (0.0564, 0.0401, 0.0196, 0.0094, 0.0102, 0.0046, 0.0035),
    },
    "ring": {
        "DDIM": (0.1444, 0.1098, 0.0804, 0.0630, 0.0520, 0.0411, 0.0305),
        "DPM-Solver++(2M)": (0.0802, 0.0726, 0.0469, 0.0359, 0.0234, 0.0140, 0.0076),
        "DPM-Solver++(3M)": (0.0841, 0.0975, 0.1018, 0.0150, 0.0108, 0.0075, 0.0043),
        "UniPC-2 bh2": (0.0789, 0.0750, 0.0412, 0.0227, 0.0111, 0.0056, 0.0039),
        "UniPC-3 bh1": (0.1995, 0.1856, 0.1004, 0.0386, 0.0224, 0.0113, 0.0049),
        "UniPC-3 bh2": (0.0819, 0.0892, 0.0781, 0.0346, 0.0206, 0.0108, 0.0048),
        "v3-3": (0.1223, 0.0441, 0.0193, 0.0157, 0.0121, 0.0086, 0.0050),
    },
    "digits data set": {
        "DPM-Solver++(2M)": (0.179, 0.151, 0.124, 0.101, 0.088, 0.070, 0.052),
        "v3-3": (0.136, 0.119, 0.099, 0.094, 0.083, 0.041, 0.031),
    },
}


class Problem(NamedTuple):
    """A denoiser on a schedule, starts and where the exact flow takes them.

    Attributes
    ----------
    x_T
        Starts, ``(n, ...)``.
    end
        Where the flow takes them, of the same shape.
    model, data
        Denoiser and samples from which statistics are estimated; without guidance.
    grid
        Time grid of the comparison.
    """

    name: str
    denoiser: Denoiser
    x_T: jax.Array
    end: jax.Array
    model: Denoiser
    data: jax.Array
    grid: str


def problems(quick: bool) -> dict[str, Callable[[], Problem]]:
    """Return makers of the problems by name."""
    share = 4 if quick else 1
    mixture = lambda: denoisers.digits_mixture()
    images = lambda: jnp.asarray(denoisers.digits_data()[0])
    sample = lambda denoiser, n: denoiser.fn.sample(jax.random.key(5), n)
    return {
        "digits mixture": lambda: _problem(
            "digits mixture", mixture(), lambda d: sample(d, 1024), 1024 // share, "quadratic"
        ),
        "ring": lambda: _problem(
            "ring", denoisers.ring_mixture(), lambda d: sample(d, 4096), 4096 // share, "logsnr"
        ),
        "digits data set": lambda: _problem(
            "digits data set", denoisers.empirical(images(), 0.1),
            lambda _: _smoothed(images()), 256 // share, "quadratic",
        ),
        "digits network": lambda: _problem(
            "digits network", denoisers.digits(), lambda _: images(), 512 // share, "quadratic"
        ),
    }  # fmt: skip


def guided(strength: float, num: int) -> Problem:
    """Return the digits network of all classes with guidance (1 + strength) c - strength u."""
    network = denoisers.digits_network()
    labels = jnp.arange(num) % 10
    denoiser = diffusion.guidance.classifier_free(
        network, labels, network.no_label, 1 + strength, schedule=diffusion.edm()
    )
    images = lambda _: jnp.asarray(denoisers.digits_data()[0])
    name = f"digits network, guidance {strength:g}"
    problem = _problem(name, denoiser, images, num, "quadratic")
    return problem._replace(model=jax.tree.map(_double, denoisers.digits()))


def held_out(problem: Problem, num: int) -> Problem:
    """Return the problem with other starts."""
    x_T = _starts(num, problem.x_T.shape[1:], jax.random.key(99))
    return problem._replace(x_T=x_T, end=flow(problem.denoiser, x_T))


@functools.partial(jax.jit, static_argnums=(2,))
def _flow(denoiser: Any, x_T: jax.Array, num_steps: int) -> jax.Array:
    start, end = (SCHEDULE.half_log_snr(np.float64(t)) for t in (SCHEDULE.t_max, SCHEDULE.t_min))
    h = (end - start) / num_steps
    denoiser = denoiser.on(SCHEDULE)

    def slope(half_log_snr: jax.Array, x: jax.Array) -> jax.Array:
        alpha, _ = unit_scales(half_log_snr)
        return alpha * (denoiser.data(x, half_log_snr) - alpha * x)

    def step(x: jax.Array, i: jax.Array) -> Any:
        at = start + h * i
        k1 = slope(at, x)
        k2 = slope(at + h / 2, x + h / 2 * k1)
        k3 = slope(at + h / 2, x + h / 2 * k2)
        k4 = slope(at + h, x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x_T, jnp.arange(num_steps, dtype=x_T.dtype))[0]


def flow(denoiser: Denoiser, x_T: jax.Array) -> jax.Array:
    """Return the end of the probability flow, by Runge and Kutta's method in many small steps."""
    return _flow(denoiser, x_T, _REFERENCE_STEPS)


def _problem(
    name: str, denoiser: Denoiser, data: Callable[[Denoiser], jax.Array], num: int, grid: str
) -> Problem:
    denoiser = jax.tree.map(_double, denoiser)
    found = _double(data(denoiser))
    x_T = _starts(num, found.shape[1:], jax.random.key(4))
    return Problem(name, denoiser, x_T, flow(denoiser, x_T), denoiser, found, grid)


def _starts(num: int, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (num, *shape), jnp.float64)


def _smoothed(images: jax.Array) -> jax.Array:
    return images + 0.1 * jax.random.normal(jax.random.key(6), images.shape)


def _double(leaf: Any) -> Any:
    is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if is_float else leaf
