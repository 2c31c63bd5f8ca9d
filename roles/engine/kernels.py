"""The cards on which something of an engine runs, by compute capability and AMD's gfx names."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from roles.engine.needs import Version
from roles.engine.params import GpuMemory, gpu_memory
from roles.engine.refusal import Instead, Refusal
from roles.hardware import Gpu
from roles.models import Model, forms

# What to use in place of a format, the nearest first: by bits a weight.
_FOUR_BITS = (("awq", "AWQ or GPTQ"), ("nvfp4", "NVFP4"), ("fp8", "FP8"), ("int8", "INT8"))
_EIGHT_BITS = (("fp8", "FP8"), ("int8", "INT8"), ("awq", "AWQ or GPTQ"))
_SMALL = ("awq", "gptq", "int4", "mxfp4", "nvfp4", "nf4", "gguf")
EVERY_AMD = ("gfx90a", "gfx942", "gfx950", "gfx11", "gfx12")


@dataclass(frozen=True)
class Row:
    """The cards on which something runs.

    `least` is the minimum compute capability of NVIDIA's cards, `below` the first that is too new.
    `amd` are beginnings of AMD's gfx names, empty where none runs it. `since` is the first version
    of the engine for which this row holds.
    """

    subject: str
    name: str
    least: float
    below: float = math.inf
    amd: tuple[str, ...] = EVERY_AMD
    since: Version = (0, 0)
    source: str = ""

    def runs_on(self, gpu: GpuMemory) -> bool:
        """Whether a card runs it; an unknown card does."""
        if gpu.gfx is not None:
            return gpu.gfx.startswith(self.amd)
        if gpu.compute_capability is None:
            return True
        return self.least <= gpu.compute_capability < self.below

    def problem(self, gpu: GpuMemory, engine: str) -> str:
        """What a card lacks that does not run it, and which have it, in words."""
        has = f"compute capability {gpu.compute_capability}" if gpu.gfx is None else gpu.gfx
        return (
            f"{self.name}: no kernels for {gpu.name} ({has}), {engine} has them for "
            f"{self.cards(gpu)}"
        )

    def cards(self, gpu: GpuMemory) -> str:
        """The cards of the same vendor that run it, in words."""
        if gpu.gfx is not None:
            return f"AMD's {', '.join(self.amd)}" if self.amd else "no AMD GPU"
        if self.least == math.inf:
            return "no NVIDIA GPU"
        until = "" if self.below == math.inf else f" and below {self.below:.1f}"
        return f"compute capability {self.least:.1f} or more{until}"


def too_old(gpu: Gpu, least: float, engine: str, instead: str) -> Refusal | None:
    """That a card is older than an engine's build runs on; None if it is not, or is unknown."""
    capability = gpu_memory(gpu).compute_capability
    if capability is None or capability >= least:
        return None
    has = f"{gpu.name} has compute capability {capability:.1f}"
    return Refusal(f"{has}, {engine} needs {least}", Instead(instead))


def subject_of(format_name: str) -> str:
    """The subject of a format of weights in a table of kernels."""
    families = (name for name in ("fp8", "gptq", "gguf") if format_name.startswith(name))
    return next(families, format_name)


def nearest_form(
    model: Model, subject: str, runs: Callable[[str], bool], loads: Callable[[Model], bool]
) -> Instead:
    """What to do about a format that a card does not run: the nearest form that it runs.

    `runs` is whether it runs a subject, `loads` whether it runs all of a model.
    """
    formats = _FOUR_BITS if subject in _SMALL else _EIGHT_BITS
    able = [name for form, name in formats if form != subject and runs(form)]
    whole = model.variant_of or model.id
    known = [one.id for one in forms(whole) if loads(one)]
    form = f"in {able[0]} or unquantised" if able else "unquantised"
    words = f"use a form of {whole or 'the model'} {form}"
    if not known:
        return Instead(words)
    return Instead(f"{words}, such as {known[0]}", (("model", known[0]),), comment=words)


def cache_instead(dtype: str) -> Instead:
    """To set the type of the KV cache."""
    return Instead(f'set {{"kv_cache_dtype": "{dtype}"}}', (("kv_cache_dtype", dtype),))
