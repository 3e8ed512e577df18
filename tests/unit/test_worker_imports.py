"""What a function sees of the import system; each test is a process of its own, as it takes the system apart."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fastlam.worker import imports
from trees import write_tree

SOURCES = str(Path(imports.__file__).parents[2])


def run(script: str, directory: Path) -> str:
    """The output of a program that has the worker's modules and whatever else this interpreter has installed."""
    program = textwrap.dedent(
        """
        import sys
        from fastlam.worker import bootstrap, context, faults, imports, logs, marshaller
        """
    ) + textwrap.dedent(script)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(directory),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(directory)],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_only_the_standard_library_is_left(tmp_path: Path) -> None:
    out = run(
        """
        import click, multiprocessing, zmq
        imports.hide_runtime_modules()
        print(sys.modules["__main__"] is sys.modules["__mp_main__"])
        tops = {name.partition(".")[0] for name in sys.modules}
        print(sorted(tops - set(sys.stdlib_module_names) - {"__main__", "__mp_main__"}))
        for name in ("msgspec", "fastlam", "zmq", "click", "pytest"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                print(error)
        import asyncio, decimal, sqlite3, xml.etree.ElementTree
        print([entry for entry in sys.path if "site-packages" in entry], sys.argv[1] in sys.path, "" in sys.path)
        """,
        tmp_path,
    )
    missing = [f"No module named '{name}'" for name in ("msgspec", "fastlam", "zmq", "click", "pytest")]
    assert out.splitlines() == ["True", "[]", *missing, "[] False False"]


def test_hidden_modules_go_on_working(tmp_path: Path) -> None:
    out = run(
        """
        import gc
        imports.hide_runtime_modules()
        gc.collect()
        ours = marshaller.Marshaller("AWS_Lambda_python3.12")
        print(ours.unmarshal(b'{"a": [1.5, "\\\\u00e9", null]}'), ours.unmarshal(b'[1e400, "\\\\ud800"]'))
        print(ours.marshal({"a": [decimal.Decimal("1.50"), "x"]} if (decimal := __import__("decimal")) else None))
        try:
            ours.unmarshal(b"{")
        except faults.Fault as fault:
            print(faults.payload_from_fault(fault, "id")["errorType"])
        try:
            bootstrap.resolve_handler("nothing.handler")
        except faults.Fault as fault:
            print(logs.error_event(faults.payload_from_fault(fault, None), "Text", ours).encode("ascii", "replace"))
        print(context.ContextFactory({}).make("id", 0, "arn", '{"custom": {"a": 1}}').client_context)
        """,
        tmp_path,
    )
    assert out.splitlines() == [
        "{'a': [1.5, 'é', None]} [inf, '\\ud800']",
        """(b'{"a": [1.50, "x"]}', 'application/json')""",
        "Runtime.UnmarshalError",
        """b"[ERROR] Runtime.ImportModuleError: Unable to import module 'nothing': """
        '''No module named 'nothing'\\rTraceback (most recent call last):\\n"''',
        "ClientContext([custom={'a': 1},env=None,client=None])",
    ]


