"""Pictures: what is drawn is what was asked for, labels can be read, nothing global changes."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from shoal.inference import Result, plot


def result(num_draws: int = 300, num_thetas: int = 8) -> Result:
    rng = np.random.default_rng(0)
    shape = (4, num_draws)
    posterior = {
        "mu": rng.normal(size=shape),
        "tau": rng.exponential(size=shape),
        "count": rng.poisson(3.0, size=shape),
        "theta": rng.normal(size=(*shape, num_thetas)),
    }
    statistics = {
        "lp": rng.normal(size=shape),
        "acceptance_rate": rng.uniform(size=shape),
        "energy": rng.normal(size=shape),
        "diverging": np.zeros(shape, bool),
    }
    return Result(posterior, statistics, attributes={"sampler": "nuts"})


def test_overview_shows_the_draws() -> None:
    run = result()
    figure = plot.overview(run, ["mu", "theta"], max_scalars=4)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 8
    assert "nuts: 4 chains of 300 draws" in figure.get_suptitle()
    assert "first 4 of 9 scalars" in figure.get_suptitle()
    names = [ax.get_ylabel() for ax in figure.axes[::2]]
    assert names == ["mu", "theta[0]", "theta[1]", "theta[2]"]
    for chain, line in enumerate(figure.axes[1].lines):
        np.testing.assert_array_equal(line.get_ydata(), run.posterior["mu"][chain])
    for chain, line in enumerate(figure.axes[0].lines):
        np.testing.assert_array_equal(line.get_data(), plot.density(run.posterior["mu"][chain]))
    assert len(figure.axes[0].lines) == 4


def test_long_traces_are_thinned_to_the_right_places() -> None:
    draws = np.arange(2 * 5000.0).reshape(2, 5000)
    (_, right) = plot.overview(Result({"x": draws}, {})).axes
    index, values = right.lines[1].get_data()
    assert len(index) <= 2000
    np.testing.assert_array_equal(values, draws[1, np.asarray(index)])


def test_divergences_are_marked() -> None:
    run = result()
    assert not [c for ax in plot.overview(run, ["mu"]).axes for c in ax.collections]
    run.sample_stats["diverging"][1, [10, 20, 30]] = True
    figure = plot.overview(run, ["mu"])
    assert "3 divergent" in figure.get_suptitle()
    left, right = [ax.collections[0].get_segments() for ax in figure.axes]
    np.testing.assert_allclose([s[0][0] for s in left], run.posterior["mu"][1, [10, 20, 30]])
    assert [s[0][0] for s in right] == [10, 20, 30]


def test_counts_are_drawn_as_frequencies() -> None:
    run = result()
    ax = plot.overview(run, ["count"]).axes[0]
    assert len(ax.collections) == 4
    heights = [s[1][1] for s in ax.collections[0].get_segments()]
    levels, counts = np.unique(run.posterior["count"][0], return_counts=True)
    np.testing.assert_allclose(heights, counts / 300)


def test_forest_shows_quantiles_from_top_to_bottom() -> None:
    run = result()
    run.posterior["theta"] = run.posterior["theta"] + np.arange(8)
    figure = plot.forest(run, ["theta"], labels={"theta": list("abcdefgh")})
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"theta[{c}]" for c in "abcdefgh"]
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(
        ax.lines[0].get_xdata(), np.median(run.posterior["theta"], axis=(0, 1))
    )
    low, high = np.quantile(run.posterior["theta"], (0.05, 0.95), axis=(0, 1))
    ends = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([low, high], axis=1))


def test_forest_of_two_results_says_which_is_which() -> None:
    figure = plot.forest(result(), ["theta"], others={"other": result()})
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["nuts", "other"]


@pytest.mark.parametrize("rows", [1, 8, 60])
def test_labels_do_not_overlap_and_lie_in_the_picture(rows: int) -> None:
    figure = plot.forest(result(50, rows), ["theta"], others={"other": result(50, rows)})
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == rows
    assert all(upper.y0 >= lower.y1 for upper, lower in zip(boxes, boxes[1:], strict=False))
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


def test_statistics_of_the_sampler() -> None:
    run = result()
    # White noise as energy: its changes have twice the variance.
    figure = plot.statistics(run)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "log density"
    mean = run.sample_stats["acceptance_rate"].mean()
    assert titles[1] == f"acceptance rate, mean {mean:.2f}"
    bfmi = float(titles[2].rpartition(" ")[2])
    assert bfmi == pytest.approx(2, abs=0.3)
    del run.sample_stats["energy"]
    assert len(plot.statistics(run).axes) == 2
    with pytest.raises(ValueError, match="no statistic to draw"):
        plot.statistics(Result(run.posterior, {}))


def test_density_of_a_normal_and_of_an_exponential() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=100_000)
    grid, height = plot.density(normal)
    assert np.max(np.abs(height - stats.norm.pdf(grid))) < 0.02
    grid, height = plot.density(rng.exponential(size=100_000))
    # A kernel estimate that leaks over the end would be at one half there.
    assert height[0] == pytest.approx(1, abs=0.08)
    assert np.sum(height) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 3.0])
def test_odd_draws_can_be_drawn(odd: float, tmp_path: Path) -> None:
    draws = np.full((2, 40), odd)
    draws[0, :20] = 1.0
    run = Result({"x": draws, "constant": np.ones((2, 40))}, {})
    plot.overview(run).savefig(tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 10_000


def test_nothing_global_changes(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for figure in (plot.overview(result()), plot.forest(result()), plot.statistics(result())):
        figure.savefig(tmp_path / "picture.png")
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    program = """
import sys, numpy as np
from shoal.inference import Result, plot
print("matplotlib" in sys.modules)
plot.overview(Result({"x": np.random.default_rng(0).normal(size=(2, 50))}, {}))
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"there is no \['q'\]"):
        plot.overview(result(), ["q"])
    with pytest.raises(ValueError, match="max_scalars must be at least 1, got 0"):
        plot.overview(result(), max_scalars=0)
