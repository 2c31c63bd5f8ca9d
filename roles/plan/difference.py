"""The differences between two states of a replica in words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]
# Keys of an entry that a change names, each with the words before its value. A manifest and a saved
# plan have not all of them, those of earlier versions of this project even fewer.
_LABELS = (
    ("service", "service "),
    ("engine", ""),
    ("version", ""),
    ("model", "model "),
    ("shape", ""),
    ("tensor_split", "tensor_split "),
    ("gpus", "GPUs "),
    ("p2p", ""),
    ("hosts", "hosts "),
    ("executor", "executor "),
    ("port", "port "),
    ("max_model_len", "max_model_len "),
)


@dataclass(frozen=True)
class ReplicaChange:
    """A replica that changes: its id ("host/name") and what changes, in words.

    `placement_changes` says that its shape or GPUs change, for which the plan has reasons.
    """

    id: str
    message: str
    placement_changes: bool = False


def entry_changes(before: Entry, now: Entry) -> dict[str, str]:
    """What differs between two entries of a replica, by key; keys that one of both lacks do not
    count."""
    return {
        key: f"{label}{_value(before[key])} → {_value(now[key])}"
        for key, label in _LABELS
        if key in before and key in now and before[key] != now[key]
    }


def placed(entry: Entry) -> str:
    """Where a replica runs."""
    gpus = entry["gpus"]
    plural = "s" if len(gpus) != 1 else ""
    return f"{entry['shape']} on GPU{plural} {_value(gpus)}, port {entry['port']}"


def grouped(changes: Sequence[ReplicaChange]) -> list[str]:
    """A line for each distinct change, with all replicas that have it."""
    ids: dict[str, list[str]] = {}
    for change in changes:
        ids.setdefault(change.message, []).append(change.id)
    return [f"{', '.join(names)}: {words}" for words, names in ids.items()]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "one"
    return str(value)
