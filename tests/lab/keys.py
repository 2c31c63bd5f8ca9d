"""Keys of the lab, made once: SSH of the control side and of each host, and the API keys."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .paths import HOSTS, KEYS, STATE, sh

LOGIN_KEY = KEYS / "id_ed25519"
KNOWN_HOSTS = KEYS / "known_hosts"
API_KEYS = (KEYS / "api.key", KEYS / "engine.key")
"""The key of the endpoint's users, and the one between balancer and engines."""


def host_key(name: str) -> Path:
    """The private SSH key of a host."""
    return KEYS / f"host-{name}"


def make() -> None:
    """Make what is not there yet."""
    STATE.mkdir(parents=True, exist_ok=True)
    KEYS.mkdir(mode=0o700, exist_ok=True)
    for path in (LOGIN_KEY, *map(host_key, HOSTS)):
        if not path.with_suffix(".pub").exists():
            _make_ssh_key(path)
    for path in API_KEYS:
        if not path.exists():
            _write_secret(path, f"sk-lab-{secrets.token_hex(24)}\n")


def _make_ssh_key(path: Path) -> None:
    # The public half comes last: where it is there, the pair is whole.
    partial = path.with_name(f"{path.name}.partial")
    for half in (partial, Path(f"{partial}.pub")):
        half.unlink(missing_ok=True)
    sh(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", partial])
    partial.rename(path)
    Path(f"{partial}.pub").rename(path.with_suffix(".pub"))


def _write_secret(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.rename(path)


def write_known_hosts() -> None:
    """The strict list of the hosts' keys, by address and by name."""
    lines = []
    for host in HOSTS.values():
        kind, key = host_key(host.name).with_suffix(".pub").read_text().split()[:2]
        lines.append(f"{host.address},{host.name} {kind} {key}\n")
    KNOWN_HOSTS.write_text("".join(lines))
