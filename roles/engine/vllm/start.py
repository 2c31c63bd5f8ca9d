"""The start of a vLLM replica: its options, environment and unit settings. Pure."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from roles.engine.adapters import next_rank
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
from roles.engine.needs import Version
from roles.engine.vllm.engine_versions import batch_defaults
from roles.engine.vllm.ray import ray_environment, ray_node
from roles.engine.vllm.settings import MODELSCOPE, VllmSettings
from roles.host.paths import STATE, engine_folder
from roles.plan import Replica

OPTIONS = "options.yaml"
# From this version on vLLM's log hides keys among the options (`_SENSITIVE_ARG_FIELDS`).
KEYS_HIDDEN = (0, 32)
# From this version on it has `--runner` and `--convert` (docs of v0.10.1.1, pooling_models).
RUNNERS = (0, 10, 1)
# From this version on it limits the requests that run and wait (`config/scheduler.py`).
QUEUES = (0, 32)
# Bursts of less are let through in any case.
LEAST_QUEUE = 256
# From this version on it has a watchdog, which writes and kills nothing.
WATCHDOG = (0, 33)

# Source: vLLM 0.32 (weight_utils.py, gpu_model_runner.py, cpu/model_runner.py, backends.py,
# kv_cache_utils.py, kernel_warmup.py).
PHASES = (
    Phase("Starting to load model", "load"),
    Phase(r"[Ll]oading [^\n%]{0,80}: {1,3}([0-9]{1,3})% Completed", "load {}%"),
    Phase("Loading weights took", "weights are loaded"),
    Phase("torch.compile|Dynamo bytecode transform|Compiling a graph", "compile"),
    Phase("GPU KV cache size|Warming up", "warm up"),
    Phase("Capturing CUDA graph", "capture CUDA graphs"),
)

# Source: vLLM 0.33 (v1/metrics/loggers.py): the histogram has one entry for each step of an engine.
# The page asks for no key.
WATCH = Watch(
    path="/metrics",
    steps=("vllm:iteration_tokens_total_count",),
    pending=("vllm:num_requests_running", "vllm:num_requests_waiting"),
)


def start(replica: Replica, served: Served, build: VllmSettings, placement: Placement) -> Start:
    """How a replica starts: `vllm serve --config options.yaml`, with its keys among the options.

    An older vLLM logs its options, so it gets one key by its environment.
    """
    if build.hub == MODELSCOPE:
        # ModelScope's commits differ from those of the hub that the model was recorded from.
        served = replace(served, revision=None)
    program = f"{engine_folder(build.version_name)}/bin/vllm"
    options = yaml.safe_dump(
        watchdog_of(replica, build) | options_of(replica, served, build, placement), sort_keys=False
    )
    token = {"HF_TOKEN": build.hub_token} if build.hub_token else {}
    several = hides_keys(build)
    if several:
        options += "api-key:\n"
    return Start(
        command=command_of(
            f'{program} serve --config "$CREDENTIALS_DIRECTORY/{OPTIONS}"', build, placement
        ),
        environment=environment_of(replica, build, placement),
        address_variables=("VLLM_HOST_IP",) if placement.group else (),
        interface_variables=INTERFACES if placement.group else {},
        files={OPTIONS: options},
        secrets=token | build.secret_environment,
        credentials=(OPTIONS,),
        key_file=KeyFile(OPTIONS, '- "{}"')
        if several
        else KeyFile("secrets", 'VLLM_API_KEY="{}"', several=False),
        unit=(
            "# vLLM ends with 2 when its options are wrong: starting again would not help.",
            "RestartPreventExitStatus=2",
            "KillMode=control-group",
            f"TimeoutStopSec={placement.drain_timeout_s + 30}",
        ),
        phases=PHASES,
        watch=WATCH,
    )


def hides_keys(build: VllmSettings) -> bool:
    """Whether this version hides keys in its log."""
    version = build.requirement.partition("==")[2]
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= KEYS_HIDDEN


def watchdog_of(replica: Replica, build: VllmSettings) -> dict[str, str]:
    """The option by which an engine that stands still writes its threads' stacks into its own
    folder; older versions have none."""
    if build.numbers < WATCHDOG:
        return {}
    return {"watchdog-config": json.dumps({"dump_dir": f"{STATE}/{replica.name}"})}


def options_of(
    replica: Replica, served: Served, build: VllmSettings, placement: Placement
) -> dict[str, Any]:
    """The options of `vllm serve` for a replica, with the names of its configuration file."""
    options: dict[str, Any] = {
        "model": served.weights,
        **revision_of(served.revision, served.arguments),
        "served-model-name": served.model,
        "host": placement.listen_address,
        "port": replica.port,
        "tensor-parallel-size": replica.shape.tensor_parallel,
        "pipeline-parallel-size": replica.shape.pipeline_parallel,
        **({"enable-expert-parallel": True} if replica.shape.expert_parallel else {}),
        **({"dtype": replica.dtype} if replica.dtype else {}),
        **({"max-num-seqs": replica.max_num_seqs} if replica.max_num_seqs else {}),
        **(
            {"max-num-batched-tokens": replica.max_num_batched_tokens}
            if replica.max_num_batched_tokens
            else {}
        ),
        **({"enforce-eager": True} if replica.enforce_eager else {}),
        "max-model-len": replica.max_model_len,
        "gpu-memory-utilization": replica.gpu_memory_utilization,
        # vLLM's custom all-reduce uses P2P, as NCCL does.
        **({} if replica.p2p else {"disable-custom-all-reduce": True}),
        **group_of(placement.group),
        "shutdown-timeout": placement.drain_timeout_s,
        **queue_of(replica, served, build.numbers),
        **adapters_of(served),
    }
    if served.kv_cache_memory_bytes:
        options["kv-cache-memory-bytes"] = served.kv_cache_memory_bytes
    return options | by_version(served, build.numbers)


def group_of(group: Group | None) -> dict[str, Any]:
    """The options of a part of a replica over several hosts; the other parts than the head's take
    no requests."""
    if group is None:
        return {}
    if group.executor == "ray":
        return {"distributed-executor-backend": "ray"}
    return {
        "nnodes": len(group.addresses),
        "node-rank": group.rank,
        "master-addr": group.head,
        "master-port": group.engines_port,
        **({"headless": True} if group.rank else {}),
    }


def command_of(serve: str, build: VllmSettings, placement: Placement) -> str:
    """The line that starts a part: with Ray first its node, which is all that another part than the
    head's runs."""
    group = placement.group
    if group is None or group.executor != "ray":
        return serve
    node = ray_node(f"{engine_folder(build.version_name)}/bin", group, placement.internal_port)
    if group.rank:
        return f"{node} --block"
    return f"/bin/sh -c {shlex.quote(f'{node} && exec {serve}')}"


