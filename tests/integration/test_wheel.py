"""The package as others get it: source distribution, wheel, a fresh environment elsewhere, and what is said where it
cannot be.

Built from a copy of the clone's own files, so that nothing that lies about in the clone can be what makes it work.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# What a distribution is made of; the clone's products are not in there.
PARTS = ("csrc", "src", "tools", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
BUILD_TIMEOUT_SECONDS = 500

pytestmark = pytest.mark.timeout(600)


def run(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs without what this process has in PYTHONPATH and the like; both outputs in one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTLAM"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **(environment or {})},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT_SECONDS,
    )


def succeed(command: Sequence[str | Path], cwd: Path) -> str:
    result = run(command, cwd)
    assert result.returncode == 0, result.stdout
    return result.stdout


def copy_of_the_clone(place: Path) -> Path:
    place.mkdir()
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__", "service_model.msgpack", ".*")
            shutil.copytree(source, place / name, ignore=ignored)
        else:
            shutil.copy(source, place / name)
    return place


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    base = tmp_path_factory.mktemp("sdist")
    clone = copy_of_the_clone(base / "clone")
    program = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    succeed([sys.executable, "-c", program], clone)
    (archive,) = base.glob("fastlam-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(base, filter="data")
    return base / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution builds."""
    place = tmp_path_factory.mktemp("wheel")
    # pip fetches what the build needs, unless it is here already.
    here = all(importlib.util.find_spec(name) for name in ("Cython", "botocore", "msgspec", "setuptools"))
    options = ["--no-build-isolation"] if here else []
    succeed([sys.executable, "-m", "pip", "wheel", "--no-deps", *options, "-w", place, unpacked], place)
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that has the wheel and its dependencies, nothing else."""
    place = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(place, with_pip=True, symlinks=True)
    interpreter = place / "bin/python"
    succeed([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], place)
    return interpreter


def test_source_distribution(unpacked: Path) -> None:
    for name in (
        "csrc/fl_ring.h",
        "csrc/fl_ring.c",
        "src/fastlam/core/driver.pxi",
        "tools/compile_service_model.py",
        "LICENSE",
    ):
        assert (unpacked / name).is_file(), name
    assert not list(unpacked.rglob("*.so"))
    assert not (unpacked / "build").exists()


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffixes = [name.rpartition("/")[2].partition(".")[2] for name in names if name.startswith("fastlam/core/")]
    modules = [path.stem for path in (ROOT / "src/fastlam/core").glob("*.pyx")]
    assert sum(suffix.endswith("so") for suffix in suffixes) == len(modules)
    assert {f"fastlam/core/{module}.pyi" for module in modules} <= names
    assert {
        "fastlam/core/native.pxd",
        "fastlam/py.typed",
        "fastlam/api/service_model.msgpack",
        "fastlam/cli/templates/app.py.template",
        "fastlam/worker/zygote.py",
    } <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".pxi"))]
    packages = {path.parent.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/fastlam").rglob("*.py")}
    assert {name.rpartition("/")[0] for name in names if name.endswith(".py")} == packages


def test_every_door_of_the_installed_package(python: Path, tmp_path: Path) -> None:
    """Executor, Runtime, and a daemon that boto3 calls, out of reach of the clone."""
    script = shutil.copy(ROOT / "tools/smoke.py", tmp_path / "smoke.py")
    where = succeed([python, "-I", "-c", "import fastlam; print(fastlam.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(python.parent.parent)
    assert "executor, runtime and daemon work" in succeed([python, "-I", script], tmp_path)


def test_the_installed_command(python: Path, tmp_path: Path) -> None:
    import fastlam

    output = succeed([python.parent / "fastlam", "--version"], tmp_path)
    assert fastlam.__version__ in output


def test_types_of_the_installed_package(python: Path, tmp_path: Path) -> None:
    """A type checker finds the package's own types, those of compiled modules included."""
    program = tmp_path / "program.py"
    program.write_text(
        "from fastlam import Executor, Runtime\n"
        "with Executor() as pool:\n    reveal_type(pool.submit(len, 'abc').result())\n"
        "from fastlam.core.dispatcher import Dispatcher\n"
        "def counters(one: Dispatcher) -> None:\n    reveal_type(one.statistics())\n"
    )
    pytest.importorskip("mypy")
    output = succeed([sys.executable, "-m", "mypy", "--strict", "--python-executable", python, program], tmp_path)
    revealed = re.findall(r'Revealed type is "(.*)"', output.replace("builtins.", ""))
    assert revealed == ["int", "dict[str, int]"], output


