"""Python functions: environment variables, import path, and which interpreter runs them.

The variables are those that AWS documents for managed runtimes ("Using Lambda environment variables"). Until the file
system of an environment is its own, LAMBDA_TASK_ROOT and the working directory are the real directory of the unpacked
code, and a real directory with the content of the layers stands for /opt.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastlam.abc import Confinement, LaunchSpec
from fastlam.errors import FastlamError
from fastlam.model.function import FunctionRecord
from fastlam.model.sealed import Sealed
from fastlam.runtimes.package import foreign_abi_extensions, package_carries_boto3
from fastlam.wire.control import WorkerSpec

INITIALIZATION_TYPE: Final = "AWS_LAMBDA_INITIALIZATION_TYPE"
ON_DEMAND: Final = "on-demand"
INTERPRETER: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"


class RuntimeUnavailable(FastlamError):
    """The function cannot run on this machine's interpreter."""


def launch_spec(
    record: FunctionRecord,
    directory: Path,
    endpoint_url: str | None,
    variables: Mapping[str, str] | None = None,
    opt: Path | None = None,
    *,
    packaged: bool = True,
    own_root: bool = False,
    mounts: tuple[tuple[str, str], ...] = (),
    network: str = "",
) -> tuple[LaunchSpec, str | None]:
    """How environments of a function version are made, and a warning for its log, or None.

    `variables` are the record's own in the clear, where it keeps them sealed; `opt` holds its layers, if it has any.
    Not `packaged`: the directory is only where the handler runs, and may hold anything. `own_root`: the environments
    have a file system of their own, with code and layers where Lambda has them; `mounts` are directories that it has
    besides, each with its path there; `network` is abc.Confinement's.

    Raises RuntimeUnavailable for a package, or a layer, with extension modules of another Python.
    """
    warning = None
    layers = [] if opt is None else layer_path(opt, record.runtime)
    if record.runtime != INTERPRETER:
        foreign, holder = foreign_abi_extensions(directory), "the package holds"
        if opt is not None and not foreign:
            foreign, holder = _foreign_abi_extensions_of_layers(opt, record.runtime), "its layers hold"
        if foreign:
            raise RuntimeUnavailable(
                f"{record.name} asks for {record.runtime}, this daemon runs {INTERPRETER}, and {holder} extension"
                f" modules of another Python ({foreign[0]}): start fastlam with {record.runtime}, or package for"
                f" {INTERPRETER}."
            )
        warning = (
            f"[fastlam: {record.name} asks for {record.runtime}; this machine's daemon runs {INTERPRETER} and so does"
            " the"
            " function]"
        )
    code_there = Path("/var/task") if own_root else directory
    opt_there = None if opt is None else Path("/opt") if own_root else opt
    layers_there = layers if opt is None or not own_root else [Path("/opt", path.relative_to(opt)) for path in layers]
    environ = environment_variables(record, code_there, endpoint_url, variables, opt_there)
    own_entries = [entry for entry in environ.get("PYTHONPATH", "").split(":") if entry]
    path = [*map(str, (code_there, *layers_there)), *own_entries]
    worker = WorkerSpec(
        kind="function",
        title=f"{record.name}:{record.version}",
        environ=environ,
        directory=str(code_there),
        path=path,
        handler=record.handler,
        task_root=str(code_there),
        layer_root="" if opt_there is None else str(opt_there),
    )
    wanted = packaged and (uses_boto3(directory) or (opt is not None and uses_boto3(opt / "python")))
    preload = wanted and not any(map(package_carries_boto3, (directory, *layers)))
    confinement = Confinement(
        code=str(directory),
        opt="" if opt is None else str(opt),
        memory_mb=record.memory_mb,
        storage_mb=record.ephemeral_storage_mb,
        file_systems=mounts,
        network=network,
    )
    return LaunchSpec(worker, zygote_kind="boto3" if preload else "plain", confinement=confinement), warning


def layer_path(opt: Path, runtime: str) -> list[Path]:
    """Where Python finds modules of layers, in its order: between the function's own and the standard library.

    A layer may carry packages for several versions of Python: what it has for the interpreter goes before what it has
    for the runtime that was asked for, where these differ.
    """
    own, asked = _site_packages(opt, INTERPRETER), _site_packages(opt, runtime)
    return [*([own] if own != asked and own.is_dir() else []), asked, opt / "python"]


def _site_packages(opt: Path, runtime: str) -> Path:
    return opt / "python" / "lib" / runtime / "site-packages"


def _foreign_abi_extensions_of_layers(opt: Path, runtime: str) -> list[str]:
    """As paths below /opt; without those of packages that are there for the interpreter too."""
    plain, own, asked = opt / "python", _site_packages(opt, INTERPRETER), _site_packages(opt, runtime)
    found = [asked / name for name in foreign_abi_extensions(asked) if not (own / name).parent.is_dir()]
    found += [plain / name for name in foreign_abi_extensions(plain, but_in=plain / "lib")]
    return [str(path.relative_to(opt)) for path in found]


def environment_variables(
    record: FunctionRecord,
    directory: Path,
    endpoint_url: str | None,
    variables: Mapping[str, str] | None = None,
    opt: Path | None = None,
) -> dict[str, str]:
    """The variables of a function's environments; the user's own come last where Lambda lets them."""
    layers = "/opt" if opt is None else str(opt)
    role_name = record.role.rsplit("/", 1)[-1]
    platform = {
        "AWS_LAMBDA_FUNCTION_NAME": record.name,
        "AWS_LAMBDA_FUNCTION_VERSION": record.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(record.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": record.log_group_name,
        "AWS_LAMBDA_LOG_FORMAT": record.log_format,
        INITIALIZATION_TYPE: ON_DEMAND,
        "AWS_REGION": record.region,
        "AWS_DEFAULT_REGION": record.region,
        # The key id says which account calls, the token as which role: nothing here is a secret.
        "AWS_ACCESS_KEY_ID": record.account,
        "AWS_SECRET_ACCESS_KEY": "fastlam",
        "AWS_SESSION_TOKEN": f"assumed-role/{role_name}/{record.name}",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{record.runtime}",
        "_HANDLER": record.handler,
        "LAMBDA_TASK_ROOT": str(directory),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
    }
    if record.log_format == "JSON":
        platform["AWS_LAMBDA_LOG_LEVEL"] = record.application_log_level or "INFO"
    defaults = {
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:" + f"{layers}/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib"
        f":{directory}:{directory}/lib:{layers}/lib",
        "PWD": str(directory),
        "SHLVL": "0",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
    }
    if record.runtime not in ("python3.10", "python3.11"):
        defaults["LC_CTYPE"] = "C.UTF-8"
    if endpoint_url is not None:
        defaults["AWS_ENDPOINT_URL"] = endpoint_url
    if variables is None:
        assert not isinstance(record.environment, Sealed), "sealed variables come in the clear beside the record"
        variables = record.environment or {}
    return {**defaults, **variables, **platform}


def uses_boto3(directory: Path) -> bool:
    """Whether any of the package's own sources names boto3 or botocore: then its zygote has it imported already."""
    examined = 0
    for source in directory.rglob("*.py"):
        examined += 1
        if examined > _SOURCES_EXAMINED_MAX:
            return True  # a large package: most use it, and preloading does no harm
        try:
            if b"boto" in source.read_bytes():
                return True
        except OSError:
            continue
    return False


_SOURCES_EXAMINED_MAX: Final = 300
