"""What SGLang runs on which card: formats of weights, KV dtypes and kinds of attention.

Sources: SGLang 0.5.23's code (the `get_min_capability` of its quantisation methods, its registry
`layers/quantization/__init__.py`, `arg_groups/`), and the wheel of sglang-kernel 0.4.10, which has
code for compute capability 8.0, 8.9, 9.0, 10.x and 12.0.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from roles.engine.kernels import Row, cache_instead, nearest_form, subject_of
from roles.engine.params import EngineParams, GpuMemory
from roles.engine.refusal import Instead, Refusal
from roles.models import Model

# The wheel's least; the only one that there is.
ENGINE_CAPABILITY = 8.0
_AMD = ("gfx942", "gfx950")
# The subject of each `--quantization`, by the beginning of its name.
_METHODS = {
    "awq": "awq",
    "gptq": "gptq",
    "fp8": "fp8",
    "w8a8_fp8": "fp8",
    "modelopt_fp8": "fp8",
    "modelopt_fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "petit_nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "mxfp8": "mxfp8",
    "w8a8_int8": "int8",
    "auto-round-int8": "int8",
    "bitsandbytes": "nf4",
}

ROWS = (
    Row("card", "SGLang", 8.0, amd=_AMD, source="sglang-kernel's wheel; docs: platforms/amd_gpu"),
    Row("fp8", "FP8 weights", 8.0, amd=_AMD, source="fp8.py; 8.0 by Marlin"),
    Row("mxfp8", "MXFP8 weights", 10.0, amd=("gfx950",), source="fp8.py"),
    Row(
        *("int8", "INT8 weights and activations (W8A8)", 8.0, 10.0),
        amd=(),
        source="compressed_tensors_w8a8_int8.py; sgl-kernel's int8_scaled_mm",
    ),
    Row("int8-weights", "INT8 weights", 8.0, amd=(), source="compressed_tensors_wNa16.py: Marlin"),
    Row("experts-int8", "experts-int8", math.inf, amd=(), source="the registry lacks it"),
    Row("awq", "AWQ weights", 8.0, amd=_AMD, source="awq/awq.py: Marlin; AMD: Triton"),
    Row("gptq", "GPTQ weights", 8.0, amd=(), source="gptq/gptq.py: Marlin alone"),
    Row("int4", "INT4 weights (W4A16)", 8.0, amd=(), source="compressed_tensors_wNa16.py"),
    Row("mxfp4", "MXFP4 weights", 8.0, amd=("gfx950",), source="mxfp4.py; the registry"),
    Row("nvfp4", "NVFP4 weights", 8.0, amd=(), source="modelopt_quant.py: Marlin below 10.0"),
    Row("nf4", "bitsandbytes weights", math.inf, amd=(), source="its package is no dependency"),
    Row("gguf", "GGUF weights", math.inf, amd=(), source="left to the engine that is made for it"),
    Row("kv fp8 mla", "an FP8 KV cache of latents", 8.9, amd=_AMD, source="Triton on 8.x"),
    Row("kv fp8_e5m2 sparse", "an fp8_e5m2 KV cache", math.inf, amd=(), source="overrides.py"),
    Row("sparse mla", "sparse latent attention", 9.0, amd=_AMD, source="overrides.py: FlashMLA"),
)


def runs(subject: str, gpu: GpuMemory) -> bool:
    """Whether a card runs a subject; what the table does not have does."""
    return all(one.runs_on(gpu) for one in ROWS if one.subject == subject)


def kernel_problem(model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
    """What a card has no kernels for, and the nearest form that runs; None if all runs."""
    lacking = _lacking(model, params, gpu)
    if lacking is None:
        return None
    instead = _instead(model, params, lacking.subject, gpu)
    return Refusal(lacking.problem(gpu, "SGLang"), instead)


def _lacking(model: Model, params: EngineParams, gpu: GpuMemory) -> Row | None:
    needed = tuple(_subjects(model, params))
    return next((one for one in ROWS if one.subject in needed and not one.runs_on(gpu)), None)


def _subjects(model: Model, params: EngineParams) -> Iterator[str]:
    """The subjects of the card, the weights, the KV cache and attention."""
    yield "card"
    yield from map(subject_of, model.weight_formats)
    named = [key for key in _METHODS if (params.quantization or "").startswith(key)]
    yield from (_METHODS[max(named, key=len)],) if named else ()
    fp8 = params.kv_cache_dtype.startswith("fp8")
    if model.is_mla and fp8:
        yield "kv fp8 mla"
    if model.is_sparse and params.kv_cache_dtype == "fp8_e5m2":
        yield "kv fp8_e5m2 sparse"
    if model.is_mla and model.is_sparse:
        yield "sparse mla"


def _instead(model: Model, params: EngineParams, subject: str, gpu: GpuMemory) -> Instead:
    """The nearest that runs on a card."""
    if subject in ("card", "sparse mla"):
        return Instead("use another GPU")
    if subject.startswith("kv "):
        return cache_instead("bfloat16")
    if subject == "gguf":
        return Instead("leave it to llama_cpp, or use the files that it was made from")
    plain = replace(params, quantization=None)
    return nearest_form(
        model, subject, lambda form: runs(form, gpu), lambda one: not _lacking(one, plain, gpu)
    )
