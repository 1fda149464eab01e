"""The command, in a process of its own, interrupted at any moment and resumed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shoal.inference import (
    Result,
    checkpoint as checkpoint_file,
    cli,
    files,
)

BOTH = [signal.SIGINT, signal.SIGTERM]

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
