"""Tests of kernels, results, tables, pictures, the command: a kind of bad input for each."""

import contextlib
import functools
import io
import runpy
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.inference import Result, cli, diagnostics, plot
from shoal.inference.summary import summarize
from shoal.sampling import langevin

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
bad, entry = kind.bad, kind.entry


def shrink(key, x):
    return 0.8 * x + 0.6 * jax.random.normal(key, x.shape)


POINTS = jax.random.normal(kind.KEY, (50, 2))
_kernel = kind.Slot(shrink, {
    "number": bad(3, "int"), "None": bad(None, "NoneType"),
    "sampler without a density": bad(langevin.mala(0.1), "sampler"),
    "changes the shape": bad(lambda key, x: x[:1], r"\(1,\)|float32\[1\]"),
    "changes the dtype": bad(lambda key, x: x.astype(int), "int32"),
    "returns nothing": bad(lambda key, x: None, "None"),
})  # fmt: skip
_draws = kind.Slot(POINTS, {
    "NaN in one entry": bad(POINTS.at[7, 1].set(np.nan), r"\[7, 1\].*nan"),
    "inf in one entry": bad(POINTS.at[7, 1].set(np.inf), r"\[7, 1\].*inf"),
    "one point": bad(POINTS[:1], r"\(1,"), "scalar": bad(jnp.float32(1.0), r"\(\)"),
    "unequal": bad({"a": POINTS, "b": POINTS[:3]}, r"50.*3"), "text": bad("all", "'all'|str"),
    "None": bad(None), "function of too few": bad(lambda key, n: POINTS[:7], "50.*7"),
})  # fmt: skip
_function = kind.Slot(None, {"number": bad(3.0), "text": bad("mean")})
_study = dict(
    key=kind.key(), kernel=_kernel, draws=_draws, start=_function, observe=_function,
    batch_size=kind.count(50),
)  # fmt: skip
_features = kind.Slot(None, {
    "number": bad(3.0), "text": bad("mean"), "nothing": bad(lambda *x: {}, "one number|scalar"),
})  # fmt: skip
_threshold = kind.positive(5.2)
_num = dict(num_particles=kind.count(50).plus(other=(49, "49"), one=(1, "1")))
_pair_features = _features._replace(good=lambda x, y: x * y)
DIAGNOSTICS = {
    "diagnostics.invariance_test": entry(
        diagnostics.invariance_test, **_study, **_num, num_steps=kind.count(2),
        features=_features, log_density=_features, threshold=_threshold,
        reversible=kind.Slot(False, {"text": bad("no")}),
    ),
    "diagnostics.transition_test": entry(
        diagnostics.transition_test, **_study, **_num, num_steps=kind.count(2),
        features=_pair_features, threshold=_threshold,
        expected=kind.Slot(0.0, {
            "NaN": bad(np.nan), "text": bad("zero"), "None": bad(None),
            "other shape": bad(np.zeros(3), "shape"),
            "NaN in one entry": bad(np.array([0.0, np.nan]), r"\[1\].*nan"),
        }),
    ),
    "diagnostics.linear_gaussian_test": entry(
        diagnostics.linear_gaussian_test, key=kind.key(), kernel=_kernel,
        num_particles=kind.count(50).plus(one=(1, "1")), num_steps=kind.count(2),
        threshold=_threshold, batch_size=kind.count(50),
        mean=kind.shorter(kind.numbers(np.zeros(2))),
        transition=kind.numbers(0.8 * np.eye(2)).plus(too_far=(np.eye(2), "spectral radius")),
        noise_covariance=kind.numbers(0.36 * np.eye(2)).plus(
            indefinite=(-np.eye(2), "eigenvalue"), asymmetric=(np.tri(2), "symmetric")
        ),
    ),
    "diagnostics.rank_test": entry(
        diagnostics.rank_test, **_study,
        num_replicates=kind.count(50).plus(few=(9, "9")).called("num_replicates", "num_particles"),
        num_states=kind.count(4).plus(one=(1, "1"), many=(40, "40")), alpha=kind.fraction(1e-6),
        features=_features, log_density=_features,
    ),
    "diagnostics.sequential_test": entry(
        diagnostics.sequential_test, key=kind.key(), alpha=kind.fraction(1e-5),
        num_rounds=kind.count(3), num_samples=kind.count(10),
        growth=kind.positive(2.0).plus(below_one=(0.5, "0.5")),
        p_values=kind.Slot(lambda key, n: 0.5, {
            "number": bad(0.5), "above one": bad(lambda key, n: 1.5, r"1\.5"),
            "negative": bad(lambda key, n: -0.5, r"-0\.5"),
            "NaN": bad(lambda key, n: np.array([0.5, np.nan]), r"nan"),
            "none": bad(lambda key, n: [], r"\[\]"), "text": bad(lambda key, n: "half", "half"),
        }),
    ),
}  # fmt: skip


def _result(**changes: Any) -> Result:
    draws = np.random.default_rng(0).normal(size=(2, 20, 3))
    parts = dict(posterior={"theta": draws}, sample_stats={"lp": draws[..., 0]})
    return Result(**{**parts, **changes})


