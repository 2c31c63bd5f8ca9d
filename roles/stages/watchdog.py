"""The stage that sets the watchdog of GPU hosts up, which heals replicas between deploys."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pyinfra import host

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.fleet import Fleet, Host
from roles.launch import listen_address
from roles.stages.answers import watchdog_state
from roles.stages.run import Run
from roles.watchdog import HostWatch, PeerHost
from roles.watchdog.deploy import watch


def watchdog(run: Run) -> None:
    """Set this host's watchdog up; remove it where nothing is to be watched."""
    if GPU_HOSTS not in run.fleet.host(host.name).roles:
        return
    watch(
        watch=partial(planned_watch, run, host.name),
        found=partial(watchdog_state, run, host.name),
    )


def planned_watch(run: Run, name: str) -> HostWatch:
    """What the watchdog of a host is to know by the run's present plan."""
    entries = [files.entry for files in run.launch(name).replicas]
    engines = {one["engine"]: one["watch"] for one in entries if "watch" in one}
    return host_watch(run.fleet, run.fleet.host(name), engines)


def host_watch(
    fleet: Fleet, this_host: Host, engines: Mapping[str, Mapping[str, Any]]
) -> HostWatch:
    """What the watchdog of a host is to know; `engines` is what is watched of each kind there."""
    settings, launch = fleet.settings, fleet.settings.launch
    gpus = this_host.hardware.gpus if this_host.hardware else ()
    # Slices have numbers of their own, which nvidia-smi does not know.
    sliced = any(gpu.mig_profile for gpu in gpus)
    gpu_names = {} if sliced else {gpu.index: gpu.name for gpu in gpus}
    own = {service.name: service for service, plan in fleet.on(this_host.name) if plan.replicas}
    gpu_hosts = [one for one in fleet.with_role(GPU_HOSTS) if one.name != this_host.name]
    balancers = [one.address for one in fleet.with_role(BALANCERS)]
    return HostWatch(
        host=this_host.name,
        listen_address=listen_address(this_host.address),
        settings=settings.watchdog,
        services={name: service.watchdog for name, service in own.items()},
        start_timeout_s=launch.start_timeout_s,
        engines=engines,
        peers=tuple(_peers(fleet, gpu_hosts, own.keys())),
        allowed=(*balancers, *(one.address for one in gpu_hosts), *map(str, launch.allow_from)),
        firewall=launch.firewall,
        gpu_names=gpu_names,
    )


def _peers(fleet: Fleet, hosts: Sequence[Host], services: Collection[str]) -> Iterator[PeerHost]:
    """Other hosts with watched replicas of these services."""
    for one in hosts:
        replicas = {
            replica.name: service.name
            for service, plan in fleet.on(one.name)
            for replica in plan.replicas
            if service.name in services and service.watchdog.enabled
        }
        if replicas:
            yield PeerHost(one.name, one.address, replicas)
