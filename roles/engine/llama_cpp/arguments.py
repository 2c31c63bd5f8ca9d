"""The options of llama-server that a service may set, and those that affect memory."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from roles.engine.arguments import check_opposites, check_value, option_names, unknown_options
from roles.engine.gguf.context import CACHE_BYTES, UNQUANTISED
from roles.engine.params import Argument

# What the newest build that was looked at knows.
LISTED = "b11434"
OPTIONS = Path(__file__).with_name(f"options-{LISTED}.txt")
_THE_PLAN = "leave it to the plan"
_CONTEXT = "set services[].max_model_len and min_concurrency"
_KEYS = "set balancer.engine_key_file"
_TLS = "clients' TLS ends at the balancer: set balancer.certificate_file"
_WEIGHTS = "set services[].weights"
_OTHER_MODEL = "a service serves one model, whose memory is planned; leave it out"
_SPECULATIVE = "set services[].speculative"
_LEAKS = "it lets clients reach files and programs of the host; leave it out"
_EXITS = "it prints and ends; leave it out"
# Options that other settings decide, with the remedy; short names too, so that none is missed.
PLANNED: Mapping[str, str] = {
    name: instead
    for names, instead in (
        ("model m model-url mu hf-repo hf hfr hf-file hff docker-repo dr offline", _WEIGHTS),
        ("hf-token hft", "set the engine's hub_token_file"),
        ("alias a", "set services[].model"),
        ("host", "it is the host's address"),
        ("port", "set services[].first_port or the host's ports"),
        ("reuse-port", "each replica has a port of its own; leave it out"),
        ("api-prefix", "the balancer passes paths on as they are; leave it out"),
        ("api-key api-key-file", _KEYS),
        ("ssl-key-file ssl-cert-file", _TLS),
        ("ctx-size c parallel np kv-unified kvu kv-unified-per-slot", _CONTEXT),
        ("gpu-layers n-gpu-layers ngl split-mode sm tensor-split ts main-gpu mg", _THE_PLAN),
        ("fit fit-target fitt fit-ctx fitc kv-offload kvo nkvo", _THE_PLAN),
        ("cpu-moe cmoe n-cpu-moe ncmoe n-cpu-ffn ncffn override-tensor ot", _THE_PLAN),
        ("lora lora-scaled lora-init-without-apply", "set services[].adapters"),
        ("override-kv control-vector control-vector-scaled", _OTHER_MODEL),
        ("mmproj mm mmproj-url mmu mmproj-auto mmproj-offload", _OTHER_MODEL),
        ("models-dir models-preset models-max models-autoload", _OTHER_MODEL),
        ("model-draft md hf-repo-draft hfd hfrd spec-type spec-default", _SPECULATIVE),
        ("metrics", "it is always on; leave it out"),
        ("embedding embeddings rerank reranking", "set services[].task"),
        ("props slot-save-path media-path path log-prompts-dir log-file", _LEAKS),
        ("tools tools-runtime agent ag mcp-servers-config mcp-servers-json", _LEAKS),
        ("ui-mcp-proxy webui-mcp-proxy", _LEAKS),
        ("help h usage version list-devices cache-list cl completion-bash", _EXITS),
    )
    for name in names.split()
}
# Groups of options, by prefix or pattern.
_DRAFTS, _PRESETS = "spec-draft-", re.compile(r".*-[0-9.]+b-(default|spec)|embd-gemma-default")
# Short names of options that affect memory: only the long spelling is accepted.
_SHORT_NAMES: Mapping[str, str] = {
    "b": "batch-size",
    "ub": "ubatch-size",
    "fa": "flash-attn",
    "ctk": "cache-type-k",
    "ctv": "cache-type-v",
}
_COUNTS = ("batch-size", "ubatch-size")
_FLASH = ("on", "off", "auto")
# How a text gets one vector; a reranker's is planned.
POOLINGS = ("cls", "last", "mean")


def unknown_by(arguments: Iterable[str]) -> tuple[str, ...]:
    """Which options build b11434 does not know, in words; no other build's were read."""
    known = option_names(OPTIONS)
    return unknown_options(arguments, known, f"llama-server {LISTED}", abbreviated=False)


def check_arguments(arguments: Mapping[str, Argument]) -> None:
    """ValueError for an unknown option, one that another setting decides, or one that the memory
    estimate cannot include; it says what to do."""
    for name, value in arguments.items():
        _check_name(name)
        _check_value(name, value)
    check_opposites(arguments)
    quantised = arguments.get("cache-type-v", "f16") not in UNQUANTISED
    if quantised and arguments.get("flash-attn") == "off":
        raise ValueError(
            "cache-type-v: a quantised V cache needs flash attention; leave flash-attn out"
        )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"{name!r} is no option; write it as in `cache-type-k`")
    instead = PLANNED.get(name.removeprefix("no-"))
    if name.startswith(_DRAFTS):
        instead = _SPECULATIVE
    elif _PRESETS.fullmatch(name):
        instead = _OTHER_MODEL
    if instead:
        raise ValueError(f"`{name}` follows from the plan or another setting; {instead}")
    if name in _SHORT_NAMES:
        raise ValueError(f"{name!r} is no whole option; write `{_SHORT_NAMES[name]}`")


def _check_value(name: str, value: Argument) -> None:
    check_value(name, value, _COUNTS, 512)
    if name in ("cache-type-k", "cache-type-v") and value not in CACHE_BYTES:
        raise ValueError(f"{name}: {value!r} is no type; set one of {', '.join(CACHE_BYTES)}")
    if name == "pooling" and value not in POOLINGS:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(POOLINGS)}")
    if name == "flash-attn" and value not in _FLASH:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(_FLASH)}")
    if name == "swa-full" and not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is neither true nor false; set one of them")
