"""Builds the fleet, checked and planned, from what an inventory declares. Pure, except that files
named in settings are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from roles.balancer import generated_key_file, read_key, route_conflicts
from roles.declaration import (
    BALANCERS,
    GPU_HOSTS,
    ROLES,
    Declaration,
    DeclarationError,
    FleetSettings,
    Service,
    merged,
)
from roles.driver import DriverSettings
from roles.engine import ENGINE_SETTINGS, Build
from roles.fleet.contradictions import (
    ignored_routes,
    names_of_groups,
    shared_addresses,
    shared_endpoints,
    shared_keys,
    shared_user,
    ssh_port_problems,
    virtual_address_problems,
)
from roles.fleet.engine_problems import engine_problems
from roles.fleet.fleet import Fleet, Host
from roles.fleet.hosts import Defaults, Problems, as_mapping, check_host, validated
from roles.fleet.member_addresses import member_address_problems
from roles.fleet.ports import internal_clashes, port_clashes, shut_ports, unused_ports
from roles.hardware import Hardware
from roles.plan import HostPlan, Plan, with_p2p_of
from roles.topology import Chosen, decided, not_deployed_yet, plan_services, rivals
from roles.tuning import TuningSettings


def build(
    declaration: Declaration,
    secrets: bool = True,
    hardware: bool = True,
    clusters: bool = False,
) -> Fleet:
    """Check a whole declaration and plan it.

    Without `secrets` files with keys may be missing, as for the review of a plan. Without
    `hardware` the GPUs of a host may be unknown, as before they are first recorded; nothing is
    planned then. With `clusters` a plan is enough for a model that only several hosts together
    hold; no deploy starts it yet. Raises DeclarationError with every problem, each with its place
    and a remedy.
    """
    if not declaration.fleet:
        problem = "all: says nothing under llm; write all = (hosts, {'llm': {'services': […]}})"
        raise DeclarationError(declaration.name, [problem])
    settings, problems = validated(FleetSettings, dict(declaration.fleet), "", secrets)
    defaults, found = _defaults(declaration.fleet, settings, secrets)
    problems += found
    hosts, found = _hosts(declaration, defaults)
    problems += found
    if not declaration.hosts:
        problems.append(f"hosts: there is none; list some in {GPU_HOSTS} and {BALANCERS}")
    if len(hosts) == len(declaration.hosts):
        problems += [*_roles_missing(settings, hosts), *shared_addresses(hosts)]
        problems += virtual_address_problems(declaration, settings, hosts)
        problems += [*shared_endpoints(declaration), *names_of_groups(declaration)]
        problems += shared_user(declaration, settings)
    if settings is not None:
        problems += [
            *_keys_missing(settings),
            *shared_keys(settings, secrets),
            *_route_problems(settings),
        ]
        problems += ignored_routes(settings)
        settings, found = _with_engine_key(settings, declaration.name, secrets)
        problems += found
    if settings is None or problems:
        raise DeclarationError(declaration.name, problems)
    unknown = unknown_hosts(hosts)
    if unknown and not hardware:
        return Fleet(declaration.name, settings, hosts, _no_plans(settings))
    if not unknown:
        settings, hosts, problems = _with_decided_engines(declaration, settings, hosts, secrets)
    if problems:
        raise DeclarationError(declaration.name, problems)
    plans, problems = _plans(settings, hosts)
    problems = [*map(_unknown_hardware, unknown), *problems]
    problems += _unplaced_services(settings, plans, clusters)
    problems += [*port_clashes(settings, hosts, plans), *unused_ports(hosts, plans)]
    problems += ssh_port_problems(declaration, settings, hosts, plans)
    problems += shut_ports(declaration, settings, hosts, plans)
    problems += member_address_problems(hosts, plans)
    problems += [*_cache_problems(settings, plans), *internal_clashes(settings, hosts, plans)]
    fleet = Fleet(declaration.name, settings, hosts, plans)
    problems += engine_problems(fleet)
    if problems:
        raise DeclarationError(declaration.name, problems)
    return fleet


# Where a model does not fit and the share of a GPU's memory is below this, the share is to blame.
_LOW_UTILIZATION = 0.5


def unknown_hosts(hosts: tuple[Host, ...]) -> list[str]:
    """Names of hosts whose GPUs must be planned but are unknown."""
    return [
        host.name
        for host in hosts
        if GPU_HOSTS in host.roles and host.hardware is None and not host.retired
    ]


def with_hardware(fleet: Fleet, name: str, hardware: Hardware) -> tuple[Fleet | None, Fleet]:
    """The fleet with new hardware of one host: the one that this run goes on with, and the one that
    is planned from scratch.

    A run may go on only if its plan differs in P2P alone; the first is None where more differs.
    ValueError where there is no plan.
    """
    hosts = tuple(
        replace(host, hardware=hardware) if host.name == name else host for host in fleet.hosts
    )
    plans, problems = _plans(fleet.settings, hosts)
    if problems:
        raise ValueError("; ".join(problems))
    new = replace(fleet, hosts=hosts, plans=plans)
    adopted = [_adopted(old, now, name) for old, now in zip(fleet.plans, plans, strict=True)]
    good = tuple(plan for plan in adopted if plan is not None)
    return (replace(new, plans=good) if len(good) == len(adopted) else None), new


def _adopted(old: Plan, new: Plan, name: str) -> Plan | None:
    """The old plan with the new plan's P2P on a host; None where more than P2P differs."""
    before = old.on(name)
    # Whether one host of a replica works with P2P decides it for all of them.
    shared = {host for one in (before.placed if before else ()) for host in one.hosts}
    adopted: Plan | None = old
    for host in dict.fromkeys((name, *sorted(shared))):
        if adopted is not None:
            adopted = _with_host_of(adopted, new, host)
    return adopted


