"""The life of a function through boto3: create, configure, publish, shift traffic and take it back, layers, policies, tags,
pages, delete. Each answer is compared with what the service documents; the first that differs ends the program.

    eval "$(fastlam env)"; python tests/scripts/control_plane.py [INVOCATIONS]

The daemon must be a fresh one: numbers of versions are never given twice.
"""

from __future__ import annotations

import io
import json
import math
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

INVOCATIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
CALLERS = 4
LIVE = {"FunctionName": "hello", "Name": "live"}

client = boto3.client("lambda", config=Config(retries={"total_max_attempts": 1}))
region = client.meta.region_name
account = boto3.session.Session().get_credentials().access_key
runtime = f"python{sys.version_info[0]}.{sys.version_info[1]}"
steps = 0


def package(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


def handler(greeting: str) -> bytes:
    return package(
        "app.py", f"import os\ndef handler(event, context):\n    return {greeting!r} + ' ' + os.environ['STAGE']\n"
    )


def same(what: str, expected: Any, actual: Any) -> None:
    global steps
    if expected != actual:
        sys.exit(f"FAILED: {what}\n  expected: {expected!r}\n  answered: {actual!r}")
    steps += 1
    print(f"ok  {what}")


def shows(what: str, answer: dict[str, Any], **expected: Any) -> None:
    """These members of an answer; None for those that must not be there."""
    same(what, expected, {name: answer.get(name) for name in expected})


def done(what: str, answer: dict[str, Any], status: int) -> None:
    """An answer without members."""
    same(what, status, answer["ResponseMetadata"]["HTTPStatusCode"])


def refused(code: str, status: int, message: str, call: Any, **parameters: Any) -> None:
    try:
        call(**parameters)
    except ClientError as error:
        found = error.response["Error"]
        actual = found["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"], found["Message"]
        same(f"refused: {message}", (code, status, message), actual)
    else:
        sys.exit(f"FAILED: {call.__name__} succeeded, {code} was expected")


def settled(waiter: str = "function_updated_v2", **parameters: Any) -> None:
    client.get_waiter(waiter).wait(
        **{"FunctionName": "hello", **parameters}, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )


def configure(**parameters: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.update_function_configuration(FunctionName="hello", **parameters)
    settled()
    return answer


def executed(qualifier: str) -> tuple[str, str]:
    answer = client.invoke(FunctionName="hello", Qualifier=qualifier, Payload=b"{}")
    return answer["ExecutedVersion"], json.loads(answer["Payload"].read())


def pages(call: Any, key: str, member: str, **parameters: Any) -> list[list[Any]]:
    """Page by page, by hand, as the API has them."""
    found: list[list[Any]] = []
    marker: dict[str, str] = {}
    while True:
        answer = call(MaxItems=1, **parameters, **marker)
        found.append([item[member] for item in answer[key]])
        if "NextMarker" not in answer:
            return found
        marker = {"Marker": answer["NextMarker"]}


def interval(count: int, probability: float, confidence: float) -> tuple[int, int]:
    """The central interval of the binomial distribution that holds so much of it."""
    logarithms = [
        math.lgamma(count + 1)
        - math.lgamma(number + 1)
        - math.lgamma(count - number + 1)
        + number * math.log(probability)
        + (count - number) * math.log(1 - probability)
        for number in range(count + 1)
    ]
    tail = (1 - confidence) / 2

    def outside(numbers: Any) -> int:
        total = 0.0
        for number in numbers:
            total += math.exp(logarithms[number])
            if total > tail:
                return int(number)
        raise AssertionError("a distribution has an end")

    return outside(range(count + 1)), outside(range(count, -1, -1))


arn = f"arn:aws:lambda:{region}:{account}"

# Create -----------------------------------------------------------------------------------------
given = {
    "FunctionName": "hello",
    "Runtime": runtime,
    "Role": f"arn:aws:iam::{account}:role/lambda-role",
    "Handler": "app.handler",
    "Code": {"ZipFile": handler("one")},
}
shows(
    "create_function is answered before the function is there",
    client.create_function(**given, Environment={"Variables": {"STAGE": "grey"}}, Tags={"team": "blue"}),
    FunctionArn=f"{arn}:function:hello",
    State="Pending",
    StateReason="The function is being created.",
    StateReasonCode="Creating",
    LastUpdateStatus=None,
    Version="$LATEST",
    CodeSize=len(handler("one")),
    MemorySize=128,
    Timeout=3,
    Description="",
    Architectures=["x86_64"],
    EphemeralStorage={"Size": 512},
    PackageType="Zip",
    SnapStart={"ApplyOn": "None", "OptimizationStatus": "Off"},
    TracingConfig={"Mode": "PassThrough"},
    LoggingConfig={"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"},
    Environment={"Variables": {"STAGE": "grey"}},
    Layers=None,
    VpcConfig=None,
)
settled("function_active_v2")
got = client.get_function(FunctionName="hello")
shows("then Active", got["Configuration"], State="Active", StateReason=None, LastUpdateStatus="Successful")
shows("with its tags", got, Tags={"team": "blue"}, Concurrency=None)
refused("ResourceConflictException", 409, "Function already exist: hello", client.create_function, **given)

# Configure --------------------------------------------------------------------------------------
shows(
    "update_function_configuration is under way",
    configure(MemorySize=256, Timeout=10, Environment={"Variables": {"STAGE": "blue"}}, Description="the first"),
    State="Active",
    LastUpdateStatus="InProgress",
    MemorySize=256,
    Timeout=10,
    Environment={"Variables": {"STAGE": "blue"}},
)
shows(
    "then successful",
    client.get_function_configuration(FunctionName="hello"),
    LastUpdateStatus="Successful",
    LastUpdateStatusReason=None,
    Description="the first",
)

# Publish ----------------------------------------------------------------------------------------
first = client.publish_version(FunctionName="hello")
shows(
    "publish_version",
    first,
    Version="1",
    FunctionArn=f"{arn}:function:hello:1",
    Description="the first",
    State="Active",
)
shows(
    "publishing without a change gives the same version",
    client.publish_version(FunctionName="hello", Description="not another one"),
    Version="1",
    RevisionId=first["RevisionId"],
    Description="the first",
)
client.update_function_code(FunctionName="hello", ZipFile=handler("two"))
settled()
configure(Environment={"Variables": {"STAGE": "green"}})
latest = client.get_function_configuration(FunctionName="hello")
refused(
    "InvalidParameterValueException",
    400,
    f"CodeSHA256 (wrong) is different from current CodeSHA256 in $LATEST ({latest['CodeSha256']}). Please try again with the"
    " CodeSHA256 in $LATEST.",
    client.publish_version,
    FunctionName="hello",
    CodeSha256="wrong",
)
shows(
    "publishing a change gives the next one",
    client.publish_version(FunctionName="hello", Description="the second", CodeSha256=latest["CodeSha256"]),
    Version="2",
    Description="the second",
)
same("version 1 is as it was", ("1", "one blue"), executed("1"))

# Aliases: 90/10, all of it, and back -------------------------------------------------------------
created = client.create_alias(**LIVE, FunctionVersion="1")
shows(
    "create_alias",
    created,
    AliasArn=f"{arn}:function:hello:live",
    Name="live",
    FunctionVersion="1",
    Description="",
    RoutingConfig=None,
)
same("the alias runs version 1", ("1", "one blue"), executed("live"))
tenth = {"AdditionalVersionWeights": {"2": 0.1}}
shows(
    "update_alias to 90/10",
    client.update_alias(**LIVE, RoutingConfig=tenth, RevisionId=created["RevisionId"]),
    FunctionVersion="1",
    RoutingConfig=tenth,
)
refused(
    "PreconditionFailedException",
    412,
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest"
    " Revision Id",
    client.update_alias,
    **LIVE,
    FunctionVersion="2",
    RevisionId=created["RevisionId"],
)
least, most = interval(INVOCATIONS, 0.1, 0.999)
for _ in range(2):  # one honest run in a thousand lies outside, two of them one time in a million
    with ThreadPoolExecutor(CALLERS) as pool:
        counts = Counter(pool.map(lambda _: executed("live"), range(INVOCATIONS)))
    if least <= counts["2", "two green"] <= most:
        break
same("only the two versions were executed", {("1", "one blue"), ("2", "two green")}, set(counts))
same(
    f"of {INVOCATIONS} invocations, from {least} to {most} ran version 2",
    True,
    least <= counts["2", "two green"] <= most,
)
refused(
    "ResourceConflictException",
    409,
    "Unable to delete version because the following aliases reference it: [live]",
    client.delete_function,
    FunctionName="hello",
    Qualifier="2",
)
shows(
    "shifted to 100",
    client.update_alias(**LIVE, FunctionVersion="2", RoutingConfig={"AdditionalVersionWeights": {}}),
    FunctionVersion="2",
    RoutingConfig=None,
)
same("the alias runs version 2 alone", {("2", "two green")}, {executed("live") for _ in range(50)})
shows("rolled back", client.update_alias(**LIVE, FunctionVersion="1"), FunctionVersion="1", RoutingConfig=None)
same("the alias runs version 1 alone", {("1", "one blue")}, {executed("live") for _ in range(50)})
shows(
    "get_function through the alias names the alias and shows the version",
    client.get_function(FunctionName="hello", Qualifier="live")["Configuration"],
    FunctionArn=f"{arn}:function:hello:live",
    Version="1",
    RevisionId=first["RevisionId"],
)

# Layers -----------------------------------------------------------------------------------------
for number, word in ((1, "layered one"), (2, "layered two")):
    shows(
        f"publish_layer_version {number}",
        client.publish_layer_version(
            LayerName="words",
            Description=word,
            Content={"ZipFile": package("python/words.py", f"GREETING = {word!r}\n")},
            CompatibleRuntimes=[runtime],
        ),
        LayerArn=f"{arn}:layer:words",
        LayerVersionArn=f"{arn}:layer:words:{number}",
        Version=number,
        Description=word,
        CompatibleRuntimes=[runtime],
    )
code = "from words import GREETING\ndef handler(event, context):\n    return GREETING\n"
client.update_function_code(FunctionName="hello", ZipFile=package("app.py", code))
settled()
for number, word in ((1, "layered one"), (2, "layered two")):
    layers = configure(Layers=[f"{arn}:layer:words:{number}"])["Layers"]
    same(f"layer version {number} is attached", [f"{arn}:layer:words:{number}"], [layer["Arn"] for layer in layers])
    same("and imported", ("$LATEST", word), executed("$LATEST"))
refused(
    "InvalidParameterValueException",
    400,
    f"Layer version {arn}:layer:words:7 does not exist.",
    client.update_function_configuration,
    FunctionName="hello",
    Layers=[f"{arn}:layer:words:7"],
)
same(
    "list_layer_versions in pages of one, newest first",
    [[2], [1]],
    pages(client.list_layer_versions, "LayerVersions", "Version", LayerName="words"),
)
done("delete_layer_version", client.delete_layer_version(LayerName="words", VersionNumber=2), 204)
same("a function goes on with a layer version that was deleted", ("$LATEST", "layered two"), executed("$LATEST"))
shows("detached", configure(Layers=[]), Layers=None)

# Policies ---------------------------------------------------------------------------------------
permission = {
    "FunctionName": "hello",
    "Qualifier": "live",
    "StatementId": "bucket",
    "Principal": "s3.amazonaws.com",
    "Action": "lambda:InvokeFunction",
    "SourceArn": "arn:aws:s3:::pictures",
}
statement = {
    "Sid": "bucket",
    "Effect": "Allow",
    "Principal": {"Service": "s3.amazonaws.com"},
    "Action": "lambda:InvokeFunction",
    "Resource": f"{arn}:function:hello:live",
    "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::pictures"}},
}
same("add_permission", statement, json.loads(client.add_permission(**permission)["Statement"]))
policy = json.loads(client.get_policy(FunctionName="hello", Qualifier="live")["Policy"])
same("get_policy", {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}, policy)
refused(
    "ResourceConflictException",
    409,
    "The statement id (bucket) provided already exists. Please provide a new statement id, or remove the existing statement.",
    client.add_permission,
    **permission,
)
gone = {"FunctionName": "hello", "Qualifier": "live"}
done("remove_permission", client.remove_permission(**gone, StatementId="bucket"), 204)
nothing = "The resource you requested does not exist."
refused("ResourceNotFoundException", 404, nothing, client.get_policy, **gone)

