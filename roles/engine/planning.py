"""The planning interface of an engine: its memory, and how it can be split over GPUs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from roles.engine.calibration import Calibration
from roles.engine.params import Argument, Changes, EngineParams, GpuMemory, Speculation
from roles.engine.refusal import Instead as Instead
from roles.engine.refusal import Refusal as Refusal
from roles.hardware import Gpu
from roles.models import Adapter, Model
from roles.plan import MemorySum, Shape, Task


class Planning(Protocol):
    """The planning interface of an engine. It is pure; memory sums are `MemorySum`s."""

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
        """The formats of weights (`Model.format`) for which this engine is preferred."""
        ...

    @property
    def mixed_cards(self) -> bool:
        """Whether one replica can use cards of different kinds."""
        ...

    @property
    def fills_memory(self) -> bool:
        """Whether the KV cache takes all remaining memory; otherwise it takes what the requests
        need."""
        ...

    @property
    def has_recipes(self) -> bool:
        """Whether the recipes of `roles.models` are for this engine."""
        ...

    @property
    def spans_hosts(self) -> bool:
        """Whether a plan may put one replica on several hosts."""
        ...

    @property
    def spans_with_ray(self) -> bool:
        """Whether Ray may join these hosts."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """The constants of its throughput estimate; None without measurements: plans then only
        consider what fits."""
        ...

    @property
    def min_capability_of_any_build(self) -> float:
        """The least compute capability of any of the engine's builds."""
        ...

    @property
    def memory_parts(self) -> tuple[tuple[str, str], ...]:
        """The parts of this engine's memory sum: (attribute, name for people)."""
        ...

    @property
    def change_names(self) -> Mapping[str, str]:
        """The engine's names of the fields of `Changes`, where they differ."""
        ...

    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of the limiting GPU; ValueError for an invalid argument."""
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
        """The shape, changed if only that makes it valid, and the problems with it."""
        ...

    def placed(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> Shape:
        """The shape with what depends on the GPUs themselves: the distribution of layers."""
        ...

    def batch(self, gpu: GpuMemory, params: EngineParams, length: int) -> tuple[int, int]:
        """Tokens per step, and concurrent requests."""
        ...

    def utilization(
        self, model: Model, gpu: GpuMemory, shape: Shape, params: EngineParams
    ) -> float | None:
        """The share of a GPU's memory that the engine is given where nobody sets one; None: the
        default of the service's setting."""
        ...

    def tighter(self, params: EngineParams) -> tuple[Changes, ...]:
        """Changes that need less memory, the cheapest first; each keeps those before it. What the
        service sets stays."""
        ...

    def unsupported(
        self,
        model: Model,
        params: EngineParams,
        dtype: str | None,
        gpu: Gpu,
        least: float | None = None,
    ) -> Refusal | None:
        """Why the engine would not start on a card, regardless of its memory, and the remedy.

        `least` is the minimum compute capability of its build; None is the newest build's.
        """
        ...

    def planned_dtype(self, model: Model, dtype: str | None, gpu: Gpu) -> str | None:
        """The dtype if the card determines it, else None."""
        ...

    def doubts(self, model: Model) -> tuple[str, ...]:
        """Warnings about what is uncertain in a model's memory with this engine."""
        ...

    def kernel_problem(self, model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
        """What a card has no kernels for, and the nearest form that it runs; None if all runs."""
        ...

    def files_of(self, model: Model) -> str:
        """The weight files that the engine loads of a model, in words."""
        ...

    def lower_utilization(self, gpu: GpuMemory, params: EngineParams) -> float | None:
        """The fraction of the memory that is free at start, if that is less than the engine
        takes."""
        ...

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """A type of the KV cache that is smaller at little loss (`kv_cache_dtype` of a service),
        and the parameters with it."""
        ...

    def weights_problem(self, weights: str | None) -> str | None:
        """The problem with the source of a service's weights, and the remedy; None if there is
        none."""
        ...

    def check_arguments(self, arguments: Mapping[str, Argument], model: Model) -> None:
        """ValueError for an invalid option, one that another setting decides, or one that the
        model's files contradict."""
        ...

    def knows(self, option: str) -> bool:
        """Whether a version whose options were read has one of this name."""
        ...

    def kv_cache_arguments(self, dtype: str) -> Mapping[str, Argument]:
        """The options by which the KV cache has a type; ValueError for one that the engine does not
        have."""
        ...

    def task_arguments(
        self, task: Task, model: Model, length: int, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """The options for a task with requests of so many tokens, beside those that a service sets;
        ValueError for one that the engine does not do with the model."""
        ...

    def check_adapters(
        self, adapters: Sequence[Adapter], arguments: Mapping[str, Argument]
    ) -> None:
        """ValueError for LoRA adapters that the engine does not serve, or options that contradict
        them."""
        ...

    def speculative_arguments(
        self, speculation: Speculation, model: Model, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """The options for speculative decoding; ValueError for a method that the engine does not
        have, a draft that does not fit the model, or options that contradict it."""
        ...

    def with_arguments(
        self, params: EngineParams, arguments: Mapping[str, Argument]
    ) -> EngineParams:
        """The parameters, with the arguments that affect memory."""
        ...
