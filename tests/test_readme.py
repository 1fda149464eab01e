"""What the README shows is true: its programs run, its commands and files exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [
    line.removeprefix("$ ").split(" #")[0].strip()
    for language, code in BLOCKS
    if language in {"bash", "console", "sh", "shell"}
    for line in code.splitlines()
]
MAKE = [line for line in SHELL if line.startswith("make ")]
SHOAL = [line for line in SHELL if line.startswith("shoal ")]
LINKS = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
RUN = [file for line in SHELL for file in re.findall(r"python3? (\S+\.py)", line)]


def test_there_is_something_to_test() -> None:
    assert PYTHON
    assert SHOAL
    assert {"make demo", "make test"} <= set(MAKE)


def test_python_blocks_run_in_order(tmp_path: Path, quick_environment: dict[str, str]) -> None:
    # Their numbers are not looked at, and long runs show the same: a tenth of the draws.
    program = re.sub(
        r"(num_(?:samples|warmup)=)(\d[\d_]*)",
        lambda match: f"{match[1]}{max(50, int(match[2]) // 10)}",
        "\n".join(PYTHON),
    )
    environment = quick_environment | {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", MAKE)
def test_make_knows(command: str, root: Path) -> None:
    done = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=root, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", SHOAL)
def test_the_command_knows(command: str) -> None:
    words = shlex.split(command)
    subcommand = [word for word in words[1:2] if not word.startswith("-")]
    script = Path(sys.executable).with_name("shoal")
    done = subprocess.run([script, *subcommand, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", done.stdout))


@pytest.mark.parametrize("name", [*LINKS, *RUN])
def test_named_files_exist(name: str, root: Path) -> None:
    assert (root / name).exists()
