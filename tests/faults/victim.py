"""A process that runs something with checkpoints, and can be killed at any moment.

``python victim.py FOLDER`` imports everything once and then obeys lines on stdin, each a JSON list
``[case, number of the attempt, options]``. For each it forks a child that does the case in
``FOLDER/<run>`` and answers with the child's pid and later with its exit status. Forking saves the
imports; no backend of JAX exists before the fork (BlackJAX, which makes one, is imported later).

The child writes ``reached`` (the rows that the run has reported as done) whenever it is told of
progress, ``began`` (the rows it found on the disk) once, and at the end ``result.npz``.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import jax.numpy as jnp
import numpy as np

import shoal.inference.run as driver
from shoal.inference import Checkpoint, _work, cache, generate, hosts, sample
from shoal.inference.run import run
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.core.pairwise import Ring
from shoal.sampling.diffusion import ddim, edm

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))
from algorithms import SteinEnsemble
from compilation import compile_quickly

KEY = jax.random.key  # called in the child alone


def log_density(x):
    """Skewed in the first coordinate, Gaussian in the others."""
    return jnp.sum(x[:1] - jnp.exp(x[:1])) - 0.5 * jnp.sum(x[1:] ** 2)


def position(state, info):
    return state.position


def _sample(sampler, dim, num_samples, num_warmup=40):
    def case(folder, mesh, told):
        result = sample(
            KEY(3), log_density, sampler, init=jnp.zeros(dim), num_chains=16,
            num_samples=num_samples, num_warmup=num_warmup, progress=told, mesh=mesh,
            checkpoint=Checkpoint(folder, every=0.0), on_failure="ignore",
        )  # fmt: skip
        return {"position": result.posterior["position"], "lp": result.sample_stats["lp"]}

    return case


def _ensemble(num_particles, num_steps):
    def case(folder, mesh, told):
        ring = None if mesh is None else Ring(mesh, "particles")
        means = jnp.array([[2.0, 0.0], [-2.0, 1.0]])
        ensemble = SteinEnsemble(means, 0.1, 0.05, ring=ring)
        state = ensemble.init(jax.random.normal(KEY(0), (num_particles, 2)))
        finished = run(
            KEY(1), ensemble, state, num_steps, keep=position, progress=told, mesh=mesh,
            checkpoint=Checkpoint(folder, every=0.0),
        )  # fmt: skip
        return {"position": finished.kept}

    return case


def _posterior_mean(x, t):
    return x / (1 + t**2)


def _generated(num_samples, batch_size):
    def case(folder, mesh, told):
        samples, record, *_ = generate(
            KEY(4), Denoiser(_posterior_mean, "data"), edm(), ddim(1.0), 6, (40,),
            num_samples=num_samples, batch_size=batch_size, progress=told, mesh=mesh,
            checkpoint=Checkpoint(folder, every=0.0),
        )  # fmt: skip
        return {"samples": samples, "failed_at": record.failed_at}

    return case


CASES = {
    "adjusted": _sample("mala", 200, 150),
    "unadjusted": _sample("baoab", 200, 150),
    "tuned": _sample("auto", 200, 150, num_warmup=60),
    "nuts": _sample("nuts", 20, 60),
    "interacting": _ensemble(200, 300),
    "small": _ensemble(60, 40),
    "generate": _generated(6000, 50),
    "chains": _sample("ula", 20, 60, num_warmup=0),
    # Sixteen megabytes of state: the kill falls into a write.
    "large": _sample("mala", 60_000, 12),
}


def at_call(name, count, what):
    """Do something at the ``count``-th call of a function of the operating system."""
    original, calls = getattr(os, name), [0]

    def hooked(*arguments, **options):
        calls[0] += 1
        if calls[0] == count:
            what()
        return original(*arguments, **options)

    setattr(os, name, hooked)


def do(case, folder, options):
    """Run a case to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    if options.get("quick"):
        compile_quickly()
    if options.get("cache"):
        cache.enable_compilation_cache(options["cache"])
    if "die_at" in options:
        at_call(*options["die_at"], lambda: os.kill(os.getpid(), signal.SIGKILL))
    if "hang_at" in options:
        at_call(*options["hang_at"], lambda: time.sleep(600))
    hosts.PATIENCE_SECONDS = options.get("patience", hosts.PATIENCE_SECONDS)
    # Short chunks, and as much saving as computing.
    _work.CHUNK_SECONDS, _work._SAVING_PART = options.get("chunk", 0.005), 1
    mesh, rank = None, options.get("rank", 0)
    if "port" in options:
        jax.distributed.initialize(
            f"127.0.0.1:{options['port']}", 2, rank, heartbeat_timeout_seconds=10,
            shutdown_timeout_seconds=10, initialization_timeout=60,
        )  # fmt: skip
    if "port" in options or options.get("mesh"):
        mesh = jax.make_mesh((jax.device_count(),), ("particles",))
    note_beginnings(folder / "began")

    def told(progress):
        (folder / "reached.tmp").write_text(json.dumps([progress.phase, progress.done]))
        os.rename(folder / "reached.tmp", folder / "reached")

    arrays = CASES[case](folder / "run", mesh, told)
    if rank == 0:
        np.savez(folder / "result.tmp.npz", **arrays)
        os.rename(folder / "result.tmp.npz", folder / "result.npz")
    if "port" in options:
        jax.distributed.shutdown()


def note_beginnings(path):
    """Write down, for each phase, how many steps were found on the disk."""
    found, original = {}, driver.Reporter

    def reporter(phase, total, progress, done):
        found[phase] = done
        path.write_text(json.dumps(found))
        return original(phase, total, progress, done)

    driver.Reporter = reporter


def serve(folder):
    """Obey stdin until it ends: fork a child for each line, say its pid and its exit status."""
    for line in sys.stdin:
        case, name, options = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, sys.stdout.fileno())
                os.dup2(log, sys.stderr.fileno())
                do(case, folder / name, options)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
