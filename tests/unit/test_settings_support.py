"""The table of settings: it names every member that a function can be given, and nothing else."""

from __future__ import annotations

from fastlam.api import service_model
from fastlam.api.settings_support import SETTINGS, Stored, Supported

MODEL = service_model.load()
INPUTS = {operation.name: operation.input for operation in MODEL.operations}


def members(shape: str) -> set[str]:
    return {member.name for member in MODEL.shapes[shape].members}


def test_every_setting_of_the_model() -> None:
    create = members(INPUTS["CreateFunction"])
    code = {f"Code.{name}" for name in members("FunctionCode")}
    logging = {f"LoggingConfig.{name}" for name in members("LoggingConfig")}
    update_code = {f"Code.{name}" if f"Code.{name}" in code else name for name in members(INPUTS["UpdateFunctionCode"])}
    named = (create - {"Code", "LoggingConfig"}) | code | logging | update_code
    named |= members(INPUTS["UpdateFunctionConfiguration"]) - {"LoggingConfig"}
    assert set(SETTINGS) == named


def test_what_is_missing_is_said() -> None:
    for setting in SETTINGS.values():
        text = setting.note if isinstance(setting, Supported) else setting.missing
        assert not text.endswith(".")
        assert text or not isinstance(setting, Stored)
