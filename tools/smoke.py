"""Runs the installed package once through each of its doors: Executor, Runtime, and a daemon that boto3 calls.

For a freshly installed wheel: it takes nothing from the clone. `python -I tools/smoke.py` prints one line and exits 0.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from typing import Any

HANDLER = """
def handler(event, context):
    return {"hello": event["name"], "from": context.function_name}
"""


def hello(event: Any, context: Any) -> Any:
    return {"hello": event["name"]}


def executor() -> None:
    from fastlam import Executor

    with Executor(2) as pool:
        assert pool.submit(pow, 2, 10).result() == 1024
        assert list(pool.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def runtime() -> None:
    from fastlam import Runtime

    with Runtime() as embedded:
        result = embedded.function("hello", handler=hello).invoke({"name": "world"})
        assert result.payload == {"hello": "world"}, result
        assert result.function_error is None


def daemon() -> None:
    import boto3

    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", HANDLER)
    command = [sys.executable, "-I", "-m", "fastlam", "serve", "--ephemeral", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()  # fastlam 0.1.0 is ready on http://127.0.0.1:40123 (keeps nothing)
            url = next(word for word in ready.split() if word.startswith("http://"))
            client = boto3.client(
                "lambda",
                endpoint_url=url,
                region_name="us-east-1",
                aws_access_key_id="000000000000",
                aws_secret_access_key="fastlam",
            )
            client.create_function(
                FunctionName="hello",
                Runtime=f"python3.{sys.version_info.minor}",
                Role="arn:aws:iam::000000000000:role/lambda",
                Handler="app.handler",
                Code={"ZipFile": package.getvalue()},
            )
            client.get_waiter("function_active_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 1})
            response = client.invoke(FunctionName="hello", Payload=b'{"name": "world"}')
            assert json.loads(response["Payload"].read()) == {"hello": "world", "from": "hello"}
            client.close()
        finally:
            process.terminate()
    assert process.returncode == 0, process.returncode


if __name__ == "__main__":
    executor()
    runtime()
    daemon()
    import fastlam

    print(f"fastlam {fastlam.__version__}: executor, runtime and daemon work")
