"""Brownian increments with their Lévy areas: how they join, halve and split, and their seed.

An interval of length h carries the first three coefficients of the white noise on it in shifted
Legendre polynomials, with y in [0, 1] the place in the interval,

    W = ∫ dW,    H = ∫ (1/2 - y) dW,    K = ∫ (6y² - 6y + 1) / 12 dW,

independent, of variance h, h/12 and h/720. All laws here are exact. An `Increment` holds W, (W, H)
or (W, H, K); what is left out is None.

Reference: Jelinčič, Foster and Kidger, "Single-seed generation of Brownian paths and integrals for
adaptive and high order SDE solvers", arXiv:2405.06464, section 3 (theorem 3.7 for `cut`).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEVY = ("W", "WH", "WHK")


class Increment(NamedTuple):
    """Brownian increment over an interval of length h, with its Lévy areas.

    Attributes
    ----------
    W
        Increment, of variance h.
    H
        Space-time Lévy area, of variance h / 12, or None.
    K
        Space-time-time Lévy area, of variance h / 720, or None.
    """

    W: jax.Array
    H: jax.Array | None = None
    K: jax.Array | None = None


def draw(normals: jax.Array, h: Any) -> Increment:
    """Return the increment over an interval of length ``h`` from normals, one row for each part."""
    scales = (1.0, 12**-0.5, 720**-0.5)[: len(normals)]
    return Increment(*(scale * jnp.sqrt(h) * z for scale, z in zip(scales, normals, strict=True)))


def join(left: Increment, right: Increment, a: Any) -> Increment:
    """Return the increment over two adjacent intervals (Chen's relation).

    ``a`` in [0, 1] is the share of the left one in the total length. An interval without length
    must hold zeros.
    """
    b = 1 - a
    total = left.W + right.W
    if left.H is None or right.H is None:
        return Increment(total)
    bend = b * left.W - a * right.W
    area = a * left.H + b * right.H + bend / 2
    if left.K is None or right.K is None:
        return Increment(total, area)
    moment = a * a * left.K + b * b * right.K + a * b / 2 * (left.H - right.H) + (b - a) / 12 * bend
    return Increment(total, area, moment)


def take_away(whole: Increment, left: Increment, a: Any) -> Increment:
    """Return the right part of a whole of which the left share ``a`` is known: `join` undone.

    Divides by the square of 1 - a: exact in float arithmetic only where that is not small.
    """
    b = 1 - a
    rest = whole.W - left.W
    if whole.H is None or left.H is None:
        return Increment(rest)
    bend = b * left.W - a * rest
    area = (whole.H - a * left.H - bend / 2) / b
    if whole.K is None or left.K is None:
        return Increment(rest, area)
    moment = whole.K - a * a * left.K - a * b / 2 * (left.H - area) - (b - a) / 12 * bend
    return Increment(rest, area, moment / (b * b))


def halve(whole: Increment, normals: jax.Array, h: Any) -> tuple[Increment, Increment]:
    """Draw both halves of an interval of length ``h`` given the whole."""
    root = jnp.sqrt(h)
    if whole.H is None:
        z = root / 2 * normals[0]
        return Increment(whole.W / 2 + z), Increment(whole.W / 2 - z)
    z = root / 4 * normals[0]
    slope = 1.5 * whole.H + z
    mean = whole.H / 4 - z / 2
    ups = Increment(whole.W / 2 + slope), Increment(whole.W / 2 - slope)
    if whole.K is None:
        n = root * 48**-0.5 * normals[1]
        return Increment(ups[0].W, mean + n), Increment(ups[1].W, mean - n)
    x1 = root * 768**-0.5 * normals[1]
    x2 = root * 2880**-0.5 * normals[2]
    bend = 3.75 * whole.K + x1
    moment = whole.K / 8 - x1 / 2
    return (
        Increment(ups[0].W, mean + bend, moment + x2),
        Increment(ups[1].W, mean - bend, moment - x2),
    )


def cut(whole: Increment, normals: jax.Array, h: Any, r: Any) -> tuple[Increment, Increment]:
    """Draw both parts of an interval of length ``h`` cut at the share ``r`` in [0, 1].

    The shorter part is drawn, the longer follows by subtraction: neither loses precision where r
    is close to 0 or 1.
    """
    is_right = r > 0.5
    turn = lambda part: _reverse(part, is_right)
    share = jnp.minimum(r, 1 - r)
    near = _start(turn(whole), normals, h, share)
    far = take_away(turn(whole), near, share)
    choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(is_right, x, y), a, b)
    return turn(choose(far, near)), turn(choose(near, far))


def _reverse(part: Increment, where: Any) -> Increment:
    """Let time run backwards: H changes its sign."""
    return part if part.H is None else part._replace(H=jnp.where(where, -part.H, part.H))


def _start(whole: Increment, normals: jax.Array, h: Any, r: Any) -> Increment:
    """Draw the part [0, r], r <= 1/2, of an interval of length ``h`` given the whole.

    Conditional mean and covariance over r are polynomials in r. The Cholesky factor, in the order
    K, H, W, exists for r = 0 too, and its diagonal stays above 0.02.
    """
    q, scale = 1 - r, jnp.sqrt(h * r)
    if whole.H is None:
        return Increment(r * whole.W + scale * jnp.sqrt(q) * normals[0])
    mean_w, mean_h = r * whole.W + 6 * r * q * whole.H, r * r * whole.H
    if whole.K is None:
        hh = jnp.sqrt(q * (1 + r + r * r) / 12)
        wh = -r * r * q / 2 / hh
        ww = jnp.sqrt(q * (3 * r * r - 3 * r + 1) - wh * wh)
        w = mean_w + scale * (wh * normals[1] + ww * normals[0])
        return Increment(w, mean_h + scale * hh * normals[1])
    mean_w = mean_w + 60 * r * q * (1 - 2 * r) * whole.K
    mean_h = mean_h + 30 * r * r * q * whole.K
    kk = jnp.sqrt((1 - r**5) / 720)
    hk = -q * r**4 / 24 / kk
    wk = r**3 * q * (2 * r - 1) / 12 / kk
    hh = jnp.sqrt((1 - r**3 * (r * r + 2 * r * q + 16 * q * q)) / 12 - hk * hk)
    wh = (-r * r * q * (10 * r * r - 15 * r + 6) / 2 - wk * hk) / hh
    variance = q * (20 * r**4 - 40 * r**3 + 28 * r * r - 8 * r + 1)
    ww = jnp.sqrt(variance - wk * wk - wh * wh)
    return Increment(
        mean_w + scale * (wk * normals[2] + wh * normals[1] + ww * normals[0]),
        mean_h + scale * (hk * normals[2] + hh * normals[1]),
        r**3 * whole.K + scale * kk * normals[2],
    )


def seed_of(key: jax.Array) -> jax.Array:
    """Return the two words, uint32, on which all numbers of a path depend."""
    return jax.random.bits(key, (2,), jnp.uint32)


def node_normals(
    seed: jax.Array, node: Any, levy: str, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """Return the normals of a node, ``(len(levy), *shape)``: a function of seed and number alone.

    Node ``2**level + index`` is the interval ``index`` of ``2**level`` equal ones; 0 draws the
    whole interval.
    """
    count = len(levy) * math.prod(shape)
    if jnp.dtype(dtype).itemsize > 4:
        high, low = threefry(seed, node, jnp.arange(count, dtype=jnp.uint32))
        bits = (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
    else:
        words = threefry(seed, node, jnp.arange((count + 1) // 2, dtype=jnp.uint32))
        bits = jnp.concatenate(words)[:count]
    normals = _normals(bits, dtype).reshape(len(levy), *shape)
    # Without the barrier XLA would hash anew for every use.
    return jax.lax.optimization_barrier(normals)


def threefry(seed: jax.Array, high: Any, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hash counters ``(high, low)`` to two words each, as ``jax.extend.random.threefry_2x32``.

    That one is a loop in memory on CPU. Written out, the hash and what is made of its words
    become one pass: twice as fast.
    """
    keys = seed[0], seed[1], seed[0] ^ seed[1] ^ np.uint32(0x1BD11BDA)
    high, low = jnp.asarray(high).astype(jnp.uint32) + keys[0], low + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(turn)) | (low >> np.uint32(32 - turn)))
        high = high + keys[(group + 1) % 3]
        low = low + keys[(group + 2) % 3] + np.uint32(group + 1)
    return high, low


def _normals(bits: jax.Array, dtype: Any) -> jax.Array:
    """Map random bits to normals: uniform numbers, symmetric around 0 and never -1 or 1, first."""
    info = jnp.finfo(dtype)
    one = np.array(1, dtype).view(bits.dtype)
    mantissa = bits >> np.array(bits.dtype.itemsize * 8 - info.nmant, bits.dtype)
    uniform = jax.lax.bitcast_convert_type(mantissa | one, dtype)
    centred = 2 * (uniform - 1) - (1 - float(info.eps))
    return np.sqrt(2).astype(dtype) * jax.lax.erf_inv(centred)
