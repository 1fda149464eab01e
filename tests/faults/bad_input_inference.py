"""What a user runs: `sample`, targets, tests, results and pictures, with a kind of bad input each.

The rows of `sample` are those that peers answer with NaN draws, a chain that never moves or an
empty result; see ``benchmarks/bad_input.py``.
"""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.inference import Checkpoint, Target, checkpoint, minibatch, resume, sample
from shoal.inference.run import run
from shoal.sampling import langevin

kind = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("bad_input_kinds.py"))))
KEY, bad, entry = kind.KEY, kind.bad, kind.entry


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def discrete(y):
    rate = numpyro.sample("k", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(rate, 1), obs=y)


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 10, subsample_size=5):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[:5])


def table_of_rows(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([10, 1]).to_event(2))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def count_data(y):
    rate = numpyro.sample("rate", dist.HalfNormal(1))
    numpyro.sample("y", dist.Poisson(rate), obs=y)


def _broken(y):
    raise KeyError("weights")


Y = np.linspace(-1, 1, 10).astype(np.float32)
BROKEN_Y = np.where(np.arange(10) == 4, np.nan, Y).astype(np.float32)
INFINITE_Y = np.where(np.arange(10) == 4, np.inf, Y).astype(np.float32)

# Slots of NumPyro models: (model, data). Values that are no fault of a model but of its data too.
MODELS = kind.Slot(model, {
    "no function": bad("normal"),
    "None": bad(None),
    "discrete site": bad(discrete, "'k'.*discrete"),
    "no latent site": bad(nothing_latent, "no latent site"),
    "subsampling plate": bad(subsampled, "'rows'"),
    "values and distribution broadcast": bad(table_of_rows, r"'y'.*\(10, 10\)"),
    "data outside the support": bad(count_data, r"'y'.*-1.0 at \[0\]"),
    "raises": bad(_broken, "_broken.*weights"),
    "takes no data": bad(lambda: None, "model_args"),
}, ("model", "site", "model_args"))  # fmt: skip
DATA = kind.Slot((Y,), {
    "NaN": bad((BROKEN_Y,), r"nan at \[4\].*model_args\[0\]"),
    "inf": bad((INFINITE_Y,), r"inf at \[4\].*model_args\[0\]"),
    "text": bad((np.array(["a"]),), r"model_args\[0\].*<U1"),
    "objects": bad((np.array([None, 1.0]),), r"model_args\[0\].*object"),
    "masked": bad((np.ma.masked_array(Y, Y > 0),), r"model_args\[0\].*mask"),
    "too many": bad((Y, Y), "model_args.*too many"),
    "number": bad(3.5),
    "too large for int32": bad((np.array([2**40]),), r"model_args\[0\].*int64"),
})  # fmt: skip
KWARGS = kind.Slot({}, {
    "unknown": bad({"z": Y}, "'z'"), "text": bad("y"), "given twice": bad({"y": Y}, "'y'"),
})  # fmt: skip
_site = lambda **values: {name: np.asarray(value, np.float32) for name, value in values.items()}
SITES = {
    "outside the support": bad(_site(mu=0.0, scale=-1.0), "'scale'.*-1"),
    "NaN": bad(_site(mu=np.nan, scale=1.0), "'mu'.*nan"),
    "unknown site": bad(_site(mu=0.0, scale=1.0, sigma=1.0), "'sigma'"),
    "wrong shape": bad(_site(mu=np.zeros(4), scale=1.0), r"'mu'.*\(4,\)"),
    "text": bad({"mu": "zero", "scale": 1.0}, "'mu'.*number"),
    "no dict": bad(3.0, "dict by name.*float"),
}

_density = kind.log_density().called("log density", "log_density", "model", "init")
_tuning = dict(
    num_warmup=kind.count(2, lowest=0),
    tune_metric=kind.choice(None, "full"),
    target_acceptance=kind.fraction().without("None"),
)
_run = dict(
    key=kind.key(),
    num_chains=kind.count(3),
    num_samples=kind.count(),
    thin=kind.count(1),
    on_failure=kind.choice("ignore", "shrug"),
)
_saved = dict(
    checkpoint=kind.Slot(None, {
        "number": bad(3), "a file": bad(__file__, "is a file"),
        "negative pause": bad(Checkpoint("run", every=-1.0), "every.*-1"),
    }),
    mesh=kind.Slot(None, {
        "number": bad(8, "int"),
        "two axes": bad(jax.make_mesh((1, 1), ("a", "b")), "one axis.*'b'"),
    }),
)  # fmt: skip
_starts = kind.start().plus(
    one_chain_starts_badly=(jnp.array([[1.0, 0.0], [jnp.nan, 0.0], [1.0, 0.0]]), r"\[1, 0\].*nan"),
    none=(None, "init|model"),
)


