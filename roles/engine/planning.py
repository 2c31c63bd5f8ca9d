"""What a planner asks an engine: what it takes of memory, and how it may be split over GPUs."""

from collections.abc import Mapping
from typing import Protocol

from roles.engine.calibration import Calibration
from roles.engine.params import Argument, EngineParams, GpuMemory
from roles.hardware import Gpu
from roles.models import Model
from roles.plan import MemorySum, Shape


class Planning(Protocol):
    """The pure half of an engine, for plans. Sizes of sums are those of `MemorySum`."""

    @property
    def kind(self) -> str:
        """The engine's key in inventories and in `ENGINES`."""
        ...

    @property
    def name(self) -> str:
        """The engine's name for people."""
        ...

    @property
    def preferred_formats(self) -> tuple[str, ...]:
        """The formats of weights (`Model.format`) that the engine is the first choice for."""
        ...

    @property
    def mixed_cards(self) -> bool:
        """Whether one replica may lie on cards of different kinds."""
        ...

    @property
    def fills_memory(self) -> bool:
        """Whether KV cache takes what is left of the memory; else what the requests asked for."""
        ...

    @property
    def spans_hosts(self) -> bool:
        """Whether a plan may put one replica on several hosts."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """The constants of its throughput estimate; None where nobody measured it, so that plans
        go by what fits."""
        ...

    @property
    def min_capability_of_any_build(self) -> float:
        """The least compute capability of any of the engine's builds."""
        ...

    @property
    def memory_parts(self) -> tuple[tuple[str, str], ...]:
        """The parts of a memory sum that the engine has, by attribute: what they are called."""
        ...

    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of the GPU that binds; ValueError for an argument that is not possible."""
        ...

    def memories(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> tuple[MemorySum, ...]:
        """The memory of each of a replica's GPUs."""
        ...

    def shapes(self, gpus: int) -> tuple[Shape, ...]:
        """Every way to split one replica over at most so many equal GPUs, the better ones first."""
        ...

    def check_shape(self, model: Model, shape: Shape) -> tuple[Shape, tuple[str, ...]]:
        """The shape, amended where only that makes it possible; and why it is not."""
        ...

    def placed(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> Shape:
        """The shape with what depends on the very GPUs: how layers are shared out."""
        ...

    def batch(self, gpu: GpuMemory, params: EngineParams, length: int) -> tuple[int, int]:
        """Tokens a step and requests at once."""
        ...

    def fewer_requests(self, params: EngineParams) -> EngineParams | None:
        """The same with fewer requests at once, where that may be all that is lacking."""
        ...

    def unsupported(
        self,
        model: Model,
        params: EngineParams,
        dtype: str | None,
        gpu: Gpu,
        least: float | None = None,
    ) -> str | None:
        """Why the engine would not start on a card whatever its memory, and what to do.

        `least` is the compute capability that its build needs, the newest build's unless said.
        """
        ...

    def planned_dtype(self, model: Model, dtype: str | None, gpu: Gpu) -> str | None:
        """What to compute in where the card decides it, else None."""
        ...

    def doubts(self, model: Model) -> tuple[str, ...]:
        """What is not sure about a model's memory in this engine, in words."""
        ...

    def runs_on(self, model: Model, gpu: GpuMemory) -> bool:
        """Whether a card has the kernels for a quantised model."""
        ...

    def lower_utilization(self, gpu: GpuMemory, params: EngineParams) -> float | None:
        """The share of the memory that is free at start, where less is than the engine takes."""
        ...

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """What makes the KV cache smaller at little loss, in words and done."""
        ...

    def weights_problem(self, weights: str | None) -> str | None:
        """What is wrong with where a service's weights are said to be, and what to do."""
        ...

    def check_arguments(self, arguments: Mapping[str, Argument]) -> None:
        """ValueError for an option that is none, or that another setting decides."""
        ...

    def with_arguments(
        self, params: EngineParams, arguments: Mapping[str, Argument]
    ) -> EngineParams:
        """What a service asks, with what its arguments say of memory."""
        ...
