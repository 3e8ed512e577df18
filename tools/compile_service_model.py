"""Compiles botocore's Lambda service model into the compact form that the daemon loads
(src/fastlam/api/service_model.py).

Run at build time only, by setup.py or by hand: `python tools/compile_service_model.py OUT`. What the daemon needs is
what comes in and goes out: operations with their routes, shapes with their constraints and places, error shapes with
their status and spelling. The arrays below follow the field order of the structs that read them; FORMAT changes when
that order does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
from botocore.loaders import Loader
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

FORMAT = 2

# Java's classes of letters, separators and numbers, which Python's `re` does not have. `\w` adds only the underscore,
# and each pattern that uses these allows the underscore anyway (checked below).
JAVA_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": "",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


def compile_service_model(out: Path) -> None:
    model = Loader().load_service_model("lambda", "service-2")
    out.write_bytes(msgspec.msgpack.encode(compact(ServiceModel(model, "lambda"))))


def compact(service: ServiceModel) -> list[Any]:
    shapes: dict[str, list[Any]] = {}
    operations = [operation(service.operation_model(name), shapes) for name in service.operation_names]
    errors = [error(shape) for shape in service.error_shapes]
    return [FORMAT, service.api_version, operations, shapes, errors]


def operation(model: OperationModel, shapes: dict[str, list[Any]]) -> list[Any]:
    path, _, query = model.http["requestUri"].partition("?")
    literals = [pair.partition("=")[::2] for pair in query.split("&")] if query else []
    payload = output_payload = ""
    if model.input_shape is not None:
        payload = model.input_shape.serialization.get("payload", "")
        collect(model.input_shape, shapes)
    if model.output_shape is not None:
        output_payload = model.output_shape.serialization.get("payload", "")
        collect(model.output_shape, shapes)
    return [
        model.name,
        model.http["method"],
        path,
        [list(pair) for pair in literals],
        int(model.http.get("responseCode", 200)),
        model.input_shape.name if model.input_shape is not None else "",
        payload,
        model.output_shape.name if model.output_shape is not None else "",
        output_payload,
    ]


def collect(shape: Shape, shapes: dict[str, list[Any]]) -> None:
    """Adds the shape and all it is made of; a shape may hold itself."""
    if shape.name in shapes:
        return
    entry: list[Any] = []
    shapes[shape.name] = entry
    members: list[list[Any]] = []
    inner: list[Shape] = []
    element = key = ""
    if isinstance(shape, StructureShape):
        required = set(shape.required_members)
        for name, member in shape.members.items():
            location = member.serialization.get("location", "")
            wire_name = member.serialization.get("name", name)
            members.append([name, member.name, location, wire_name, name in required])
            inner.append(member)
    elif isinstance(shape, ListShape):
        element, inner = shape.member.name, [shape.member]
    elif isinstance(shape, MapShape):
        key, element, inner = shape.key.name, shape.value.name, [shape.key, shape.value]
    metadata = shape.metadata
    enum = list(shape.enum) if isinstance(shape, StringShape) else []
    pattern, python_pattern = metadata.get("pattern", ""), ""
    if "\\p{" in pattern:
        python_pattern = translate(pattern)
    if pattern:
        re.compile(python_pattern or pattern)
    entry.extend(
        [
            shape.type_name,
            members,
            element,
            key,
            metadata.get("min"),
            metadata.get("max"),
            pattern,
            python_pattern,
            enum,
            bool(metadata.get("sensitive", False)),
        ]
    )
    for other in inner:
        collect(other, shapes)


def translate(pattern: str) -> str:
    if "_" not in pattern:
        raise ValueError(f"{pattern!r} cannot be written for Python's re: \\w would let the underscore in")
    for java, python in JAVA_CLASSES.items():
        pattern = pattern.replace(java, python)
    return pattern


def error(shape: StructureShape) -> list[Any]:
    message = next((name for name in shape.members if name.lower() == "message"), "message")
    return [shape.name, int(shape.metadata["error"]["httpStatusCode"]), message]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/compile_service_model.py OUT.msgpack")
    compile_service_model(Path(sys.argv[1]))