def test_what_the_program_was_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def double(number):\n    return 2 * number\n")
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import sys
            from fastlam.worker import imports
            if __name__ != "__main__":
                raise SystemExit("ran again")
            imports.hide_runtime_modules()
            imports.set_path([sys.argv[1]])
            print(vars(sys.modules["__main__"]).get("__file__"))
            import job, multiprocessing
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(job.double, (21,)))
            """
        )
    )
    out = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert out.stdout.splitlines() == ["None", "42"]


def test_finders_of_installed_packages_leave(tmp_path: Path) -> None:
    (tmp_path / "editable_finder.py").write_text(
        textwrap.dedent(
            """
            import sys
            class Finder:
                @classmethod
                def find_spec(cls, name, path=None, target=None):
                    if name == "found_by_it":
                        raise AssertionError("asked")
                @classmethod
                def hook(cls, path):
                    raise AssertionError("asked")
            sys.meta_path.insert(0, Finder)
            sys.path_hooks.insert(0, Finder.hook)
            """
        )
    )
    out = run(
        """
        sys.path.append(sys.argv[1])
        import editable_finder
        imports.hide_runtime_modules()
        imports.hide_runtime_modules()
        print([getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path])
        print(len(sys.path_hooks), "editable_finder" in sys.modules)
        try:
            import found_by_it
        except ModuleNotFoundError:
            print("not found")
        """,
        tmp_path,
    )
    assert out.splitlines() == [
        "['BuiltinImporter', 'FrozenImporter', 'PathFinder', 'RuntimePackagesFinder']",
        "2 False",
        "not found",
    ]


def test_packages_that_lambda_brings_along(tmp_path: Path) -> None:
    out = run(
        """
        imports.hide_runtime_modules()
        import importlib.metadata
        import boto3, simplejson, six, six.moves.urllib.parse
        version = importlib.metadata.version
        print(version("boto3") == boto3.__version__, version("python_dateutil") != "")
        try:
            importlib.metadata.version("msgspec")
        except importlib.metadata.PackageNotFoundError as error:
            print(error)
        names = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
        print(sorted(names - set(imports.RUNTIME_PACKAGES.values())), "botocore" in names)
        print(list(importlib.metadata.distributions(path=[sys.argv[1]])))
        print(sorted({"certifi", "cryptography", "requests", "zstandard"} & set(sys.modules)))
        """,
        tmp_path,
    )
    assert out.splitlines() == ["True True", "No package metadata was found for msgspec", "[] True", "[]", "[]"]


def test_a_function_s_own_packages_come_first(tmp_path: Path) -> None:
    own = {
        "boto3/__init__.py": "__version__ = 'own'\n",
        "boto3-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: boto3\nVersion: 0.1\n",
        "msgspec/__init__.py": "__version__ = 'own'\n",
        "layer/six.py": "__version__ = 'own'\n",
    }
    write_tree(tmp_path, own)
    out = run(
        """
        import boto3 as ours
        imports.hide_runtime_modules()
        imports.set_path([sys.argv[1]])
        imports.set_path([sys.argv[1], sys.argv[1] + "/layer"])
        import boto3, botocore, importlib.metadata, msgspec, six
        print(boto3.__version__, msgspec.__version__, six.__version__, importlib.metadata.version("boto3"))
        print(sys.path[:2] == [sys.argv[1], sys.argv[1] + "/layer"], sys.path.count(sys.argv[1]))
        print(ours.__version__ != "own", botocore.__version__ != "own")
        print(marshaller.Marshaller("").unmarshal(b"[1]"))
        """,
        tmp_path,
    )
    assert out.splitlines() == ["own own own 0.1", "True 1", "True True", "[1]"]


def test_a_native_package_loads_beside_the_hidden_one(tmp_path: Path) -> None:
    import msgspec

    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    out = run(
        """
        import msgspec as ours
        imports.hide_runtime_modules()
        imports.set_path([sys.argv[1]])
        import msgspec
        class Point(msgspec.Struct):
            x: int
        print(msgspec is ours, msgspec.json.decode(b'{"x": 1}', type=Point), ours.json.encode([1]))
        print(marshaller.Marshaller("").unmarshal(b'{"x": [1]}'))
        """,
        tmp_path,
    )
    assert out.splitlines() == ["False Point(x=1) b'[1]'", "{'x': [1]}"]


FIRST_USES = """
before = set(sys.modules)
import boto3
clients = [boto3.client(name) for name in ("s3", "dynamodb", "sqs", "lambda", "sns", "sts", "ec2")]
resources = [boto3.resource(name) for name in ("s3", "dynamodb", "ec2")]
clients[0].generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    "steps",
    [
        "imports.hide_runtime_modules(); imports.preload_boto3()",
        "imports.preload_boto3(); imports.hide_runtime_modules(keep_boto3=True)",
    ],
    ids=["hidden first", "preloaded first"],
)
def test_preloaded_boto3(tmp_path: Path, steps: str) -> None:
    out = run(
        f"""
        {steps}
        imports.set_path([sys.argv[1]])
        kept = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
        print(sorted(kept - set(imports.BOTO3_PACKAGES) - {{"__main__", "__mp_main__"}}), "boto3" in kept)
        import boto3, six.moves.urllib.parse
        print(boto3.DEFAULT_SESSION)
        """
        + textwrap.indent(FIRST_USES, "        "),
        tmp_path,
    )
    assert out.splitlines() == ["[] True", "None", "[]"]


def test_boto3_is_not_kept_unless_asked(tmp_path: Path) -> None:
    out = run(
        """
        imports.preload_boto3()
        import boto3 as first
        imports.hide_runtime_modules()
        print("boto3" in sys.modules, "botocore.session" in sys.modules)
        import boto3
        print(boto3 is first)
        """,
        tmp_path,
    )
    assert out.splitlines() == ["False False", "False"]


def test_preloading_leaves_the_import_system_as_it_was(tmp_path: Path) -> None:
    out = run(
        """
        path, meta_path = list(sys.path), list(sys.meta_path)
        imports.preload_boto3()
        print(sys.path == path, [finder for finder in meta_path if finder not in sys.meta_path])
        print({type(finder).__name__ for finder in sys.meta_path if finder not in meta_path})
        """,
        tmp_path,
    )
    assert out.splitlines() == ["True []", "{'_SixMetaPathImporter'}"]