def _with_host_of(old: Plan, new: Plan, name: str) -> Plan | None:
    before, now = old.on(name), new.on(name)
    if before is None or now is None:
        return old if before is now else None
    adopted = with_p2p_of(before, now)
    return None if adopted is None else _with_host_plan(old, adopted)


def _with_host_plan(plan: Plan, host_plan: HostPlan) -> Plan:
    hosts = tuple(host_plan if host.host == host_plan.host else host for host in plan.hosts)
    return replace(plan, hosts=hosts)


def _defaults(
    data: Mapping[str, Any], settings: FleetSettings | None, secrets: bool
) -> tuple[Defaults, Problems]:
    """The fleet's values of settings that hosts may override.

    Invalid ones are left out without a problem, so that hosts are checked even then.
    """
    driver, _ = validated(DriverSettings, as_mapping(data.get("driver")), "", secrets)
    tuning, _ = validated(TuningSettings, as_mapping(data.get("tuning")), "", secrets)
    services = settings.services if settings else ()
    written = as_mapping(data.get("engines"))
    kinds: dict[str, Build] = {}
    for kind in dict.fromkeys((*written, *(kind for one in services for kind in one.kinds))):
        if kind in ENGINE_SETTINGS:
            found, _ = validated(ENGINE_SETTINGS[kind], as_mapping(written.get(kind)), "", secrets)
            kinds |= {kind: found} if found else {}
    engines, problems = _service_engines(services, written, kinds, secrets)
    return Defaults(data, secrets, services, driver, tuning, kinds, engines), problems


def _service_engines(
    services: tuple[Service, ...],
    written: Mapping[str, Any],
    kinds: Mapping[str, Build],
    secrets: bool,
) -> tuple[dict[tuple[str, str], Build], Problems]:
    """The settings of each service's engines, before hosts override them."""
    engines: dict[tuple[str, str], Build] = {}
    problems: Problems = []
    wanted = ((number, one, kind) for number, one in enumerate(services) for kind in one.kinds)
    for number, service, kind in wanted:
        engine = kinds.get(kind)
        if service.engine_settings:
            data = merged(as_mapping(written.get(kind)), service.engine_settings)
            where = f"services[{number}].engine.{kind}"
            engine, found = validated(ENGINE_SETTINGS[kind], data, where, secrets)
            problems += found
        if engine is not None:
            engines[service.name, kind] = engine
    return engines, problems


def _hosts(declaration: Declaration, defaults: Defaults) -> tuple[tuple[Host, ...], Problems]:
    """The valid hosts, and the problems of the others."""
    hosts: list[Host] = []
    problems: dict[str, None] = {}
    for name, declared in declaration.hosts.items():
        host, found = check_host(name, declared, declaration.recorded.get(name), defaults)
        # A problem of the fleet's settings is reported once, not for each host.
        problems |= dict.fromkeys(found)
        hosts += [host] if host is not None else []
    return tuple(hosts), list(problems)


