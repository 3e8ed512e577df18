"""Prints requirements that pyproject.toml states, one a line: `requirements.py build`, `requirements.py run test lint`.

`build` is what the build system asks for, `run` the package's own dependencies, any other name one of its extras.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(names: list[str]) -> list[str]:
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    project = pyproject["project"]
    groups = {
        "build": pyproject["build-system"]["requires"],
        "run": project["dependencies"],
        **project["optional-dependencies"],
    }
    return list(dict.fromkeys(line for name in names for line in groups[name]))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
