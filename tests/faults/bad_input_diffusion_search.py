"""Free schedules, search over them, step skipping, with a kind of bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion import (
    SolverSchedule,
    Step,
    Update,
    edm,
    flow,
    multistep_schedule,
    sada,
    search_schedule,
    singlestep_schedule,
    usf,
)
from shoal.sampling.diffusion.statistics import Statistics

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_form = kind.choice("data", "velocity")
_flag = kind.Slot(True, {"number": bad(1), "None": bad(None)})
_order = kind.count(2).plus(five=(5, "5"))
_pair = SolverSchedule((Step(), Step("noise", Update(2))), (-4.0, 0.0, 4.0))
_statistics = Statistics(np.linspace(-4, 4, 3), np.ones(3), np.zeros(3), np.zeros(3))


def _with(second: Step, **more: object) -> SolverSchedule:
    return _pair._replace(steps=(Step(), second), **more)


_schedule = kind.Slot(_pair, {
        "None": bad(None, "NoneType"), "no steps": bad(SolverSchedule(()), r"\(\)"),
        "order above points": bad(_with(Step("data", Update(3))), "order is 3"),
        "start before all": bad(_with(Step(start=-3)), "at least -2, got -3"),
        "start after all": bad(_with(Step(start=0)), "at most -1, got 0"),
        "unknown form": bad(_with(Step("score")), "score"),
        "unknown relaxation": bad(_with(Step("data", Update(2, None, "bh3"))), "bh3"),
        "corrector at the end": bad(_with(Step(corrector=Update())), "last step"),
        "implicit alone": bad(_pair._replace(steps=(Step(implicit=True), Step())), "without"),
        "too few points active": bad(_with(Step("data", Update(2, (0,)))), "at least 1, got 0"),
        "missing times": bad(_pair._replace(half_log_snr=(-4.0, 4.0)), r"shape \(2,\)"),
        "times that turn": bad(_pair._replace(half_log_snr=(-4.0, 5.0, 4.0)), "monotone"),
        "unknown first": bad(_pair._replace(first="zero"), "zero"),
        "not a step": bad(SolverSchedule(("data",)), "str"),
})  # fmt: skip


_wrong_statistics = {"text": bad("ems", "str"), "array": bad(np.ones(3), "ndarray")}
_mean = {"text": bad("zero", "zero"), "NaN": bad(float("nan"), "nan")}

ENTRIES = {
    "diffusion.usf": entry(
        usf, schedule=_schedule, statistics=kind.Slot(_statistics, _wrong_statistics),
        mean=kind.Slot(0.5, _mean),
    ),
    "diffusion.multistep_schedule": entry(
        multistep_schedule, num_steps=kind.count(), order=kind.count(), form=_form,
        relaxation=kind.choice("bh2").without("number", "list"),
        corrector=kind.count(1, 0), pseudo_predictor=_flag, pseudo_corrector=_flag,
        lower_order_final=_flag,
    ),
    "diffusion.singlestep_schedule": entry(
        singlestep_schedule, num_steps=kind.count(), order=_order, form=_form,
        lower_order_final=_flag,
    ),
    "diffusion.sada": entry(
        sada, weights=kind.choice("paper"), between=kind.Slot((0.2, 0.9), {
            "falling": bad((0.9, 0.2), "0.9"), "number": bad(0.5), "three": bad((0.1, 0.2, 0.3)),
            "NaN": bad((0.1, float("nan")), "nan"), "above one": bad((0.1, 1.5), "1.5"),
        }),
        max_skips=kind.count(), lagrange=kind.Slot((0.5, 4, 4), {
            "number": bad(0.5), "pair": bad((0.5, 4), r"\(0.5, 4\)"),
            "each step": bad((0.5, 1, 4), "1"), "one point": bad((0.5, 4, 1), "1"),
            "negative": bad((-0.5, 4, 4), "-0.5"),
        }),
    ),
    "diffusion.search_schedule": entry(
        search_schedule, key=kind.key(),
        denoiser=kind.Slot(Denoiser(lambda x, t: 0.1 * x, "data", edm(0.1, 10.0)), {
            "function": bad(lambda x, t: x, "function"), "None": bad(None, "None"),
        }),
        schedule=kind.Slot(edm(0.1, 10.0), {
            "text": bad("edm", "str"), "infinite": bad(flow(1.0, 0.0, 1.0), "inf"),
        }).called("schedule", "grid"),
        num_steps=kind.count(2), shape=kind.Slot((1,), {
            "number": bad(2, "2"), "fraction": bad((1.5,), "1.5"), "zero": bad((0,), "0"),
        }),
        statistics=kind.Slot(None, _wrong_statistics),
        mean=kind.Slot(None, {**_mean, "wide": bad(np.ones(3), r"\(3,\)")}),
        start=kind.Slot(None, {
            "solver": bad(sada(), "SADA"), "no times": bad(multistep_schedule(2), "None"),
            "other calls": bad(_pair._replace(first="noise"), "1"),
        }).called("start", "schedule"),
        num_samples=kind.count(4), num_heldout=kind.count(4), num_generations=kind.count(0, 0),
        population=kind.count(2), num_descents=kind.count(1, 0),
        refine=kind.choice(None, "everything"), per_entry=_flag,
        num_refine_samples=kind.count(20), num_refine_trials=kind.count(1, 0),
        num_refine_steps=kind.count(2),
        learning_rate=kind.positive(0.01), batch_size=kind.count(4),
        dtype=kind.Slot(jnp.float32, {"integer": bad(jnp.int32, "int32"), "text": bad("words")}),
    ),
}  # fmt: skip
