"""Whether vLLM runs on a card at all, regardless of its memory."""

import json
from collections.abc import Iterator
from dataclasses import replace

from roles.engine.kernels import Row, cache_instead, nearest_form, subject_of
from roles.engine.params import Argument, EngineParams, GpuMemory, gpu_memory
from roles.engine.refusal import Instead, Refusal
from roles.engine.vllm.engine_versions import LATEST, parse_version
from roles.engine.vllm.kernels import row, runs
from roles.engine.vllm.memory import batch
from roles.hardware import Gpu
from roles.models import Model

# The wheel of vLLM 0.33 has code for 7.5 and newer, those for CUDA 12 for 7.0 and newer; bfloat16
# needs 8.0 (`platforms/cuda.py`).
ENGINE_CAPABILITY = 7.5
MIN_CAPABILITY_OF_ANY_BUILD = 7.0
OLDER_BUILD = "vLLM 0.32 as +cu129, or 0.19"
BFLOAT16_CAPABILITY = 8.0
# The subject of each `--quantization` in the table of kernels, by the beginning of its name.
_METHODS = {
    "awq": "awq",
    "auto_awq": "awq",
    "gptq": "gptq",
    "auto_gptq": "gptq",
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "ptpc_fp8": "fp8",
    "deepseek_v4_fp8": "fp8",
    "modelopt_fp4": "nvfp4",
    "modelopt_mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "gpt_oss_mxfp4": "mxfp4",
    "mxfp8": "mxfp8",
    "bitsandbytes": "nf4",
    "experts_int8": "experts-int8",
    "int8_per_channel": "int8-weights",
    "gguf": "gguf",
}
# Formats that vLLM no longer has itself, by the beginning of their names (0.32's
# `layers/quantization/` and its extra `extra-quant`).
_PLUGINS = {
    "gguf": "a plugin reads GGUF files: install vllm[extra-quant], or leave them to llama_cpp",
    "nf4": "bitsandbytes is not part of vLLM any more: install its plugin, or use an AWQ form",
}
# Models whose numbers overflow in float16 (`config/model.py`, _FLOAT16_NOT_SUPPORTED_MODELS).
NO_HALF = ("gemma2", "gemma3", "plamo2", "glm4")


def planned_dtype(model: Model, dtype: str | None, gpu: Gpu) -> str | None:
    """`half` if the card has no bfloat16 and the service sets no dtype; else None."""
    return "half" if dtype in (None, "auto") and _lacks_bfloat16(model, gpu) else None


def _lacks_bfloat16(model: Model, gpu: Gpu) -> bool:
    return model.dtype == "bfloat16" and not runs("dtype bfloat16", LATEST, gpu_memory(gpu))


def unsupported(
    model: Model,
    params: EngineParams,
    dtype: str | None,
    gpu: Gpu,
    least: float = ENGINE_CAPABILITY,
) -> Refusal | None:
    """Why an engine would not start on a card, and the remedy; None if it would.

    `least` is the minimum compute capability of the engine; `dtype` is the service's dtype, None to
    leave it to the plan.
    """
    capability = gpu_memory(gpu).compute_capability
    if capability is not None:
        has = f"{gpu.name} has compute capability {capability:.1f}"
        if capability < least:
            engine = "vLLM 0.33" if least >= ENGINE_CAPABILITY else "vLLM"
            older = capability >= MIN_CAPABILITY_OF_ANY_BUILD
            build = f", or an engine built for CUDA 12 ({OLDER_BUILD})" if older else ""
            return Refusal(f"{has}, {engine} needs {least}", Instead(f"use a newer GPU{build}"))
        needs = f"{has}, bfloat16 needs {BFLOAT16_CAPABILITY}"
        if _lacks_bfloat16(model, gpu) and model.model_type.startswith(NO_HALF):
            alone = f"{needs}, and {model.model_type} does not run in float16"
            return Refusal(alone, Instead("use a newer GPU"))
        if capability < BFLOAT16_CAPABILITY and dtype == "bfloat16":
            return Refusal(needs, _option("dtype", "half"))
    if problem := kernel_problem(model, params, gpu_memory(gpu)):
        return problem
    length = params.max_model_len or model.context_limit_tokens
    tokens, requests = batch(gpu_memory(gpu), params, length)
    if requests > tokens:
        return Refusal(
            f"max-num-seqs {requests} is more than the {tokens} tokens that a step has on "
            f"{gpu.name}",
            _option("max-num-batched-tokens", requests, " or more"),
        )
    return None


def _option(name: str, value: Argument, more: str = "") -> Instead:
    words = f"set arguments: {json.dumps({name: value})}{more}"
    return Instead(words, options=((name, value),))


def kernel_problem(model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
    """What a card has no kernels for, and the nearest form that runs; None if all runs."""
    lacking = _lacking(model, params, gpu)
    if lacking is None:
        return None
    instead = _instead(model, params, lacking.subject, gpu)
    return Refusal(lacking.problem(gpu, "vLLM"), instead)


def _lacking(model: Model, params: EngineParams, gpu: GpuMemory) -> Row | None:
    """The first row that a model needs and a card does not run."""
    version = parse_version(params.engine_version)
    needed = ("card", *_subjects(model, params), *_attention(model, params))
    rows = (row(subject, version, gpu) for subject in needed)
    return next((one for one in rows if one and not one.runs_on(gpu)), None)


def _subjects(model: Model, params: EngineParams) -> tuple[str, ...]:
    """The subjects of the formats of the weights."""
    named = [_METHODS[key] for key in _METHODS if (params.quantization or "").startswith(key)]
    formats = (subject_of(name) for name in model.weight_formats)
    return tuple(dict.fromkeys((*formats, *named[-1:])))


def plugins(model: Model) -> tuple[str, ...]:
    """What vLLM needs besides itself for the formats of a model's weights."""
    return tuple(
        f"vLLM 0.33: {text}"
        for beginning, text in _PLUGINS.items()
        if any(name.startswith(beginning) for name in model.weight_formats)
    )


def _attention(model: Model, params: EngineParams) -> Iterator[str]:
    """The subjects of the KV cache and of the kind of attention."""
    cache_dtype = params.kv_cache_dtype
    if cache_dtype == "auto" and model.quantization:
        cache_dtype = model.quantization.kv_cache_dtype or "auto"
    if cache_dtype.startswith("fp8"):
        sinks = model.model_type == "gpt_oss"
        yield "kv fp8" if model.is_mla or sinks else "kv fp8 plain"
    if cache_dtype == "fp8_e5m2" and model.is_mla:
        yield "kv fp8_e5m2 mla"
    if model.is_mla and model.is_sparse:
        yield "sparse mla"


def _instead(model: Model, params: EngineParams, subject: str, gpu: GpuMemory) -> Instead:
    """The nearest form that runs on a card."""
    version = parse_version(params.engine_version)
    if subject in ("card", "sparse mla"):
        return Instead("use another GPU")
    if subject.startswith("kv "):
        kept = "bfloat16" if runs("dtype bfloat16", version, gpu) else "float16"
        return cache_instead(kept)
    return nearest_form(
        model,
        subject,
        lambda form: runs(form, version, gpu),
        lambda one: not _lacking(one, _plain(params), gpu),
    )


def _plain(params: EngineParams) -> EngineParams:
    """The parameters, without the service's method: another form has its own."""
    return replace(params, quantization=None)
