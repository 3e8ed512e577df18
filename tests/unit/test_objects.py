"""Reading objects from S3: what is asked of a server that answers by script, and what becomes of each answer."""

from __future__ import annotations

import socket

import pytest

from fastlam.errors import ApiError
from fastlam.store.objects import ObjectReader, S3Object
from scripted_server import answer, s3_error, serving


def refusal(reader: ObjectReader, code: str = "InvalidParameterValueException", version: str | None = None) -> str:
    with pytest.raises(ApiError) as caught:
        reader("us-east-1", "bucket", "code/a.zip", version)
    assert caught.value.code == code
    return str(caught.value)


def test_an_object() -> None:
    with serving(answer("200 OK", b"content", "x-amz-version-id: v 1")) as server:
        reader = ObjectReader(server.url, account="111122223333")
        assert reader("eu-west-1", "bucket", "code/ä b.zip", None) == S3Object(b"content", "v 1")
        assert reader("eu-west-1", "bucket", "a", "older")[0] == b"content"
        reader.close()
    first, second = server.asked
    assert first.startswith(b"GET /bucket/code/%C3%A4%20b.zip HTTP/1.1\r\n")
    assert b"Credential=111122223333/" in first and b"/eu-west-1/s3/aws4_request" in first
    assert second.startswith(b"GET /bucket/a?versionId=older HTTP/1.1\r\n")


def test_a_bucket_without_versions() -> None:
    with serving(answer("200 OK", b"x", "x-amz-version-id: null"), answer("200 OK", b"x")) as server:
        reader = ObjectReader(server.url)
        assert [reader("us-east-1", "bucket", "a", None).version for _ in range(2)] == [None, None]


def test_the_endpoint_and_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with serving(answer("200 OK", b"own")) as own, serving(answer("200 OK", b"other")) as other:
        both = {"AWS_ENDPOINT_URL_S3": own.url, "AWS_ENDPOINT_URL": other.url}
        assert ObjectReader(environ=both)("us-east-1", "bucket", "a", None).data == b"own"
        assert ObjectReader(environ={"AWS_ENDPOINT_URL": other.url})("us-east-1", "bucket", "a", None).data == b"other"
        assert ObjectReader(other.url, environ=both)("us-east-1", "bucket", "a", None).data == b"other"
    assert all(b"Credential=AKIDEXAMPLE/" in request for request in own.asked + other.asked)


MISSING = "Error occurred while GetObject. S3 Error Code: {}. S3 Error Message: {}"


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        (
            s3_error("404 Not Found", "NoSuchBucket", "The specified bucket does not exist"),
            "InvalidParameterValueException",
            MISSING.format("NoSuchBucket", "The specified bucket does not exist"),
        ),
        (
            s3_error("404 Not Found", "NoSuchKey", "The specified key does not exist."),
            "InvalidParameterValueException",
            MISSING.format("NoSuchKey", "The specified key does not exist."),
        ),
        (
            s3_error("404 Not Found", "NoSuchVersion", "The specified version does not exist."),
            "InvalidParameterValueException",
            MISSING.format("NoSuchVersion", "The specified version does not exist."),
        ),
        (
            s3_error("301 Moved Permanently", "PermanentRedirect", "Elsewhere.", "x-amz-bucket-region: eu-west-1"),
            "InvalidParameterValueException",
            MISSING.format(
                "PermanentRedirect",
                "The bucket is in this region: eu-west-1. Please use this region to retry the request",
            ),
        ),
        (
            s3_error(
                "400 Bad Request", "AuthorizationHeaderMalformed", "wrong region", more="<Region>eu-west-1</Region>"
            ),
            "InvalidParameterValueException",
            MISSING.format(
                "PermanentRedirect",
                "The bucket is in this region: eu-west-1. Please use this region to retry the request",
            ),
        ),
        (
            s3_error("403 Forbidden", "AccessDenied", "Access Denied"),
            "AccessDeniedException",
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject"
            " for bucket/code/a.zip. S3 Error Code: AccessDenied. S3 Error Message: Access Denied",
        ),
        (
            answer("501 Not Implemented", b'{"message": "no S3 here"}', "Content-Type: application/json"),
            "InvalidParameterValueException",
            "Error occurred while GetObject. What answers for S3 (--aws-endpoint) said 501 Not Implemented.",
        ),
    ],
    ids=["bucket", "key", "version", "redirect", "signature's region", "denied", "no S3"],
)
def test_refusals_of_s3(given: bytes, code: str, text: str) -> None:
    with serving(given) as server:
        assert refusal(ObjectReader(server.url), code) == text
    assert len(server.asked) == 1


