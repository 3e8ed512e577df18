"""Any order of publishing, repointing, deleting and restarting: functions, versions and aliases are what a simple model says,
and everything that they refer to is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fastlam import limits
from fastlam.errors import ApiError
from fastlam.store.sqlite import FILE_NAME, SqliteStore
from fastlam.store.vault import Vault
from memory_plane import CALLER, MemoryPlane, package, request


@dataclass(frozen=True)
class Settings:
    """What a version keeps."""

    content: str
    timeout: int = 3
    stage: str | None = None  # None: no variables were ever given, "": they were taken away


@dataclass
class Expected:
    """One function."""

    latest: Settings
    versions: dict[int, Settings] = field(default_factory=dict)
    aliases: dict[str, tuple[int, dict[int, float]]] = field(default_factory=dict)

    def behind(self, version: int) -> list[str]:
        return sorted(name for name, (main, weights) in self.aliases.items() if version in {main, *weights})


names = st.sampled_from(["a", "b"])
alias_names = st.sampled_from(["live", "next"])
numbers = st.integers(1, 5)
contents = st.sampled_from(["x", "y", "z"])


class History(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name)
        self.plane = self.open()
        self.functions: dict[str, Expected] = {}
        self.last: dict[str, int] = {}  # the last version number of each name, whatever became of it

    def open(self) -> MemoryPlane:
        store = SqliteStore(self.directory / FILE_NAME)
        return MemoryPlane(self.directory, store=store, vault=Vault(self.directory))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.plane.store.close()
            self.folder.cleanup()

    def outcome(self, call: Callable[..., Any], **given: Any) -> str:
        """The code of the refusal, or nothing; all changes come to their end."""
        try:
            call(CALLER, given)
        except ApiError as error:
            return error.code
        finally:
            self.plane.settle()
        return ""

    @rule(name=names, content=contents, publish=st.booleans())
    def create(self, name: str, content: str, publish: bool) -> None:
        given = request(name, Code={"ZipFile": package(content)}, Publish=publish)
        outcome = self.outcome(self.plane.functions.create, **given)
        assert outcome == ("ResourceConflictException" if name in self.functions else "")
        if not outcome:
            self.functions[name] = Expected(Settings(content))
            if publish:
                self.published(name)

    @rule(name=names, timeout=st.integers(3, 4), stage=st.sampled_from([None, "one", "two"]))
    def configure(self, name: str, timeout: int, stage: str | None) -> None:
        variables = {} if stage is None else {"STAGE": stage}
        outcome = self.outcome(
            self.plane.functions.update_configuration,
            FunctionName=name,
            Timeout=timeout,
            Environment={"Variables": variables},
        )
        assert outcome == ("" if name in self.functions else "ResourceNotFoundException")
        if not outcome:
            function = self.functions[name]
            function.latest = replace(function.latest, timeout=timeout, stage=stage or "")

    @rule(name=names, content=contents, publish=st.booleans())
    def recode(self, name: str, content: str, publish: bool) -> None:
        given = {"FunctionName": name, "ZipFile": package(content), "Publish": publish}
        outcome = self.outcome(self.plane.functions.update_code, **given)
        assert outcome == ("" if name in self.functions else "ResourceNotFoundException")
        if not outcome:
            self.functions[name].latest = replace(self.functions[name].latest, content=content)
            if publish:
                self.published(name)

    @rule(name=names)
    def publish(self, name: str) -> None:
        outcome = self.outcome(self.plane.versions.publish, FunctionName=name)
        assert outcome == ("" if name in self.functions else "ResourceNotFoundException")
        if not outcome:
            self.published(name)

    def published(self, name: str) -> None:
        function = self.functions[name]
        newest = max(function.versions, default=None)
        if newest is None or function.versions[newest] != function.latest:
            self.last[name] = self.last.get(name, 0) + 1
            function.versions[self.last[name]] = function.latest

    @rule(name=names, version=numbers)
    def delete_version(self, name: str, version: int) -> None:
        outcome = self.outcome(self.plane.functions.delete, FunctionName=name, Qualifier=str(version))
        if name not in self.functions:
            assert outcome == "ResourceNotFoundException"
        elif version in self.functions[name].versions and self.functions[name].behind(version):
            assert outcome == "ResourceConflictException"
        else:
            assert outcome == ""
            self.functions[name].versions.pop(version, None)

    @rule(name=names)
    def delete(self, name: str) -> None:
        outcome = self.outcome(self.plane.functions.delete, FunctionName=name)
        assert outcome == ("" if self.functions.pop(name, None) else "ResourceNotFoundException")

    @rule(name=names, alias=alias_names, version=numbers, other=st.none() | numbers)
    def point(self, name: str, alias: str, version: int, other: int | None) -> None:
        """Makes the alias, or repoints the one that is there."""
        weights = {} if other is None else {other: 0.25}
        exists = name in self.functions and alias in self.functions[name].aliases
        outcome = self.outcome(
            self.plane.aliases.update if exists else self.plane.aliases.create,
            FunctionName=name,
            Name=alias,
            FunctionVersion=str(version),
            RoutingConfig={"AdditionalVersionWeights": {str(number): weight for number, weight in weights.items()}},
        )
        known = self.functions[name].versions if name in self.functions else {}
        if version not in known:
            assert outcome == "ResourceNotFoundException"
        elif other == version:
            assert outcome == "InvalidParameterValueException"
        elif other is not None and other not in known:
            assert outcome == "ResourceNotFoundException"
        else:
            assert outcome == ""
            self.functions[name].aliases[alias] = version, weights

    @rule(name=names, alias=alias_names)
    def delete_alias(self, name: str, alias: str) -> None:
        assert self.outcome(self.plane.aliases.delete, FunctionName=name, Name=alias) == ""
        if name in self.functions:
            self.functions[name].aliases.pop(alias, None)

    @rule(turns=st.integers(1, 3))
    def wait(self, turns: int) -> None:
        """Code that is no longer referred to goes."""
        self.plane.clock.advance(turns * limits.CODE_GRACE_SECONDS)

    @rule()
    def restart(self) -> None:
        self.plane.store.close()
        self.plane = self.open()

    @invariant()
    def agrees(self) -> None:
        page = self.plane.functions.list(CALLER, {"FunctionVersion": "ALL"})
        expected = {
            (name, version): kept
            for name, function in self.functions.items()
            for version, kept in (
                ("$LATEST", function.latest),
                *((str(each), kept) for each, kept in function.versions.items()),
            )
        }
        assert {(record.name, record.version) for record in page.items} == expected.keys()
        for record in page.items:
            kept = expected[record.name, record.version]
            assert record.settled
            assert record.timeout_seconds == kept.timeout
            assert (record.environment is None) == (kept.stage is None)
            assert self.plane.functions.variables(record) == ({"STAGE": kept.stage} if kept.stage else {})
            artifact = self.plane.artifacts.open(record.artifact)
            assert artifact is not None
            assert (artifact.directory / "app.py").read_text() == kept.content
        for name, function in self.functions.items():
            found = {
                alias.name: (int(alias.function_version), {int(n): w for n, w in alias.additional_weights.items()})
                for alias in self.plane.aliases.list(CALLER, {"FunctionName": name}).items
            }
            assert found == function.aliases


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
