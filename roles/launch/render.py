"""The files of a host's replicas, from the plan. Pure: a plan in, text out."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import yaml

from roles.engine import EngineSettings
from roles.host import HostFile
from roles.launch.settings import LaunchSettings
from roles.plan import HostPlan, Replica
from roles.topology import ServiceSettings

TEMPLATES = Path(__file__).parents[2] / "templates"
UNIT = "/etc/systemd/system/llm-engine@.service"
FIREWALL_UNIT = "/etc/systemd/system/llm-firewall.service"
FIREWALL = "/etc/llm/firewall.nft"
SECRETS = "/etc/llm/secrets/engine.env"
REPLICAS = "/etc/llm/replicas"
CACHE = "/var/cache/llm"
# vLLM takes the next free port from VLLM_PORT on for each of its processes.
INTERNAL_PORTS = 100

# How each device is told which GPUs are its own.
VISIBLE_DEVICES = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "HIP_VISIBLE_DEVICES",
    "cpu": "CUDA_VISIBLE_DEVICES",
}


def quoted(value: object) -> str:
    """A value as systemd's EnvironmentFile= reads it back: in double quotes, escaped."""
    text = str(value)
    for character in ("\\", '"', "$", "`"):
        text = text.replace(character, f"\\{character}")
    return f'"{text}"'


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    environment.filters["yaml"] = lambda options: yaml.safe_dump(dict(options), sort_keys=False)
    return environment


def unit_name(replica: str) -> str:
    """The systemd unit that runs a replica."""
    return f"llm-engine@{replica}.service"


def listen_address(address: str) -> str:
    """Where engines listen: everywhere in the host's address family; nftables guards the port."""
    return "::" if ip_address(address).version == 6 else "0.0.0.0"


def internal_ports(launch: LaunchSettings, number: int) -> tuple[int, int]:
    """First and last port that the processes of a host's n-th replica use among themselves."""
    first = launch.internal_ports_from + number * INTERNAL_PORTS
    return first, first + INTERNAL_PORTS - 1


