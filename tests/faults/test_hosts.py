"""Two processes as one run: the draws of one process, and what happens when one of them goes.

Each process has two simulated devices; they are forked as in `test_kills.py`.
"""

import importlib.util
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location(
    "test_kills", Path(__file__).with_name("test_kills.py")
)
kills = importlib.util.module_from_spec(spec)
sys.modules["test_kills"] = kills
spec.loader.exec_module(kills)


class Pair:
    """Two servers of children that work together in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = [kills.Victims(folder), kills.Victims(folder)]

    def start(self, case: str, name: str, options=({}, {}), quick: bool = True) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [
            server.start(case, name, port=port, rank=rank, quick=quick, **options[rank])
            for rank, server in enumerate(self.servers)
        ]

    def wait(self) -> list[int]:
        return [server.wait() for server in self.servers]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def log(self) -> str:
        return self.servers[0].log()

    def result(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / name / "result.npz") as arrays:
            return dict(arrays)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pair = Pair(tmp_path_factory.mktemp("hosts"))
    yield pair
    pair.stop()


@pytest.fixture(scope="module")
def undisturbed(pair):
    """Results by two processes, one run for each case."""
    results = {}

    def result(case, quick=True):
        name = f"{case}-undisturbed" + "-quick" * quick
        if name not in results:
            pair.start(case, name, quick=quick)
            assert pair.wait() == [0, 0], pair.log()
            results[name] = pair.result(name)
        return results[name]

    return result


def test_an_ensemble_over_two_processes_is_that_of_one(pair, undisturbed):
    pair.servers[0].start("small", "alone", quick=True)
    assert pair.servers[0].wait() == 0, pair.log()
    alone, together = pair.result("alone")["position"], undisturbed("small")["position"]
    assert np.abs(together[0] - alone[0]).max() < 1e-6 * np.abs(alone[0]).max()
    assert np.abs(together - alone).max() < 1e-4


def test_chains_over_two_processes_are_those_of_one_bit_for_bit(pair, undisturbed):
    # As users compile them: parts of another length may be rounded in another way.
    pair.servers[0].start("chains", "chains-alone", mesh=True)
    assert pair.servers[0].wait() == 0, pair.log()
    for name, value in pair.result("chains-alone").items():
        np.testing.assert_array_equal(undisturbed("chains", quick=False)[name], value)


def test_a_run_of_two_processes_is_continued_by_one(pair, undisturbed):
    options = {"die_at": ["replace", 8]}
    pair.start("small", "continued", (options, {}))
    assert pair.wait()[0] == -signal.SIGKILL
    pair.servers[0].start("small", "continued", quick=True)
    assert pair.servers[0].wait() == 0, pair.log()
    found = pair.result("continued")["position"]
    assert np.abs(found - undisturbed("small")["position"]).max() < 1e-4


def test_a_stuck_process_ends_the_run_with_a_message(pair):
    options = {"patience": 3.0}
    both = options, {**options, "hang_at": ["fsync", 4]}
    # Compiled by the test above.
    pids = pair.start("chains", "stuck", both, quick=False)
    start = time.monotonic()
    assert pair.servers[0].wait() == 1
    assert time.monotonic() - start < 30
    os.kill(pids[1], signal.SIGKILL)
    pair.servers[1].wait()
    assert "waited 3 s for its peers" in pair.log()
    pair.start("chains", "stuck", quick=False)
    assert pair.wait() == [0, 0], pair.log()


def kill_pairs(pair, undisturbed, case, wanted, seed, quick):
    """Kill one of the two at random moments until that has happened often enough."""
    rng, done, attempt = random.Random(seed), 0, 0
    while done < wanted:
        name = f"{case}-killed-{attempt}"
        statuses = None
        while statuses != [0, 0]:
            pids = pair.start(case, name, quick=quick)
            victim = rng.choice(pids)
            timer = threading.Timer(rng.uniform(1.0, 8.0), kills.kill, (victim,))
            if done < wanted:
                timer.start()
            start = time.monotonic()
            statuses = pair.wait()
            timer.cancel()
            # The one that is left notices, and does not hang.
            assert time.monotonic() - start < 90
            done += -signal.SIGKILL in statuses
        for key, value in pair.result(name).items():
            np.testing.assert_array_equal(value, undisturbed(case, quick)[key])
        attempt += 1


def test_one_of_two_processes_is_killed_and_nothing_is_lost(pair, undisturbed):
    kill_pairs(pair, undisturbed, "small", wanted=1, seed=1, quick=True)


@pytest.mark.soak
@pytest.mark.parametrize("case", ["adjusted", "small"])
def test_one_of_two_processes_is_killed_time_and_again(pair, undisturbed, case):
    kill_pairs(pair, undisturbed, case, wanted=8, seed=2, quick=False)


@pytest.mark.soak
@pytest.mark.parametrize("case", ["small", "chains"])
def test_a_stuck_process_ends_the_run_within_thirty_seconds(pair, case):
    name = f"stuck-long-{case}"
    pids = pair.start(case, name, ({}, {"hang_at": ["fsync", 6]}))
    while not (pair.folder / name / "reached").exists():
        time.sleep(0.05)
    start = time.monotonic()
    assert pair.servers[0].wait() != 0
    assert time.monotonic() - start < 30
    os.kill(pids[1], signal.SIGKILL)
    pair.servers[1].wait()