def test_a_bucket_elsewhere_is_not_followed() -> None:
    moved = s3_error("301 Moved Permanently", "PermanentRedirect", "Elsewhere.", "x-amz-bucket-region: eu-west-1")
    with serving(moved, answer("200 OK", b"from the other region")) as server:
        assert "PermanentRedirect" in refusal(ObjectReader(server.url))
    assert len(server.asked) == 1


def test_a_fault_is_tried_once_more() -> None:
    fault = s3_error("500 Internal Server Error", "InternalError", "We encountered an internal error.")
    with serving(fault, answer("200 OK", b"content")) as server:
        assert ObjectReader(server.url)("us-east-1", "bucket", "a", None).data == b"content"
    with serving(fault) as server:
        text = refusal(ObjectReader(server.url))
        assert text == MISSING.format("InternalError", "We encountered an internal error.")
    assert len(server.asked) == 2


def test_size_is_bounded_before_and_while_reading() -> None:
    too_large = "Unzipped size must be smaller than 1000 bytes"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + 11 * (
        b"64\r\n" + bytes(100) + b"\r\n"
    )
    announced = answer("200 OK", b"", size=10**12)  # what it announces never comes, and is not waited for
    fits = answer("200 OK", bytes(1000))
    for given, expected in ((announced, too_large), (chunked + b"0\r\n\r\n", too_large), (fits, "")):
        with serving(given) as server:
            reader = ObjectReader(server.url, bytes_max=1000)
            if expected:
                assert refusal(reader) == expected
            else:
                assert reader("us-east-1", "bucket", "a", None).data == bytes(1000)


def test_what_breaks_off() -> None:
    with serving(answer("200 OK", b"half", size=8)) as server:
        text = refusal(ObjectReader(server.url))
        assert text.startswith(f"Error occurred while GetObject. The S3 endpoint {server.url} did not answer: ")
    with serving(b"") as server:  # hangs up
        assert "did not answer" in refusal(ObjectReader(server.url))
        assert len(server.asked) == 2


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert refusal(ObjectReader(url)) == (
        f"Error occurred while GetObject. The S3 endpoint {url} did not answer:"
        f' Could not connect to the endpoint URL: "{url}/bucket/code/a.zip".'
    )


def test_aws_itself_needs_credentials() -> None:
    for reader in (ObjectReader(environ={}), ObjectReader("https://s3.us-east-1.amazonaws.com", environ={})):
        assert refusal(reader) == (
            "Error occurred while GetObject. There are no AWS credentials to read it with,"
            " nor another S3 endpoint (--aws-endpoint)."
        )


def test_an_endpoint_of_ones_own_asks_no_machine_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer("404 Not Found", b"")) as metadata, serving(answer("200 OK", b"content")) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        assert ObjectReader(server.url)("us-east-1", "bucket", "a", None).data == b"content"
    assert metadata.asked == []


def test_a_closed_reader_gives_up() -> None:
    with serving(answer("200 OK", b"content")) as server:
        reader = ObjectReader(server.url)
        reader.close()
        assert refusal(reader) == "Error occurred while GetObject. The object did not arrive in time."


def test_an_endpoint_that_is_none() -> None:
    assert "did not answer: Invalid endpoint" in refusal(ObjectReader(environ={"AWS_ENDPOINT_URL": "not a url"}))
