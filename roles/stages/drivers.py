"""The stage that installs the driver on a host and makes its GPUs ready to serve."""

from collections.abc import Mapping
from functools import partial

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from roles.declaration import BALANCERS, GPU_HOSTS
from roles.driver.deploy import check_driver, driver, job_of
from roles.driver.operations import Job
from roles.fleet import Fleet
from roles.hardware import HardwareReport
from roles.host.outcome import say
from roles.reboot.operations import RebootNeed, check_reboot, reboot
from roles.rolling import Change, HostRestart
from roles.stages.answers import driver_state, launch_state, tuning_state
from roles.stages.barrier import barrier
from roles.stages.batches import by_batches
from roles.stages.discovery import record_driver
from roles.stages.members import Found
from roles.stages.messages import wants
from roles.stages.ready import ready
from roles.stages.rolling import Rolling, balancers_missing, reached
from roles.stages.run import Run
from roles.topology import explain_host
from roles.tuning.deploy import tune


def drivers(run: Run, prove: bool = False) -> None:
    """Install the driver that a GPU host needs, reboot it if necessary, and prepare its GPUs.

    A host whose replicas serve gets another driver in its batch only. With `prove` the GPUs are
    checked at the end even if nothing was changed.
    """
    declared, reboots = run.fleet.host(host.name), run.reboots
    gpu_host = GPU_HOSTS in declared.roles and not declared.retired
    job = driver_job(run)
    need = _reboot_need(run, job)
    if gpu_host:
        check_driver(job=job)
        driver(job=job, may_change=lambda: not need.deferred())
        check_reboot(name="Is a reboot needed?", need=need, reboots=reboots)
    barrier("Drivers are installed where nothing serves")

    name, rolling = host.name, restarts_of(run)

    def turn(index: int) -> None:
        if not gpu_host:
            return

        def is_turn() -> bool:
            turn = rolling.turn(index, name)
            if turn is not None:
                run.seen.touched(name)
            return turn is not None

        def done() -> None:
            rolling.done(rolling.moves_on(name))
            run.seen.proved(rolling.moves_on(name))

        driver(job=job, may_change=lambda: need.deferred() and is_turn())
        check_reboot(name="Is a reboot needed now?", need=need, reboots=reboots, in_batch=is_turn)
        reboot(
            name=f"Reboot batch {index + 1} where needed",
            reboots=reboots,
            in_batch=is_turn,
            skip_reason=partial(rolling.left_in, index, name),
            on_done=done,
            timeout_s=declared.driver.reboot_timeout_s,
            start_timeout_s=run.fleet.settings.launch.start_timeout_s,
        )

    if any(other.driver.reboot == "when-needed" for other in run.fleet.with_role(GPU_HOSTS)):
        by_batches(run, rolling, turn)
    if gpu_host:
        _prepare(run, job, prove)


def driver_job(run: Run) -> Job:
    """The job of this host's driver, given the engines that the host is to run."""
    declared = run.fleet.host(host.name)
    upgrade = wants("upgrade_driver", default=False)
    return job_of(
        declared.driver,
        run.fleet.needs_on(host.name),
        declared.hardware,
        upgrade,
        known_state=partial(driver_state, run, host.name),
        on_change=partial(run.changed, host.name),
    )


def restarts_of(run: Run) -> Rolling:
    """The rolling update of this run's reboots, and of drivers of hosts that serve."""

    def found() -> dict[str, Found]:
        states = {one.name: launch_state(run, one.name) for one in run.fleet.with_role(GPU_HOSTS)}
        return {name: Found(state) for name, state in states.items() if state is not None}

    def changes(fleet: Fleet, found: Mapping[str, Found]) -> list[Change]:
        names = [one.name for one in fleet.with_role(GPU_HOSTS)]
        return [HostRestart(name) for name in names if name in run.reboots.restarting]

    if run.restarts is None:
        run.restarts = Rolling(
            run.state,
            lambda: run.fleet,
            lambda settings: settings.driver.reboot_batches,
            found,
            changes,
            run.busy,
        )
    return run.restarts


def _reboot_need(run: Run, job: Job) -> RebootNeed:
    allowed = run.fleet.host(host.name).driver.reboot == "when-needed"

    def serves() -> bool:
        state = job.state()
        return bool(state and state.replicas)

    return RebootNeed(
        allowed=allowed,
        reasons=job.reboot_reasons,
        recommended=job.reboot_recommendations,
        blocker=job.reboot_blocker,
        deferred=lambda: job.to_do and serves(),
        drain_problem=lambda: undrained(run) if serves() else "",
    )


def undrained(run: Run) -> str:
    """Why balancers cannot stop sending requests to a host while it reboots, or ""."""
    missing = balancers_missing(run.fleet, reached(run.state))
    if missing:
        return f"it serves, and its {missing}"
    names = {one.name for one in run.state.failed_hosts}
    failed = [one.name for one in run.fleet.with_role(BALANCERS) if one.name in names]
    return f"it serves, and balancer {', '.join(failed)} failed" if failed else ""


def _prepare(run: Run, job: Job, prove: bool) -> None:
    """Tune a host's GPUs, and check that they are ready."""
    name, declared = host.name, run.fleet.host(host.name)
    sizes = [len(replica.gpus) for _, plan in run.fleet.on(name) for replica in plan.placed]
    tuned = tune(
        settings=declared.tuning,
        gpus_together=max(sizes, default=1),
        found=partial(tuning_state, run, name),
        changed=partial(run.changed, name),
    )
    assert declared.hardware is not None
    another = declared.hardware.driver_version not in (None, declared.driver_version)
    before = prove or declared.unready or another
    ready(
        name="GPUs are ready",
        declared=declared,
        cuda=any(engine.device == "cuda" for engine in run.fleet.engines_on(name)),
        changed=lambda: before or job.was_changed or name in run.reboots.done or tuned.did_change(),
        on_ready=partial(adopt, run, name, prove),
        record=run.report.record,
    )


def adopt(run: Run, name: str, prove: bool, report: HardwareReport) -> str:
    """Adopt what a host reports now, after a new driver or new slices; returns why the run cannot
    go on, or "".

    Its plan may change if its links were unknown before, which stops the run only if it goes on to
    serve.
    """
    run.changed(name)
    run.observed(name, report)
    try:
        hardware = record_driver(run, name, report)
        adopted, new = (True, run.fleet) if hardware is None else run.replan(name, hardware)
    except (ValueError, OSError, PyinfraError) as error:
        say(f"its new driver could not be recorded: {error}")
        return ""
    if adopted:
        return ""
    message = f"its plan is another now that its links are known:\n{_explained(new, name)}"
    if prove:
        say(message)
        return ""
    return f"{message}\nnothing was started or stopped here: run again to deploy it"


def _explained(fleet: Fleet, name: str) -> str:
    return "\n".join(explain_host(plan) for _, plan in fleet.on(name))
