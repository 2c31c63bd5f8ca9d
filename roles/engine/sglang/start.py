"""The start of an SGLang replica: its options, environment and unit settings. Pure."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from roles.engine.arguments import option_names
from roles.engine.deployment import (
    INTERFACES,
    Group,
    KeyFile,
    Phase,
    Placement,
    Served,
    Start,
    Watch,
    address_environment,
    compiled_folder,
    packages_environment,
)
from roles.engine.params import GIB, Argument
from roles.engine.sglang.arguments import OPTIONS
from roles.engine.sglang.memory import REQUESTS, defaults
from roles.engine.sglang.settings import SglangSettings
from roles.host.paths import engine_folder
from roles.plan import MemorySum, Replica

CONFIG, LOGGING = "options.yaml", "logging.json"
# Source: SGLang 0.5.23 (model_loader/weight_utils.py, model_runner_components/).
PHASES = (
    Phase("Load weight begin", "load"),
    Phase(r"[Ll]oading [^\n%]{0,80}: {1,3}([0-9]{1,3})% Completed", "load {}%"),
    Phase("Load weight end", "weights are loaded"),
    Phase("KV Cache is allocated|Memory pool end", "KV cache is allocated"),
    Phase("Capture [^\n]{0,60} begin|Capturing batches|Capturing prefill", "capture CUDA graphs"),
    Phase("max_total_num_tokens=", "warm up"),
)
# Source: SGLang 0.5.23 (scheduler_components/metrics_reporter.py): the tokens of each forward pass,
# of a prefill's chunk or a decode, are added at once; the gauges follow at the latest when it is
# idle.
WATCH = Watch(
    path="/metrics",
    steps=("sglang:realtime_tokens_total",),
    pending=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
)
# It logs its options with the keys among them by this logger, at the level INFO
# (`entrypoints/engine.py`), and nothing else that a start is judged by.
_LOGS_KEYS = "sglang.srt.entrypoints.engine"
_LOUD = ("httpx", "httpcore")


def start(replica: Replica, served: Served, build: SglangSettings, placement: Placement) -> Start:
    """How a replica starts: `sglang.launch_server` with a file of the plan's options and the key,
    which only its process reads.

    The service's own options follow on the command line: some cannot stand in the file.
    """
    program = f"{engine_folder(build.version_name)}/bin/python -m sglang.launch_server"
    own = {**adapters_of(served), **served.arguments}
    words = [shlex.quote(word) for word in words_of(own)]
    options = yaml.safe_dump(options_of(replica, served, build, placement), sort_keys=False)
    token = {"HF_TOKEN": build.hub_token} if build.hub_token else {}
    return Start(
        command=" ".join([f'{program} --config "$CREDENTIALS_DIRECTORY/{CONFIG}"', *words]),
        environment=environment_of(replica, build, placement),
        address_variables=("SGLANG_HOST_IP",) if placement.group else (),
        interface_variables=INTERFACES if placement.group else {},
        files={CONFIG: options, LOGGING: json.dumps(logging_config(), indent=1) + "\n"},
        secrets=token | build.secret_environment,
        credentials=(CONFIG,),
        key_file=KeyFile(CONFIG, 'api-key: "{}"', several=False),
        unit=(
            "# SGLang ends with 2 when its options are wrong: starting again would not help.",
            "RestartPreventExitStatus=2",
            "# It waits for its requests only if its schedulers are not stopped beside it.",
            "KillMode=mixed",
            f"TimeoutStopSec={placement.drain_timeout_s + 30}",
        ),
        phases=PHASES,
        watch=WATCH,
    )


def options_of(
    replica: Replica, served: Served, build: SglangSettings, placement: Placement
) -> dict[str, Any]:
    """The plan's options, with the names of its configuration file."""
    shape, memory = replica.shape, replica.memory
    usual = defaults(memory.total_gib * 1024, shape.tensor_parallel)
    requests = replica.max_num_seqs or REQUESTS
    eager = {
        "cuda-graph-backend-decode": "disabled",
        "cuda-graph-backend-prefill": "disabled",
    }
    options: dict[str, Any] = {
        "model-path": served.weights,
        **revision_of(served.revision, served.arguments),
        "served-model-name": served.model,
        "host": placement.listen_address,
        "port": replica.port,
        "nccl-port": placement.internal_port,
        "tp-size": shape.tensor_parallel,
        "pp-size": shape.pipeline_parallel,
        **group_of(placement.group),
        **({"ep-size": shape.tensor_parallel} if shape.expert_parallel else {}),
        **({"device": "cpu"} if build.device == "cpu" else {}),
        **({"dtype": replica.dtype} if replica.dtype else {}),
        "context-length": replica.max_model_len,
        "mem-fraction-static": replica.gpu_memory_utilization,
        **cache_of(served, memory),
        "max-running-requests": requests,
        "chunked-prefill-size": replica.max_num_batched_tokens or usual.prefill_tokens,
        "cuda-graph-max-bs-decode": min(requests, usual.decode_graph),
        **(eager if replica.enforce_eager else {}),
        # Its custom all-reduce uses P2P, as NCCL does.
        **({} if replica.p2p else {"disable-custom-all-reduce": True}),
        "enable-metrics": True,
        "log-level": "info",
        "log-level-http": "warning",
    }
    return {name: value for name, value in options.items() if name not in served.arguments}


