"""Chalice: its package of an application, made into functions by the aws command line; and what it deploys by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from api_server import ROLE
from daemon_running import RunningDaemon, running_daemon
from moto_running import running_aws
from real_packages import PackageCache
from toolbox import HERE, run, sdk_environment

CHALICE: Final = "chalice==1.34.0"
AWS: Final = "awscli>=1.40"


def project(place: Path, name: str) -> Path:
    """The application as Chalice wants to find it. certifi is there for it to fetch."""
    (place / ".chalice").mkdir(parents=True)
    shutil.copy(HERE / f"chalice_app/{name}_app.py", place / "app.py")
    stage = {"api_gateway_stage": "api", "lambda_memory_size": 256, "environment_variables": {"STAGE": "dev"}}
    settings = {"version": "2.0", "app_name": name, "stages": {"dev": stage}}
    (place / ".chalice/config.json").write_text(json.dumps(settings))
    (place / "requirements.txt").write_text("certifi\n")
    return place


def chalice(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from chalice.cli import main; main()", *arguments]


def rest_event(method: str, resource: str, parameters: dict[str, str], body: Any = None) -> dict[str, Any]:
    """What API Gateway sends, as far as Chalice looks at it."""
    return {
        "headers": {"Content-Type": "application/json"},
        "multiValueQueryStringParameters": None,
        "pathParameters": parameters,
        "stageVariables": None,
        "requestContext": {"httpMethod": method, "resourcePath": resource, "identity": {"sourceIp": "127.0.0.1"}},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


class Aws:
    """`aws lambda ...` against the daemon."""

    def __init__(self, packages: PackageCache, daemon: RunningDaemon, place: Path) -> None:
        self._place = place
        self._environment = sdk_environment(daemon, PYTHONPATH=str(packages.install(AWS)))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "awscli", "lambda", *arguments]

    def __call__(self, *arguments: str) -> Any:
        """What it prints, which is JSON or nothing."""
        output = run(self.command(*arguments), self._place, self._environment)
        return json.loads(output) if output.strip() else None

    def invoke(self, name: str, event: Any) -> Any:
        """What the function returns, by way of files."""
        (self._place / "event.json").write_text(json.dumps(event))
        answer = self("invoke", "--function-name", name, "--payload", "fileb://event.json", "result.json")
        assert answer == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
        return json.loads((self._place / "result.json").read_text())

    def refused(self, *arguments: str) -> str:
        """What it says on stderr when the service refuses."""
        result = subprocess.run(
            self.command(*arguments),
            cwd=self._place,
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert result.returncode in (254, 255), result  # it has changed with its versions
        return result.stderr.strip()


@pytest.mark.timeout(420)
def test_package(daemon: RunningDaemon, packages: PackageCache, tmp_path: Path) -> None:
    place = project(tmp_path / "orders", "orders")
    environment = sdk_environment(daemon, PYTHONPATH=str(packages.install(CHALICE)))
    run(chalice("package", "out"), place, environment)
    resources = json.loads((place / "out/sam.json").read_text())["Resources"].values()
    functions = [one["Properties"] for one in resources if one["Type"] == "AWS::Serverless::Function"]
    assert {one["Handler"] for one in functions} == {"app.app", "app.count"}

    aws = Aws(packages, daemon, place)
    for one in functions:
        name = one["Handler"].replace(".", "-")
        created = aws(
            *("create-function", "--function-name", name, "--runtime", one["Runtime"], "--handler", one["Handler"]),
            *("--zip-file", "fileb://out/deployment.zip", "--role", ROLE, "--timeout", str(one["Timeout"])),
            *("--memory-size", str(one["MemorySize"]), "--environment", json.dumps(one["Environment"])),
            *("--tags", json.dumps(one["Tags"])),
        )
        assert created["State"] == "Pending" and created["CodeSize"] == (place / "out/deployment.zip").stat().st_size
        assert created["Environment"] == {"Variables": {"STAGE": "dev"}} and created["MemorySize"] == 256
    aws("wait", "function-active-v2", "--function-name", "app-app")
    found = aws("get-function", "--function-name", "app-app")
    assert found["Configuration"]["State"] == "Active"
    assert found["Tags"]["aws-chalice"].endswith(":stage=dev:app=orders")
    assert aws("list-functions", "--query", "Functions[].FunctionName") == ["app-app", "app-count"]

    assert aws.invoke("app-count", {"words": ["a", "b"]}) == 2
    kept = aws.invoke("app-app", rest_event("GET", "/orders/{number}", {"number": "1"}))
    assert kept["statusCode"] == 200 and json.loads(kept["body"]) == {"order": "1", "what": "two pieces"}
    placed = daemon.invoke("app-app", rest_event("POST", "/orders", {}, {"pieces": 3})).result
    assert json.loads(placed["body"]) == {"placed": {"pieces": 3}, "by": "app-app"}
    unknown = daemon.invoke("app-app", rest_event("GET", "/orders/{number}", {"number": "7"})).result
    assert unknown["statusCode"] == 404 and json.loads(unknown["body"])["Message"] == "there is no order 7"

    aws("delete-function", "--function-name", "app-count")
    assert aws.refused("get-function", "--function-name", "app-count").endswith(
        "An error occurred (ResourceNotFoundException) when calling the GetFunction operation:"
        " Function not found: arn:aws:lambda:us-east-1:000000000000:function:app-count"
    )


@pytest.mark.timeout(420)
def test_deploy(packages: PackageCache, tmp_path: Path) -> None:
    """Chalice's calls of Lambda come here, those of IAM and SQS go on to the server behind --aws-endpoint."""
    place = project(tmp_path / "jobs", "jobs")
    # A daemon may say that nobody reads the queue.
    with running_aws() as aws, running_daemon("--aws-endpoint", aws.url, complains=True) as daemon:
        # As AWS has it: no shorter than a function may run, which with Chalice is a minute.
        aws.client("sqs").create_queue(QueueName="jobs", Attributes={"VisibilityTimeout": "60"})
        environment = sdk_environment(daemon, PYTHONPATH=str(packages.install(CHALICE)))
        run(chalice("deploy"), place, environment)
        name = "jobs-dev-work"
        (role,) = aws.client("iam").list_roles()["Roles"]
        assert daemon.lambda_.get_function(FunctionName=name)["Configuration"]["Role"] == role["Arn"]
        (mapping,) = daemon.lambda_.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        assert mapping["BatchSize"] == 5 and mapping["EventSourceArn"].endswith(":jobs")
        event = {"Records": [{"body": "one", "receiptHandle": "1"}, {"body": "two", "receiptHandle": "2"}]}
        assert daemon.invoke(name, event).result == ["worked on one", "worked on two"]

        app = place / "app.py"
        app.write_text(app.read_text().replace("worked on", "looked at"))
        run(chalice("deploy"), place, environment)
        assert daemon.invoke(name, event).result == ["looked at one", "looked at two"]

        run(chalice("delete"), place, environment)
        assert daemon.lambda_.list_functions()["Functions"] == []
        assert daemon.lambda_.list_event_source_mappings()["EventSourceMappings"] == []
        assert aws.client("iam").list_roles()["Roles"] == []
