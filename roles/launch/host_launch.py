"""All that launch needs to know of one host, and the files that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roles.engine import EngineSettings
from roles.host import HostFile
from roles.launch.render import digests, host_files
from roles.launch.settings import LaunchSettings
from roles.plan import HostPlan
from roles.topology import ServiceSettings


@dataclass
class HostLaunch:
    """One object a host and run, which every step of launch reads when it executes.

    `plan`, `devices` and `driver_version` may be replaced until then: what a driver reports after
    its installation, or a measurement that turns P2P off, is in the files that are written.
    `devices` is what CUDA calls a GPU of the plan where that is not its index; `address` is the
    host's own; `balancers` maps names to the addresses that may reach its engines.
    """

    plan: HostPlan
    settings: LaunchSettings
    service: ServiceSettings
    engine: EngineSettings
    devices: Mapping[int, str]
    address: str
    balancers: Mapping[str, str]
    engine_key: str
    driver_version: str | None = None

    @property
    def files(self) -> list[HostFile]:
        """Every file of the host's replicas, in the order in which they are to be written."""
        return host_files(
            self.plan,
            self.service,
            self.engine,
            self.settings,
            self.address,
            self.balancers.values(),
            self.engine_key,
            self.engine.hub_token,
            self.devices,
        )

    def digests(self, files: Sequence[HostFile]) -> Mapping[str, str]:
        """What each replica runs from; it restarts when that changes."""
        return digests(self.plan, files, self.engine)
