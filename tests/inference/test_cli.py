"""The command: fast help, complaints in one line, and the way from a file to a picture."""

import functools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from shoal.inference import Result, _work, cache, cli, files, sample
from shoal.inference._lock import Lock
from shoal.inference.files import (
    FileError,
    Order,
    check_arguments,
    load_data,
    read_order,
    write_order,
)
from shoal.inference.samplers import NAMES

# Bits of interrupted commands, as users compile them: test_interrupted_command.py.
pytestmark = pytest.mark.quick_compiler
MODEL = """
import numpyro
import numpyro.distributions as dist
from neighbour import SCALE

LIST = [1, 2]

def model(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, SCALE))
    numpyro.deterministic("double", 2 * slope)
    numpyro.sample("obs", dist.Normal(slope * x, 1), obs=y)

def broken(x):
    return nonsense(x)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a model, data and things that are neither."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "neighbour.py").write_text("SCALE = 10.0\n")
    (tmp_path / "fails.py").write_text("import numpy\n1 / 0\n")
    (tmp_path / "model.txt").write_text(MODEL)
    (tmp_path / "data.csv").write_text("x, y\n1,2.5\n2,3.5\n\n3,7.0\n")
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    (tmp_path / "words.csv").write_text("x\n1\nhigh\n")
    (tmp_path / "short.csv").write_text("x,y\n1,2\n3\n")
    (tmp_path / "empty.csv").write_text("x,y\n")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "uneven.json").write_text('{"x": [[1], [2, 3]]}')
    (tmp_path / "not.json").write_text("{x")
    (tmp_path / "not.npz").write_text("no zip")
    np.savez(tmp_path / "words.npz", x=np.array(["a"]))
    for name in ("empty", "python", "begun", "moved", "spoilt", "foreign"):
        (tmp_path / name).mkdir()
    for name in ("python", "moved", "spoilt", "foreign"):
        (tmp_path / name / "run.ckpt").write_bytes(b"SHOAL1")
    write_order(tmp_path / "begun", Order("model.py:model", None, Path("run.nc")))
    write_order(tmp_path / "moved", Order("no/model.py:model", None, Path("run.nc")))
    (tmp_path / "spoilt" / "command.json").write_text('{"format": 1, "model": {"relative": 3}}')
    write_order(tmp_path / "foreign", Order("model.py:model", None, Path("run.nc")))
    return tmp_path


@pytest.mark.parametrize("command", [[], ["sample"], ["resume"], ["demo"], ["summary"], ["plot"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    program = f"""
import sys
from shoal.inference.cli import main
try:
    main({[*command, "--help"]!r})
except SystemExit as end:
    assert end.code == 0
