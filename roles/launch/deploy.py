"""Runs the planned replicas on GPU hosts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra import host
from pyinfra.api import State
from pyinfra.api.deploy import deploy

from roles.engine import EngineSettings
from roles.launch import operations
from roles.launch.render import digests, host_files
from roles.launch.roll import Roll
from roles.launch.settings import LaunchSettings
from roles.topology import HostPlan, ServiceSettings

_rolls: dict[State, Roll] = {}


@dataclass(frozen=True)
class HostLaunch:
    """All that launch needs to know of one host.

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

    def arguments(self) -> dict[str, Any]:
        """What the `replicas` operation takes, the same in every step of a run."""
        files = host_files(
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
        return {
            "planned": self.plan.replicas,
            "files": files,
            "devices": self.devices,
            "digests": digests(self.plan, files, self.engine),
            "engine": self.engine,
            "launch": self.settings,
            "model": self.service.model.name,
            "key": self.engine_key,
        }


def current_roll(balancers: Sequence[str]) -> Roll:
    """The one roll of this run: all hosts must see the same failures."""
    return _rolls.setdefault(host.state, Roll(host.state, frozenset(balancers)))


@deploy("Launch")
def start(launch: HostLaunch, roll: Roll) -> None:
    """Start the replicas of a host where nothing serves yet; others are left to the roll."""
    operations.replicas(
        name="Start replicas where none serves", roll=roll, fresh_only=True, **launch.arguments()
    )


@deploy("Launch")
def roll_over(launch: HostLaunch, roll: Roll, batch: Sequence[str]) -> None:
    """Move the replicas of a host in the batch to what is planned, one after the other."""
    operations.replicas(name=f"Roll over {', '.join(batch)}", roll=roll, **launch.arguments())


@deploy("Launch")
def serve(launch: HostLaunch, roll: Roll) -> None:
    """See that every replica of the host serves, now that its turn is over."""
    operations.serving(
        name="Replicas serve",
        planned=launch.plan.replicas,
        launch=launch.settings,
        model=launch.service.model.name,
        key=launch.engine_key,
        roll=roll,
    )
