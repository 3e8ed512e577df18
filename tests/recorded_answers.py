"""Tables of what the service was seen to answer, held against a running daemon.

A `Row` is one recorded fact: a request and its whole answer. Requests go out as bare HTTP, so that statuses, headers and
the spelling of members count. In the answer a plain value stands for itself; `ANY`, compiled patterns, `Has` and `Keep`
stand for what differs from run to run. What a row keeps, later rows of the same `Script` name as <<word>>.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import pytest

from daemon_running import ACCOUNT, REGION, Answer, RunningDaemon, zipped
from fastlam.runtimes.python import INTERPRETER
from waiting import WAIT_SECONDS

LAMBDA: Final = f"arn:aws:lambda:{REGION}:{ACCOUNT}"
FUNCTION: Final = f"{LAMBDA}:function"
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/lambda-role"
FUNCTIONS: Final = "/2015-03-31/functions"
ZIP_BYTES: Final = zipped("def handler(event, context):\n    return event\n")
ZIP: Final = base64.b64encode(ZIP_BYTES).decode()
OTHER_ZIP: Final = base64.b64encode(zipped("def handler(event, context):\n    return 2\n")).decode()

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MILLISECONDS: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
SECONDS: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+0000")
NANOSECONDS: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
ZULU: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
RUNTIME_VERSION: Final = re.compile(rf"arn:aws:lambda:{REGION}::runtime:[0-9a-f]{{64}}")

# Errors whose message is spelled "Message"; all others, and what is in no model, say "message".
_CAPITAL: Final = frozenset(
    (
        "CallbackTimeout",
        "CodeSigningConfigNotFound",
        "CodeVerificationFailed",
        "InvalidCodeSignature",
        "NoPublishedVersion",
        "PublicPolicy",
        "RecursiveInvocation",
        "ResourceInUse",
        "ResourceNotFound",
        "Service",
        "SnapStart",
    )
)
_STATUS: Final[Mapping[str, int]] = {
    "AccessDenied": 403,
    "CodeSigningConfigNotFound": 404,
    "ProvisionedConcurrencyConfigNotFound": 404,
    "PreconditionFailed": 412,
    "RequestEntityTooLarge": 413,
    "ResourceConflict": 409,
    "ResourceNotFound": 404,
    "TooManyRequests": 429,
    "UnknownOperation": 404,
}  # the others: 400
_UNTYPED: Final = frozenset(
    ("Validation", "AccessDenied", "RequestEntityTooLarge", "Serialization", "UnknownOperation")
)


_TRIES: Final = 50


class _Wild:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ANY: Final = _Wild("ANY")
NUMBER: Final = _Wild("NUMBER")


@dataclass(frozen=True)
class Has:
    """A structure with these members, without those named, and whatever else."""

    members: Mapping[str, Any]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Keep:
    """Fits what `like` fits; later rows know it as <<word>>."""

    word: str
    like: Any = ANY


@dataclass(frozen=True)
class Differs:
    """Anything but what was kept under the word."""

    word: str


@dataclass(frozen=True)
class Json:
    """A text that holds this JSON, in this order of members."""

    value: Any


@dataclass(frozen=True)
class Error:
    """A refusal: code (without "Exception"), message, and whether the body carries a Type, where that is not as always."""

    code: str
    message: str | re.Pattern[str] | None
    typed: bool | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 400)

    @property
    def body(self) -> dict[str, Any]:
        typed = self.code not in _UNTYPED if self.typed is None else self.typed
        key = "Message" if self.code in _CAPITAL else "message"
        return {**self.fields, **({"Type": "User"} if typed else {}), key: self.message}


@dataclass(frozen=True)
class Row:
    """One recorded fact."""

    fact: str
    request: str  # METHOD target
    body: Any
    status: int
    answer: Any  # None: the body is empty
    sent: Mapping[str, str] = field(default_factory=dict)  # headers of the request
    headers: Mapping[str, Any] = field(default_factory=dict)  # of the answer; None: there is no such


def ok(fact: str, request: str, status: int, answer: Any = None, body: Any = None) -> Row:
    return Row(fact, request, body, status, answer)


def refusal(fact: str, request: str, error: Error, body: Any = None) -> Row:
    return Row(fact, request, body, error.status, error)


def invalid(message: str | re.Pattern[str], *, typed: bool | None = None) -> Error:
    return Error("InvalidParameterValue", message, typed)


def missing(message: str | re.Pattern[str], *, typed: bool | None = None) -> Error:
    return Error("ResourceNotFound", message, typed)


def conflict(message: str | re.Pattern[str]) -> Error:
    return Error("ResourceConflict", message)


def constraint(*items: str) -> Error:
    """What the constraints of the model refuse; each item without the words that are always the same."""
    some = "error" if len(items) == 1 else "errors"
    texts = (
        re.sub(r"^(.*?' at '[^']*'|null at '[^']*'): ", r"Value \1 failed to satisfy constraint: ", each)
        for each in items
    )
    return Error("Validation", f"{len(items)} validation {some} detected: " + "; ".join(texts))


def locator(text: str) -> str:
    """As a part of a path."""
    return quote(text, safe="")


def creation(name: str, **more: Any) -> dict[str, Any]:
    """The body of a CreateFunction; None leaves a member out."""
    members = {
        "FunctionName": name,
        "Runtime": INTERPRETER,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": ZIP},
        **more,
    }
    return {key: value for key, value in members.items() if value is not None}


class Script:
    """Asks rows one after the other and holds each answer against what is recorded."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self.kept: dict[str, Any] = {}

    def run(self, rows: Iterable[Row]) -> None:
        wrong = [difference for row in rows for difference in self.differences(row)]
        assert wrong == [], "\n" + "\n".join(wrong)

    def run_at_once(self, begin: Callable[[], object], row: Row) -> None:
        """A row that holds only for a moment after `begin`: tried again while the moment is missed."""
        wrong: list[str] = []
        for _ in range(_TRIES):
            begin()
            wrong = self.differences(row)
            if not wrong:
                return
        raise AssertionError("\n".join(wrong))

    def differences(self, row: Row) -> list[str]:
        method, _, target = self._filled(row.request).partition(" ")
        body = self._filled(row.body)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = self._daemon.send(method, target, data, row.sent)
        found = list(self._compare(row, answer))
        shown = answer.body[:1000].decode("utf-8", "replace")
        return [f"{row.fact}: {row.request} answered {answer.status} {shown}", *found] if found else []

    def _compare(self, row: Row, answer: Answer) -> Iterable[str]:
        if answer.status != row.status:
            yield f"    status {answer.status} instead of {row.status}"
        if not UUID.fullmatch(answer.headers.get("x-amzn-requestid", "")):
            yield "    no x-amzn-RequestId"
        if "date" not in answer.headers:
            yield "    no Date"
        for name, expected in row.headers.items():
            yield from self._unlike(expected, answer.headers.get(name), name)
        if answer.body and answer.headers.get("content-type") != "application/json":
            yield f"    Content-Type {answer.headers.get('content-type')}"
        code = answer.headers.get("x-amzn-errortype")
        if isinstance(row.answer, Error):
            if code != f"{row.answer.code}Exception":
                yield f"    x-amzn-ErrorType {code} instead of {row.answer.code}Exception"
            if answer.body:
                yield from self._unlike(self._filled(row.answer.body), answer.json, "")
            return
        if code is not None:
            yield f"    x-amzn-ErrorType {code}"
        if row.answer is None:
            if answer.body != b"":
                yield "    the body is not empty"
        elif answer.body == b"":
            yield "    the body is empty"
        else:
            yield from self._unlike(self._filled(row.answer), answer.json, "")

    def _unlike(self, expected: Any, value: Any, path: str) -> Iterable[str]:
        if expected is ANY:
            return
        if expected is NUMBER:
            if type(value) not in (int, float):
                yield f"    {path} is {value!r}, no number"
            return
        if isinstance(expected, Keep):
            yield from self._unlike(self._filled(expected.like), value, path)
            self.kept[expected.word] = value
        elif isinstance(expected, Differs):
            if value is None or value == self.kept[expected.word]:
                yield f"    {path} is {value!r} as before"
        elif isinstance(expected, re.Pattern):
            if not isinstance(value, str) or not expected.fullmatch(value):
                yield f"    {path} is {value!r}, not like {expected.pattern}"
        elif isinstance(expected, Json):
            if json.dumps(json.loads(value)) != json.dumps(expected.value):
                yield f"    {path} is {value!r}, expected {json.dumps(expected.value)}"
        elif isinstance(expected, (dict, Has)) and isinstance(value, dict):
            members = expected.members if isinstance(expected, Has) else expected
            for name, item in members.items():
                if name in value:
                    yield from self._unlike(item, value[name], f"{path}.{name}")
                else:
                    yield f"    {path}.{name} is absent"
            absent = expected.without if isinstance(expected, Has) else value.keys() - members.keys()
            yield from (f"    {path}.{name} is there" for name in absent if name in value)
        elif isinstance(expected, list) and isinstance(value, list) and len(expected) == len(value):
            for number, (item, each) in enumerate(zip(expected, value, strict=True)):
                yield from self._unlike(item, each, f"{path}[{number}]")
        elif expected != value or isinstance(expected, bool) is not isinstance(value, bool):
            yield f"    {path} is {value!r}, expected {expected!r}"

    def exists(self, name: str) -> bool:
        return self._daemon.send("GET", f"{FUNCTIONS}/{name}").status == 200

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"<<(\w+)>>", lambda match: str(self.kept[match[1]]), value)
        if isinstance(value, dict):
            return {name: self._filled(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, Has):
            return Has(self._filled(dict(value.members)), value.without)
        return value


# ---- the stage on which refusals play -----------------------------------------------------------


def ask(daemon: RunningDaemon, request: str, body: Any = None) -> Any:
    """An answer that is wanted, parsed."""
    method, _, target = request.partition(" ")
    answer = daemon.send(method, target, None if body is None else json.dumps(body).encode())
    assert answer.status < 300, (request, body, answer)
    return answer.json if answer.body else None


def set_up(daemon: RunningDaemon) -> None:
    """`staged`: versions 1 and 2, the aliases `live` (1) and `split` (1, a fourth of the time 2); `plain`: nothing."""
    daemon.deploy("plain", ZIP_BYTES)
    daemon.deploy("staged", ZIP_BYTES)
    publish(daemon, "staged")
    ask(daemon, f"PUT {FUNCTIONS}/staged/configuration", {"Timeout": 4})
    daemon.settle("staged")
    publish(daemon, "staged")
    ask(daemon, f"POST {FUNCTIONS}/staged/aliases", {"Name": "live", "FunctionVersion": "1"})
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    ask(daemon, f"POST {FUNCTIONS}/staged/aliases", {"Name": "split", "FunctionVersion": "1", "RoutingConfig": weights})


def publish(daemon: RunningDaemon, name: str) -> str:
    version = ask(daemon, f"POST {FUNCTIONS}/{name}/versions", {})["Version"]
    deadline = time.monotonic() + WAIT_SECONDS
    while ask(daemon, f"GET {FUNCTIONS}/{name}/configuration?Qualifier={version}")["State"] != "Active":
        assert time.monotonic() < deadline
    return str(version)


def everything(daemon: RunningDaemon) -> dict[str, Any]:
    """All that can be read through the API, by request; without the links to code, which differ each time."""
    found: dict[str, Any] = {}

    def read(target: str) -> Any:
        answer = daemon.send("GET", target)
        value = answer.json if answer.body else None
        if isinstance(value, dict):
            for part in (value.get("Code"), value.get("Content")):
                if isinstance(part, dict):
                    part.pop("Location", None)
        found[target] = (answer.status, value)
        return value

    for function in read(f"{FUNCTIONS}?FunctionVersion=ALL")["Functions"]:
        name, version = function["FunctionName"], function["Version"]
        own = f"{FUNCTIONS}/{name}"
        if version != "$LATEST":
            read(f"{own}?Qualifier={version}")
            read(f"{own}/policy?Qualifier={version}")
            continue
        for target in (own, f"{own}/versions", f"{own}/policy"):
            read(target)
        for alias in read(f"{own}/aliases")["Aliases"]:
            read(f"{own}/policy?Qualifier={alias['Name']}")
        for target in (
            "/2017-03-31/tags/" + locator(f"{FUNCTION}:{name}"),
            f"/2019-09-30/functions/{name}/concurrency",
            f"/2019-09-30/functions/{name}/provisioned-concurrency?List=ALL",
            f"/2019-09-25/functions/{name}/event-invoke-config/list",
            f"/2021-10-31/functions/{name}/urls",
            f"/2020-06-30/functions/{name}/code-signing-config",
            f"/2024-08-31/functions/{name}/recursion-config",
            f"/2021-07-20/functions/{name}/runtime-management-config",
        ):
            read(target)
    for layer in read("/2018-10-31/layers")["Layers"]:
        for version in read(f"/2018-10-31/layers/{layer['LayerName']}/versions")["LayerVersions"]:
            read(f"/2018-10-31/layers/{layer['LayerName']}/versions/{version['Version']}/policy")
    for target in (
        "/2015-03-31/event-source-mappings",
        "/2020-04-22/code-signing-configs",
        "/2025-11-30/capacity-providers",
        "/2016-08-19/account-settings",
    ):
        read(target)
    return found


def names(rows: Sequence[Row]) -> list[str]:
    """For pytest: what each case is about."""
    return [row.fact for row in rows]


def changes_nothing(daemon: RunningDaemon, before: Mapping[str, Any], row: Row) -> None:
    """The row's answer is the recorded one, and all that can be read is as it was `before`."""
    Script(daemon).run([row])
    assert everything(daemon) == before


def staged(prepare: Callable[[RunningDaemon], None]) -> Any:
    """Makes the fixture `before` of a module from what prepares its daemon: all that can be read when that is done."""

    @pytest.fixture(scope="module", name="before")
    def before(daemon: RunningDaemon) -> dict[str, Any]:
        prepare(daemon)
        return everything(daemon)

    return before


def unchanging(rows: Sequence[Row]) -> Any:
    """The test of a module that has `before`: each of these rows is answered so, and changes nothing."""

    @pytest.mark.parametrize("row", rows, ids=names(rows))
    def test(daemon: RunningDaemon, before: dict[str, Any], row: Row) -> None:
        changes_nothing(daemon, before, row)

    return test
