"""The planned changes of a host's replicas in words: the plan compared with the manifest. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roles.checks import printable
from roles.launch.fingerprints import differing
from roles.launch.state import Change

Entry = Mapping[str, Any]
# More names would fill the screen.
_NAMED = 8
# Keys of a manifest's entry that a change names, each with the words before its value. An entry of
# an earlier version of this project lacks some of them.
_LABELS = (
    ("service", "service "),
    ("engine", ""),
    ("version", ""),
    ("model", "model "),
    ("shape", ""),
    ("gpus", "GPUs "),
    ("port", "port "),
    ("max_model_len", "max_model_len "),
)


@dataclass(frozen=True)
class ReplicaChange:
    """A replica that is to change: its id ("host/name") and what changes, in words.

    `placement_changes` says that its shape or GPUs change, for which the plan has reasons.
    """

    id: str
    message: str
    placement_changes: bool = False


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
        words = f"new: {now['shape']} on {_gpus(now['gpus'])}, port {now['port']}"
        return ReplicaChange(id, words, placement_changes=True)
    before = before or {}
    differs = [
        (key, f"{word}{_value(before[key])} → {_value(now[key])}")
        for key, word in _LABELS
        if key in before and key in now and before[key] != now[key]
    ]
    if not differs and change.kind == "move" and (names := _other_settings(before, now)):
        return ReplicaChange(id, f"{change.reason}: {', '.join(names)}")
    keys, words = [key for key, _ in differs], [text for _, text in differs]
    if change.kind == "start" or not words:
        words.append(change.reason)
    return ReplicaChange(id, "; ".join(words), placement_changes="shape" in keys or "gpus" in keys)


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


def grouped(changes: Sequence[ReplicaChange]) -> list[str]:
    """A line for each distinct change, with all replicas that have it."""
    ids: dict[str, list[str]] = {}
    for change in changes:
        ids.setdefault(change.message, []).append(change.id)
    return [f"{', '.join(names)}: {words}" for words, names in ids.items()]


def _gpus(gpus: Sequence[int]) -> str:
    return f"GPU{'s' if len(gpus) != 1 else ''} {_value(gpus)}"


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