def _sample(sampler: Any) -> Any:
    quiet = dict(num_chains=3, num_warmup=2, num_samples=3, progress=False)
    return lambda key, model, **rest: sample(key, model, sampler, **{**quiet, **rest})


def _with_sampler(sampler: Any) -> Any:
    return _sample(sampler)(KEY, kind.normal, init=jnp.zeros(2))


_partial = functools.partial
_bad_samplers = {
    "unknown": bad("hmcmc"),
    "number": bad(3),
    "None": bad(None),
    "class": bad(dict, "dict"),
    "positional partial": bad(_partial(langevin.mala, 0.1), "positional"),
    "metric of the wrong size": bad(langevin.mala(0.1, np.ones(3)), "2 coordinates"),
    "blackjax step size zero": bad(_partial(blackjax.mala, step_size=0.0), "step_size.*0.0"),
    "blackjax step size NaN": bad(_partial(blackjax.mala, step_size=np.nan), "step_size.*nan"),
    "blackjax step size text": bad(_partial(blackjax.mala, step_size="0.1"), "step_size.*'0.1'"),
    "blackjax without its metric": bad(_partial(blackjax.nuts, step_size=0.1), "metric|mass"),
}
SAMPLE = {
    f"sample({name})": entry(_sample(name), **_run, model=_density, init=_starts, **tuning)
    for name, tuning in (("mala", _tuning), ("baoab", {}), ("nuts", {}))
}
SAMPLE["sample(mala)"].slots.update(**_saved, bad_starts=kind.choice("drop", "skip"))
SAMPLE["sample(sampler)"] = entry(
    _with_sampler,
    sampler=kind.Slot("mala", _bad_samplers).called(
        "sampler", "step_size", "metric", "inverse_mass_matrix"
    ),
)
SAMPLE["sample(model)"] = entry(
    _sample("mala"), key=kind.Slot(KEY, {}), model=MODELS, model_args=DATA, model_kwargs=KWARGS,
    init=kind.Slot(None, SITES),
)  # fmt: skip
SAMPLE["sample(target)"] = entry(
    lambda **rest: _sample("mala")(KEY, Target.from_log_density(kind.normal, jnp.zeros(2)), **rest),
    model_args=kind.Slot((), {"data it has": bad((Y,), "Target")}),
)


@functools.cache
def _target() -> Any:
    return Target.from_numpyro(model, (Y,))


@functools.cache
def _plain_target() -> Any:
    return Target.from_log_density(kind.normal, jnp.zeros(2))


_position = {"mu": jnp.float32(0.0), "scale": jnp.float32(0.0)}
_bad_positions = kind.Slot(_position, {
    "missing site": bad({"mu": jnp.float32(0.0)}, "scale"),
    "wrong shape": bad({**_position, "mu": jnp.zeros(3)}, r"'mu'.*\(3,\)"),
    "no dict": bad(jnp.zeros(2), "dict"),
    "text": bad({**_position, "mu": "zero"}, "'mu'"),
})  # fmt: skip
_draws = {"mu": np.zeros((2, 3)), "scale": np.ones((2, 3))}
_bad_draws = kind.Slot(_draws, {
    "missing site": bad({"mu": np.zeros((2, 3))}, "'scale'"),
    "wrong shape": bad({**_draws, "mu": np.zeros(3)}, r"'mu'.*\(3,\)"),
    "text": bad({**_draws, "mu": "zero"}, "'mu'"),
    "no dict": bad(3.0),
})  # fmt: skip
TARGETS = {
    "Target.from_log_density": entry(
        Target.from_log_density, log_density=kind.log_density().without(
            "NaN", "-inf", "+inf", "gradient NaN"
        ), init=kind.start(),
    ),
    "Target.from_numpyro": entry(
        Target.from_numpyro, model=MODELS, model_args=DATA, model_kwargs=KWARGS
    ),
    "NumPyroTarget.unconstrain": entry(
        lambda values: _target().unconstrain(values),
        values=kind.Slot(_site(mu=0.0, scale=1.0), SITES).plus(missing=(_site(mu=0.0), "scale")),
    ),
    "NumPyroTarget.constrain": entry(
        lambda position: _target().constrain(position), position=_bad_positions
    ),
    "NumPyroTarget.log_density": entry(
        lambda position: _target().log_density(position), position=_bad_positions
    ),
    "NumPyroTarget.log_likelihood": entry(
        lambda posterior: _target().log_likelihood(posterior), posterior=_bad_draws
    ),
    "NumPyroTarget.predictive": entry(
        lambda **given: _target().predictive(**given), key=kind.key(), posterior=_bad_draws
    ),
    "NumPyroTarget.prior_predictive": entry(
        lambda **given: _target().prior_predictive(**given), key=kind.key(),
        num_samples=kind.count(),
    ),
    "NumPyroTarget.init": entry(lambda key: _target().init(key), key=kind.key()),
    "LogDensityTarget.init": entry(
        lambda init: Target.from_log_density(kind.normal, init).init(KEY),
        init=kind.Slot(jnp.zeros(2), {"none": bad(None, "init is missing")}),
    ),
    "LogDensityTarget.unconstrain": entry(
        lambda values: _plain_target().unconstrain(values),
        values=kind.Slot({"position": jnp.zeros(2)}, {
            "missing": bad({}, "position"), "unknown": bad({"x": jnp.zeros(2)}, "'x'"),
            "wrong shape": bad({"position": jnp.zeros(3)}, r"position.*\(3,\)"),
            "NaN": bad({"position": jnp.array([0.0, np.nan])}, r"position.*\[1\].*nan"),
            "text": bad({"position": "origin"}, "position.*origin"), "no dict": bad(3.0, "dict"),
        }),
    ),
}  # fmt: skip

