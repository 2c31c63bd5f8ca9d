"""What vLLM runs on which card: formats of weights, dtypes, KV dtypes and kinds of attention.

A row holds from its version on, until a later row of the same subject. Sources: vLLM's code (the
`get_min_capability` and `is_supported` of its quantisation methods, linear kernels and attention
backends, `platforms/cuda.py`, `platforms/rocm.py`; read at 0.32), its documentation, and its pull
requests.
"""

import math

from roles.engine.kernels import Row
from roles.engine.needs import Version
from roles.engine.params import GpuMemory

# Cards that no newer release has code for are served by this one.
_LAST_WITH_VOLTA: Version = (0, 19, 0)
_VOLTA_NEEDS_OLDER = 7.5
_FP8_AMD = ("gfx942", "gfx950", "gfx12")
_MATRIX_FP4_AMD = ("gfx942", "gfx950")
_DOCS = "docs.vllm.ai features/quantization, "


ROWS = (
    Row(
        *("card", "vLLM", 7.0),
        source="docs.vllm.ai getting_started/installation/gpu: MI200s, MI300, MI350, RX 7900, "
        "RX 9000, Ryzen AI; NVIDIA's least is the build's",
    ),
    Row("dtype bfloat16", "bfloat16", 8.0, source="platforms/cuda.py check_if_supports_dtype"),
    # Weights.
    Row("fp8", "FP8 weights", 8.9, amd=_FP8_AMD, source=_DOCS + "0.5.3"),
    Row(
        *("fp8", "FP8 weights", 8.0),
        amd=_FP8_AMD,
        since=(0, 5, 2),
        source="pull request 5975: Marlin reads FP8 weights on Ampere",
    ),
    Row(
        *("fp8", "FP8 weights", 7.5),
        amd=_FP8_AMD,
        since=(0, 16),
        source="pull request 29901: Marlin on Turing; ROCm: kernels/linear/scaled_mm/rocm.py",
    ),
    Row("int8", "INT8 weights and activations (W8A8)", 7.5, 10.0, source=_DOCS + "int8_w8a8"),
    Row("int8-weights", "INT8 weights", 8.0, source="compressed_tensors_wNa16.py"),
    Row(
        *("int8-weights", "INT8 weights", 7.5),
        since=(0, 16),
        source="compressed_tensors_wNa16.py, pull request 29901",
    ),
    Row("experts-int8", "experts-int8", 8.0, amd=(), source="experts_int8.py; rocm.py's list"),
    Row("awq", "AWQ weights", 7.5, source="auto_awq.py; ROCm: VLLM_USE_TRITON_AWQ"),
    Row("gptq", "GPTQ weights", 6.0, source="auto_gptq.py"),
    Row("int4", "INT4 weights (W4A16)", 8.0, source="compressed_tensors_wNa16.py"),
    Row(
        *("int4", "INT4 weights (W4A16)", 7.5),
        since=(0, 16),
        source="compressed_tensors_wNa16.py, pull request 29901",
    ),
    Row(
        *("mxfp4", "MXFP4 weights", 8.0),
        amd=_MATRIX_FP4_AMD,
        source="mxfp4.py; docs: Turing has no Marlin for MXFP4; ROCm: fused_moe/oracle/mxfp4.py",
    ),
    Row("mxfp8", "MXFP8 weights", 10.0, amd=("gfx950",), source="kernels/linear/mxfp8"),
    Row(
        *("mxfp8", "MXFP8 weights", 7.5),
        amd=("gfx950",),
        since=(0, 16),
        source="kernels/linear/mxfp8: Marlin; other AMD GPUs unpack them to bfloat16",
    ),
    Row("nvfp4", "NVFP4 weights", 8.0, amd=(), source="kernels/linear/nvfp4: AMD only emulates it"),
    Row(
        *("nvfp4", "NVFP4 weights", 7.5),
        amd=(),
        since=(0, 16),
        source="compressed_tensors_w4a4_nvfp4.py; AMD only emulates it",
    ),
    Row("nf4", "bitsandbytes weights", 7.0, amd=(), source="bitsandbytes.py; rocm.py's list"),
    Row("gguf", "GGUF weights", 6.0, source=_DOCS + "0.15"),
    # KV caches.
    Row("kv fp8", "an FP8 KV cache", 8.9, source="triton_attn.py, mla/triton_mla.py"),
    Row(
        *("kv fp8 plain", "an FP8 KV cache", 8.0),
        source="flashinfer.py: attention without sinks or latents",
    ),
    Row(
        *("kv fp8_e5m2 mla", "an fp8_e5m2 KV cache of latents", math.inf),
        source="mla/: no backend for NVIDIA lists it",
    ),
    # Attention.
    Row(
        *("sparse mla", "sparse latent attention", 9.0, 12.0),
        amd=("gfx942", "gfx950"),
        source="mla/flashmla_sparse.py",
    ),
    Row(
        *("sparse mla", "sparse latent attention", 9.0),
        amd=("gfx942", "gfx950"),
        since=(0, 24),
        source="mla/flashinfer_mla_sparse.py: 12.x too; read at 0.32, earlier ones not known",
    ),
)


def row(subject: str, version: Version, gpu: GpuMemory) -> Row | None:
    """The row of a subject for a version and a card; None without one."""
    if gpu.compute_capability is not None and gpu.compute_capability < _VOLTA_NEEDS_OLDER:
        version = min(version, _LAST_WITH_VOLTA)
    found = [one for one in ROWS if one.subject == subject and one.since <= version]
    return found[-1] if found else None


def runs(subject: str, version: Version, gpu: GpuMemory) -> bool:
    """Whether a card runs a subject; what the table does not have does."""
    found = row(subject, version, gpu)
    return found is None or found.runs_on(gpu)
