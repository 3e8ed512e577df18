"""Functions as people write them, with other people's libraries in them, called with events as AWS sends them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError

from daemon_running import ACCOUNT, GATE_CODE, Gate, RunningDaemon, running_daemon
from moto_running import AwsServer
from real_packages import PackageCache

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def daemon(aws: AwsServer) -> Iterator[RunningDaemon]:
    """A daemon that passes on what is for other services."""
    with running_daemon("--aws-endpoint", aws.url) as running:
        yield running


def example(name: str) -> tuple[dict[str, str], Any]:
    """The files and the event of one of the documentation's examples."""
    directory = EXAMPLES / name
    event = json.loads((directory / "event.json").read_text())
    return {"app.py": (directory / "app.py").read_text()}, event


# ---- the documentation's examples --------------------------------------------------------------------


def test_hello_answers_with_a_status_and_a_json_body(daemon: RunningDaemon) -> None:
    code, event = example("hello")
    daemon.deploy("hello", code)
    answer = daemon.invoke("hello", event).result
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"message": "Hello from fastlam!"}
    assert json.loads(daemon.invoke("hello", {}).result["body"]) == {"message": "Hello from Lambda!"}


def test_s3_records_with_a_client_made_at_import(daemon: RunningDaemon) -> None:
    code, event = example("s3_records")
    daemon.deploy("s3-records", code, Timeout=30)
    invoked = daemon.invoke("s3-records", event)
    links = invoked.result["links"]
    assert list(links) == ["2026/at the sea.jpg", "2026/dünen.jpg"]
    address = links["2026/at the sea.jpg"]
    assert address.startswith(f"{daemon.url}/holiday-photos/2026/at%20the%20sea.jpg?")
    assert "session" not in address
    assert invoked.printed()[0] == "ObjectCreated:Put: s3://holiday-photos/2026/at the sea.jpg, 1024 bytes"


def test_a_batch_of_a_dynamodb_stream(daemon: RunningDaemon) -> None:
    code, event = example("dynamodb_stream")
    daemon.deploy("stream", code, Timeout=30)
    invoked = daemon.invoke("stream", event)
    assert invoked.result["counts"] == {"INSERT": 1, "MODIFY": 1, "REMOVE": 1}
    insert, modify, remove = invoked.result["changes"]
    assert insert == {
        "kind": "INSERT",
        "keys": {"Id": 101},
        "changed": {"Id": 101, "Message": "New item!", "Tags": ["a", "b"]},
    }
    assert modify["changed"] == {"Message": "This item has changed", "Price": 9.99}
    assert b'"Price": 9.99}' in invoked.raw, "a Decimal is written as the number it is"
    assert set(remove["changed"]) == {"Id", "Message", "Price"}
    assert len(invoked.printed()) == 3


def test_word_count(daemon: RunningDaemon) -> None:
    code, event = example("word_count")
    daemon.deploy("words", code)
    answer = daemon.invoke("words", event).result
    assert answer["top"][:2] == [["the", 5], ["it", 4]]
    assert answer["words"] == len(event["text"].split())


def test_cpu_work_is_metered(daemon: RunningDaemon) -> None:
    code, event = example("cpu")
    daemon.deploy("cpu", code, MemorySize=1769, Timeout=60)
    invoked = daemon.invoke("cpu", event)
    assert invoked.result["primes"] == 148_933
    assert invoked.result["milliseconds_left"] > 0
    duration, billed = re.findall(r"\t(?:Billed )?Duration: ([\d.]+) ms", invoked.report)[:2]
    assert 0 < float(duration) <= float(billed)


# ---- the handlers of AWS's tutorials -----------------------------------------------------------------

READS_OBJECTS = """
import urllib.parse
import boto3

client = boto3.client("s3")

def handler(event, context):
    found = []
    for record in event["Records"]:
        place = {
            "Bucket": record["s3"]["bucket"]["name"],
            "Key": urllib.parse.unquote_plus(record["s3"]["object"]["key"], encoding="utf-8"),
        }
        answer = client.get_object(**place)
        print("CONTENT TYPE:", answer["ContentType"])
        found.append([place["Key"], answer["ContentType"], len(answer["Body"].read())])
    return found
"""


