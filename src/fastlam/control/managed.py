"""Managed functions: what a function on a capacity provider may be, and what it is unless told otherwise."""

from __future__ import annotations

from typing import Any, Final

from fastlam import limits
from fastlam.control.authorize import Caller
from fastlam.control.capacity_providers import CapacityProviders
from fastlam.control.runtimes import RUNTIMES
from fastlam.control.settings import Fields, Request
from fastlam.errors import ApiError, invalid_parameter
from fastlam.model.function import FunctionRecord

_CONFIG: Final = "LambdaManagedInstancesCapacityProviderConfig"
_GIB_PER_VCPU: Final = 2.0
# Runtimes by family: the oldest that runs on managed instances, and calls of an environment at a time for each vCPU.
_SUPPORTED: Final = {
    "python": ((3, 13), 16),
    "nodejs": ((22,), 64),
    "java": ((21,), 32),
    "dotnet": ((8,), 32),
}
_CALLS_PER_VCPU: Final = 16  # of images, whose runtime is not known


class ManagedFunctions:
    """Reads CapacityProviderConfig of requests that create or update a function."""

    def __init__(self, providers: CapacityProviders) -> None:
        self._providers = providers

    @staticmethod
    def with_defaults(request: Request) -> Request:
        """CreateFunction's input; of a managed function with what it has other defaults for."""
        if request.get("CapacityProviderConfig") is None:
            return request
        return {
            **request,
            "MemorySize": request.get("MemorySize") or limits.MANAGED_MEMORY_MB_MIN,
            "LoggingConfig": {"LogFormat": "JSON"} | (request.get("LoggingConfig") or {}),
        }

    def fields(self, caller: Caller, request: Request, current: FunctionRecord | None, found: Fields) -> Fields:
        """The record's capacity_provider_config, after a check of it and of all that the request sets (`found`)."""
        given = request.get("CapacityProviderConfig")
        if current is None and given is None:
            return {}
        if current is not None and current.capacity_provider_config is None:
            if given is not None:
                raise invalid_parameter("CapacityProviderConfig isn't supported for Lambda Default functions.")
            return {}

        def now(field: str, default: Any) -> Any:
            return found.get(field, default if current is None else getattr(current, field))

        runtime: str = now("runtime", "")
        memory_mb: int = now("memory_mb", limits.MANAGED_MEMORY_MB_MIN)
        calls_per_vcpu = _calls_per_vcpu(runtime)
        if memory_mb < limits.MANAGED_MEMORY_MB_MIN:
            raise ApiError(
                "ValidationException",
                "Lambda Managed Instance functions must have memory size greater than or equal to"
                f" {limits.MANAGED_MEMORY_MB_MIN}",
            )
        if now("log_format", "JSON") != "JSON":
            raise invalid_parameter(
                'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change'
                ' the LogFormat to "JSON" and try again.'
            )
        if now("snap_start", "None") != "None":
            raise invalid_parameter("SnapStart isn't supported for Lambda Managed Instances functions.")
        if given is None:
            return {}
        config = given[_CONFIG]
        provider = self._providers.usable(caller, config["CapacityProviderArn"])
        ratio: float = config.get("ExecutionEnvironmentMemoryGiBPerVCpu") or _GIB_PER_VCPU
        vcpus = max(1, int(memory_mb / 1024 / ratio))
        completed = {
            "CapacityProviderArn": provider.arn,
            "PerExecutionEnvironmentMaxConcurrency": config.get("PerExecutionEnvironmentMaxConcurrency")
            or calls_per_vcpu * vcpus,
            "ExecutionEnvironmentMemoryGiBPerVCpu": ratio,
        }
        return {"capacity_provider_config": {_CONFIG: completed}}


def _calls_per_vcpu(runtime: str) -> int:
    """Refuses what does not run on managed instances."""
    if not runtime:
        return _CALLS_PER_VCPU
    family = RUNTIMES[runtime].family
    if family in _SUPPORTED:
        oldest, calls = _SUPPORTED[family]
        if _version_of(runtime, family) >= oldest:
            return calls
    raise invalid_parameter(f"Runtime Enum {runtime} does not support specified feature: Lambda Managed Instances")


def _version_of(runtime: str, family: str) -> tuple[int, ...]:
    """(3, 13) of python3.13, (22,) of nodejs22.x; () of what has no number there."""
    parts = runtime.removeprefix(family).split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def check_bounds(request: Request, current: FunctionRecord) -> list[str]:
    """What an update asks for that only a managed function may have, as findings of a validation."""
    if current.capacity_provider_config is not None:
        return []
    given = (
        ("timeout", request.get("Timeout"), limits.TIMEOUT_SECONDS_MAX),
        ("memorySize", request.get("MemorySize"), limits.MEMORY_MB_MAX),
        ("ephemeralStorage.size", (request.get("EphemeralStorage") or {}).get("Size"), limits.EPHEMERAL_STORAGE_MB_MAX),
    )
    return [
        f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have value less than or equal to"
        f" {maximum}"
        for path, value, maximum in given
        if value is not None and value > maximum
    ]
