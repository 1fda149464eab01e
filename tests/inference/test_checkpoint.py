"""Checkpoint files: what goes in comes out, bit for bit, or an error names the leaf."""

import errno
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shoal.inference import checkpoint
from shoal.inference.checkpoint import DamagedCheckpoint, ForeignCheckpoint

RNG = np.random.default_rng(0)
NAMES = sorted(checkpoint._DTYPES)
SHAPES = [(), (0,), (3, 0, 2), (1,), (2, 3), (1,) * 32]


def random_bits(dtype, shape):
    """Any bits at all: among the floats there are NaNs, infinities and subnormal numbers."""
    dtype = jnp.dtype(dtype)
    if dtype.kind == "b":
        return RNG.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(RNG.bytes(size), dtype).reshape(shape)


def assert_same_bits(found, expected):
    assert type(found) is np.ndarray
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path):
    tree = {f"{name}{i}": random_bits(name, s) for name in NAMES for i, s in enumerate(SHAPES)}
    assert len(NAMES) == 15
    digest = checkpoint.save(tmp_path / "all", tree, {"π": [1, None, 0.1, {"a": "b"}]})
    found, meta = checkpoint.load(tmp_path / "all", tree)
    jax.tree.map(assert_same_bits, found, tree)
    assert meta == {"π": [1, None, 0.1, {"a": "b"}]}
    assert checkpoint.read(tmp_path / "all").digest == digest


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_typed_keys_come_back_with_their_generator(tmp_path, impl, shape):
    words = 2 if impl == "threefry2x32" else 4
    keys = jax.random.wrap_key_data(random_bits("uint32", (*shape, words)), impl=impl)
    checkpoint.save(tmp_path / "keys", keys)
    found, _ = checkpoint.load(tmp_path / "keys", jax.eval_shape(lambda: keys))
    assert (found.dtype, found.shape) == (keys.dtype, keys.shape)
    np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(keys))


def test_arrays_of_jax_numbers_and_64_bits_come_back_without_x64(tmp_path):
    tree = {
        "jax": (jnp.arange(3.0), jnp.asarray(1.5, jnp.bfloat16), jnp.zeros((0, 2), bool)),
        "numpy": [np.float64(1 / 3), np.arange(3) + 2**62],
        "python": {"float": 0.1, "int": -(2**63), "bool": True, "complex": 1j},
        "nothing": None,
    }
    checkpoint.save(tmp_path / "mixed", tree)
    found, _ = checkpoint.load(tmp_path / "mixed", tree)
    jax.tree.map(assert_same_bits, found, jax.tree.map(np.asarray, tree))
    assert found["python"]["float"].dtype == np.float64


def test_any_memory_layout_is_stored_as_the_same_bytes(tmp_path):
    plain = np.arange(24, dtype=np.float32).reshape(4, 6)
    swapped = plain.astype(">f4")
    assert swapped.tobytes() != plain.tobytes()
    layouts = [plain, np.asfortranarray(plain), plain[::-1][::-1], swapped, jnp.asarray(plain)]
    digests = {checkpoint.save(tmp_path / "layout", {"x": x}, {"n": 1}) for x in layouts}
    assert len(digests) == 1
    for like in layouts:
        found, _ = checkpoint.load(tmp_path / "layout", {"x": like})
        assert_same_bits(found["x"], plain)


def test_equal_content_gives_equal_bytes_and_other_content_other_digests(tmp_path):
    tree = {"b": np.arange(3.0), "a": jax.random.key(0)}
    names = [tmp_path / name for name in "12"]
    digests = [checkpoint.save(name, tree, {"step": 1}) for name in names]
    assert names[0].read_bytes() == names[1].read_bytes()
    others = [
        checkpoint.save(tmp_path / "3", tree, {"step": 2}),
        checkpoint.save(tmp_path / "3", {**tree, "b": np.arange(3.0)[::-1]}, {"step": 1}),
        checkpoint.save(tmp_path / "3", {"c": tree["b"], "a": tree["a"]}, {"step": 1}),
    ]
    assert len({*digests, *others}) == 4


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": np.zeros(3, np.float32)}, "missing leaves none, unknown leaves ['key']"),
        (
            {"x": np.zeros(3, np.float32), "key": jax.random.key(0), "y": 0.0, "z": 0.0},
            "missing leaves ['y'], ['z'], unknown leaves none",
        ),
        ({"x": np.zeros(4, np.float32), "key": jax.random.key(0)}, "['x'] is float32[3]"),
        ({"x": np.zeros(3, np.float64), "key": jax.random.key(0)}, "wanted float64[3]"),
        ({"x": np.zeros(3, np.int32), "key": jax.random.key(0)}, "wanted int32[3]"),
        ({"x": np.zeros(3, np.float32), "key": jax.random.key(0, impl="rbg")}, "['key'] is key<"),
        ({"x": np.zeros(3, np.float32), "key": np.zeros(2, np.uint32)}, "wanted uint32[2]"),
        ({"x": jax.random.split(jax.random.key(0), 3), "key": jax.random.key(0)}, "['x'] is float"),
        ([np.zeros(3, np.float32), jax.random.key(0)], "missing leaves [0], [1]"),
    ],
)
def test_another_tree_is_refused_naming_file_and_leaf(tmp_path, like, message):
    checkpoint.save(tmp_path / "x.ckpt", {"x": np.zeros(3, np.float32), "key": jax.random.key(0)})
    with pytest.raises(ForeignCheckpoint, match=re.escape(message)) as caught:
        checkpoint.load(tmp_path / "x.ckpt", like)
    assert str(tmp_path / "x.ckpt") in str(caught.value)


