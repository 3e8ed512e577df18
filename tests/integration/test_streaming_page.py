"""The handlers and programs of the page on streamed responses do what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon_running import ACCOUNT, REGION, RunningDaemon

pytestmark = pytest.mark.lanes

PAGE = Path(__file__).parent.parent.parent / "docs/howto/streaming.md"
GENERATOR, WRITER, BOTH, CALLER, EMBEDDED = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(
    ("code", "event", "response", "content_type"),
    [
        (GENERATOR, {"count": 3}, b"0\n1\n2\n", "application/octet-stream"),
        (WRITER, {"rows": [["a", 1], ["b,c", 2]]}, b'a,1\r\n"b,c",2\r\n', "text/csv"),
        (BOTH, {"count": 2}, b"0\n1\n", "application/octet-stream"),
    ],
    ids=["generator", "writer", "both"],
)
def test_handlers(
    daemon: RunningDaemon, request: pytest.FixtureRequest, code: str, event: Any, response: bytes, content_type: str
) -> None:
    name = daemon.deploy(re.sub(r"\W", "-", request.node.callspec.id), code)
    payload = json.dumps(event).encode()
    answer = daemon.lambda_.invoke_with_response_stream(FunctionName=name, Payload=payload)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-remapped-content-type"] == content_type
    pieces = [each["PayloadChunk"]["Payload"] for each in answer["EventStream"] if "PayloadChunk" in each]
    assert len(pieces) > 1
    assert b"".join(pieces) == daemon.invoke(name, event).raw == response


def test_a_context_of_lambdas_own_has_no_stream() -> None:
    names: dict[str, Any] = {}
    exec(BOTH, names)
    assert names["handler"]({"count": 2}, SimpleNamespace()) == "0\n1\n"


def test_the_caller(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.deploy("numbers", GENERATOR)
    variables = {
        "AWS_ENDPOINT_URL": daemon.url,
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
    }
    assert output_of(CALLER, variables, tmp_path).splitlines() == [rf"b'{number}\n'" for number in range(5)]


@pytest.mark.parametrize("inline", ["0", "1"])
def test_the_program(inline: str, tmp_path: Path) -> None:
    *pieces, duration = output_of(EMBEDDED, {"FASTLAM_INLINE": inline}, tmp_path).splitlines()
    assert pieces == [rf"b'{number}\n'" for number in range(3)]
    assert float(duration) > 0


def output_of(code: str, variables: dict[str, str], place: Path) -> str:
    """What the program prints."""
    program = place / "program.py"
    program.write_text(code)
    return subprocess.run(
        [sys.executable, str(program)],
        env=os.environ | variables,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    ).stdout
