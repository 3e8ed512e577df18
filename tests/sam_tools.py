"""AWS's own tools for templates, each in a process of its own: SAM's transform, and the linter of CloudFormation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_TRANSFORM: Final = """
import json, sys
from types import SimpleNamespace
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
parameters, *paths = sys.argv[1:]
policies = SimpleNamespace(load=lambda: {})
found = [transform(yaml_parse(open(path).read()), json.loads(parameters), policies) for path in paths]
json.dump(found, sys.stdout)
"""


def sam_transform(*paths: Path, **parameters: str) -> list[dict[str, Any]]:
    """The templates as CloudFormation gets them; one that SAM refuses fails the test. Local code must be in S3."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TRANSFORM, json.dumps(parameters), *map(str, paths)],
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def cfn_lint(path: Path) -> str:
    """What the linter finds, with warnings; "" when it is content."""
    program = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run(
        [program, "--regions", "us-east-1", "--", str(path)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
