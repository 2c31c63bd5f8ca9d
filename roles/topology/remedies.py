"""What would make a model fit, the least change first."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from roles.engine.vllm.engine_versions import rules
from roles.engine.vllm.memory import CONTEXT_GIB, Asked, GpuMemory, batch, memory_sum
from roles.hardware import usable_memory_mib
from roles.models import Model
from roles.plan import MemorySum, Shape
from roles.topology.shapes import possible

# Requests shorter than this are no answer for anybody.
LEAST_LENGTH = 256
# Sizes of GPU that a reader can buy or rent, in GiB, and how many of them a host has.
SIZES_GIB = (24, 32, 48, 80, 141, 180)
COUNTS = (1, 2, 4, 8, 16)
# FP8 in hardware (Ada, Hopper and newer); below, Marlin kernels read FP8 and FP4 weights.
FP8_CACHE_CAPABILITY = 8.9
MARLIN_CAPABILITY = 8.0


@dataclass(frozen=True)
class Case:
    """What is to fit: a model on GPUs of one kind in a shape, as asked."""

    model: Model
    gpu: GpuMemory
    shape: Shape
    asked: Asked

    def memory(self) -> MemorySum:
        """Its memory sum."""
        return memory_sum(self.model, self.gpu, self.shape, self.asked)

    @property
    def fits(self) -> bool:
        """Whether it starts and holds the requests asked for."""
        return self.memory().fits


def remedies(case: Case, variants: Iterable[Model] = ()) -> tuple[str, ...]:
    """What each makes the case fit by itself, in words; empty where nothing does.

    `variants` are quantised forms of the model.
    """
    case = replace(case, asked=replace(case.asked, measured_kv_gib=None))
    return (
        *_utilization(case),
        *_length(case),
        *_sequences(case),
        *_cache_dtype(case),
        *_variants(case, variants),
        *_more_gpus(case),
        *_other_gpus(case),
    )


def _with(case: Case, **asked: object) -> Case:
    return replace(case, asked=replace(case.asked, **asked))


def _utilization(case: Case) -> Iterator[str]:
    """Less of the memory, where not all of it is free at start."""
    asked, usable = case.asked, case.gpu.usable_mib / 1024
    free = (usable - asked.other_used_gib - CONTEXT_GIB) / usable
    percent = math.floor(free * 100)
    told = asked.utilization or rules(asked.version).utilization
    if 0 < percent < told * 100 and _with(case, utilization=percent / 100).fits:
        yield f"gpu_memory_utilization {percent / 100}"


def _length(case: Case) -> Iterator[str]:
    asked = case.asked.max_model_len or case.model.context_limit_tokens
    low, high = LEAST_LENGTH // 16 - 1, min(asked - 1, case.model.context_limit_tokens) // 16
    if high <= low or not _with(case, max_model_len=LEAST_LENGTH).fits:
        return
    while low < high:
        middle = (low + high + 1) // 2
        if _with(case, max_model_len=middle * 16).fits:
            low = middle
        else:
            high = middle - 1
    if low * 16 >= LEAST_LENGTH:
        yield f"max_model_len {low * 16}"


def _sequences(case: Case) -> Iterator[str]:
    length = case.asked.max_model_len or case.model.context_limit_tokens
    requests = batch(case.gpu, case.asked, length)[1]
    while requests > 1:
        requests //= 2
        if _with(case, max_num_seqs=requests).fits:
            yield f"max_num_seqs {requests}"
            return


def _cache_dtype(case: Case) -> Iterator[str]:
    capable = (case.gpu.compute_capability or 0) >= FP8_CACHE_CAPABILITY
    if capable and case.asked.kv_cache_dtype == "auto" and _with(case, kv_cache_dtype="fp8").fits:
        yield "kv_cache_dtype fp8"


def _variants(case: Case, variants: Iterable[Model]) -> Iterator[str]:
    fitting = [v for v in variants if _runs(v, case.gpu) and replace(case, model=v).fits]
    if fitting:
        # The one that keeps most of the model.
        best = max(fitting, key=lambda variant: (variant.weights_bytes or 0, variant.id))
        yield f"the quantised model {best.id}"


def _runs(model: Model, gpu: GpuMemory) -> bool:
    method = model.quantization.method if model.quantization else ""
    if method.startswith(("awq", "gptq", "auto")) or gpu.compute_capability is None:
        return True
    return gpu.compute_capability >= MARLIN_CAPABILITY


def _more_gpus(case: Case) -> Iterator[str]:
    for count in COUNTS:
        shape = _fitting(case, count) if count > case.shape.gpus else None
        if shape:
            yield f"{shape.gpus} GPUs like this ({shape})"
            return


def _fitting(case: Case, count: int) -> Shape | None:
    """The shape over so many GPUs that fits; None if none does. Pipelines where heads do not
    divide."""
    for stages in (1, 2, 4, 8):
        if count % stages:
            break
        shape, objections = possible(case.model, Shape(count // stages, stages))
        if not objections:
            return shape if replace(case, shape=shape).fits else None
    return None


def _other_gpus(case: Case) -> Iterator[str]:
    """The least number of GPUs of each size; a size that needs as many as a smaller is left out."""
    found: dict[int, int] = {}
    for size in SIZES_GIB:
        usable = usable_memory_mib(size * 1024)
        gpu = replace(case.gpu, name=f"{size} GiB", total_mib=size * 1024, usable_mib=usable)
        other = replace(case, gpu=gpu)
        count = next((count for count in COUNTS if _fitting(other, count)), None)
        if count and count not in found.values():
            found[size] = count
    if found:
        yield "GPUs: " + ", ".join(f"{count} of {size} GiB" for size, count in found.items())
