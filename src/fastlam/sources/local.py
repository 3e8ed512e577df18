"""Sources that Lambda does not have, as mappings name them: arn:aws:fastlam:<region>:<account>:<URL>."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.secrets import user_of


def url_of(context: Context) -> str:
    """The URL in the mapping's EventSourceArn."""
    return context.arn.split(":", 5)[5]


def parts_of(context: Context) -> SplitResult:
    try:
        parts = urlsplit(url_of(context))
        _ = parts.port  # is it a number
    except ValueError as error:
        raise SourceProblem(f"{shown_url(url_of(context))} is no URL: {error}") from None
    return parts


async def url_with_user(context: Context) -> str:
    """The URL, with the user of BASIC_AUTH in it where the mapping names one."""
    user = await user_of(context)
    if user is None:
        return url_of(context)
    parts = parts_of(context)
    name, password = (quote(each, safe="") for each in user)
    address = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{name}:{password}@{address}").geturl()


def shown_url(url: str) -> str:
    """Without the password that may stand in it."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return "The address"


def unreachable(context: Context, failure: BaseException) -> SourceProblem:
    text = " ".join(str(failure).split()) or type(failure).__name__
    return SourceProblem(f"{shown_url(url_of(context))} cannot be read: {text}")
