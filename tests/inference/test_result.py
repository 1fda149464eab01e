"""Results: for ArviZ of either generation, on disk and back, weights, sentences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

from shoal.inference import Result, sample
from shoal.inference.arviz import import_arviz

pytestmark = pytest.mark.quick_compiler

X = np.linspace(-1, 1, 12).astype(np.float32)
Y = (0.5 + 2 * X + 0.3 * np.cos(7 * X)).astype(np.float32)


def line(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 2).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    mean = numpyro.deterministic("mean", a[0] + a[1] * x)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


@pytest.fixture(scope="module")
def result() -> Result:
    return sample(
        jax.random.key(0), line, "mala", model_args=(X, Y), num_warmup=200, num_samples=150,
        thin=2, progress=False,
    )  # fmt: skip


def _group(data, name):
    """Return a group as a dataset, from InferenceData or DataTree."""
    group = data[name]
    return group.to_dataset() if hasattr(group, "to_dataset") else group


def test_every_group_reaches_arviz(result):
    data = result.to_arviz()
    for name in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        assert dict(_group(data, name).sizes)["chain"] == 4
        assert dict(_group(data, name).sizes)["draw"] == 150
    np.testing.assert_array_equal(_group(data, "posterior")["a"].values, result.posterior["a"])
    np.testing.assert_array_equal(_group(data, "observed_data")["y"].values, Y)
    assert set(_group(data, "prior").data_vars) >= {"a", "sigma"}
    assert set(_group(data, "prior_predictive").data_vars) == {"y"}
    assert not _group(data, "sample_stats")["diverging"].values.any()
    assert data.attrs["inference_library"] == "shoal"


def test_log_likelihood_is_the_models(result):
    values = _group(result.to_arviz(), "log_likelihood")["y"].values
    expected = scipy.stats.norm.logpdf(
        Y, result.posterior["mean"], result.posterior["sigma"][..., None]
    )
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


def test_predictions_scatter_round_the_posterior_mean_with_its_noise(result):
    drawn = _group(result.to_arviz(), "posterior_predictive")["y"].values
    assert drawn.shape == (4, 150, 12)
    z = (drawn - result.posterior["mean"]) / result.posterior["sigma"][..., None]
    # 7200 standard normal numbers: mean and second moment at |z| < 5.2, 2e-7 each.
    assert abs(z.mean()) * np.sqrt(z.size) < 5.2
    assert abs((z**2).mean() - 1) / np.sqrt(2 / z.size) < 5.2


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto distribution")
def test_arviz_computes_with_it(result):
    arviz = import_arviz()
    assert float(arviz.ess(result.posterior["sigma"])) > 20
    loo = arviz.loo(result.to_arviz())
    # Twelve points with normal noise of about 0.3, as the model has it.
    assert -12 < (loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo) < 12


def test_saved_and_loaded_is_the_same(result, tmp_path):
    path = result.save(tmp_path / "run.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]
    loaded = Result.load(path)
    for name in ("posterior", "sample_stats"):
        ours, theirs = getattr(result, name), getattr(loaded, name)
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            np.testing.assert_array_equal(theirs[key], value)
            assert theirs[key].dtype == value.dtype
    for name in ("num_gradients", "num_gradients_warmup", "status", "status_warmup", "attributes"):
        assert getattr(loaded, name) == getattr(result, name)
    assert set(loaded.groups) == {
        "log_likelihood", "posterior_predictive", "prior", "prior_predictive", "observed_data",
    }  # fmt: skip
    factor = result.parameters["metric"].factor
    np.testing.assert_array_equal(loaded.parameters["metric.factor"], factor)
    again = loaded.save(tmp_path / "again.nc")
    np.testing.assert_array_equal(Result.load(again).posterior["a"], result.posterior["a"])
    assert set(_group(loaded.to_arviz(), "log_likelihood").data_vars) == {"y"}


def test_arviz_reads_the_file_itself(result, tmp_path):
    arviz = import_arviz()
    data = arviz.from_netcdf(str(result.save(tmp_path / "run.nc")))
    np.testing.assert_array_equal(
        _group(data, "posterior")["sigma"].values, result.posterior["sigma"]
    )


def test_a_failed_save_leaves_the_older_file_whole(result, tmp_path):
    path = result.save(tmp_path / "run.nc")
    before = path.read_bytes()
    broken = dataclasses.replace(result, posterior={"a": np.array([["text", object()]])})
    with pytest.raises((TypeError, ValueError)):
        broken.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_paths_that_cannot_be_are_named(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory"):
        result.save(tmp_path / "nowhere" / "run.nc")
    with pytest.raises(FileNotFoundError, match="no such file"):
        Result.load(tmp_path / "run.nc")
    (tmp_path / "text.nc").write_text("not a file of that kind")
    with pytest.raises(ValueError, match="not a NetCDF file"):
        Result.load(tmp_path / "text.nc")


def _weighted(log_weights):
    values = np.tile(np.arange(400.0), (2, 1))
    return Result(
        posterior={"x": values}, sample_stats={"lp": -values}, log_weights=np.asarray(log_weights)
    )


def test_unequal_weights_are_resampled_and_kept_on_record():
    weights = np.tile(np.linspace(0, 1, 400), (2, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        data = _weighted(np.log(weights)).to_arviz()
    x = _group(data, "posterior")["x"].values
    # Systematic resampling: every draw appears within one of 400 times its weight.
    counts = np.bincount(x[0].astype(int), minlength=400)
    assert (np.abs(counts - 400 * weights[0]) < 1 + 1e-3).all()
    assert counts[0] == 0
    np.testing.assert_allclose(data.attrs["weights_effective_sample_size"], 300, rtol=0.01)
    raw = _weighted(np.log(weights + 1e-30)).to_arviz(resample=False)
    np.testing.assert_array_equal(_group(raw, "posterior")["x"].values[0], np.arange(400))
    assert "log_weight" in _group(raw, "sample_stats").data_vars


def test_equal_weights_change_nothing():
    data = _weighted(np.full((2, 400), -np.log(400.0))).to_arviz()
    np.testing.assert_array_equal(_group(data, "posterior")["x"].values[1], np.arange(400))


def test_weights_survive_a_file(tmp_path):
    log_weights = np.log(np.tile(np.linspace(0.1, 1, 400), (2, 1)))
    loaded = Result.load(_weighted(log_weights).save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(loaded.log_weights, log_weights)
    assert "log_weight" not in loaded.sample_stats


def test_the_report_is_silent_when_all_went_well_and_plain_otherwise():
    fine = Result({}, {}, status={"ok": 10, "divergence": 0})
    assert fine.report() == ""
    bad = Result({}, {}, status={"ok": 7, "divergence": 3}, status_warmup={"ok": 9, "frozen": 1})
    assert bad.report().splitlines() == [
        "warm-up: in 1 of 10 steps the particle was frozen: it had failed before, or its weights "
        "or the bandwidth were degenerate",
        "sampling: in 3 of 10 steps the energy error of a step exceeded 1000: "
        "the step size is too large there",
    ]


def test_a_log_density_has_no_groups_of_a_model():
    result = sample(
        jax.random.key(0), lambda x: -0.5 * jnp.sum(x**2), "mala", init=jnp.zeros(2),
        num_warmup=20, num_samples=10, progress=False, on_failure="ignore",
    )  # fmt: skip
    data = result.to_arviz()
    groups = data.groups() if callable(data.groups) else [g.strip("/") for g in data.groups]
    assert {g for g in groups if g} == {"posterior", "sample_stats"}
