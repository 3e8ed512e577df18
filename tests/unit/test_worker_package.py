"""What is read off a function's unpacked package."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from fastlam.runtimes.package import foreign_abi_extensions, package_carries_boto3
from fastlam.worker.imports import BOTO3_PACKAGES

OWN = EXTENSION_SUFFIXES[0]
OTHER = OWN.replace(f"-{sys.version_info.major}{sys.version_info.minor}", "-38")


def put(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "carries"),
    [
        ("boto3/__init__.py", True),
        ("six.py", True),
        ("six.pyc", True),
        ("urllib3/__init__.py", True),
        ("certifi/__init__.py", True),
        (f"zstandard{OWN}", True),
        ("boto3_stubs/__init__.py", False),
        ("boto3-1.40.0.dist-info/METADATA", False),
        ("app/boto3/__init__.py", False),
        ("boto3.txt", False),
        ("six", False),
        ("app.py", False),
    ],
)
def test_packages_with_their_own_boto3(tmp_path: Path, name: str, carries: bool) -> None:
    put(tmp_path, "lambda_function.py", name)
    assert package_carries_boto3(tmp_path) is carries


def test_every_preloaded_package_counts(tmp_path: Path) -> None:
    for name in BOTO3_PACKAGES:
        put(tmp_path / name, f"{name}.py")
        assert package_carries_boto3(tmp_path / name), name


def test_no_directory_carries_nothing(tmp_path: Path) -> None:
    put(tmp_path, "file")
    assert not package_carries_boto3(tmp_path / "missing")
    assert not package_carries_boto3(tmp_path / "file")
    assert foreign_abi_extensions(tmp_path / "missing") == []


def test_extensions_of_another_interpreter(tmp_path: Path) -> None:
    put(
        tmp_path,
        f"fits/_a{OWN}",
        f"both/_a{OWN}",
        f"both/_a{OTHER}",
        "stable/_a.abi3.so",
        f"stable_too/_a{OTHER}",
        "stable_too/_a.abi3.so",
        "plain/_a.so",
        "plain/libx.so.1",
        "plain/libcpython-thing.so",
        f"deep/er/_b{OTHER}",
        f"_a{OTHER}",
        "_c.cpython-39-aarch64-linux-gnu.so",
        "_d.pypy310-pp73-x86_64-linux-gnu.so",
        f"_e{OTHER}.txt",
    )
    assert foreign_abi_extensions(tmp_path) == [
        f"_a{OTHER}",
        "_c.cpython-39-aarch64-linux-gnu.so",
        "_d.pypy310-pp73-x86_64-linux-gnu.so",
        f"deep/er/_b{OTHER}",
    ]
    assert foreign_abi_extensions(tmp_path / "fits", [OTHER, ".abi3.so", ".so"]) == [f"_a{OWN}"]
