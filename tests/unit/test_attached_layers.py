"""Layers of functions without HTTP: which can be attached, how large they may be, what is kept of them for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastlam.errors import ApiError
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.layer_trees import tree_name
from layer_plane import ELSEWHERE, OTHER, SPLIT, STRANGER, LayerPlane, arn, package, permission, version_request
from memory_plane import ACCOUNT, CALLER, refused


@pytest.fixture
def plane(tmp_path: Path) -> LayerPlane:
    return LayerPlane(tmp_path)


# Attaching ---------------------------------------------------------------------------------------


def test_attaching(plane: LayerPlane) -> None:
    versions = [plane.publish_layer(name) for name in "abcde"]
    record = plane.create_with(*(version.arn for version in reversed(versions)))
    assert record.layers == tuple(version.reference for version in reversed(versions))
    assert plane.attach(versions[2].arn).layers == (versions[2].reference,)
    assert plane.attach().layers == ()


@pytest.mark.parametrize("updating", [False, True])
def test_what_cannot_be_attached(plane: LayerPlane, updating: bool) -> None:
    for name in "abcdef":
        plane.publish_layer(name)
    plane.publish_layer("a")
    far = plane.publish_layer("far", caller=ELSEWHERE)
    foreign = plane.publish_layer("foreign", caller=STRANGER)
    before = plane.create_with(arn("b"), name="before")

    def text(code: str, *layers: str) -> str:
        if updating:
            return refused(code, lambda: plane.attach(*layers, name="before"))
        return refused(code, lambda: plane.create_with(*layers))

    denial = (
        f"User: {CALLER.principal} is not authorized to perform: lambda:GetLayerVersion on resource: {{}} because no"
        " resource-based policy allows the lambda:GetLayerVersion action"
    )
    invalid = "InvalidParameterValueException"
    assert text(invalid, *(arn(name) for name in "abcdef")) == "Cannot reference more than 5 layers."
    assert text(invalid, arn("a"), arn("g")) == f"Layer version {arn('g')} does not exist."
    assert text(invalid, arn("a", 3)) == f"Layer version {arn('a', 3)} does not exist."
    own = "arn:aws:lambda:::awslayer:AmazonLinux1803"
    assert text(invalid, own) == f"Layer version {own} does not exist."
    versions = "Two different versions of the same layer are not allowed to be referenced in the same function."
    one, two = arn("a", 1), arn("a", 2)
    assert text(invalid, two, arn("b"), one) == f"{versions} {two} and {one} are versions of the same layer."
    assert text(invalid, one, one) == f"{versions} {one} and {one} are versions of the same layer."
    assert (
        text(invalid, far.arn)
        == "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."
    )
    assert text("AccessDeniedException", arn("a"), foreign.arn) == denial.format(foreign.arn)
    unknown = arn("unknown", account=OTHER)
    assert text("AccessDeniedException", unknown) == denial.format(unknown)
    away = STRANGER._replace(region="eu-west-1")
    distant = plane.publish_layer("foreign", caller=away)
    plane.layers.add_permission(away, permission(LayerName="foreign"))
    assert text("AccessDeniedException", distant.arn) == denial.format(distant.arn)
    stored = plane.functions.get(CALLER, {"FunctionName": "before"}).record
    assert stored.layers == before.layers
    assert [record.name for record in plane.functions.list(CALLER, {}).items] == ["before"]


def test_layers_of_an_account_that_lets_others_have_them(plane: LayerPlane) -> None:
    foreign = plane.publish_layer("foreign", caller=STRANGER)
    plane.layers.add_permission(STRANGER, permission(LayerName="foreign", Principal=ACCOUNT))
    assert plane.create_with(foreign.arn).layers == (foreign.reference,)
    plane.layers.remove_permission(STRANGER, version_request("foreign", StatementId="everybody"))
    plane.settle()
    assert plane.functions.get(CALLER, {"FunctionName": "hello"}).record.layers == (foreign.reference,)
    refused("AccessDeniedException", lambda: plane.attach(foreign.arn))


def test_code_and_layers_have_one_bound(plane: LayerPlane) -> None:
    """The planes of these tests take 1200 bytes unzipped."""
    half = plane.publish_layer("half", package("x" * SPLIT))
    bit_more = plane.publish_layer("more", package("x" * (SPLIT + 1)))
    text = f"Unzipped size must be smaller than {2 * SPLIT} bytes"
    small = {"ZipFile": package("", "app.py")}
    fitting = {"ZipFile": package("y" * SPLIT, "app.py")}
    invalid = "InvalidParameterValueException"
    assert refused(invalid, lambda: plane.create_with(half.arn, bit_more.arn, Code=small)) == text
    assert refused(invalid, lambda: plane.create_with(bit_more.arn, Code=fitting)) == text
    plane.create_with(half.arn, Code=fitting)
    assert refused(invalid, lambda: plane.attach(bit_more.arn)) == text
    assert refused(invalid, lambda: plane.attach(half.arn, plane.publish_layer("bit", package("z")).arn)) == text
    larger = package("y" * (SPLIT + 1), "app.py")

    def update_code(content: bytes) -> None:
        plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": content})

    before = plane.functions.get(CALLER, {"FunctionName": "hello"}).record
    assert refused(invalid, update_code, larger) == text
    assert plane.functions.get(CALLER, {"FunctionName": "hello"}).record == before
    plane.attach()
    update_code(larger)
    plane.run_slow()
    plane.settle()
    sizes = {path.stem: plane.artifacts.unzipped_bytes(path.stem) for path in (plane.directory / "code").glob("*.zip")}
    again = ArtifactStore(plane.directory)
    assert {name: again.unzipped_bytes(name) for name in sizes} == sizes, "from the files as from memory"


def test_layers_that_come_while_code_is_unpacked(plane: LayerPlane) -> None:
    half, more = (
        plane.publish_layer("half", package("x" * SPLIT)),
        plane.publish_layer("more", package("x" * (SPLIT + 1))),
    )
    plane.create_with(half.arn)
    code = {"FunctionName": "hello", "ZipFile": package("y" * SPLIT, "app.py")}
    steps = plane.functions.update_code_steps(CALLER, code)
    unpacked = next(steps)()
    plane.attach(more.arn)
    measure = steps.send(unpacked)
    measure()
    with pytest.raises(ApiError, match="Unzipped size"):
        steps.send(None)
    assert plane.functions.get(CALLER, {"FunctionName": "hello"}).record.layers == (more.reference,)


# Keeping -----------------------------------------------------------------------------------------


def test_content_stays_while_a_version_or_a_function_has_it(plane: LayerPlane) -> None:
    layer = plane.publish_layer()
    plane.create_with(layer.arn)
    plane.layers.delete(CALLER, version_request())
    plane.grace_passes()
    assert layer.artifact in plane.artifacts_kept()
    refused("InvalidParameterValueException", lambda: plane.create_with(layer.arn, name="late"))
    function = plane.functions.get(CALLER, {"FunctionName": "hello"}).record
    assert function.layers == (layer.reference,)
    plane.attach()
    plane.functions.collect()
    assert layer.artifact in plane.artifacts_kept(), "an invocation may still run on it"
    plane.grace_passes()
    assert plane.artifacts_kept() == {function.artifact}


def test_content_of_a_deleted_version_is_deleted_in_time(plane: LayerPlane) -> None:
    first, same = plane.publish_layer(content=package()), plane.publish_layer(content=package())
    plane.layers.delete(CALLER, version_request(version=first.version))
    plane.grace_passes()
    assert plane.artifacts_kept() == {same.artifact}
    plane.layers.delete(CALLER, version_request(version=same.version))
    plane.functions.collect()
    assert plane.artifacts_kept() == {same.artifact}, "a link to it may still be good"
    plane.grace_passes()
    assert plane.artifacts_kept() == set()
    plane.layers.delete(CALLER, version_request(version=same.version))


def test_versions_keep_their_layers(plane: LayerPlane) -> None:
    one, other = plane.publish_layer("a"), plane.publish_layer("b")
    plane.create_with(one.arn, Publish=True)
    plane.attach(other.arn)
    for name in "ab":
        plane.layers.delete(CALLER, version_request(name))
    plane.grace_passes()
    assert {one.artifact, other.artifact} <= plane.artifacts_kept()
    plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    plane.grace_passes()
    assert one.artifact not in plane.artifacts_kept()
    assert other.artifact in plane.artifacts_kept()
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    plane.grace_passes()
    assert plane.artifacts_kept() == set()


def test_trees_come_with_functions_and_go_with_them(plane: LayerPlane) -> None:
    one, two, three = (plane.publish_layer(name) for name in "abc")
    plane.create_with(one.arn)
    plane.run_slow()
    assert plane.trees() == set(), "one layer needs none"
    plane.attach(one.arn, two.arn)
    plane.create_with(one.arn, two.arn, name="sharing")
    plane.create_with(two.arn, one.arn, name="otherwise", Publish=True)
    plane.run_slow()
    forwards, backwards = tree_name([one.artifact, two.artifact]), tree_name([two.artifact, one.artifact])
    assert plane.trees() == {forwards, backwards}
    plane.attach(one.arn, two.arn, three.arn, name="otherwise")
    plane.run_slow()
    every = tree_name([one.artifact, two.artifact, three.artifact])
    plane.grace_passes()
    assert plane.trees() == {forwards, backwards, every}, "the published version has the old list"
    plane.functions.delete(CALLER, {"FunctionName": "otherwise"})
    plane.functions.collect()
    plane.run_slow()
    assert plane.trees() == {forwards, backwards, every}, "an invocation may still run on them"
    plane.grace_passes()
    assert plane.trees() == {forwards}
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    plane.grace_passes()
    assert plane.trees() == {forwards}
    plane.functions.delete(CALLER, {"FunctionName": "sharing"})
    plane.grace_passes()
    assert plane.trees() == set()
    assert plane.artifacts_kept() == {one.artifact, two.artifact, three.artifact}
