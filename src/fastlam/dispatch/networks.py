"""Which network a function's environments have: this machine's, one of their own, or that of their VpcConfig."""

from __future__ import annotations

from dataclasses import dataclass

from fastlam.model.function import FunctionRecord
from fastlam.telemetry.logs import FunctionLog


@dataclass(frozen=True)
class Networks:
    """What the daemon was asked for, and what it could have."""

    mode: str = "host"  # of --network
    available: bool = False  # environments can have a network of their own here

    def of(self, record: FunctionRecord, function_log: FunctionLog) -> str:
        """As abc.Confinement names it; the log hears of a VpcConfig that changes nothing."""
        name = vpc_network(record)
        if self.mode == "none":
            return "own"
        if name and not self.available:
            function_log.note(
                "[fastlam: VpcConfig changes nothing, since environments have no network of their own here (fastlam"
                " doctor says why)]"
            )
            return ""
        return name or ("own" if self.mode == "loopback" else "")

    def has_own(self, record: FunctionRecord) -> bool:
        """Whether its environments have another network than this machine's."""
        return self.mode != "host" or (self.available and vpc_network(record) != "")


def vpc_network(record: FunctionRecord) -> str:
    """The name of the network that functions with the same subnets and security groups share; "" without subnets."""
    config = record.vpc_config or {}
    subnets = ",".join(sorted(config.get("SubnetIds") or ()))
    groups = ",".join(sorted(config.get("SecurityGroupIds") or ()))
    return f"vpc:{record.account}:{record.region}:{subnets}:{groups}" if subnets else ""
