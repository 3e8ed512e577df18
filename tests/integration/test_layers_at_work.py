"""Layers in functions that run: imports, tools and data from /opt, in whose order, and for how long."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_running import RunningDaemon, running_daemon
from fastlam.runtimes.python import INTERPRETER
from moto_running import running_aws
from real_packages import PackageCache

pytestmark = pytest.mark.lanes

OTHER = "111111111111"
SITE = f"python/lib/{INTERPRETER}/site-packages"
OTHER_RUNTIME = "python3.13" if INTERPRETER != "python3.13" else "python3.12"

LOOK = """
import importlib

def handler(event, context):
    return {name: getattr(importlib.import_module(name), "WHO", None) for name in event}
"""


def package(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name.startswith(("bin/", "extensions/")) else 0o100644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def publish(daemon: RunningDaemon, name: str, files: dict[str, str], client: Any = None) -> str:
    """The ARN of the new version."""
    client = client or daemon.lambda_
    published = client.publish_layer_version(LayerName=name, Content={"ZipFile": package(files)})
    arn: str = published["LayerVersionArn"]
    return arn


def who(text: str) -> str:
    return f"WHO = {text!r}\n"


def set_layers(daemon: RunningDaemon, name: str, *arns: str) -> None:
    daemon.lambda_.update_function_configuration(FunctionName=name, Layers=list(arns))
    daemon.settle(name)


@pytest.fixture(scope="module")
def daemon(lane_in_use: str) -> Iterator[RunningDaemon]:
    with running_daemon() as running:
        yield running


# ---- what a function finds ---------------------------------------------------------------------------


def test_paths_of_layers_in_error_documents(daemon: RunningDaemon) -> None:
    arn = publish(daemon, "failing", {"python/failing.py": "def fail():\n    raise ValueError('as asked')\n"})
    daemon.deploy("fails", "import failing\n\ndef handler(event, context):\n    failing.fail()\n", Layers=[arn])
    trace = daemon.invoke("fails").json["stackTrace"]
    assert [line.split('"')[1] for line in trace] == ["/var/task/app.py", "/opt/python/failing.py"]


def test_modules_in_their_order(daemon: RunningDaemon) -> None:
    """The function's own, then site-packages of the layers, then python/ of the layers, then the standard library."""
    one = publish(
        daemon,
        "order-one",
        {
            "python/alone.py": who("one"),
            "python/both.py": who("one"),
            "python/mine.py": who("one"),
            "python/colorsys.py": who("one"),
            "python/nested.py": who("one, python"),
            f"{SITE}/nested.py": who("one, site-packages"),
        },
    )
    two = publish(daemon, "order-two", {"python/both.py": who("two"), f"{SITE}/second.py": who("two")})
    code = {"app.py": LOOK, "mine.py": who("function")}
    names = ["alone", "both", "mine", "colorsys", "nested"]
    expected = {"alone": "one", "both": "two", "mine": "function", "colorsys": "one", "nested": "one, site-packages"}
    daemon.deploy("order", code, Layers=[one, two])
    assert daemon.invoke("order", [*names, "second"]).result == expected | {"second": "two"}
    daemon.deploy("order-back", code, Layers=[two, one])
    assert daemon.invoke("order-back", names).result == expected | {"both": "one"}
    daemon.deploy("order-single", code, Layers=[one])
    assert daemon.invoke("order-single", names).result == expected | {"both": "one"}
    failed = daemon.invoke("order-single", ["second"])
    assert failed.json["errorType"] == "ModuleNotFoundError"
    daemon.deploy("order-none", code)
    assert daemon.invoke("order-none", ["mine", "colorsys"]).result == {"mine": "function", "colorsys": None}


