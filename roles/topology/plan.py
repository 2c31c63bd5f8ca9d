"""The plan: which replicas run on which GPUs, with the numbers and the reasons for it."""

from dataclasses import dataclass

from roles.hardware import Gpu


@dataclass(frozen=True)
class Shape:
    """How one replica is split over GPUs: TP × PP."""

    tensor_parallel: int
    pipeline_parallel: int = 1

    @property
    def gpus(self) -> int:
        """Number of GPUs that one replica takes."""
        return self.tensor_parallel * self.pipeline_parallel

    def __str__(self) -> str:
        parts = []
        if self.tensor_parallel > 1:
            parts.append(f"TP{self.tensor_parallel}")
        if self.pipeline_parallel > 1:
            parts.append(f"PP{self.pipeline_parallel}")
        return "×".join(parts) or "one GPU"


@dataclass(frozen=True)
class MemorySum:
    """Where one GPU's memory goes under a shape, in GiB; `kv_cache_gib` is what is left."""

    total_gib: float
    driver_gib: float
    headroom_gib: float
    weights_gib: float
    sampler_gib: float
    activations_gib: float
    graphs_gib: float
    workspace_gib: float
    kv_cache_gib: float
    kv_needed_gib: float
    kv_tokens: int

    @property
    def fits(self) -> bool:
        """Whether the KV cache that is left holds what the service asks for."""
        return self.kv_cache_gib >= self.kv_needed_gib


@dataclass(frozen=True)
class Replica:
    """One engine process group: one unit, one port, some GPUs of one host.

    `number` counts the host's replicas from 0.
    """

    name: str
    number: int
    host: str
    service: str
    gpus: tuple[int, ...]
    shape: Shape
    port: int
    max_model_len: int
    gpu_memory_utilization: float
    memory: MemorySum


@dataclass(frozen=True)
class HostPlan:
    """What one host runs and why; no replicas means that it cannot serve the model."""

    host: str
    gpus: tuple[Gpu, ...]
    replicas: tuple[Replica, ...]
    spare_gpus: tuple[int, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The fleet's plan for one service, hosts in the inventory's order."""

    service: str
    model: str
    hosts: tuple[HostPlan, ...]

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All replicas of all hosts, in order."""
        return tuple(replica for host in self.hosts for replica in host.replicas)

    def on(self, host: str) -> HostPlan | None:
        """The plan of one host, or None where the host runs no engines."""
        return next((plan for plan in self.hosts if plan.host == host), None)