def test_s3_records_read_the_objects_they_name(daemon: RunningDaemon, aws: AwsServer) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="holiday-photos")
    body = bytes(range(256)) * 5000  # more than one packet each way
    s3.put_object(Bucket="holiday-photos", Key="2026/at the sea.jpg", Body=body, ContentType="image/jpeg")
    s3.put_object(Bucket="holiday-photos", Key="2026/dünen.jpg", Body=b"", ContentType="image/webp")
    _, event = example("s3_records")
    daemon.deploy("reads-objects", READS_OBJECTS, Timeout=30)
    invoked = daemon.invoke("reads-objects", event)
    assert invoked.result == [["2026/at the sea.jpg", "image/jpeg", len(body)], ["2026/dünen.jpg", "image/webp", 0]]
    assert invoked.printed() == ["CONTENT TYPE: image/jpeg", "CONTENT TYPE: image/webp"]
    event["Records"][0]["s3"]["object"]["key"] = "gone"
    failed = daemon.invoke("reads-objects", event)
    assert failed.json["errorType"] == "NoSuchKey"
    assert failed.json["stackTrace"][0].startswith('  File "/var/task/app.py", line 14, in handler\n')
    assert "/var/lang/lib/python" in failed.json["stackTrace"][1] or "/var/runtime" in failed.json["stackTrace"][1]


USES_SERVICES = """
import os
import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
queues = boto3.client("sqs")

def handler(event, context):
    table.put_item(Item={"id": event["id"], "text": event["text"], "tags": {"a", "b"}})
    answer = queues.send_message(QueueUrl=os.environ["QUEUE"], MessageBody=event["text"])
    item = table.get_item(Key={"id": event["id"]})["Item"]
    return {"message": bool(answer["MessageId"]), "item": {**item, "tags": sorted(item["tags"])}}
"""


def test_dynamodb_and_sqs_through_the_daemon(daemon: RunningDaemon, aws: AwsServer) -> None:
    aws.client("dynamodb").create_table(
        TableName="notes",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName="notes")["QueueUrl"]
    daemon.deploy("uses-services", USES_SERVICES, Timeout=30, environment={"TABLE": "notes", "QUEUE": queue})
    before = daemon.health()["statistics"]["forwarded"]
    answer = daemon.invoke("uses-services", {"id": 7, "text": "grüße"}).result
    assert answer == {"message": True, "item": {"id": 7, "text": "grüße", "tags": ["a", "b"]}}
    assert [message["Body"] for message in sqs.receive_message(QueueUrl=queue)["Messages"]] == ["grüße"]
    after = daemon.health()["statistics"]["forwarded"]
    assert (after["requests"] - before["requests"], after["failed"]) == (3, 0)


def test_a_function_invokes_another_one(daemon: RunningDaemon) -> None:
    daemon.deploy("callee", "def handler(event, context):\n    return [event, context.invoked_function_arn]\n")
    daemon.deploy(
        "caller",
        "import json, boto3\nclient = boto3.client('lambda')\n"
        "def handler(event, context):\n"
        "    answer = client.invoke(FunctionName='callee', Payload=json.dumps(event))\n"
        "    return json.load(answer['Payload'])\n",
        Timeout=30,
    )
    assert daemon.invoke("caller", {"n": 1}).result == [
        {"n": 1},
        f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:callee",
    ]


def test_without_an_endpoint_other_services_are_refused_in_one_sentence() -> None:
    with running_daemon() as alone:
        alone.deploy(
            "asks-s3",
            "import boto3\ndef handler(event, context):\n    return boto3.client('s3').list_buckets()\n",
            Timeout=30,
        )
        answer = alone.invoke("asks-s3").json
        assert answer["errorType"] == "ClientError"
        assert "--aws-endpoint" in answer["errorMessage"] or "501" in answer["errorMessage"]
        with pytest.raises(ClientError) as caught:
            alone.client("sqs").list_queues()
        assert "--aws-endpoint URL" in caught.value.response["Error"]["Message"]


# ---- frameworks --------------------------------------------------------------------------------------

