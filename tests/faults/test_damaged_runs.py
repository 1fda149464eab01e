"""A run continued from a damaged folder has the bits of an undisturbed one, or does not continue.

Of everything that can happen to a file of a run's folder there is a row: flips, cuts, deletion,
another run's file, and forged ones with a right digest (`crafted_runs`).
"""

import contextlib
import shutil
import warnings

import jax
import numpy as np
import pytest
from faults import crafted, crafted_runs
from faults.saved_walk import KEY, ROWS, THIN, Walk, assert_equal, save_every_row, walk

from shoal.inference import checkpoint
from shoal.inference._journal import CheckpointWarning, _join
from shoal.inference.checkpoint import DamagedCheckpoint, ForeignCheckpoint

pytestmark = pytest.mark.quick_compiler

REFUSED = (DamagedCheckpoint, ForeignCheckpoint)
NEWEST, OLDER = f"state-{ROWS:06d}.ckpt", f"state-{ROWS - 1:06d}.ckpt"
DRAWS = [f"draws-{i:06d}.ckpt" for i in range(1, ROWS + 1)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Runs that were saved after every row, by name, and what the first of them gave."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as monkeypatch:
        save_every_row(monkeypatch)
        finished = walk(folder / "run")
        walk(folder / "another key", key=jax.random.key(4))
        walk(folder / "another start", start=1.0)
        walk(folder / "another length", rows=ROWS + 1)
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        *DRAWS,
        "lock",
        OLDER,
        NEWEST,
    ]
    return folder, finished


@pytest.fixture
def folder(tmp_path, saved):
    shutil.copytree(saved[0] / "run", tmp_path / "run")
    return tmp_path / "run"


