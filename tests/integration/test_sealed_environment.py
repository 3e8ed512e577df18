"""Environment variables at rest and in sight: in no file, no command line, no process's environment, no log; and what
becomes of them when the key is gone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from daemon_running import RunningDaemon, descendants, running_daemon, zipped
from fastlam.model.function import FunctionRecord
from fastlam.runtimes.python import INTERPRETER
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.directory import DataDirectory
from fastlam.store.sqlite import FILE_NAME
from old_database import write_old_database

pytestmark = pytest.mark.lanes

# Tells without telling: only how long the value is, and whether it is the one whose fingerprint the event brings.
CODE = """
import hashlib, os
def handler(event, context):
    value = os.environ.get("PASSWORD", "")
    print("the password has", len(value), "characters")
    return [len(value), hashlib.sha256(value.encode()).hexdigest()[:8]]
"""


@pytest.fixture
def secret() -> str:
    return f"secret-{secrets.token_hex(12)}"


def fingerprint(value: str) -> list[Any]:
    return [len(value), hashlib.sha256(value.encode()).hexdigest()[:8]]


def texts_of(daemon: RunningDaemon, data: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that the daemon and its processes leave lying about, each with its name."""
    for root in (data, daemon.stderr_path.parent):
        for path in root.rglob("*"):
            if stat.S_ISREG(path.lstat().st_mode):
                yield str(path), path.read_bytes()
    for pid in (daemon.process.pid, *(pid for pid, _ in descendants(daemon.process.pid))):
        for name in ("cmdline", "environ", "comm"):
            try:
                yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
    for address in ("health", "environments", "logs?function=hello"):
        yield address, daemon.send("GET", f"/_fastlam/{address}").body


def places(daemon: RunningDaemon, data: Path, word: str) -> list[str]:
    """Where the word can be read."""
    return [name for name, text in texts_of(daemon, data) if word.encode() in text]


def test_in_no_file_and_no_process(tmp_path: Path, secret: str) -> None:
    data = tmp_path / "data"
    later = f"later-{secret}"
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        daemon.deploy("hello", CODE, environment={"PASSWORD": secret, "NAME": "visible"}, Tags={"a": "b"})
        daemon.lambda_.publish_version(FunctionName="hello")
        daemon.lambda_.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
        daemon.lambda_.update_function_configuration(
            FunctionName="hello", Environment={"Variables": {"PASSWORD": later}}, Timeout=9
        )
        daemon.settle("hello")
        daemon.lambda_.publish_version(FunctionName="hello")
        for qualifier, value in (("live", secret), ("$LATEST", later), ("2", later)):
            assert daemon.invoke("hello", Qualifier=qualifier).result == fingerprint(value)
        with pytest.raises(ClientError):  # a refusal repeats no value either, on our side
            daemon.lambda_.create_function(
                FunctionName="hello",
                Runtime="python3.12",
                Role="arn:aws:iam::000000000000:role/r",
                Handler="a.b",
                Code={"ZipFile": zipped("x")},
                Environment={"Variables": {"PASSWORD": secret}},
            )
        assert len(descendants(daemon.process.pid)) >= 4  # zygotes, and environments that hold the secret
        assert places(daemon, data, secret) == []
        # Who may ask is told.
        for qualifier, value in (("live", secret), ("$LATEST", later)):
            got = daemon.lambda_.get_function_configuration(FunctionName="hello", Qualifier=qualifier)
            assert got["Environment"]["Variables"]["PASSWORD"] == value
        (key,) = (data / "keys").iterdir()
        assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    for path in data.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_they_open_after_a_restart(tmp_path: Path, secret: str) -> None:
    with running_daemon("--data-dir", str(tmp_path / "data"), ephemeral=False) as daemon:
        daemon.deploy("hello", CODE, environment={"PASSWORD": secret})
        daemon.lambda_.publish_version(FunctionName="hello")
    with running_daemon("--data-dir", str(tmp_path / "data"), ephemeral=False) as daemon:
        assert daemon.invoke("hello").result == daemon.invoke("hello:1").result == fingerprint(secret)
        daemon.deploy("second", CODE, environment={"PASSWORD": "other"})
        assert daemon.invoke("second").result == fingerprint("other")
        assert len(list((tmp_path / "data" / "keys").iterdir())) == 1


