"""Installs, loads and holds a host's driver. Everything is decided when the run executes."""

import base64
import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.driver import scripts
from roles.driver.choice import needs_fabric_manager
from roles.driver.decision import (
    DriverDecision,
    disk_space_problem,
    in_use_problem,
    is_settled,
    lost_module,
    serves,
    works,
)
from roles.driver.errors import error_lines, explaining_script
from roles.driver.facts import AvailablePackages, FetchedKey, Refusal
from roles.driver.files import IB_UMAD, NOUVEAU
from roles.driver.installation import (
    DriverInstallation,
    by_dkms,
    installation,
    needed_packages,
    to_hold,
)
from roles.driver.job import Job, MayChange, always_allowed
from roles.driver.keys import fingerprint, own_key, vendor_key
from roles.driver.packages import Repository, is_driver
from roles.driver.reboot import reboot_reasons
from roles.driver.state import DriverState
from roles.driver.suited import is_amd
from roles.host import HostFile, archive
from roles.host.outcome import failing


@operation()
def possible(job: Job):
    """
    Stop this host, before anything changes on it, if no driver can be installed.

    It is also stopped if the driver in use must be replaced and a reboot is not allowed.

    + job: the job for the host's driver
    """
    state = job.state()
    if state is None:
        host.noop("the host did not report its driver")
        return
    decision = job.decision(state)
    if decision is None:
        yield failing(job.failed or "")
        return
    installs = decision.plan is not None and not _is_done(job, decision, state)
    if installs and _is_newest(job, decision, state):
        installs = False
    blocked = None if works(job.request, state) else in_use_problem(job.request, state, decision)
    full = disk_space_problem(state) if installs and not decision.keep else None
    if installs and (why := blocked or full):
        yield failing(why)
        return
    # Adding a fabric manager or a tool to a driver that stays interrupts nothing.
    changes = installs and not decision.keep
    job.to_do = changes or bool(job.reboot_reasons()) or any(map(is_driver, state.half))
    host.noop(decision.why or "a driver can be installed")


@operation()
def finished(job: Job, may_change: MayChange = always_allowed):
    """
    Complete a package installation that was interrupted in an earlier run.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    cut_off = state is not None and state.interrupted and _is_managed(job)
    # Another program's unfinished installation matters only if something must be installed.
    is_driver_unfinished = state is not None and any(map(is_driver, state.half))
    if (
        state is None
        or decision is None
        or not cut_off
        or not (decision.plan or is_driver_unfinished)
    ):
        host.noop("no installation was interrupted")
        return
    release = sorted(name for name in state.held if is_driver(name))
    yield _sh(scripts.finish_script(state.system, release))
    job.changed()


@operation()
def rebuilt(job: Job):
    """Rebuild a serving driver's module that is missing on the disk; running processes are not
    affected.

    + job: the job for the host's driver
    """
    state = job.state()
    concerned = state is not None and _is_managed(job) and not is_amd(job.request.gpus)
    version = lost_module(job.request, state) if state and concerned else None
    if version is None:
        host.noop("no module is lost")
        return
    yield _sh(scripts.rebuild_script(version))
    job.changed()


@operation()
def repository(job: Job, may_change: MayChange = always_allowed):
    """
    Write the repository's key and file after its index and signature have been checked.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    plan = decision.plan if decision else None
    needed = plan.repository if plan else None
    if not (state and decision and plan and needed) or _is_done(job, decision, state):
        host.noop("no repository is needed")
        return
    if _is_known_repository(needed, job, state):
        host.noop(f"{needed.url} is there")
        return
    key = ""
    if host.state.is_executing:
        try:
            key = _signing_key(needed, job)
        except ValueError as error:
            yield failing(str(error))
            return
    files = [HostFile(needed.key_path, key), HostFile(needed.path, needed.content)]
    yield _sh(scripts.repository_script(plan, state.system), archive(files))
    job.index_refreshed = True
    job.changed()


