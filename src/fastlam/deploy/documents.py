"""Template files: YAML with CloudFormation's short tags, or JSON; read into plain values and written from them.

The short form `!GetAtt A.B` becomes the long one, {"Fn::GetAtt": ["A", "B"]}, and on the way out it is the other way
round. Dates stay text, as CloudFormation reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from fastlam.errors import FastlamError

# Short tag -> long name. `!Ref` and `!Condition` have no "Fn::" before them.
_TAGS: Final = {
    **{f"!{name}": name for name in ("Ref", "Condition")},
    **{
        f"!{name}": f"Fn::{name}"
        for name in (
            "And",
            "Base64",
            "Cidr",
            "Equals",
            "FindInMap",
            "GetAZs",
            "GetAtt",
            "If",
            "ImportValue",
            "Join",
            "Length",
            "Not",
            "Or",
            "Select",
            "Split",
            "Sub",
            "ToJsonString",
            "Transform",
        )
    },
}
_SHORT: Final = {long: tag for tag, long in _TAGS.items()}
_DEPTH_MAX: Final = 100
_NODES_MAX: Final = 200_000  # an anchor can stand for many more values than the file has lines


def read_document(path: Path) -> dict[str, Any]:
    """The template in a file; a FastlamError says in one sentence where it is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FastlamError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise FastlamError(f"{path} is no template: it is not UTF-8 text.") from None
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise FastlamError(f"{path}{place}: {error.problem or error.context}.") from None
    except json.JSONDecodeError as error:
        raise FastlamError(f"{path}, line {error.lineno}: {error.msg}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise FastlamError(f"{path} is no template: {' '.join(str(error).split())}.") from None
    if not isinstance(document, dict) or not isinstance(document.get("Resources"), dict):
        raise FastlamError(f"{path} is no template: it has no Resources.")
    _check_size(path, document)
    return document


def write_document(document: Mapping[str, Any], header: str = "") -> str:
    """The template as YAML, in the order of the mapping, below a comment."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    text: str = yaml.dump(
        _shortened(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
    return comment + text


def _check_size(path: Path, document: Any) -> None:
    """Anchors may lead in a circle, or multiply: neither is walked to its end later."""
    count = 0
    ahead: list[tuple[Any, int]] = [(document, 0)]
    while ahead:
        value, depth = ahead.pop()
        count += 1
        if depth > _DEPTH_MAX or count > _NODES_MAX:
            raise FastlamError(f"{path} is no template: its values are nested too deeply, or too many.")
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    raise FastlamError(f"{path} is no template: the key {name!r} is not text (quote it).")
            ahead += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            ahead += [(item, depth + 1) for item in value]


# Reading ------------------------------------------------------------------------------------------

_Loader: Any = type("_Loader", (yaml.SafeLoader,), {})
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_tag(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    long = _TAGS.get(f"!{suffix}")
    if long is None:
        raise yaml.constructor.ConstructorError(None, None, f"the tag !{suffix} is not known", node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if long == "Fn::GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {long: value}


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    """A key that stands twice is a mistake, which YAML would pass over in silence."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
        seen.add(key.value)
    found: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return found


_Loader.add_multi_constructor("!", _construct_tag)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


# Writing ------------------------------------------------------------------------------------------


class _Short:
    """A value below a short tag."""

    def __init__(self, tag: str, value: Any) -> None:
        self.tag = tag
        self.value = value


def _scalar_style(dumper: Any) -> Any:
    """`!Ref Name` without quotes, which every tagged text would get."""
    style = yaml.SafeDumper.choose_scalar_style(dumper)
    if dumper.event.tag in _TAGS and not dumper.analysis.multiline:
        plain = dumper.analysis.allow_flow_plain if dumper.flow_level else dumper.analysis.allow_block_plain
        return "" if plain else style
    return style


_Dumper: Any = type(
    "_Dumper",
    (yaml.SafeDumper,),
    {"ignore_aliases": lambda self, data: True, "choose_scalar_style": _scalar_style},
)


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name == "Fn::GetAtt" and isinstance(inner, list) and all(isinstance(part, str) for part in inner):
                inner = ".".join(inner)
            if name in _SHORT and isinstance(inner, (str, list, dict)):
                return _Short(_SHORT[name], _shortened(inner))
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(item) for item in value]
    return value


def _represent_short(dumper: Any, short: _Short) -> Any:
    if isinstance(short.value, list):
        return dumper.represent_sequence(short.tag, short.value, flow_style=True)
    if isinstance(short.value, dict):
        return dumper.represent_mapping(short.tag, short.value)
    return dumper.represent_scalar(short.tag, str(short.value))


_Dumper.add_representer(_Short, _represent_short)