def _roles_missing(settings: FleetSettings | None, hosts: tuple[Host, ...]) -> Iterator[str]:
    """Groups without hosts, and missing settings of the balancer."""
    there = {role for host in hosts for role in host.roles}
    alone = settings is not None and all(one.single_endpoint for one in settings.services)
    for role in ROLES if not alone else (GPU_HOSTS,):
        if hosts and role not in there:
            yield f"{role}: no host is in this group; add one"
    if settings is not None and settings.balancer is None and (not alone or BALANCERS in there):
        yield (
            "balancer: is missing; set it, or make every service a single_endpoint and leave the "
            f"group {BALANCERS} out"
        )


def _with_engine_key(
    settings: FleetSettings, inventory: str, secrets: bool
) -> tuple[FleetSettings, Problems]:
    """The settings with the file of the engines' key, which a deploy makes if it is missing.

    Nothing is written here, so a plan or a check makes no key.
    """
    balancer = settings.balancer
    if balancer is None or balancer.engine_key_file is not None:
        return settings, []
    file = generated_key_file(balancer, inventory)
    problems: Problems = []
    if secrets and file.expanduser().exists():
        try:
            read_key(file)
        except ValueError as error:
            problems.append(f"balancer.engine_key_file: {error}")
    balancer = balancer.model_copy(update={"engine_key_file": file})
    return settings.model_copy(update={"balancer": balancer}), problems


def _keys_missing(settings: FleetSettings) -> Iterator[str]:
    for number, service in enumerate(settings.services):
        route = service.route
        if settings.balancer is None and not (route.api_key_file or route.engine_key_file):
            yield (
                f"services[{number}].route.api_key_file: is missing; set it where there is no "
                "balancer that has one"
            )


def _route_problems(settings: FleetSettings) -> list[str]:
    if settings.balancer is None:
        return []
    routes = {number: one.route for number, one in enumerate(settings.services)}
    return route_conflicts(routes, settings.balancer)


def _with_decided_engines(
    declaration: Declaration, settings: FleetSettings, hosts: tuple[Host, ...], secrets: bool
) -> tuple[FleetSettings, tuple[Host, ...], Problems]:
    """The settings with the engines of services that leave them to the plan, the hosts with their
    builds, and the problems with those."""
    allowed = [kind for kind in ENGINE_SETTINGS if getattr(settings.engines, kind) is not None]
    services = tuple(
        decided(
            one,
            allowed,
            partial(_planned_with, settings, hosts, number),
            {
                kind: frozenset(_unsuited(declaration, settings, hosts, one, kind, secrets))
                for kind in rivals(one, allowed)[1:]
            },
        )
        for number, one in enumerate(settings.services)
    )
    if [one.kinds for one in services] == [one.kinds for one in settings.services]:
        return settings.model_copy(update={"services": services}), hosts, []
    settings = settings.model_copy(update={"services": services})
    defaults, problems = _defaults(declaration.fleet, settings, secrets)
    hosts, found = _hosts(declaration, defaults)
    return settings, hosts, [*problems, *found]


def _unsuited(
    declaration: Declaration,
    settings: FleetSettings,
    hosts: tuple[Host, ...],
    service: Service,
    kind: str,
    secrets: bool,
) -> Iterator[str]:
    """The cards that a kind of engine cannot serve as their hosts' drivers and builds are set."""
    found = (gpu.name for host in hosts if host.hardware for gpu in host.hardware.gpus)
    cards = tuple(dict.fromkeys(found))
    for card in cards:
        engines = {one: Chosen(kind if one == card else service.kind) for one in cards}
        alone = settings.model_copy(update={"services": (service.with_engines(engines),)})
        defaults, problems = _defaults(declaration.fleet, alone, secrets)
        if problems or _hosts(declaration, defaults)[1]:
            yield card


def _planned_with(
    settings: FleetSettings, hosts: tuple[Host, ...], number: int, service: Service
) -> Plan:
    """The plan of a service as it would be with other settings."""
    services = [*settings.services[:number], service, *settings.services[number + 1 :]]
    plans, _ = _plans(settings.model_copy(update={"services": tuple(services)}), hosts)
    return plans[number]


