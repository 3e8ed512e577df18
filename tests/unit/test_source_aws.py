"""AWS over the loop: the HTTP client against servers that misbehave, and as whom services are called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from fastlam.sources.aws.http import Answer, HttpClient, NoAnswer
from fastlam.sources.aws.service import AwsClients, AwsError, NoCredentials
from fastlam.sources.aws.signing import sign
from scripted_server import answer, serving

ROLE = "arn:aws:iam::000000000000:role/r"
NOBODY = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def get(url: str, seconds: float = 10.0) -> Answer:
    async def run() -> Answer:
        client = HttpClient()
        try:
            return await client.request("POST", url, {"X-Test": "1"}, b"body", seconds)
        finally:
            client.close()
            await asyncio.sleep(0)  # transports close in the next pass

    return asyncio.run(run())


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["length", "chunked", "to the end", "after a hundred"],
)
def test_answers(sent: bytes) -> None:
    with serving(sent) as server:
        found = get(f"{server.url}/path?query=1")
    assert (found.status, found.body) == (200, b"hello")
    head = server.asked[0].decode()
    assert head.startswith("POST /path?query=1 HTTP/1.1\r\nX-Test: 1\r\nHost: 127.0.0.1:")
    assert "\r\nContent-Length: 4\r\n" in head


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "the connection was closed"),
        (b"SSH-2.0-OpenSSH\r\n", "its answer is no HTTP"),
        (b"", "the connection was closed"),
    ],
    ids=["cut short", "garbage", "nothing"],
)
def test_bad_answers(sent: bytes, why: str) -> None:
    with serving(sent) as server, pytest.raises(NoAnswer, match=why):
        get(server.url)


def test_nobody_there() -> None:
    with pytest.raises(NoAnswer, match="http://127.0.0.1:1 cannot be reached"):
        get("http://127.0.0.1:1")


def served(handler: Handler, work: Callable[[str], Awaitable[Any]]) -> Any:
    """The result of the work, with a server in the same loop."""

    async def run() -> Any:
        ended: list[asyncio.Future[None]] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            done = asyncio.get_running_loop().create_future()
            ended.append(done)
            try:
                await handler(reader, writer)
            finally:
                writer.close()
                await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})
                done.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            result = await work(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await asyncio.gather(*ended)
            return result

    return asyncio.run(run())


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


def test_connections_are_kept_and_replaced() -> None:
    """One that the server has closed meanwhile is tried again on a new one."""
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        while connections[-1] < 2:  # two requests each, and away
            await read_request(reader)
            connections[-1] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1)  # the next one begins to come, or the client leaves

    async def work(url: str) -> None:
        client = HttpClient()
        for _ in range(6):
            assert (await client.request("GET", url, {}, b"", 10)).status == 200
        client.close()
        await asyncio.sleep(0)

    served(handler, work)
    assert connections == [2, 2, 2]


def test_silence() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work(url: str) -> None:
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.05 s"):
            await HttpClient().request("GET", url, {}, b"", 0.05)
        await asyncio.sleep(0)

    served(handler, work)


def test_cancelled_polls_take_their_connection_along() -> None:
    gone = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        gone.append(await reader.read())
        ended.set()

    asked, ended = asyncio.Event(), asyncio.Event()

    async def work(url: str) -> None:
        poll = asyncio.ensure_future(HttpClient().request("GET", url, {}, b"", 60))
        await asked.wait()
        poll.cancel()
        await asyncio.wait({poll})
        await ended.wait()
        await asyncio.sleep(0)

    served(handler, work)
    assert gone == [b""]


# As whom -------------------------------------------------------------------------------------------


def test_endpoints() -> None:
    clients = AwsClients("http://127.0.0.1:5000/", environ={})
    assert (clients.endpoint_of("sqs"), clients.is_aws("sqs")) == ("http://127.0.0.1:5000", False)
    clients = AwsClients(environ={"AWS_ENDPOINT_URL_SQS": "http://a:1", "AWS_ENDPOINT_URL": "https://b.amazonaws.com"})
    assert (clients.endpoint_of("sqs"), clients.is_aws("sqs")) == ("http://a:1", False)
    assert (clients.endpoint_of("kinesis"), clients.is_aws("kinesis")) == ("https://b.amazonaws.com", True)
    assert AwsClients(environ={}).is_aws("sqs")
    # What points at the daemon itself would come back to it.
    assert (
        AwsClients("http://127.0.0.1:4566", environ={}, ours=lambda: "http://127.0.0.1:4566").endpoint_of("sqs") is None
    )


STS = (
    b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
    b"<SessionToken>token</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>"
    b"</AssumeRoleResponse>"
)
QUEUES = json.dumps({"QueueUrls": ["q"]}).encode()


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)


def call(url: str | None, role: str = "", environ: dict[str, str] | None = None) -> Any:
    async def run() -> Any:
        clients = AwsClients(url, environ=environ or {})
        try:
            client = await clients.client("sqs", "us-east-1", role, "hello")
            return await client.call("ListQueues", timeout_seconds=10)
        finally:
            clients.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def test_as_the_role_of_the_function() -> None:
    with serving(answer("200 OK", STS), answer("200 OK", QUEUES)) as server:
        assert call(server.url, ROLE)["QueueUrls"] == ["q"]
    assert b"Credential=000000000000/" in server.asked[0]
    assert b"Credential=ASIA1/" in server.asked[1]
    assert b"X-Amz-Security-Token: token" in server.asked[1]
    assert b"/us-east-1/sqs/aws4_request" in server.asked[1]


def test_without_such_a_role() -> None:
    refusal = b"<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>no</Message></Error></ErrorResponse>"
    with serving(answer("404 Not Found", refusal), answer("200 OK", QUEUES)) as server:
        assert call(server.url, ROLE)["QueueUrls"] == ["q"]
    assert b"Credential=000000000000/" in server.asked[1]


def test_aws_gives_no_role_for_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """With queues here and STS at AWS, nobody is asked for a role."""
    with serving(answer("200 OK", QUEUES)) as server:
        assert call(None, ROLE, {"AWS_ENDPOINT_URL_SQS": server.url})["QueueUrls"] == ["q"]
    assert len(server.asked) == 1


def test_nobody_to_call_as() -> None:
    with pytest.raises(NoCredentials, match="There are no AWS credentials"):
        call(None)


def test_refusals() -> None:
    body = b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"}'
    with serving(answer("400 Bad Request", body)) as server, pytest.raises(AwsError) as caught:
        call(server.url)
    assert (caught.value.code, caught.value.message, caught.value.busy) == ("QueueDoesNotExist", "gone", False)
    with serving(answer("503 Busy", b"<html>")) as server, pytest.raises(AwsError) as caught:
        call(server.url)
    assert (caught.value.status, caught.value.busy) == (503, True)


@pytest.mark.parametrize("token", [None, "a token"])
def test_signatures_are_those_of_botocore(token: str | None) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ReceiveMessage"}
    body = b'{"QueueUrl": "q"}'
    theirs = AWSRequest("POST", "http://127.0.0.1:5000/", dict(headers), body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda *_: moment.replace(tzinfo=None))
        SigV4Auth(Credentials("AKID", "secret", token), "sqs", "us-east-1").add_auth(theirs)
    sign(
        headers,
        body,
        host="127.0.0.1:5000",
        path="/",
        access_key="AKID",
        secret_key="secret",
        token=token,
        region="us-east-1",
        service="sqs",
        now_seconds=moment.timestamp(),
    )
    assert headers == {name: headers.get(name) and value for name, value in theirs.headers.items()}
