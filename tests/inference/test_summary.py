"""The table of a posterior: right numbers, the same with every ArviZ, and a verdict that bites."""

import json

import numpy as np
import pytest

from shoal.inference import Result
from shoal.inference.arviz import import_arviz
from shoal.inference.summary import facts, flatten, summarize

pytestmark = pytest.mark.quick_compiler


def autoregression(rho: float, shape: tuple[int, int]) -> np.ndarray:
    """Return stationary N(0, 1) chains with autocorrelation ``rho ** lag``."""
    rng = np.random.default_rng(0)
    x = np.empty(shape)
    x[:, 0] = rng.normal(size=shape[0])
    for t in range(1, shape[1]):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=shape[0])
    return x


def independent(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


def test_columns_of_an_autoregression_match_theory() -> None:
    rho, shape = 0.8, (4, 20_000)
    columns = summarize(Result({"x": autoregression(rho, shape)}, {})).columns
    ess = shape[0] * shape[1] * (1 - rho) / (1 + rho)
    # ArviZ's estimate has a relative standard deviation of about 3 % here.
    assert columns["ess_bulk"][0] == pytest.approx(ess, rel=0.15)
    assert columns["mcse_mean"][0] == pytest.approx(ess**-0.5, rel=0.1)
    assert columns["r_hat"][0] < 1.005
    # 5.2 standard errors: false alarm 2e-7.
    assert abs(columns["mean"][0]) < 5.2 * ess**-0.5
    assert columns["sd"][0] == pytest.approx(1, abs=0.05)
    assert columns["lower"][0] == pytest.approx(-1.645, abs=0.1)
    assert columns["upper"][0] == pytest.approx(1.645, abs=0.1)


def test_diagnostics_are_those_of_arviz() -> None:
    draws = autoregression(0.5, (4, 500))
    columns = summarize(Result({"x": draws}, {})).columns
    arviz = import_arviz()
    assert columns["r_hat"][0] == pytest.approx(float(arviz.rhat(draws)), rel=1e-12)
    assert columns["ess_bulk"][0] == pytest.approx(float(arviz.ess(draws)), rel=1e-12)
    tail = arviz.ess(draws, method="tail", prob=(0.05, 0.95))
    assert columns["ess_tail"][0] == pytest.approx(float(tail), rel=1e-12)
    for kind in ("mean", "sd"):
        error = arviz.mcse(draws, method=kind)
        assert columns[f"mcse_{kind}"][0] == pytest.approx(float(error), rel=1e-12)


def test_every_entry_has_a_name_and_its_own_numbers() -> None:
    b = independent(2, 100, 2, 3) + 10.0 * np.arange(6).reshape(2, 3)
    summary = summarize(Result({"a": independent(2, 100), "b": b}, {}))
    assert summary.names == ["a", *(f"b[{i}, {j}]" for i in range(2) for j in range(3))]
    np.testing.assert_allclose(summary.columns["mean"][1:], b.mean(axis=(0, 1)).ravel())
    assert [name for name, _ in flatten(Result({"b": b}, {}), ["b"])] == summary.names[1:]


def test_labels_come_with_the_result_or_the_call() -> None:
    result = Result({"b": independent(2, 50, 2)}, {}, attributes={"labels": '{"b": ["x", "y"]}'})
    assert summarize(result).names == ["b[x]", "b[y]"]
    assert summarize(result, labels={"b": ["u", "v"]}).names == ["b[u]", "b[v]"]
    with pytest.raises(ValueError, match=r"labels\['b'\] has 1 entries"):
        summarize(result, labels={"b": ["u"]})
    assert json.loads(result.attributes["labels"])


def test_the_verdict() -> None:
    good = independent(4, 500)
    assert summarize(Result({"x": good}, {})).verdict().startswith("Converged")
    apart = good + np.array([[0.0], [0.0], [0.0], [0.5]])
    verdict = summarize(Result({"fine": good, "apart": apart}, {})).verdict()
    assert verdict.startswith("Not converged")
    assert "(apart)" in verdict
    short = summarize(Result({"x": good[:, :50]}, {})).verdict()
    assert short.startswith("Not converged")


@pytest.mark.parametrize("draws", [independent(1, 3), np.ones((4, 100))])
def test_what_cannot_be_known_is_a_dash(draws: np.ndarray) -> None:
    summary = summarize(Result({"x": draws}, {}))
    assert str(summary).split()[-1] == "-"
    assert summary.verdict().startswith("No R-hat")


def test_the_table_is_aligned_and_can_be_cut() -> None:
    summary = summarize(Result({"x": independent(4, 50, 30) * 1e-3, "y": independent(4, 50)}, {}))
    lines = str(summary).splitlines()
    assert len(lines) == 32
    assert len({len(line) for line in lines}) == 1
    cut = summary.table(3).splitlines()
    assert len(cut) == 5
    assert cut[-1] == "... and 28 more"


def test_bad_input_is_named() -> None:
    result = Result({"x": independent(4, 50)}, {})
    with pytest.raises(ValueError, match=r"there is no \['q'\] among \['x'\]"):
        summarize(result, ["q"])
    with pytest.raises(ValueError, match="holds no number"):
        summarize(Result({"x": np.zeros((4, 50, 0))}, {}))
    weighted = Result({"x": independent(4, 50)}, {}, log_weights=independent(4, 50))
    with pytest.raises(ValueError, match="unequal weights"):
        summarize(weighted)


def test_facts() -> None:
    attributes = {"sampler": "mala", "thin": 5, "num_warmup": 10, "sampling_time": 1.25}
    attributes["compile_time"] = 0.5
    result = Result({"x": independent(4, 50)}, {}, 1000, 44, attributes=attributes)
    text = facts(result)
    assert "mala: 4 chains of 50 draws, one step in 5 kept, after 10 steps of warm-up" in text
    assert "1,000 gradients in 1.2 s, 44 more in warm-up, 0.5 s of compiling" in text
    assert facts(Result({"x": independent(4, 50)}, {})) == "4 chains of 50 draws"


def test_efficiency_is_rated_only_of_chains_that_are_long_enough_and_agree() -> None:
    good = independent(4, 500)
    draws = {"x": good, "slow": autoregression(0.3, (4, 500)), "constant": np.ones((4, 500))}
    summary = summarize(Result(draws, {}, 10_000, 6_000))
    ess = summary.columns["ess_bulk"][1]
    expected = f"{ess / 10:.3g} (warm-up counted: {ess / 16:.3g})"
    assert summary.efficiency() == f"min bulk ESS per 1,000 gradients: {expected}"
    unknown = summarize(Result(draws, {}, 10_000)).efficiency()
    assert unknown == f"min bulk ESS per 1,000 gradients: {ess / 10:.3g}"
    assert summarize(Result({"x": good}, {})).efficiency() == ""
    short = summarize(Result({"fine": good[:, :98], "x": autoregression(0.9, (4, 98))}, {}, 392))
    few = short.columns["ess_bulk"].min()
    assert short.efficiency() == f"efficiency not rated: smallest bulk ESS {few:.0f} < 400"
    # Many chains in two camps have effective draws enough, but do not agree.
    apart = independent(32, 500) + 0.35 * (np.arange(32)[:, None] % 2)
    text = summarize(Result({"x": apart}, {}, 20_000)).efficiency()
    assert text.startswith("efficiency not rated: largest R-hat 1.0")
    assert "not known" in summarize(Result({"x": good[:1]}, {}, 500)).efficiency()
