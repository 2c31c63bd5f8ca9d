"""What each host is to run, made from a fleet's plans. Pure, except that files of keys are read."""

import re

from roles.declaration import BALANCERS, Service
from roles.engine import Build, Served, ServedAdapter, deployment, path_of
from roles.fleet.fleet import Fleet, Host
from roles.launch import Assignment, HostLaunch, Member
from roles.plan import Replica
from roles.topology import ServiceSettings


def host_launch(fleet: Fleet, name: str) -> HostLaunch:
    """What a host is to run of all services; nothing on a retired host."""
    host = fleet.host(name)
    assignments = tuple(
        assignment(fleet, host, service, build, replica, fleet.settings.keys(service).engine or "")
        for service, build, replicas in fleet.serving(name)
        for replica in replicas
    )
    balancers = tuple(other.address for other in fleet.with_role(BALANCERS))
    members = {member.host for one in assignments for member in one.members}
    return HostLaunch(
        *(assignments, fleet.settings.launch, host.address, balancers),
        addresses={one.name: one.address for one in fleet.hosts if one.name in members},
    )


def assignment(
    fleet: Fleet, host: Host, service: Service, build: Build, replica: Replica, key: str
) -> Assignment:
    """What a host is to run of a replica, by an engine that expects this key."""
    return Assignment(
        replica=replica,
        engine=build.kind,
        deployment=deployment(build),
        build=build,
        served=served(service),
        key=key,
        devices=host.devices,
        card=_card(host, replica),
        host=host.name,
        members=tuple(Member(one, fleet.host(one).members_address) for one, _ in replica.members),
    )


def _card(host: Host, replica: Replica) -> str:
    """The kind of a replica's GPUs: "nvidia-l40s"."""
    gpus = host.hardware.gpus if host.hardware else ()
    name = next((gpu.name for gpu in gpus if gpu.index in replica.gpus), "")
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def served(service: ServiceSettings) -> Served:
    """What an engine must know of a service.

    The model's revision applies to its own weights on the hub alone.
    """
    own = service.weights in (None, service.model.name)
    return Served(
        model=service.model.name,
        weights=service.weights or service.model.name,
        min_concurrency=service.min_concurrency,
        arguments=service.all_arguments,
        kv_cache_memory_bytes=service.kv_cache_memory_bytes,
        revision=service.model.revision if own else None,
        task=service.task,
        adapters=tuple(
            ServedAdapter(name, path_of(one), one.rank)
            for name, one in service.lora_adapters.items()
        ),
    )