# Tags, concurrency ------------------------------------------------------------------------------
resource = {"Resource": f"{arn}:function:hello"}
done("tag_resource", client.tag_resource(**resource, Tags={"stage": "test", "team": "green"}), 204)
shows("list_tags", client.list_tags(**resource), Tags={"stage": "test", "team": "green"})
done("untag_resource", client.untag_resource(**resource, TagKeys=["team", "unknown"]), 204)
shows("the tags that are left", client.get_function(FunctionName="hello"), Tags={"stage": "test"})
five = {"ReservedConcurrentExecutions": 5}
shows("put_function_concurrency", client.put_function_concurrency(FunctionName="hello", **five), **five)
shows("get_function shows it", client.get_function(FunctionName="hello"), Concurrency=five)
done("delete_function_concurrency", client.delete_function_concurrency(FunctionName="hello"), 204)

# Pages of one -----------------------------------------------------------------------------------
client.create_alias(FunctionName="hello", Name="beta", FunctionVersion="2")
client.create_function(**{**given, "FunctionName": "second"})
same(
    "list_versions_by_function in pages of one",
    [["$LATEST"], ["1"], ["2"]],
    pages(client.list_versions_by_function, "Versions", "Version", FunctionName="hello"),
)
same(
    "list_aliases in pages of one",
    [["beta"], ["live"]],
    pages(client.list_aliases, "Aliases", "Name", FunctionName="hello"),
)
same(
    "list_functions in pages of one", [["hello"], ["second"]], pages(client.list_functions, "Functions", "FunctionName")
)
same(
    "with every version",
    [["$LATEST"], ["1"], ["2"], ["$LATEST"]],
    pages(client.list_functions, "Functions", "Version", FunctionVersion="ALL"),
)

# Delete -----------------------------------------------------------------------------------------
done("delete_alias", client.delete_alias(FunctionName="hello", Name="beta"), 204)
done("delete a version that no alias needs any more", client.delete_function(FunctionName="hello", Qualifier="2"), 204)
done("delete the function with all that it has", client.delete_function(FunctionName="hello"), 204)
for qualifier in ("1", "live"):
    missing = f"Function not found: {arn}:function:hello:{qualifier}"
    refused("ResourceNotFoundException", 404, missing, client.get_function, FunctionName="hello", Qualifier=qualifier)
done("delete the second", client.delete_function(FunctionName="second"), 204)
client.delete_layer_version(LayerName="words", VersionNumber=1)
same("nothing is left", ([], []), (client.list_functions()["Functions"], client.list_layers()["Layers"]))

print(f"{steps} answers are as documented")
