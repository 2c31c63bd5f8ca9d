"""Drains: who decided that which members get no requests, since when and why. Pure."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from roles.balancer.routes import Member

Owner = Literal["inventory", "operator", "rolling-update", "watchdog"]
"""Who may drain a member. A member gets requests only if no owner drains it; each owner ends only
its own drains."""
_GPU = re.compile(r"(.+)/gpu:([0-9]{1,4})")


@dataclass(frozen=True)
class Drain:
    """An owner's decision that members get no requests.

    `replica` is the id of one, or what `host_target` and `gpu_target` return: such a drain holds
    for whatever is planned there later. `run` is the run that began it, `since` when it began
    (ISO 8601). `interruption` says that members are drained even if their upstream has no other,
    because the interruption was announced. `reason` is a person's.
    """

    replica: str
    owner: Owner
    run: str
    since: str
    interruption: bool = False
    reason: str | None = None

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return (
            f"{in_words(self.replica)} is drained by {_OWNERS[self.owner]} since {self.since}{why}"
        )


_OWNERS: dict[str, str] = {
    "inventory": "the inventory",
    "operator": "a person",
    "rolling-update": "a rolling update",
    "watchdog": "the watchdog",
}


def host_target(host: str) -> str:
    """What drains every member on a host, planned or not."""
    return f"{host}/*"


def gpu_target(host: str, gpu: int) -> str:
    """What drains every member that uses a GPU."""
    return f"{host}/gpu:{gpu}"


def is_wide(target: str) -> bool:
    """Whether a drain that names this names a host or a GPU, rather than one replica."""
    return target.endswith("/*") or _GPU.fullmatch(target) is not None


def in_words(target: str) -> str:
    """What a drain names, as a person says it."""
    if found := _GPU.fullmatch(target):
        return f"GPU {found[2]} of {found[1]}"
    return f"host {target.removesuffix('/*')}" if target.endswith("/*") else target


def covers(target: str, member: Member) -> bool:
    """Whether a drain that names this drains a member."""
    if target in (member.id, *(host_target(host) for host, _ in member.places)):
        return True
    found = _GPU.fullmatch(target)
    return bool(found) and any(
        found[1] == host and int(found[2]) in gpus for host, gpus in member.places
    )


def covered(members: Iterable[Member], targets: Collection[str]) -> list[Member]:
    """The members that are drained by drains that name these."""
    return [one for one in members if any(covers(target, one) for target in targets)]
