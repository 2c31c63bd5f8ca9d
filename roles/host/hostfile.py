"""A file as it must be on a host, and which files of a set differ from the host's."""

import base64
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostFile:
    """One whole file: `path` is absolute, `mode` octal as `stat -c %a` prints it ("644").

    The content never appears in arguments, logs or diffs, so a file may hold a secret.
    """

    path: str
    content: str = field(repr=False)
    mode: str = "644"
    owner: str = "root"
    group: str = "root"

    @property
    def state(self) -> str:
        """Mode, owner, group and SHA-256 in one line, as the `FileStates` fact reports them."""
        digest = hashlib.sha256(self.content.encode()).hexdigest()
        return f"{self.mode} {self.owner} {self.group} {digest}"


def changed_files(files: Iterable[HostFile], states: Mapping[str, str]) -> list[HostFile]:
    """The files whose mode, owner, group or content on the host is not what it must be."""
    return [file for file in files if states.get(file.path) != file.state]


def parse_states(lines: Iterable[str]) -> dict[str, str]:
    """Each path with its state, from lines of mode, owner, group, SHA-256 and path.

    ValueError for a line that is none of these.
    """
    rows = [(line, line.split(" ", 4)) for line in lines]
    if wrong := [line for line, words in rows if len(words) != 5]:
        raise ValueError(f"not the state of a file: {wrong[0][:200]!r}")
    return {words[4]: " ".join(words[:4]) for _, words in rows}


def archive(files: Iterable[HostFile]) -> str:
    """A base64 tar of the files, paths relative to the root, readable by its owner alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            data = file.content.encode()
            info = tarfile.TarInfo(file.path.lstrip("/"))
            info.size = len(data)
            info.mode = 0o600
            tar.addfile(info, io.BytesIO(data))
    return base64.encodebytes(buffer.getvalue()).decode()
