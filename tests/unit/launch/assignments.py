"""Replicas with all that their start follows from, as a stage makes them."""

from typing import Any

from roles.engine import Build, VllmSettings, deployment
from roles.fleet.launching import served
from roles.hardware import declared_hardware
from roles.launch import Assignment, HostLaunch, LaunchSettings
from roles.plan import HostPlan
from roles.topology import ServiceSettings, plan_host

KEY = "engine-key-0123456789"
ADDRESS, BALANCER = "10.0.0.1", "10.0.0.9"


def service(**more: Any) -> ServiceSettings:
    data = {"name": "qwen", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | more)


def plan(gpus: str = "4x NVIDIA A10G") -> HostPlan:
    return plan_host(service(), "gpu3", declared_hardware(gpus, None))


def launch(
    build: Build | None = None,
    key: str = KEY,
    settings: LaunchSettings | None = None,
    host_plan: HostPlan | None = None,
    address: str = ADDRESS,
    **more: Any,
) -> HostLaunch:
    """What a host runs whose plan is of one service; `more` are settings of the service."""
    own = build or VllmSettings()
    assignments = tuple(
        Assignment(replica, own.kind, deployment(own), own, served(service(**more)), key)
        for replica in (host_plan or plan()).replicas
    )
    return HostLaunch(assignments, settings or LaunchSettings(), address, (BALANCER,))