def test_tools_and_libraries(daemon: RunningDaemon) -> None:
    tool = '#!/bin/sh\necho "$0 says $1 with $LD_LIBRARY_PATH"\n'
    one = publish(daemon, "tools", {"bin/greet": tool, "lib/libnothing.so": ""})
    two = publish(daemon, "more-tools", {"bin/other": tool, "data/words.txt": "from the layer"})
    code = """
import os, subprocess, sys

def handler(event, context):
    said = {name: subprocess.run([name, "hello"], capture_output=True, text=True).stdout for name in event}
    opt = os.environ["PATH"].split(":")[-1].removesuffix("/bin")
    with open(f"{opt}/data/words.txt") as words:
        return {"said": said, "opt": opt, "words": words.read(), "library": os.environ["LD_LIBRARY_PATH"].split(":")[-1]}
"""
    daemon.deploy("tooling", code, Layers=[one, two])
    result = daemon.invoke("tooling", ["greet", "other"]).result
    opt = result["opt"]
    assert result["library"] == f"{opt}/lib"
    assert result["words"] == "from the layer"
    for name in ("greet", "other"):
        assert result["said"][name].startswith(f"{opt}/bin/{name} says hello with ")
        assert result["said"][name].rstrip().endswith(f":{opt}/lib")
    daemon.deploy("own-path", code, Layers=[one, two], environment={"PATH": "/usr/bin:/bin"})
    assert daemon.invoke("own-path", []).json["errorType"] == "FileNotFoundError", "a path of one's own is kept"


def test_a_handler_in_a_layer(daemon: RunningDaemon) -> None:
    layer = publish(
        daemon, "handlers", {"python/shared/entry.py": "def handler(event, context):\n    return 'layer'\n"}
    )
    daemon.deploy("by-layer", "", handler="shared.entry.handler", Layers=[layer])
    assert daemon.invoke("by-layer").result == "layer"


def test_a_real_package(daemon: RunningDaemon, packages: PackageCache) -> None:
    """With extension modules, in a layer as people build them, beside a second layer."""
    directory = packages.install("numpy")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not {"__pycache__", "tests"} & set(path.parts):
                archive.write(path, f"{SITE}/{path.relative_to(directory)}")
    published = daemon.lambda_.publish_layer_version(LayerName="numpy", Content={"ZipFile": buffer.getvalue()})
    helper = publish(
        daemon, "helper", {"python/helper.py": "import numpy\n\ndef total(x):\n    return int(numpy.sum(x))\n"}
    )
    code = "import helper\n\ndef handler(event, context):\n    return helper.total(event)\n"
    daemon.deploy("numbers", code, Layers=[published["LayerVersionArn"], helper], Timeout=30, MemorySize=512)
    assert daemon.invoke("numbers", [1, 2, 39]).result == 42


# ---- boto3 and other interpreters --------------------------------------------------------------------

BOTO3_SEEN = """
import sys
LOADED = "boto3" in sys.modules
import boto3

def handler(event, context):
    return {"loaded": LOADED, "who": getattr(boto3, "WHO", None), "real": hasattr(boto3, "client")}
"""


def test_a_layer_with_its_own_boto3(daemon: RunningDaemon) -> None:
    daemon.deploy("boto3-plain", BOTO3_SEEN)
    assert daemon.invoke("boto3-plain").result == {"loaded": True, "who": None, "real": True}
    for number, place in enumerate(("python", SITE)):
        layer = publish(daemon, f"own-boto3-{number}", {f"{place}/boto3/__init__.py": who("layer")})
        other = publish(daemon, "other", {"python/nothing.py": ""})
        for layers in ([layer], [other, layer]):
            name = f"boto3-{number}-{len(layers)}"
            daemon.deploy(name, BOTO3_SEEN, Layers=layers)
            assert daemon.invoke(name).result == {"loaded": False, "who": "layer", "real": False}
    # What only changes boto3 where it can be imported counts too.
    certifi = publish(daemon, "certifi", {"python/certifi.py": ""})
    daemon.deploy("boto3-certifi", BOTO3_SEEN, Layers=[certifi])
    assert daemon.invoke("boto3-certifi").result == {"loaded": False, "who": None, "real": True}


def test_boto3_is_there_early_for_layers_that_use_it(daemon: RunningDaemon) -> None:
    layer = publish(
        daemon, "uses-boto3", {"python/clients.py": "import sys\nLOADED = 'boto3' in sys.modules\nimport boto3\n"}
    )
    daemon.deploy(
        "early", "import clients\n\ndef handler(event, context):\n    return clients.LOADED\n", Layers=[layer]
    )
    assert daemon.invoke("early").result is True


