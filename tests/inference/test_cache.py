"""Compiled programs outlive their process; the user's settings stay. In processes of their own."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import shoal

SAMPLE = textwrap.dedent("""
    import collections, json
    import jax, jax.numpy as jnp
    import shoal

    events = collections.Counter()
    jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
    folder = shoal.enable_compilation_cache()
    assert folder == shoal.enable_compilation_cache()
    shoal.sample(
        jax.random.key(0), lambda x: -0.5 * jnp.sum(x**2), "mala", init=jnp.zeros(2), num_chains=2,
        num_warmup=2, num_samples=2, progress=False,
    )
    count = lambda word: events["/jax/compilation_cache/cache_" + word]
    print(json.dumps([str(folder), count("hits"), count("misses")]))
""")

SETTINGS = textwrap.dedent("""
    import json, sys
    import jax
    import shoal

    for name, value in json.loads(sys.argv[1]).items():
        jax.config.update(name, value)
    folder = shoal.enable_compilation_cache(sys.argv[2])
    config = jax.config
    print(json.dumps([
        str(folder),
        config.jax_compilation_cache_dir,
        config.jax_persistent_cache_min_compile_time_secs,
        config.jax_persistent_cache_min_entry_size_bytes,
    ]))
""")


def run(script: str, *arguments: str, **environment: str) -> list:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMP", "JAX_PERS"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_second_process_compiles_nothing(tmp_path: Path, quick_environment: dict[str, str]) -> None:
    environment = quick_environment | {"XDG_CACHE_HOME": str(tmp_path)}
    folder, hits, misses = run(SAMPLE, **environment)
    assert folder == str(tmp_path / "shoal" / "xla")
    files = sorted(Path(folder).iterdir())
    assert misses == len(files) > hits
    again = run(SAMPLE, **environment)
    assert again == [folder, hits + misses, 0]
    assert sorted(Path(folder).iterdir()) == files


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({}, {}, ["given", 0.0, -1]),
        (
            {"jax_compilation_cache_dir": "mine", "jax_persistent_cache_min_compile_time_secs": 7},
            {},
            ["mine", 7.0, -1],
        ),
        (
            {"jax_persistent_cache_min_entry_size_bytes": 99},
            {
                "JAX_COMPILATION_CACHE_DIR": "theirs",
                # JAX's own default, asked for by name.
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1.0",
            },
            ["theirs", 1.0, 99],
        ),
    ],
)
def test_settings_of_the_user_stay(
    settings: dict, environment: dict, expected: list, tmp_path: Path
) -> None:
    under = lambda name: str(tmp_path / name)
    settings = {k: under(v) if isinstance(v, str) else v for k, v in settings.items()}
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        environment = environment | {"JAX_COMPILATION_CACHE_DIR": under("theirs")}
    found = run(SETTINGS, json.dumps(settings), under("given"), **environment)
    folder, *values = expected
    assert found == [under(folder), under(folder), *values]
    assert (tmp_path / "given").exists() == (folder == "given")


@pytest.fixture
def _no_folder_yet() -> Iterator[None]:
    """Take away the folder that the tests keep their own programs in."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("_no_folder_yet")
def test_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(OSError, match="directory must be a folder that can be made") as caught:
            shoal.enable_compilation_cache(folder)
        assert caught.value.filename == str(folder)
    with pytest.raises(TypeError, match="directory must be a path or None, got 3"):
        shoal.enable_compilation_cache(3)