class Twin:
    """A node of a pytree whose two leaves go by one name."""


jax.tree_util.register_pytree_with_keys(
    Twin,
    lambda _: ([(jax.tree_util.DictKey("x"), 1.0), (jax.tree_util.DictKey("x"), 2.0)], None),
    lambda *_: Twin(),
)


@pytest.mark.parametrize(
    ("tree", "meta", "error", "message"),
    [
        ({"a": 1.0, "b": np.array([None])}, {}, TypeError, "['b'] has dtype object"),
        ({"a": 1.0, "b": [object()]}, {}, TypeError, "['b'][0] has dtype object"),
        ({"n": 2**64}, {}, TypeError, "['n'] has dtype object"),
        ({"word": "x"}, {}, TypeError, "['word'] has dtype <U1"),
        ({"t": np.zeros(2, "M8[s]")}, {}, TypeError, "['t'] has dtype datetime64"),
        ({"r": np.zeros(2, [("x", "f4")])}, {}, TypeError, "['r'] has dtype [("),
        ({"q": jnp.zeros(2, jnp.int4)}, {}, TypeError, "['q'] has dtype int4"),
        (np.zeros(2), {"set": {1}}, TypeError, "set"),
        (np.zeros(2), {"long": "x" * 2**20}, ValueError, "put numbers into arrays"),
        (Twin(), {}, ValueError, "same path"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, tree, meta, error, message
):
    with pytest.raises(error, match=re.escape(message)):
        checkpoint.save(tmp_path / "file", tree, meta)
    assert os.listdir(tmp_path) == []


def test_no_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none", 1.0)


@pytest.mark.parametrize("content", [b"", b"SHOAL1", b"\x93NUMPY\x01" + bytes(100), bytes(46)])
def test_other_files_are_no_checkpoints(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="other: is no checkpoint"):
        checkpoint.read(tmp_path / "other")


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_exception_while_saving_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, moment, error
):
    path = tmp_path / "state"
    checkpoint.save(path, np.zeros(1000))
    old = path.read_bytes()

    def fail(*_):
        raise error

    if moment == "write":
        # Within the bytes of the arrays, after the header has been written.
        monkeypatch.setattr(checkpoint.np, "ascontiguousarray", fail)
    else:
        monkeypatch.setattr(os, moment, fail)
    with pytest.raises(type(error)) as caught:
        checkpoint.save(path, np.ones(1000))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert path.read_bytes() == old
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


def test_a_file_that_shrinks_while_it_is_read_is_damaged(tmp_path, monkeypatch):
    path = tmp_path / "state"
    checkpoint.save(path, np.ones(100_000))
    verify = checkpoint._verify

    def verify_and_cut(file, size, path):
        digest = verify(file, size, path)
        os.truncate(path, size // 2)
        return digest

    monkeypatch.setattr(checkpoint, "_verify", verify_and_cut)
    with pytest.raises(DamagedCheckpoint, match="ended while it was read"):
        checkpoint.read(path)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "none" / "x", tmp_path / "file" / "x"):
        with pytest.raises(OSError, match=re.escape(str(target))):
            checkpoint.save(target, 1.0)


def test_leftovers_of_killed_writers_are_swept_up(tmp_path):
    checkpoint.save(tmp_path / "state", 1.0)
    (tmp_path / ".state.123.tmp").write_bytes(b"half")
    checkpoint.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["state"]
