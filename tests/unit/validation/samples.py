"""A host that is as planned, from which each test departs in one thing."""

from roles.validation.observations import (
    Completion,
    GpuProcess,
    GpuUse,
    HostObservations,
    LoadResult,
    PlannedReplica,
    UnitStatus,
)

UNIT = "llm@chat-0.service"
REPLICA = PlannedReplica("chat-0", UNIT, "http://127.0.0.1:8001", "chat", (0, 1), 2, key="k")
CGROUP_V2 = f"0::/system.slice/system-llm.slice/{UNIT}\n"
CGROUP_V1 = f"9:name=systemd:/lab/gpu1/system.slice/{UNIT}/worker\n4:memory:/\n0::/\n"
ANSWER = Completion(
    ok=True, status=200, seconds=0.2, tokens=1, model="chat", fingerprint="vllm-0.32.0-tp2-1a2b"
)
STREAM = Completion(ok=True, status=200, chunks=9)
RUNNING = UnitStatus("active", 4200, 0)


def process(pid: str = "4242", cgroup: str | None = CGROUP_V2, memory: int | None = 20000):
    return GpuProcess(pid, "VLLM::Worker", memory, cgroup)


def gpu(*processes: GpuProcess, memory: int | None = 21000, used: tuple[int, ...] = (90, 95, 99)):
    return GpuUse(memory, processes or (process(),), used)


def seen(**changes: object) -> HostObservations:
    values: dict[str, object] = {
        "completions": {"chat-0": ANSWER},
        "streams": {"chat-0": STREAM},
        "loads": {"chat-0": LoadResult(40, 0, 2560, 10.0)},
        "before": {UNIT: RUNNING},
        "after": {UNIT: RUNNING},
        "gpus": {0: gpu(), 1: gpu(process("4243", CGROUP_V1))},
    }
    return HostObservations(**(values | changes))  # type: ignore[arg-type]
