#!/usr/bin/python3
"""What the simulated driver knows: which processes hold which GPU, how much, and how busy.

Runs as root on a GPU host and answers nvidia-smi and amd-smi over a socket that everybody may use,
as everybody may use the real device files. It knows nothing but /proc:

- An engine is a process that calls itself `VLLM::EngineCore…`; its children `VLLM::Worker…` are its
  ranks. Where there are ranks, rank i holds the i-th GPU of CUDA_VISIBLE_DEVICES (indices or
  UUIDs); an engine of a single rank holds the first one itself, as on a real GPU, even though the
  CPU build gives it a worker. On a host of AMD it is HIP_VISIBLE_DEVICES. The variable is read
  from the nearest ancestor whose environment has it: engines and workers overwrite their own with
  their title. Without it all GPUs are visible.
- Memory is a real engine's, scaled to the card: a CUDA context while the engine starts, and the
  share `--gpu-memory-utilization` (vLLM's default otherwise) once its server listens, which vLLM's
  does only after weights and KV cache are in place.
- A process that calls itself `sglang::scheduler…` is an engine of one rank: the i-th of a server
  holds the i-th GPU that is visible to it, with the share `--mem-fraction-static`.
- A `llama-server` is an engine, too: one process that holds all GPUs that are visible to it, each
  with a CUDA context and what it really has in memory. With `--rpc` the i-th `ggml-rpc-server` that
  it names stands for the i-th of them: its memory and its work are the GPU's.
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
VISIBLE = (b"HIP_VISIBLE_DEVICES", b"ROCR_VISIBLE_DEVICES", b"CUDA_VISIBLE_DEVICES")
"""What limits a process to some GPUs; the first that is set counts, as in HIP."""
LISTENING = "0A"
"""The state of such a socket in /proc/net/tcp."""


@dataclass
class Process:
    """A process as /proc shows it; `visible` is its variable of `VISIBLE`, if it has one."""

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
        pid = int(folder.name)
        found[pid] = Process(pid, parent, title.strip(), limited_to(environment))
    return found


def limited_to(environment: list[bytes]) -> str | None:
    """The GPUs that a process was given, by its environment."""
    values = dict(line.split(b"=", 1) for line in environment if b"=" in line)
    return next((values[name].decode() for name in VISIBLE if name in values), None)


def root_of(process: Process, known: dict[int, Process]) -> Process:
    """The nearest ancestor that was given GPUs; without one, the process's parent."""
    at = process
    while at.visible is None and at.parent in known and at.parent != 1:
        at = known[at.parent]
    return at if at.visible is not None else known.get(process.parent, process)


def visible_gpus(setting: str | None, uuids: list[str]) -> list[int]:
    """The GPUs that such a variable names; as in CUDA and HIP, an unknown one ends the list."""
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
    taken: dict[int, int] = {}
    found = []
    for _, engine in sorted(known.items()):
        if is_program(engine, "llama-server"):
            visible = visible_gpus(root_of(engine, known).visible, uuids)
            found += llama_holders(engine, visible, known)
        if not engine.title.startswith(("VLLM::EngineCore", "sglang::scheduler")):
            continue
        root = root_of(engine, known)
        visible = visible_gpus(root.visible, uuids)
        share = memory_share(root) if listens(root.pid) else None
        for process, measured in ranks(engine, known):
            rank = taken.setdefault(root.pid, 0)
            taken[root.pid] += 1
            if rank < len(visible):
                gpu = visible[rank]
                mib = CONTEXT_MIB if share is None else round(memory_mib(profile, gpu) * share)
                found.append(Holder(process.pid, process.title, gpu, mib, measured))
    return found


def memory_mib(profile: dict, gpu: int) -> int:
    """All memory of a GPU."""
    fields = profile["fields"] | profile["gpus"][gpu].get("fields", {})
    return int(fields["memory.total [MiB]"].split()[0])


def is_program(process: Process, name: str) -> bool:
    """True if the process was started from a program of this name."""
    return Path(process.title.partition(" ")[0]).name == name


def llama_holders(engine: Process, visible: list[int], known: dict[int, Process]) -> list[Holder]:
    """A llama-server as the holder of each visible GPU."""
    rpc = re.search(r" --rpc[= ](\S+)", engine.title)
    workers = [engine.pid] * len(visible)
    if rpc:
        workers = [rpc_server(address, known) for address in rpc[1].split(",")]
    name = engine.title.partition(" ")[0]
    return [
        Holder(engine.pid, name, gpu, CONTEXT_MIB + resident_mib(pid), [pid])
        for gpu, pid in zip(visible, workers, strict=False)
    ]


def rpc_server(address: str, known: dict[int, Process]) -> int:
    """The process that listens there for llama.cpp, by its arguments; 0 if there is none."""
    host, _, port = address.partition(":")
    for process in known.values():
        words = process.title.split()
        if is_program(process, "ggml-rpc-server") and {host, port} <= set(words):
            return process.pid
    return 0


def resident_mib(pid: int) -> int:
    """What the process has in memory, in MiB; 0 if it has just ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        size = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(size[1]) // 1024 if size else 0
    return 0


def memory_share(root: Process) -> float:
    """The share of a GPU's memory that this server was told to take."""
    text = root.title
    config = re.search(r"--config[= ](\S+)", text)
    if config:
        with contextlib.suppress(OSError):
            text += Path(f"/proc/{root.pid}/root{config[1]}").read_text()
    share = re.search(
        r"(?:gpu[-_]memory[-_]utilization|mem[-_]fraction[-_]static)[=: ]+([0-9.]+)", text
    )
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


def with_amd(profile: dict) -> dict:
    """The profile with AMD's cards among its GPUs, in what of it the driver knows."""
    cards = [
        {"uuid": card["uuid"], "fields": {"memory.total [MiB]": f"{card['memory_mib']} MiB"}}
        for card in profile.get("amd", [])
    ]
    if not cards:
        return profile
    return profile | {"gpus": cards, "fields": cards[0]["fields"]}


def answer(connection: socket.socket) -> None:
    """Answer one request: `processes`, or `all` for utilization too (which takes its time)."""
    with connection:
        wanted = connection.recv(64).decode().strip()
        profile = with_amd(json.loads((STATE / "profile.json").read_text()))
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
