"""A daemon that is killed in the middle of changes: its data directory opens, and holds all that it had confirmed."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from botocore.exceptions import BotoCoreError, ClientError

from daemon_running import ACCOUNT, RunningDaemon, running_daemon, zipped
from fastlam.runtimes.python import INTERPRETER
from waiting import WAIT_SECONDS

WRITERS = 4
ROUNDS = 6


class Writer:
    """One caller with a function of its own: it changes that without end, and knows what was confirmed to it."""

    def __init__(self, number: int) -> None:
        self.name = f"written{number}"
        self.turn = 0
        self.confirmed: dict[str, Any] = {}  # aspect -> what was answered last
        self.tried: dict[str, Any] = {}  # aspect -> what was asked for last: may have come into force unconfirmed
        self.versions: dict[str, str] = {}  # number -> its code, of all that were confirmed
        self.exists = False

    def run(self, daemon: RunningDaemon, done: threading.Semaphore) -> None:
        """Until the connection breaks."""
        client = daemon.lambda_
        try:
            while True:
                self.turn += 1
                self._turn(daemon, client)
                done.release()
        except BotoCoreError:
            pass  # the daemon is gone

    def _ask(self, aspect: str, value: Any, call: Any, **arguments: Any) -> Any:
        self.tried[aspect] = value
        answer = call(FunctionName=self.name, **arguments)
        self.confirmed[aspect] = value
        return answer

    def _turn(self, daemon: RunningDaemon, client: Any) -> None:
        code = zipped(f"def handler(event, context):\n    return {self.turn}\n")
        sha256 = base64.b64encode(hashlib.sha256(code).digest()).decode()
        if not self.exists:
            try:
                self._ask(
                    "code",
                    sha256,
                    client.create_function,
                    Runtime=INTERPRETER,
                    Role=f"arn:aws:iam::{ACCOUNT}:role/r",
                    Handler="app.handler",
                    Code={"ZipFile": code},
                    Environment={"Variables": {"TURN": "0"}},
                )
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ResourceConflictException"  # made, but not confirmed
                self.confirmed["code"] = client.get_function_configuration(FunctionName=self.name)["CodeSha256"]
            self.exists = True
        else:
            self._ask("code", sha256, client.update_function_code, ZipFile=code)
        daemon.settle(self.name)
        variables = {"TURN": str(self.turn)}
        self._ask("variables", variables, client.update_function_configuration, Environment={"Variables": variables})
        daemon.settle(self.name)
        version = client.publish_version(FunctionName=self.name)
        self.versions[version["Version"]] = version["CodeSha256"]
        if "alias" in self.tried:
            self._ask("alias", version["Version"], client.update_alias, Name="live", FunctionVersion=version["Version"])
        else:
            self._ask("alias", version["Version"], client.create_alias, Name="live", FunctionVersion=version["Version"])
        if len(self.versions) > 4:
            oldest = min(self.versions, key=int)
            del self.versions[oldest]
            client.delete_function(FunctionName=self.name, Qualifier=oldest)

    def check(self, daemon: RunningDaemon) -> None:
        """What the next daemon says: what was confirmed, or the one thing that was asked for and never answered."""
        client = daemon.lambda_
        if not self.exists:
            return
        got = client.get_function_configuration(FunctionName=self.name)
        assert (got["State"], got["LastUpdateStatus"]) == ("Active", "Successful")

        def agrees(aspect: str, value: Any) -> None:
            assert value in (self.confirmed.get(aspect), self.tried.get(aspect)), aspect
            self.confirmed[aspect] = self.tried[aspect] = value

        agrees("code", got["CodeSha256"])
        if "variables" in self.confirmed:
            agrees("variables", got["Environment"]["Variables"])
        listed = client.list_versions_by_function(FunctionName=self.name)["Versions"][1:]
        found = {item["Version"]: item["CodeSha256"] for item in listed}
        # One more may have been published, or not yet deleted, without anybody having heard of it.
        assert self.versions.items() <= found.items()
        assert len(found) <= len(self.versions) + 1
        self.versions = found
        if "alias" in self.tried:
            try:
                alias = client.get_alias(FunctionName=self.name, Name="live")
            except client.exceptions.ResourceNotFoundException:
                assert "alias" not in self.confirmed
                del self.tried["alias"]
            else:
                agrees("alias", alias["FunctionVersion"])
                assert alias["FunctionVersion"] in found
        for qualifier, sha256 in ((None, got["CodeSha256"]), *found.items()):
            asked = {} if qualifier is None else {"Qualifier": qualifier}
            location = client.get_function(FunctionName=self.name, **asked)["Code"]["Location"]
            with urlopen(location, timeout=WAIT_SECONDS) as response:
                assert base64.b64encode(hashlib.sha256(response.read()).digest()).decode() == sha256


def test_nothing_that_was_confirmed_is_lost(directory: Path, rng: random.Random) -> None:
    sockets, data = directory / "s", directory / "data"
    sockets.mkdir()
    own = {"TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets)}
    writers = [Writer(number) for number in range(WRITERS)]
    for _ in range(ROUNDS):
        with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
            for writer in writers:
                writer.check(daemon)
            done = threading.Semaphore(0)
            with ThreadPoolExecutor(WRITERS) as pool:
                calls = [pool.submit(writer.run, daemon, done) for writer in writers]
                for _ in range(rng.randrange(1, 3 * WRITERS)):
                    assert done.acquire(timeout=WAIT_SECONDS), [call.exception() for call in calls if call.done()]
                daemon.process.kill()
                daemon.process.wait()
            for call in calls:
                call.result()
    with running_daemon("--data-dir", str(data), ephemeral=False, environment=own) as daemon:
        for writer in writers:
            writer.check(daemon)
            assert isinstance(daemon.invoke(writer.name).result, int)
        # What was half done is cleared away, and nothing is there that no record refers to.
        names = {path.name for path in (data / "code").iterdir()}
        assert not {name for name in names if name.startswith(".")}
        assert {name.removesuffix(".zip") for name in names} == {
            base64.b64decode(item["CodeSha256"]).hex()
            for item in daemon.lambda_.list_functions(FunctionVersion="ALL")["Functions"]
        }
        assert len(list((data / "keys").iterdir())) == 1