_algorithm = langevin.mala(0.5)(kind.normal)
RUN = {
    "run": entry(
        run, key=kind.key(), num_steps=kind.count(4, lowest=0), thin=kind.count(2).plus(
            no_divisor=(3, "thin=3")
        ),
        algorithm=kind.Slot(_algorithm, {
            "None": bad(None), "number": bad(3), "sampler": bad(langevin.mala(0.5), "step"),
            "name": bad("mala"),
        }),
        state=kind.Slot(_algorithm.init(jnp.zeros(2)), {}),
        on_failure=kind.choice("ignore", "shrug"),
        first_step=kind.count(3, lowest=0),
        **_saved,
    ),
    "resume": entry(
        resume, on_failure=kind.choice("ignore", "shrug"), num_samples=kind.count(),
        checkpoint=_saved["checkpoint"]._replace(good="nowhere").plus(
            none=(None, "checkpoint is None"), no_run=("nowhere", "nowhere holds no run"),
        ).called("checkpoint", "nowhere"),
    ),
    "checkpoint.save": entry(
        lambda tree: checkpoint.save("unwritten", tree),
        tree=kind.Slot({}, {
            "text": bad({"a": "x"}, r"\['a'\].*<U1"),
            "objects": bad({"a": np.array([None])}, r"\['a'\].*object"),
        }, ("leaf",)),
    ),
    "checkpoint.load": entry(
        lambda path: checkpoint.load(path, {}),
        path=kind.Slot("nowhere", {
            "no file": bad("nowhere", "nowhere"), "no checkpoint": bad(__file__, "no checkpoint"),
        }, ("nowhere", __file__)),
    ),
}  # fmt: skip
_likelihood = lambda x, y: -0.5 * (y - x) ** 2


def of_five_rows(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 10, subsample_size=5) as rows:
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[rows])


@functools.cache
def _minibatch_target() -> Any:
    return minibatch.from_numpyro(of_five_rows, (Y,))


MINIBATCH = {
    "minibatch.from_numpyro": entry(
        minibatch.from_numpyro,
        model_args=kind.Slot((Y,), {"text": bad("y"), "none": bad((), "0 given")}),
        model=kind.Slot(of_five_rows, {
            "rows not taken by the plate": bad(subsampled, r"'y'.*\(5,\).*\(10,\)"),
            "no function": bad(3.0, "3.0"), "nothing to subsample": bad(model, "subsample_size"),
            "raises": bad(_broken, "_broken.*weights"), "latent": bad(discrete, "'k'.*discrete"),
        }),
    ),
    "minibatch.from_arrays": entry(
        lambda batch_size, init: minibatch.from_arrays(
            lambda x: -0.5 * x**2, _likelihood, np.float32([1, 2, 3]), batch_size, init),
        batch_size=kind.count().plus(too_many=(7, "at most 3.*7")),
        init=kind.Slot(jnp.zeros(()), {"text": bad("zero", "init"), "NaN": bad(jnp.nan, "nan")}),
    ),
    "minibatch.svrg": entry(
        lambda refresh_every: _minibatch_target().svrg(refresh_every),
        refresh_every=kind.count(),
    ),
    "minibatch.control_variates": entry(
        lambda center: _minibatch_target().control_variates(center),
        center=kind.Slot({"mu": jnp.float32(0.0)}, {
            "missing site": bad({"other": jnp.float32(0.0)}, "other"),
            "NaN": bad({"mu": jnp.float32(jnp.nan)}, "nan"),
        }).called("center", "position"),
    ),
}  # fmt: skip

ENTRIES = {**MINIBATCH, **SAMPLE, **TARGETS, **RUN}
