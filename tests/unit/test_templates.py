"""Templates: how files are read and written, what functions and conditions come to, what SAM's resources stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam.deploy.documents import read_document, write_document
from fastlam.deploy.expansion import expand
from fastlam.deploy.statements import properties_of
from fastlam.deploy.template import Place, Reference, Template, TemplateError
from fastlam.errors import FastlamError

PLACE = Place("111122223333", "eu-west-1", "shop")


def read(folder: Path, text: str, name: str = "template.yaml") -> dict[str, Any]:
    (folder / name).write_text(text)
    return read_document(folder / name)


def template(document: Mapping[str, Any], **overrides: str) -> Template:
    return Template({"Resources": {}, **document}, PLACE, overrides)


def known(reference: Reference) -> Any:
    """What references stand for in these tests."""
    return f"<{reference.name}>" if reference.attribute is None else f"<{reference.name} {reference.attribute}>"


def value(given: Any, document: Mapping[str, Any] | None = None, **overrides: str) -> Any:
    return template(document or {}, **overrides).resolve(given, known, "Here")


# ---- documents ---------------------------------------------------------------------------------------


def test_short_tags_are_read_as_their_long_forms(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        """
        AWSTemplateFormatVersion: 2010-09-09
        Resources:
          A: !Ref B
          C: !GetAtt D.E.F
          G: !If [H, !Sub "${I}-x", !Ref AWS::NoValue]
          J: !Join ["-", [a, !Select [0, !Split [",", "b,c"]]]]
          K: !Not [!Condition L]
        """,
    )
    assert document == {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "A": {"Ref": "B"},
            "C": {"Fn::GetAtt": ["D", "E.F"]},
            "G": {"Fn::If": ["H", {"Fn::Sub": "${I}-x"}, {"Ref": "AWS::NoValue"}]},
            "J": {"Fn::Join": ["-", ["a", {"Fn::Select": [0, {"Fn::Split": [",", "b,c"]}]}]]},
            "K": {"Fn::Not": [{"Condition": "L"}]},
        },
    }


def test_json_and_anchors_are_templates_too(tmp_path: Path) -> None:
    assert read(tmp_path, '{"Resources": {"A": {"Ref": "B"}}}', "t.json")["Resources"] == {"A": {"Ref": "B"}}
    merged = read(tmp_path, "Common: &common {A: 1, B: 2}\nResources:\n  <<: *common\n  B: 3\n")
    assert merged["Resources"] == {"A": 1, "B": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources:\n  A: 1\n  A: 2\n", "line 3: 'A' stands here twice."),
        ("Resources: !Foo x", "line 1: the tag !Foo is not known."),
        ("Resources: {a: [}", "line 1: "),
        ("Resources: !!python/object:os.system {}", "line 1: "),
        ("Resources: {? [a] : b}", "line 1: a key is not text."),
        ("Resources: &a {b: *a}", "line 1: "),
        ("Resources: " + "[" * 3000, "is no template: "),
        ("Resources: {1: 2}", "is no template: the key 1 is not text (quote it)."),
        ("just text", "is no template: it has no Resources."),
        ("Resources: []", "is no template: it has no Resources."),
        ("", "is no template: it has no Resources."),
        (
            "a: &a [1,2,3,4,5,6,7,8,9,0]\n"
            + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]\n" for m, n in zip("abcdef", "bcdefg", strict=True))
            + "Resources: {x: *g}",
            "is no template: its values are nested too deeply, or too many.",
        ),
    ],
    ids=[
        "twice",
        "tag",
        "syntax",
        "python",
        "list as key",
        "circle",
        "deep",
        "number as key",
        "text",
        "list",
        "empty",
        "bomb",
    ],
)
def test_what_is_no_template_is_said_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FastlamError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "template.yaml"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FastlamError, match="cannot be read"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(FastlamError, match="not UTF-8"):
        read_document(tmp_path / "latin.yaml")
    with pytest.raises(FastlamError, match="line 1"):
        read(tmp_path, "{", "t.json")


TEXT = st.text("aB10é漢 :-#!'\"{}[]&*|>%@`,?~.\\$/=<\n\t", max_size=8)
FUNCTIONS = st.one_of(
    TEXT.map(lambda name: {"Ref": name}),
    st.lists(st.from_regex(r"[A-Za-z]{1,5}", fullmatch=True), min_size=2, max_size=2).map(
        lambda parts: {"Fn::GetAtt": parts}
    ),
    TEXT.map(lambda text: {"Fn::Sub": text}),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT, FUNCTIONS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(TEXT, inner, max_size=3),
        st.lists(inner, max_size=3).map(lambda items: {"Fn::Join": items}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("templates")


@given(resources=st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_is_what_is_read(folder: Path, resources: dict[str, Any]) -> None:
    document = {"Resources": resources, "Last": {"Ref": "X"}}
    path = folder / "t.yaml"
    path.write_text(write_document(document, "A comment\n\nof three lines"), encoding="utf-8")
    assert read_document(path) == document


# ---- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"Ref": "Table"}, "<Table>"),
        ({"Ref": "AWS::Region"}, "eu-west-1"),
        ({"Ref": "AWS::AccountId"}, "111122223333"),
        ({"Ref": "AWS::StackName"}, "shop"),
        ({"Fn::GetAtt": ["Table", "Arn"]}, "<Table Arn>"),
        ({"Fn::GetAtt": "Table.Stream.Arn"}, "<Table Stream.Arn>"),
        ({"Fn::Sub": "${AWS::Region}:${Table}:${Table.Arn}:${!Table}:$x"}, "eu-west-1:<Table>:<Table Arn>:${Table}:$x"),
        ({"Fn::Sub": ["${a}${Table}", {"a": {"Ref": "Other"}}]}, "<Other><Table>"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Table"}, 1, True]]}, "a-<Table>-1-true"),
        ({"Fn::Split": [",", "a,b"]}, ["a", "b"]),
        ({"Fn::Select": ["1", ["a", "b"]]}, "b"),
        ({"Fn::Base64": "é"}, "w6k="),
        ({"Fn::Length": [1, 2]}, 2),
        ({"Fn::ToJsonString": {"a": {"Ref": "Table"}}}, '{"a":"<Table>"}'),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Stage"}, "Memory"]}, 512),
        ({"Fn::FindInMap": ["Sizes", "none", "Memory", {"DefaultValue": 1}]}, 1),
        ({"Fn::If": ["IsProd", "p", "d"]}, "d"),
        ({"Fn::If": ["IsOther", {"Ref": "Table"}, "d"]}, "<Table>"),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [1, {"Ref": "AWS::NoValue"}, 2]}, {"b": [1, 2]}),
        ({"Ref": "Table", "other": 1}, {"Ref": "Table", "other": 1}),
        ({"Ref": "Count"}, "3"),
        ({"Ref": "List"}, ["a", "b"]),
        ({"Ref": "Flag"}, "true"),
    ],
    ids=lambda item: json.dumps(item)[:60] if isinstance(item, dict) else "",
)
def test_functions(given: Any, expected: Any) -> None:
    document = {
        "Parameters": {
            "Stage": {"Type": "String", "Default": "dev", "AllowedValues": ["dev", "prod"]},
            "Count": {"Type": "Number", "Default": 3},
            "Flag": {"Type": "String", "Default": True},
            "List": {"Type": "CommaDelimitedList", "Default": "a, b"},
        },
        "Mappings": {"Sizes": {"dev": {"Memory": 512}}},
        "Conditions": {
            "IsProd": {"Fn::Equals": [{"Ref": "Stage"}, "prod"]},
            "IsOther": {
                "Fn::And": [
                    {"Fn::Not": [{"Condition": "IsProd"}]},
                    {"Fn::Or": [{"Condition": "IsProd"}, {"Fn::Equals": [{"Ref": "Count"}, 3]}]},
                ]
            },
        },
    }
    assert value(given, document) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Fn::ImportValue": "x"}, "Here: Fn::ImportValue is not supported."),
        ({"Fn::Select": [2, ["a"]]}, "Here: Fn::Select asks for number 2 of 1."),
        ({"Fn::Join": "x"}, "Here: Fn::Join takes 2 values."),
        ({"Fn::Join": ["", [["a"]]]}, 'Here: a text is needed where there is ["a"].'),
        ({"Fn::Sub": 1}, "Here: Fn::Sub takes a text, or a text and a mapping."),
        ({"Fn::GetAtt": ["A"]}, "Here: Fn::GetAtt takes the name of a resource and one of its attributes."),
        ({"Fn::FindInMap": ["A", "b", "c"]}, "Here: the mapping A has nothing for b and c."),
        ({"Fn::If": ["Nothing", 1, 2]}, "Here: the template has no condition Nothing."),
        ({"Fn::If": ["Circle", 1, 2]}, "The condition Circle depends on itself."),
        ({"Fn::If": ["Resource", 1, 2]}, "A condition cannot refer to the resource Table."),
        ({"Fn::If": ["Text", 1, 2]}, 'Condition Text: "yes" is neither true nor false.'),
        ({"Ref": 1}, "Here: Ref takes a name."),
    ],
    ids=lambda item: json.dumps(item)[:40] if isinstance(item, dict) else "",
)
def test_functions_that_are_wrong(given: Any, message: str) -> None:
    conditions = {
        "Circle": {"Fn::Not": [{"Condition": "Circle"}]},
        "Resource": {"Fn::Equals": [{"Ref": "Table"}, "x"]},
        "Text": "yes",
    }
    with pytest.raises(TemplateError) as caught:
        value(given, {"Conditions": conditions})
    assert str(caught.value) == message


def test_parameters() -> None:
    declared = {
        "Stage": {"Type": "String", "AllowedValues": ["dev", 1]},
        "Key": {"Type": "String", "NoEcho": True, "AllowedPattern": "[a-z]+", "Default": "abc"},
    }
    document = {"Parameters": declared, "Resources": {"Table": {"Type": "X"}}}
    assert value({"Ref": "Stage"}, document, Stage="1") == "1"
    assert value({"Ref": "Key"}, document, Stage="dev", Table="orders") == "abc"
    for overrides, message in (
        ({}, "The parameter Stage has no value: give --parameter-overrides Stage=VALUE."),
        ({"Stage": "prod"}, "The parameter Stage may be dev, 1, not 'prod'."),
        ({"Stage": "dev", "Key": "S3CRET"}, "The parameter Key must match [a-z]+, which its value does not."),
        ({"Stage": "dev", "Other": "1"}, "The template has no parameter Other, for which a value is given."),
    ):
        with pytest.raises(TemplateError) as caught:
            template(document, **overrides)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Resources": {"A": {}}}, "A is no resource: it has no Type."),
        ({"Resources": {"A": {"Type": "X", "Properties": []}}}, None),
        ({"Resources": {"A": {"Type": "X", "Properties": [1]}}}, "A: its Properties are no mapping."),
        ({"Resources": {"Fn::ForEach::A": []}}, "Fn::ForEach::A is not supported: write the resources out."),
        ({"Transform": "AWS::Include"}, "The transform AWS::Include is not supported: only AWS::Serverless-2016-10-31 is."),
        ({"Transform": ["AWS::Serverless-2016-10-31", "AWS::LanguageExtensions"]}, None),
        ({"Parameters": {"A": 1}}, "The parameter A is no mapping."),
        ({"Conditions": [1]}, "The template's Conditions are no mapping."),
    ],
)  # fmt: skip
def test_shapes_that_are_none(document: dict[str, Any], message: str | None) -> None:
    if message is None:
        template(document)
        return
    with pytest.raises(TemplateError) as caught:
        template(document)
    assert str(caught.value) == message


def test_references_of_what_conditions_leave() -> None:
    document = {"Conditions": {"No": {"Fn::Equals": [1, 2]}}, "Parameters": {"P": {"Default": "x"}}}
    given = {
        "a": {"Fn::If": ["No", {"Ref": "Gone"}, {"Ref": "Here"}]},
        "b": {"Fn::Sub": ["${own} ${P} ${AWS::Region} ${!x} ${Subbed.Arn}", {"own": {"Ref": "Inner"}}]},
        "c": [{"Fn::GetAtt": ["Got", "Arn"]}, {"Ref": "Dotted.Version"}],
    }
    assert set(template(document).references(given)) == {
        Reference("Here", None),
        Reference("Inner", None),
        Reference("Subbed", "Arn"),
        Reference("Got", "Arn"),
        Reference("Dotted", "Version"),
    }


# ---- SAM ---------------------------------------------------------------------------------------------


def expanded(resources: dict[str, Any], **document: Any) -> Any:
    return expand(template({"Resources": resources, **document}))


def test_globals_lie_below_the_functions_own() -> None:
    common = {
        "Timeout": 5,
        "Runtime": "python3.12",
        "Environment": {"Variables": {"A": "1", "B": "1"}},
        "Layers": ["one"],
        "Architectures": ["x86_64"],
        "Handler": {"Ref": "P"},
    }
    own = {
        "CodeUri": "src/",
        "Timeout": 9,
        "Environment": {"Variables": {"B": "2"}},
        "Layers": ["two"],
        "Architectures": ["arm64"],
        "Handler": "app.handler",
    }
    found = expanded(
        {"F": {"Type": "AWS::Serverless::Function", "Properties": own}}, Globals={"Function": common}
    ).resources["F"]
    assert found.type == "AWS::Lambda::Function"
    assert found.properties == {
        "Timeout": 9,
        "Runtime": "python3.12",
        "Environment": {"Variables": {"A": "1", "B": "2"}},
        "Layers": ["one", "two"],
        "Architectures": ["arm64"],
        "Handler": "app.handler",
        "Code": "src/",
    }
    assert common["Layers"] == ["one"]


def test_what_has_no_place_here_is_named() -> None:
    function = {
        "CodeUri": ".",
        "Policies": ["AWSLambdaBasicExecutionRole"],
        "Typo": 1,
        "Events": {
            "Call": {"Type": "Api", "Properties": {"Path": "/", "Method": "get"}},
            "Queue": {"Type": "SQS", "Properties": {"Queue": "arn", "BatchSize": 5}},
        },
    }
    found = expanded(
        {
            "F": {"Type": "AWS::Serverless::Function", "Properties": function},
            "Table": {"Type": "AWS::DynamoDB::Table"},
            "Off": {"Type": "AWS::DynamoDB::Table", "Condition": "No"},
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r", "Policies": [{"Ref": "Nothing"}]}},
        },
        Conditions={"No": {"Fn::Equals": [1, 2]}},
    )
    assert found.unsupported == {
        "F.Typo": "a property",
        "F.Call": "an event of the type Api",
        "Table": "AWS::DynamoDB::Table",
    }
    assert found.resources["FQueue"].properties == {
        "FunctionName": {"Ref": "F"},
        "EventSourceArn": "arn",
        "BatchSize": 5,
    }
    assert found.resources["Role"].properties == {"RoleName": "r"}


def test_functions_without_code_and_provisioning_without_an_alias() -> None:
    for properties, message in (
        ({}, "F has no code: give it CodeUri, InlineCode or ImageUri."),
        (
            {"CodeUri": ".", "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 1}},
            "F: ProvisionedConcurrencyConfig needs AutoPublishAlias, whose version it is for.",
        ),
        (
            {"CodeUri": ".", "AutoPublishAlias": {"Ref": "Other"}},
            "Other does not exist yet where its value is needed: write the value itself.",
        ),
    ):
        with pytest.raises(TemplateError) as caught:
            expanded({"F": {"Type": "AWS::Serverless::Function", "Properties": properties}})
        assert str(caught.value) == message


# ---- statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            {"Principal": {"Service": "s3.amazonaws.com"}, "Condition": {"ArnLike": {"AWS:SourceArn": "a"}, "StringEquals": {"AWS:SourceAccount": "1"}}},
            {"Principal": "s3.amazonaws.com", "SourceArn": "a", "SourceAccount": "1"},
        ),
        ({"Principal": {"AWS": "arn:aws:iam::111122223333:root"}}, {"Principal": "111122223333"}),
        ({"Principal": "*", "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}}, {"Principal": "*", "InvokedViaFunctionUrl": True}),
        ({"Principal": {"AWS": ["a", "b"]}}, None),
        ({"Principal": "*", "Effect": "Deny"}, None),
        ({"Principal": "*", "Action": ["lambda:InvokeFunction"]}, None),
        ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, None),
    ],
)  # fmt: skip
def test_statements_as_what_made_them(statement: dict[str, Any], expected: dict[str, Any] | None) -> None:
    found = properties_of({"Effect": "Allow", "Action": "lambda:InvokeFunction", **statement})
    assert found == (None if expected is None else {"Action": "lambda:InvokeFunction", **expected})
