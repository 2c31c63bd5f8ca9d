"""The stage that installs engines and starts replicas where nothing serves yet."""

from dataclasses import replace
from functools import partial

from pyinfra import host

from roles.declaration import GPU_HOSTS, Service
from roles.engine import deployment
from roles.engine.deploy import copy_adapters, install
from roles.fleet import Fleet
from roles.hardware import Hardware, LinkVerdict
from roles.interconnect.deploy import measure
from roles.interconnect.operations import Target
from roles.launch.deploy import start
from roles.models import Adapter
from roles.plan import HostPlan
from roles.stages.answers import installed_engines, launch_state
from roles.stages.discovery import record_verdicts
from roles.stages.messages import wants
from roles.stages.run import Run


def engines(run: Run) -> None:
    """Install engines on a GPU host, measure whether the GPUs of each replica work together, and
    start replicas if none runs yet. Nothing is installed on a retired host."""
    this_host = run.fleet.host(host.name)
    if GPU_HOSTS not in this_host.roles:
        return
    if not this_host.retired:
        builds = run.fleet.engines_on(host.name)
        install(
            installations=[deployment(build).installation(build) for build in builds],
            found=partial(installed_engines, run, host.name),
            changed=partial(run.changed, host.name),
        )
        if adapters := adapters_on(run.fleet, host.name):
            copy_adapters(adapters=adapters)
        for service in host.loop(run.fleet.settings.services):
            if plan_of(run.fleet, host.name, service) is not None:
                _measure(run, host.name, service)
    start(
        launch=partial(run.launch, host.name),
        run_id=run.id,
        note=partial(run.note, host.name),
        known_state=partial(launch_state, run, host.name),
        on_change=partial(run.changed, host.name),
    )


def adapters_on(fleet: Fleet, name: str) -> tuple[Adapter, ...]:
    """The LoRA adapters that the replicas of a host serve."""
    serving = (service for service, plan in fleet.on(name) if plan.placed)
    return tuple(one for service in serving for one in service.lora_adapters.values())


def _measure(run: Run, name: str, service: Service) -> None:
    measure(
        target=partial(_target, run, name, service),
        settings=run.fleet.settings.interconnect,
        anew=wants("measure_interconnect", default=False),
        keep=partial(record_verdicts, run, name),
        replan=partial(_plan_with, run, name, service),
        adopt=partial(_adopt, run, name),
        record=run.report.record,
    )


def _target(run: Run, name: str, service: Service) -> Target:
    this_host, plan = run.fleet.host(name), plan_of(run.fleet, name, service)
    assert plan is not None
    return Target(
        plan=plan,
        hardware=_hardware(run, name),
        build=run.fleet.engine_of(name, service.name),
        user=run.fleet.settings.launch.user,
        devices=this_host.devices,
        driver_version=this_host.driver_version,
    )


def _hardware(run: Run, name: str) -> Hardware:
    hardware = run.fleet.host(name).hardware
    assert hardware is not None
    return hardware


def _plan_with(
    run: Run, name: str, service: Service, verdicts: tuple[LinkVerdict, ...]
) -> HostPlan:
    """A host's plan as it would be with these verdicts; ValueError where there is none."""
    fleet = run.planned_with(name, _hardware_with(run, name, verdicts))
    plan = plan_of(fleet, name, service)
    if plan is None:
        raise ValueError(f"{name} has no GPUs")
    return plan


def plan_of(fleet: Fleet, name: str, service: Service) -> HostPlan | None:
    """The plan of a service on a host, or None."""
    return next((plan for one, plan in fleet.on(name) if one.name == service.name), None)


def _hardware_with(run: Run, name: str, verdicts: tuple[LinkVerdict, ...]) -> Hardware:
    return replace(_hardware(run, name), interconnect=verdicts)


def _adopt(run: Run, name: str, verdicts: tuple[LinkVerdict, ...]) -> bool:
    """Plan again with these verdicts of a host's links; returns whether the run can go on."""
    return run.replan(name, _hardware_with(run, name, verdicts))[0]