POWERTOOLS_APP = """
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.logging import correlation_paths

logger = Logger(service="greetings")
app = APIGatewayRestResolver()

@app.get("/hello/<name>")
def hello(name: str):
    logger.info("greeting", extra={"greeted": name})
    return {"hello": name, "loud": app.current_event.get_query_string_value("loud", "no")}

@app.post("/hello")
def create():
    return {"created": app.current_event.json_body}, 201

@app.get("/missing")
def missing():
    raise NotFoundError("nobody here")

@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
def handler(event, context):
    return app.resolve(event, context)
"""


def rest_event(method: str, path: str, resource: str, **more: Any) -> dict[str, Any]:
    """As API Gateway's REST APIs send it with proxy integration."""
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": {"Accept": "application/json", "Content-Type": "application/json"},
        "multiValueHeaders": {"Accept": ["application/json"], "Content-Type": ["application/json"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "1234567890",
            "httpMethod": method,
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "test"},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTimeEpoch": 1773119783000,
            "resourcePath": resource,
            "stage": "prod",
        },
        "body": None,
        "isBase64Encoded": False,
        **more,
    }


def test_powertools_for_aws_lambda(daemon: RunningDaemon, packages: PackageCache) -> None:
    code = packages.package(POWERTOOLS_APP, "aws-lambda-powertools>=3,<4")
    daemon.deploy("powertools", code, Timeout=30, environment={"POWERTOOLS_LOG_LEVEL": "INFO"})
    query = {"queryStringParameters": {"loud": "yes"}, "multiValueQueryStringParameters": {"loud": ["yes"]}}
    invoked = daemon.invoke("powertools", rest_event("GET", "/hello/ada", "/hello/{name}", **query))
    assert invoked.result["statusCode"] == 200
    assert json.loads(invoked.result["body"]) == {"hello": "ada", "loud": "yes"}
    record = json.loads(invoked.printed()[0])
    assert (record["level"], record["message"], record["greeted"]) == ("INFO", "greeting", "ada")
    assert record["function_request_id"] == invoked.request_id
    assert (record["function_name"], record["function_memory_size"]) == ("powertools", "128")
    assert record["function_arn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:powertools"
    assert record["correlation_id"] == "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    assert record["cold_start"] is True
    created = daemon.invoke("powertools", rest_event("POST", "/hello", "/hello", body='{"name": "ä"}')).result
    assert (created["statusCode"], json.loads(created["body"])) == (201, {"created": {"name": "ä"}})
    missing = daemon.invoke("powertools", rest_event("GET", "/missing", "/missing")).result
    assert (missing["statusCode"], json.loads(missing["body"])["message"]) == (404, "nobody here")


FASTAPI_APP = """
from fastapi import FastAPI, HTTPException
from mangum import Mangum
from pydantic import BaseModel

app = FastAPI()

class Order(BaseModel):
    item: str
    amount: int = 1

@app.get("/orders/{number}")
async def read(number: int, verbose: bool = False):
    if number > 100:
        raise HTTPException(404, "no such order")
    return {"number": number, "verbose": verbose}

@app.post("/orders", status_code=201)
def create(order: Order):
    return {"total": order.amount * 2, **order.model_dump()}

handler = Mangum(app, lifespan="off")
"""


def http_event(method: str, path: str, query: str = "", body: str | None = None) -> dict[str, Any]:
    """As API Gateway's HTTP APIs and function URLs send it: payload format 2.0."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "abc.lambda-url.us-east-1.on.aws", "content-type": "application/json"},
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "abc",
            "domainName": "abc.lambda-url.us-east-1.on.aws",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "test",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "10/Mar/2026:05:16:23 +0000",
            "timeEpoch": 1773119783000,
        },
        "isBase64Encoded": False,
    }
    return event if body is None else event | {"body": body}


def test_fastapi_under_mangum(daemon: RunningDaemon, packages: PackageCache) -> None:
    code = packages.package(FASTAPI_APP, "fastapi>=0.115", "mangum>=0.19")
    daemon.deploy("fastapi", code, Timeout=30, MemorySize=512)
    read = daemon.invoke("fastapi", http_event("GET", "/orders/7", "verbose=true")).result
    assert (read["statusCode"], json.loads(read["body"])) == (200, {"number": 7, "verbose": True})
    assert read["headers"]["content-type"] == "application/json"
    created = daemon.invoke("fastapi", http_event("POST", "/orders", body='{"item": "tea", "amount": 3}')).result
    assert (created["statusCode"], json.loads(created["body"])) == (201, {"total": 6, "item": "tea", "amount": 3})
    wrong = daemon.invoke("fastapi", http_event("POST", "/orders", body='{"amount": "many"}')).result
    assert wrong["statusCode"] == 422
    assert daemon.invoke("fastapi", http_event("GET", "/orders/101")).result["statusCode"] == 404
    assert daemon.invoke("fastapi", http_event("GET", "/nowhere")).result["statusCode"] == 404
    assert len(daemon.environments("fastapi")) == 1


# ---- libraries ---------------------------------------------------------------------------------------

NUMPY_HANDLER = """
import numpy as np

def handler(event, context):
    if not event:
        return {"n": np.int64(7)}
    matrix = np.array(event, dtype=float)
    inverse = np.linalg.inv(matrix)
    identity = np.allclose(matrix @ inverse, np.eye(len(matrix)))
    print(matrix)
    return {"identity": bool(identity), "sum": float(matrix.sum()), "inverse": inverse.tolist(), "where": np.__file__}
"""


def test_numpy(daemon: RunningDaemon, packages: PackageCache) -> None:
    daemon.deploy("numpy", packages.package(NUMPY_HANDLER, "numpy"), Timeout=30, MemorySize=512)
    invoked = daemon.invoke("numpy", [[2, 0], [0, 4]])
    assert invoked.result["identity"] is True
    assert (invoked.result["sum"], invoked.result["inverse"]) == (6.0, [[0.5, 0.0], [0.0, 0.25]])
    assert invoked.printed() == ["[[2. 0.]", " [0. 4.]]"]
    singular = daemon.invoke("numpy", [[1, 1], [1, 1]])
    assert singular.json["errorType"] == "LinAlgError"
    assert singular.json["stackTrace"][-1].startswith('  File "/var/task/numpy/linalg/')
    assert daemon.invoke("numpy", []).json["errorMessage"] == (
        "Unable to marshal response: Object of type int64 is not JSON serializable"
    )


# Releases with wheels for each Python, all of them older than what fastlam itself needs.
OLD_MSGSPEC = {11: "0.18.6", 12: "0.18.6", 13: "0.19.0"}.get(sys.version_info.minor, "0.20.0")
OLD_BOTO3 = "1.26.0"

SHIPS_ITS_OWN = """
import os
import boto3, botocore, msgspec, urllib3

# This boto3 does not read AWS_ENDPOINT_URL itself: releases before July 2023 do not.
daemon = boto3.client("lambda", endpoint_url=os.environ["AWS_ENDPOINT_URL"])

class Point(msgspec.Struct):
    x: int
    y: int

s3 = boto3.client("s3", region_name="eu-north-1")

def handler(event, context):
    return {
        "versions": [boto3.__version__, msgspec.__version__],
        "files": [module.__file__ for module in (boto3, botocore, msgspec, msgspec._core, urllib3)],
        "packed": list(msgspec.msgpack.encode(Point(1, 2))),
        "decoded": msgspec.json.decode(b'{"x": 1, "y": 2}', type=Point).y,
        "url": s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}),
        "invoked": daemon.get_function_configuration(FunctionName=event)["FunctionName"],
    }
