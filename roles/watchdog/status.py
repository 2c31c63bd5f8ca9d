"""The replicas of a host as its watchdog sees them: how it is asked, and what it says. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roles.checks import clean

# Standard input and errors are nobody's; a host without a watchdog answers nothing.
_ASK = """import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as connection:
    connection.settimeout(5)
    connection.sendall(b"state\\n")
    text = b""
    while len(text) < 1 << 20 and (part := connection.recv(65536)):
        text += part
print(text.decode())
"""

Text = Annotated[str, Field(max_length=1000)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]


class _Replica(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    name: Text
    service: Text
    state: Text
    since_s: Seconds
    reason: Text
    pending: float | None
    proof_age_s: Seconds
    closed: bool
    held: bool
    waits: Text


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    replicas: Annotated[tuple[_Replica, ...], Field(max_length=256)]


@dataclass(frozen=True)
class HostStatus:
    """What a watchdog says of its host in words: a line for each replica, or why there is none."""

    lines: tuple[str, ...]


def ask_script(port: int) -> str:
    """A shell command that prints what the watchdog at this port says."""
    return f"python3 -I -c '{_shell(_ASK)}' {port} 2>/dev/null || true"


def _shell(text: str) -> str:
    return text.replace("'", "'\\''")


def parse_status(lines: Iterable[str]) -> HostStatus:
    """Read what `ask_script` printed; ValueError where it is damaged."""
    text = "\n".join(lines).strip()
    if not text:
        return HostStatus(("its watchdog gives no answer: systemctl status llm-watchdog",))
    try:
        state = _State.model_validate(json.loads(text))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ValueError(f"not what a watchdog says: {type(error).__name__}") from None
    if not state.replicas:
        return HostStatus(("no replica is watched",))
    return HostStatus(tuple(clean(line) for one in state.replicas for line in _lines(one)))


def _lines(one: _Replica) -> list[str]:
    pending = "?" if one.pending is None else f"{one.pending:.0f}"
    rotation = "out of the rotation" if one.closed else "in the rotation"
    words = [
        f"{one.name} ({one.service}): {one.state} for {_span(one.since_s)}, {rotation}",
        f"{pending} requests",
        f"last step or completion {_span(one.proof_age_s)} ago",
    ]
    shown = "; ".join(words) + ("; a deploy holds the host" if one.held else "")
    well = one.state in ("serving", "starting") or not one.reason
    why = [] if well else [f"{one.name} is {one.state}: {one.reason}"]
    return [shown, *why, *([f"{one.name}: {one.waits}"] if one.waits else [])]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
