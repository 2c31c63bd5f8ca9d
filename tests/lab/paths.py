"""Where the lab keeps its things, which hosts it has, and how it runs a command."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STATE = Path(os.environ.get("LAB_STATE", "/var/lib/pyinfra-llm-lab"))
"""What outlives a run: the base, packages, wheels, weights, keys and the hosts' disks."""
RUNTIME = Path("/run/pyinfra-llm-lab")
"""What does not: mount points, consoles, the holder's note."""
KEYS = STATE / "keys"
DISKS = STATE / "hosts"
WWW = STATE / "www"

LAB_NAME = "pyinfra-llm-lab"
SWITCH = "labsw"
CONTROL_ADDRESS = "10.99.0.1"
HTTP_PORT = 8080
LOGIN = "deploy"
MODEL_PATH = "/srv/models/tiny"
GGUF_FOLDER = "/srv/models"
"""Where GPU hosts have the tiny model's files for llama.cpp, too."""


class LabError(Exception):
    """Something that the person who runs the lab can act on."""


@dataclass(frozen=True)
class Host:
    """A host of the lab; `gpus` names its GPU profile, None means that it has no GPU.

    A bare host is one as a provider hands it over: its GPUs are on the PCI bus and no driver is
    installed. On one with `rpc` each GPU is stood for by a process that llama.cpp takes as a device
    (`rpc_addresses`). These, and `spare` ones, are booted only where they are named.
    """

    name: str
    address: str
    gpus: str | None = None
    bare: bool = False
    rpc: bool = False
    spare: bool = False

    @property
    def usual(self) -> bool:
        """Whether it is booted where no host is named."""
        return not (self.bare or self.rpc or self.spare)

    @property
    def namespace(self) -> str:
        return f"lab-{self.name}"

    @property
    def disk(self) -> Path:
        return DISKS / self.name

    @property
    def gpu_state(self) -> Path:
        """The folder that the host sees, read-only, as /usr/lib/lab-gpu."""
        return self.disk / "gpu"

    @property
    def firmware(self) -> Path:
        """Settings that outlive the host's disk: how, and whether, it boots."""
        return self.disk / "firmware"

    @property
    def runtime(self) -> Path:
        return RUNTIME / self.name


HOSTS = {
    host.name: host
    for host in (
        Host("lb1", "10.99.0.10"),
        Host("gpu1", "10.99.0.11", "l40s-2x"),
        Host("gpu2", "10.99.0.12", "rtx-4090-2x"),
        Host("gpu3", "10.99.0.13", "a10g-4x"),
        Host("bare1", "10.99.0.14", "l40s-2x", bare=True),
        Host("bare2", "10.99.0.15", "h100-8x", bare=True),
        Host("bare3", "10.99.0.16", "mi300x-2x", bare=True),
        Host("bare4", "10.99.0.17", "r9700-2x", bare=True),
        Host("gpu4", "10.99.0.18", "rtx-4090-3090", rpc=True),
        Host("lb2", "10.99.0.20", spare=True),
        Host("lb3", "10.99.0.23", spare=True),
        Host("gpu7", "10.99.0.24", "l40s-2x", spare=True),
        Host("gpu8", "10.99.0.25", "l40s-2x", spare=True),
        Host("lb4", "10.99.0.26", spare=True),
        Host("lb5", "10.99.0.27", spare=True),
        Host("gpu5", "10.99.0.21", "l40s-2x", spare=True),
        Host("gpu6", "10.99.0.22", "a10g-4x", spare=True),
        Host("gpu9", "10.99.0.28", "a10g-4x", spare=True),
        Host("lb6", "10.99.0.29", spare=True),
        Host("lb7", "10.99.0.30", spare=True),
        Host("gpu10", "10.99.0.31", "l40s-2x", spare=True),
        Host("gpu11", "10.99.0.32", "l40s-2x", spare=True),
        Host("gpu12", "10.99.0.33", "l40s-2x", spare=True),
    )
}


def host(name: str) -> Host:
    """The host of that name."""
    if name not in HOSTS:
        raise LabError(f"no host {name!r}; there are {', '.join(HOSTS)}")
    return HOSTS[name]


def sh(argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the lab's own; a failure says what it printed."""
    options = {"stdin": subprocess.DEVNULL, "text": True, "capture_output": True} | options
    check = options.pop("check", True)
    result = subprocess.run([str(part) for part in argv], **options)
    if check and result.returncode:
        printed = ((result.stdout or "") + (result.stderr or "")).strip()
        raise LabError(f"{' '.join(map(str, argv))}: exit {result.returncode}\n{printed[-2000:]}")
    return result


def digest(*parts: str) -> str:
    """A short name for exactly these inputs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def cached(kind: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` builds from `recipe`, built only where it is not there yet.

    It is built aside and renamed at the end, so a folder with the final name is always whole,
    however an earlier build ended.
    """
    path = STATE / f"{kind}-{digest(recipe)}"
    if not path.is_dir():
        for left in STATE.glob(f"{kind}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        # A new name each time: children of a killed build may still write into theirs.
        partial = Path(tempfile.mkdtemp(prefix=f"{kind}.partial-", dir=STATE))
        partial.chmod(0o755)
        print(f"lab: building {kind} …", flush=True)
        make(partial)
        partial.rename(path)
    return path


def others(path: Path) -> list[Path]:
    """Folders of the same kind as `path` that an older recipe left."""
    kind = path.name.rsplit("-", 1)[0]
    return [old for old in STATE.glob(f"{kind}-*") if old != path]