@pytest.fixture
def warning_daemon() -> Iterator[RunningDaemon]:
    """One that tells of functions whose runtime it does not have."""
    with running_daemon(complains=True) as running:
        yield running
        assert OTHER_RUNTIME in running.stderr()


def test_extension_modules_of_another_python(warning_daemon: RunningDaemon) -> None:
    daemon = warning_daemon
    extension = "fast.cpython-38-x86_64-linux-gnu.so"
    site = f"python/lib/{OTHER_RUNTIME}/site-packages"
    plain = publish(daemon, "abi-plain", {f"python/pkg/{extension}": ""})
    versioned = publish(daemon, "abi-versioned", {f"{site}/pkg/{extension}": "", f"{site}/mod.py": who("asked for")})
    for name, layer, path in (
        ("abi-1", plain, f"python/pkg/{extension}"),
        ("abi-2", versioned, f"{site}/pkg/{extension}"),
    ):
        daemon.deploy(name, LOOK, Layers=[layer], Runtime=OTHER_RUNTIME)
        answer = daemon.send_invoke(name)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (502, "InvalidRuntimeException")
        assert f"its layers hold extension modules of another Python ({path})" in answer.json["Message"]
    # There for the interpreter too, or of no concern to it.
    both = publish(
        daemon,
        "abi-both",
        {f"{SITE}/pkg/__init__.py": who("own"), "python/lib/python3.8/site-packages/_x.cpython-38-darwin.so": ""},
    )
    daemon.deploy("abi-3", LOOK, Layers=[versioned, both], Runtime=OTHER_RUNTIME)
    assert daemon.invoke("abi-3", ["pkg", "mod"]).result == {"pkg": "own", "mod": "asked for"}


def test_extensions_are_not_started_and_it_says_so(daemon: RunningDaemon) -> None:
    layer = publish(daemon, "agent", {"extensions/agent": "#!/bin/sh\nexit 1\n", "python/agent.py": who("agent")})
    daemon.deploy("extended", LOOK, Layers=[layer])
    assert daemon.invoke("extended", ["agent"]).result == {"agent": "agent"}
    note = "[fastlam: the layers of extended bring extensions (agent), which fastlam does not start yet]"
    assert any(note in line for line in daemon.logs("extended"))


# ---- changes -----------------------------------------------------------------------------------------


def test_other_layers_make_other_environments(daemon: RunningDaemon) -> None:
    first = publish(daemon, "changing", {"python/lib1.py": who("first")})
    second = publish(daemon, "changing", {"python/lib1.py": who("second")})
    daemon.deploy("changing", LOOK, Layers=[first], Publish=True)
    assert daemon.invoke("changing", ["lib1"]).result == {"lib1": "first"}
    set_layers(daemon, "changing", second)
    assert daemon.invoke("changing", ["lib1"]).result == {"lib1": "second"}
    assert daemon.invoke("changing", ["lib1"], Qualifier="1").result == {"lib1": "first"}
    set_layers(daemon, "changing")
    assert daemon.invoke("changing", ["lib1"]).json["errorType"] == "ModuleNotFoundError"


def test_a_deleted_version_goes_on_working(daemon: RunningDaemon) -> None:
    arn = publish(daemon, "deleted", {"python/kept.py": who("kept")})
    beside = publish(daemon, "deleted-beside", {"python/beside.py": who("beside")})
    daemon.deploy("keeping", LOOK, Layers=[arn, beside])
    for name in ("deleted", "deleted-beside"):
        daemon.lambda_.delete_layer_version(LayerName=name, VersionNumber=1)
    assert daemon.invoke("keeping", ["kept"]).result == {"kept": "kept"}
    daemon.lambda_.update_function_configuration(FunctionName="keeping", Timeout=7)  # a new environment
    daemon.settle("keeping")
    assert daemon.invoke("keeping", ["kept", "beside"]).result == {"kept": "kept", "beside": "beside"}


