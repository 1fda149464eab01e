"""Ctrl-C and SIGTERM: what is done survives, and going on gives the bits of an undisturbed run."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from shoal.inference import (
    Checkpoint,
    Result,
    SamplingWarning,
    _work,
    checkpoint as checkpoint_file,
    resume,
    sample,
)
from shoal.inference.interruption import Interruption
from shoal.inference.progress import Progress
from shoal.inference.run import run
from shoal.inference.summary import summarize
from shoal.sampling import langevin

pytestmark = pytest.mark.quick_compiler

KEY = jax.random.key(5)
BOTH = [signal.SIGINT, signal.SIGTERM]
NUM_STEPS = 24


def log_density(x):
    return -0.5 * jnp.sum(x**2) + jnp.cos(3 * x[0])


def keep(state, info):
    return state.position, info.acceptance_rate


def tally(state, info):
    return {"accepted": info.is_accepted.astype(jnp.int32)}


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test Python's own handlers, and see that it leaves them there."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    # One row in every chunk.
    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == own


def signals(
    when: int, numbers: list[signal.Signals], phase: str = "", told: list[int] | None = None
) -> Callable[[Progress], None]:
    """Return a progress callback that raises signals when it is called for the given time."""
    calls: list[int] = [] if told is None else told

    def callback(progress: Progress) -> None:
        if phase in ("", progress.phase):
            calls.append(progress.done)
            for number in numbers if len(calls) == when else ():
                signal.raise_signal(number)

    return callback


ALGORITHM = langevin.mala(0.4)(log_density)


def walk(num_steps: int = NUM_STEPS, start: Any = None, **options: Any) -> Any:
    state = ALGORITHM.init(jnp.ones(3)) if start is None else start
    return run(KEY, ALGORITHM, state, num_steps, keep=keep, tally=tally, **options)


@pytest.fixture(scope="module")
def whole() -> Any:
    return walk()


def assert_same(found: Any, expected: Any) -> None:
    """Compare two runs bit for bit, but for their times."""
    for name in ("state", "kept", "tally", "failures"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("when", [1, 10, NUM_STEPS - 2])
def test_a_signal_ends_a_run_after_the_chunk(
    number: signal.Signals, when: int, whole: Any, tmp_path: Path
) -> None:
    first = walk(progress=signals(when, [number]), checkpoint=tmp_path)
    # The callback runs between chunks, so that one more is done.
    assert (first.outcome, first.num_steps) == ("interrupted", when + 1)
    rows = jax.tree.map(lambda leaf: leaf[: when + 1], whole.kept)
    jax.tree.map(np.testing.assert_array_equal, first.kept, rows)
    second = walk(NUM_STEPS - when - 1, first.state, first_step=when + 1)
    np.testing.assert_array_equal(second.state.position, whole.state.position)
    assert_same(walk(checkpoint=tmp_path), whole)


def test_a_signal_at_the_end_changes_nothing(whole: Any) -> None:
    finished = walk(progress=signals(NUM_STEPS - 1, [signal.SIGINT]))
    assert finished.outcome == "completed"
    assert_same(finished, whole)


def test_many_interruptions_make_one_run(whole: Any, tmp_path: Path) -> None:
    rng, steps, found = np.random.default_rng(0), [0], None
    while found is None or found.outcome == "interrupted":
        when, number = int(rng.integers(1, 6)), BOTH[rng.integers(2)]
        found = walk(progress=signals(when, [number]), checkpoint=tmp_path)
        steps.append(found.num_steps)
    assert len(steps) > 5
    assert steps == sorted(set(steps))
    assert_same(found, whole)


def test_a_wish_reaches_runs_within_and_those_after(whole: Any, tmp_path: Path) -> None:
    with Interruption() as outer:
        first = walk(progress=signals(3, [signal.SIGINT]), checkpoint=tmp_path)
        assert (first.outcome, first.num_steps, outer.requested) == ("interrupted", 4, True)
        second = walk()
        assert (second.outcome, second.num_steps) == ("interrupted", 0)
        assert second.kept[0].shape == (0, 3)
        np.testing.assert_array_equal(second.state.position, jnp.ones(3))
        third = walk(checkpoint=tmp_path)  # neither goes on nor loses what is there
        assert (third.outcome, third.num_steps) == ("interrupted", 4)
        assert_same(third, first)
    assert_same(walk(checkpoint=tmp_path), whole)


@pytest.mark.parametrize("numbers", [[BOTH[0]] * 2, BOTH, BOTH[::-1]])
def test_a_second_signal_is_heard_at_once(numbers: Any, whole: Any, tmp_path: Path) -> None:
    saving = Checkpoint(tmp_path, every=1e-9)
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        walk(progress=signals(7, numbers, told=told), checkpoint=saving)
    assert len(told) == 7
    assert_same(walk(checkpoint=saving), whole)


# Each save renames a file of draws and then a state.
@pytest.mark.parametrize("when", [5, 6])
def test_a_second_signal_within_a_save_loses_that_save_alone(
    when: int, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = os.replace, []

    def replace(*arguments: Any) -> None:
        calls.append(1)
        for _ in range(2 * (len(calls) == when)):
            signal.raise_signal(signal.SIGINT)
        original(*arguments)

    monkeypatch.setattr(checkpoint_file.os, "replace", replace)
    monkeypatch.setattr(_work, "_SAVING_PART", 0)  # a save after every chunk
    saving = Checkpoint(tmp_path, every=1e-9)
    with pytest.raises(KeyboardInterrupt):
        walk(checkpoint=saving)
    assert len(calls) == when
    assert not list(tmp_path.glob(".*.tmp"))
    told: list[int] = []
    assert_same(walk(checkpoint=saving, progress=signals(0, [], told=told)), whole)
    assert told[0] == (when + 1) // 2


def test_an_error_in_a_progress_callback_loses_nothing(whole: Any, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.done == 9:
            raise ZeroDivisionError

    saving = Checkpoint(tmp_path, every=1e9)
    with pytest.raises(ZeroDivisionError):
        walk(progress=fail, checkpoint=saving)
    told: list[int] = []
    assert_same(walk(progress=signals(0, [], told=told), checkpoint=saving), whole)
    assert told[0] == 10


def test_handlers_are_left_alone_in_other_threads(whole: Any) -> None:
    seen, found = set(), []

    def look(progress: Progress) -> None:
        seen.add(signal.getsignal(signal.SIGINT))

    def work() -> None:
        with Interruption() as interruption:
            found.append(walk(progress=look))
            assert not interruption.requested

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == {signal.default_int_handler}
    assert_same(found[0], whole)


def test_handlers_of_others_come_back_and_ignored_signals_stay_ignored() -> None:
    heard: list[int] = []
    mine = lambda number, frame: heard.append(number)
    signal.signal(signal.SIGTERM, mine)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script

    def fail() -> None:
        with Interruption() as outer:
            signal.raise_signal(signal.SIGINT)
            assert not outer.requested
            with Interruption() as inner:
                signal.raise_signal(signal.SIGTERM)
                assert inner.requested
            assert outer.requested
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert signal.getsignal(signal.SIGTERM) is mine
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def slope(scale, y=None):
    a = numpyro.sample("a", dist.Normal(0, scale))
    numpyro.sample("y", dist.Normal(a, 1), obs=y)


def draws(**options: Any) -> Result:
    return sample(
        KEY, slope, "mala", model_args=(2.0,), model_kwargs={"y": np.array([1.0, 2.0, 4.0])},
        num_chains=3, num_warmup=12, num_samples=15, thin=2, **{"progress": False, **options},
    )  # fmt: skip


def test_sample_interrupted_in_each_phase_and_resumed(tmp_path: Path) -> None:
    expected = draws()
    with pytest.warns(SamplingWarning, match=r"in the warm-up, after 6 steps: no draws yet; res"):
        early = draws(progress=signals(5, [BOTH[0]], "warm-up"), checkpoint=tmp_path)
    assert (early.outcome, early.posterior["a"].shape) == ("interrupted", (3, 0))
    _check_empty(early, tmp_path)
    with pytest.warns(SamplingWarning, match=r"after 8 steps of sampling; resume\("):
        late = resume(tmp_path, progress=signals(3, [BOTH[1]], "sampling"))
    assert late.outcome == "interrupted"
    np.testing.assert_array_equal(late.posterior["a"], expected.posterior["a"][:, :4])
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, progress=signals(2, BOTH, "sampling"))
    last = resume(tmp_path, progress=False)
    assert last.outcome == "completed"
    for name in ("posterior", "sample_stats", "parameters"):
        jax.tree.map(np.testing.assert_array_equal, getattr(last, name), getattr(expected, name))
    assert last.status == expected.status
    assert last.num_gradients == expected.num_gradients


def _check_empty(result: Result, folder: Path) -> None:
    """A result without draws is written, read and handed on; a table of nothing is an error."""
    again = Result.load(result.save(folder / "empty.nc"))
    assert (again.outcome, again.posterior["a"].shape) == ("interrupted", (3, 0))
    assert dict(result.to_arviz()["posterior"].sizes)["draw"] == 0
    with pytest.raises(ValueError, match="result has no draws"):
        summarize(result)
