"""Item response: how able students are and how hard questions, from who answered what right.

    ability_mean ~ N(0.75, 1),   ability_i ~ N(0, 1),   difficulty_j ~ N(0, 1),
    y_ij ~ Bernoulli(logit⁻¹(ability_mean + ability_i - difficulty_j)).

One parameter logistic ("Rasch") model. Its 501 dimensions are well scaled but one direction: the
mean ability, all abilities and all difficulties can move together at little cost.
"""

import functools

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from shoal.models.posteriors.posterior import Posterior, as_data

_NUM_STUDENTS, _NUM_QUESTIONS, _ANSWERED = 400, 100, 0.75


def rasch(is_answered: jax.Array, y: jax.Array | None = None) -> None:
    """Sample ``ability_mean``, ``ability`` and ``difficulty``; observe ``obs``.

    Parameters
    ----------
    is_answered
        1 where a student (row) was asked a question (column), else 0, shape ``(n, m)``.
    y
        1 where the answer was right, else 0, integers of shape ``(n, m)``.
    """
    num_students, num_questions = is_answered.shape
    mean = numpyro.sample("ability_mean", dist.Normal(0.75, 1))
    with numpyro.plate("one_student", num_students):
        ability = numpyro.sample("ability", dist.Normal(0, 1))
    with numpyro.plate("one_question", num_questions):
        difficulty = numpyro.sample("difficulty", dist.Normal(0, 1))
    logits = mean + ability[:, None] - difficulty
    students = numpyro.plate("student", num_students, dim=-2)
    questions = numpyro.plate("question", num_questions, dim=-1)
    with students, questions, numpyro.handlers.mask(mask=is_answered > 0):
        numpyro.sample("obs", dist.Bernoulli(logits=logits), obs=y)


@functools.cache
def _simulate() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(21)
    shape = (_NUM_STUDENTS, _NUM_QUESTIONS)
    ability = 0.75 + rng.standard_normal(_NUM_STUDENTS)
    logits = ability[:, None] - rng.standard_normal(_NUM_QUESTIONS)
    is_right = rng.random(shape) < 1 / (1 + np.exp(-logits))
    return (rng.random(shape) < _ANSWERED).astype(float), is_right.astype(np.int32)


def item_response() -> Posterior:
    """Return the Rasch model of 400 students and 100 questions, three in four answered.

    Examples
    --------
    >>> posterior = item_response()
    >>> posterior.args[0].shape, posterior.kwargs["y"].shape
    ((400, 100), (400, 100))
    """
    is_answered, is_right = _simulate()
    return Posterior(
        model=rasch,
        args=(as_data(is_answered, "is_answered", 2),),
        kwargs={"y": is_right.copy()},
        description="Abilities of 400 students and difficulties of 100 questions.",
        source=(
            "Data: simulated from the model. Model and sizes: 'Synthetic item response theory' of "
            "the Inference Gym (TensorFlow Probability), whose own data are other draws of the "
            "same law."
        ),
    )
