"""The whole control plane: the owner of each resource, made in the order in which they need one another."""

from __future__ import annotations

from collections.abc import Callable

from fastlam import limits
from fastlam.clock import Clock, Schedule, SystemClock
from fastlam.control.account_settings import AccountSettings
from fastlam.control.aliases import Aliases
from fastlam.control.autoscaling import AutoScaling
from fastlam.control.capacity_providers import CapacityProviders
from fastlam.control.code import ReadObject, no_objects
from fastlam.control.code_signing import CodeSigning
from fastlam.control.collector import CodeCollector
from fastlam.control.concurrency import AccountConcurrency, ReservedConcurrency
from fastlam.control.durable import DurableExecutions
from fastlam.control.event_invoke import EventInvokeConfigs
from fastlam.control.event_source_mappings import EventSourceMappings
from fastlam.control.functions import Functions
from fastlam.control.layers import Layers
from fastlam.control.managed import ManagedFunctions
from fastlam.control.permissions import Permissions
from fastlam.control.provisioned_concurrency import ProvisionedConcurrency
from fastlam.control.recursion import Recursion
from fastlam.control.rules import FunctionRules
from fastlam.control.runtime_management import RuntimeManagement
from fastlam.control.scaling import FunctionScaling
from fastlam.control.tags import Tags
from fastlam.control.urls import FunctionUrls
from fastlam.control.versions import Versions
from fastlam.model.function import FunctionRecord
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.records import LAYER_VERSION, RecordStore
from fastlam.store.vault import Vault


class ControlPlane:
    """Lives in the thread of the store."""

    def __init__(
        self,
        store: RecordStore,
        artifacts: ArtifactStore,
        schedule: Schedule,
        *,
        clock: Clock | None = None,
        vault: Vault | None = None,
        read_object: ReadObject = no_objects,
        account_concurrency: int = limits.ACCOUNT_CONCURRENCY,
        in_background: Callable[[Callable[[], None]], object] | None = None,
        makes_snapshot: Callable[[FunctionRecord], bool] | None = None,
        polls_sources: bool = False,
    ) -> None:
        clock = clock or SystemClock()
        self.tags = Tags(store, clock)  # before the owners of what has tags
        self.collector = CodeCollector(store, artifacts, schedule, clock, in_background)
        self.versions = Versions(store, clock)
        self.layers = Layers(
            store,
            artifacts,
            self.collector,
            self.tags,
            clock=clock,
            read_object=read_object,
            in_background=in_background,
        )
        self.tags.register("layer", lambda key: bool(store.parts(LAYER_VERSION, key)))
        self.code_signing = CodeSigning(store, clock, self.tags)
        self.capacity_providers = CapacityProviders(store, schedule, clock, self.tags)
        self.functions = Functions(
            store,
            artifacts,
            schedule,
            clock=clock,
            vault=vault,
            versions=self.versions,
            collector=self.collector,
            find_layers=self.layers.find,
            rules=FunctionRules(ManagedFunctions(self.capacity_providers), self.code_signing),
            read_object=read_object,
            makes_snapshot=makes_snapshot,
        )
        concurrency = AccountConcurrency(store, account_concurrency)
        self.account_settings = AccountSettings(store, concurrency, clock)
        self.reserved_concurrency = ReservedConcurrency(store, account=concurrency)
        self.provisioned_concurrency = ProvisionedConcurrency(store, clock, concurrency)
        self.auto_scaling = AutoScaling(store, clock)
        self.aliases = Aliases(store, self.provisioned_concurrency.check_move)
        self.runtime_management = RuntimeManagement(store)
        self.recursion = Recursion(store)
        self.scaling = FunctionScaling(store, schedule)
        self.durable_executions = DurableExecutions(store)
        self.permissions = Permissions(store)
        self.urls = FunctionUrls(store, clock)
        self.event_invoke = EventInvokeConfigs(store, clock)
        self.event_source_mappings = EventSourceMappings(store, schedule, self.tags, clock, polled=polls_sources)
