"""Chains over all devices of all processes, saved as they go; start it again to continue.

Alone: ``python several_processes.py``. Two processes on one machine::

    export COORDINATOR=127.0.0.1:9876 PROCESSES=2
    RANK=0 python several_processes.py &
    RANK=1 python several_processes.py

Under SLURM: ``srun python several_processes.py``. The density is a Gaussian in ten dimensions
whose neighbours have the correlation 0.9, so that every variance is one.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import plot, sample

DIM = 10
PRECISION = np.linalg.inv(0.9 ** np.abs(np.subtract.outer(np.arange(DIM), np.arange(DIM))))


def join() -> None:
    """Find the other processes, if there are any, before JAX looks for devices."""
    # A peer that dies is noticed within 20 seconds.
    patience = {"heartbeat_timeout_seconds": 20, "shutdown_timeout_seconds": 20}
    if "COORDINATOR" in os.environ:
        jax.distributed.initialize(
            os.environ["COORDINATOR"], int(os.environ["PROCESSES"]), int(os.environ["RANK"]),
            **patience,
        )  # fmt: skip
    elif "SLURM_JOB_ID" in os.environ:
        jax.distributed.initialize(**patience)


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * x @ jnp.asarray(PRECISION, x.dtype) @ x


def main(num_samples: int = 5000, folder: Path = Path()) -> float:
    """Write ``several_processes.png``; return the largest deviation of a variance from one."""
    mesh = jax.make_mesh((jax.device_count(),), ("chains",))
    result = sample(
        jax.random.key(0), log_density, "mala", init=jnp.zeros(DIM), num_chains=32,
        num_samples=num_samples, mesh=mesh, checkpoint=folder / "several_processes",
        tune_metric="dense",
    )  # fmt: skip
    draws = result.posterior["position"]
    if jax.process_index() == 0:
        figure = plot.overview(result)
        figure.suptitle(f"{draws.shape[0]} chains on {jax.device_count()} devices")
        figure.savefig(folder / "several_processes.png")
    return float(np.abs(draws.reshape(-1, DIM).var(axis=0) - 1).max())


if __name__ == "__main__":
    join()
    deviation = main()
    if jax.process_index() == 0:
        print(f"largest deviation of a variance from one: {deviation:.4f}")