"""


def test_a_function_that_ships_older_msgspec_and_boto3_uses_them(daemon: RunningDaemon, packages: PackageCache) -> None:
    assert msgspec.__version__ != OLD_MSGSPEC
    assert boto3.__version__ != OLD_BOTO3
    code = packages.package(SHIPS_ITS_OWN, f"msgspec=={OLD_MSGSPEC}", f"boto3=={OLD_BOTO3}")
    daemon.deploy("ships-its-own", code, Timeout=60)
    for _ in range(2):
        answer = daemon.invoke("ships-its-own", "ships-its-own").result
        assert answer["versions"] == [OLD_BOTO3, OLD_MSGSPEC]
        root = {path.rpartition("/boto3/")[0] for path in answer["files"] if "/boto3/" in path}.pop()
        assert all(path.startswith(f"{root}/") for path in answer["files"]), answer["files"]
        assert bytes(answer["packed"]) == b"\x82\xa1x\x01\xa1y\x02"
        assert answer["decoded"] == 2
        assert answer["url"].startswith("https://b.s3.amazonaws.com/k?") or "/b/k?" in answer["url"]
        assert answer["invoked"] == "ships-its-own"


# ---- output and threads ------------------------------------------------------------------------------


def test_ten_thousand_lines(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "chatters",
        "def handler(event, context):\n    for number in range(event):\n        print(f'line {number:05} of {event}')\n",
        Timeout=60,
    )
    expected = [f"line {number:05} of 10000\n" for number in range(10_000)]
    for rounds in (1, 2):
        invoked = daemon.invoke("chatters", 10_000)
        assert len(invoked.log.encode()) == 4096
        shown = invoked.log.partition("END RequestId")[0].splitlines(keepends=True)[1:]
        assert len(shown) > 100
        assert shown == expected[-len(shown) :]
        assert [line for line in daemon.logs("chatters") if line.startswith("line ")] == expected * rounds


STARTS_A_THREAD = (
    GATE_CODE
    + """
