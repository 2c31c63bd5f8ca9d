"""What is to run on a host, with all files. Pure."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from roles.host.paths import UNIT_TEMPLATE
from roles.launch.render import (
    Assignment,
    ReplicaFiles,
    firewall_files,
    groups,
    open_to_members,
    replica_files,
    shared_unit,
)
from roles.launch.settings import LaunchSettings
from roles.launch.state import (
    LaunchState,
    changes,
    previous_gpus,
    previous_groups,
    previous_ports,
)


@dataclass(frozen=True)
class HostLaunch:
    """What a host is to run: the replicas of all services.

    `address` is the host's own address, `balancers` are the addresses that may reach its engines.
    Replicas of these names that are `left_out` are neither started, moved nor taken down.
    `addresses` are those of all hosts of replicas over several, by host.
    """

    assignments: tuple[Assignment, ...]
    settings: LaunchSettings
    address: str
    balancers: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    addresses: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def replicas(self) -> tuple[ReplicaFiles, ...]:
        """Every replica with its files."""
        unit = shared_unit()
        return tuple(
            replica_files(one, self.settings, self.address, unit) for one in self.assignments
        )

    @property
    def running(self) -> tuple[ReplicaFiles, ...]:
        """The replicas that are to run now."""
        return tuple(one for one in self.replicas if one.name not in self.left_out)

    @property
    def parts(self) -> frozenset[str]:
        """The names of replicas that run on other hosts, too."""
        return frozenset(one.replica.name for one in self.assignments if one.members)

    def firewall(self, state: LaunchState | None = None) -> dict[str, str]:
        """The firewall's files for planned replicas, and for those of a state beside."""
        before = (previous_ports(state), previous_gpus(state)) if state else ((), ())
        ports = [*before[0], *(one.replica.port for one in self.assignments)]
        gpus = [*before[1], *(gpu for one in self.assignments for gpu in one.replica.gpus)]
        groups = [*(previous_groups(state) if state else ()), *map(self._group, self.assignments)]
        return firewall_files(self.settings, self.balancers, ports, gpus, open_to_members(groups))

    def _group(self, one: Assignment) -> tuple[list[str], int]:
        """The addresses of the other hosts of a replica, and its port.

        A host that its network's routes lead another way sends from its own address.
        """
        others = [member for member in one.members if member.host != one.host]
        known = [member.address for member in others]
        known += [self.addresses[member.host] for member in others if member.host in self.addresses]
        return list(dict.fromkeys(known)), one.replica.port

    @property
    def shared(self) -> dict[str, str]:
        """SHA-256 of each file that the replicas of the host share, by path."""
        if not self.assignments:
            return {}
        files = {UNIT_TEMPLATE: shared_unit(), **self.firewall()}
        return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}

    def changes(self, state: LaunchState):
        """What launch has to do on a host in this state."""
        return changes(state, self.running, self.shared, self.left_out)


def task(
    launch: HostLaunch,
    state: LaunchState,
    steps: Sequence[Collection[str]],
    retired: Collection[str],
    run_id: str,
) -> dict[str, Any]:
    """The task of the transaction on a host.

    The replicas of one of the `steps` restart together; `retired` ones are stopped for good.
    """
    moving = {name for step in steps for name in step}
    settings, builds = launch.settings, [one.build for one in launch.assignments]
    during = launch.firewall(state) if settings.firewall else {}
    return {
        "run": run_id,
        "progress": True,
        "template": shared_unit(),
        "replicas": [_replica(one) for one in launch.replicas if one.name in moving],
        "steps": [list(step) for step in steps],
        "retire": list(retired),
        "planned": {one.name: one.digest for one in launch.running},
        "left_out": sorted(launch.left_out),
        "firewall": launch.firewall(),
        "firewall_during": during,
        "user": settings.user,
        "groups": list(groups(builds)),
        "keep": max((build.keep for build in builds), default=1),
        "start_timeout_s": settings.start_timeout_s,
        "drain_timeout_s": settings.drain_timeout_s,
    }


def phases_of(files: ReplicaFiles) -> list[list[str]]:
    """What a replica's log says of a start, for the program that waits on the host."""
    return [[one.pattern, one.words] for one in files.phases]


def _replica(files: ReplicaFiles) -> Mapping[str, Any]:
    return {
        "name": files.name,
        "port": files.port,
        "head": files.entry.get("head"),
        "gpus": list(files.gpus),
        "devices": files.entry["devices"],
        "model": files.entry["model"],
        "task": files.entry.get("task", "generate"),
        "busy": files.entry.get("busy"),
        "key": files.key,
        "phases": phases_of(files),
        "listens_first": files.listens_first,
        "manifest": dict(files.entry),
        "files": {
            name: {
                "text": file.text,
                "mode": file.mode,
                "key_lines": list(file.key_lines),
                "keys": file.keys,
            }
            for name, file in files.files.items()
        },
    }
