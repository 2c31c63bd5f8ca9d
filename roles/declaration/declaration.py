"""One inventory as it was written, before anything in it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GPU_HOSTS, BALANCERS = "gpu_hosts", "balancers"
ROLES = (GPU_HOSTS, BALANCERS)


@dataclass(frozen=True)
class DeclaredHost:
    """A host as it was written: its groups, its `llm` data, where ssh reaches it."""

    groups: frozenset[str]
    data: Mapping[str, Any]
    ssh_address: str


@dataclass(frozen=True)
class Declaration:
    """One inventory as it was written: data of `all`, and of each host, under our key.

    `hosts` maps a host's name to its groups, its merged data and the name it is reached by;
    `recorded` maps it to the entry of the recorded hardware, as it was read.
    """

    name: str
    fleet: Mapping[str, Any]
    hosts: Mapping[str, DeclaredHost]
    recorded: Mapping[str, Any] = field(default_factory=dict)
