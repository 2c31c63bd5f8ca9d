"""SSH keys of hosts: those in a file of known hosts, and those to add. Pure."""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

# A name of a single host: no pattern, no list, no second field.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
SSH_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """A public key of a host: its type ("ssh-ed25519"), and the key in base64."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        try:
            digest = hashlib.sha256(base64.b64decode(self.blob, validate=True)).digest()
        except binascii.Error:
            return "no key"
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class ScannedHost:
    """What a scan found: the host's name in a file of known hosts, its recorded keys, and the key
    that it showed, or why it showed none."""

    host: str
    name: str
    recorded: tuple[HostKey, ...]
    key: HostKey | None = None
    problem: str = ""

    @property
    def is_new(self) -> bool:
        """Whether it showed a key, and none is recorded."""
        return self.key is not None and not self.recorded

    @property
    def differs(self) -> bool:
        """Whether it showed a key that is not among its recorded ones."""
        return bool(self.key and self.recorded and self.key not in self.recorded)


def known_name(hostname: str, port: int) -> str:
    """The name of a host in a file of known hosts; ValueError where it cannot be a host's name."""
    if not _NAME.fullmatch(hostname):
        raise ValueError(f"{hostname!r} is no name or address of a host")
    return hostname if port == SSH_PORT else f"[{hostname}]:{port}"


def key_mismatch(found: ScannedHost, file: str) -> str:
    """The message about a host that shows another key than its recorded ones, with a remedy."""
    assert found.key is not None
    known = ", ".join(f"{key.kind} {key.fingerprint}" for key in found.recorded)
    return (
        f"{found.host}: {found.name} shows {found.key.kind} {found.key.fingerprint}, recorded "
        f"is {known}: somebody may stand between. If the host was installed anew, compare the key "
        f"on its console, then ssh-keygen -R '{found.name}' -f {file}, and run this again"
    )


def with_new_keys(text: str, found: Sequence[ScannedHost]) -> str:
    """The text of a file of known hosts with the keys of new hosts appended."""
    lines = [f"{one.name} {one.key.kind} {one.key.blob}\n" for one in found if one.key]
    return text + ("\n" if text and not text.endswith("\n") else "") + "".join(lines)
