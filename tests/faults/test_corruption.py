"""Damaged and forged files end in one of two errors, and run nothing.

The forgeries have a right digest; they are in `crafted` and `crafted_runs`. What becomes of a whole
folder with damaged files is in `test_damaged_runs`.
"""

import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import crafted, crafted_runs

from shoal.inference import _recipe, checkpoint, hosts, resume
from shoal.inference._draw import Options, Plan
from shoal.inference.checkpoint import DamagedCheckpoint, ForeignCheckpoint
from shoal.inference.target import Target
from shoal.models.posteriors import schools
from shoal.sampling import langevin

pytestmark = pytest.mark.quick_compiler

REFUSED = (DamagedCheckpoint, ForeignCheckpoint)
MIB = 2**20


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two small files, every bit of which can be tried, and two of 100 kB."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name, size in [("small", 4), ("small too", 4), ("large", 25_000), ("large too", 25_000)]:
        tree = {"x": rng.normal(size=size).astype(np.float32), "key": jax.random.key(size)}
        checkpoint.save(folder / name, tree, {"step": int(rng.integers(100))})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_refused(path, contents):
    """Raise unless every one of some contents is refused, each naming the file."""
    count = 0
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint) as caught:
            checkpoint.read(path)
        assert str(path) in str(caught.value)
        count += 1
    return count


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_seen(tmp_path, files):
    small, large = files["small"], files["large"]
    everywhere = (flipped(small, bit) for bit in range(8 * len(small)))
    assert assert_refused(tmp_path / "f", everywhere) > 1000
    bits = np.random.default_rng(1).integers(8 * len(large), size=1000)
    assert assert_refused(tmp_path / "f", (flipped(large, int(bit)) for bit in bits)) == 1000


def test_every_cut_and_every_addition_is_seen(tmp_path, files):
    small, large = files["small"], files["large"]
    assert assert_refused(tmp_path / "f", (small[:n] for n in range(len(small)))) > 200
    lengths = np.random.default_rng(2).integers(len(large), size=500)
    assert assert_refused(tmp_path / "f", (large[:n] for n in lengths)) == 500
    junk = [b"\0", b"\n", bytes(32), bytes(MIB), small, b"junk"]
    assert_refused(tmp_path / "f", (small + more for more in junk))
    assert_refused(tmp_path / "f", (more + small for more in junk if more != small))


def test_every_splice_of_two_files_is_seen(tmp_path, files):
    rng = np.random.default_rng(3)
    pairs = [("small", "small too"), ("large", "large too"), ("large", "small")]

    def spliced(first, second):
        a, b = files[first], files[second]
        while True:
            start, end = rng.integers(1, len(a)), rng.integers(1, len(b))
            content = a[:start] + b[end:]
            if content not in (a, b):
                return content

    contents = (spliced(*pairs[i % 3]) for i in range(200))
    assert assert_refused(tmp_path / "f", contents) == 200
    # At the same place, as by a disk that lost half of a write.
    a, b = files["large"], files["large too"]
    same = (a[:n] + b[n:] for n in range(512, len(a) - 512, 4096))
    assert assert_refused(tmp_path / "f", same) > 20


def test_no_change_of_a_header_under_a_right_digest_is_a_crash(tmp_path):
    """Some changes leave a file of sense, such as another name of a leaf; none is an accident."""
    rng = np.random.default_rng(4)
    header = json.dumps(crafted.unpack(crafted.good())[0]).encode()
    ends = {"whole": 0, "refused": 0}
    for _ in range(2000):
        text = bytearray(header)
        for place in rng.integers(len(text), size=rng.integers(1, 4)):
            text[place] = rng.choice([rng.integers(256), *b'0123456789-.e"[]{}:,'])
        (tmp_path / "f").write_bytes(crafted.pack(bytes(text)))
        try:
            checkpoint.load(tmp_path / "f", crafted.LIKE)
            ends["whole"] += 1
        except REFUSED:
            ends["refused"] += 1
    assert ends["refused"] > 1900, ends


def density(x):
    return -0.5 * jnp.sum(x**2)


OPTIONS = Options(4, 0, 10, 1, "diagonal", None)
PLAN = Plan(
    jax.random.key(0),
    Target.from_log_density(density),
    langevin.ula(0.1),
    jnp.ones((4, 2)),
    OPTIONS,
)


