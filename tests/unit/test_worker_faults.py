"""Error documents: what is shown of this machine's paths, and what ends the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastlam.worker import faults

LANGUAGE_ROOT = f"/var/lang/lib/python{sys.version_info.major}.{sys.version_info.minor}"


def raised_by(code: str, file_name: str) -> Exception:
    """What the code of a file of this name raises."""
    module = ModuleType("function_code")
    try:
        exec(compile(code, file_name, "exec"), vars(module))
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_paths_are_shown_as_in_lambda() -> None:
    view = faults.path_view("/data/code/ab12", "/data/layers/1")
    shown = {
        "/data/code/ab12/app.py": "/var/task/app.py",
        "/data/layers/1/python/x.py": "/opt/python/x.py",
        "/data/code/ab123/app.py": "/data/code/ab123/app.py",
        "<frozen importlib._bootstrap>": "<frozen importlib._bootstrap>",
        os.__file__: f"{LANGUAGE_ROOT}/os.py",
    }
    assert {real: view.path(real) for real in shown} == shown
    assert view.text("(/data/code/ab12/a b.py)") == "(/var/task/a b.py)"
    assert view.text("in /data/code/ab12: no") == "in /var/task: no"
    assert view.text("'/data/code/ab12'/data/layers/1") == "'/var/task'/opt"
    assert view.text("/data/code/ab123 x/data/code/ab12 /data/code/ab12-old") == (
        "/data/code/ab123 x/data/code/ab12 /data/code/ab12-old"
    )


def test_a_linked_directory_is_shown_under_both_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    view = faults.path_view(str(tmp_path / "link"))
    assert view.path(f"{tmp_path}/link/app.py") == view.path(f"{tmp_path}/real/app.py") == "/var/task/app.py"


def test_no_directory_means_no_rewriting() -> None:
    assert faults.path_view("").text("/var/task and /tmp") == "/var/task and /tmp"
    assert faults.path_view("/var/task").path("/var/task/app.py") == "/var/task/app.py"


def test_frames_of_the_runtime_are_dropped_from_the_front_only() -> None:
    runtime_file = f"{faults.RUNTIME_DIRECTORIES[0]}loop.py"
    error = raised_by("import json\njson.loads('[')\n", runtime_file)
    payload = faults.payload_from_exception(
        error, "id", skip_prefixes=(*faults.RUNTIME_DIRECTORIES, __file__), task_root="/nowhere"
    )
    files = [entry.split('"')[1] for entry in payload["stackTrace"]]
    assert files == [f"{LANGUAGE_ROOT}/json/__init__.py"] + [f"{LANGUAGE_ROOT}/json/decoder.py"] * 2
    assert list(payload) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert payload["requestId"] == "id"


def test_native_frames_of_the_runtime_are_dropped() -> None:
    """A compiled module's frames name its source as the build saw it: relative to the project."""
    names: dict[str, Any] = {}
    exec(compile("def handler(event, context):\n    return event[0]\n", "/data/code/app.py", "exec"), names)
    exec(compile("def call(handler):\n    handler({}, None)\n", "src/fastlam/core/channel.pyx", "exec"), names)
    traces = []
    for handler in (names["handler"], lambda event: event):
        with pytest.raises((KeyError, TypeError)) as caught:
            names["call"](handler)
        skip_prefixes = (*faults.RUNTIME_DIRECTORIES, __file__)
        payload = faults.payload_from_exception(caught.value, "id", skip_prefixes=skip_prefixes, task_root="/data/code")
        traces += [entry.splitlines() for entry in payload["stackTrace"]]
    assert traces[0] == ['  File "/var/task/app.py", line 2, in handler']
    assert [line.strip() for line in traces[1][1:]] == ["response = request_handler(event, lambda_context)"]
    assert len(traces) == 2


def test_the_message_of_an_import_names_no_directory_of_this_machine() -> None:
    fault = faults.Fault(
        faults.IMPORT_MODULE_ERROR,
        "Unable to import module 'app': cannot import name 'x' from 'y' (/data/code/y.py)",
        ['  File "/data/code/app.py" Line 1\n    x'],
    )
    payload = faults.payload_from_fault(fault, None, task_root="/data/code")
    assert payload == {
        "errorMessage": "Unable to import module 'app': cannot import name 'x' from 'y' (/var/task/y.py)",
        "errorType": "Runtime.ImportModuleError",
        "requestId": "",
        "stackTrace": ['  File "/var/task/app.py" Line 1\n    x'],
    }


def test_a_message_that_cannot_be_had_ends_the_process() -> None:
    error = raised_by(
        "class Odd(Exception):\n    def __str__(self):\n        raise KeyError('k')\nraise Odd\n", "app.py"
    )
    with pytest.raises(faults.RuntimeCrash) as caught:
        faults.payload_from_exception(error, "id")
    assert isinstance(caught.value.error, KeyError)
    assert not isinstance(caught.value, Exception)
