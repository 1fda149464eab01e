"""Diffusion solvers side by side: error at equal numbers of calls, overhead, statistics, search.

Every solver carries the same starts to data, in float64, on a variance-preserving schedule from
t = 1 to 0.001; the error is the root mean square over samples and entries of the distance to the
exact flow, and the median over samples of the same (few samples that fall to another mode dominate
the first). Figures of peers' own code on the same problems stand beside, and the schedulers of
diffusers run live where it is installed. Searched schedules are judged on starts they were not
searched on.
"""

from collections.abc import Callable
from typing import Any

import _diffusers
import _diffusion_speed
import jax
import numpy as np
from _diffusion_problems import CALLS, FIGURES, SCHEDULE, Problem, guided, held_out, problems
from _harness import Options, Report, parse_options

from shoal.inference.discrepancy import median_rmse, rmse
from shoal.sampling import diffusion

SEARCHED = {5: 0.030, 6: 0.022, 8: 0.012, 10: 0.006}
Errors = dict[str, dict[int, tuple[float, float]]]


def solvers(problem: Problem) -> dict[str, Any]:
    """Return the solvers that are compared, by name."""
    statistics = diffusion.estimate_statistics(
        jax.random.key(7), problem.model, SCHEDULE, problem.data
    )
    principal = diffusion.estimate_statistics(
        jax.random.key(7), problem.model, SCHEDULE, problem.data, axes="principal"
    )
    return {
        "DDIM": diffusion.ddim(),
        "DPM-Solver++(2M)": diffusion.dpm_solver_pp(2),
        "DPM-Solver++(3M)": diffusion.dpm_solver_pp(3),
        "UniPC-1 bh2": diffusion.unipc(1, "bh2"),
        "UniPC-2 bh2": diffusion.unipc(2, "bh2"),
        "UniPC-3 bh1": diffusion.unipc(3, "bh1"),
        "UniPC-3 bh2": diffusion.unipc(3, "bh2"),
        "DEIS-3": diffusion.deis(3),
        "PLMS-4": diffusion.plms(4),
        "GHVB-2 beta 0.5": diffusion.ghvb(2, 0.5),
        "GHVB-4 beta 0.8": diffusion.ghvb(4, 0.8),
        "v3-3": diffusion.dpm_solver_v3(statistics),
        "v3-2, pseudo-3": diffusion.dpm_solver_v3(statistics, 2, pseudo_corrector=True),
        "v3-4, principal": diffusion.dpm_solver_v3(principal, 4),
    }


def measure(problem: Problem, solver: Any, num_steps: int) -> tuple[float, float]:
    """Return the error and the median error of one solver with one number of calls."""
    run = jax.jit(
        lambda denoiser, x: diffusion.solve(denoiser, SCHEDULE, solver, x, num_steps, problem.grid)
    )
    end, record = run(problem.denoiser, problem.x_T)
    spent = np.unique(record.num_calls)
    if spent.tolist() != [num_steps * problem.denoiser.num_calls]:
        raise RuntimeError(f"{num_steps} calls were asked for, {spent} were made")
    return float(rmse(end, problem.end)), float(median_rmse(end, problem.end))


def compare(problem: Problem, contenders: dict[str, Any], calls: tuple[int, ...]) -> Errors:
    """Print and return the errors of all contenders."""
    print(f"\n{problem.name}, n = {len(problem.x_T)}, {problem.grid} grid: error / median error")
    print(f"{'calls':20}" + "".join(f"{n:>18}" for n in calls))
    errors: Errors = {}
    for name, solver in contenders.items():
        errors[name] = {n: measure(problem, solver, n) for n in calls}
        cells = "".join(f"{f'{a:.4f} / {b:.4f}':>18}" for a, b in errors[name].values())
        print(f"{name:20}{cells}", flush=True)
        if name in FIGURES.get(problem.name, {}):
            figures = dict(zip(CALLS, FIGURES[problem.name][name], strict=True))
            print(f"{'  peer':20}" + "".join(f"{f'{figures[n]:.4f}':>18}" for n in calls))
    return errors


