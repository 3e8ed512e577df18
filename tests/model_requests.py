"""Requests made from the compiled service model: mostly what an operation asks for, often about things that are there, and
now and then wrong in one place.

A drawn `Request` may hold `Known` in the place of values that only the run itself learns (markers, revisions, ids);
`World` puts in what it has seen.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from daemon_running import ACCOUNT, REGION, zipped
from fastlam.api import service_model
from fastlam.api.service_model import Operation, Shape
from fastlam.runtimes.python import INTERPRETER

MODEL: Final = service_model.load()
OPERATIONS: Final = {operation.name: operation for operation in MODEL.operations}
OTHER_ACCOUNT: Final = "111122223333"

# What makes things that other requests need comes more often.
_OFTEN: Final = {
    "CreateFunction": 6,
    "PublishVersion": 4,
    "CreateAlias": 3,
    "PublishLayerVersion": 3,
    "AddPermission": 2,
    "AddLayerVersionPermission": 2,
    "CreateEventSourceMapping": 3,
    "CreateFunctionUrlConfig": 2,
    "CreateCodeSigningConfig": 2,
    "CreateCapacityProvider": 2,
    "UpdateFunctionCode": 2,
    "UpdateFunctionConfiguration": 2,
    "Invoke": 2,
    "InvokeWithResponseStream": 2,
}

NAMES: Final = ("fuzz-a", "fuzz-b", "fuzz_c", "fuzz-d")
QUALIFIERS: Final = ("1", "2", "3", "live", "next", "$LATEST", "$LATEST.PUBLISHED", "77", "gone")
LAYERS: Final = ("layer-a", "layer_b")
PROVIDERS: Final = ("provider-a", "provider-b")

ZIP: Final = base64.b64encode(zipped("def handler(event, context):\n    return event\n")).decode()
OTHER_ZIP: Final = base64.b64encode(zipped("def handler(event, context):\n    return 1 // 0\n")).decode()

HOSTILE: Final = (
    "",
    " ",
    "\0",
    "\r\nX-Injected: 1",
    "../../../../etc/passwd",
    "%00%2e%2e%2f",
    "' OR '1'='1' --",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "\ud800",
    "\U0001f4a5é\u202e\u0000",
    "𝟙",
    "१",
    "None",
    "null",
    "-1",
    "1e400",
    "NaN",
    "arn:aws:lambda:::",
    "arn:" * 50,
    "$LATEST",
    "a" * 300,
    "b" * 20_000,
    "[" * 500,
)


@dataclass(frozen=True)
class Known:
    """Something that an earlier answer said; `otherwise` while nothing of the kind is known."""

    kind: str
    index: int
    otherwise: str


@dataclass
class World:
    """What answers have said so far, by the name of the member that said it."""

    seen: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=12)))

    def learn(self, value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, str) and (
                    name in ("NextMarker", "RevisionId", "UUID", "Version") or name.endswith("Arn")
                ):
                    self.seen[name].append(item)
                else:
                    self.learn(item)
        elif isinstance(value, list):
            for item in value:
                self.learn(item)

    def put_in(self, value: Any) -> Any:
        if isinstance(value, Known):
            seen = self.seen.get(value.kind)
            return seen[value.index % len(seen)] if seen else value.otherwise
        if isinstance(value, dict):
            return {name: self.put_in(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.put_in(item) for item in value]
        return value


@dataclass(frozen=True)
class Request:
    """One request: the operation it is meant for, and what is sent."""

    operation: Operation
    method: str
    parameters: dict[str, Any]  # by member name
    unknown: dict[str, Any]  # further members of the body
    body: bytes | None  # in the place of a proper one
    account: str
    region: str

    def arrives(self, world: World) -> bool:
        """Whether it goes to its operation: with another method, or with nothing where a name has to be in the path, it
        goes elsewhere.
        """
        members = MODEL.shapes[self.operation.input].members if self.operation.input else ()
        labels = [_text(world.put_in(self.parameters.get(each.name))) for each in members if each.location == "uri"]
        return self.method == self.operation.method and all(labels)

    def over_http(self, world: World) -> tuple[str, str, bytes | None, dict[str, str]]:
        """Method, target, body, headers."""
        operation = self.operation
        path, query, headers = operation.path, [f"{name}={quote(value)}" for name, value in operation.query], {}
        content: dict[str, Any] = dict(self.unknown)
        payload: bytes | None = None
        for member in MODEL.shapes[operation.input].members if operation.input else ():
            value = world.put_in(self.parameters.get(member.name))
            if member.location == "uri":
                path = path.replace("{" + member.wire_name + "}", quote(_encodable(value), safe=""))
            elif value is None:
                continue
            elif member.location == "querystring":
                for item in value if isinstance(value, list) else [value]:
                    query.append(f"{member.wire_name}={quote(_encodable(item), safe='')}")
            elif member.location == "header":
                printable = (character for character in _text(value) if character.isprintable() and character < "\x7f")
                headers[member.wire_name] = "".join(printable)
            elif member.name == operation.payload:
                is_blob = MODEL.shapes[member.shape].type == "blob" and isinstance(value, str)
                payload = _encodable(value).encode() if is_blob else json.dumps(value).encode()
            else:
                content[member.wire_name] = value
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.account}/20260101/{self.region}/lambda/aws4_request,"
            " SignedHeaders=host, Signature=0"
        )
        body = payload if payload is not None else (json.dumps(content).encode() if content else None)
        if self.body is not None:
            body = self.body
        return self.method, path + ("?" + "&".join(query) if query else ""), body, headers


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _encodable(value: Any) -> str:
    return _text(value).encode("utf-8", "replace").decode()


# What is valid ----------------------------------------------------------------------------------


def _arn(resource: str, region: str = REGION, account: str = ACCOUNT, partition: str = "aws") -> str:
    return f"arn:{partition}:lambda:{region}:{account}:{resource}"


_names = st.sampled_from(NAMES)
_qualifiers = st.sampled_from(QUALIFIERS)
_foreign = st.sampled_from(
    [(REGION, OTHER_ACCOUNT, "aws"), ("eu-west-1", ACCOUNT, "aws"), ("us-gov-west-1", ACCOUNT, "aws-us-gov")]
)


@cache
def _locators(qualified: bool) -> st.SearchStrategy[str]:
    """Names of functions in every form; a few of them elsewhere."""
    plain = st.one_of(
        _names,
        _names,
        _names.map(lambda name: _arn(f"function:{name}")),
        _names.map(lambda name: f"{ACCOUNT}:function:{name}"),
        _names.map(lambda name: f"function:{name}"),
    )
    far = st.tuples(_names, _foreign).map(lambda pair: _arn(f"function:{pair[0]}", *pair[1]))
    if not qualified:
        return st.one_of(plain, plain, plain, plain, far)
    both = st.tuples(plain, _qualifiers).map(":".join)
    return st.one_of(plain, plain, plain, both, far)


def _known(kind: str, otherwise: str) -> st.SearchStrategy[Any]:
    return st.integers(0, 20).map(lambda index: Known(kind, index, otherwise))


_versions = _known("Version", "1")
_STALE: Final = "00000000-0000-4000-8000-000000000000"
_function_arns = st.one_of(
    _names.map(lambda name: _arn(f"function:{name}")),
    st.tuples(_names, _qualifiers).map(lambda pair: _arn(f"function:{pair[0]}:{pair[1]}")),
)
_layer_version_arns = st.tuples(st.sampled_from(LAYERS), st.integers(1, 4)).map(
    lambda pair: _arn(f"layer:{pair[0]}:{pair[1]}")
) | _known("LayerVersionArn", _arn("layer:layer-a:1"))
_providers = st.sampled_from(PROVIDERS) | st.sampled_from(PROVIDERS).map(lambda name: _arn(f"capacity-provider:{name}"))
_sources = st.sampled_from(
    [
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue",
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue.fifo",
        f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/events",
        f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t/stream/2026-01-01T00:00:00.000",
        f"arn:aws:kafka:{REGION}:{ACCOUNT}:cluster/c/00000000-0000-4000-8000-000000000000-1",
        f"arn:aws:sns:{REGION}:{ACCOUNT}:topic",
        "arn:aws:s3:::bucket",
        f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:fuzz-a",
    ]
)
_policies = st.sampled_from(["*", "lambda:InvokeFunction", "lambda:GetFunction"]).map(
    lambda action: json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "one",
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"},
                    "Action": action,
                    "Resource": _arn("function:fuzz-a"),
                }
            ],
        }
    )
)

# By shape, or by member where the shape is plain text.
_SPECIAL: Final[dict[str, st.SearchStrategy[Any]]] = {
    "FunctionName": _locators(True),
    "NamespacedFunctionName": _locators(True),
    "FunctionUrlFunctionName": _locators(False),
    "UnqualifiedFunctionName": _locators(False),
    "NumericLatestPublishedOrAliasQualifier": _qualifiers | _versions,
    "Qualifier": st.sampled_from(QUALIFIERS[:7]) | _versions,
    "FunctionUrlQualifier": st.sampled_from(["live", "next", "gone"]),
    "PublishedFunctionQualifier": st.sampled_from(["$LATEST.PUBLISHED", "1", "2"]),
    "VersionWithLatestPublished": st.sampled_from(["1", "2", "$LATEST", "$LATEST.PUBLISHED"]) | _versions,
    "AdditionalVersion": st.sampled_from(["1", "2", "3"]),
    "Alias": st.sampled_from(["live", "next", "2024-01-02"]),
    "LayerName": st.sampled_from(LAYERS),
    "LayerNameOrArn": st.sampled_from(LAYERS) | st.sampled_from(LAYERS).map(lambda name: _arn(f"layer:{name}")),
    "LayerVersionArn": _layer_version_arns,
    "LayerVersionNumber": st.integers(1, 4),
    "UUIDString": _known("UUID", _STALE),
    "Marker": _known("NextMarker", "YWZ0ZXI6eA=="),
    "RevisionId": _known("RevisionId", _STALE),
    "CodeSigningConfigArn": _known("CodeSigningConfigArn", _arn("code-signing-config:csc-0123456789abcdef0")),
    "CapacityProviderName": _providers,
    "CapacityProviderArn": st.sampled_from(PROVIDERS).map(lambda name: _arn(f"capacity-provider:{name}")),
    "TaggableResource": st.one_of(
        _function_arns,
        st.sampled_from(LAYERS).map(lambda name: _arn(f"layer:{name}")),
        _known("EventSourceMappingArn", _arn(f"event-source-mapping:{_STALE}")),
        _known("CodeSigningConfigArn", _arn("code-signing-config:csc-0123456789abcdef0")),
        st.sampled_from(PROVIDERS).map(lambda name: _arn(f"capacity-provider:{name}")),
    ),
    "PolicyResourceArn": _function_arns,
    "ResourcePolicy": _policies,
    "StatementId": st.sampled_from(["one", "two", "three"]),
    "NamespacedStatementId": st.sampled_from(["one", "two", "three"]),
    "Action": st.sampled_from(["lambda:InvokeFunction", "lambda:GetFunction", "lambda:InvokeFunctionUrl", "lambda:*"]),
    "Principal": st.sampled_from(["*", "s3.amazonaws.com", OTHER_ACCOUNT, f"arn:aws:iam::{OTHER_ACCOUNT}:role/r", "x"]),
    "RoleArn": st.just(f"arn:aws:iam::{ACCOUNT}:role/lambda-role"),
    "Runtime": st.sampled_from([INTERPRETER, INTERPRETER, INTERPRETER, "python3.13", "nodejs22.x", "java8", "custom"]),
    "Handler": st.sampled_from(["app.handler", "app.handler", "app.nothing"]),
    "Arn": _sources,
    "DestinationArn": _sources,
    "ResourceArn": _sources,
    "EnvironmentVariableName": st.sampled_from(["STAGE", "NAME", "AWS_REGION", "A1"]),
    "EnvironmentVariableValue": st.text(st.characters(codec="utf-8"), max_size=20),
    "Tags": st.dictionaries(st.sampled_from(["team", "stage", "a"]), st.text("abc 1", max_size=5), max_size=3),
    "TagKeyList": st.lists(st.sampled_from(["team", "stage", "a"]), min_size=1, max_size=2),
    "CodeSha256": st.sampled_from(["", "x", ZIP[:44]]),
    "ImageUri": st.sampled_from(
        [f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/app:latest", "app", "a:b@sha256:" + "0" * 64]
    ),
    "ClientContext": st.sampled_from([base64.b64encode(b'{"client":{}}').decode(), "x", "e30="]),
    "Timeout": st.sampled_from([1, 3, 30, 900]),
    "MemorySize": st.sampled_from([128, 256, 2048, 10240]),
    "DurableExecutionArn": st.sampled_from(NAMES).map(
        lambda name: _arn(f"function:{name}:$LATEST/durable-execution/run/0123456789abcdef")
    ),
    "AllowedPublishers": st.sampled_from("ab").map(
        lambda name: {
            "SigningProfileVersionArns": [f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/{name}/0123456789"]
        }
    ),
    "Pattern": st.sampled_from(['{"body": {"kind": ["a"]}}', '{"a": [{"numeric": [">", 1]}]}', "{}", "x", "[1]"]),
    "EventSourcePosition": st.sampled_from(["LATEST", "TRIM_HORIZON"]),
    "FunctionCode": st.sampled_from([{"ZipFile": ZIP}, {"ZipFile": ZIP}, {"ZipFile": OTHER_ZIP}, {"ZipFile": "AAAA"}]),
    "LayerVersionContentInput": st.sampled_from([{"ZipFile": ZIP}, {"ZipFile": OTHER_ZIP}, {"ZipFile": ""}]),
    "ZipFile": st.sampled_from([ZIP, OTHER_ZIP, "AAAA", ""]),
    "Payload": st.sampled_from(["{}", "[1]", "nope", "", '"x"']),
    "InvokeArgs": st.sampled_from(["{}", "[1]", "nope", ""]),
    "InvocationType": st.sampled_from(["RequestResponse", "Event", "DryRun", "DryRun", "DryRun"]),
    "ResponseStreamingInvocationType": st.sampled_from(["RequestResponse", "DryRun", "DryRun"]),
}


@cache
def _pattern_texts(shape_name: str) -> st.SearchStrategy[str]:
    shape = MODEL.shapes[shape_name]
    least, most = int(shape.minimum or 0), int(shape.maximum or 10_000)
    texts = st.from_regex(shape.python_pattern or shape.pattern, fullmatch=True)
    return texts.filter(lambda text: least <= len(text) <= most) if shape.minimum or shape.maximum else texts


def _valid_text(shape_name: str, shape: Shape) -> st.SearchStrategy[Any]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    if shape.pattern:
        return _pattern_texts(shape_name)
    least = int(shape.minimum or 0)
    return st.text(st.characters(codec="utf-8"), min_size=least, max_size=min(int(shape.maximum or 40), least + 40))


def _valid_number(shape: Shape) -> st.SearchStrategy[Any]:
    least = 0 if shape.minimum is None else int(shape.minimum)
    most = least + 1000 if shape.maximum is None else int(shape.maximum)
    numbers = st.one_of(st.sampled_from([least, most]), st.integers(least, most))
    return numbers.map(float) if shape.type == "double" else numbers


def _plain(shape_name: str, shape: Shape) -> st.SearchStrategy[Any] | None:
    """Of what has no parts."""
    if shape.type == "string":
        return _valid_text(shape_name, shape)
    if shape.type in ("integer", "long", "double", "float"):
        return _valid_number(shape)
    if shape.type == "boolean":
        return st.booleans()
    if shape.type == "timestamp":
        return st.sampled_from([0, 1_767_225_600, 1_767_225_600.5])
    if shape.type == "blob":
        return st.sampled_from([ZIP, "", "aGVsbG8="])
    return None


# Plain texts whose meaning is in their name.
_BY_MEMBER: Final = frozenset(
    {"Marker", "CodeSha256", "ZipFile", "ImageUri", "ClientContext", "Payload", "InvokeArgs", "RevisionId"}
)


@cache
def _strategy(shape_name: str, member: str) -> st.SearchStrategy[Any] | None:
    if member in _BY_MEMBER:
        return _SPECIAL[member]
    if shape_name in _SPECIAL:
        return _SPECIAL[shape_name]
    return _plain(shape_name, MODEL.shapes[shape_name])


def _valid(draw: st.DrawFn, shape_name: str, member: str = "", depth: int = 0) -> Any:
    strategy = _strategy(shape_name, member)
    if strategy is not None:
        return draw(strategy)
    shape = MODEL.shapes[shape_name]
    least = int(shape.minimum or 0)
    if shape.type == "structure":
        return _valid_members(draw, shape_name, depth)
    count = draw(st.integers(least, min(int(shape.maximum or 3), least + 2))) if depth < 5 else least
    if shape.type == "list":
        return [_valid(draw, shape.element, "", depth + 1) for _ in range(count)]
    return {
        str(_valid(draw, shape.key, "", depth + 1)): _valid(draw, shape.element, "", depth + 1) for _ in range(count)
    }


# At most so many members that need not be given; most requests give few.
_optional_counts = st.sampled_from([0, 0, 1, 1, 1, 2, 2, 3, 5, 40])


def _valid_members(draw: st.DrawFn, shape_name: str, depth: int) -> dict[str, Any]:
    members = MODEL.shapes[shape_name].members
    optional = [member for member in members if not member.required]
    count = min(len(optional), draw(_optional_counts)) if depth < 5 else 0
    chosen = draw(st.permutations(range(len(optional))))[:count] if 0 < count < len(optional) else range(count)
    wanted = [member for member in members if member.required] + [optional[index] for index in chosen]
    found = {}
    for member in wanted:
        # A condition that does not hold ends a request early: it is given as often as would be found out anyway.
        if member.name in ("RevisionId", "CodeSha256", "Marker") and draw(st.integers(0, 2)):
            continue
        found[member.name] = _valid(draw, member.shape, member.name, depth + 1)
    for name, value in _usual(draw, shape_name).items():
        found.setdefault(name, value)
    return found


def _usual(draw: st.DrawFn, shape_name: str) -> dict[str, Any]:
    """What has to be there in truth, though the model does not say so."""
    if shape_name == "CreateFunctionRequest":
        return {"Runtime": INTERPRETER, "Handler": "app.handler"}
    if shape_name == "UpdateFunctionCodeRequest" and draw(st.integers(0, 3)):
        return {"ZipFile": draw(st.sampled_from([ZIP, OTHER_ZIP]))}
    if shape_name == "CreateEventSourceMappingRequest":
        stream, queue = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/events", f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue"
        return draw(
            st.sampled_from([{"EventSourceArn": stream, "StartingPosition": "LATEST"}, {"EventSourceArn": queue}])
        )
    return {}


# What is not ------------------------------------------------------------------------------------

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "Key", ""]), inner, max_size=3),
    max_leaves=6,
)
_odd_numbers = st.sampled_from([-1, 0, 1.5, 2**31, 2**63, -(2**80), 1e308])
_bad_bodies = st.sampled_from(
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":1,}', b'{"a":' * 3000, b"[" * 5000, b"\0", b"{}" * 2,
     b'{"FunctionName":"\\ud800"}', b'{"a":1e999}']
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the parts of a value are, itself left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found.append((*path, key))
        found += _paths(item, (*path, key))
    return found


def _broken(draw: st.DrawFn, value: Any, operation: Operation) -> Any:
    """The same with one part gone, of another type, out of its bounds, hostile, or of another operation."""
    paths = _paths(value)
    members = [member.name for member in MODEL.shapes[operation.input].members] if operation.input else []
    if members and draw(st.integers(0, 3)) == 0:
        paths = [*paths, *((name,) for name in members)]  # those that were not given, too
    if not paths:
        return value
    path = draw(st.sampled_from(paths))
    value = json.loads(json.dumps(value, default=lambda known: known.otherwise))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    how = draw(st.integers(0, 5))
    if how == 0:
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
        else:
            holder[path[-1]] = None
    elif how == 1:
        holder[path[-1]] = draw(_json_values)
    elif how == 2:
        holder[path[-1]] = draw(_odd_numbers)
    elif how == 3 and isinstance(holder, dict) and isinstance(holder.get(path[-1]), list):
        holder[path[-1]] = holder[path[-1]] * 20
    else:
        holder[path[-1]] = draw(st.sampled_from(HOSTILE))
    return value


_operations = st.sampled_from(
    [operation for operation in MODEL.operations for _ in range(_OFTEN.get(operation.name, 1))]
)
_one_in = {count: st.integers(0, count - 1).map(lambda number: number == 0) for count in (3, 20, 30)}


@st.composite
def requests(draw: st.DrawFn) -> Request:
    operation = draw(_operations)
    parameters = _valid_members(draw, operation.input, 0) if operation.input else {}
    unknown: dict[str, Any] = {}
    body, method = None, operation.method
    account, region = ACCOUNT, REGION
    if draw(_one_in[3]):
        parameters = _broken(draw, parameters, operation)
    if draw(_one_in[20]):
        unknown[draw(st.sampled_from(["NotThere", "functionName", "", "__proto__"]))] = draw(_json_values)
    if draw(_one_in[30]):
        body = draw(_bad_bodies)
    if draw(_one_in[30]):
        method = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]))
    if draw(_one_in[20]):
        account, region = draw(st.sampled_from([(OTHER_ACCOUNT, REGION), (ACCOUNT, "eu-west-1"), ("AKIDEXAMPLE", "x")]))
    return Request(operation, method, parameters, unknown, body, account, region)
