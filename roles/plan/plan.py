"""The plan: which replicas run on which GPUs, with the figures and reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from roles.hardware import Gpu
from roles.plan.estimate import Estimate, Load


@dataclass(frozen=True)
class Shape:
    """How one replica is split over GPUs: TP × PP, and whether expert parallel is used.

    With `tensor_split` each card, of any kind, has whole layers: the numbers are the cards' parts
    in the order of the GPUs, as the engine takes them.
    """

    tensor_parallel: int
    pipeline_parallel: int = 1
    expert_parallel: bool = False
    tensor_split: tuple[float, ...] = ()

    @property
    def gpus(self) -> int:
        """The number of GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def with_experts(self) -> "Shape":
        """The same shape with expert parallel."""
        return replace(self, expert_parallel=True)

    def __str__(self) -> str:
        if self.tensor_split:
            return f"layers over {self.gpus} GPUs"
        parts = []
        if self.tensor_parallel > 1:
            parts.append(f"TP{self.tensor_parallel}")
        if self.pipeline_parallel > 1:
            parts.append(f"PP{self.pipeline_parallel}")
        name = "×".join(parts) or "one GPU"
        return f"{name} with expert parallel" if self.expert_parallel else name


@dataclass(frozen=True)
class MemorySum:
    """The use of one GPU's memory under a shape, in GiB.

    The parts up to `kv_cache_gib` add up to the total. With pipeline parallel it is a GPU of the
    limiting stage. `headroom_gib` is what the engine must leave free (1 - utilization),
    `workspace_gib` is not allocated by torch. `kv_cache_gib` is predicted and may be below 0;
    `promised_kv_gib` is a lower bound. `kv_tokens` and `max_concurrency` are what the engine will
    print; `promised_concurrency` follows from the lower bound. `starts`: whether the engine would
    start; `reason`: why not.
    """

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
    promised_kv_gib: float = 0.0
    max_concurrency: float = 0.0
    promised_concurrency: float = 0.0
    starts: bool = True
    reason: str = ""

    @property
    def promised_kv_tokens(self) -> float:
        """The lower bound of `kv_tokens`."""
        if not self.max_concurrency or self.max_concurrency == float("inf"):
            return self.kv_tokens
        return self.kv_tokens * self.promised_concurrency / self.max_concurrency

    @property
    def fits(self) -> bool:
        """Whether the engine starts and its KV cache holds the requests that the service needs."""
        return self.starts and self.kv_cache_gib >= self.kv_needed_gib


# What joins the hosts of a replica over several hosts.
Executor = Literal["engine", "ray"]


@dataclass(frozen=True)
class Replica:
    """One engine process group: one service, one port, some GPUs of one host or of several.

    `host` and `gpus` are those of its head, which answers requests; `members` are all its hosts in
    the order of their ranks, the head first, with the GPUs of each, empty for a replica of one
    host. It has a unit on each host. `executor` joins its hosts: the engine's own multi-node mode,
    or Ray. `number` counts the host's replicas from 0. `max_num_seqs` and `max_num_batched_tokens`
    limit the requests and tokens of one step, and `enforce_eager` does without CUDA graphs, if the
    engine's default would leave no memory. `dtype` is "half" if the card has no bfloat16, else
    None. `weight` is its share of requests relative to other replicas. `expected` is
    its estimate, None without a stated load. `engine` is the kind of its engine.
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
    engine: str
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    dtype: str | None = None
    weight: int = 1
    expected: Estimate | None = None
    p2p: bool = True
    members: tuple[tuple[str, tuple[int, ...]], ...] = ()
    executor: Executor = "engine"

    @property
    def id(self) -> str:
        """The name of a replica within the fleet: "host/name"."""
        return f"{self.host}/{self.name}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that it runs on, in the order of their ranks."""
        return tuple(host for host, _ in self.members) or (self.host,)

    def part_on(self, host: str) -> "Replica":
        """The replica with the GPUs that it has on one of its hosts."""
        return replace(self, gpus=dict(self.members).get(host, self.gpus))


@dataclass(frozen=True)
class HostPlan:
    """The replicas of one host, with reasons; without replicas it cannot serve the model.

    A replica over several hosts is among the `replicas` of its head, and among the `parts` of each
    other host, with the GPUs that it has there.
    `rejected` are the other shapes, each with the reason. `problems` say why a kind of card, or the
    whole host, serves nothing; `remedies` are changes that would make the model fit. `links` says
    how the GPUs are linked, in words.
    """

    host: str
    gpus: tuple[Gpu, ...]
    replicas: tuple[Replica, ...]
    spare_gpus: tuple[int, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    links: str = ""
    parts: tuple[Replica, ...] = ()

    @property
    def placed(self) -> tuple[Replica, ...]:
        """Everything that has a unit on the host: its replicas, and its parts of others."""
        return self.replicas + self.parts


def with_p2p_of(old: HostPlan, new: HostPlan) -> HostPlan | None:
    """The old plan with the P2P settings of the new one; None if more than that differs.

    Weights and estimates stay the old plan's: a replica's files do not contain them.
    """

    def rest(replica: Replica) -> Replica:
        return replace(replica, p2p=True, weight=1, expected=None)

    def adopted(before: tuple[Replica, ...], now: tuple[Replica, ...]) -> tuple[Replica, ...]:
        return tuple(replace(a, p2p=b.p2p) for a, b in zip(before, now, strict=True))

    if list(map(rest, old.replicas)) != list(map(rest, new.replicas)):
        return None
    if list(map(rest, old.parts)) != list(map(rest, new.parts)):
        return None
    return replace(
        old,
        replicas=adopted(old.replicas, new.replicas),
        parts=adopted(old.parts, new.parts),
    )


@dataclass(frozen=True)
class Cluster:
    """Hosts that run one replica together; `memory` is of a GPU of the stage that binds.

    With more than one data-parallel rank it is wide expert parallel. `network` says how the speed
    of the hosts' network decided that; "" where it decides nothing.
    """

    hosts: tuple[str, ...]
    shape: Shape
    memory: MemorySum
    data_parallel_size: int = 1
    network: str = ""


@dataclass(frozen=True)
class Plan:
    """The fleet's plan for one service, hosts in the inventory's order.

    `load` is what was asked, None if nothing was; `settings` are those of the service that the plan
    follows from, in words.
    `clusters` are the hosts that could hold the model together where none does alone, and
    `cluster_problems` what speaks against those that could not.
    """

    service: str
    model: str
    hosts: tuple[HostPlan, ...]
    clusters: tuple[Cluster, ...] = ()
    cluster_problems: tuple[str, ...] = ()
    load: Load | None = None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All replicas of all hosts, in order."""
        return tuple(replica for host in self.hosts for replica in host.replicas)

    def on(self, host: str) -> HostPlan | None:
        """The plan of one host; None if the host runs no engines."""
        return self._by_host.get(host)

    @cached_property
    def _by_host(self) -> Mapping[str, HostPlan]:
        return {plan.host: plan for plan in self.hosts}