def test_a_layer_of_another_account(daemon: RunningDaemon) -> None:
    other = daemon.client(account=OTHER)
    arn = publish(daemon, "lent", {"python/lent.py": who("the other account")}, other)
    with pytest.raises(
        daemon.lambda_.exceptions.ClientError, match="not authorized to perform: lambda:GetLayerVersion"
    ):
        daemon.deploy("borrower", LOOK, Layers=[arn])
    other.add_layer_version_permission(
        LayerName="lent", VersionNumber=1, StatementId="s", Action="lambda:GetLayerVersion", Principal="*"
    )
    daemon.deploy("borrower", LOOK, Layers=[arn])
    assert daemon.invoke("borrower", ["lent"]).result == {"lent": "the other account"}


def test_a_layer_from_s3() -> None:
    with running_aws() as aws, running_daemon("--aws-endpoint", aws.url) as daemon:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="layers")
        s3.put_object(Bucket="layers", Key="lib.zip", Body=package({"python/stored.py": who("S3")}))
        where = {"S3Bucket": "layers", "S3Key": "lib.zip"}
        copied = daemon.lambda_.publish_layer_version(LayerName="copied", Content=where)
        assert copied["Content"]["Location"].startswith(f"{daemon.url}/")
        body = {"Content": where | {"S3ObjectStorageMode": "REFERENCE"}}
        referred = daemon.send("POST", "/2018-10-31/layers/referred/versions", json.dumps(body).encode())
        assert referred.status == 201
        content = referred.json["Content"]
        assert content["ResolvedS3Object"] == where
        assert "Location" not in content
        assert content["CodeSha256"] == copied["Content"]["CodeSha256"]
        arns = [copied["LayerVersionArn"], referred.json["LayerVersionArn"]]
        daemon.deploy("from-s3", LOOK, Layers=arns)
        assert daemon.invoke("from-s3", ["stored"]).result == {"stored": "S3"}
        with pytest.raises(daemon.lambda_.exceptions.ClientError, match="S3 Error Code: NoSuchKey"):
            daemon.lambda_.publish_layer_version(LayerName="copied", Content=where | {"S3Key": "missing"})


# ---- a daemon that is started again ------------------------------------------------------------------


def test_over_restarts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--data-dir", str(data))
    where = "import sys, one, two\n\ndef handler(event, context):\n    return [one.WHO, two.WHO, sys.path[2]]\n"
    with running_daemon(*options, ephemeral=False) as daemon:
        layers = [publish(daemon, name, {f"python/{name}.py": who(name)}) for name in ("one", "two")]
        for name in ("first", "second"):
            daemon.deploy(name, where, Layers=layers)
        first, second = (daemon.invoke(name).result for name in ("first", "second"))
        assert first == second, "one tree for all that have the same layers"
        assert first[:2] == ["one", "two"]
        (tree,) = (data / "opt").iterdir()
        assert first[2] == str(tree / "python")
        daemon.lambda_.delete_layer_version(LayerName="one", VersionNumber=1)
    with running_daemon(*options, ephemeral=False) as daemon:
        assert list((data / "opt").iterdir()) == [tree]
        assert daemon.invoke("first").result == first
    shutil.rmtree(data / "opt")
    with running_daemon(*options, ephemeral=False) as daemon:
        assert daemon.invoke("first").result == first
        assert publish(daemon, "one", {"python/one.py": who("new")}).endswith(":layer:one:2")
    code = data / "code"
    with sqlite3.connect(data / "records.sqlite") as connection:
        body = connection.execute("SELECT body FROM record WHERE kind = 'function' AND name = 'first'").fetchone()[0]
    connection.close()
    gone = json.loads(body)["layers"][0][2]
    shutil.rmtree(code / gone)
    shutil.rmtree(data / "opt")
    with running_daemon(*options, ephemeral=False) as daemon:
        assert daemon.invoke("first").result == first, "unpacked again"
    os.unlink(code / f"{gone}.zip")
    shutil.rmtree(code / gone)
    shutil.rmtree(data / "opt")
    with running_daemon(*options, ephemeral=False) as daemon:
        answer = daemon.send_invoke("first")
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (500, "ServiceException")
        assert answer.json["Message"] == "A layer of first is missing from the data directory."