def continued(folder, **changes):
    """Continue a run; return it with what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finished = walk(folder, **changes)
    assert {warning.category for warning in caught} <= {CheckpointWarning}
    return finished, "".join(str(warning.message) for warning in caught)


def test_an_undamaged_folder_is_continued_without_a_word(folder, saved):
    finished, said = continued(folder)
    assert_equal(finished, saved[1])
    assert_equal(finished, walk())
    assert said == ""


def damages(saved):
    """Return functions of a path, by name: what can happen to a file."""

    def edit(change):
        return lambda path: path.write_bytes(change(path.read_bytes()))

    def flip(part):
        def change(content):
            changed = bytearray(content)
            changed[int(part * (len(content) - 1))] ^= 0x10
            return bytes(changed)

        return edit(change)

    yield from {f"flip at {part}": flip(part) for part in (0, 0.02, 0.3, 0.9, 1)}.items()
    yield from {
        f"cut to {part}": edit(lambda content, part=part: content[: int(part * len(content))])
        for part in (0, 0.1, 0.5, 0.95)
    }.items()
    yield "longer by a byte", edit(lambda content: content + b"\0")
    yield "zeros", edit(lambda content: bytes(len(content)))
    yield "deleted", lambda path: path.unlink()
    for other in ("another key", "another start"):
        yield (
            f"of {other}",
            lambda path, other=other: shutil.copy(saved[0] / other / path.name, path),
        )


@pytest.mark.parametrize("name", [NEWEST, OLDER, DRAWS[0], DRAWS[2], DRAWS[-2], DRAWS[-1], "lock"])
def test_whatever_happens_to_a_file_the_result_is_right_or_none(saved, tmp_path, name):
    for damage, do in damages(saved):
        folder = tmp_path / damage
        shutil.copytree(saved[0] / "run", folder)
        do(folder / name)
        first_draws = (folder / DRAWS[0]).stat().st_ino if name != DRAWS[0] else None
        # Both states need all draws but the last.
        if name in DRAWS[:-1]:
            with contextlib.suppress(CheckpointWarning), pytest.raises(REFUSED) as caught:
                continued(folder)
            assert name in str(caught.value), damage
            continue
        finished, said = continued(folder)
        assert_equal(finished, saved[1])
        # Nothing tells of a newest state that is gone; the one before serves.
        has_noticed = name in (NEWEST, DRAWS[-1]) and (name, damage) != (NEWEST, "deleted")
        assert (str(folder) in said) == has_noticed, damage
        assert (folder / DRAWS[0]).stat().st_ino == first_draws, "started from nothing"
        assert_equal(continued(folder)[0], saved[1])


def test_files_of_the_run_in_the_wrong_place_are_seen(folder, saved):
    shutil.copy(folder / OLDER, folder / NEWEST)
    assert_equal(continued(folder)[0], saved[1])
    shutil.copy(folder / DRAWS[1], folder / DRAWS[2])
    with pytest.raises(DamagedCheckpoint, match=f"{DRAWS[2]}: is whole, but not the file"):
        continued(folder)


def test_draws_without_a_state_are_not_started_over(folder):
    for name in (NEWEST, OLDER):
        (folder / name).unlink()
    with pytest.raises(DamagedCheckpoint, match="has draws, but no state"):
        continued(folder)


@pytest.mark.parametrize("damage", ["flip at 0.3", "cut to 0", "zeros"])
def test_without_a_whole_state_the_run_says_so(folder, saved, damage):
    for name in (NEWEST, OLDER):
        dict(damages(saved))[damage](folder / name)
    with pytest.raises(DamagedCheckpoint, match=f"{NEWEST}.*delete the folder to start anew"):
        continued(folder)


def only_keep_the_norm(position, info):
    return {"norm": position[:, 0]}


def keep_nothing(position, info):
    return None


RBG = jax.random.wrap_key_data(np.zeros(4, np.uint32), impl="rbg")
OTHERS = {
    "key": ({"key": jax.random.key(4)}, "the key"),
    "generator": ({"key": RBG}, "the key"),
    "parameter": ({"scale": 0.5001}, "the parameters"),
    "thin": ({"thin": 1}, "thin=2"),
    "first step": ({"first_step": 1}, "first_step=0"),
    "fewer rows": ({"rows": ROWS - 1}, f"holds {ROWS} rows"),
    "nothing kept": ({"keep": keep_nothing}, r"unknown leaves \['at'\], \['norm'\]"),
    "less kept": ({"keep": only_keep_the_norm}, r"unknown leaves \['at'\]"),
    "nothing counted": ({"tally": keep_nothing}, "unknown leaves"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(folder, name):
    changes, message = OTHERS[name]
    with pytest.raises(ForeignCheckpoint, match=message):
        continued(folder, **changes)


def test_rows_that_were_not_kept_are_not_zeros(tmp_path):
    walk(tmp_path, keep=keep_nothing)
    with pytest.raises(ForeignCheckpoint, match="kept 0 of 6 rows"):
        continued(tmp_path)


def test_a_run_becomes_longer_but_the_files_of_a_longer_one_do_not_fit(saved, folder):
    longer, _ = continued(folder, rows=ROWS + 1)
    assert_equal(longer, walk(rows=ROWS + 1))
    with pytest.raises(ForeignCheckpoint, match=f"holds {ROWS + 1} rows"):
        continued(folder)


def rewrite(path, change):
    """Change the JSON object in a file, whose digest stays right; return the new digest."""
    header, payload = crafted.unpack(path.read_bytes())
    path.write_bytes(crafted.pack({**header, "meta": change(header["meta"])}, payload))
    return checkpoint.read(path).digest


@pytest.mark.parametrize("entry", crafted_runs.STATE, ids=".".join)
def test_forged_states_are_refused(folder, saved, entry):
    contents = {name: (folder / name).read_bytes() for name in (NEWEST, OLDER)}
    for value in crafted_runs.STATE[entry]:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            rewrite(folder / name, lambda meta, v=value: crafted_runs.changed(meta, entry, v))
        with pytest.raises(REFUSED) as caught:
            continued(folder)
        assert str(folder) in str(caught.value), value


def test_a_forged_newest_state_gives_way_to_the_older(folder, saved):
    rewrite(folder / NEWEST, lambda meta: {**meta, "segments": -1})
    finished, said = continued(folder)
    assert_equal(finished, saved[1])
    assert f"{NEWEST}: is no file of a run: its segments is missing or wrong" in said


@pytest.mark.parametrize("entry", crafted_runs.DRAWS, ids=".".join)
def test_forged_draws_are_refused(folder, entry):
    (folder / OLDER).unlink()
    content = (folder / DRAWS[-1]).read_bytes()
    for value in crafted_runs.DRAWS[entry]:
        (folder / DRAWS[-1]).write_bytes(content)
        change = lambda meta, value=value: crafted_runs.changed(meta, entry, value)
        digest = rewrite(folder / DRAWS[-1], change)
        rewrite(folder / NEWEST, lambda meta, digest=digest: {**meta, "last": [digest]})
        with pytest.raises(DamagedCheckpoint, match="draws"):
            continued(folder)


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"at": np.zeros((1, 4, 3), np.float32)},
        {"at": np.float32(0), "norm": np.float32(0)},
        {"at": np.zeros((1, 4, 3)), "norm": np.zeros((1, 4))},
        {"at": np.zeros((1, 4, 3), np.float32), "norm": np.zeros((2, 4), np.float32)},
        {"at": np.zeros((2, 4, 3), np.float32), "norm": np.zeros((2, 4), np.float32)},
        {"at": np.zeros((0, 4, 3), np.float32), "norm": np.zeros((0, 4), np.float32)},
        {"at": np.zeros((1, 3, 4), np.float32), "norm": np.zeros((1, 4), np.float32)},
    ],
    ids=lambda tree: str(jax.tree.map(np.shape, tree)),
)  # fmt: skip
def test_forged_rows_of_other_shapes_are_refused(folder, tree):
    meta = checkpoint.read(folder / DRAWS[-1]).meta
    digest = checkpoint.save(folder / DRAWS[-1], tree, meta)
    (folder / OLDER).unlink()
    rewrite(folder / NEWEST, lambda meta: {**meta, "last": [digest]})
    with pytest.raises(REFUSED, match="draws|kept"):
        continued(folder)


WHOLE = {"x": np.arange(14.0).reshape(7, 2), "step": np.int64(3)}


def meta(ranges, *split):
    return {"ranges": ranges, "split": ["['x']", *split]}


def parts_of(ranges):
    """Split `WHOLE` over processes, as each would save it."""
    split = lambda held: np.concatenate([WHOLE["x"][lo:hi] for lo, hi in held])
    return [
        checkpoint.Contents({"['x']": split(held), "['step']": WHOLE["step"]}, {}, meta(held), "")
        for held in ranges
    ]


def joined(parts, folder):
    return _join(parts, WHOLE, 0, folder)


@pytest.mark.parametrize(
    "ranges", [[[[0, 3]], [[3, 7]]], [[[0, 2], [5, 7]], [[2, 5]]], [[[4, 7]], [[0, 1]], [[1, 4]]]]
)
def test_parts_of_several_processes_make_the_whole(tmp_path, ranges):
    jax.tree.map(np.testing.assert_array_equal, joined(parts_of(ranges), tmp_path), WHOLE)


@pytest.mark.parametrize(
    ("ranges", "named"),
    [
        ([[[0, 3]], [[4, 7]]], None),  # one is missing
        ([[[0, 4]], [[3, 7]]], None),  # one is there twice
        ([[[0, 3]], [[3, 7]]], [[0, 2**60]]),  # more than there are
        ([[[0, 3]], [[3, 7]]], [[3, 6]]),
        ([[[0, 3]], [[3, 7]]], [[4, 8]]),
        ([[[0, 3]], [[3, 7]]], []),
    ],
)
def test_parts_that_make_no_whole_are_refused(tmp_path, ranges, named):
    parts = parts_of(ranges)
    if named is not None:
        parts[1] = parts[1]._replace(meta=meta(named))
    with pytest.raises(ForeignCheckpoint, match="do not make up a whole"):
        joined(parts, tmp_path)


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.zeros(()), np.zeros((4, 2), int), None])
def test_parts_of_unlike_shapes_are_refused(tmp_path, x):
    parts = parts_of([[[0, 3]], [[3, 7]]])
    arrays = {"['step']": WHOLE["step"]} if x is None else {**parts[1].arrays, "['x']": x}
    with pytest.raises(ForeignCheckpoint, match="do not make up a whole"):
        joined([parts[0], parts[1]._replace(arrays=arrays)], tmp_path)


@pytest.mark.parametrize("name", ["['step']", "['y']", ""])
def test_parts_of_what_is_not_split_are_refused(tmp_path, name):
    parts = parts_of([[[0, 3]], [[3, 7]]])
    forged = [part._replace(meta=meta(part.meta["ranges"], name)) for part in parts]
    with pytest.raises(ForeignCheckpoint, match="do not make up a whole"):
        joined(forged, tmp_path)


def test_what_the_tests_continue_is_what_they_think(saved):
    """The walk moves, so that a wrong row cannot be a right one."""
    kept = saved[1].kept["at"]
    assert kept.shape == (ROWS, 4, 3)
    assert len(np.unique(np.asarray(kept))) == kept.size
    assert saved[1].num_steps == ROWS * THIN
    assert isinstance(Walk(0.5).step(KEY, kept[0])[0], jax.Array)
