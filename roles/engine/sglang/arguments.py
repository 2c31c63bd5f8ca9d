"""The options of `sglang.launch_server` that a service may set, and those that affect memory."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from roles.engine.arguments import (
    check_one_of,
    check_opposites,
    check_value,
    option_names,
    unknown_options,
)
from roles.engine.params import Argument
from roles.engine.sglang.parsers import PARSERS

# What the newest version that was looked at knows.
OPTIONS = Path(__file__).with_name("options-0.5.23.txt")
_THE_PLAN = "leave it to the plan"
_REPLICAS = "each replica is an engine of its own; " + _THE_PLAN
_HOSTS = "set services[].members"
_TLS = "clients' TLS ends at the balancer: set balancer.certificate_file"
_KEYS = "set balancer.engine_key_file"
_HTTP = "the balancer speaks HTTP to the engines; leave it out"
_LEAKS = "it lets clients reach files of the host, or writes requests into files; leave it out"
_PARTS = "a replica serves whole requests; leave it out"
# Options that other settings decide, with the remedy; a name that ends in "-" is a prefix.
PLANNED: Mapping[str, str] = {
    name: instead
    for names, instead in (
        ("model-path model", "set services[].weights"),
        ("served-model-name", "set services[].model"),
        ("host", "it is the host's address"),
        ("port", "set services[].first_port or the host's ports"),
        ("nccl-port dist-init-addr nccl-init-addr gated-launch-port", _THE_PLAN),
        ("api-key admin-api-key", _KEYS),
        ("ssl- enable-ssl-refresh", _TLS),
        ("fastapi-root-path", "the balancer passes paths on as they are; leave it out"),
        ("grpc- smg-grpc-mode sidecar sidecar-args enable-http2 use-ray", _HTTP),
        ("context-length", "set services[].max_model_len"),
        ("mem-fraction-static", "set services[].gpu_memory_utilization"),
        ("max-total-tokens", "set services[].kv_cache_memory_bytes"),
        ("config", "set services[].arguments"),
        ("is-embedding", "set services[].task"),
        ("device", "set engines.sglang.device"),
        ("base-gpu-id gpu-id-step", _THE_PLAN),
        ("tp-size tensor-parallel- pp-size pipeline-parallel-", _THE_PLAN),
        ("ep-size expert-parallel- ep dcp-size decode-context-parallel-", _THE_PLAN),
        ("attn-cp-size attention-context-parallel- moe-dp-size moe-data-parallel-", _THE_PLAN),
        ("moe-dense-tp-size shared-experts-tp-size dwdp-size", _THE_PLAN),
        ("dp-size data-parallel- attn-dp-size attention-data-parallel-", _REPLICAS),
        ("enable-dp-attention load-balance-method", _REPLICAS),
        ("nnodes node-rank elastic-ep- max-ep-size", _HOSTS),
        ("disaggregation- encoder-only language-only encoder-urls decoupled-spec-", _PARTS),
        ("enable-metrics", "it is always on; leave it out"),
        ("log-level log-level-http", "its log says how far a start is; leave it out"),
        ("file-storage-path crash-dump-folder log-requests-target tool-server", _LEAKS),
        ("help h", "it prints and ends; leave it out"),
    )
    for name in names.split()
}
# Bytes of a KV cache element in the memory sum; None: from the model.
KV_DTYPES: Mapping[str, str] = {
    "auto": "auto",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp8_e4m3": "fp8_e4m3",
    "fp8_e5m2": "fp8_e5m2",
}
DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
# The choices of `--quantization` in 0.5.23, without GGUF: its files are another engine's.
QUANTIZATIONS = (
    *("awq", "fp8", "mxfp8", "gptq", "gptq_marlin", "awq_marlin", "bitsandbytes", "modelopt"),
    *("modelopt_fp8", "modelopt_fp4", "nvfp4_online", "modelopt_mixed", "petit_nvfp4"),
    *("w8a8_int8", "w8a8_fp8", "moe_wna16", "w4afp8", "mxfp4", "auto-round", "auto-round-int8"),
    *("compressed-tensors", "modelslim", "mxfp_w4a8", "quark", "quark_int4fp8_moe"),
    *("quark_mxfp4", "mlx_q4", "mlx_q8", "unquant", "humming"),
)
COUNTS = ("max-running-requests", "chunked-prefill-size", "cuda-graph-max-bs-decode")
# Far above what the largest GPUs can do in a step.
_MAX_COUNTS = dict(zip(COUNTS, (2**17, 2**21, 2**13), strict=True))
# What says of LoRA adapters what `adapters` of a service says.
ADAPTER_OPTIONS = ("enable-lora", "lora-paths", "max-loras-per-batch", "max-lora-rank")
MEMORY_OPTIONS = (*COUNTS, "kv-cache-dtype", "disable-cuda-graph")


def unknown_by(arguments: Iterable[str]) -> tuple[str, ...]:
    """Which options 0.5.23 does not know, in words; it takes beginnings of options, too."""
    return unknown_options(arguments, option_names(OPTIONS), "SGLang 0.5.23", abbreviated=True)


def check_arguments(arguments: Mapping[str, Argument]) -> None:
    """ValueError for an unknown option, one that another setting decides, or one that the memory
    estimate cannot include; it says what to do."""
    for name, value in arguments.items():
        _check_name(name)
        _check_value(name, value)
    check_opposites(arguments)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"{name!r} is no option; write it as in `chunked-prefill-size`")
    positive = name.removeprefix("no-")
    is_whole = positive in option_names(OPTIONS)
    for option, instead in PLANNED.items():
        # An unambiguous prefix of an option is accepted by it.
        begins = option.startswith(positive) and not is_whole
        if option == positive or begins or (option.endswith("-") and positive.startswith(option)):
            raise ValueError(f"`{name}` follows from the plan or another setting; {instead}")
    for option in MEMORY_OPTIONS:
        if option != positive and option.startswith(positive):
            raise ValueError(f"{name!r} is no whole option; write `{option}`")


def _check_value(name: str, value: Argument) -> None:
    check_value(name, value, COUNTS, 256)
    if name in COUNTS and isinstance(value, int) and value > _MAX_COUNTS[name]:
        raise ValueError(
            f"{name}: {value} is more than a GPU does; set at most {_MAX_COUNTS[name]}"
        )
    if name == "disable-cuda-graph" and not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is neither true nor false; set one of them")
    if name == "dtype":
        check_one_of(name, value, DTYPES)
    if name == "quantization":
        if value == "gguf":
            raise ValueError(f"{name}: GGUF files are llama_cpp's; set engine to it")
        check_one_of(name, value, QUANTIZATIONS)
    if name in PARSERS:
        check_one_of(name, value, PARSERS[name])
    if name == "load-format" and value == "gguf":
        raise ValueError(f"{name}: GGUF files are llama_cpp's; set engine to it")
    if name == "kv-cache-dtype" and value not in KV_DTYPES:
        raise ValueError(
            f"{name}: {value!r} is none that the plan knows; set {', '.join(KV_DTYPES)}"
        )