@operation()
def installed(job: Job, may_change: MayChange = always_allowed):
    """
    Install the driver's packages in one version, with the headers that its modules need.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    if state is None or decision is None or decision.plan is None or decision.choice is None:
        host.noop(decision.why if decision else "nothing can be installed")
        return
    if _is_done(job, decision, state):
        host.noop("the driver's packages are installed")
        return
    if not host.state.is_executing:
        yield StringCommand("true")
        return
    try:
        todo = _planned_installation(job, decision, state)
    except ValueError as error:
        yield failing(str(error))
        return
    if todo is None:
        host.noop("the driver's packages are the newest")
        return
    if blocked := in_use_problem(job.request, state, decision):
        yield failing(blocked)
        return
    yield _sh(scripts.install_script(todo))
    job.changed()


@operation()
def nouveau_blocked(job: Job, may_change: MayChange = always_allowed):
    """
    Keep the kernel's nouveau driver from the GPUs, now and in the initramfs.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    if state is None or decision is None or is_amd(job.request.gpus) or not state.driver_packages:
        host.noop("no driver of NVIDIA is installed")
        return
    written = state.files.get(NOUVEAU.path) == NOUVEAU.state
    blocked = written or (state.nouveau_blocked and "nouveau" not in state.in_kernel)
    # A driver that serves proves that nouveau is not loaded.
    if serves(job.request, state) or (blocked and not state.initramfs_old):
        host.noop("nouveau is blocked")
        return
    commands = [] if written else [scripts.write_command(NOUVEAU.path, NOUVEAU.content)]
    yield _sh(explaining_script([*commands, scripts.initramfs_command(state.system)]))
    job.changed()


@operation()
def held(job: Job, may_change: MayChange = always_allowed):
    """
    Hold the driver's and the kernel's packages, so that they only change together.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    if state is None or decision is None or not _is_managed(job):
        host.noop("no package of a driver is held")
        return
    loose = [name for name in to_hold(state) if name not in state.held]
    if not loose:
        host.noop("the driver's packages are held")
        return
    yield _sh(scripts.hold_script(state.system, loose))
    job.changed()


@operation()
def loaded(job: Job, may_change: MayChange = always_allowed):
    """
    Load the driver's module if nothing prevents it; otherwise a reboot loads it.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    amd = is_amd(job.request.gpus)
    module = "amdgpu" if amd else "nvidia"
    module_version = state and (state.amdgpu_module if amd else state.module)
    if state is None or decision is None or not module_version or not _is_managed(job):
        host.noop("there is no module to load")
        return
    if module in state.in_kernel or reboot_reasons(state, job.request.amd_gpus):
        host.noop("the module is loaded" if module in state.in_kernel else "a reboot loads it")
        return
    more = "" if amd else "; modprobe nvidia-uvm >/dev/null 2>&1; true"
    yield _sh(explaining_script([f"run modprobe {module}{more}"]))
    job.changed()


@operation()
def serving(job: Job, may_change: MayChange = always_allowed):
    """
    Start the persistence daemon, and the fabric manager if the host has NVSwitches.

    + job: the job for the host's driver
    + may_change: whether the host may be changed now; called when the operation executes
    """
    state, decision = _allowed_decision(job, may_change)
    if state is None or decision is None or is_amd(job.request.gpus) or not _is_managed(job):
        host.noop("there is no daemon to run")
        return
    ready = state.loaded is not None and not reboot_reasons(state)
    commands = []
    units = [("nvidia-persistenced", state.persistence)]
    if needs_fabric_manager(job.request.gpus, state.nvswitches):
        units.append(("nvidia-fabricmanager", state.fabric_manager))
        if "nvlsm" in state.packages and state.files.get(IB_UMAD.path) != IB_UMAD.state:
            commands.append(scripts.write_command(IB_UMAD.path, IB_UMAD.content))
            commands.append("modprobe ib_umad >/dev/null 2>&1 || :")
    for name, unit in units:
        if unit.present and not unit.enabled:
            commands.append(f"run systemctl enable {name}")
        # Without a loaded module the daemon has no use; it starts after the reboot.
        if unit.present and not unit.active and ready:
            commands.append(f"run systemctl start {name}")
    if not commands:
        host.noop("its daemons run" if ready else "its daemons start with the module")
        return
    yield _sh(explaining_script(commands))
    job.changed()


def _planned_installation(
    job: Job, decision: DriverDecision, state: DriverState
) -> DriverInstallation | None:
    """What to install, None for nothing; ValueError if it cannot be installed."""
    assert decision.plan is not None
    names = needed_packages(job.request, decision, state)
    found, errors = _available(job, names, decision.plan.stream)
    source = decision.plan.repository
    try:
        if source and source.url in errors:
            raise ValueError(f"driver: {source.check_url} cannot be read")
        todo = installation(job.request, decision, state, found)
        if todo and (why := _apt_refusal(todo)):
            built = by_dkms(job.request, decision, state, why)
            todo = installation(job.request, built, state, found)
    except ValueError as error:
        raise ValueError("\n".join([str(error), *error_lines(errors)])) from None
    return todo


