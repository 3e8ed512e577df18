"""What it takes to start environments of a function version: its code, its layers, its variables in the clear, and a
runtime that runs here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from fastlam.abc import LaunchSpec
from fastlam.dispatch.networks import Networks
from fastlam.errors import ApiError, FastlamError
from fastlam.model.function import IMAGE, FunctionRecord, applies_snap_start
from fastlam.runtimes import python
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.file_systems import FileSystems
from fastlam.store.vault import CannotOpen, Vault
from fastlam.telemetry.logs import FunctionLog

log = logging.getLogger(__name__)

_PYTHON: Final = "python"
SNAP_START: Final = "snap-start"
_NOT_OF_SNAPSHOTS: Final = ("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME")


def ahead_of_calls(spec: LaunchSpec) -> LaunchSpec:
    """The same environments, where they are made for provisioned concurrency."""
    environ = spec.worker.environ | {python.INITIALIZATION_TYPE: "provisioned-concurrency"}
    return replace(spec, worker=msgspec.structs.replace(spec.worker, environ=environ))


def template_of(spec: LaunchSpec, kind: str, *, keeps_threads: bool = False) -> LaunchSpec:
    """The template (SnapStart) that these environments are restored from: wire.control.FORKED or COPIED. With
    `keeps_threads` one that is to be forked fails if its INIT leaves threads.
    """
    return replace(spec, worker=msgspec.structs.replace(spec.worker, template=kind, keeps_threads=keeps_threads))


def restored_from(spec: LaunchSpec, name: str) -> LaunchSpec:
    """The same environments, restored from a template; `name` tells it from all others."""
    environ = {each: value for each, value in spec.worker.environ.items() if each not in _NOT_OF_SNAPSHOTS}
    environ[python.INITIALIZATION_TYPE] = SNAP_START
    return replace(spec, worker=msgspec.structs.replace(spec.worker, environ=environ), snapshot=name)


def takes_snapshots(record: FunctionRecord) -> bool:
    """Whether this version is to have a snapshot and is of a kind that can: one is a fork of Python."""
    return applies_snap_start(record) and record.runtime.startswith(_PYTHON)


class Launches:
    """Makes launch specs. Raises ApiError, as Invoke answers it, for what cannot run."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        vault: Vault,
        endpoint_url: str | None = None,
        *,
        file_systems: FileSystems | None = None,
        own_root: bool = False,
        networks: Networks | None = None,
        no_snapshots: str = "",
    ) -> None:
        self._no_snapshots = no_snapshots  # why this machine can restore nothing
        self._file_systems = file_systems
        self._own_root = own_root  # environments have a file system of their own
        self._networks = networks or Networks()
        self.endpoint_url = endpoint_url  # of the daemon, as its functions reach it; set once the port is known
        self.door_url = endpoint_url  # and as they do in a network of their own
        self._artifacts = artifacts
        self._vault = vault

    def restores(self, record: FunctionRecord) -> bool:
        """Whether environments of this version come from a snapshot."""
        return takes_snapshots(record) and not self.why_not_restored(record)

    def why_not_restored(self, record: FunctionRecord) -> str:
        """Why no environment of this version can come from a snapshot here; "" if nothing stands against it."""
        if self._networks.has_own(record):
            return "environments with a network of their own are not restored"
        return self._no_snapshots

    def spec(self, record: FunctionRecord, function_log: FunctionLog) -> LaunchSpec:
        """How environments of this version are started; warnings go to its log."""
        self._check_runs_here(record, function_log)
        artifact = self._artifacts.open(record.artifact)
        if artifact is None:
            raise ApiError("ServiceException", f"The code of {record.name} is missing from the data directory.")
        opt = self._layers(record, function_log)
        try:
            variables = self._vault.open(record.environment, record.arn)
        except CannotOpen as error:
            function_log.note(f"[fastlam: {error}]")
            raise ApiError(
                "KMSNotFoundException",
                "Lambda was unable to decrypt the environment variables because the KMS key was not found. Please check"
                f" the function's KMS key settings. KMS Exception: NotFoundExceptionKMS Message: {error}",
            ) from None
        try:
            mounts = self._mounts(record, function_log)
            network = self._networks.of(record, function_log)
            spec, warning = python.launch_spec(
                record,
                artifact.directory,
                self.door_url if network else self.endpoint_url,
                variables,
                opt,
                own_root=self._own_root,
                mounts=mounts,
                network=network,
            )
        except FastlamError as error:
            function_log.note(f"[fastlam: {error}]")
            raise ApiError("InvalidRuntimeException", str(error)) from None
        if warning is not None:
            function_log.note(warning)
            log.warning("%s", warning)
        return spec

    def _mounts(self, record: FunctionRecord, function_log: FunctionLog) -> tuple[tuple[str, str], ...]:
        """Directory and mount path of each of its file systems."""
        if not record.file_system_configs:
            return ()
        if not self._own_root or self._file_systems is None:
            function_log.note(
                "[fastlam: file systems are not mounted, since environments have no file system of their own here"
                " (fastlam doctor says why)]"
            )
            return ()
        file_systems = self._file_systems
        return tuple(
            (str(file_systems.directory(config["Arn"])), config["LocalMountPath"])
            for config in record.file_system_configs
        )

    def _layers(self, record: FunctionRecord, function_log: FunctionLog) -> Path | None:
        """What the function has as /opt; None without layers."""
        if not record.layers:
            return None
        opt = self._artifacts.layers([layer.artifact for layer in record.layers])
        if opt is None:
            raise ApiError("ServiceException", f"A layer of {record.name} is missing from the data directory.")
        extensions = opt / "extensions"
        names = sorted(path.name for path in extensions.iterdir()) if extensions.is_dir() else []
        if names:
            function_log.note(
                f"[fastlam: the layers of {record.name} bring extensions ({', '.join(names)}), which fastlam does not"
                " start yet]"
            )
        return opt

    @staticmethod
    def _check_runs_here(record: FunctionRecord, function_log: FunctionLog) -> None:
        if record.durable_config is not None:
            raise ApiError(
                "ModeNotSupportedException",
                f"{record.name} is a durable function, and fastlam does not execute durable functions yet.",
            )
        if record.package_type == IMAGE:
            raise ApiError(
                "CodeArtifactUserFailedException",
                f"{record.name} is a container image ({record.image_uri}), and fastlam does not run container images"
                " yet.",
            )
        if not record.runtime.startswith(_PYTHON):
            message = f"{record.name} asks for {record.runtime}, and fastlam runs Python functions only so far."
            function_log.note(f"[fastlam: {message}]")
            raise ApiError("InvalidRuntimeException", message)
