"""A template and what its functions stand for: parameters, conditions, mappings, references among its resources."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from fastlam.errors import FastlamError

_SUBSTITUTION: Final = re.compile(r"\$\{(!?)\s*([^${}]*?)\s*\}")
_SERVERLESS: Final = "AWS::Serverless-2016-10-31"
_HARMLESS_TRANSFORMS: Final = frozenset({_SERVERLESS, "AWS::LanguageExtensions"})


class TemplateError(FastlamError):
    """What is wrong with a template, in one sentence that says where."""


@contextmanager
def formed(what: str) -> Iterator[None]:
    """A list where a mapping belongs, and the like, fails where it is first used: here it becomes a sentence."""
    try:
        yield
    except OSError:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise TemplateError(f"{what} has another form than it needs: {error!r}.") from error


class _NoValue:
    """AWS::NoValue: what holds it is taken away."""


NO_VALUE: Final = _NoValue()


class Place(NamedTuple):
    """Where a template is deployed to: what its pseudo parameters mean."""

    account: str
    region: str
    stack: str

    def pseudo(self) -> dict[str, Any]:
        arn = f"arn:aws:cloudformation:{self.region}:{self.account}:stack/{self.stack}/fastlam"
        return {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": self.stack,
            "AWS::StackId": arn,
            "AWS::NotificationARNs": [],
            "AWS::NoValue": NO_VALUE,
        }


class Reference(NamedTuple):
    """A resource that a value asks for: by Ref (attribute None) or by GetAtt."""

    name: str
    attribute: str | None


Attributes = Callable[[Reference], Any]
"""What a reference stands for, once its resource exists."""


class Template:
    """One template at one place, its parameters given."""

    def __init__(self, document: Mapping[str, Any], place: Place, overrides: Mapping[str, str]) -> None:
        self.place = place
        self.resources: dict[str, dict[str, Any]] = {}
        self._conditions = _section(document, "Conditions")
        self._mappings = _section(document, "Mappings")
        self.outputs = _section(document, "Outputs")
        self.globals = _section(document, "Globals")
        self._truths: dict[str, bool] = {}
        self._asking: list[str] = []
        parameters = _section(document, "Parameters")
        self._parameters = {**_parameters(parameters, overrides), **place.pseudo()}
        _check_transform(document.get("Transform"))
        known = parameters.keys() | document["Resources"].keys()
        for name in overrides:
            if name not in known and name.partition(".")[0] not in known:
                raise TemplateError(f"The template has no parameter {name}, for which a value is given.")
        for name, resource in document["Resources"].items():
            if name.startswith("Fn::"):
                raise TemplateError(f"{name} is not supported: write the resources out.")
            if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
                raise TemplateError(f"{name} is no resource: it has no Type.")
            if not isinstance(resource.get("Properties") or {}, dict):
                raise TemplateError(f"{name}: its Properties are no mapping.")
            self.resources[name] = resource

    # Values ------------------------------------------------------------------------------------

    def resolve(self, value: Any, attributes: Attributes, where: str) -> Any:
        """The value with every function worked out; mappings and lists lose what has no value."""
        if isinstance(value, dict):
            if len(value) == 1:
                ((name, argument),) = value.items()
                if name in ("Ref", "Condition") or name.startswith("Fn::"):
                    return self._function(name, argument, attributes, where)
            found = {key: self.resolve(item, attributes, where) for key, item in value.items()}
            return {key: item for key, item in found.items() if item is not NO_VALUE}
        if isinstance(value, list):
            items = [self.resolve(item, attributes, where) for item in value]
            return [item for item in items if item is not NO_VALUE]
        return value

    def references(self, value: Any) -> Iterator[Reference]:
        """Every reference to a resource, in the branches that conditions leave."""

        def note(reference: Reference) -> str:
            found.append(reference)
            return ""

        found: list[Reference] = []
        self._walk(value, note)
        return iter(found)

    def _walk(self, value: Any, note: Attributes) -> None:
        if isinstance(value, list):
            for item in value:
                self._walk(item, note)
        elif isinstance(value, dict):
            for name, item in value.items():
                if name == "Ref" and isinstance(item, str):
                    if item not in self._parameters:
                        note(Reference(*_split_reference(item)))
                elif name == "Fn::GetAtt":
                    note(_attribute_of(item, "a resource"))
                elif name == "Fn::Sub":
                    text, own = _sub_arguments(item, "Fn::Sub")
                    self._walk(list(own.values()), note)
                    for literal, inner in _SUBSTITUTION.findall(text):
                        if not literal and inner not in own and inner not in self._parameters:
                            note(Reference(*_split_reference(inner)))
                elif name == "Fn::If" and isinstance(item, list) and len(item) == 3:
                    self._walk(item[1] if self.condition(item[0], "Fn::If") else item[2], note)
                else:
                    self._walk(item, note)

    def _function(self, name: str, argument: Any, attributes: Attributes, where: str) -> Any:
        if name == "Ref":
            if not isinstance(argument, str):
                raise TemplateError(f"{where}: Ref takes a name.")
            return self._value_of(argument, attributes)
        if name == "Fn::GetAtt":
            return attributes(_attribute_of(self.resolve(argument, attributes, where), where))
        if name == "Fn::Sub":
            return self._sub(argument, attributes, where)
        if name == "Condition":
            return self.condition(argument, where)
        if name == "Fn::If":
            condition, if_true, if_false = _arguments(argument, 3, name, where)
            return self.resolve(if_true if self.condition(condition, where) else if_false, attributes, where)
        resolved = self.resolve(argument, attributes, where)
        if name == "Fn::Join":
            separator, items = _arguments(resolved, 2, name, where)
            return _text(separator, where).join(_text(item, where) for item in _list(items, name, where))
        if name == "Fn::Split":
            separator, text = _arguments(resolved, 2, name, where)
            return _text(text, where).split(_text(separator, where))
        if name == "Fn::Select":
            index, items = _arguments(resolved, 2, name, where)
            items = _list(items, name, where)
            if not str(index).isdecimal() or int(index) >= len(items):
                raise TemplateError(f"{where}: Fn::Select asks for number {index} of {len(items)}.")
            return items[int(index)]
        if name == "Fn::FindInMap":
            return self._find_in_map(resolved, where)
        if name == "Fn::Base64":
            return base64.b64encode(_text(resolved, where).encode()).decode()
        if name == "Fn::Length":
            return len(_list(resolved, name, where))
        if name == "Fn::ToJsonString":
            return json.dumps(resolved, separators=(",", ":"))
        if name in ("Fn::Equals", "Fn::Not", "Fn::And", "Fn::Or"):
            return self._truth({name: argument}, where)
        raise TemplateError(f"{where}: {name} is not supported.")

    def _value_of(self, name: str, attributes: Attributes) -> Any:
        if name in self._parameters:
            return self._parameters[name]
        return attributes(Reference(*_split_reference(name)))

    def _sub(self, argument: Any, attributes: Attributes, where: str) -> str:
        text, own = _sub_arguments(argument, where)
        own = self.resolve(own, attributes, where)

        def replaced(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return "${" + name + "}"
            value = own[name] if name in own else self._value_of(name, attributes)
            return _text(value, where)

        return _SUBSTITUTION.sub(replaced, text)

    def _find_in_map(self, argument: Any, where: str) -> Any:
        default = NO_VALUE
        if isinstance(argument, list) and len(argument) == 4:
            default = (argument[3] or {}).get("DefaultValue", NO_VALUE) if isinstance(argument[3], dict) else NO_VALUE
            argument = argument[:3]
        name, first, second = _arguments(argument, 3, "Fn::FindInMap", where)
        try:
            return self._mappings[name][str(first)][str(second)]
        except (KeyError, TypeError):
            if default is not NO_VALUE:
                return default
            raise TemplateError(f"{where}: the mapping {name} has nothing for {first} and {second}.") from None

    # Conditions --------------------------------------------------------------------------------

    def condition(self, name: Any, where: str) -> bool:
        """Whether a condition of the template holds."""
        if isinstance(name, dict):
            return self._truth(name, where)
        if name not in self._conditions:
            raise TemplateError(f"{where}: the template has no condition {name}.")
        if name not in self._truths:
            if name in self._asking:
                raise TemplateError(f"The condition {name} depends on itself.")
            self._asking.append(name)
            self._truths[name] = self._truth(self._conditions[name], f"Condition {name}")
            self._asking.pop()
        return self._truths[name]

    def _truth(self, value: Any, where: str) -> bool:
        if isinstance(value, dict) and len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Condition":
                return self.condition(argument, where)
            if name == "Fn::Equals":
                first, second = _arguments(argument, 2, name, where)
                one, other = (self.resolve(item, _no_attributes, where) for item in (first, second))
                return bool(one == other or _plain(one) == _plain(other))
            if name in ("Fn::Not", "Fn::And", "Fn::Or"):
                truths = [self._truth(item, where) for item in _list(argument, name, where)]
                return (
                    not truths[0] if name == "Fn::Not" and truths else all(truths) if name == "Fn::And" else any(truths)
                )
        resolved = self.resolve(value, _no_attributes, where) if isinstance(value, dict) else value
        if isinstance(resolved, bool):
            return resolved
        raise TemplateError(f"{where}: {json.dumps(value, default=str)} is neither true nor false.")


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name) or {}
    if not isinstance(found, dict):
        raise TemplateError(f"The template's {name} are no mapping.")
    return found


def _check_transform(transform: Any) -> None:
    for name in transform if isinstance(transform, list) else [transform] if transform else []:
        if name not in _HARMLESS_TRANSFORMS:
            shown = name.get("Name") if isinstance(name, dict) else name
            raise TemplateError(f"The transform {shown} is not supported: only {_SERVERLESS} is.")


def _parameters(declared: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in declared.items():
        if not isinstance(parameter, dict):
            raise TemplateError(f"The parameter {name} is no mapping.")
        kind = str(parameter.get("Type", "String"))
        if name in overrides:
            value: Any = overrides[name]
        elif parameter.get("Default") is not None and not kind.startswith("AWS::SSM::"):
            value = _plain(parameter["Default"])
        else:
            note = parameter.get("Description")
            raise TemplateError(
                f"The parameter {name}{f' ({note})' if note else ''} has no value:"
                f" give --parameter-overrides {name}=VALUE."
            )
        allowed = parameter.get("AllowedValues")
        if isinstance(allowed, list) and value not in [_plain(one) for one in allowed]:
            raise TemplateError(f"The parameter {name} may be {', '.join(map(str, allowed))}, not {value!r}.")
        pattern = parameter.get("AllowedPattern")
        if isinstance(pattern, str) and re.fullmatch(pattern, str(value)) is None:
            hidden = "its value" if parameter.get("NoEcho") else repr(value)
            raise TemplateError(f"The parameter {name} must match {pattern}, which {hidden} does not.")
        if kind == "CommaDelimitedList" or kind.startswith("List<"):
            value = [part.strip() for part in str(value).split(",")] if value else []
        found[name] = value
    return found


def _no_attributes(reference: Reference) -> Any:
    raise TemplateError(f"A condition cannot refer to the resource {reference.name}.")


def _attribute_of(argument: Any, where: str) -> Reference:
    if isinstance(argument, str):
        argument = argument.split(".", 1)
    if not isinstance(argument, list) or len(argument) < 2 or not all(isinstance(part, str) for part in argument):
        raise TemplateError(f"{where}: Fn::GetAtt takes the name of a resource and one of its attributes.")
    return Reference(argument[0], ".".join(argument[1:]))


def _split_reference(text: str) -> tuple[str, str | None]:
    name, dot, attribute = text.partition(".")
    return name, attribute if dot else None


def _sub_arguments(argument: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(argument, str):
        return argument, {}
    if isinstance(argument, list) and len(argument) == 2 and isinstance(argument[0], str):
        own = argument[1]
        if isinstance(own, dict):
            return argument[0], own
    raise TemplateError(f"{where}: Fn::Sub takes a text, or a text and a mapping.")


def _arguments(argument: Any, count: int, name: str, where: str) -> list[Any]:
    if not isinstance(argument, list) or len(argument) != count:
        raise TemplateError(f"{where}: {name} takes {count} values.")
    return argument


def _list(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateError(f"{where}: {name} takes a list.")
    return value


def _plain(value: Any) -> str:
    """A scalar as CloudFormation hands it on: everything is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _text(value: Any, where: str) -> str:
    if isinstance(value, (dict, list)) or value is NO_VALUE or value is None:
        raise TemplateError(f"{where}: a text is needed where there is {json.dumps(value, default=str)[:80]}.")
    return _plain(value)
