"""Drains as data: which replica gets no requests, and who wants it so.

A replica is out while any owner has it out. Only the owner takes its drain back; a drain of the
rolling update is taken back by its own run, or by the run that resumes the update.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

ROLLING_UPDATE = "rolling-update"


@dataclass(frozen=True, order=True)
class Drain:
    """One owner has a replica out; `run` is the id of the run that wrote this."""

    replica: str
    owner: str
    run: str


def drain_owners(drains: Iterable[Drain]) -> dict[str, frozenset[str]]:
    """The owners that have a replica out, by replica."""
    owners: dict[str, frozenset[str]] = {}
    for drain in drains:
        owners[drain.replica] = owners.get(drain.replica, frozenset()) | {drain.owner}
    return owners


def resumed(
    drains: Iterable[Drain], run: str, serving: Collection[str], known: Collection[str]
) -> tuple[Drain, ...]:
    """Drains of earlier rolling updates that this run takes back.

    `serving` are the replicas that answer a completion, `known` all replicas of the upstreams: the
    drain of a replica that is gone is dropped. One that is known and does not serve stays out.
    """
    return tuple(
        drain
        for drain in drains
        if drain.owner == ROLLING_UPDATE
        and drain.run != run
        and (drain.replica in serving or drain.replica not in known)
    )
