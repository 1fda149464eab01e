"""Mirror maps: every public function with a kind of bad input for each argument."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from shoal.sampling.core import mirror

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry

TRIANGLE = np.array([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
_orthant = mirror.orthant()
# Numbers of any magnitude and sign.
_scalar = kind.positive(0.5).without("zero", "negative")
_bound = lambda good: kind.numbers(good).without("None")
ENTRIES = {
    "mirror.orthant": entry(mirror.orthant, low=_bound(np.zeros(2))),
    "mirror.half_space": entry(
        mirror.half_space,
        normal=_bound(np.ones(2)).plus(zero=(np.zeros(2), "zero"), scalar=(1.0, r"\(\)")),
        offset=_scalar.without("None"),
    ),
    "mirror.ball": entry(
        mirror.ball,
        radius=kind.positive().without("None"),
        centre=_bound(np.zeros(2)),
    ),
    "mirror.polytope": entry(
        mirror.polytope,
        A=_bound(TRIANGLE).plus(
            row=(TRIANGLE[0], r"\(2,\)"),
            open=(TRIANGLE * np.array([[1.0], [1.0], [-1.0]]), "on all sides"),
            zero_row=(TRIANGLE * np.array([[1.0], [0.0], [1.0]]), r"\[1\] is 0"),
        ),
        c=kind.shorter(_bound(np.ones(3))).plus(
            empty=(np.array([0.0, 0.0, -1.0]), "no room"), scalar=(1.0, r"\(\)")
        ),
    ),
    "mirror.product": entry(
        mirror.product,
        parts=kind.Slot([(_orthant, 2), (mirror.simplex(), 3, 2)], {
            "None": bad(None), "text": bad("simplex"), "number": bad(3.0), "map": bad(_orthant),
            "empty": bad([]), "no size": bad([(_orthant,)], r"parts\[0\]"),
            "factory": bad([(mirror.orthant, 2)], r"parts\[0\].*function"),
            "size zero": bad([(_orthant, 1), (_orthant, 0)], r"parts\[1\].*0"),
            "size of another kind": bad([(_orthant, 1.5)], r"parts\[0\].*1.5"),
            "count zero": bad([(_orthant, 2, 0)], r"count in parts\[0\].*0"),
            "count of another kind": bad([(_orthant, 2, True)], r"count in parts\[0\].*True"),
            "size that does not fit": bad([(mirror.box(jnp.zeros(2), 1.0), 3)], r"parts\[0\].*3"),
            "size one for two": bad([(mirror.ball(1.0, np.zeros(2)), 1)], r"parts\[0\].*1"),
        }),
    ),
}  # fmt: skip