def write_recipe(folder, allow=False, **changes):
    """Note the arguments of a run of `sample` in its folder, or compare them to what is there."""
    folder.mkdir(exist_ok=True)
    _recipe.write(folder, PLAN._replace(**changes), _recipe.Model(density), allow)
    return folder / _recipe.NAME


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Header and payload of a file with the arguments of `sample`."""
    path = write_recipe(tmp_path_factory.mktemp("recipe") / "run")
    return crafted.unpack(path.read_bytes())


def forge(recipe, path, value):
    header, payload = recipe
    meta = crafted_runs.changed(header["meta"], path, value)
    return crafted.pack({**header, "meta": meta}, payload)


@pytest.fixture(scope="module")
def seen(tmp_path_factory, recipe):
    """What `watched` tells of every forged file, by its name."""
    folder = tmp_path_factory.mktemp("watched")
    for name in ("files", "runs", "warm-up"):
        (folder / name).mkdir()
    files = {**crafted.headers(), "whole": crafted.good()}
    large = np.zeros(4 * MIB, np.float32)
    checkpoint.save(folder / "files" / "large", large)
    files["large, flipped"] = flipped((folder / "files" / "large").read_bytes(), 10**8)
    runs = {
        name: forge(recipe, *change) for name, *change in crafted_runs.cases(crafted_runs.RECIPE)
    }
    names = dict(enumerate([*files, *runs]))
    for i, name in names.items():
        if name in files:
            (folder / "files" / str(i)).write_bytes(files[name])
            continue
        (folder / "runs" / str(i)).mkdir()
        (folder / "runs" / str(i) / _recipe.NAME).write_bytes(runs[name])
    for name in ("whole", "shape one less", "header deep lists", "generator 'fry' of words"):
        (folder / "warm-up" / name.replace("'", "")).write_bytes(files[name])
    for i, value in enumerate([{"value": 1}, ["nowhere", "f"]]):
        (folder / "warm-up" / f"run{i}").mkdir()
        content = forge(recipe, ("model",) if i else ("positions",), value)
        (folder / "warm-up" / f"run{i}" / _recipe.NAME).write_bytes(content)
    script = Path(__file__).with_name("watched.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=True
    )
    *lines, grown = map(json.loads, done.stdout.splitlines())
    told = {names[int(name)] if name.isdigit() else name: rest for name, *rest in lines}
    assert len(told) == len(files) + len(runs) + 1
    return told, runs.keys(), grown


def test_forged_files_are_refused(seen):
    told, runs, _ = seen
    files = {name: line[0] for name, line in told.items() if name not in runs}
    assert files.pop("whole") == "loaded"
    assert len(files) > 200
    names = [error.__name__ for error in REFUSED]
    assert {name: end for name, end in files.items() if end not in names} == {}


def test_forged_arguments_of_sample_are_refused(seen):
    told, runs, _ = seen
    # A model that is not to be found may be given.
    names = ["DamagedCheckpoint", "ForeignCheckpoint", "ValueError"]
    assert len(runs) > 150
    assert {name: told[name][0] for name in runs if told[name][0] not in names} == {}
    assert {told[name][0] for name in runs if not name.startswith("model")} == {names[0]}


def test_reading_runs_nothing_and_imports_nothing(seen):
    told, _, _ = seen
    assert {name: line[1] for name, line in told.items() if line[1]} == {}


def test_reading_takes_no_more_memory_than_twice_the_file(seen):
    told, _, grown = seen
    hostile = ("header many lists", "header many words")
    room = lambda name: (32 if name in hostile else 2) * MIB
    excess = {name: line[2] for name, line in told.items() if line[2] > 2 * line[3] + room(name)}
    assert excess == {}
    assert grown < 128 * MIB


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "['key']", "generator": "rbg"},
        {"path": "['key']", "generator": "nonsense"},
        {"path": "['key']", "generator": None},
        {"path": "['key']", "shape": [1, 2]},
        {"path": "['key']", "path ": "['key']", "dtype": "int32"},
        {"path": "['probe']", "path ": "probe"},
        {"path": "['arrays'][0]", "dtype": "int32"},
        {"path": "['arrays'][0]", "shape": [2, 4]},
        {"path": "['arrays'][0]", "shape": [4, 1, 2]},
    ],
    ids=str,
)
def test_forged_arrays_of_the_arguments_of_sample_are_refused(tmp_path, recipe, entry):
    header, payload = recipe
    records = [dict(record) for record in header["leaves"]]
    (record,) = (record for record in records if record["path"] == entry["path"])
    record.update(entry)
    if "path " in record:
        record["path"] = record.pop("path ")
    if record.get("generator", "") is None:
        del record["generator"]
    (tmp_path / _recipe.NAME).write_bytes(crafted.pack({**header, "leaves": records}, payload))
    with pytest.raises(REFUSED, match=_recipe.NAME):
        resume(tmp_path, lambda x: -0.5 * x @ jnp.eye(2) @ x, progress=False)


def test_the_forgeries_are_of_a_file_that_is_read(tmp_path):
    write_recipe(tmp_path / "run")
    plan, model = _recipe.read(tmp_path / "run", density, None, None, None, None)
    assert plan.options.num_samples == 10
    np.testing.assert_array_equal(plan.positions, np.ones((4, 2)))
    assert model.function is density


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": OPTIONS._replace(num_chains=5)}, "num_chains=4, not 5"),
        ({"options": OPTIONS._replace(thin=2)}, "thin=1, not 2"),
        ({"options": OPTIONS._replace(target_acceptance=0.5)}, "target_acceptance=None"),
        ({"key": jax.random.key(1)}, "another key"),
        ({"positions": PLAN.positions.at[3, 1].set(2.0)}, "started elsewhere"),
        ({"positions": PLAN.positions.at[0].set(2.0)}, "log densities"),
        ({"target": Target.from_log_density(lambda x: density(x) + x[0])}, "log densities"),
    ],
    ids=[
        "chains", "thin", "acceptance", "key", "start of a later chain", "start", "target"
    ],
)  # fmt: skip
def test_other_arguments_of_sample_are_refused(tmp_path, changes, message):
    write_recipe(tmp_path)
    with pytest.raises(ForeignCheckpoint, match=message):
        write_recipe(tmp_path, **changes)
    # Target and starts may be let pass; nothing else.
    if {"positions", "target"} & changes.keys():
        write_recipe(tmp_path, allow=True, **changes)
    else:
        with pytest.raises(ForeignCheckpoint, match=message):
            write_recipe(tmp_path, allow=True, **changes)


def test_another_generator_with_the_same_bits_is_another_key(tmp_path):
    bits = np.arange(4, dtype=np.uint32)
    keys = [jax.random.wrap_key_data(bits, impl=impl) for impl in ("rbg", "unsafe_rbg")]
    write_recipe(tmp_path, key=keys[0])
    with pytest.raises(ForeignCheckpoint, match="another key"):
        write_recipe(tmp_path, key=keys[1])


def test_numbers_of_numpy_are_options_like_any(tmp_path):
    numpys = OPTIONS._replace(
        num_chains=np.int64(4), num_samples=np.int32(12), target_acceptance=np.float32(0.7)
    )
    write_recipe(tmp_path, options=numpys)
    write_recipe(tmp_path, options=numpys)
    write_recipe(tmp_path, options=numpys._replace(num_samples=np.int64(15)))
    plan, _ = _recipe.read(tmp_path, density, None, None, None, None)
    assert plan.options == numpys._replace(num_samples=15)


def test_only_plain_functions_of_imported_modules_are_found_by_name(monkeypatch):
    assert _recipe._name_of(density) == [__name__, "density"]
    imported = sys.modules[__name__]
    monkeypatch.setattr(imported, "__getattr__", lambda name: density, raising=False)
    assert _recipe._look_up(__name__, "density") is density
    assert _recipe._look_up(__name__, "unknown") is None
    monkeypatch.setattr(imported, "system", __import__("os").system, raising=False)
    assert _recipe._look_up(__name__, "system") is None
    # Libraries are full of functions that do things.
    assert isinstance(np.load, types.FunctionType)
    assert isinstance(hosts._end, types.FunctionType)
    assert _recipe._look_up("numpy", "load") is None
    assert _recipe._look_up("shoal.inference.hosts", "_end") is None
    ours = [f for f in vars(schools).values() if isinstance(f, types.FunctionType)]
    ours = [f for f in ours if f.__module__ == schools.__name__]
    assert ours
    assert all(_recipe._look_up(*_recipe._name_of(f)) is f for f in ours)


def test_arguments_nested_without_end_are_refused(tmp_path):
    contents = checkpoint.read(write_recipe(tmp_path))
    tree = {"value": 1}
    for _ in range(100_000):
        tree = {"list": [tree]}
    deep = contents._replace(meta={**contents.meta, "arguments": tree})
    with pytest.raises(DamagedCheckpoint, match="RecursionError"):
        _recipe._stored(deep, tmp_path)
