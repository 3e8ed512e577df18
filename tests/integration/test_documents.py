"""What the documents print is run: Python blocks as programs, shell blocks on a daemon of their own, and links
exist.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
# Lines of shell blocks that this environment has done already, or that belong to other programs.
DONE = re.compile(r"^(make |pip install |\. \.venv|wrk |ulimit )")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def environment(place: Path, port: int | None = None) -> dict[str, str]:
    """A home of its own; the commands of this very interpreter; another port than the one people use."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTLAM"))}
    own = {"HOME": str(place), "XDG_DATA_HOME": str(place / "data"), "PATH": f"{place / 'bin'}:{kept['PATH']}"}
    if port is not None:
        own["FASTLAM_ENDPOINT"] = f"http://127.0.0.1:{port}"
    return {**kept, **own}


def run(command: list[str], place: Path, environ: dict[str, str]) -> str:
    result = subprocess.run(
        command,
        cwd=place,
        env=environ,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with `fastlam` and `python` of this interpreter in bin/."""
    (tmp_path / "bin").mkdir()
    for name, arguments in (("fastlam", " -m fastlam"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        command.chmod(0o755)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


PROGRAMS = [(page, text) for page in ("README.md", "docs/howto/embed.md") for text in blocks(page, "python")]


@pytest.mark.parametrize(
    ("page", "text"), PROGRAMS, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PROGRAMS)]
)
@pytest.mark.parametrize("inline", ["", "1"])
def test_programs(page: str, text: str, inline: str, place: Path) -> None:
    (place / "program.py").write_text(text)
    output = run([sys.executable, "program.py"], place, {**environment(place), "FASTLAM_INLINE": inline})
    if "Executor" in text:
        assert output.startswith("1024\n")
    if "Runtime" in text:
        assert "'hello': '" in output


def shell(text: str, port: int) -> str:
    """The block as it is run here: on the given port, without the lines of DONE, stopping at the first failure."""
    lines = [line for line in text.splitlines() if not DONE.match(line)]
    script = re.sub(
        r"fastlam serve( --ephemeral)?( --port \d+)?( --clock virtual)? --detach",
        rf"fastlam serve\1 --port {port}\3 --detach",
        "\n".join(lines),
    )
    return f"set -eu\ntrap 'fastlam stop >/dev/null 2>&1 || true' EXIT\n{script}\n"


SCRIPTS = {
    "six lines": ("README.md", 0, "Hello, Ada!"),
    "daemon": ("README.md", 1, "Hello, world!"),
    "ci": ("docs/howto/ci.md", 0, "Hello, Ada!"),
    "load test": ("docs/howto/load-test.md", 0, ""),
    "virtual clock": ("docs/howto/virtual-clock.md", 0, "\n3\n"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str, place: Path, port: int) -> None:
    page, number, expected = SCRIPTS[name]
    environ = environment(place, port)
    if name == "ci":
        run(["fastlam", "init", "functions/hello"], place, environ)
    output = run([shutil.which("bash") or "sh", "-c", shell(blocks(page, "sh")[number], port)], place, environ)
    assert expected in output
    assert f"127.0.0.1:{port}" in output


def test_the_conftest_of_the_ci_page(place: Path) -> None:
    (text,) = blocks("docs/howto/ci.md", "python")
    (place / "test_page.py").write_text(text)
    output = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"], place, environment(place)
    )
    assert "1 passed" in output


def test_the_programs_of_the_virtual_clock_page(place: Path) -> None:
    program, tests = blocks("docs/howto/virtual-clock.md", "python")
    (place / "program.py").write_text(program)
    assert run([sys.executable, "program.py"], place, environment(place)) == "three attempts, three minutes\n"
    (place / "test_page.py").write_text(tests)
    output = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"], place, environment(place)
    )
    assert "1 passed" in output