def bar(report: Report, name: str, ours: float, peer: float, most: float) -> None:
    """Add a row of two errors."""
    report.row(name, ours, peer, ours / peer, most)


def mixture_bars(report: Report, errors: Errors) -> None:
    """Add DPM-Solver-v3 against the official figures, and against UniPC where that is best."""
    official = dict(zip(CALLS, FIGURES["digits mixture"]["v3-3"], strict=True))
    for n, (ours, _) in errors["v3-4, principal"].items():
        bar(report, f"digits mixture, {n} calls: v3 / official v3", ours, official[n], 1.0)
        if n >= 15:
            best = min(found[n][0] for name, found in errors.items() if "UniPC" in name)
            bar(report, f"digits mixture, {n} calls: v3 / best UniPC", ours, best, 1.0)


def network_bars(report: Report, errors: Errors) -> None:
    """Add the best of ours against DPM-Solver++(2M) on the trained network."""
    for n, most in ((10, 0.55), (20, 0.5)):
        name, ours = best(errors, n)
        peer = errors["DPM-Solver++(2M)"][n][0]
        bar(report, f"digits network, {n} calls: {name} / DPM-Solver++(2M)", ours, peer, most)


def guidance_bars(report: Report, errors: Errors) -> None:
    """Add the same with guidance, where high orders do harm."""
    for n in errors["DDIM"]:
        name, ours = best(errors, n)
        row = f"guidance 8, {n} calls: {name}"
        bar(report, f"{row} / DPM-Solver++(2M)", ours, errors["DPM-Solver++(2M)"][n][0], 0.7)
        bar(report, f"{row} / DDIM", ours, errors["DDIM"][n][0], 1.0)


def best(errors: Errors, n: int) -> tuple[str, float]:
    """Return the solver of least error that is neither of the two it is compared with."""
    others = {k: v[n][0] for k, v in errors.items() if k not in ("DDIM", "DPM-Solver++(2M)")}
    name = min(others, key=others.__getitem__)
    return name, others[name]


def search_rows(report: Report, problem: Problem) -> None:
    """Search schedules with free coefficients and judge them on other starts.

    The evolution of decisions is short: where all coefficients are free, little depends on it.
    """
    judged = held_out(problem, 1024)
    for n, most in SEARCHED.items():
        found = diffusion.search_schedule(
            jax.random.key(n), problem.denoiser, SCHEDULE, n, problem.x_T.shape[1:],
            num_generations=2, population=12, num_descents=0, refine="coefficients",
            num_refine_samples=32_768, num_refine_trials=150, num_refine_steps=800,
            batch_size=512,
        )  # fmt: skip
        ours, _ = measure(judged, found.solver, n)
        bar(report, f"digits mixture, {n} calls: searched schedule", ours, most, 1.0)


def main() -> None:
    options: Options = parse_options("Diffusion solvers at equal numbers of calls")
    report = Report(options)
    _diffusion_speed.add_rows(report)
    jax.config.update("jax_enable_x64", True)
    calls = (5, 10, 20) if options.quick else CALLS
    rows: dict[str, Callable[[Report, Errors], None]] = {
        "digits mixture": mixture_bars,
        "digits network": network_bars,
    }
    for name, make in problems(options.quick).items():
        problem = make()
        errors = compare(problem, solvers(problem), calls)
        rows.get(name, lambda *_: None)(report, errors)
        _diffusers.show(problem, calls)
    problem = guided(8.0, 128 if options.quick else 256)
    guidance_bars(report, compare(problem, solvers(problem), (8, 10)))
    if not options.quick:
        search_rows(report, problems(False)["digits mixture"]())
    report.finish()


if __name__ == "__main__":
    main()
