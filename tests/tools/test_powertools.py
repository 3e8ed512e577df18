"""Powertools for AWS Lambda (Python): its parts in handlers as its users write them, deployed with the package in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, running_daemon
from moto_running import running_aws
from real_packages import PackageCache
from toolbox import HERE

POWERTOOLS: Final = "aws-lambda-powertools==3.37.0"
TABLE: Final = "payments"
# Where the X-Ray SDK notes that it has begun, in every environment: a function's /tmp is this machine's.
XRAY: Final = Path("/tmp/.aws-xray")


def package(packages: PackageCache, module: str, requirement: str = POWERTOOLS) -> bytes:
    return packages.package({f"{module}.py": (HERE / "powertools" / f"{module}.py").read_text()}, requirement)


def rest_event(method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> dict[str, Any]:
    """What API Gateway sends for a REST API with a proxy integration."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Accept": "*/*", "Content-Type": "application/json"},
        "multiValueHeaders": {"Accept": ["*/*"], "Content-Type": ["application/json"]},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: [value] for name, value in (query or {}).items()} or None,
        "pathParameters": {"proxy": path.strip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "abcdef1234",
            "httpMethod": method,
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "test"},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "of-the-gateway",
            "requestTimeEpoch": 1_700_000_000_000,
            "resourceId": "xyz",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def sqs_event(*orders: dict[str, Any]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"message-{number}",
                "receiptHandle": "handle",
                "body": json.dumps(order),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1700000000000",
                    "SenderId": "000000000000",
                    "ApproximateFirstReceiveTimestamp": "1700000000001",
                },
                "messageAttributes": {},
                "md5OfBody": "00000000000000000000000000000000",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:orders",
                "awsRegion": "us-east-1",
            }
            for number, order in enumerate(orders)
        ]
    }


@pytest.mark.timeout(420)
def test_rest_api(daemon: RunningDaemon, packages: PackageCache) -> None:
    name = daemon.deploy("greetings", package(packages, "greetings"), handler="greetings.handler", MemorySize=512)

    first = daemon.invoke(name, rest_event("GET", "/greetings/Ada", query={"language": "fr"}))
    assert first.result["statusCode"] == 200
    assert json.loads(first.result["body"]) == {"greeting": "Bonjour, Ada"}
    lines = [json.loads(line) for line in first.printed() if line.startswith("{")]
    said = next(line for line in lines if line.get("message") == "asked for a greeting")
    assert said["function_request_id"] == first.request_id
    assert said["function_name"] == name and said["function_memory_size"] == "512"
    assert said["function_arn"] == f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    assert said["correlation_id"] == "of-the-gateway" and said["language"] == "fr" and said["cold_start"] is True
    measured = [line for line in lines if "_aws" in line]
    assert {"Greetings", "ColdStart"} <= {metric for line in measured for metric in line}
    assert {line["_aws"]["CloudWatchMetrics"][0]["Namespace"] for line in measured} == {"Fastlam"}

    again = daemon.invoke(name, rest_event("GET", "/greetings/Eve"))
    assert json.loads(again.result["body"]) == {"greeting": "Hello, Eve"}
    assert '"cold_start":false' in again.log

    kept = daemon.invoke(name, rest_event("POST", "/greetings", {"name": "Ada"})).result
    assert (kept["statusCode"], kept["body"]) == (201, "Ada")
    assert kept["multiValueHeaders"]["Location"] == ["/greetings/Ada"]
    assert daemon.invoke(name, rest_event("POST", "/greetings", {})).result["statusCode"] == 400
    assert daemon.invoke(name, rest_event("GET", "/elsewhere")).result["statusCode"] == 404
    refused = daemon.invoke(name, rest_event("GET", "/impossible")).result
    assert (refused["statusCode"], refused["body"]) == (418, "division by zero")


@pytest.mark.timeout(420)
def test_batch_and_idempotency(packages: PackageCache) -> None:
    """With boto3 of the runtime, whose calls go through the daemon to the DynamoDB behind --aws-endpoint."""
    with running_aws() as aws, running_daemon("--aws-endpoint", aws.url) as daemon:
        aws.client("dynamodb").create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        code, settings = package(packages, "orders"), {"PAYMENTS_TABLE": TABLE}
        shipping = daemon.deploy("shipping", code, handler="orders.batch", environment=settings, Timeout=30)
        orders = [{"order": 1, "pieces": 2}, {"order": 2, "pieces": 0}, {"order": 3, "pieces": 1}]
        shipped = daemon.invoke(shipping, sqs_event(*orders))
        assert shipped.result == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
        assert [line for line in shipped.printed() if line.startswith("shipped")] == ["shipped 1", "shipped 3"]
        failed = daemon.invoke(shipping, sqs_event({"order": 2, "pieces": 0}))
        assert failed.error == "Unhandled"
        assert (
            failed.json["errorType"] == "BatchProcessingError"
            and "order 2 has no pieces" in failed.json["errorMessage"]
        )

        paying = daemon.deploy("paying", code, handler="orders.pay", environment=settings, Timeout=30)
        first = daemon.invoke(paying, {"order": "A"})
        assert first.result == {"order": "A", "paid_in": first.request_id} and "paid A" in first.log
        again = daemon.invoke(paying, {"order": "A"})
        assert again.result == first.result and again.request_id != first.request_id and "paid A" not in again.log
        other = daemon.invoke(paying, {"order": "B"})
        assert other.result["paid_in"] == other.request_id
        (kept, _) = sorted(aws.client("dynamodb").scan(TableName=TABLE)["Items"], key=lambda item: item["data"]["S"])
        assert kept["status"]["S"] == "COMPLETED" and kept["id"]["S"].startswith("paying.")


@pytest.fixture
def no_trace_of_xray() -> Iterator[None]:
    there = XRAY.exists()
    yield
    if not there:
        shutil.rmtree(XRAY, ignore_errors=True)


@pytest.mark.usefixtures("no_trace_of_xray")
@pytest.mark.timeout(420)
def test_tracer(daemon: RunningDaemon, packages: PackageCache) -> None:
    code = package(packages, "traced", POWERTOOLS.replace("==", "[tracer]=="))
    name = daemon.deploy("traced", code, handler="traced.handler", Timeout=30)
    first = daemon.invoke(name, {"number": 21})
    assert first.result["doubled"] == 42 and first.result["segment"] == "## handler"
    assert f"Root={first.result['trace']}" in first.headers["x-amzn-trace-id"]
    assert daemon.invoke(name, {"number": 1}).result["trace"] != first.result["trace"]
