"""Versions and aliases as invocations see them: which code runs, what it is told, how traffic is shifted and taken back."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from daemon_running import ACCOUNT, GATE_CODE, REGION, Gate, RunningDaemon, zipped

pytestmark = pytest.mark.lanes

ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"
WEIGHTED_INVOKES = 10_000
# Of 10,000 draws of 0.1 this many lie on either side of the 99.9 % interval's ends: Binomial(10000, 0.1).
LEAST, MOST = 903, 1100


def code(text: str) -> str:
    """A handler that says which code it is, and all that it was told about itself."""
    return (
        "import os\n"
        "def handler(event, context):\n"
        f"    print('this is {text}')\n"
        "    return {\n"
        f"        'code': {text!r},\n"
        "        'version': context.function_version,\n"
        "        'arn': context.invoked_function_arn,\n"
        "        'stage': os.environ.get('STAGE'),\n"
        "        'variable': os.environ['AWS_LAMBDA_FUNCTION_VERSION'],\n"
        "        'pid': os.getpid(),\n"
        "    }\n"
    )


def deploy_versions(daemon: RunningDaemon, name: str) -> str:
    """Version 1 is blue, version 2 green, $LATEST red; each with a STAGE of its colour."""
    daemon.deploy(name, code("blue"), environment={"STAGE": "blue"}, Timeout=30)
    daemon.lambda_.publish_version(FunctionName=name)
    for colour in ("green", "red"):
        daemon.lambda_.update_function_configuration(FunctionName=name, Environment={"Variables": {"STAGE": colour}})
        daemon.settle(name)
        daemon.update(name, code(colour))
        if colour == "green":
            daemon.lambda_.publish_version(FunctionName=name)
    return name


@pytest.fixture(scope="module")
def colours(daemon: RunningDaemon) -> str:
    name = deploy_versions(daemon, "colours")
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    daemon.lambda_.create_alias(FunctionName=name, Name="edge", FunctionVersion="$LATEST")
    return name


@pytest.mark.parametrize(
    ("qualifier", "version", "colour"),
    [
        (None, "$LATEST", "red"),
        ("$LATEST", "$LATEST", "red"),
        ("1", "1", "blue"),
        ("2", "2", "green"),
        ("live", "1", "blue"),
        ("edge", "$LATEST", "red"),
    ],
)
def test_every_qualifier_in_every_place(
    daemon: RunningDaemon, colours: str, qualifier: str | None, version: str, colour: str
) -> None:
    for locator in (
        colours,
        f"function:{colours}",
        f"{ACCOUNT}:function:{colours}",
        f"{REGION}:{ACCOUNT}:function:{colours}",
        f"{ARN}:{colours}",
    ):
        forms: list[dict[str, str]] = [{"FunctionName": locator}]
        if qualifier is not None:
            forms = [
                {"FunctionName": locator, "Qualifier": qualifier},
                {"FunctionName": f"{locator}:{qualifier}"},
                {"FunctionName": f"{locator}:{qualifier}", "Qualifier": qualifier},
            ]
        for form in forms:
            invoked = daemon.invoke(form.pop("FunctionName"), **form)
            assert invoked.version == version
            result = invoked.result
            assert result.pop("pid") > 1
            assert result == {
                "code": colour,
                "stage": colour,
                "version": version,
                "variable": version,
                "arn": f"{ARN}:{colours}" + (f":{qualifier}" if qualifier else ""),
            }
            assert invoked.log.startswith(f"START RequestId: {invoked.request_id} Version: {version}\n") or (
                f"\nSTART RequestId: {invoked.request_id} Version: {version}\n" in invoked.log
            )
            assert invoked.printed() == [f"this is {colour}"]


def test_qualifiers_that_lead_nowhere(daemon: RunningDaemon, colours: str) -> None:
    for qualifier in ("3", "01", "gone", "LIVE", "$LATEST.PUBLISHED"):
        with pytest.raises(ClientError) as caught:
            daemon.invoke(colours, Qualifier=qualifier)
        assert caught.value.response["Error"] == {
            "Code": "ResourceNotFoundException",
            "Message": f"Function not found: {ARN}:{colours}:{qualifier}",
        }
    for name, qualifier in ((f"{colours}:1", "2"), (f"{colours}:live", "1")):
        with pytest.raises(ClientError) as caught:
            daemon.invoke(name, Qualifier=qualifier)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_versions_have_environments_of_their_own(daemon: RunningDaemon, colours: str) -> None:
    pids = {qualifier: daemon.invoke(colours, Qualifier=qualifier).result["pid"] for qualifier in ("$LATEST", "1", "2")}
    assert len(set(pids.values())) == 3
    assert daemon.invoke(colours, Qualifier="live").result["pid"] == pids["1"]
    rows = {row["version"]: row["pid"] for row in daemon.environments(colours)}
    assert rows == pids


def test_one_log_for_all_versions(daemon: RunningDaemon) -> None:
    name = deploy_versions(daemon, "logged")
    for qualifier in ("1", "$LATEST", "2", "1"):
        daemon.invoke(name, Qualifier=qualifier)
    lines = daemon.logs(name, lambda lines: len([line for line in lines if line.startswith("REPORT")]) == 4)
    starts = [line.split()[-1] for line in lines if line.startswith("START")]
    assert starts == ["1", "$LATEST", "2", "1"]
    assert [line for line in lines if line.startswith("this")] == [
        f"this is {colour}\n" for colour in ("blue", "red", "green", "blue")
    ]
    command = [sys.executable, "-m", "fastlam", "--endpoint-url", daemon.url, "logs", name, "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [json.loads(line)["message"] for line in shown] == lines
    daemon.lambda_.delete_function(FunctionName=name, Qualifier="2")
    assert [line for line in daemon.logs(name) if line.startswith("this")] == [
        f"this is {colour}\n" for colour in ("blue", "red", "blue")
    ]


def test_later_changes_do_not_reach_a_version(daemon: RunningDaemon) -> None:
    name = deploy_versions(daemon, "kept")
    before = daemon.invoke(name, Qualifier="1").result
    daemon.lambda_.update_function_configuration(
        FunctionName=name, Environment={"Variables": {}}, Handler="app.nothing", Timeout=1
    )
    daemon.settle(name)
    assert daemon.invoke(name).error == "Unhandled"
    assert daemon.invoke(name, Qualifier="1").result == before  # in the same process, too


def shift(daemon: RunningDaemon, name: str, version: str, **weights: float) -> None:
    routing = {"AdditionalVersionWeights": {key[1:]: weight for key, weight in weights.items()}}
    daemon.lambda_.update_alias(FunctionName=name, Name="live", FunctionVersion=version, RoutingConfig=routing)


def executed_versions(daemon: RunningDaemon, name: str, count: int, callers: int = 4) -> Counter[str]:
    """How often each version was executed, over so many invocations; each must have run what it says."""
    path = f"/2015-03-31/functions/{quote(name)}/invocations"

    def call(count: int) -> Counter[str]:
        found: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        for _ in range(count):
            connection.request("POST", path, b"{}")
            response = connection.getresponse()
            body = json.loads(response.read())
            assert response.status == 200 and body["version"] == response.headers["X-Amz-Executed-Version"]
            assert body["code"] == {"1": "blue", "2": "green"}[body["version"]]
            found[body["version"]] += 1
        connection.close()
        return found

    with ThreadPoolExecutor(callers) as pool:
        return sum(pool.map(call, [count // callers] * callers), Counter())


def test_ninety_to_ten(daemon: RunningDaemon) -> None:
    """10,000 invocations of an alias with a weight of 0.1, within the 99.9 % interval of the binomial distribution."""
    name = deploy_versions(daemon, "weighted")
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    shift(daemon, name, "1", v2=0.1)
    # One honest run in a thousand lies outside: a second one outside as well is no chance any more.
    for _ in range(2):
        found = executed_versions(daemon, f"{name}:live", WEIGHTED_INVOKES)
        print(f"{found['2']} of {found.total()} invocations went to the second version")
        assert found.total() == WEIGHTED_INVOKES
        if LEAST <= found["2"] <= MOST:
            break
    else:
        pytest.fail(f"{found} is not 90 to 10")
    assert set(executed_versions(daemon, f"{name}:1", 40)) == {"1"}  # the version itself has no weights


def test_blue_green_and_back(daemon: RunningDaemon) -> None:
    """Under load: each call that begins after a shift was answered goes where the alias then points; none fails."""
    name = deploy_versions(daemon, "shifted")
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    alias = f"{name}:live"
    stop = threading.Event()
    errors: list[BaseException] = []

    def load() -> None:
        try:
            while not stop.is_set():
                executed_versions(daemon, alias, 4, callers=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            shift(daemon, name, "1")
            assert set(executed_versions(daemon, alias, 20, callers=2)) == {"1"}
            shift(daemon, name, "1", v2=0.5)
            shift(daemon, name, "2")
            assert set(executed_versions(daemon, alias, 20, callers=2)) == {"2"}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_an_alias_that_is_deleted(daemon: RunningDaemon) -> None:
    name = deploy_versions(daemon, "unaliased")
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    assert daemon.invoke(name, Qualifier="live").version == "1"
    daemon.lambda_.delete_alias(FunctionName=name, Name="live")
    with pytest.raises(ClientError, match=f"Function not found: {ARN}:{name}:live"):
        daemon.invoke(name, Qualifier="live")
    assert daemon.invoke(name, Qualifier="1").version == "1"


def test_a_version_that_is_deleted_while_it_runs(daemon: RunningDaemon, gate: Gate) -> None:
    """What runs comes to its end; nothing new begins."""
    held = "def handler(event, context):\n    wait_at(event['gate'])\n    return context.function_version\n"
    name = daemon.deploy("held", GATE_CODE + held, Timeout=60)
    daemon.lambda_.publish_version(FunctionName=name)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(daemon.invoke, name, {"gate": gate.port}, Qualifier="1")
        gate.arrive()
        daemon.lambda_.delete_function(FunctionName=name, Qualifier="1")
        with pytest.raises(ClientError, match="Function not found"):
            daemon.invoke(name, Qualifier="1")
        gate.open()
        assert call.result().result == "1"


def test_no_call_fails_while_code_is_updated(daemon: RunningDaemon) -> None:
    """Old code until the update is done, new code after it: what a caller sees never goes back."""

    def numbered(number: int) -> str:
        return f"def handler(event, context):\n    return {number}\n"

    name = daemon.deploy("updated", numbered(0))
    daemon.lambda_.create_alias(FunctionName=name, Name="latest", FunctionVersion="$LATEST")
    stop = threading.Event()

    def load(qualifier: str) -> list[int]:
        seen = []
        while not stop.is_set():
            seen.append(daemon.invoke(name, Qualifier=qualifier).result)
        return seen

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(load, qualifier) for qualifier in ("$LATEST", "latest")]
        try:
            for number in range(1, 11):
                daemon.update(name, numbered(number))
                assert daemon.invoke(name).result == number
        finally:
            stop.set()
        for call in calls:
            seen = call.result()
            assert seen == sorted(seen)


def test_reserved_concurrency_counts_all_versions(daemon: RunningDaemon, gate: Gate) -> None:
    held = "def handler(event, context):\n    wait_at(event['gate'])\n"
    name = daemon.deploy("shared", GATE_CODE + held, Timeout=60)
    daemon.lambda_.publish_version(FunctionName=name)
    daemon.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(daemon.invoke, name, {"gate": gate.port}, Qualifier=each) for each in ("1", "$LATEST")]
        gate.arrive(2)
        for qualifier in ("1", "$LATEST"):
            with pytest.raises(ClientError) as caught:
                daemon.invoke(name, Qualifier=qualifier)
            assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
        gate.open()
        assert [call.result().version for call in calls] == ["1", "$LATEST"]


def test_events_go_where_the_alias_points(daemon: RunningDaemon) -> None:
    name = deploy_versions(daemon, "evented")
    daemon.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert daemon.lambda_.invoke(FunctionName=name, Qualifier="live", InvocationType="Event")["StatusCode"] == 202
    lines = daemon.logs(name, lambda lines: any(line.startswith("REPORT") for line in lines))
    assert "this is green\n" in lines
    assert any(line.startswith("START") and line.endswith("Version: 2\n") for line in lines)


def test_published_code_is_invoked_without_latest(daemon: RunningDaemon) -> None:
    """Publish on create and on update make versions that run."""
    client: Any = daemon.lambda_
    daemon.deploy("direct", code("blue"), Publish=True)
    assert daemon.invoke("direct", Qualifier="1").result["code"] == "blue"
    answer = client.update_function_code(FunctionName="direct", ZipFile=zipped(code("green")), Publish=True)
    assert answer["Version"] == "2"
    client.get_waiter("published_version_active").wait(
        FunctionName="direct", Qualifier="2", WaiterConfig={"Delay": 0.02, "MaxAttempts": 300}
    )
    assert daemon.invoke("direct", Qualifier="2").result["code"] == "green"
    assert daemon.invoke("direct", Qualifier="1").result["code"] == "blue"
