"""The planning that engines on equal cards share: any TP × PP, all GPUs of a replica alike."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from roles.engine.adapters import check_options
from roles.engine.params import Argument, EngineParams, GpuMemory
from roles.engine.shapes import check_shape, shapes
from roles.models import Adapter, Model
from roles.plan import MemorySum, Shape


class EqualCards(ABC):
    """What is the same of every engine that splits a model over equal cards."""

    mixed_cards: bool = False
    fills_memory: bool = True
    adapter_options: Sequence[str] = ()
    """The engine's options that say of adapters what `adapters` of a service says."""

    @abstractmethod
    def memory(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> MemorySum:
        """The memory of a GPU of the limiting pipeline stage: all GPUs are equal."""

    def memories(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> tuple[MemorySum, ...]:
        """The memory of the limiting stage, for each GPU."""
        return (self.memory(model, gpus, shape, params),) * len(gpus)

    def shapes(self, gpus: int) -> tuple[Shape, ...]:
        """Every TP × PP."""
        return shapes(gpus)

    def check_shape(self, model: Model, shape: Shape) -> tuple[Shape, tuple[str, ...]]:
        """The shape, with expert parallel if only that makes it valid, and its problems."""
        return check_shape(model, shape)

    def placed(
        self, model: Model, gpus: tuple[GpuMemory, ...], shape: Shape, params: EngineParams
    ) -> Shape:
        """The unchanged shape: the engine itself distributes layers."""
        return shape

    def files_of(self, model: Model) -> str:
        """The model's own files."""
        return f"the files of {model.name}"

    def check_adapters(
        self, adapters: Sequence[Adapter], arguments: Mapping[str, Argument]
    ) -> None:
        """ValueError for options that contradict adapters."""
        if adapters:
            check_options(arguments, self.adapter_options)
