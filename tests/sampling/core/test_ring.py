"""Reductions over a ring of four devices against the same on one, in a process of its own."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from shoal.sampling.core import kernels, pairwise

SCRIPT = textwrap.dedent("""
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from shoal.sampling.core import bandwidth, kernels, pairwise

    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    ring = pairwise.Ring(Mesh(np.array(jax.devices()).reshape(2, 2), ("other", "line")), "line")
    ring4 = pairwise.Ring(Mesh(np.array(jax.devices()), ("line",)), "line")
    a = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)

    def all_reductions(x, y, v, w, h, ring, block_size):
        options = dict(ring=ring, block_size=block_size)
        custom = kernels.Custom(lambda x, y, h: jnp.exp(-jnp.sum((x - y) ** 2) / h), h)
        kernel = kernels.IMQ(h) + kernels.RBF(h) * kernels.Linear()
        bias = jnp.where(jnp.arange(len(y)) % 3 == 0, -jnp.inf, w)
        sums = pairwise.kernel_matvec_plus_grad_sum(kernel, x, y, v, w, threshold=h, **options)
        return dict(
            matvec=pairwise.kernel_matvec(kernels.RBF(h), x, y, v, **options),
            grad_sum=pairwise.kernel_grad_sum(custom, x, y, w, **options),
            total=sums.total, near=sums.near,
            logsumexp=pairwise.logsumexp(x, y, bias, h, **options),
            softmax_mean=pairwise.softmax_mean(x, y, bias, v, h, **options),
            double=pairwise.kernel_sum(kernel, y, y, w, w, exclude_diagonal=True, **options),
            median=bandwidth.from_rule("median_all", y, **options),
        )

    for m, n, used, block_size in ((10, 14, ring4, 2), (5, 3, ring, None)):
        arguments = a(0, m, 2), a(1, n, 2) + 3, a(2, n, 2), a(3, n), jnp.array(1.3)
        run = jax.jit(all_reductions, static_argnums=(5, 6))
        single, shared = run(*arguments, None, None), run(*arguments, used, block_size)
        for name in single:
            np.testing.assert_allclose(shared[name], single[name], rtol=1e-12, atol=1e-13,
                                       err_msg=name)

    def number(ring, x, y, v, w, h):
        kernel = kernels.Matern52(h) * kernels.Linear()
        total = pairwise.kernel_matvec_plus_grad_sum(kernel, x, y, v, w, ring=ring).total
        mean = pairwise.softmax_mean(x, y, w, v, h, ring=ring)
        return jnp.sum(jnp.sin(total)) + jnp.sum(jnp.sin(mean))

    arguments = a(0, 10, 2), a(1, 14, 2), a(2, 14, 2), a(3, 14), jnp.array(1.3)
    slope = jax.jit(jax.grad(number, range(1, 6)), static_argnums=0)
    for found, wanted in zip(slope(ring4, *arguments), slope(None, *arguments)):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)

    # Points that lie split over the devices stay so, and nobody holds them whole.
    split = NamedSharding(ring4.mesh, PartitionSpec("line"))
    x = jax.device_put(a(0, 4096, 8), split)
    product = jax.jit(lambda x: pairwise.kernel_matvec(kernels.RBF(1.0), x, x, x, ring=ring4))
    out = product(x)
    assert out.sharding.is_equivalent_to(split, 2), out.sharding
    program = product.lower(x).compile().as_text()
    assert "collective-permute" in program and "all-gather" not in program
    print("the ring agrees")
""")


def test_ring_of_four_devices_agrees_with_one(quick_environment: dict[str, str]) -> None:
    flags = f"{quick_environment['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=quick_environment | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the ring agrees" in done.stdout


def test_an_axis_that_the_mesh_lacks_is_refused() -> None:
    ring = pairwise.Ring(jax.make_mesh((1,), ("line",)), "row")
    with pytest.raises(ValueError, match=r"ring.axis must be one of \('line',\), got 'row'"):
        pairwise.kernel_grad_sum(
            kernels.RBF(1.0), jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.ones(2), ring=ring
        )
