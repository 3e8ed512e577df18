"""docs/protocol.md lists every frame and every control message with its tag and fields, as the code has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType

import msgspec
import pytest

from fastlam.wire import control, frames
from tree import ROOT

PAGE = (ROOT / "docs/protocol.md").read_text()
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| [\w ]+ \| ([^|]+) \|", re.MULTILINE)


def listed(heading: str) -> Mapping[str, tuple[int, list[str]]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {
        name: (int(tag), [] if fields.strip() == "–" else fields.strip().split(", "))
        for tag, name, fields in ROW.findall(section)
    }


def defined(module: ModuleType, base: type[msgspec.Struct]) -> Mapping[str, tuple[int, list[str]]]:
    return {
        name: (value.__struct_config__.tag, list(value.__struct_fields__))
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


@pytest.mark.parametrize(
    ("headings", "module", "base"),
    [(["Frames"], frames, frames.Frame), (["Zygote control", "Networks", "Disks"], control, control.Message)],
    ids=["frames", "control"],
)
def test_page_lists_what_is_sent(headings: list[str], module: ModuleType, base: type[msgspec.Struct]) -> None:
    assert {name: row for heading in headings for name, row in listed(heading).items()} == defined(module, base)


def test_page_names_the_version() -> None:
    assert f"`PROTOCOL_VERSION` = {frames.PROTOCOL_VERSION}," in PAGE
