"""Problems with several objectives: known values, fronts that nothing dominates, volumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.models.multi_objective import vlmop2, zdt1, zdt2, zdt3
from shoal.sampling.stein.pareto import hypervolume, nondominated

pytestmark = pytest.mark.quick_compiler

ALL = [zdt1(4), zdt2(4), zdt3(4), vlmop2(4)]
name = lambda problem: problem.name


def test_values_at_a_point():
    """By hand: f_1 = 0.25 and, with other coordinates 0, 0.5 and 1, g = 5.5."""
    x = jnp.array([0.25, 0.0, 0.5, 1.0])
    ratio = 0.25 / 5.5
    wanted = [5.5 * (1 - ratio**0.5), 5.5 * (1 - ratio**2), 5.5 * (1 - ratio**0.5 - ratio)]
    for problem, second in zip(ALL, wanted, strict=False):
        np.testing.assert_allclose(problem(x), [0.25, second], rtol=1e-5)
    # Squared distances to the centres ± (1/2, 1/2, 1/2, 1/2).
    squares = np.array([0.0625 + 0.25 + 0.25, 0.5625 + 0.25 + 1 + 2.25])
    np.testing.assert_allclose(ALL[3](x), 1 - np.exp(-squares), rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("problem", ALL, ids=name)
def test_no_point_is_beyond_the_front(problem):
    """And the front's points are attained, ascending, and none dominates another."""
    front = problem.pareto_front(300)
    assert nondominated(front).all()
    assert (np.diff(front[:, 0]) > 0).all()
    low, high = problem.bounds
    points = np.random.default_rng(0).uniform(low, high, (1000, problem.dim))
    # Half of the points lie close to the set.
    if problem.name == "VLMOP2":
        points[::2] = np.linspace(-0.6, 0.6, 500)[:, None] + 0.02 * points[::2]
    else:
        points[::2, 1:] *= 0.02
    values = np.asarray(problem(points))
    fine = problem.pareto_front(20_000)
    # The best second objective with a first one no larger: a staircase as fine as the grid.
    place = np.searchsorted(fine[:, 0], values[:, 0], side="right") - 1
    best = np.where(place >= 0, fine[place, 1], np.inf)
    beyond = (best - values[:, 1])[np.isfinite(best)]
    assert -0.2 < beyond.max() < 0.01


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("problem", ALL, ids=name)
def test_volume_of_the_front_is_that_of_many_points(problem):
    points = problem.pareto_front(20_000)
    volume = float(hypervolume(points, problem.reference_point))
    exact = problem.hypervolume_of_front()
    # Staircases lose half of their steps' areas.
    assert 0 < exact - volume < 1e-4


def test_volumes_in_closed_form():
    high, reference = 0.9994, (6.0576, 6.8960)
    first = high * (reference[0] - 1) + 2 / 3 * high**1.5
    second = high * (reference[1] - 1) + high**3 / 3
    assert zdt1().hypervolume_of_front() == pytest.approx(first, abs=1e-7)
    assert zdt2().hypervolume_of_front() == pytest.approx(second, abs=1e-7)


@pytest.mark.parametrize("problem", ALL, ids=name)
def test_many_points_at_once_and_their_slopes(problem):
    x = jnp.full((2, 3, 4), 0.3)
    y = jax.jit(problem)(x)
    assert y.shape == (2, 3, problem.num_objectives)
    assert y.dtype == jnp.float32
    assert np.ptp(np.asarray(y).reshape(6, -1), 0).max() < 1e-6
    assert np.isfinite(jax.jacobian(problem)(x[0, 0])).all()
    assert problem(np.zeros(4, int)).dtype == jnp.float32
