"""Control groups of the lab: what it starts is in them, and by them it is found again.

Each host has one in every hierarchy, nested under the caller's, so that limits on the caller still
hold. Everything that the lab starts lives in one of these, so clearing needs no process ids.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from .paths import LAB_NAME, LabError

TOP = Path("/sys/fs/cgroup")
SEARCH_DEPTH = 6


def make(name: str) -> list[Path]:
    """The groups of that name, one in each hierarchy."""
    folders = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, inner = line.split(":", 2)
        hierarchy = "unified" if number == "0" else controllers.removeprefix("name=")
        parent = TOP / hierarchy / inner.lstrip("/")
        for folder in (parent / LAB_NAME, parent / LAB_NAME / name):
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
        folders.append(folder)
    return folders


def _inherit_cpuset(folder: Path) -> None:
    # A new v1 cpuset is empty and takes no process until it has processors and memory.
    for part in ("cpuset.cpus", "cpuset.mems"):
        if (folder / part).exists():
            (folder / part).write_text((folder.parent / part).read_text())


def join(folders: list[Path]) -> None:
    """Put this process into the groups (its children then start in them)."""
    for folder in folders:
        (folder / "cgroup.procs").write_text("0")


def processes(name: str = "") -> set[int]:
    """The processes of one host, or of the whole lab."""
    found: set[int] = set()
    for top in _tops():
        for folder, _, files in os.walk(top / name):
            if "cgroup.procs" in files:
                found.update(_listed(Path(folder) / "cgroup.procs"))
    return found


def _listed(file: Path) -> list[int]:
    """The processes of one group; none of one that ends meanwhile, as that of an SSH session."""
    try:
        return [int(pid) for pid in file.read_text().split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise


def end(name: str = "", timeout: float = 300) -> None:
    """Kill all processes of one host, or of the whole lab, and take their groups away."""
    deadline = time.monotonic() + timeout
    while pids := processes(name):
        if time.monotonic() > deadline:
            raise LabError(f"these processes of the lab do not end: {sorted(pids)}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for top in _tops():
        for folder, _, _ in os.walk(top / name, topdown=False):
            _remove(Path(folder))


def _remove(folder: Path, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.05)
    raise LabError(f"{folder} cannot be removed")


def _tops() -> list[Path]:
    found = []
    for folder, children, _ in os.walk(TOP):
        depth = len(Path(folder).relative_to(TOP).parts)
        if LAB_NAME in children:
            found.append(Path(folder) / LAB_NAME)
        if depth >= SEARCH_DEPTH or Path(folder).name == LAB_NAME:
            children.clear()
    return found
