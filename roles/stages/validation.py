"""The stage that validates hosts and endpoints, and the report at the end of the run."""

from collections.abc import Iterable

from pyinfra import host

from roles.balancer import balancer_of, base_url, certificate_paths
from roles.checks.deploy import report_at_end
from roles.declaration import BALANCERS, Service
from roles.engine import deployment
from roles.fleet import Fleet, Host
from roles.fleet import served as served_by
from roles.hardware import driver_indexes, readings
from roles.host.outcome import warn
from roles.host.paths import unit_name
from roles.plan import Plan, Replica
from roles.stages.answers import launch_state
from roles.stages.messages import wants
from roles.stages.run import Run
from roles.validation import RECOGNITION_TOKENS, Endpoint, PlannedReplica
from roles.validation.deploy import validate_balancer, validate_host


def wants_validation() -> bool:
    """Whether to validate: `--data validate=false` turns it off."""
    return wants("validate", default=True)


def report(run: Run) -> None:
    """Make the run end with a report on every GPU host and balancer, however it ends."""
    names = [one.name for one in run.fleet.hosts]
    report_at_end(run.state, run.fleet.settings.validation.report_dir, names)


def validation(run: Run) -> None:
    """Validate a host: its replicas and GPUs from the host itself, its endpoints from here."""
    fleet, this_host = run.fleet, run.fleet.host(host.name)
    out = run.left_out(host.name) | run.unjoined(host.name, launch_state(run, host.name))
    for name, reason in out.items():
        warn(f"{name} is not validated: {reason}")
    replicas = [one for one in planned_replicas(fleet, this_host) if one.name not in out]
    if replicas and this_host.hardware is not None:
        validate_host(
            settings=fleet.settings.validation,
            replicas=replicas,
            tool=readings.tool_of(this_host.hardware.gpus),
        )
    settings = fleet.settings.balancer
    if BALANCERS not in this_host.roles or settings is None:
        return
    for service, plan in host.loop(served(fleet)):
        validate_balancer(
            settings=fleet.settings.validation,
            endpoint=endpoint_of(fleet, this_host, service, plan),
            key=fleet.settings.keys(service).client or "",
            # Only the installed certificate is trusted: its authority may be private.
            certificate_path=certificate_paths(settings)[0],
        )


def served(fleet: Fleet) -> tuple[tuple[Service, Plan], ...]:
    """The services with a planned replica; where all hosts are retired, a service has none."""
    return tuple((service, plan) for service, plan in fleet.services if plan.replicas)


def planned_replicas(fleet: Fleet, this_host: Host) -> list[PlannedReplica]:
    """A host's replicas of all services, as validation expects them."""
    return [
        _planned(fleet, this_host, service, replica, plan.model)
        for service, plan in fleet.services
        for replica in plan.replicas
        if replica.host == this_host.name
    ]


def _planned(
    fleet: Fleet, this_host: Host, service: Service, replica: Replica, model: str
) -> PlannedReplica:
    assert this_host.hardware is not None
    index = driver_indexes(this_host.hardware)
    slices = {gpu.index for gpu in this_host.hardware.gpus if gpu.mig_profile}

    def by_driver(gpus: Iterable[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(index[gpu] for gpu in gpus))

    build = fleet.engine_of(this_host.name, service.name, replica.engine)
    service = service.served_by(replica.engine)
    long_enough = replica.max_model_len >= RECOGNITION_TOKENS
    return PlannedReplica(
        name=replica.name,
        unit=unit_name(replica.name),
        base_url=f"http://127.0.0.1:{replica.port}",
        model=model,
        key=fleet.settings.keys(service).engine or "",
        abilities=deployment(build).abilities(served_by(service)) if long_enough else (),
        task=service.task,
        adapters={name: deployment(build).adapter_model(model, name) for name in service.adapters},
        embedding_size=service.embedding_size or service.model.hidden_size,
        gpus=by_driver(replica.gpus),
        tensor_parallel=replica.shape.tensor_parallel,
        pipeline_parallel=replica.shape.pipeline_parallel,
        sliced=by_driver(slices.intersection(replica.gpus)),
    )


def endpoint_of(fleet: Fleet, this_host: Host, service: Service, plan: Plan) -> Endpoint:
    """A service's endpoint on a balancer, as clients reach it."""
    settings = fleet.settings.balancer
    assert settings is not None
    upstreams = tuple(
        f"{bracketed(fleet.addresses[replica.host])}:{replica.port}"
        for replica in plan.replicas
        if not fleet.drained.intersection(replica.hosts)
    )
    url = base_url(
        settings, service.route.match, this_host.address, fleet.settings.validation.endpoint_url
    )
    return Endpoint(url, plan.model, upstreams, balancer_of(settings).kind, service.task)


def bracketed(address: str) -> str:
    """An IP address in the form that a URL needs."""
    return f"[{address}]" if ":" in address else address
