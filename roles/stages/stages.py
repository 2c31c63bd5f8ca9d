"""The stages of a deploy on one host: each hands a role what it needs of the fleet."""

from collections.abc import Callable, Iterable
from functools import partial

from pyinfra import host as pyinfra_host
from pyinfra.api import State, operation
from pyinfra.api.exceptions import PyinfraError

from roles.balancer import certificate_paths
from roles.balancer.deploy import balancer
from roles.balancer.operations import set_aside, take_back
from roles.driver.deploy import considered, driver, job_of
from roles.driver.operations import Job
from roles.engine import engine_needs
from roles.engine.deploy import install
from roles.fleet.fleet import BALANCERS, GPU_HOSTS, Fleet, Host, replanned
from roles.hardware import HostReport, driver_indexes
from roles.interconnect.deploy import measure
from roles.launch import HostLaunch, unit_name
from roles.launch.deploy import current_launch, current_roll, roll_over, serve, start
from roles.launch.roll import Roll
from roles.launch.state import batches
from roles.plan import Replica, with_p2p_of
from roles.reboot.operations import Need, Reboots, asked, rebooted
from roles.stages.discovery import record_driver, record_verdicts
from roles.stages.load import rebuilt
from roles.stages.messages import say, stopped, wants
from roles.stages.ready import ready
from roles.topology import explain_host
from roles.tuning.deploy import tune
from roles.validation import Endpoint, PlannedReplica
from roles.validation.deploy import report_at_end, validate_balancer, validate_host

_reboots: dict[State, Reboots] = {}


def drivers(fleet: Fleet, host: Host, prove: bool = False) -> None:
    """Take a GPU host from whatever driver it has to GPUs that are ready to serve.

    A host whose replicas serve gets another driver at its turn only. `prove`: ask the GPUs at the
    end although nothing was changed.
    """
    gpu_host, reboots = GPU_HOSTS in host.roles, _current_reboots(fleet)
    upgrade = wants("upgrade_driver", default=False)
    job = job_of(host.driver, engine_needs(host.engine), host.hardware, upgrade)
    need = _reboot_need(fleet, host, job)
    if gpu_host:
        considered(job=job)
        driver(job=job, turn=lambda: not need.waits())
        asked(name="Is a reboot needed?", need=need, reboots=reboots)
    barrier("Drivers are installed where nothing serves")

    def turn(batch: list[str]) -> None:
        driver(job=job, turn=lambda: need.waits() and reboots.roll.wants(batch))
        asked(name="Is a reboot needed now?", need=need, reboots=reboots, at_turn=True)
        _reboot(fleet, host, reboots, batch)

    if any(other.driver.reboot == "when-needed" for other in fleet.having(GPU_HOSTS)):
        _by_turns(fleet, host, reboots.roll, fleet.settings.driver.reboot_batches, turn)
    if gpu_host:
        _prepared(fleet, host, job, reboots, prove)


def _reboot_need(fleet: Fleet, host: Host, job: Job) -> Need:
    def serves() -> bool:
        state = job.state()
        return bool(state and state.replicas)

    return Need(
        allowed=host.driver.reboot == "when-needed",
        reasons=job.reboot_reasons,
        wishes=job.reboot_wishes,
        hindrance=job.hindrance,
        waits=lambda: job.to_do and serves(),
        undrained=lambda: _undrained(fleet) if serves() else "",
    )


def _undrained(fleet: Fleet) -> str:
    """Why balancers would go on sending requests to a host while it reboots, or ""."""
    names = [other.name for other in fleet.having(BALANCERS)]
    active = {other.name for other in pyinfra_host.state.active_hosts}
    if not names or active.issuperset(names):
        return ""
    missing = " ".join(f"--limit {name}" for name in names if name not in active)
    return f"it serves, and its balancers are not in this run: add {missing}"


def _prepared(fleet: Fleet, host: Host, job: Job, reboots: Reboots, prove: bool) -> None:
    """Set what serving needs of a host's GPUs, and see that they are ready."""
    planned = [plan.on(host.name) for plan in fleet.plans]
    sizes = [len(replica.gpus) for plan in planned if plan for replica in plan.replicas]
    tuned = tune(settings=host.tuning, gpus_together=max(sizes, default=1))
    assert host.hardware is not None
    another = host.hardware.driver_version not in (None, host.driver_version)
    before = prove or host.unready or another
    ready(
        name="GPUs are ready",
        declared=host,
        changed=lambda: before or job.touched or host.name in reboots.done or tuned.did_change(),
        on_ready=partial(_adopt, fleet, host, prove),
    )


def _adopt(fleet: Fleet, host: Host, prove: bool, report: HostReport) -> str:
    """Go on with what a host reports now: its driver is another, or its slices are new.

    Why it cannot, or "": where its links were not known before, its plan may be another now, which
    matters only where the run goes on to serve.
    """
    try:
        new = rebuilt() if record_driver(host.name, report) else fleet
    except (ValueError, OSError, PyinfraError) as error:
        say(f"its new driver could not be recorded: {error}")
        new = fleet
    plan, found = fleet.plan.on(host.name), new.plan.on(host.name)
    if plan is None or found is None or report.hardware is None:
        return ""
    launch = _launch(fleet, host)
    launch.devices = report.devices
    launch.driver_version = report.hardware.driver_version
    adopted = with_p2p_of(launch.plan, found)
    if adopted is not None:
        launch.plan = adopted
        return ""
    told = f"its plan is another now that its links are known:\n{explain_host(found)}"
    if prove:
        say(told)
        return ""
    return f"{told}\nnothing was started or stopped here: run again to deploy it"