def environment_of(
    replica: Replica,
    engine: EngineSettings,
    launch: LaunchSettings,
    devices: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The environment of a replica, without secrets.

    `devices` is what CUDA calls a GPU where that is not its index, as with slices of MIG GPUs.
    """
    return {
        VISIBLE_DEVICES[engine.device]: ",".join(devices.get(i, str(i)) for i in replica.gpus),
        # Otherwise mixed cards are numbered by speed, not as nvidia-smi and the plan do.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HOME": f"/var/lib/llm/{replica.name}",
        "HF_HOME": f"{CACHE}/hub",
        "VLLM_CACHE_ROOT": f"{CACHE}/{replica.name}",
        "TRITON_CACHE_DIR": f"{CACHE}/{replica.name}/triton",
        # The processes of a replica talk to each other on this host alone.
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_PORT": str(internal_ports(launch, replica.number)[0]),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        **({} if replica.p2p else {"NCCL_P2P_DISABLE": "1"}),
        "VLLM_NO_USAGE_STATS": "1",
        "PATH": "/opt/llm/engines/current/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        **engine.environment,
    }


def options_of(
    replica: Replica, service: ServiceSettings, launch: LaunchSettings, address: str
) -> dict[str, Any]:
    """The options of `vllm serve` for a replica, as its configuration file names them."""
    options: dict[str, Any] = {
        "model": service.weights or service.model.name,
        "served-model-name": service.model.name,
        "host": listen_address(address),
        "port": replica.port,
        "tensor-parallel-size": replica.shape.tensor_parallel,
        "pipeline-parallel-size": replica.shape.pipeline_parallel,
        **({"enable-expert-parallel": True} if replica.shape.expert_parallel else {}),
        **({"dtype": replica.dtype} if replica.dtype else {}),
        **({"max-num-seqs": replica.max_num_seqs} if replica.max_num_seqs else {}),
        "max-model-len": replica.max_model_len,
        "gpu-memory-utilization": replica.gpu_memory_utilization,
        # vLLM's own all-reduce reads the other GPUs' memory as NCCL's P2P does.
        **({} if replica.p2p else {"disable-custom-all-reduce": True}),
        "shutdown-timeout": launch.drain_timeout_s,
    }
    if service.kv_cache_memory_bytes:
        options["kv-cache-memory-bytes"] = service.kv_cache_memory_bytes
    return options | service.arguments


def replica_files(
    replica: Replica,
    service: ServiceSettings,
    engine: EngineSettings,
    launch: LaunchSettings,
    address: str,
    devices: Mapping[int, str] = MappingProxyType({}),
) -> list[HostFile]:
    """A replica's environment file and its engine's configuration file."""
    jinja = _environment()
    env = jinja.get_template("systemd/replica.env.j2").render(
        name=replica.name, environment=environment_of(replica, engine, launch, devices)
    )
    config = jinja.get_template("vllm/replica.yaml.j2").render(
        name=replica.name, options=options_of(replica, service, launch, address)
    )
    return [
        HostFile(f"{REPLICAS}/{replica.name}.env", env),
        HostFile(f"{REPLICAS}/{replica.name}.yaml", config),
    ]


def secrets_file(engine_key: str, hub_token: str | None) -> HostFile:
    """The secrets of all replicas of a host: systemd reads it as root, nobody else can."""
    lines = [f"VLLM_API_KEY={quoted(engine_key)}"]
    if hub_token:
        lines.append(f"HF_TOKEN={quoted(hub_token)}")
    return HostFile(SECRETS, "\n".join(lines) + "\n", mode="600")


def unit_file(engine: EngineSettings, launch: LaunchSettings) -> HostFile:
    """The template unit that runs every replica of a host."""
    text = (
        _environment()
        .get_template("systemd/llm-engine@.service.j2")
        .render(
            user=launch.user,
            firewall=launch.firewall,
            device=engine.device,
            drain_timeout_s=launch.drain_timeout_s,
        )
    )
    return HostFile(UNIT, text)


def firewall_files(
    launch: LaunchSettings, balancers: Iterable[str], ports: Sequence[int]
) -> list[HostFile]:
    """The rules that let only balancers (and `allow_from`) reach the engines' ports, and nobody
    those that the processes of a replica use among themselves."""
    last_internal = internal_ports(launch, len(ports) - 1)[1]
    networks = sorted(
        {ip_network(address) for address in balancers} | set(launch.allow_from), key=str
    )
    jinja = _environment()
    rules = jinja.get_template("nftables/llm.nft.j2").render(
        ipv4=[str(network) for network in networks if network.version == 4],
        ipv6=[str(network) for network in networks if network.version == 6],
        ports=sorted(ports),
        internal=f"{launch.internal_ports_from}-{last_internal}",
    )
    unit = jinja.get_template("systemd/llm-firewall.service.j2").render()
    return [HostFile(FIREWALL, rules), HostFile(FIREWALL_UNIT, unit)]


def host_files(
    plan: HostPlan,
    service: ServiceSettings,
    engine: EngineSettings,
    launch: LaunchSettings,
    address: str,
    balancers: Iterable[str],
    engine_key: str,
    hub_token: str | None = None,
    devices: Mapping[int, str] = MappingProxyType({}),
) -> list[HostFile]:
    """Every file that launch writes on a host, in the order in which they are to be written."""
    files = [secrets_file(engine_key, hub_token), unit_file(engine, launch)]
    if launch.firewall and plan.replicas:
        ports = [replica.port for replica in plan.replicas]
        files += firewall_files(launch, balancers, ports)
    for replica in plan.replicas:
        files += replica_files(replica, service, engine, launch, address, devices)
    return files


def digests(plan: HostPlan, files: Sequence[HostFile], engine: EngineSettings) -> Mapping[str, str]:
    """What each replica runs from, as one digest: it must restart when that changes."""
    shared = {file.path: file.state for file in files if file.path in (UNIT, SECRETS)}
    by_path = {file.path: file.state for file in files}
    result = {}
    for replica in plan.replicas:
        own = [by_path[f"{REPLICAS}/{replica.name}.{suffix}"] for suffix in ("env", "yaml")]
        text = "\n".join([*shared.values(), *own, engine.version_name])
        result[replica.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return result