def lose(key: Path) -> None:
    key.unlink()


def replace(key: Path) -> None:
    key.write_bytes(os.urandom(32))


def cut(key: Path) -> None:
    key.write_bytes(key.read_bytes()[:16])


@pytest.mark.parametrize("harm", [lose, replace, cut])
def test_without_the_key(tmp_path: Path, secret: str, harm: Any) -> None:
    """It is said clearly, everything else goes on, and new variables mend it."""
    data = tmp_path / "data"
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        daemon.deploy("hello", CODE, environment={"PASSWORD": secret})
        daemon.lambda_.publish_version(FunctionName="hello")
        daemon.deploy("plain", CODE)
        (key,) = (data / "keys").iterdir()
    harm(key)
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        client = daemon.lambda_
        for got in (
            client.get_function_configuration(FunctionName="hello"),
            client.get_function(FunctionName="hello:1")["Configuration"],
            client.list_functions()["Functions"][0],
        ):
            error = got["Environment"]["Error"]
            assert error["ErrorCode"] == "KMSNotFoundException"
            assert error["Message"].startswith("Lambda was unable to decrypt the environment variables.")
            assert "Variables" not in got["Environment"]
        for qualifier in ("$LATEST", "1"):
            with pytest.raises(ClientError) as caught:
                daemon.invoke("hello", Qualifier=qualifier)
            assert caught.value.response["Error"]["Code"] == "KMSNotFoundException"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
        assert any("[fastlam: " in line for line in daemon.logs("hello"))
        assert daemon.invoke("plain").result == fingerprint("")
        client.update_function_configuration(FunctionName="hello", Timeout=9)
        daemon.settle("hello")
        client.update_function_configuration(FunctionName="hello", Environment={"Variables": {"PASSWORD": secret}})
        daemon.settle("hello")
        assert daemon.invoke("hello").result == fingerprint(secret)
        client.delete_function(FunctionName="hello")


def test_an_older_data_directory(tmp_path: Path, secret: str) -> None:
    """Its variables lie in the clear; they are sealed when it is opened, and leave no trace."""
    data = tmp_path / "data"
    with DataDirectory(data):
        artifact = ArtifactStore(data).put_zip(zipped(CODE))
        functions = [
            FunctionRecord(
                account="000000000000",
                region="us-east-1",
                name=name,
                runtime=INTERPRETER,
                handler="app.handler",
                role="arn:aws:iam::000000000000:role/r",
                environment={"PASSWORD": secret},
                code_sha256=artifact.code_sha256,
                code_bytes=artifact.zip_bytes,
                revision_id="11111111-1111-4111-8111-111111111111",
                last_modified="2026-01-01T00:00:00.000+0000",
                last_update_status="Successful",
            )
            for name in ("hello", "deleted")
        ]
        write_old_database(data / FILE_NAME, functions, deleted="deleted")
    assert secret.encode() in (data / FILE_NAME).read_bytes()
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        assert daemon.invoke("hello").result == fingerprint(secret)
        assert places(daemon, data, secret) == []
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        assert daemon.invoke("hello").result == fingerprint(secret)


def test_an_ephemeral_daemon_keeps_nothing(tmp_path: Path, secret: str) -> None:
    with running_daemon(environment={"XDG_DATA_HOME": str(tmp_path)}) as daemon:
        daemon.deploy("hello", CODE, environment={"PASSWORD": secret})
        assert daemon.invoke("hello").result == fingerprint(secret)
        assert places(daemon, tmp_path, secret) == []
        # Not even a key: it lives in the daemon's memory.
        temporary = daemon.stderr_path.parent
        assert [path.name for path in temporary.rglob("keys")] == []
        assert [path.name for path in temporary.rglob("*.sqlite*")] == []
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_is_copied(tmp_path: Path, secret: str) -> None:
    """The key goes with it: a backup of the whole directory is one."""
    with running_daemon("--data-dir", str(tmp_path / "data"), ephemeral=False) as daemon:
        daemon.deploy("hello", CODE, environment={"PASSWORD": secret})
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    shutil.rmtree(tmp_path / "data")
    with running_daemon("--data-dir", str(tmp_path / "copy"), ephemeral=False) as daemon:
        assert daemon.invoke("hello").result == fingerprint(secret)