import threading

def late(port):
    wait_at(port, "thread waits")
    print("said after the answer")
    wait_at(port, "thread has said it")

def handler(event, context):
    if event["start"]:
        threading.Thread(target=late, args=(event["gate"],)).start()
    print("call", event["start"])
    return threading.active_count()
"""
)


def test_what_a_left_thread_prints_belongs_to_the_next_invocation(daemon: RunningDaemon, gate: Gate) -> None:
    daemon.deploy("leaves-a-thread", STARTS_A_THREAD)
    first = daemon.invoke("leaves-a-thread", {"start": True, "gate": gate.port})
    assert (first.result, first.printed()) == (2, ["call True"])
    assert gate.arrive() == ["thread waits"]
    gate.open()
    assert gate.arrive() == ["thread has said it"]
    assert not any("said after" in line for line in daemon.logs("leaves-a-thread"))
    second = daemon.invoke("leaves-a-thread", {"start": False})
    assert (second.result, second.printed()) == (2, ["said after the answer", "call False"])
    gate.open()
    assert daemon.invoke("leaves-a-thread", {"start": False}).printed() == ["call False"]


def test_an_asyncio_handler_of_ones_own(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "loops",
        "import asyncio\nloop = asyncio.new_event_loop()\n"
        "async def work(numbers):\n"
        "    async def double(number):\n        await asyncio.sleep(0)\n        return 2 * number\n"
        "    return await asyncio.gather(*map(double, numbers))\n"
        "def handler(event, context):\n    return loop.run_until_complete(work(event))\n",
    )
    assert [daemon.invoke("loops", [1, 2, count]).result for count in (3, 4)] == [[2, 4, 6], [2, 4, 8]]


def test_processes_of_its_own(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "multiprocesses",
        "import multiprocessing, os\n"
        "def work(pipe, numbers):\n    pipe.send([os.getpid() != os.getppid(), sum(numbers)])\n"
        "def handler(event, context):\n"
        "    ours, theirs = multiprocessing.Pipe()\n"
        "    child = multiprocessing.get_context('fork').Process(target=work, args=(theirs, event))\n"
        "    child.start()\n    answer = ours.recv()\n    child.join()\n    return answer + [child.exitcode]\n",
        Timeout=30,
    )
    assert daemon.invoke("multiprocesses", [1, 2, 3]).result == [True, 6, 0]


def test_nothing_of_all_this_troubled_the_daemon(daemon: RunningDaemon) -> None:
    assert daemon.stderr() == ""
    statistics = daemon.health()["statistics"]
    assert statistics["dispatcher"]["bad_frames"] == 0
    assert statistics["forwarded"]["failed"] == 0
    assert statistics["http"]["handler_errors"] == 0
