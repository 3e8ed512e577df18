"""What `fastlam deploy` packs: the same bytes for the same content, everything that belongs in, nothing else."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from fastlam.cli.package import collect, default_handler, package, zip_files
from fastlam.cli.session import CommandError
from trees import write_tree


def names(code: bytes) -> list[str]:
    with zipfile.ZipFile(BytesIO(code)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_the_zip_depends_on_names_contents_and_the_executable_bit_only(tmp_path: Path) -> None:
    files = {"app.py": "a", "lib/x.py": "x", "b/c/d.txt": "d"}
    first = write_tree(tmp_path / "first", files)
    second = write_tree(tmp_path / "second", dict(reversed(files.items())))
    for path in second.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert package(first, "python3.11") == package(second, "python3.11")
    (second / "app.py").chmod(0o755)
    changed = package(second, "python3.11")
    assert changed != package(first, "python3.11")
    with zipfile.ZipFile(BytesIO(changed)) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes == {"app.py": 0o100755, "b/c/d.txt": 0o100644, "lib/x.py": 0o100644}


def test_what_is_left_out(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "app.py": "",
            "data/.hidden": "",
            "x.pyc": "",
            **{f"{name}/file": "" for name in ("__pycache__", ".git", ".venv", "lib/__pycache__", ".pytest_cache")},
        },
    )
    assert sorted(collect(tmp_path)) == ["app.py", "data/.hidden"]


def test_links_are_followed_and_circles_refused(tmp_path: Path) -> None:
    shared = write_tree(tmp_path / "shared", {"common.py": "c"})
    project = write_tree(tmp_path / "project", {"app.py": ""})
    (project / "shared").symlink_to(shared)
    (project / "alias.py").symlink_to(project / "app.py")
    assert sorted(collect(project)) == ["alias.py", "app.py", "shared/common.py"]
    (shared / "again").symlink_to(shared)
    with pytest.raises(CommandError, match="link to a directory that contains it"):
        collect(project)


def test_what_cannot_be_packed_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CommandError, match="nothing to deploy"):
        package(empty, "python3.11")
    with pytest.raises(CommandError, match="does not exist"):
        package(tmp_path / "none", "python3.11")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(CommandError, match="dangling cannot be read"):
        collect(tmp_path)
    (tmp_path / "dangling").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CommandError, match="pipe is neither a file nor a directory"):
        collect(tmp_path)
    broken = tmp_path / "broken.zip"
    broken.write_text("no zip")
    with pytest.raises(CommandError, match="is no zip file"):
        package(broken, "python3.11")


def test_a_file_and_a_zip(tmp_path: Path) -> None:
    write_tree(tmp_path, {"handler.py": "def main(e, c): return e"})
    code = package(tmp_path / "handler.py", "python3.11")
    assert names(code) == ["handler.py"]
    (tmp_path / "ready.zip").write_bytes(code)
    assert package(tmp_path / "ready.zip", "python3.11") == code


def test_requirements_are_installed_beside_the_projects_own_files(tmp_path: Path) -> None:
    """A local package, so that pip needs no index."""
    write_tree(
        tmp_path / "dependency",
        {
            "pyproject.toml": '[project]\nname = "dependency"\nversion = "1"\n[build-system]\n'
            'requires = []\nbackend-path = ["."]\nbuild-backend = "backend"\n',
            "backend.py": BACKEND,
        },
    )
    project = write_tree(
        tmp_path / "project", {"app.py": "own", "shadowed.py": "own", "requirements.txt": "../dependency\n"}
    )
    code = package(project, "python3.11")
    with zipfile.ZipFile(BytesIO(code)) as archive:
        assert {"app.py", "dependency.py", "shadowed.py", "requirements.txt"} <= set(archive.namelist())
        assert archive.read("shadowed.py") == b"own"
        assert archive.read("dependency.py") == b"installed"
    assert package(project, "python3.11") == code

    (project / "requirements.txt").write_text("../missing\n")
    with pytest.raises(CommandError, match="pip could not install"):
        package(project, "python3.11")
    (project / "requirements.txt").write_text("# nothing\n\n")
    assert names(package(project, "python3.11")) == ["app.py", "requirements.txt", "shadowed.py"]


#: The smallest build backend: writes a wheel without any tool.
BACKEND = """
import os, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "dependency-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("dependency.py", "installed")
        wheel.writestr("shadowed.py", "installed")
        wheel.writestr("dependency-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: dependency\\nVersion: 1\\n")
        wheel.writestr("dependency-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("dependency-1.dist-info/RECORD", "")
    return name
"""


def test_the_handler_that_the_files_suggest(tmp_path: Path) -> None:
    write_tree(tmp_path, {"one/app.py": "", "two/lambda_function.py": "", "three/other.py": ""})
    assert default_handler(tmp_path / "one") == "app.handler"
    assert default_handler(tmp_path / "two") == "lambda_function.lambda_handler"
    assert default_handler(tmp_path / "three") is None
    assert default_handler(tmp_path / "three" / "other.py") == "other.handler"
    assert default_handler(tmp_path / "x.zip") is None


def test_zip_files_sorts_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": "1", "b": "2"})
    assert names(zip_files({"z": tmp_path / "a", "a/b": tmp_path / "b"})) == ["a/b", "z"]