_draws_with_nan = np.where(np.arange(120).reshape(2, 20, 3) == 7, np.nan, 1.0)
_results = kind.Slot(_result(), {
    "None": bad(None, "NoneType"), "dict": bad({"theta": 1}, "dict"),
    "nothing in it": bad(_result(posterior={}), "posterior"),
    "no draw axis": bad(_result(posterior={"theta": np.zeros(3)}), r"'theta'.*\(3,\)"),
    "unequal numbers of draws": bad(
        _result(posterior={"a": np.zeros((2, 5)), "b": np.zeros((2, 6))}), r"'b'.*\(2, 6\)"
    ),
    "text": bad(_result(posterior={"theta": np.full((2, 5), "a")}), "'theta'.*<U1"),
    "NaN in one entry": bad(
        _result(posterior={"theta": _draws_with_nan}), r"Not finite.*theta\[1\]"
    )._replace(is_reported=True),
})  # fmt: skip


def _title(figure: Any) -> str:
    return figure.get_suptitle() + "".join(ax.get_title() for ax in figure.axes)


_names = kind.Slot(None, {
    "unknown": bad(["sigma"], "sigma"), "text": bad("sigma"), "number": bad(3),
})  # fmt: skip
_labels = kind.Slot(None, {
    "too few": bad({"theta": ["a"]}, "'theta'.*1"), "unknown": bad({"sigma": ["a"]}, "sigma"),
    "list": bad(["a", "b", "c"], "dict"),
})  # fmt: skip
_table = dict(result=_results, names=_names, labels=_labels)
_picture = dict(
    result=_results.reporting(NaN_in_one_entry="1 of theta not finite"), names=_names,
    labels=_labels, max_scalars=kind.count(2),
)  # fmt: skip
_others = kind.Slot(None, {
    "number": bad(3), "list": bad([_result()], "dict"), "no result": bad({"nuts": 3}, "nuts"),
})  # fmt: skip
TABLES = {
    "summarize": entry(summarize, lambda summary: summary.verdict(), **_table),
    "plot.overview": entry(plot.overview, _title, **_picture),
    "plot.forest": entry(plot.forest, _title, **_picture, others=_others),
    "plot.statistics": entry(plot.statistics, result=kind.Slot(_result(), {
        "None": bad(None, "NoneType"),
        "nothing in it": bad(_result(sample_stats={}), "sample_stats"),
        "no draw axis": bad(_result(sample_stats={"lp": np.zeros(3)}), r"'lp'.*\(3,\)"),
    })),
}  # fmt: skip


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "text.nc").write_text("no numbers")
    (folder / "empty.nc").write_bytes(b"")
    good = _result().save(folder / "good.nc").read_bytes()
    (folder / "half.nc").write_bytes(good[: len(good) // 2])
    return folder


@functools.cache
def _paths() -> dict[str, Any]:
    folder = _folder()
    return {
        "missing": bad(folder / "none.nc", "none.nc"),
        "folder": bad(folder, "path"),
        "no NetCDF": bad(folder / "text.nc", "text.nc"),
        "empty file": bad(folder / "empty.nc", "empty.nc"),
        "half a file": bad(folder / "half.nc", "half.nc"),
        "number": bad(3),
        "None": bad(None),
    }


def _command(line: str) -> None:
    """Run the command; raise its message as an error if it is used wrongly, as it should say."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = cli.main([word.replace("DIR", str(_folder())) for word in line.split()])
        except SystemExit as error:
            code = error.code
    assert code == 2, (code, said.getvalue())
    assert said.getvalue().count("\n") == 1, said.getvalue()
    raise ValueError(said.getvalue())


def _lines(*lines: tuple[str, str]) -> Any:
    return kind.Slot("--version", {line: bad(line, says) for line, says in lines}, ("shoal",))


FILES = {
    "Result.load": entry(Result.load, path=kind.Slot(_folder() / "good.nc", _paths())),
    "Result.save": entry(_result().save, path=kind.Slot(_folder() / "new.nc", {
        "no such folder": bad(_folder() / "none" / "x.nc", "none"),
        "folder": bad(_folder(), "path"),
        "number": bad(3), "None": bad(None),
    })),
    "shoal": entry(_command, line=_lines(
        ("", "COMMAND"), ("smaple", "'smaple'"), ("summary", "run"), ("sample", "FILE:MODEL"),
        ("summary DIR/none.nc", "none.nc"), ("summary DIR/text.nc", "text.nc"),
        ("summary DIR/half.nc", "half.nc"), ("summary DIR", "path"),
        ("summary DIR/good.nc --var sigma", "--var sigma"),
        ("plot DIR/good.nc --var sigma", "--var sigma"),
        ("plot DIR/good.nc --kind pie", "'pie'"), ("plot DIR/good.nc --out DIR/x.xyz", "x.xyz"),
        ("plot DIR/good.nc --out DIR/none/x.png", "none"), ("sample model.py", "'model.py'"),
        ("sample DIR/none.py:model", "none.py"), ("sample DIR/text.nc:model", "text.nc"),
        ("sample m.py:m --chains 0", "chains.*0"), ("sample m.py:m --chains two", "chains.*'two'"),
        ("sample m.py:m --samples -5", "samples.*-5"), ("sample m.py:m --samples 2.5", "2.5"),
        ("sample m.py:m --warmup -1", "warmup.*-1"), ("sample m.py:m --thin 0", "thin.*0"),
        ("sample m.py:m --seed pi", "seed.*'pi'"), ("sample m.py:m --sampler gibbs", "'gibbs'"),
        ("sample m.py:m --tune-metric full", "'full'"), ("sample m.py:m --data", "--data"),
        ("sample m.py:m --out DIR/none/x.nc", "none"), ("demo --seed pi", "seed.*'pi'"),
        ("demo --out DIR/text.nc", "text.nc"),
    )),
}  # fmt: skip
ENTRIES = {**DIAGNOSTICS, **TABLES, **FILES}
