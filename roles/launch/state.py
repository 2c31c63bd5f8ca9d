"""What runs on a host against what should: what launch has to do there. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roles.host import HostFile, differing


@dataclass(frozen=True)
class LaunchState:
    """What launch finds on a host.

    `files` are states as HostFile.state has them, `engine` is the folder that `current` leads to,
    `units` maps a replica to "active enabled" or what it is instead, `applied` a replica to the
    digest of what it was last seen to answer with.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    applied: Mapping[str, str] = field(default_factory=dict)
    firewall: bool = False

    @property
    def serving(self) -> bool:
        """Whether any replica runs: then a change must roll, one replica after the other."""
        return any(state.startswith("active") for state in self.units.values())


RUNNING = "active enabled"


def to_do(
    state: LaunchState,
    files: Sequence[HostFile],
    digests: Mapping[str, str],
    engine: str,
    firewall: bool,
) -> list[str]:
    """What differs between a host and its plan, in words; empty where nothing is to be done."""
    reasons = [f"{file.path} differs" for file in differing(files, state.files)]
    if state.engine != engine:
        reasons.append(f"the engine is {state.engine or 'none'}, not {engine}")
    if firewall and not state.firewall:
        reasons.append("the firewall's rules are not loaded")
    reasons += [f"{name} is not in the plan" for name in state.units if name not in digests]
    for name, digest in digests.items():
        if state.units.get(name) != RUNNING:
            reasons.append(f"{name} is {state.units.get(name, 'not there')}")
        elif state.applied.get(name) != digest:
            reasons.append(f"{name} runs from other settings")
    return reasons


def batches(hosts: Sequence[str], most: int) -> list[list[str]]:
    """Hosts in the order in which they roll: one at a time up to `most`, then `most` batches."""
    size = max(1, -(-len(hosts) // most))
    return [list(hosts[i : i + size]) for i in range(0, len(hosts), size)]