def queue_of(replica: Replica, served: Served, version: Version) -> dict[str, int]:
    """The option that limits the requests in the engine: further ones get 503 at once, and do not
    wait longer than anybody would. As many may wait as are worked on."""
    if version < QUEUES:
        return {}
    usual = batch_defaults("", replica.memory.total_gib * 1024, version, replica.max_model_len)[1]
    at_once = served.arguments.get("max-num-seqs") or replica.max_num_seqs or usual
    return {"max-num-queued-reqs": max(LEAST_QUEUE, 2 * int(at_once))}


def adapters_of(served: Served) -> dict[str, Any]:
    """The options for LoRA adapters: all may work in one step."""
    if not served.adapters:
        return {}
    return {
        "enable-lora": True,
        "lora-modules": [f"{one.name}={one.path}" for one in served.adapters],
        "max-loras": len(served.adapters),
        "max-lora-rank": next_rank(max(one.rank for one in served.adapters)),
    }


def by_version(served: Served, version: Version) -> dict[str, Any]:
    """A service's options as a version has them: until 0.10.1 one option named the task."""
    arguments = dict(served.arguments)
    if served.task == "generate" or version >= RUNNERS:
        return arguments
    arguments = {name: arguments[name] for name in arguments if name not in ("runner", "convert")}
    return {**arguments, "task": "embed" if served.task == "embed" else "score"}


def revision_of(commit: str | None, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The options that pin the files from the hub to the recorded commit.

    Empty if the service's options set a revision or another source of a part: a commit belongs to
    one repository.
    """
    if commit is None or {"revision", "hf-config-path"} & arguments.keys():
        return {}
    elsewhere = {"tokenizer", "tokenizer-revision"} & arguments.keys()
    return {"revision": commit} | ({} if elsewhere else {"tokenizer-revision": commit})


def environment_of(replica: Replica, build: VllmSettings, placement: Placement) -> dict[str, str]:
    """The environment of a replica, without secrets."""
    return {
        **packages_environment(replica, build, placement),
        # What it finds of P2P is kept there, too; by itself it is kept by the GPUs' indexes alone.
        "VLLM_CACHE_ROOT": compiled_folder(replica, build, placement),
        **address_environment("VLLM_HOST_IP", placement),
        "VLLM_PORT": str(placement.internal_port),
        **ray_environment(placement.group),
        "VLLM_NO_USAGE_STATS": "1",
        **build.plain_environment,
    }
