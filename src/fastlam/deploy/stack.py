"""A whole template made: its resources in the order in which they need one another, then its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fastlam.deploy import expansion
from fastlam.deploy.access import make_permission, make_url
from fastlam.deploy.events import make_event_invoke_config, make_event_source_mapping
from fastlam.deploy.expansion import DEPLOYED, NAMED_ONLY, Expansion, Resource, expand
from fastlam.deploy.functions import make_function
from fastlam.deploy.layers import make_layer_permission, make_layer_version
from fastlam.deploy.made import Context, Made
from fastlam.deploy.qualifiers import make_alias, make_version
from fastlam.deploy.service import Refused
from fastlam.deploy.template import Place, Reference, Template, TemplateError, formed

_MAKERS: Final[Mapping[str, Callable[[Context, str, dict[str, Any]], Made]]] = {
    expansion.LAYER_VERSION: make_layer_version,
    expansion.LAYER_PERMISSION: make_layer_permission,
    expansion.FUNCTION: make_function,
    expansion.VERSION: make_version,
    expansion.ALIAS: make_alias,
    expansion.PERMISSION: make_permission,
    expansion.URL: make_url,
    expansion.EVENT_INVOKE_CONFIG: make_event_invoke_config,
    expansion.EVENT_SOURCE_MAPPING: make_event_source_mapping,
}


class ResourceRefused(Refused):
    """The API's refusal of one resource."""

    def __init__(self, name: str, refusal: Refused) -> None:
        super().__init__(refusal.status, refusal.code, f"{str(refusal).removeprefix(f'{refusal.code}: ')} ({name})")


class Deployed(NamedTuple):
    """What came of one resource."""

    name: str  # logical id
    type: str
    id: Any  # physical: what Ref gives
    changes: list[str]


class Stack:
    """One template in one place. `unsupported` names what of it cannot be made here."""

    def __init__(self, document: Mapping[str, Any], place: Place, overrides: Mapping[str, str]) -> None:
        """`overrides`: values of parameters, and of references to what is not made here: `Name`, `Name.Attribute`."""
        with formed("The template"):
            self._template = Template(document, place, overrides)
            self._expansion: Expansion = expand(self._template)
        self._given = overrides
        self._made: dict[str, Made] = {}
        self.unsupported = self._expansion.unsupported

    def deploy(self, context: Context, report: Callable[[Deployed], None]) -> None:
        """Make everything, each thing once it has what it needs; `report` hears of each. What failed is raised, and
        what was made before it stays.
        """
        with formed("The template"):
            resources = self._ordered()
        for resource in resources:
            try:
                with formed(resource.name):
                    made = self._make(context, resource)
            except Refused as refusal:
                raise ResourceRefused(resource.name, refusal) from refusal
            self._made[resource.name] = made
            if resource.type not in NAMED_ONLY:
                report(Deployed(resource.name, resource.type, made.ref, made.changes))

    def _make(self, context: Context, resource: Resource) -> Made:
        properties = self._template.resolve(resource.properties, self._attribute, resource.name)
        if resource.type in NAMED_ONLY:
            return self._named(resource, properties)
        return _MAKERS[resource.type](context, resource.name, properties)

    def outputs(self) -> dict[str, Any]:
        with formed("The template's Outputs"):
            return self._outputs()

    def _outputs(self) -> dict[str, Any]:
        found = {}
        for name, output in self._template.outputs.items():
            if not isinstance(output, dict):
                raise TemplateError(f"The output {name} is no mapping.")
            condition = output.get("Condition")
            if condition is None or self._template.condition(condition, f"Output {name}"):
                found[name] = self._template.resolve(output.get("Value"), self._attribute, f"Output {name}")
        return found

    def _ordered(self) -> list[Resource]:
        """Depth first along the references, else by type and then as the template has them."""
        resources = self._expansion.resources
        ranks = {kind: rank for rank, kind in enumerate((*NAMED_ONLY, *DEPLOYED))}
        ordered: list[Resource] = []
        state: dict[str, str] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if state.get(name) == "done" or name not in resources:
                return
            if state.get(name) == "open":
                raise TemplateError(f"These resources need one another in a circle: {', '.join((*path, name))}.")
            state[name] = "open"
            for other in self._needs(resources[name]):
                visit(other, (*path, name))
            state[name] = "done"
            ordered.append(resources[name])

        for name in sorted(resources, key=lambda name: ranks[resources[name].type]):
            visit(name, ())
        return ordered

    def _needs(self, resource: Resource) -> list[str]:
        references = self._template.references(resource.properties)
        return [*resource.depends_on, *(self._target(reference).name for reference in references)]

    def _target(self, reference: Reference) -> Reference:
        return self._expansion.renamed.get(reference, reference)

    def _attribute(self, asked: Reference) -> Any:
        reference = self._target(asked)
        shown = asked.name if asked.attribute is None else f"{asked.name}.{asked.attribute}"
        if shown in self._given:
            return self._given[shown]
        made = self._made.get(reference.name)
        if made is None:
            kind = self.unsupported.get(reference.name)
            if kind is None:
                raise TemplateError(f"The template has no resource {reference.name}, which it refers to.")
            raise TemplateError(
                f"The template refers to {shown}, and {reference.name} ({kind}) is not made here: say what it stands"
                f" for with --parameter-overrides {shown}=VALUE."
            )
        if reference.attribute is None:
            return made.ref
        if reference.attribute not in made.attributes:
            raise TemplateError(f"{reference.name} has no attribute {reference.attribute}.")
        return made.attributes[reference.attribute]

    def _named(self, resource: Resource, properties: Mapping[str, Any]) -> Made:
        place = self._template.place
        name = str(properties.get(NAMED_ONLY[resource.type]) or resource.name)
        if resource.type == "AWS::Logs::LogGroup":
            arn = f"arn:aws:logs:{place.region}:{place.account}:log-group:{name}:*"
        else:
            kind = "role" if resource.type == "AWS::IAM::Role" else "policy"
            path = str(properties.get("Path") or "/").strip("/")
            arn = f"arn:aws:iam::{place.account}:{kind}/{f'{path}/' if path else ''}{name}"
        return Made(name, {"Arn": arn, "RoleId": name, "PolicyArn": arn}, [])
