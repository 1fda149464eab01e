"""DPM-Solver-v3: its statistics, its options, grids beyond the statistics."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.models.denoisers import gaussian
from shoal.sampling import diffusion
from shoal.sampling.core.denoiser import Denoiser
from shoal.sampling.diffusion.dpm_solver_v3 import degenerate

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

_schedule = diffusion.edm(0.5, 2.0)
_good = degenerate("data", _schedule, (2,))
_flag = kind.Slot(True, {"number": bad(3.0), "text": bad("yes"), "None": bad(None)})
_statistics = kind.Slot(_good, {
    "tuple": bad(tuple(_good), "tuple"),
    "None": bad(None, "NoneType"),
    "NaN": bad(_good._replace(s=_good.s * np.nan), r"statistics\.s.*nan"),
    "inf": bad(_good._replace(b=_good.b + np.inf), r"statistics\.b.*inf"),
    "falling": bad(_good._replace(half_log_snr=-_good.half_log_snr), "rising"),
    "one point": bad(_good._replace(half_log_snr=np.ones(1)), r"rising.*\(1,\)"),
    "other rows": bad(_good._replace(half_log_snr=np.arange(4.0)), r"the 4 half_log_snr"),
    "other shape": bad(_good._replace(b=np.ones(3)), r"statistics\.b.*\(3, 2\)"),
    "text": bad(_good._replace(l=np.full((3, 2), "a")), r"statistics\.l.*<U1"),
})  # fmt: skip
_region = kind.Slot((0.6, 1.0), {
    "reversed": bad((1.0, 0.5)), "one time": bad((0.5,)), "number": bad(0.5),
    "NaN": bad((0.0, float("nan"))), "negative": bad((-1.0, 1.0)), "text": bad("early", "early|<U"),
})  # fmt: skip
_model = gaussian([0.0, 1.0], 0.5)
_broken = Denoiser(lambda x, t: x / 0.0, "data", _schedule)


def _solve(schedule, x_T, statistics):
    solver = diffusion.dpm_solver_v3(statistics)
    return diffusion.solve(_model, schedule, solver, x_T, 2)


ENTRIES = {
    "dpm_solver_v3": entry(
        diffusion.dpm_solver_v3, statistics=_statistics, order=kind.count(), corrector=_flag,
        pseudo_predictor=_flag, pseudo_corrector=_flag, corrector_region=_region,
        start=kind.choice("growing"),
    ),
    "dpm_solver_v3 in solve": entry(
        _solve,
        schedule=kind.Slot(_schedule, {
            "longer": bad(diffusion.edm(0.1, 2.0), "statistics only from -0.6931 to 0.6931"),
            "infinite": bad(diffusion.flow(t_min=0.1, t_max=1.0), "infinite|finite|grid"),
        }).called("grid"),
        statistics=kind.Slot(_good, {"steep": bad(_good._replace(s=_good.s + 1e4), "finite")}),
        x_T=kind.Slot(jnp.ones((3, 2)), {"wide": bad(jnp.ones((3, 4)), r"\(2,\).*\(4,\)")}),
    ),
    "dpm_solver_v3.degenerate": entry(
        lambda form: degenerate(form, _schedule), form=kind.choice("noise")
    ),
    "estimate_statistics": entry(
        diffusion.estimate_statistics, key=kind.key(),
        denoiser=kind.Slot(_model, {
            "function": bad(lambda x, t: x, "function"), "None": bad(None, "NoneType"),
            "infinite": bad(_broken, "NaN or infinity where log"),
        }),
        schedule=kind.Slot(_schedule, {
            "text": bad("edm", "str"), "infinite": bad(diffusion.flow(t_max=1.0), "inf"),
        }),
        samples=kind.points(jnp.ones((4, 2))).without("further axis"),
        num_points=kind.count(4).plus(one=(1, "at least 2")),
        batch_size=kind.count(), num_probes=kind.count(), average=_flag,
        axes=kind.choice("entries"),
    ),
    "load_statistics": entry(
        lambda path: diffusion.load_statistics(path) if path else None,
        path=kind.Slot("", {"absent": bad("none.npz", "none.npz")}).called("none"),
    ),
}  # fmt: skip
