"""The schedulers of diffusers, run live where it and PyTorch are installed.

They know a schedule of 1,000 discrete steps, of which they take the noise levels that are even in
log(alpha / sigma); the denoiser is called at exactly those levels, in float64, so that what differs
from ours is the update alone. The exact flow is followed over the same range.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _diffusion_problems import Problem

from shoal.inference.discrepancy import rmse
from shoal.sampling import diffusion
from shoal.sampling.core.schedules import VPDiscrete

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
OPTIONS = {"use_lu_lambdas": True, "lower_order_final": True}


def schedulers() -> dict[str, Any]:
    """Return makers of schedulers, none where diffusers is not installed."""
    try:
        import diffusers
        import torch

        torch.set_default_dtype(torch.float64)
    except ImportError:
        return {}
    multistep = diffusers.DPMSolverMultistepScheduler
    return {
        "diffusers 2M": lambda: multistep(solver_order=2, **BETAS, **OPTIONS),
        "diffusers 3M": lambda: multistep(solver_order=3, **BETAS, **OPTIONS),
    }


def discrete() -> VPDiscrete:
    """Return their schedule."""
    betas = np.linspace(BETAS["beta_start"], BETAS["beta_end"], BETAS["num_train_timesteps"])
    return diffusion.vp_discrete(np.cumprod(1 - betas))


def show(problem: Problem, calls: tuple[int, ...]) -> None:
    """Print errors of their schedulers and of ours on their schedule, at their noise levels."""
    found = schedulers()
    if not found:
        return
    schedule = discrete()
    ours = {"diffusers 2M": diffusion.dpm_solver_pp(2), "diffusers 3M": diffusion.dpm_solver_pp(3)}
    exact, _ = jax.jit(
        lambda d, x: diffusion.solve(d, schedule, diffusion.dpm_solver_pp(3), x, 2000, "logsnr",
                                     lower_order_final=False)
    )(problem.denoiser, problem.x_T)  # fmt: skip
    print(f"{'diffusers live, error':20}" + "".join(f"{n:>15}" for n in calls))
    for name, make in found.items():
        live = [run(make(), problem, n) for n in calls]
        cells = "".join(f"{float(rmse(end, exact)):15.4f}" for end in live)
        print(f"{name:20}{cells}")
        same = [
            jax.jit(lambda d, x, s=ours[name], n=n: diffusion.solve(d, schedule, s, x, n)[0])(
                problem.denoiser, problem.x_T
            )
            for n in calls
        ]
        cells = "".join(f"{float(rmse(end, exact)):15.4f}" for end in same)
        print(f"{'  ours':20}{cells}", flush=True)


def run(scheduler: Any, problem: Problem, num_steps: int) -> jax.Array:
    """Run a scheduler with the problem's denoiser."""
    import torch

    denoiser = problem.denoiser.on(discrete())
    denoise = jax.jit(lambda x, half_log_snr: denoiser.data(x, half_log_snr))
    # Its levels end where the training's do, to which it adds a step to zero noise: left out.
    scheduler.set_timesteps(num_steps + 1)
    x = torch.from_numpy(np.array(problem.x_T)).reshape(len(problem.x_T), 1, 1, -1)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        ratio = float(scheduler.sigmas[i])
        alpha, sigma = 1 / np.hypot(1, ratio), ratio / np.hypot(1, ratio)
        position = jnp.asarray(x.numpy().reshape(problem.x_T.shape))
        data = np.array(denoise(position, jnp.float64(-np.log(ratio))))
        noise = (x - alpha * torch.from_numpy(data).reshape(x.shape)) / sigma
        x = scheduler.step(noise, t, x).prev_sample
    return jnp.asarray(x.numpy().reshape(problem.x_T.shape))
