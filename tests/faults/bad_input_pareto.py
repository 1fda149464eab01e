"""Pareto sets and problems with several objectives: bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.models import multi_objective
from shoal.sampling.stein import pareto

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
KEY, bad, entry = kind.KEY, kind.bad, kind.entry
BOX = (np.zeros(2), np.ones(2))
X, Y = np.full((2, 2), 0.5), np.array([[0.0, 1.0], [1.0, 0.0]])
SEARCH = pareto.pareto_search(BOX, num_initial=2)
FOUND = SEARCH.result(SEARCH.init(KEY, X, Y))

_bounds = kind.Slot(BOX, {
    "one array": bad(np.zeros(3), "pair"), "number": bad(1.0, "1.0"), "None": bad(None),
    "reversed": bad((np.ones(2), np.zeros(2)), "low < high"), "text": bad("box", "box|real"),
    "two sizes": bad((np.zeros(2), np.ones(3)), r"\(3,\)"), "scalars": bad((0.0, 1.0), r"\(\)"),
    "infinite": bad((np.zeros(2), np.array([1.0, np.inf])), r"\[1\] is inf"),
})  # fmt: skip
_table = lambda good: kind.numbers(good).without("None", "empty array", "NaN in one entry",
                                                 "inf in one entry")  # fmt: skip
_rows = _table(X).plus(outside=(X + 1, "within bounds.*1.5"), NaN=(X * np.nan, "within bounds"))
_wide = {"wide": (np.ones((2, 3)), r"\(2, 3\)"), "more_rows": (np.ones((3, 2)), r"\(3, 2\)")}
_reference = kind.numbers(np.ones(2)).plus(three=(np.ones(3), r"\(3,\)"))
_points = kind.numbers(Y).plus(four_objectives=(np.ones((2, 4)), r"\(2, 4\)"))

ENTRIES = {
    "pareto.pareto_search": entry(
        pareto.pareto_search, bounds=_bounds,
        num_objectives=kind.Slot(2, {"one": bad(1), "four": bad(4), "fraction": bad(2.5)}),
        num_initial=kind.count(4), batch_size=kind.count(2), num_steps=kind.count(5),
        num_preferences=kind.count(4).plus(one=(1, "1")), width=kind.count(4),
        num_candidates=kind.count(5).plus(fewer=(1, "1")), num_fit_iterations=kind.count(),
        reference_point=_reference.without("None"),
        learning_rate=kind.positive(), exploration=kind.nonnegative(),
        repulsion=kind.nonnegative(), kernel_scale=kind.positive(),
        bandwidth=kind.choice("median"),
    ),
    "pareto.pareto_set": entry(
        lambda **given: pareto.pareto_set(**({
            "key": KEY, "objectives": lambda x: np.ones((len(x), 2)), "bounds": BOX,
            "num_iterations": 1,
        } | given)),
        key=kind.key(), num_iterations=kind.count(0, 0),
        objectives=kind.Slot(lambda x: np.ones((len(x), 2)), {
            "number": bad(3.0), "text": bad("zdt1"), "None": bad(None),
            "one value": bad(lambda x: np.ones(len(x)), r"\(20,\)"),
            "one column": bad(lambda x: np.ones((len(x), 1)), r"\(20, 1\)"),
            "one row": bad(lambda x: np.ones((1, 2)), r"\(1, 2\)"),
            "complex values": bad(lambda x: 1j * np.ones((len(x), 2)), "complex128"),
            "all NaN": bad(lambda x: np.full((len(x), 2), np.nan), "finite somewhere"),
        }),
        on_iteration=kind.Slot(None, {"number": bad(3.0), "text": bad("print")}),
    ),
    "pareto.search.init": entry(
        SEARCH.init, key=kind.key(),
        x_initial=kind.shorter(_rows.plus(alone=(None, "together"))).called(
            "x_initial", "y_initial"
        ),
        y_initial=kind.shorter(_table(Y).plus(alone=(None, "together"), **_wide)),
    ),
    "pareto.search.tell": entry(
        lambda x, objectives: SEARCH.tell(SEARCH.init(KEY), x, objectives),
        x=kind.shorter(_rows).called("x", "objectives"),
        objectives=kind.shorter(_table(Y).plus(**_wide)),
    ),
    "pareto.solution": entry(
        lambda preference: FOUND._replace(
            network=pareto.networks.initialise(KEY, 2, 2, 3)
        ).solution(preference),
        preference=kind.numbers(np.array([0.5, 0.5])).without("further axis").plus(
            zeros=(np.zeros(2), "positive weight"), negative=(np.array([1.0, -0.5]), "nonnegative"),
            three=(np.ones(3), r"\(3,\)"),
        ),
    ),
    "pareto.hypervolume": entry(
        pareto.hypervolume,
        points=_points.without("empty array").called("points", "reference"),
        reference=_reference,
    ),
    "pareto.nondominated": entry(
        pareto.nondominated,
        points=kind.numbers(Y).without("NaN in one entry", "inf in one entry", "empty array"),
    ),
    "multi_objective.call": entry(
        lambda x: multi_objective.zdt1(3)(x),
        x=kind.points(jnp.ones((2, 3))).without(
            "NaN in one entry", "inf in one entry", "empty array", "further axis", "integer array"
        ).plus(wide=(jnp.ones((2, 4)), r"\(2, 4\)"), scalar=(jnp.ones(()), r"\(\)")),
    ),
    "multi_objective.pareto_front": entry(
        lambda num: multi_objective.vlmop2(2).pareto_front(num), num=kind.count(4)
    ),
    **{
        f"multi_objective.{name}": entry(getattr(multi_objective, name), dim=kind.count(3))
        for name in ("zdt1", "zdt2", "zdt3", "vlmop2")
    },
}  # fmt: skip
