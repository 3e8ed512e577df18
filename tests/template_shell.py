"""The fastlam command on templates, in a folder of its own, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner, Result

from daemon_running import RunningDaemon
from fastlam.cli import cli


class Shell(NamedTuple):
    """The fastlam command in a folder, against a daemon."""

    folder: Path

    def run(self, daemon: RunningDaemon, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["--endpoint-url", daemon.url, *arguments])
        assert result.exit_code == status, (result.exit_code, result.output, result.stderr, result.exception)
        return result

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def deploy(self, daemon: RunningDaemon, template: str | Path, *options: str, status: int = 0, **values: str) -> str:
        """What was said: all of it."""
        path = template if isinstance(template, Path) else self.write("template.yaml", template)
        overrides = [word for key, value in values.items() for word in ("--parameter-overrides", f"{key}={value}")]
        result = self.run(daemon, "deploy", str(path), *overrides, *options, status=status)
        return result.stdout + result.stderr


def assert_unchanged(said: str) -> None:
    lines = [line for line in said.splitlines() if ": " in line and not line.startswith((" ", "next: "))]
    assert lines and all(line.endswith(": unchanged") for line in lines), said
