"""The planned changes of a host's replicas in words: the plan compared with the manifest. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from roles.checks import printable
from roles.launch.fingerprints import differing
from roles.launch.state import Change
from roles.plan import ReplicaChange, entry_changes, placed

Entry = Mapping[str, Any]
# More names would fill the screen.
_NAMED = 8


def replica_changes(
    host: str,
    changes: Iterable[Change],
    before: Mapping[str, Entry],
    planned: Mapping[str, Entry],
) -> list[ReplicaChange]:
    """The changes of a host's replicas.

    `before` has the entries of its manifest, `planned` those of the plan, both by name.
    """
    found = []
    for change in changes:
        id = f"{host}/{change.subject}"
        if change.kind == "retire":
            found.append(ReplicaChange(id, f"goes away: it {change.reason}"))
        elif change.kind in ("move", "start"):
            found.append(_change(id, change, before.get(change.subject), planned[change.subject]))
    return found


def _change(id: str, change: Change, before: Entry | None, now: Entry) -> ReplicaChange:
    if before is None and change.kind == "start":
        return ReplicaChange(id, f"new: {placed(now)}", placement_changes=True)
    before = before or {}
    differs = entry_changes(before, now)
    if not differs and change.kind == "move" and (names := _other_settings(before, now)):
        return ReplicaChange(id, f"{change.reason}: {', '.join(names)}")
    words = list(differs.values())
    if change.kind == "start" or not words:
        words.append(change.reason)
    return ReplicaChange(id, "; ".join(words), bool({"shape", "gpus"} & differs.keys()))


def _other_settings(before: Entry, now: Entry) -> list[str]:
    """The settings that differ; none where an earlier version of this project kept no digests."""
    known = isinstance(before.get("settings"), Mapping) and "settings" in now
    if not known:
        return []
    # Of these there are no digests.
    names = differing(before["settings"], now["settings"]) or ["keys or secrets"]
    more = len(names) - _NAMED
    # The host wrote some of the names.
    shown = [printable(f"{name:.60}") for name in names[:_NAMED]]
    return shown if more <= 0 else [*shown, f"{more} more"]
