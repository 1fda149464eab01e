"""Kernel-vector product against the unfused pair of matrix products ``(x @ x.T) @ s``.

Both multiply an n x n matrix by n x d values: ours is exp(-|x_i - x_j|^2 / h), evaluated tile by
tile, the peer's the Gram matrix, which XLA writes to memory whole. Rows of time are seconds,
rows of memory are MiB of compiled temporary storage against the bar of 8 MiB.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from _harness import Report, interleave, parse_options

from shoal.sampling.core import kernels, pairwise

MEBIBYTE = 2**20
MEMORY_BAR_MIB = 8.0


def matrix_product_pair(x: jax.Array, s: jax.Array) -> jax.Array:
    return (x @ x.T) @ s


def temporary_mebibytes(function: Any, *arguments: Any) -> float:
    analysis = function.lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes / MEBIBYTE


def main() -> None:
    options = parse_options("Kernel-vector product against the unfused matrix product pair")
    report = Report(options)
    peer = jax.jit(matrix_product_pair)
    ours = {
        "matvec": jax.jit(lambda k, x, s: pairwise.kernel_matvec(k, x, x, s)),
        "matvec_plus_grad_sum": jax.jit(
            lambda k, x, s: pairwise.kernel_matvec_plus_grad_sum(k, x, x, s, jnp.ones(len(x)))
        ),
    }
    n = 4096
    for d in (10, 100):
        kernel = kernels.RBF(2.0 * d)
        x, s = (jax.random.normal(jax.random.key(seed), (n, d)) for seed in (0, 1))
        held = temporary_mebibytes(peer, x, s)
        if held < 4 * n * n / MEBIBYTE:
            raise RuntimeError(f"the peer holds {held} MiB: XLA did not form its n x n matrix")
        contenders = {name: partial(function, kernel, x, s) for name, function in ours.items()}
        times = interleave(contenders | {"peer": partial(peer, x, s)}, options.rounds(21, 5))
        for name, function in ours.items():
            title = f"pairwise/{name}/n={n},d={d}"
            report.ratio(f"{title}/seconds", times, bar=1.0, ours=name)
            memory = temporary_mebibytes(function, kernel, x, s)
            report.row(f"{title}/MiB", memory, MEMORY_BAR_MIB, memory / MEMORY_BAR_MIB, bar=1.0)
    report.finish()


if __name__ == "__main__":
    main()