def group_of(group: Group | None) -> dict[str, Any]:
    """The options of a part of a replica over several hosts."""
    if group is None:
        return {}
    head = f"[{group.head}]" if ":" in group.head else group.head
    return {
        "nnodes": len(group.addresses),
        "node-rank": group.rank,
        "dist-init-addr": f"{head}:{group.engines_port}",
    }


def adapters_of(served: Served) -> dict[str, Argument]:
    """The options for LoRA adapters: all may work in one batch, with requests that have none."""
    if not served.adapters:
        return {}
    return {
        "lora-paths": " ".join(f"{one.name}={one.path}" for one in served.adapters),
        "max-loras-per-batch": len(served.adapters) + 1,
        "max-lora-rank": max(one.rank for one in served.adapters),
    }


def cache_of(served: Served, memory: MemorySum) -> dict[str, int]:
    """The option for the tokens that a service's own size of the KV cache holds; else none."""
    if not served.kv_cache_memory_bytes or memory.kv_cache_gib <= 0:
        return {}
    share = served.kv_cache_memory_bytes / GIB / memory.kv_cache_gib
    return {"max-total-tokens": max(1, int(share * memory.kv_tokens))}


def words_of(arguments: Mapping[str, Argument]) -> list[str]:
    """A service's own options as words; what is false is left out where it has no `no-` form."""
    known, words = option_names(OPTIONS), list[str]()
    for name, value in arguments.items():
        negative = f"no-{name.removeprefix('no-')}"
        if value is True:
            words.append(f"--{name}")
        elif value is False:
            words += [f"--{negative}"] if negative in known else []
        elif isinstance(value, str) and name in _SEVERAL:
            words += [f"--{name}", *value.split()]
        else:
            words += [f"--{name}", str(value)]
    return words


# Options that take several values, which a service writes with blanks between them.
_SEVERAL = frozenset(
    (
        *("numa-node", "gc-threshold", "uvicorn-access-log-exclude-prefixes", "lora-paths"),
        *("tokenizer-metrics-allowed-custom-labels", "bucket-time-to-first-token"),
        *("bucket-inter-token-latency", "bucket-e2e-request-latency", "prompt-tokens-buckets"),
        *("generation-tokens-buckets", "flashinfer-autotune-skip-ops", "cuda-graph-bs-decode"),
        *("cuda-graph-bs-prefill", "allowed-media-domains", "lora-target-modules"),
        *("custom-weight-loader", "prefill-delayer-forward-passes-buckets"),
        *("prefill-delayer-wait-seconds-buckets", "debug-tensor-dump-layers"),
        "return-aux-hidden-state-layer-ids",
    )
)


def revision_of(commit: str | None, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The option that pins the files from the hub to the recorded commit, unless the service sets
    one, or another source of a part: a commit belongs to one repository."""
    if commit is None or {"revision", "tokenizer-path"} & arguments.keys():
        return {}
    return {"revision": commit}


def logging_config() -> dict[str, Any]:
    """Python's configuration of its log: as it is by default, without the line with its keys."""
    quiet = {name: {"level": "WARNING"} for name in (_LOGS_KEYS, *_LOUD)}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "[%(processName)s] %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": quiet,
    }


def environment_of(replica: Replica, build: SglangSettings, placement: Placement) -> dict[str, str]:
    """The environment of a replica, without secrets."""
    cache = compiled_folder(replica, build, placement)
    return {
        **packages_environment(replica, build, placement),
        "XDG_CACHE_HOME": cache,
        "SGLANG_CACHE_DIR": f"{cache}/sglang",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "FLASHINFER_WORKSPACE_BASE": cache,
        # A path from the replica's folder, which it works in.
        "SGLANG_LOGGING_CONFIG_PATH": LOGGING,
        # Otherwise each question for its health generates a token, and takes a second.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        **address_environment("SGLANG_HOST_IP", placement),
        # The compiler of its own packages, see the installation.
        **(
            {"CUDA_HOME": f"{engine_folder(build.version_name)}/cuda"}
            if build.device == "cuda"
            else {}
        ),
        **build.plain_environment,
    }
