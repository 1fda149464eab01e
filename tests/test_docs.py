"""What the guides say is true: their programs run, the tests and files they name exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))
TEXTS = {path.stem: path.read_text() for path in DOCS}


def named(pattern: str) -> list[tuple[str, str]]:
    return [(name, found) for name, text in TEXTS.items() for found in re.findall(pattern, text)]


@pytest.mark.parametrize(("guide", "test"), named(r"`(tests/[\w/.:]+)`"))
def test_every_promise_names_tests_that_exist(guide: str, test: str, root: Path) -> None:
    path, _, function = test.partition("::")
    assert f"def {function}" in (root / path).read_text()


@pytest.mark.parametrize(("guide", "link"), named(r"\]\((?!https?://|#)([^)#]+)"))
def test_links_lead_somewhere(guide: str, link: str, root: Path) -> None:
    assert (root / "docs" / link).exists()


@pytest.mark.parametrize("guide", TEXTS)
def test_programs_run_in_order(guide: str, tmp_path: Path) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", TEXTS[guide], re.M | re.S))
    assert program
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
