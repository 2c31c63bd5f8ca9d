"""A node of the Ray cluster that joins the hosts of a vLLM replica. Pure.

Each replica has a cluster of its own, which starts and ends with it. All ports of a node are among
those of its host's replica, so that only the group's hosts reach them.
"""

from roles.engine.deployment import Group

# Source: Ray 2.60 (`ray start --help`): the ports of a node, after its host's first port. Those of
# workers come in a row, and up to the port where engines meet.
_PORTS = {
    "node-manager-port": 10,
    "object-manager-port": 11,
    "runtime-env-agent-port": 12,
    "dashboard-agent-grpc-port": 13,
    "dashboard-agent-listen-port": 14,
    "metrics-export-port": 15,
}
_CLIENT_PORT, _WORKERS = 16, (20, 49)


def ray_node(folder: str, group: Group, first_port: int) -> str:
    """The sh line that starts a host's node of the cluster; `folder` has the programs, and
    `first_port` is the first of the replica's on this host."""
    ports = {name: first_port + place for name, place in _PORTS.items()}
    ports["min-worker-port"], ports["max-worker-port"] = (first_port + place for place in _WORKERS)
    # Workers are started ahead, one a core, and each takes a port.
    words = [f"--num-gpus={group.gpus}", f"--num-cpus={group.gpus}", "--disable-usage-stats"]
    words += [f"--{name}={port}" for name, port in ports.items()]
    at = _endpoint(group.head, group.engines_port)
    if group.rank:
        role = [f"--address={at}"]
    else:
        role = ["--head", f"--port={group.engines_port}", "--include-dashboard=false"]
        role += ["$client"]
    # The host's own address is known when it starts.
    start = " ".join([f"{folder}/ray start", *role, '--node-ip-address="$VLLM_HOST_IP"', *words])
    if group.rank:
        return start
    # With grpc Ray's head listens for clients, at 10001 unless told; without it the option is
    # refused.
    port = first_port + _CLIENT_PORT
    found = f'"{folder}/python" -c "import grpc" 2>/dev/null'
    return f"client=; ! {found} || client=--ray-client-server-port={port}; {start}"


def ray_environment(group: Group | None) -> dict[str, str]:
    """What vLLM finds its cluster by; none without Ray."""
    if group is None or group.executor != "ray":
        return {}
    return {"RAY_ADDRESS": _endpoint(group.head, group.engines_port)}


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
