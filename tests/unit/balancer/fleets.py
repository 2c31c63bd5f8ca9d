"""Small plans and settings for the balancer's tests."""

from pathlib import Path
from typing import Any

from roles.balancer import BalancerSettings
from roles.plan import HostPlan, MemorySum, Plan, Replica, Shape

CLIENT_KEY = "sk-test.client~key+0123/456789=="
ENGINE_KEY = "engine-key-0123456789"
MEMORY = MemorySum(24, 1, 1, 15, 0, 1, 1, 1, 4, 2, 10_000)


def replica(host: str, name: str, port: int) -> Replica:
    return Replica(name, 0, host, "chat", (0,), Shape(1), port, 8192, 0.9, MEMORY)


def plan(**ports: list[int]) -> Plan:
    """A plan of hosts with one replica a port, called r0, r1 …"""
    hosts = []
    for host, numbers in ports.items():
        replicas = tuple(replica(host, f"r{i}", port) for i, port in enumerate(numbers))
        hosts.append(HostPlan(host, (), replicas, (), ()))
    return Plan("chat", "tiny", tuple(hosts))


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file of that mode."""
    path.write_text(text)
    path.chmod(mode)
    return path


def settings(folder: Path, **values: Any) -> BalancerSettings:
    """Settings whose key files are below `folder`."""
    api_key = private(folder / "api.key", CLIENT_KEY + "\n")
    engine_key = private(folder / "engine.key", ENGINE_KEY)
    keys = {"api_key_file": api_key, "engine_key_file": engine_key}
    return BalancerSettings.model_validate(keys | values)
