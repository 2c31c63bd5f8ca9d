"""The options of `vllm serve` that a service may set, and those that affect memory."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from roles.engine.arguments import (
    check_one_of,
    check_opposites,
    check_value,
    option_names,
    unknown_options,
)
from roles.engine.needs import Version
from roles.engine.params import Argument
from roles.models import FileFormat, Model

# The options of versions whose parser was read.
_OPTIONS = {one: Path(__file__).with_name(f"options-{one}.txt") for one in ("0.32", "0.33")}
_THE_PLAN = "leave it to the plan"
_HOSTS = "set services[].members"
_TLS = "clients' TLS ends at the balancer: set balancer.certificate_file"
# Options that other settings decide, with the remedy; a name that ends in "-" is a prefix.
PLANNED = {
    "model": "set services[].weights",
    "served-model-name": "set services[].model",
    "host": "it is the host's address",
    "port": "set services[].first_port or the host's ports",
    "uds": "engines listen on services[].first_port and the next",
    "grpc": "the balancer speaks HTTP to the engines; leave it out",
    "grpc-port": "the balancer speaks HTTP to the engines; leave it out",
    "root-path": "the balancer passes paths on as they are; leave it out",
    "api-key": "set balancer.engine_key_file",
    "hf-token": "set engines.vllm.hub_token_file",
    "ssl-": _TLS,
    "enable-ssl-refresh": _TLS,
    "max-model-len": "set services[].max_model_len",
    "gpu-memory-utilization": "set services[].gpu_memory_utilization",
    "device-memory-utilization": "set services[].gpu_memory_utilization",
    "kv-cache-memory-bytes": "set services[].kv_cache_memory_bytes",
    "shutdown-timeout": "set launch.drain_timeout_s",
    "config": "set services[].arguments",
    "runner": "set services[].task",
    "task": "set services[].task",
    "device-ids": _THE_PLAN,
    "enable-expert-parallel": _THE_PLAN,
    "distributed-executor-backend": _THE_PLAN,
    **dict.fromkeys(
        (
            *("tensor-parallel-", "pipeline-parallel-", "tp", "pp"),
            *("decode-context-parallel-", "prefill-context-parallel-", "dcp", "pcp"),
        ),
        _THE_PLAN,
    ),
    **dict.fromkeys(
        (
            *("data-parallel-", "dp", "dpn", "dpr", "dpl"),
            *("dpa", "dpp", "dpb", "dph", "dpe", "dpm"),
        ),
        "each replica is an engine of its own; " + _THE_PLAN,
    ),
    **dict.fromkeys(
        ("nnodes", "node-rank", "master-addr", "master-port", "headless", "n", "r"), _HOSTS
    ),
}
# Bytes of a KV cache element in the memory sum; None: from the model.
KV_ELEMENT_BYTES: dict[str, float | None] = {
    "auto": None,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
DTYPES = ("auto", "bfloat16", "float", "float16", "float32", "half")
# Names that a release up to 0.33 knows (`model_executor/layers/quantization/__init__.py`).
QUANTIZATIONS = (
    *("aqlm", "auto-round", "awq", "awq_marlin", "auto_awq", "auto_gptq", "bitblas"),
    *("bitsandbytes", "compressed-tensors", "cpu_awq", "deepspeedfp", "deepseek_v4_fp8"),
    *("experts_int8", "fbgemm_fp8", "fp8", "fp8_per_block", "fp8_per_channel", "fp8_per_tensor"),
    *("fp_quant", "gguf", "gpt_oss_mxfp4", "gptq", "gptq_bitblas", "gptq_marlin"),
    *("gptq_marlin_24", "hqq", "humming", "inc", "int8_per_channel_weight_only", "ipex"),
    *("marlin", "modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8", "moe_wna16"),
    *("mxfp4", "mxfp8", "nvfp4_per_token", "online", "petit_nvfp4", "ptpc_fp8", "qqq", "quark"),
    *("rtn", "squeezellm", "torchao"),
)
# Of vLLM 0.32 (`model_executor/model_loader/__init__.py`), and of its plugins for formats.
LOAD_FORMATS = (
    *("auto", "bitsandbytes", "dummy", "fastsafetensors", "gguf", "hf", "instanttensor"),
    *("ipc_cache", "mistral", "modelexpress", "npcache", "pt", "runai_streamer"),
    *("runai_streamer_sharded", "safetensors", "sharded_state", "tensorizer"),
)
# Those that read a quantised checkpoint; others quantise while they load.
_OF_CHECKPOINTS = frozenset(
    (
        *("aqlm", "auto-round", "auto_awq", "auto_gptq", "awq", "awq_marlin", "bitblas"),
        *("compressed-tensors", "cpu_awq", "fbgemm_fp8", "gguf", "gptq", "gptq_bitblas"),
        *("gptq_marlin", "gptq_marlin_24", "hqq", "marlin", "modelopt", "modelopt_fp4"),
        *("moe_wna16", "quark", "squeezellm"),
    )
)
COUNTS = ("max-num-seqs", "max-num-batched-tokens")
# Far above what the largest GPUs can do in a step.
_MAX_COUNTS = {"max-num-seqs": 2**17, "max-num-batched-tokens": 2**21}
# What says of LoRA adapters what `adapters` of a service says.
ADAPTER_OPTIONS = ("enable-lora", "lora-modules", "max-loras", "max-lora-rank", "no-enable-lora")
# What says of speculative decoding what `speculative` of a service says.
SPECULATIVE_OPTIONS = ("speculative-config", "sc", "spec-method", "spec-model", "spec-tokens")
MEMORY_OPTIONS = (*COUNTS, "enforce-eager", "kv-cache-dtype")


def is_listed(version: Version) -> bool:
    """Whether the options of a version were read; its later fixes have the same."""
    return _release(version) in _OPTIONS


def unknown_by(version: Version, arguments: Iterable[str]) -> tuple[str, ...]:
    """Which options a version of vLLM does not know, in words; it takes beginnings of options, too.

    Of a version whose options were not read, those count that no version has.
    """
    read = (_release(version),) if is_listed(version) else tuple(_OPTIONS)
    return unknown_options(arguments, _known(read), f"vLLM {' or '.join(read)}", abbreviated=True)


@cache
def _known(releases: tuple[str, ...]) -> frozenset[str]:
    listed = frozenset().union(*(option_names(_OPTIONS[one]) for one in releases))
    # Version 0.33 takes them still, though its parser lists `disable-` in their place.
    return listed | {f"no-{name}" for name in listed if name.startswith("enable-")}


def _release(version: Version) -> str:
    return ".".join(map(str, version[:2]))


def check_arguments(arguments: dict[str, Argument], model: Model | None = None) -> None:
    """ValueError for an unknown option, one that another setting decides, one that the memory
    estimate cannot include, or one that the model's files contradict; it says what to do."""
    for name, value in arguments.items():
        _check_name(name)
        _check_value(name, value)
    if "load-format" in arguments:
        _check_load_format(arguments["load-format"], model.format if model else "safetensors")
    method = arguments.get("quantization", arguments.get("q"))
    if model and not model.quantization and model.format != "gguf" and method in _OF_CHECKPOINTS:
        raise ValueError(
            f"quantization: {method}, but the files of {model.name} are not quantised; leave it "
            "out, or name a model that is"
        )
    check_opposites(arguments)
    tokens, requests = arguments.get("max-num-batched-tokens"), arguments.get("max-num-seqs")
    if isinstance(tokens, int) and isinstance(requests, int) and tokens < requests:
        raise ValueError(
            f"max-num-batched-tokens: {tokens} is less than max-num-seqs, "
            f"which vLLM refuses; set at least {requests}"
        )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"{name!r} is no option; write it as in `max-num-seqs`")
    positive = name.removeprefix("no-")
    for option, instead in PLANNED.items():
        # vLLM accepts an unambiguous prefix of an option.
        if option.startswith(positive) or (option.endswith("-") and positive.startswith(option)):
            raise ValueError(f"`{name}` follows from the plan or another setting; {instead}")
    for option in MEMORY_OPTIONS:
        if option != positive and option.startswith(positive):
            raise ValueError(f"{name!r} is no whole option; write `{option}`")


def _check_load_format(value: Argument, files: FileFormat) -> None:
    check_one_of("load-format", value, LOAD_FORMATS)
    if value == "dummy":
        raise ValueError(
            "load-format: dummy gives random weights, whose answers mean nothing; leave it out"
        )
    if (value == "gguf") != (files == "gguf") and value != "auto":
        raise ValueError(f"load-format: {value}, but the model's files are {files}; leave it out")


def _check_value(name: str, value: Argument) -> None:
    check_value(name, value, COUNTS, 256)
    if name.removeprefix("no-") == "enforce-eager" and not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is neither true nor false; set one of them")
    if name in COUNTS and isinstance(value, int) and value > _MAX_COUNTS[name]:
        raise ValueError(
            f"{name}: {value} is more than a GPU does; set at most {_MAX_COUNTS[name]}"
        )
    if name == "dtype":
        check_one_of(name, value, DTYPES)
    if name in ("quantization", "q"):
        check_one_of(name, value, QUANTIZATIONS)
    if name == "kv-cache-dtype" and value not in KV_ELEMENT_BYTES:
        raise ValueError(
            f"{name}: {value!r} is none that the plan knows; set {', '.join(KV_ELEMENT_BYTES)}"
        )
