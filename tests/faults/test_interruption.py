"""Ctrl-C and SIGTERM: what is done survives, and going on gives the bits of an undisturbed run."""

import os
import signal
import subprocess
import sys
import threading
import time
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
    cli,
    files,
    resume,
    sample,
)
from shoal.inference.interruption import Interruption
from shoal.inference.progress import Progress
from shoal.inference.run import run
from shoal.inference.summary import summarize
from shoal.sampling import langevin

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


# The command, in a process of its own ------------------------------------------------------------

MODEL = """
import numpyro
import numpyro.distributions as dist

def model():
    location = numpyro.sample("location", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(location, 1).expand([3]).to_event(1))
"""
# Long enough for every signal to arrive before its end, and far longer than what is compared.
COMMAND = (
    "sample model.py:model --sampler mala --chains 2 --warmup 4000 --samples 200000 --thin 50 "
    "--seed 3 --checkpoint run --save-every 0.2 --quiet"
)
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from shoal.inference.cli import main
print("ready", flush=True)
sys.exit(main())
"""
COMPARED = 400


class Command:
    """``shoal sample`` in a process of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model.py").write_text(MODEL)
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *COMMAND.split()],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def wait_for(self, pattern: str) -> None:
        """Wait until a file is there."""
        while not list(self.folder.glob(pattern)):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end(self, *numbers: signal.Signals) -> tuple[str, float]:
        """Send signals, 50 ms apart; return stderr and the seconds until the end."""
        start = time.perf_counter()
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.05)
        _, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 130, errors
        return errors, time.perf_counter() - start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[np.ndarray]:
    """Return the first draws of the command's run; what runs here later compiles nothing."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "model.py").write_text(MODEL)
    model = files.load_model(f"{folder}/model.py:model")
    command = COMMAND.partition(" --checkpoint")[0].replace("200000", str(COMPARED))
    with pytest.MonkeyPatch.context() as patch:
        # Compiled programs belong to the function, not to the text that it was read from.
        patch.setattr(files, "load_model", lambda place: model)
        assert cli.main([*command.split(), "--quiet", "--out", f"{folder}/run.nc"]) == 0
        yield Result.load(folder / "run.nc").posterior["x"]


def check_resumed(folder: Path, errors: str, expected: np.ndarray) -> None:
    """See that what was written is the beginning, and that what is resumed is the whole."""
    there, num_draws = folder / "run.nc", 0
    if there.exists():
        found = Result.load(there)
        num_draws = found.posterior["x"].shape[1]
        rows = min(num_draws, COMPARED)
        np.testing.assert_array_equal(found.posterior["x"][:, :rows], expected[:, :rows])
        assert found.outcome == "interrupted"
        assert f"interrupted after {num_draws} of 200000 draws of each chain" in errors
    else:
        assert "interrupted" in errors.splitlines()[-1] or "before the first draw" in errors
    if not (folder / "run/run.ckpt").exists():
        assert num_draws == 0
        return
    assert "shoal resume run" in errors
    if num_draws < COMPARED:
        # A second signal writes no draws, however many are in the folder.
        total = max(COMPARED, saved_rows(folder / "run/sampling"))
        command = ["resume", str(folder / "run"), "--samples", str(total), "--quiet"]
        assert cli.main(command) == 0
        found = Result.load(there).posterior["x"]
        assert found.shape[1] == total
        np.testing.assert_array_equal(found[:, :COMPARED], expected)


def saved_rows(folder: Path) -> int:
    """Return how many draws of each chain a folder holds."""
    states = sorted(folder.glob("state-*.ckpt"))
    return checkpoint_file.read(states[-1]).meta["run"]["rows"] if states else 0


def test_the_command_interrupted_at_any_moment(
    undisturbed: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # One after its first save of draws, the other anywhere: in an import, a compiler, the warm-up.
    delay = np.random.default_rng(1).uniform(0.3, 6.0)
    folders = [tmp_path_factory.mktemp("sigint"), tmp_path_factory.mktemp("sigterm")]
    commands = [Command(folder) for folder in folders]
    time.sleep(delay)
    errors = [commands[1].end(signal.SIGTERM)[0]]
    commands[0].wait_for("run/sampling/state-*.ckpt")
    errors.insert(0, commands[0].end(signal.SIGINT)[0])
    for folder, said in zip(folders, errors, strict=True):
        check_resumed(folder, said, undisturbed)
    assert (folders[0] / "run.nc").exists()


def test_two_signals_end_the_command_at_once(tmp_path: Path) -> None:
    command = Command(tmp_path)
    command.wait_for("run/warm-up/state-*.ckpt")
    said, seconds = command.end(signal.SIGINT, signal.SIGTERM)
    assert said.splitlines()[-1] == "shoal sample: interrupted; to continue: shoal resume run"
    assert seconds < 5
    assert not (tmp_path / "run.nc").exists()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
def test_the_command_interrupted_often(seed: int, undisturbed: np.ndarray, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    command = Command(tmp_path)
    time.sleep(rng.uniform(0.3, 15.0))
    numbers = [BOTH[i] for i in rng.integers(2, size=rng.integers(1, 3))]
    check_resumed(tmp_path, command.end(*numbers)[0], undisturbed)
