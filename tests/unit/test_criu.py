"""Where criu is, and what it is run by."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from fastlam.sandbox import criu
from fastlam.sandbox.criu import check_version, find_criu, installed_program
from fastlam.wire.control import Criu

SHELL = str(Path(shutil.which("sh") or "/bin/sh").resolve())


def unpacked(root: Path, *, loader: bool = True) -> Path:
    """As packages of another release lie below a directory."""
    program = root / "usr/sbin/criu"
    program.parent.mkdir(parents=True)
    shutil.copy(SHELL, program)
    library = root / "usr/lib" / f"{platform.machine()}-linux-gnu"
    library.mkdir(parents=True)
    if loader:
        place = root / "usr" / criu._LOADERS[platform.machine()]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    return program


def test_the_machines_own() -> None:
    assert SHELL.startswith("/usr/"), "this test wants a system whose programs lie below /usr"
    assert find_criu(SHELL) == Criu(SHELL)


def test_one_with_a_library_of_its_own(tmp_path: Path) -> None:
    program = unpacked(tmp_path)
    found = find_criu(str(program))
    assert found.program == str(program)
    assert Path(found.loader) == tmp_path / "usr" / criu._LOADERS[platform.machine()]
    assert Path(found.libraries) == tmp_path / "usr/lib" / f"{platform.machine()}-linux-gnu"


def test_one_that_environments_could_not_load(tmp_path: Path) -> None:
    program = unpacked(tmp_path, loader=False)
    with pytest.raises(OSError, match="neither below /usr.*nor beside a C library"):
        find_criu(str(program))


def test_what_is_no_program(tmp_path: Path) -> None:
    script = tmp_path / "criu"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(OSError, match="is a script, or something else"):
        find_criu(str(script))
    with pytest.raises(OSError, match="No such file"):
        find_criu(str(tmp_path / "none"))


def test_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(criu, "_BESIDE_PATH", str(tmp_path))
    monkeypatch.delenv("FASTLAM_CRIU", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert installed_program() == ""
    program = tmp_path / "criu"
    shutil.copy(SHELL, program)
    assert installed_program() == str(program)
    monkeypatch.setenv("FASTLAM_CRIU", "/elsewhere")
    assert installed_program() == "/elsewhere"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("Version: 4.1.1\nGitID: 0", ""),
        ("Version: 4.1", ""),
        ("Version: 10.0-rc1", ""),
        ("Version: 3.17.1", "criu 3.17.1 is too old: 4.1 is needed"),
        ("Version: 4.0", "criu 4.0 is too old"),
        ("hello", "does not say which version it is: hello"),
    ],
)
def test_its_version(tmp_path: Path, says: str, reason: str) -> None:
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && printf '%s\\n' '{says}'\n")
    program.chmod(0o755)
    if not reason:
        check_version(Criu(str(program)))
        return
    with pytest.raises(OSError, match=reason):
        check_version(Criu(str(program)))
