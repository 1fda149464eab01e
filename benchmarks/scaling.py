"""How time and memory of one step grow with the number of particles, and with that of devices.

Two steps in 10 dimensions: ULA, whose particles are independent, and Stein variational gradient
descent, where each meets all others. On one device, the growth exponent in the number n of
particles is the slope of log time, or log memory, over log n in the upper half of the sizes: 1 for
independent particles, 2 for the time of pairs, 1 for their memory (a pair matrix would be 2). A
second table splits a fixed ensemble over simulated devices of this machine: SVGD's blocks travel
round a ring. Simulated devices share the machine's cores, so that the best time is about that of
one device, while the memory of each device should fall. Memory is compiled temporary storage.

In rows of growth, ``ours`` and ``peer`` are the last and the first value of the fit, and ``ratio``
is the exponent.
"""

import functools
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import Report, interleave, parse_options
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shoal.models.densities import Gaussian
from shoal.sampling import langevin
from shoal.sampling.core.pairwise import Ring
from shoal.sampling.core.random import particle_keys

HERE = Path(__file__).resolve().parent
DIM = 10
MEBIBYTE = 2**20
SIZES, QUICK_SIZES = [2**k for k in range(10, 17)], [2**k for k in range(9, 13)]
DEVICES, QUICK_DEVICES = (1, 2, 4, 8), (1, 2)
# By method: exponent bars of time and memory in n, and the ensemble split over devices.
BARS = {"ULA": (1.1, 1.1), "SVGD": (2.1, 1.1)}
# Bars of the exponent in the number of devices. A ring's tiles are as large on many as on one.
SPLIT_BARS = {"ULA": -0.9, "SVGD": None}
SPLIT, QUICK_SPLIT = {"ULA": 2**20, "SVGD": 2**15}, {"ULA": 2**14, "SVGD": 2**11}


def stein_ensemble() -> Any:
    """Return the SVGD of the fault suite, which lies in a file beside the tests."""
    path = HERE.parent / "tests" / "faults" / "algorithms.py"
    spec = importlib.util.spec_from_file_location("algorithms", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["algorithms"] = module
    spec.loader.exec_module(module)
    return module.SteinEnsemble


def make_step(method: str, num: int, ring: Ring | None = None) -> tuple[Any, Any]:
    """Return ``step(key, state) -> state``, jitted, and a state of ``num`` particles."""
    split = (lambda tree: tree) if ring is None else functools.partial(split_over, ring)
    x = split(2 * jax.random.normal(jax.random.key(0), (num, DIM)))
    if method == "ULA":
        algorithm = langevin.ula(0.1)(Gaussian(jnp.zeros(DIM), jnp.eye(DIM)).log_density)
        state = jax.jit(jax.vmap(lambda x: algorithm.init(x)))(x)
        step = lambda key, s: jax.vmap(algorithm.step)(particle_keys(key, jnp.arange(num)), s)[0]
    else:
        algorithm = stein_ensemble()(jnp.stack([jnp.ones(DIM), -jnp.ones(DIM)]), ring=ring)
        state = jax.jit(lambda x: algorithm.init(x))(x)
        step = lambda key, s: algorithm.step(key, s)[0]
    return jax.jit(step), jax.tree.map(lambda a: split(a) if a.ndim else a, state)


def split_over(ring: Ring, array: jax.Array) -> jax.Array:
    return jax.device_put(array, NamedSharding(ring.mesh, PartitionSpec(ring.axis)))


def measure(method: str, num: int, rounds: int, ring: Ring | None = None) -> tuple[float, float]:
    """Return the median seconds of a step, and the MiB that its program holds on a device."""
    step, state = make_step(method, num, ring)
    key = jax.random.key(1)
    program = step.lower(key, state).compile()
    seconds = interleave({"step": lambda: program(key, state)}, rounds)["step"]
    held = program.memory_analysis().temp_size_in_bytes / MEBIBYTE
    return statistics.median(seconds), held


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth(report: Report, method: str, sizes: list[int], rounds: int) -> None:
    """Add rows of the exponents in n on one device."""
    seconds, held = zip(*(measure(method, num, rounds) for num in sizes), strict=True)
    for num, time, memory in zip(sizes, seconds, held, strict=True):
        print(f"{method:4}  n = {num:6}  {time:10.4g} s  {memory:8.3f} MiB")
    upper = slice(len(sizes) // 2, None)
    title = f"{method}: exponent over n = {sizes[upper][0]}..{sizes[-1]} of"
    for what, values, bar in zip(("seconds", "MiB"), (seconds, held), BARS[method], strict=True):
        fitted = values[upper]
        slope = exponent(sizes[upper], fitted)
        report.row(f"{title} {what}", fitted[-1], fitted[0], slope, bar)


def on_devices(split: dict[str, int], rounds: int) -> None:
    """Print, as JSON, what steps cost when split over all devices of this process."""
    ring = Ring(Mesh(np.array(jax.devices()), ("particles",)), "particles")
    print(json.dumps({name: measure(name, num, rounds, ring) for name, num in split.items()}))


def measure_on(devices: int, split: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Run `on_devices` in a process with that many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    call = f"import scaling; scaling.on_devices({split!r}, {rounds})"
    done = subprocess.run(
        [sys.executable, "-c", call],
        cwd=HERE,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def over_devices(
    report: Report, counts: tuple[int, ...], split: dict[str, int], rounds: int
) -> None:
    """Add rows of the time relative to one device, and of the memory of each."""
    found = {count: measure_on(count, split, rounds) for count in counts}
    cores = os.cpu_count()
    for name, num in split.items():
        (one_time, one_memory), *_ = (found[count][name] for count in counts)
        for count in counts[1:]:
            time, memory = found[count][name]
            title = f"{name}, n = {num}, {count} simulated devices on {cores} cores / 1"
            report.row(f"{title}: seconds", time, one_time, time / one_time, None)
            report.row(f"{title}: MiB a device", memory, one_memory, memory / one_memory, None)
        held = [found[count][name][1] for count in counts]
        title = f"{name}: exponent over 1..{counts[-1]} devices of MiB a device"
        report.row(title, held[-1], held[0], exponent(list(counts), held), SPLIT_BARS[name])


def main() -> None:
    options = parse_options(f"Growth of a step in {DIM} dimensions")
    quick = options.quick
    report = Report(options)
    sizes = QUICK_SIZES if quick else SIZES
    for method in BARS:
        growth(report, method, sizes, options.rounds(3, 3))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pairs = 4 * sizes[-1] ** 2 / MEBIBYTE
    report.row("MiB resident at most / a matrix of all pairs", peak, pairs, peak / pairs, None)
    counts = QUICK_DEVICES if quick else DEVICES
    over_devices(report, counts, QUICK_SPLIT if quick else SPLIT, options.rounds(3, 3))
    report.finish()


if __name__ == "__main__":
    main()