print("loaded:", *{{"jax", "numpy", "arviz", "matplotlib", "numpyro"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[0].startswith(f"usage: {' '.join(['shoal', *command])}")
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


def test_the_package_can_be_run() -> None:
    command = [sys.executable, "-m", "shoal", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "shoal")


def test_samplers_are_those_of_the_driver() -> None:
    assert cli.SAMPLERS == NAMES


def test_from_a_file_to_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--sampler mala --warmup 200 --samples 250 --chains 3 --seed 7 --thin 2 --quiet"
    assert cli.main(["sample", "model.py:model", "--data", "data.csv", *options.split()]) == 0
    printed = capsys.readouterr().out
    assert "mala: 3 chains of 250 draws, one step in 2 kept" in printed
    saved = Result.load("run.nc")
    assert saved.posterior["slope"].shape == (3, 250)
    np.testing.assert_allclose(saved.posterior["double"], 2 * saved.posterior["slope"], rtol=1e-6)
    wanted = {"sampler": "mala", "thin": 2, "num_warmup": 200}
    assert wanted.items() <= saved.attributes.items()
    assert saved.attributes["key"] == str(jax.random.key_data(jax.random.key(7)).tolist())
    # A conjugate answer: precision sum(x^2) + 1/100. 5.2 Monte Carlo errors at an ESS of 100.
    x, y = np.array([1, 2, 3.0]), np.array([2.5, 3.5, 7.0])
    precision = x @ x + 0.01
    assert saved.posterior["slope"].mean() == pytest.approx(
        x @ y / precision, abs=5.2 * precision**-0.5 / 10
    )

    assert cli.main(["summary", "run.nc", "--var", "slope"]) == 0
    table = capsys.readouterr().out
    assert "slope" in table
    assert "double" not in table
    assert f"{saved.posterior['slope'].mean():.3f}" in table

    for kind in ("overview", "forest", "statistics"):
        assert cli.main(["plot", "run.nc", "--kind", kind, "--out", f"{kind}.png"]) == 0
        assert (folder / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", "run.nc"]) == 0
    assert (folder / "run.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("sample model.py", "'model.py' is not of the form FILE:MODEL"),
        ("sample nope.py:model", "nope.py: there is no such file"),
        ("sample model.txt:model", "model.txt: not a Python file"),
        ("sample fails.py:model", "fails.py: line 2: ZeroDivisionError"),
        ("sample model.py:modl", "defines no modl; its functions are model, broken"),
        ("sample model.py:LIST", "LIST is no function but list"),
        ("sample model.py:model", "takes x, y, but without --data there is nothing (missing: x)"),
        ("sample model.py:broken --data data.csv", "gives x, y (not an argument: y)"),
        ("sample model.py:model --data nope.csv", "nope.csv: there is no such file"),
        ("sample model.py:model --data model.py", "data must be one of .npz, .csv, .json"),
        ("sample model.py:model --data words.csv", "row 3, column x: 'high' is no number"),
        ("sample model.py:model --data short.csv", "row 3 has 1 fields, the header 2"),
        ("sample model.py:model --data empty.csv", "at least one line of numbers"),
        ("sample model.py:model --data list.json", "holds a list, not an object"),
        ("sample model.py:model --data uneven.json", "x is a list of uneven lists"),
        ("sample model.py:model --data not.json", "is not JSON"),
        ("sample model.py:model --data not.npz", "cannot be read as .npz"),
        ("sample model.py:model --data words.npz", "x holds no numbers"),
        ("sample model.py:model --data x.csv --out no/run.nc", "there is no folder no"),
        ("sample model.py:model --data x.csv --save-every 3", "there is no --checkpoint"),
        ("sample model.py:model --data x.csv --checkpoint x.csv", "folder (File exists)"),
        ("resume nope", "nope: there is no such folder"),
        ("resume empty", "empty: holds no run (there is no run.ckpt in it)"),
        ("resume begun", "stopped before it began; give the command shoal sample again"),
        ("resume python", "a run of sample() in Python, not of this command"),
        ("resume moved", "no/model.py: there is no such file"),
        ("resume spoilt", "spoilt/command.json: is missing or damaged"),
        ("resume foreign", "foreign/run.ckpt: is no checkpoint, or is cut short"),
        ("resume foreign --out no/run.nc", "there is no folder no"),
        ("summary nope.nc", "there is no such file"),
        ("summary model.py", "is not a NetCDF file"),
        ("plot good.nc --out no/good.png", "there is no folder no"),
        ("plot good.nc --out good.xyz", "the name must end in one of"),
        ("plot good.nc --var q", "--var q: good.nc holds x"),
        ("demo --out model.py", "cannot make or use this folder"),
    ],
)
def test_wrong_use(
    arguments: str, complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = np.random.default_rng(0).normal(size=(2, 50))
    Result({"x": draws}, {"lp": draws}).save(folder / "good.nc")
    assert cli.main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"shoal {arguments.split()[0]}: ")
    assert complaint in line


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "sampl",
        "sample",
        "sample m.py:m --sampler gibbs",
        "sample m.py:m --chains 0",
        "sample m.py:m --samples many",
        "sample m.py:m --thinning 2",
        "sample m.py:m --save-every -1",
        "sample m.py:m --save-every inf",
        "resume",
        "resume folder --samples 0",
        "plot a.nc --kind pie",
    ],
)
def test_wrong_words(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments.split())
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("shoal")
    assert line.endswith("--help)")


def test_a_run_that_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", "model.py:broken", "--data", "x.csv"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.py, line 14: " in line
    assert "name 'nonsense' is not defined" in line
    with pytest.raises((NameError, ValueError), match="nonsense"):
        cli.main(["sample", "model.py:broken", "--data", "x.csv", "--traceback"])


def test_the_same_data_from_three_kinds_of_files(folder: Path) -> None:
    x, y = np.array([1, 2, 3]), np.array([2.5, 3.5, 7.0])
    np.savez(folder / "data.npz", x=x, y=y, num=np.array(4), rate=0.5)
    content = {"x": x.tolist(), "y": y.tolist(), "num": 4, "rate": 0.5}
    (folder / "data.json").write_text(json.dumps(content))
    for name in ("data.csv", "data.npz", "data.json"):
        data = load_data(folder / name)
        np.testing.assert_array_equal(data["x"], x)
        np.testing.assert_array_equal(data["y"], y)
        assert (data["x"].dtype.kind, data["y"].dtype.kind) == ("i", "f")
        if name != "data.csv":
            # Sizes must stay numbers of Python: a compiled program needs them.
            assert type(data["num"]) is int
            assert type(data["rate"]) is float


def test_a_model_that_takes_anything(folder: Path) -> None:
    check_arguments(lambda **data: None, "m.py:m", {"x": 1, "y": 2}, Path("d.json"))
    with pytest.raises(FileError, match="missing: a"):
        check_arguments(lambda a, **data: None, "m.py:m", {"x": 1}, Path("d.json"))


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of one file share compiled programs, which belong to the function."""
    monkeypatch.setattr(files, "load_model", functools.cache(files.load_model))


def interrupt_at(monkeypatch: pytest.MonkeyPatch, calls: int, times: int = 1) -> None:
    """Send signals as the given chunk begins, with one row in every chunk."""
    original, counted = _work.run_chunk, []

    def run_chunk(*arguments: object) -> object:
        counted.append(1)
        for _ in range(times * (len(counted) == calls)):
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(_work, "run_chunk", run_chunk)


# Without y there is no observation, and nothing to predict and compile for the file.
COMMAND = (
    "sample model.py:model --data x.csv --sampler mala --chains 3 --warmup 20 --samples 30 "
    "--seed 7 --quiet --checkpoint runs/a --save-every 60 --out a.nc"
)


@pytest.mark.usefixtures("compiled_once")
def test_interrupted_and_resumed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = files.load_model("model.py:model"), load_data(folder / "x.csv")
    whole = sample(
        jax.random.key(7), model, "mala", model_kwargs=data, num_chains=3, num_warmup=20,
        num_samples=40, progress=False,
    )  # fmt: skip

    def check(arguments: str, code: int, said: str, draws: int) -> None:
        assert cli.main(arguments.split()) == code
        assert said in "".join(capsys.readouterr())
        if draws:
            found = Result.load("a.nc").posterior["slope"]
            np.testing.assert_array_equal(found, whole.posterior["slope"][:, :draws])
        else:
            assert not (folder / "a.nc").exists()

    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        check(COMMAND, 130, "interrupted before the first draw: a.nc is not written", 0)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 25)  # 15 rows of warm-up, and two calls that compile
        check("resume runs/a --quiet", 130, "after 8 of 30 draws of each chain", 8)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6, times=2)
        check("resume runs/a --quiet", 130, "interrupted; to continue: shoal resume runs/a", 8)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        command = "resume runs/a --quiet --samples 40"
        check(command, 130, "To continue: shoal resume runs/a", 10)
    check("resume runs/a --quiet", 0, "3 chains of 40 draws", 40)
    check("resume runs/a --quiet --out b.nc", 0, "Wrote b.nc", 40)
    assert read_order(folder / "runs/a").out.name == "b.nc"
    check(COMMAND.replace("30", "40"), 0, "Wrote a.nc", 40)


def test_runs_that_cannot_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(arguments: str, complaint: str) -> None:
        capsys.readouterr()
        assert cli.main(arguments.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint in line

    assert cli.main(COMMAND.replace("--warmup 20", "--warmup 0").split()) == 0
    with Lock(folder / "runs/a"):
        check("resume runs/a --quiet", "runs/a is in use by process")
        check(COMMAND, "runs/a is in use by process")
    check(COMMAND, "runs/a holds a run with num_warmup=0, not 20")
    check("resume runs/a --quiet --samples 29", "holds 30 rows already")
    (folder / "neighbour.py").write_text("SCALE = 11.0\n")
    sys.modules.pop("neighbour", None)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    check("resume runs/a --quiet", "runs/a holds a run of another target")
    content = (folder / "runs/a/run.ckpt").read_bytes()
    (folder / "runs/a/run.ckpt").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    check("resume runs/a --quiet", "runs/a/run.ckpt: its SHA-256 does not match")


def test_a_run_is_found_after_a_move(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = folder / "project"
    (project / "runs/a").mkdir(parents=True)
    for name in ("model.py", "data.csv"):
        shutil.copy(folder / name, project / name)
    monkeypatch.chdir(project)
    order = Order("model.py:model", Path("data.csv"), Path("a.nc"))
    write_order(Path("runs/a"), order)
    assert read_order(Path("runs/a")) == order
    # The folder alone is moved: the other files are where they were.
    shutil.move("runs/a", folder / "alone")
    there = Order(f"{project}/model.py:model", project / "data.csv", project / "a.nc")
    assert read_order(folder / "alone")[:2] == there[:2]
    # All is moved together: the other files are found beside it.
    shutil.move(folder / "alone", "runs/a")
    monkeypatch.chdir(folder)
    shutil.move("project", "elsewhere")
    moved = Order("elsewhere/model.py:model", Path("elsewhere/data.csv"), Path("elsewhere/a.nc"))
    assert read_order(Path("elsewhere/runs/a")) == moved


def test_the_compilation_cache_is_a_flag(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot() -> None:
        raise PermissionError(13, "Permission denied", "/home/ada/.cache")

    monkeypatch.setattr(cache, "enable_compilation_cache", cannot)
    assert cli.main(["sample", "model.py:model", "--data", "data.csv", "--cache"]) == 2
    assert "--cache: /home/ada/.cache: Permission denied" in capsys.readouterr().err
