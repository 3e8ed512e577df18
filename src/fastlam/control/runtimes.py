"""Runtime identifiers in one table: which the service knows, until when it takes them, which run here.

Dates are those of AWS's page "Lambda runtimes" (mid-2026): from its block date on, functions can no longer be created
with a runtime, or be given one by an update. What is there goes on running.
"""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple

from fastlam.errors import invalid_parameter


class Runtime(NamedTuple):
    """One identifier. None: no date has been announced."""

    name: str
    family: str  # whose worker runs it: python, nodejs, java, dotnet, ruby, provided
    deprecated: date | None
    create_blocked: date | None
    update_blocked: date | None


# name, family, deprecation, block of creation, block of updates.
_ROWS: Final = """
python3.15        python   -           -           -
python3.14        python   2029-06-30  2029-07-31  2029-08-31
python3.13        python   2029-06-30  2029-07-31  2029-08-31
python3.12        python   2028-10-31  2028-11-30  2029-01-10
python3.11        python   2027-06-30  2027-07-31  2027-08-31
python3.10        python   2026-10-31  2026-11-30  2027-01-15
python3.9         python   2025-12-15  2026-08-31  2026-09-30
python3.8         python   2024-10-14  2026-08-31  2026-09-30
python3.7         python   2023-12-04  2024-01-09  2026-09-30
python3.6         python   2022-07-18  2022-07-18  2022-08-29
python2.7         python   2021-07-15  2021-07-15  2022-05-30
nodejs26.x        nodejs   -           -           -
nodejs24.x        nodejs   2028-04-30  2028-06-01  2028-07-01
nodejs22.x        nodejs   2027-04-30  2027-06-01  2027-07-01
nodejs20.x        nodejs   2026-04-30  2026-08-31  2026-09-30
nodejs18.x        nodejs   2025-09-01  2026-08-31  2026-09-30
nodejs16.x        nodejs   2024-06-12  2026-08-31  2026-09-30
nodejs14.x        nodejs   2023-12-04  2024-01-09  2026-09-30
nodejs12.x        nodejs   2023-03-31  2023-03-31  2023-04-30
nodejs10.x        nodejs   2021-07-30  2021-07-30  2022-02-14
nodejs8.10        nodejs   2020-03-06  2020-02-04  2020-03-06
nodejs6.10        nodejs   2019-08-12  2019-07-12  2019-08-12
nodejs4.3-edge    nodejs   2020-03-05  2020-02-03  2020-03-05
nodejs4.3         nodejs   2020-03-05  2020-02-03  2020-03-05
nodejs            nodejs   2016-10-31  2016-10-31  2016-10-31
java25            java     2029-06-30  2029-07-31  2029-08-31
java21            java     2029-06-30  2029-07-31  2029-08-31
java17.al2023     java     -           -           -
java17            java     2027-06-30  2027-07-31  2027-08-31
java11.al2023     java     -           -           -
java11            java     2027-06-30  2027-07-31  2027-08-31
java8.al2023      java     -           -           -
java8.al2         java     2027-06-30  2027-07-31  2027-08-31
java8             java     2024-01-08  2024-02-08  2026-09-30
dotnet10          dotnet   2028-11-14  2028-12-14  2029-01-15
dotnet8           dotnet   2026-11-10  2026-12-10  2027-01-11
dotnet6           dotnet   2024-12-20  2026-08-31  2026-09-30
dotnetcore3.1     dotnet   2023-04-03  2023-04-03  2023-05-03
dotnetcore2.1     dotnet   2022-01-05  2022-01-05  2022-04-13
dotnetcore2.0     dotnet   2019-05-30  2019-04-30  2019-05-30
dotnetcore1.0     dotnet   2019-07-30  2019-06-27  2019-07-30
ruby4.0           ruby     -           -           -
ruby3.4           ruby     2028-03-31  2028-04-30  2028-05-31
ruby3.3           ruby     2027-03-31  2027-04-30  2027-05-31
ruby3.2           ruby     2026-03-31  2026-08-31  2026-09-30
ruby2.7           ruby     2023-12-07  2024-01-09  2026-09-30
ruby2.5           ruby     2021-07-30  2021-07-30  2022-03-31
provided.al2023   provided 2029-06-30  2029-07-31  2029-08-31
provided.al2      provided 2026-07-31  2026-08-31  2026-09-30
provided          provided 2024-01-08  2024-02-08  2026-09-30
go1.x             provided 2024-01-08  2024-02-08  2026-09-30
custom            provided -           -           -
"""


def _date(text: str) -> date | None:
    return None if text == "-" else date.fromisoformat(text)


RUNTIMES: Final[dict[str, Runtime]] = {
    name: Runtime(name, family, *map(_date, dates))
    for name, family, *dates in (line.split() for line in _ROWS.strip().splitlines())
}

# The set as the service prints it, in its own order (recorded in January 2026).
_PRINTED: Final = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10,"
    " python3.11,"
    " java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, java11, dotnet6,"
    " nodejs18.x, provided.al2, java8.al2"
)


def check_runtime(name: str, today: date, *, creating: bool = True) -> None:
    """Refuse what the service does not know, or no longer takes on that day."""
    runtime = RUNTIMES.get(name)
    if runtime is None:
        raise invalid_parameter(
            f"Value {name} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{_PRINTED}]"
            " or be a valid ARN"
        )
    blocked = runtime.create_blocked if creating else runtime.update_blocked
    if blocked is not None and today >= blocked:
        raise invalid_parameter(
            f"The runtime parameter of {name} is no longer supported for creating or updating AWS Lambda functions."
            " We recommend you use a supported runtime while creating or updating functions."
        )


def is_deprecated(name: str, today: date) -> bool:
    runtime = RUNTIMES.get(name)
    return runtime is not None and runtime.deprecated is not None and today >= runtime.deprecated


def supports_snap_start(name: str) -> bool:
    """Java from 11, Python from 3.12, .NET from 8 (AWS: "Lambda SnapStart")."""
    runtime = RUNTIMES.get(name)
    if runtime is None:
        return False
    if runtime.family == "python":
        return int(name.partition(".")[2]) >= 12
    if runtime.family == "java":
        return not name.startswith("java8")
    return name in ("dotnet8", "dotnet10")
