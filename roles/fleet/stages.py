"""The stages of a deploy on one host: each hands a role what it needs of the fleet."""

from functools import partial

from pyinfra import host as pyinfra_host
from pyinfra.api import operation

from roles.balancer import certificate_paths
from roles.balancer.deploy import balancer
from roles.balancer.operations import set_aside, take_back
from roles.engine.deploy import install
from roles.fleet.deploy import wants
from roles.fleet.fleet import BALANCERS, GPU_HOSTS, Fleet, Host
from roles.launch import unit_name
from roles.launch.deploy import HostLaunch, current_roll, roll_over, serve, start
from roles.launch.roll import Roll
from roles.launch.state import batches
from roles.topology import Replica
from roles.validation import Endpoint, PlannedReplica
from roles.validation.deploy import report_at_end, validate_balancer, validate_host


def engines(fleet: Fleet, host: Host) -> None:
    """Install the engine, and start replicas where nothing serves yet, on a GPU host."""
    if GPU_HOSTS not in host.roles:
        return
    install(settings=host.engine)
    start(launch=_launch(fleet, host), roll=_roll(fleet))


def roll(fleet: Fleet, host: Host) -> None:
    """Move hosts that serve to what is planned, batch by batch, while balancers pass them by."""
    rolling, settings = _roll(fleet), fleet.settings.launch
    names = [plan.host for plan in fleet.plan.hosts]
    for batch in pyinfra_host.loop(batches(names, settings.roll_batches)):
        addresses = [fleet.addresses[name] for name in batch]
        if BALANCERS in host.roles:
            set_aside(
                name=f"Pass by {', '.join(batch)}",
                addresses=addresses,
                wanted=partial(_set_aside, rolling, batch),
            )
        barrier(f"Nobody sends requests to {', '.join(batch)} if it must restart")
        if host.name in batch:
            roll_over(launch=_launch(fleet, host), roll=rolling, batch=batch)
        barrier(f"The turn of {', '.join(batch)} is over")
        if BALANCERS in host.roles:
            take_back(
                name=f"Take back {', '.join(batch)}",
                addresses=addresses,
                wanted=partial(_was_set_aside, rolling, batch),
            )
    if GPU_HOSTS in host.roles:
        serve(launch=_launch(fleet, host), roll=rolling)


def _roll(fleet: Fleet) -> Roll:
    return current_roll([other.name for other in fleet.having(BALANCERS)])


def _set_aside(rolling: Roll, batch: list[str]) -> bool:
    wanted = rolling.wants(batch)
    if wanted:
        rolling.set_aside |= set(batch)
    return wanted


def _was_set_aside(rolling: Roll, batch: list[str]) -> bool:
    return bool(rolling.set_aside & set(batch))


def _launch(fleet: Fleet, host: Host) -> HostLaunch:
    plan = fleet.plan.on(host.name)
    assert plan is not None
    return HostLaunch(
        plan=plan,
        settings=fleet.settings.launch,
        service=fleet.service,
        engine=host.engine,
        devices=host.devices,
        address=host.address,
        balancers={other.name: other.address for other in fleet.having(BALANCERS)},
        engine_key=fleet.settings.balancer.engine_key,
    )


def balancers(fleet: Fleet, host: Host) -> None:
    """Put nginx in front of the replicas of all hosts, on a balancer."""
    if BALANCERS not in host.roles:
        return
    balancer(
        settings=fleet.settings.balancer,
        plan=fleet.plan,
        addresses=fleet.addresses,
        drained=fleet.drained,
        own_address=host.address,
        model_name=fleet.plan.model,
    )


@operation()
def _barrier():
    """Do nothing; every host that calls it waits here for all others."""
    pyinfra_host.noop("all hosts are here")
    return
    yield


def barrier(reason: str) -> None:
    """Let no host go on before all others are here.

    pyinfra orders the operations of different hosts by how many came before on each, so without
    this a balancer would ask for completions before a host with more steps has started its engines.
    """
    _barrier(name=reason)


def wants_validation() -> bool:
    """Whether `--data validate=…` leaves the validation in; it stays in where nothing is said."""
    return wants("validate", default=True)


def report(fleet: Fleet) -> None:
    """Have the run end with a report on every GPU host and balancer, however it ends."""
    report_at_end(fleet.settings.validation, [host.name for host in fleet.hosts])


def validation(fleet: Fleet, host: Host) -> None:
    """Prove a host: its replicas and GPUs from the host itself, its endpoint from here."""
    settings, balancer_settings = fleet.settings.validation, fleet.settings.balancer
    own = fleet.plan.on(host.name)
    if own and own.replicas:
        validate_host(
            settings=settings,
            replicas=[_planned(replica, fleet.plan.model) for replica in own.replicas],
            key=balancer_settings.engine_key,
        )
    if BALANCERS in host.roles:
        validate_balancer(
            settings=settings,
            endpoint=_endpoint(fleet, host),
            key=balancer_settings.api_key,
            # Exactly what was installed is trusted: it may be of a private authority.
            certificate_path=certificate_paths(balancer_settings)[0],
        )


def _planned(replica: Replica, model: str) -> PlannedReplica:
    return PlannedReplica(
        name=replica.name,
        unit=unit_name(replica.name),
        base_url=f"http://127.0.0.1:{replica.port}",
        model=model,
        gpus=replica.gpus,
        tensor_parallel=replica.shape.tensor_parallel,
        pipeline_parallel=replica.shape.pipeline_parallel,
    )


def _endpoint(fleet: Fleet, host: Host) -> Endpoint:
    """The balancer as its users reach it: by the name in their certificate, else by its address."""
    settings = fleet.settings.balancer
    named = settings.certificate_file is not None and settings.server_name != "_"
    name = settings.server_name if named else bracketed(host.address)
    upstreams = tuple(
        f"{bracketed(fleet.addresses[replica.host])}:{replica.port}"
        for replica in fleet.plan.replicas
        if replica.host not in fleet.drained
    )
    url = fleet.settings.validation.endpoint_url or f"https://{name}:{settings.port}"
    return Endpoint(url, fleet.plan.model, upstreams)


def bracketed(address: str) -> str:
    """An IP address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address
