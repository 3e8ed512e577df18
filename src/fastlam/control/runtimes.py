"""Runtime identifiers: which the service knows, which it has blocked, which run here."""

from __future__ import annotations

import hashlib
from typing import Final

from fastlam.arn import PARTITION
from fastlam.errors import invalid_parameter

RUNNABLE: Final = frozenset(f"python3.{minor}" for minor in range(10, 16))

# Accepted by the service; this version has nothing to run them with.
_OTHERS: Final = (
    "nodejs22.x nodejs24.x nodejs26.x java8.al2 java8.al2023 java11 java11.al2023 java17 java17.al2023 java21 java25"
    " dotnet8"
    " dotnet10 ruby3.3 ruby3.4 ruby4.0 provided.al2023 custom"
)
OTHERS: Final = frozenset(_OTHERS.split())

# The service no longer creates or updates functions on these.
_BLOCKED: Final = (
    "nodejs nodejs4.3 nodejs4.3-edge nodejs6.10 nodejs8.10 nodejs10.x nodejs12.x nodejs14.x nodejs16.x nodejs18.x"
    " nodejs20.x"
    " python2.7 python3.6 python3.7 python3.8 python3.9 java8 dotnetcore1.0 dotnetcore2.0 dotnetcore2.1 dotnetcore3.1"
    " dotnet6"
    " go1.x ruby2.5 ruby2.7 ruby3.2 provided provided.al2"
)
BLOCKED: Final = frozenset(_BLOCKED.split())

# The set as the service prints it, in its own order (recorded in January 2026).
_PRINTED: Final = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10,"
    " python3.11,"
    " java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11, dotnet6,"
    " nodejs18.x, provided.al2, java8.al2"
)


def check_runtime(runtime: str) -> None:
    if runtime in RUNNABLE:
        return
    if runtime in BLOCKED:
        raise invalid_parameter(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions."
            " We recommend you use a supported runtime while creating or updating functions."
        )
    if runtime in OTHERS:
        raise invalid_parameter(f"The runtime {runtime} is not supported yet: fastlam runs python runtimes so far.")
    raise invalid_parameter(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{_PRINTED}]"
        " or be a valid ARN"
    )


def runtime_version_arn(region: str, runtime: str) -> str:
    """A stable stand-in for the version of the managed runtime that a function runs on."""
    digest = hashlib.sha256(f"fastlam runtime {runtime}".encode()).hexdigest()
    return f"arn:{PARTITION}:lambda:{region}::runtime:{digest}"
