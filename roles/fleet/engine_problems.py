"""What the builds of engines lack of what a planned fleet needs. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from roles.declaration import FleetSettings, Service
from roles.engine import Build
from roles.fleet.fleet import Fleet
from roles.fleet.launching import assignment
from roles.launch import alike
from roles.plan import HostPlan, Replica


@dataclass(frozen=True)
class _Serving:
    """A service as one engine serves it on a host: its number, the engine's build, and the part of
    the host's plan with that engine's replicas."""

    number: int
    service: Service
    build: Build
    plan: HostPlan


def engine_problems(fleet: Fleet) -> list[str]:
    """Each problem with the engines of planned replicas once, with its place and a remedy."""
    serving = list(_serving(fleet))
    problems = (
        *_builds_missing(serving),
        *_not_joined(fleet),
        *_open_engines(fleet.settings, serving),
        *_lacking(serving),
    )
    return list(dict.fromkeys(problems))


def _serving(fleet: Fleet) -> Iterator[_Serving]:
    """The engines of all planned replicas, by host."""
    numbers = {service.name: number for number, service in enumerate(fleet.settings.services)}
    for host in fleet.hosts:
        for service, build, replicas in fleet.serving(host.name):
            plan = fleet.plans[numbers[service.name]].on(host.name)
            assert plan is not None
            part = replace(plan, replicas=replicas, parts=())
            yield _Serving(numbers[service.name], service, build, part)


def _builds_missing(serving: Sequence[_Serving]) -> Iterator[str]:
    """Settings that the engines of planned replicas need and the inventory lacks."""
    for one in serving:
        if one.build.missing:
            setting, what = one.build.missing
            yield f"engines.{one.build.kind}.{setting}: {what}"


def _not_joined(fleet: Fleet) -> Iterator[str]:
    """Why the engines of replicas over several hosts cannot be joined."""
    for number, plan in enumerate(fleet.plans):
        for replica in plan.replicas:
            hosts = replica.hosts if replica.members else ()
            builds = [fleet.engine_of(name, plan.service, replica.engine) for name in hosts]
            problems = [build.executor_problem(replica.executor) for build in builds]
            yield from (f"services[{number}].executor: {one}" for one in problems if one)
            if not builds or any(problems) or any(build.missing for build in builds):
                continue
            if len(_starts(fleet, fleet.settings.services[number], replica, builds)) > 1:
                yield (
                    f"services[{number}].members: {', '.join(hosts)} run one replica, and "
                    "their engines differ; give them the same engines settings"
                )


def _starts(fleet: Fleet, service: Service, replica: Replica, builds: Sequence[Build]) -> set[str]:
    """How the hosts of a replica would start it by their own settings, each different way once."""
    own = service.served_by(replica.engine)
    return {
        alike(
            assignment(fleet, fleet.host(name), own, build, replica.part_on(name), key=""),
            fleet.settings.launch,
        )
        for name, build in zip(replica.hosts, builds, strict=True)
    }


def _open_engines(settings: FleetSettings, serving: Sequence[_Serving]) -> Iterator[str]:
    """Engines that ask for no key, where nothing else does: whoever reaches one may use and change
    it."""
    for one in serving:
        if one.build.asks_for_key:
            continue
        where = f"services[{one.number}].engine: {one.build.kind} asks for no key, and"
        if settings.balancer is None:
            yield f"{where} there is no balancer, which would; add one, or take another engine"
        if not settings.launch.firewall:
            yield f"{where} launch.firewall is off; turn it on, or take another engine"
        if settings.launch.allow_from:
            yield (
                f"{where} launch.allow_from lets others than balancers reach it; leave it out, "
                "or take another engine"
            )


def _lacking(serving: Sequence[_Serving]) -> Iterator[str]:
    """What the versions of engines do not have of what their services need."""
    for one in serving:
        service, build, where = one.service, one.build, f"services[{one.number}]"
        params, arguments = service.engine_params, service.all_arguments
        recipe = service.model_recipe
        if recipe is not None and build.is_older(recipe.least_version):
            yield (
                f"{where}.model: {service.model.name} needs {recipe.least} "
                f"by {recipe}, and {build.version_name} is older; set a newer "
                f"engines.{build.kind}.requirement, or {where}.recipe: False"
            )
        elif problem := build.lacks(service.planned_model, params, arguments, one.plan):
            yield f"{where}.arguments: {problem}"
        elif build.options_are_listed:
            for problem in build.unknown_options(arguments):
                yield f"{where}.arguments: {problem}"
