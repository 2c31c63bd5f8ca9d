"""One inventory as it is written, before anything in it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GPU_HOSTS, BALANCERS = "gpu_hosts", "balancers"
ROLES = (GPU_HOSTS, BALANCERS)


@dataclass(frozen=True)
class DeclaredHost:
    """A host as it is written: its groups, its `llm` data, the address that ssh uses, and pyinfra's
    data of ssh from all levels."""

    groups: frozenset[str]
    data: Mapping[str, Any]
    ssh_address: str
    ssh: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """One inventory as it is written: what `all` (`fleet`) and each host have under our key.

    `hosts` are the hosts by name, each with the merged data of its groups. `recorded` has the
    entries of the recorded hardware by host.
    """

    name: str
    fleet: Mapping[str, Any]
    hosts: Mapping[str, DeclaredHost]
    recorded: Mapping[str, Any] = field(default_factory=dict)
