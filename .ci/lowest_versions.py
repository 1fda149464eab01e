"""Print the lowest version of each dependency that pyproject.toml allows, as pip constraints."""

import re
import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
for requirement in pyproject["project"]["dependencies"]:
    match = re.fullmatch(r"([\w-]+)(?:\[.*\])?.*>=([\d.]+).*", requirement)
    if match is None:
        raise SystemExit(f"{requirement!r} in pyproject.toml names no lowest version")
    print(f"{match[1]}=={match[2]}")
