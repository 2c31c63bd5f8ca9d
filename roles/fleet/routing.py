"""The routes of balancers, made from a fleet's plans. Pure, except that files of keys are read."""

from roles.balancer import Member, Route
from roles.declaration import Service
from roles.fleet.fleet import Fleet
from roles.plan import Plan


def routes(fleet: Fleet) -> tuple[Route, ...]:
    """A route for each service of the inventory that has replicas, in order."""
    return tuple(_route(fleet, service, plan) for service, plan in fleet.services if plan.replicas)


def members_by_service(fleet: Fleet) -> dict[str, tuple[Member, ...]]:
    """Every planned replica as a member of its service's upstream."""
    return {plan.service: _members(fleet, service, plan) for service, plan in fleet.services}


def _members(fleet: Fleet, service: Service, plan: Plan) -> tuple[Member, ...]:
    agent = fleet.settings.watchdog.port if service.watchdog.enabled else None
    return tuple(
        Member(
            *(r.id, r.host, fleet.addresses[r.host], r.port, r.weight, agent, r.gpus),
            others=r.members[1:] or None,
        )
        for r in plan.replicas
    )


def _route(fleet: Fleet, service: Service, plan: Plan) -> Route:
    members = _members(fleet, service, plan)
    keys = fleet.settings.keys(service)
    assert keys.client is not None
    return Route(
        service=plan.service,
        model=plan.model,
        members=members,
        match=service.route.match,
        api_key=keys.client,
        engine_key=keys.engine,
        drained=frozenset(
            m.id for m in members if any(host in fleet.drained for host, _ in m.places)
        ),
        task=service.task,
    )