# ---- where it cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_told(platform: str, tmp_path: Path) -> None:
    """Installation and import each say in one sentence what to do."""
    pretend = f"import sys, runpy; sys.platform = {platform!r}; "
    install = run([sys.executable, "-c", f"{pretend}runpy.run_path('setup.py', run_name='__main__')"], ROOT)
    assert install.returncode == 1
    assert install.stdout.count("\n") == 1, install.stdout
    imported = run(
        [sys.executable, "-c", f"{pretend}sys.path.insert(0, {str(ROOT / 'src')!r}); import fastlam"], tmp_path
    )
    last_line = imported.stdout.splitlines()[-1]
    for text in (install.stdout, last_line):
        assert "runs on Linux only" in text
        assert platform in text
        assert "WSL2" in text
        assert "docs/howto/install.md" in text


def test_without_a_compiler(tmp_path: Path) -> None:
    clone = copy_of_the_clone(tmp_path / "clone")
    # A compiler that is not there would be found by another name; one that fails is what setuptools sees in either
    # case.
    result = run([sys.executable, "setup.py", "build_ext"], clone, {"CC": str(tmp_path / "no-such-compiler")})
    assert result.returncode == 1
    last_line = result.stdout.strip().splitlines()[-1]
    assert "install a C compiler and the Python headers" in last_line, result.stdout
    assert "docs/howto/install.md" in last_line


@pytest.mark.parametrize("statement", ["from fastlam import Executor", "from fastlam import Runtime"])
def test_a_tree_that_was_not_built(statement: str, tmp_path: Path) -> None:
    clone = copy_of_the_clone(tmp_path / "clone")
    program = f"import sys; sys.path.insert(0, {str(clone / 'src')!r}); {statement}"
    result = run([sys.executable, "-c", program], tmp_path)
    last_line = result.stdout.splitlines()[-1]
    assert last_line.startswith("ImportError: fastlam's native module fastlam.core."), result.stdout
    assert "pip install ." in last_line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["serve", "--ephemeral", "--port", "0"], "pip install ."), (["doctor"], "native core failed")],
)
def test_the_command_in_a_tree_that_was_not_built(arguments: list[str], says: str, tmp_path: Path) -> None:
    """One sentence, no traceback."""
    clone = copy_of_the_clone(tmp_path / "clone")
    program = (
        f"import sys; sys.path.insert(0, {str(clone / 'src')!r}); sys.argv[:] = ['fastlam', *{arguments!r}];"
        "from fastlam.cli import main; main()"
    )
    result = run([sys.executable, "-c", program], tmp_path)
    assert "Traceback" not in result.stdout
    assert result.returncode != 0
    last_line = result.stdout.splitlines()[-1]
    assert says in last_line
    assert "docs/howto/install.md" in last_line


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ("version_info", "is older than 3.11"),
        ("ensurepip", "apt-get install python3-venv"),
        ("Python.h", "apt-get install python3-dev"),
    ],
)
def test_make_says_what_python_lacks(lacking: str, sentence: str, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\ncase "$2" in *{lacking}*) exit 1 ;; esac\n')
    interpreter.chmod(0o755)
    result = run([ROOT / "tools/make_venv.sh", "--check"], tmp_path, {"PYTHON": str(interpreter)})
    assert result.returncode == 1
    assert result.stdout.count("\n") == 1, result.stdout
    assert sentence in result.stdout
    assert "docs/howto/install.md" in result.stdout


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [({"PYTHON": "no-such-python"}, "no Python was found"), ({"CC": "no-such-compiler", "PATH": ""}, "no C compiler")],
)
def test_make_says_what_is_not_there(environment: dict[str, str], sentence: str, tmp_path: Path) -> None:
    if "PATH" in environment:  # everything the script needs, but no compiler
        for name in ("uname", "sh"):
            (tmp_path / name).symlink_to(shutil.which(name) or name)
        environment = {**environment, "PATH": str(tmp_path), "PYTHON": sys.executable}
    result = run(["/bin/sh", ROOT / "tools/make_venv.sh", "--check"], tmp_path, environment)
    assert result.returncode == 1
    assert result.stdout.count("\n") == 1, result.stdout
    assert sentence in result.stdout
