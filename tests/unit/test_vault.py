"""Secrets at rest: what is sealed opens with its key and in its place, and in no other way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam.control.functions import Functions
from fastlam.errors import FastlamError
from fastlam.model.function import FunctionRecord
from fastlam.model.sealed import Sealed
from fastlam.store.sqlite import FILE_NAME, SqliteStore
from fastlam.store.vault import CannotOpen, Vault
from memory_plane import ARN, CALLER, MemoryPlane
from old_database import write_old_database

VARIABLES = {"PASSWORD": "hunter2", "EMPTY": "", "NAME": "välue"}
text = st.text(st.characters(codec="utf-8"), max_size=20)


def key_files(directory: Path) -> list[Path]:
    return sorted((directory / "keys").iterdir())


@given(variables=st.dictionaries(text, text, max_size=5), context=text)
def test_what_is_sealed_opens(variables: dict[str, str], context: str) -> None:
    vault = Vault()
    sealed = vault.seal(variables, context)
    assert vault.open(sealed, context) == variables
    assert sealed.data != vault.seal(variables, context).data  # nobody sees that two are the same
    for word in (word for pair in variables.items() for word in pair if len(word) > 3):
        assert word.encode() not in sealed.data


def test_the_key_outlives_the_process(tmp_path: Path) -> None:
    sealed = Vault(tmp_path).seal(VARIABLES, "here")
    assert Vault(tmp_path).open(sealed, "here") == VARIABLES
    (file,) = key_files(tmp_path)
    assert file.name == sealed.key_id
    assert Vault(tmp_path).seal(VARIABLES, "here").key_id == sealed.key_id


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Vault(tmp_path).seal(VARIABLES, "here")
    finally:
        os.umask(before)
    (file,) = key_files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.stat().st_size == 32
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]  # nothing of its making is left


def test_no_key_is_made_for_nothing(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    assert vault.open(None, "here") == {}
    assert vault.open({}, "here") == {}
    assert vault.open({"PLAIN": "1"}, "here") == {"PLAIN": "1"}
    assert list(tmp_path.iterdir()) == []


def test_in_another_place(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    sealed = vault.seal(VARIABLES, f"{ARN}:hello")
    for context in ("", f"{ARN}:other", f"{ARN}:hello:1"):
        with pytest.raises(CannotOpen, match="was changed after key .* sealed it"):
            vault.open(sealed, context)


def test_every_bit_counts(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    sealed = vault.seal({"K": "v"}, "here")
    for position in range(len(sealed.data)):
        data = bytearray(sealed.data)
        data[position] ^= 1
        with pytest.raises(CannotOpen):
            vault.open(Sealed(sealed.key_id, bytes(data)), "here")
    for length in range(len(sealed.data)):
        with pytest.raises(CannotOpen):
            vault.open(Sealed(sealed.key_id, sealed.data[:length]), "here")


def test_without_its_key(tmp_path: Path) -> None:
    sealed = Vault(tmp_path).seal(VARIABLES, "here")
    (file,) = key_files(tmp_path)
    key = file.read_bytes()
    gone = f"The key {sealed.key_id} is not in this data directory"
    for content in (None, b"", key[:31], key + b"x"):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CannotOpen, match=gone):
            Vault(tmp_path).open(sealed, "here")
    file.write_bytes(bytes(32))
    with pytest.raises(CannotOpen, match="was changed"):
        Vault(tmp_path).open(sealed, "here")
    file.write_bytes(key)
    assert Vault(tmp_path).open(sealed, "here") == VARIABLES
    for vault in (Vault(), Vault(tmp_path / "elsewhere")):
        with pytest.raises(CannotOpen, match=gone):
            vault.open(sealed, "here")


@pytest.mark.parametrize("key_id", ["", ".", "..", "../secret", "/etc/hostname", ".hidden", "x" * 300])
def test_key_ids_that_are_no_names(tmp_path: Path, key_id: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "secret").write_bytes(bytes(32))
    with pytest.raises(CannotOpen):
        Vault(tmp_path).open(Sealed(key_id, bytes(64)), "here")


def test_older_keys_go_on_opening(tmp_path: Path) -> None:
    first = Vault(tmp_path).seal(VARIABLES, "here")
    (file,) = key_files(tmp_path)
    newer = file.with_name("local-" + "f" * 16)
    newer.write_bytes(os.urandom(32))
    os.utime(newer, (2**31, 2**31))
    vault = Vault(tmp_path)
    second = vault.seal(VARIABLES, "here")
    assert (first.key_id, second.key_id) == (file.name, newer.name)
    assert vault.open(first, "here") == vault.open(second, "here") == VARIABLES


def test_other_files_among_the_keys(tmp_path: Path) -> None:
    """Copies, halves and notes of people are no keys to seal with."""
    Vault(tmp_path).seal(VARIABLES, "here")
    (file,) = key_files(tmp_path)
    for name, content in (
        (".swp", b"x"),
        ("README", b"these are keys"),
        (f"{file.name}.bak", file.read_bytes()),
        ("local-" + "0" * 16, b"cut"),
    ):
        file.with_name(name).write_bytes(content)
        os.utime(file.with_name(name), (2**31, 2**31))
    assert Vault(tmp_path).seal(VARIABLES, "here").key_id == file.name


def test_a_directory_that_takes_no_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(FastlamError, match="A key cannot be kept in"):
        Vault(tmp_path).seal(VARIABLES, "here")


# In records --------------------------------------------------------------------------------------


def record(name: str, environment: dict[str, str] | None) -> FunctionRecord:
    return FunctionRecord(
        account="000000000000",
        region="us-east-1",
        name=name,
        runtime="python3.11",
        handler="app.handler",
        role="r",
        environment=environment,
        code_sha256="AAAA",
        code_bytes=1,
        revision_id="r",
        last_modified="2026-01-01T00:00:00.000+0000",
        last_update_status="Successful",
    )


def test_variables_in_the_clear_are_sealed_when_they_are_found(tmp_path: Path) -> None:
    write_old_database(
        tmp_path / FILE_NAME,
        [
            record("deleted", {"OLD": "hunter2" * 1000}),
            record("hello", VARIABLES),
            record("silent", None),
            record("empty", {}),
        ],
        deleted="deleted",
    )
    store = SqliteStore(tmp_path / FILE_NAME)
    plane = MemoryPlane(tmp_path, store=store, vault=Vault(tmp_path))
    assert isinstance(plane.record().environment, Sealed)
    assert plane.functions.variables(plane.record()) == VARIABLES
    assert (plane.record("silent").environment, plane.record("empty").environment) == (None, {})
    for path in tmp_path.iterdir():  # also while the database is open
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    sealed = plane.record()
    store.close()
    store = SqliteStore(tmp_path / FILE_NAME)
    plane = MemoryPlane(tmp_path, store=store, vault=Vault(tmp_path))
    assert plane.record() == sealed  # once
    store.close()


def test_versions_open_as_what_they_were_made_from(tmp_path: Path) -> None:
    plane = MemoryPlane(tmp_path)
    plane.create(Environment={"Variables": VARIABLES})
    plane.publish()
    plane.configure(Environment={"Variables": {"PASSWORD": "other"}})
    plane.publish()
    assert [plane.functions.variables(plane.record(version=number)) for number in ("", "1", "2")] == [
        {"PASSWORD": "other"},
        VARIABLES,
        {"PASSWORD": "other"},
    ]


def test_a_function_whose_key_is_gone_takes_new_variables(tmp_path: Path) -> None:
    plane = MemoryPlane(tmp_path)
    plane.create(Environment={"Variables": VARIABLES})
    plane.publish()
    plane.vault = Vault()  # the old key is not in it
    plane.functions = Functions(
        plane.store, plane.artifacts, plane.clock.schedule, clock=plane.clock, vault=plane.vault
    )
    with pytest.raises(CannotOpen):
        plane.functions.variables(plane.record())
    plane.configure(Timeout=9)
    with pytest.raises(CannotOpen):
        plane.functions.variables(plane.record())
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Environment": {"Variables": VARIABLES}})
    plane.settle()
    assert plane.functions.variables(plane.record()) == VARIABLES
    plane.configure(Environment={"Variables": {}})
    assert plane.functions.variables(plane.record()) == {}
