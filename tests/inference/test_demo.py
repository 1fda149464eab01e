"""The demo: its answer is that of NUTS, and it says so when it is not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from shoal.inference import Result, demo
from shoal.inference.summary import summarize

# Two answers that agree do so however the compiler rounds.
pytestmark = pytest.mark.quick_compiler(level=1)


@pytest.fixture(scope="module")
def results() -> tuple[Result, Result]:
    return demo.run(seed=0, progress=False)


def test_mala_agrees_with_nuts(results: tuple[Result, Result]) -> None:
    comparison = demo.compare(*results)
    assert len(comparison.names) == 31
    # 62 statistics, two-sided p 2e-7 each: false alarms at 1.2e-5 over all keys.
    assert comparison.largest < demo.LARGEST_Z


def test_both_runs_are_long_enough(results: tuple[Result, Result]) -> None:
    for result in results:
        summary = summarize(result)
        assert summary.columns["r_hat"].max() < 1.01
        assert summary.columns["ess_bulk"].min() > 400
        assert summary.names[0] == "coefficients[mean radius]"
        assert "Converged" in summary.verdict()


def test_gradients_are_counted(results: tuple[Result, Result]) -> None:
    mala, nuts = results
    assert mala.num_gradients == 4 * 1000 * 20
    assert mala.num_gradients_warmup == 4 * (10_000 + 1)
    assert nuts.num_gradients == int(nuts.sample_stats["n_steps"].sum())


def test_it_prints_and_writes(
    results: tuple[Result, Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "run", lambda *_: results)
    demo.demo(tmp_path, progress=False)
    printed = capsys.readouterr().out
    for words in ("worst fractal dimension", "80,000 gradients", "Converged", "nuts: 4 chains"):
        assert words in printed
    assert str(tmp_path / "breast_cancer.nc") in printed
    loaded = Result.load(tmp_path / "breast_cancer.nc")
    np.testing.assert_array_equal(
        loaded.posterior["coefficients"], results[0].posterior["coefficients"]
    )
    assert summarize(loaded).names == summarize(results[0]).names
    assert (tmp_path / "breast_cancer.png").read_bytes().startswith(b"\x89PNG")
    # 0.98 to 0.99 over seeds; guessing the commoner class gives 0.63.
    assert demo.accuracy(results[0]) > 0.97


@pytest.mark.parametrize("fault", ["shifted", "too wide"])
def test_a_wrong_answer_is_noticed(results: tuple[Result, Result], fault: str) -> None:
    mala, nuts = results
    draws = mala.posterior["coefficients"].copy()
    middle, sd = draws[..., 3].mean(), draws[..., 3].std()
    if fault == "shifted":
        draws[..., 3] += 0.25 * sd
    else:
        draws[..., 3] = middle + 1.25 * (draws[..., 3] - middle)
    wrong = dataclasses.replace(mala, posterior={**mala.posterior, "coefficients": draws})
    assert demo.compare(wrong, nuts).largest > demo.LARGEST_Z


def test_a_wrong_answer_fails_the_demo(
    results: tuple[Result, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mala, nuts = results
    posterior = {**mala.posterior, "intercept": mala.posterior["intercept"] + 1}
    wrong = dataclasses.replace(mala, posterior=posterior)
    monkeypatch.setattr(demo, "run", lambda *_: (wrong, nuts))
    with pytest.raises(RuntimeError, match="MALA and NUTS differ by"):
        demo.demo(tmp_path, progress=False)


def test_results_of_other_models_cannot_be_compared() -> None:
    one, other = (Result({name: np.zeros((4, 50))}, {}) for name in "ab")
    with pytest.raises(ValueError, match="other names"):
        demo.compare(one, other)
