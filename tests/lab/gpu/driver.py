#!/usr/bin/python3
"""What the simulated driver knows: which processes hold which GPU, how much, and how busy.

Runs as root on a GPU host and answers nvidia-smi over a socket that everybody may use, as everybody
may use the real device files. It knows nothing but /proc:

- An engine is a process that calls itself `VLLM::EngineCore…`; its children `VLLM::Worker…` are its
  ranks. Where there are ranks, rank i holds the i-th GPU of CUDA_VISIBLE_DEVICES (indices or
  UUIDs); an engine of a single rank holds the first one itself, as on a real GPU, even though the
  CPU build gives it a worker. The variable is read from the nearest ancestor whose environment has
  it: engines and workers overwrite their own with their title. Without it all GPUs are visible.
- Memory is a real engine's, scaled to the card: a CUDA context while the engine starts, and the
  share `--gpu-memory-utilization` (vLLM's default otherwise) once its server listens, which vLLM's
  does only after weights and KV cache are in place.
- Utilization is the share of SAMPLE_SECONDS in which the holder's busiest thread was running or
  runnable, so it does not depend on how many engines share the CPUs. (Sampling thread states
  instead showed up to 28 % for an idle engine, whose workers wake 1300 times a second.) A worker
  spins for a second after its last step, so the figure falls a second late.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

STATE = Path("/usr/lib/lab-gpu")
SAMPLE_SECONDS = 0.2
CONTEXT_MIB = 518
DEFAULT_SHARE = 0.92
LISTENING = "0A"
"""The state of such a socket in /proc/net/tcp."""


@dataclass
class Process:
    """A process as /proc shows it; `visible` is its CUDA_VISIBLE_DEVICES, if it has one."""

    pid: int
    parent: int
    title: str
    visible: str | None


@dataclass
class Holder:
    """A process that holds memory of a GPU; `measured` are the processes that do its work."""

    pid: int
    name: str
    gpu: int
    mib: int
    measured: list[int] = field(default_factory=list)


def processes() -> dict[int, Process]:
    """All processes of this host."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        values = [x[21:].decode() for x in environment if x.startswith(b"CUDA_VISIBLE_DEVICES=")]
        pid = int(folder.name)
        found[pid] = Process(pid, parent, title.strip(), values[0] if values else None)
    return found


def root_of(process: Process, known: dict[int, Process]) -> Process:
    """The nearest ancestor that was given GPUs; without one, the process's parent."""
    at = process
    while at.visible is None and at.parent in known and at.parent != 1:
        at = known[at.parent]
    return at if at.visible is not None else known.get(process.parent, process)


def visible_gpus(setting: str | None, uuids: list[str]) -> list[int]:
    """The GPUs that CUDA_VISIBLE_DEVICES names; as in CUDA, an unknown one ends the list."""
    if setting is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in setting.split(",")):
        match = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if entry.isdigit() and int(entry) < len(uuids):
            chosen.append(int(entry))
        elif len(match) == 1:
            chosen.append(match[0])
        else:
            break
    return chosen


def ranks(engine: Process, known: dict[int, Process]) -> list[tuple[Process, list[int]]]:
    """An engine's ranks in order: who holds the rank's GPU, and who does its work."""
    workers = [
        process
        for _, process in sorted(known.items())
        if process.parent == engine.pid and process.title.startswith("VLLM::Worker")
    ]
    if len(workers) < 2:
        return [(engine, [engine.pid, *(worker.pid for worker in workers)])]
    return [(worker, [worker.pid]) for worker in workers]


def holders(profile: dict) -> list[Holder]:
    """Every process that holds a GPU, in the order in which they started."""
    known = processes()
    uuids = [gpu["uuid"] for gpu in profile["gpus"]]
    total = int(profile["fields"]["memory.total [MiB]"].split()[0])
    taken: dict[int, int] = {}
    found = []
    for _, engine in sorted(known.items()):
        if not engine.title.startswith("VLLM::EngineCore"):
            continue
        root = root_of(engine, known)
        visible = visible_gpus(root.visible, uuids)
        mib = round(total * memory_share(root)) if listens(root.pid) else CONTEXT_MIB
        for process, measured in ranks(engine, known):
            rank = taken.setdefault(root.pid, 0)
            taken[root.pid] += 1
            if rank < len(visible):
                found.append(Holder(process.pid, process.title, visible[rank], mib, measured))
    return found


def memory_share(root: Process) -> float:
    """The share of a GPU's memory that this server was told to take."""
    text = root.title
    config = re.search(r"--config[= ](\S+)", text)
    if config:
        with contextlib.suppress(OSError):
            text += Path(f"/proc/{root.pid}/root{config[1]}").read_text()
    share = re.search(r"gpu[-_]memory[-_]utilization[=: ]+([0-9.]+)", text)
    return float(share[1]) if share else DEFAULT_SHARE


def listens(pid: int) -> bool:
    """True if the process has a TCP socket that accepts connections."""
    inodes = set()
    try:
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                parts = line.split()
                if parts[3] == LISTENING:
                    inodes.add(f"socket:[{parts[9]}]")
        return not inodes.isdisjoint(descriptors(pid))
    except OSError:
        return False


def descriptors(pid: int) -> set[str]:
    """What the process has open, but for what it closes meanwhile, as servers always do."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def run_times(pids: list[int]) -> dict[str, int]:
    """Per thread, the nanoseconds that it ran or waited for nothing but a CPU."""
    times = {}
    for pid in pids:
        # A process may end before its threads are listed, and a thread before it is read.
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                    running, waiting = text.split()[:2]
                    times[task] = int(running) + int(waiting)
    return times


def utilization(found: list[Holder], gpus: int) -> list[int]:
    """Per GPU, the percentage of the time that its busiest holder's busiest thread ran."""
    busy = [0] * gpus
    if not found:
        return busy
    start = time.monotonic_ns()
    before = [run_times(holder.measured) for holder in found]
    time.sleep(SAMPLE_SECONDS)
    for holder, first in zip(found, before, strict=True):
        last = run_times(holder.measured)
        most = max((last[task] - first[task] for task in last if task in first), default=0)
        share = round(100 * most / (time.monotonic_ns() - start))
        busy[holder.gpu] = min(100, max(busy[holder.gpu], share))
    return busy


def answer(connection: socket.socket) -> None:
    """Answer one request: `processes`, or `all` for utilization too (which takes its time)."""
    with connection:
        wanted = connection.recv(64).decode().strip()
        profile = json.loads((STATE / "profile.json").read_text())
        found = holders(profile)
        gpus = len(profile["gpus"])
        shares = utilization(found, gpus) if wanted == "all" else [0] * gpus
        listed = [{"pid": h.pid, "name": h.name, "gpu": h.gpu, "mib": h.mib} for h in found]
        connection.sendall(json.dumps({"processes": listed, "utilization": shares}).encode())


def main() -> None:
    """Serve the socket that systemd hands over."""
    server = socket.socket(fileno=3)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
