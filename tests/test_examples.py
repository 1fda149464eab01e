"""Every example runs, draws its picture, and its number is right."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from shoal.models.denoisers import digits_network

# Their numbers hold with any rounding; most of them are made in long loops.
pytestmark = pytest.mark.quick_compiler(level=1)

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TESTED = {
    "cir_orders",
    "digits",
    "digits_guidance",
    "eight_schools",
    "langevin_bias",
    "logistic_natural",
    "kernel_mmd",
    "mirrored_stein",
    "pareto_front",
    "post_selection",
    "schedule_search",
    "several_processes",
    "solver_comparison",
    "tensor_pca",
    "tuned_sampler",
    "uniform_square",
}


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def check_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_no_example_is_untested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_eight_schools(tmp_path: Path) -> None:
    example = load("eight_schools")
    mean, exact = example.main(num_samples=500, folder=tmp_path)
    # The integral agrees with long runs of Stan and NumPyro on this model: 3.6.
    assert exact == pytest.approx(3.6, abs=0.05)
    # Standard deviation of tau 3.2, effective sample size above 400: 5.2 standard errors, 2e-7.
    assert mean == pytest.approx(exact, abs=5.2 * 3.2 / 20)
    check_picture(tmp_path / "eight_schools.png")


def test_langevin_bias(tmp_path: Path) -> None:
    # 15 variances of 1.6e6 draws, of which 1 in 20 counts: 5.2 standard errors, 3e-6 in all.
    assert load("langevin_bias").main(num_samples=400, folder=tmp_path) < 5.2 * (2 / 8e4) ** 0.5
    check_picture(tmp_path / "langevin_bias.png")


def test_several_processes(tmp_path: Path) -> None:
    example = load("several_processes")
    first = example.main(num_samples=500, folder=tmp_path)
    # Over 20 keys the largest deviation was 0.043 +- 0.016: 5.2 standard deviations, 1e-7.
    assert first < 0.13
    check_picture(tmp_path / "several_processes.png")
    # The second call finds all draws in the folder.
    assert example.main(num_samples=500, folder=tmp_path) == first


def test_kernel_mmd(tmp_path: Path) -> None:
    # Over 200 keys the error at the farthest shift has a standard deviation of 0.0056 at 1000
    # points, so half of that here, and smaller ones at the others: 9 tests at 5.2 of them, 2e-6.
    assert load("kernel_mmd").main(num_samples=4000, folder=tmp_path) < 5.2 * 0.0056 / 2
    check_picture(tmp_path / "kernel_mmd.png")


def test_cir_orders(tmp_path: Path) -> None:
    # 400 paths and five points give 0.72 and 2.10, 0.41 and 1.27; the tails of the error are heavy.
    orders = load("cir_orders").main(num_paths=100, num_points=4, folder=tmp_path)
    even, adaptive = orders[1.5]
    assert 0.5 < even < 1.0
    assert 1.6 < adaptive < 2.4
    even, adaptive = orders[2.2]
    assert 0.1 < even < 0.6
    assert adaptive > 2 * even
    check_picture(tmp_path / "cir_orders.png")


def test_tensor_pca(tmp_path: Path) -> None:
    average, last, trace = load("tensor_pca").main(num_steps=2000, num_tensors=3, folder=tmp_path)
    # Over 12 tensors: 0.982 +- 0.004, 0.82 +- 0.02 and 0.64 +- 0.07, a third of the variance here.
    assert average > 0.9
    assert average > last + 0.05
    assert average > trace + 0.05
    check_picture(tmp_path / "tensor_pca.png")


def test_tuned_sampler(tmp_path: Path) -> None:
    ratio, largest = load("tuned_sampler").main(num_warmup=200, num_samples=200, folder=tmp_path)
    # Over 6 keys its logarithm is 1.11 with a standard deviation of 0.22: 5 of them above 1.
    assert ratio > 1
    # A bias of 1 % is a fifth of these errors, or less: 62 comparisons at 5.2, 1e-5.
    assert largest < 5.2
    check_picture(tmp_path / "tuned_sampler.png")


def test_digits_guidance(tmp_path: Path) -> None:
    ratios = load("digits_guidance").main(20, (8, 12), folder=tmp_path)
    # Over 4 keys, with 50 samples, 1.25 to 1.42, 3.7 to 4.1 and 0.96 to 0.98.
    assert ratios["DPM-Solver++(2M)"] > 1.1
    assert ratios["DPM-Solver++(3M)"] > 2.5
    assert ratios["GHVB, 2, 0.5"] < 1.05
    check_picture(tmp_path / "digits_guidance.png")


def test_uniform_square(tmp_path: Path) -> None:
    distances = load("uniform_square").main(60, 200, folder=tmp_path)
    # 0.0011, 0.0011 and 0.084; as many draws have 0.017 on average.
    assert distances["SVMD"] < 0.003
    assert distances["MSVGD"] < 0.003
    assert distances["projected SVGD"] > 0.03
    check_picture(tmp_path / "uniform_square.png")


def test_mirrored_stein(tmp_path: Path) -> None:
    distances = load("mirrored_stein").main(250, 100, folder=tmp_path)
    # 0.0004, 0.016, 1.4; 0.004, 0.001 and 0.24. SVMD has some particles on their way then.
    for law, most in {"sparse Dirichlet": 0.05, "quadratic": 0.02}.items():
        assert distances[law, "MSVGD"] < most
        assert distances[law, "SVMD"] < most
        assert distances[law, "projected SVGD"] > 0.1
    check_picture(tmp_path / "mirrored_stein.png")


def test_logistic_natural(tmp_path: Path) -> None:
    updates = load("logistic_natural").main(4000, 60, folder=tmp_path)
    # 13, 54, 33 and 34.
    assert updates["SVNG"] < 20
    assert updates["SVNG"] < 0.7 * updates["SVGD"]
    check_picture(tmp_path / "logistic_natural.png")


@pytest.mark.quick_compiler
def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("digits")
    # Training takes a minute, and has tests of its own.
    trained = SimpleNamespace(network=digits_network())
    monkeypatch.setattr(example, "train_digits", lambda *_: trained)
    accuracy, near = example.main(num_samples=200, folder=tmp_path)
    # Of 1000 images 99.2 %, so that 5.2 standard errors are 3.3 %; and a ratio of 0.98.
    assert accuracy > 0.955
    assert 0.8 < near.ratio < 1.2
    check_picture(tmp_path / "digits.png")


@pytest.mark.quick_compiler
def test_solver_comparison(tmp_path: Path) -> None:
    _, median = load("solver_comparison").main(calls=(10,), num_samples=64, folder=tmp_path)
    # 0.29; over 16 sets of noise its logarithm has a standard deviation of 0.075: 5.2 of them.
    assert median < 0.43
    check_picture(tmp_path / "solver_comparison.png")


@pytest.mark.quick_compiler
def test_schedule_search(tmp_path: Path) -> None:
    ratio = load("schedule_search").main(32, 1, 5, folder=tmp_path)
    # Over 8 keys 0.16 to 0.44; the best of the known solvers alone has about 0.5.
    assert ratio < 0.7
    check_picture(tmp_path / "schedule_search.png")


@pytest.mark.quick_compiler
def test_pareto_front(tmp_path: Path) -> None:
    assert load("pareto_front").main(4, 300, folder=tmp_path) < 1
    check_picture(tmp_path / "pareto_front.png")


def test_post_selection(tmp_path: Path) -> None:
    # Some ten intervals, short runs: far from the coverage of long ones, and from none at all.
    error = load("post_selection").main(3, 60, 2, tmp_path)
    assert error < 0.6
    check_picture(tmp_path / "post_selection.png")