def _is_newest(job: Job, decision: DriverDecision, state: DriverState) -> bool:
    """Whether an upgrade finds nothing newer for a driver that replicas use."""
    asks = job.request.upgrade and state.replicas and host.state.is_executing
    if not asks or decision.plan is None or not works(job.request, state):
        return False
    source = decision.plan.repository
    if source and not _is_known_repository(source, job, state):
        # Its packages are known only after the repository is set up.
        return False
    try:
        return _planned_installation(job, decision, state) is None
    except ValueError:
        # The installation reports the error.
        return False


def _allowed_decision(
    job: Job, may_change: MayChange
) -> tuple[DriverState, DriverDecision] | tuple[None, None]:
    """The host's state and the decision; None if there is none, or the host may not be changed.

    While the run is prepared the host counts as changeable, so that the run shows its changes.
    """
    if host.state.is_executing and not may_change():
        return None, None
    state = job.state()
    decision = job.decision(state) if state else None
    return (state, decision) if state and decision else (None, None)


def _is_managed(job: Job) -> bool:
    """Whether this run manages the host's driver."""
    return bool(job.request.gpus) and job.request.settings.install != "never"


def _is_done(job: Job, decision: DriverDecision, state: DriverState) -> bool:
    """Whether everything of the plan is installed, and no upgrade is requested."""
    plan, chosen = decision.plan, decision.choice
    if plan is None or chosen is None:
        return True
    if decision.keep and chosen.vendor == "nvidia":
        has = {state.driver_packages.get(name) for name in plan.fabric}
        return has == {chosen.version} and not state.interrupted
    return is_settled(chosen, plan, state) and not job.request.upgrade


def _is_known_repository(repository: Repository, job: Job, state: DriverState) -> bool:
    """Whether the repository is set up: by us with the right key, or by somebody else."""
    key = state.keys.get(repository.key_path)
    written = (
        state.files.get(repository.path) == HostFile(repository.path, repository.content).state
    )
    if written and key:
        return _is_right_key(base64.b64decode(key), repository, job)
    # For apt a second file with the same URL and another key is an error.
    url = repository.url.rstrip("/")
    others = [line for line in state.sources if not line.startswith(f"{repository.path}:")]
    mirrored = job.request.settings.mirror is not None
    return not mirrored and any(url in line for line in others)


def _is_right_key(key: bytes, repository: Repository, job: Job) -> bool:
    own = job.request.settings.mirror_key_file
    try:
        return fingerprint(key) == (
            fingerprint(own.read_bytes()) if own else repository.key_fingerprint
        )
    except ValueError:
        return False


def _signing_key(repository: Repository, job: Job) -> str:
    """The signing key of a repository, as text; ValueError if it is not the expected one."""
    own = job.request.settings.mirror_key_file
    if own is not None:
        return own_key(own)
    came, what = host.get_fact(FetchedKey, url=repository.key_url)
    if not came:
        raise ValueError(
            f"driver: the key {repository.key_url} could not be fetched: {what}; check the "
            "network and "
            "driver.mirror, or give the key by driver.mirror_key_file"
        )
    return vendor_key(base64.b64decode(what), repository.key_url, repository.key_fingerprint or "")


def _available(job: Job, names: list[str], stream: str | None) -> tuple[dict[str, list[str]], str]:
    """The package versions in the host's repositories, and the errors of reading them."""
    fresh, job.index_refreshed = job.index_refreshed, True
    return host.get_fact(AvailablePackages, packages=names, stream=stream, refresh=not fresh)


def _apt_refusal(todo: DriverInstallation) -> str | None:
    """Why apt refuses the signed modules; modules of an older kernel may need an older driver."""
    if not any(name.startswith("linux-modules-nvidia-") for name in todo.extra):
        return None
    return host.get_fact(Refusal, packages=scripts.apt_names(todo))


def _sh(script: str, given: str | None = None) -> StringCommand:
    if given is None:
        return StringCommand("sh", "-c", shlex.quote(script))
    return StringCommand("sh", "-c", shlex.quote(script), _stdin=given)