def _current_reboots(fleet: Fleet) -> Reboots:
    """The one roll of reboots of this run: all hosts must see the same failures."""
    names = frozenset(other.name for other in fleet.having(BALANCERS))
    state = pyinfra_host.state
    return _reboots.setdefault(state, Reboots(Roll(state, names)))


def _reboot(fleet: Fleet, host: Host, reboots: Reboots, batch: list[str]) -> None:
    rebooted(
        name=f"Reboot {', '.join(batch)} where needed",
        reboots=reboots,
        batch=batch,
        timeout_s=host.driver.reboot_timeout_s,
        start_timeout_s=fleet.settings.launch.start_timeout_s,
    )


def engines(fleet: Fleet, host: Host) -> None:
    """Install the engine, see that its GPUs work together, and start replicas where nothing serves
    yet, on a GPU host."""
    if GPU_HOSTS not in host.roles:
        return
    install(settings=host.engine)
    assert host.hardware is not None
    measure(
        launch=_launch(fleet, host),
        hardware=host.hardware,
        settings=fleet.settings.interconnect,
        anew=wants("measure_interconnect", default=False),
        keep=partial(record_verdicts, host.name, host.hardware),
        replan=partial(replanned, fleet, host.name),
    )
    start(launch=_launch(fleet, host), roll=_roll(fleet))


def roll(fleet: Fleet, host: Host) -> None:
    """Move hosts that serve to what is planned, batch by batch, while balancers pass them by."""
    rolling = _roll(fleet)

    def turn(batch: list[str]) -> None:
        roll_over(launch=_launch(fleet, host), roll=rolling, batch=batch)

    _by_turns(fleet, host, rolling, fleet.settings.launch.roll_batches, turn)
    if GPU_HOSTS in host.roles:
        serve(launch=_launch(fleet, host), roll=rolling)


def _by_turns(
    fleet: Fleet, host: Host, rolling: Roll, most: int, turn: Callable[[list[str]], None]
) -> None:
    """Give each GPU host its turn, in at most so many batches, while balancers pass it by."""
    names = [other.name for other in fleet.having(GPU_HOSTS)]
    for batch in pyinfra_host.loop(batches(names, most)):
        if BALANCERS in host.roles:
            set_aside(
                name=f"Pass by {', '.join(batch)}",
                addresses=partial(_to_set_aside, fleet, rolling, batch),
            )
        barrier(f"Nobody sends requests to {', '.join(batch)} if it must restart")
        if host.name in batch:
            turn(batch)
        barrier(f"The turn of {', '.join(batch)} is over")
        if BALANCERS in host.roles:
            take_back(
                name=f"Take back {', '.join(batch)}",
                addresses=partial(_to_take_back, fleet, rolling, batch),
            )


def _roll(fleet: Fleet) -> Roll:
    return current_roll([other.name for other in fleet.having(BALANCERS)])


def _to_set_aside(fleet: Fleet, rolling: Roll, batch: list[str]) -> list[str]:
    if not rolling.wants(batch):
        return []
    rolling.set_aside |= set(batch)
    return [fleet.addresses[name] for name in batch]


def _to_take_back(fleet: Fleet, rolling: Roll, batch: list[str]) -> list[str]:
    # Who was lost in a reboot stays away in the roll of replicas, too.
    away = rolling.lost | _current_reboots(fleet).roll.lost
    return [fleet.addresses[name] for name in batch if name in rolling.set_aside - away]


def _launch(fleet: Fleet, host: Host) -> HostLaunch:
    return current_launch(partial(_new_launch, fleet, host))


def _new_launch(fleet: Fleet, host: Host) -> HostLaunch:
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
        driver_version=host.driver_version,
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
    known = stopped.setdefault(pyinfra_host.state, {})
    report_at_end(fleet.settings.validation, [host.name for host in fleet.hosts], known)


def validation(fleet: Fleet, host: Host) -> None:
    """Prove a host: its replicas and GPUs from the host itself, its endpoint from here."""
    settings, balancer_settings = fleet.settings.validation, fleet.settings.balancer
    own = fleet.plan.on(host.name)
    if own and own.replicas:
        validate_host(
            settings=settings,
            replicas=[_planned(host, replica, fleet.plan.model) for replica in own.replicas],
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


def _planned(host: Host, replica: Replica, model: str) -> PlannedReplica:
    assert host.hardware is not None
    index = driver_indexes(host.hardware)
    slices = {gpu.index for gpu in host.hardware.gpus if gpu.mig_profile}

    def by_driver(gpus: Iterable[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(index[gpu] for gpu in gpus))

    return PlannedReplica(
        name=replica.name,
        unit=unit_name(replica.name),
        base_url=f"http://127.0.0.1:{replica.port}",
        model=model,
        gpus=by_driver(replica.gpus),
        tensor_parallel=replica.shape.tensor_parallel,
        pipeline_parallel=replica.shape.pipeline_parallel,
        sliced=by_driver(slices.intersection(replica.gpus)),
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
