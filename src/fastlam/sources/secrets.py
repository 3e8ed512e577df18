"""What a mapping's SourceAccessConfigurations refer to: secrets of AWS Secrets Manager, read as the function's role."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastlam.sources.aws.http import NoAnswer
from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsError, AwsService
from fastlam.sources.context import Context, SourceProblem


def access_of(context: Context, *kinds: str) -> tuple[str, str] | None:
    """The first of these kinds that the mapping names, and its URI."""
    for each in context.settings.get("SourceAccessConfigurations") or ():
        if each.get("Type") in kinds:
            return each["Type"], each.get("URI") or ""
    return None


async def secret(context: Context, uri: str) -> Mapping[str, Any]:
    """The JSON object that a secret holds. Raises SourceProblem."""

    async def value(client: AwsService) -> Any:
        return await client.call("GetSecretValue", SecretId=uri)

    try:
        _, answer = await reach(context, "secretsmanager", value)
        found = json.loads(answer["SecretString"])
    except AwsError as refusal:
        raise SourceProblem(f"The secret {uri} cannot be read: {refusal}") from None
    except NoAnswer as failure:
        raise SourceProblem(f"The secret {uri} cannot be read: {failure}") from None
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise SourceProblem(f"The secret {uri} is no JSON object.")
    return found


def part_of(found: Mapping[str, Any], uri: str, name: str) -> str:
    """What a secret has by that name. Raises SourceProblem."""
    if not isinstance(found.get(name), str):
        raise SourceProblem(f"The secret {uri} has no {name}.")
    return str(found[name])


async def user_of(context: Context) -> tuple[str, str] | None:
    """User name and password of BASIC_AUTH; None without one. Raises SourceProblem."""
    access = access_of(context, "BASIC_AUTH")
    if access is None:
        return None
    found = await secret(context, access[1])
    return part_of(found, access[1], "username"), part_of(found, access[1], "password")