def _plans(settings: FleetSettings, hosts: tuple[Host, ...]) -> tuple[tuple[Plan, ...], Problems]:
    planned = [host for host in hosts if not host.retired]
    hardware = {host.name: host.hardware for host in planned if host.hardware is not None}
    ports = {host.name: host.ports for host in planned if host.ports is not None}
    prices = {h.name: h.price_per_month for h in planned if h.price_per_month is not None}
    pinned = {host.name: host.pinned_gpus for host in planned if host.pinned_gpus}
    speeds = {h.name: h.network_gbit_s for h in planned if h.network_gbit_s is not None}
    try:
        plans = plan_services(settings.services, hardware, ports, prices, pinned, speeds)
        return _with_unknown_options(settings.services, hosts, plans), []
    except ValueError as error:
        return _no_plans(settings), str(error).splitlines()


def _with_unknown_options(
    services: Sequence[Service], hosts: tuple[Host, ...], plans: tuple[Plan, ...]
) -> tuple[Plan, ...]:
    """The plans, which warn of options that no version is known to have where those of a host's
    own version are not listed; `_lacking` refuses the others."""
    builds = {host.name: host.engines for host in hosts}

    def unknown(plan: HostPlan, service: Service) -> tuple[str, ...]:
        kinds = dict.fromkeys(one.engine for one in plan.replicas) or service.kinds
        found = (builds[plan.host].get((service.name, kind)) for kind in kinds)
        return tuple(
            f"arguments: {one}"
            for build in found
            if build is not None and not build.options_are_listed
            for one in build.unknown_options(service.arguments)
        )

    return tuple(
        replace(
            plan,
            hosts=tuple(
                replace(one, warnings=(*one.warnings, *unknown(one, service))) for one in plan.hosts
            ),
        )
        if service.arguments
        else plan
        for service, plan in zip(services, plans, strict=True)
    )


def _no_plans(settings: FleetSettings) -> tuple[Plan, ...]:
    return tuple(Plan(service.name, service.model.id, ()) for service in settings.services)


def _unknown_hardware(name: str) -> str:
    return (
        f"hosts[{name}].gpus: are neither declared nor recorded; record them with "
        'deploys/discover.py, or declare them, for instance "2x NVIDIA L40S"'
    )


def _unplaced_services(
    settings: FleetSettings, plans: tuple[Plan, ...], clusters: bool
) -> Iterator[str]:
    """Which models no host holds; with `clusters` not those that several hosts hold together."""
    for number, plan in enumerate(plans):
        where = f"services[{number}].model"
        if not plan.hosts or plan.replicas or (clusters and plan.clusters):
            continue
        remedies = dict.fromkeys(one for host in plan.hosts for one in host.remedies)
        lines = "".join(f"\n    would fit with: {one}" for one in remedies)
        if plan.clusters:
            yield f"{where}: {not_deployed_yet(plan)}{lines}"
            continue
        problems = dict.fromkeys(one for host in plan.hosts for one in host.problems)
        why = "; ".join(problems) or "it gets no GPU; give it a share or pinned_gpus"
        utilization = settings.services[number].gpu_memory_utilization
        if utilization < _LOW_UTILIZATION:
            place = f"services[{number}].gpu_memory_utilization"
            yield f"{place}: {utilization:g} leaves {plan.model} too little; raise it: {why}"
            continue
        yield f"{where}: {plan.model} fits no host: {why}{lines}"


def _cache_problems(settings: FleetSettings, plans: tuple[Plan, ...]) -> Iterator[str]:
    """Declared KV caches that fit on no GPU beside the weights: the engine would not start."""
    for number, (service, plan) in enumerate(zip(settings.services, plans, strict=True)):
        wanted = service.kv_cache_memory_bytes
        room = [one.memory.total_gib - one.memory.weights_gib for one in plan.replicas]
        if wanted is not None and room and wanted > (most := int(max(room) * 2**30)):
            yield (
                f"services[{number}].kv_cache_memory_bytes: {wanted} is more than any GPU has left "
                f"beside the weights; set less than {most}, or leave it out"
            )
