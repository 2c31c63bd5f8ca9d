"""The steps of setting a balancer up, and drains: each with as few round trips as it can have."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host, state
from pyinfra.operations import apt

from roles.balancer import state as states
from roles.balancer.balancer import Balancer
from roles.balancer.certificate import make_script
from roles.balancer.deployment import BalancerDeployment, now
from roles.balancer.facts import BalancerFacts, Completions
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import NGINX
from roles.balancer.nginx import paths
from roles.balancer.nginx.takeover import keys_script, take_over
from roles.balancer.routes import Member
from roles.balancer.state import Owner
from roles.host import HostFile, SecretInput, archive, changed_files
from roles.host.operations import install_script
from roles.host.outcome import failing, warn


@operation()
def install(deployment: BalancerDeployment):
    """
    Look at the balancer, and install the packages that are missing; apt's lists are refreshed only
    then. A balancer that an earlier version deployed is taken over.

    + deployment: takes what is found
    """
    balancer = deployment.balancer
    deployment.results, deployment.changed = {}, False
    found = deployment.found = host.get_fact(BalancerFacts, kind=balancer.kind)
    try:
        if adoption := _takeover_command(found, deployment.run_id):
            yield adoption
            found = deployment.found = host.get_fact(BalancerFacts, kind=balancer.kind)
        deployment.old = states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    missing = [package for package in balancer.packages if package not in found.packages]
    if not missing:
        host.noop("all packages are installed")
        return
    yield from apt.packages._inner(packages=missing, update=True, no_recommends=True)
    if not found.has_main_file:
        yield balancer.installed_script


@operation()
def probe_members(
    deployment: BalancerDeployment,
    seen: Callable[[Collection[str], bool], None] = lambda ids, serve: None,
):
    """
    Ask every member for a token, when the run executes: the engines have been started by then.

    + deployment: takes the answers; a dry run takes all members for good
    + seen: takes the ids of members that gave one, and of those that gave none

    Members that are drained are not asked.
    """
    host.noop("asking changes nothing")
    if state.is_executing:
        found = host.get_fact(Completions, _stdin=SecretInput(deployment.probe_program))
        deployment.results = {answers.service: answers for answers in found}
        for answers in found:
            seen(answers.asked - answers.failed.keys(), True)
            seen(answers.failed.keys(), False)
        for message in deployment.messages:
            warn(message)
    return
    yield


@operation()
def make_certificate(deployment: BalancerDeployment, names: Collection[str]):
    """
    Make a self-signed certificate where there is none for these names, or it is about to expire.

    + deployment: the balancer as it was found
    + names: the subject's alternative names, as OpenSSL writes them
    """
    if deployment.nothing_answers:
        host.noop("the certificate stays as it is")
    elif deployment.found.certificate == frozenset(names):
        host.noop("the certificate is valid")
    else:
        deployment.changed = True
        yield _shell(make_script(deployment.balancer.self_signed, names))


@operation()
def write_site(deployment: BalancerDeployment):
    """
    Write the balancer's files with those members in that gave a token; remove those of ours that
    are no longer used.

    + deployment: routes are of the whole inventory, whatever this run is limited to
    """
    if deployment.nothing_answers:
        host.noop("the site stays as it is")
        return
    for message in deployment.kept_messages:
        warn(message)
    files, leftover = deployment.files, deployment.leftover
    changed = changed_files(files, deployment.found.files)
    if not changed and not leftover:
        host.noop("all files are as they must be")
        return
    deployment.changed |= bool(leftover) or any(file.path != states.STATE for file in changed)
    yield _installation(files, changed, deployment.balancer.check(), leftover)


@operation()
def run_program(deployment: BalancerDeployment):
    """
    Have the balancer enabled, running, and running with its files as they are now.

    + deployment: where no member is right, a running balancer goes on with what it has loaded
    """
    found, balancer = deployment.found, deployment.balancer
    loaded = (found.loaded and not deployment.changed) or deployment.nothing_answers
    if found.enabled and found.active and loaded:
        host.noop("it is running with these files")
        return
    if not found.enabled:
        yield balancer.enable_script()
    if not found.active:
        yield _shell(balancer.start_script())
    elif not loaded:
        yield _shell(balancer.reload_script())


@operation()
def resume_drains(
    balancer: Balancer,
    wanted: Callable[[], bool],
    serving: Callable[[], Mapping[str, Sequence[Member]]],
    owner: Owner,
    note: Callable[[states.BalancerState], None],
    run: str,
):
    """
    See which replicas get requests here, once what an earlier run of the owner left is taken back.

    + wanted: whether anybody wants to know, asked when the operation is executed
    + run_program: the members that serve as planned and stay as they are, by service
    + owner: whose drains of these end, whichever run began them: one may have been killed
    + note: takes the state as it is then; it is not called where the balancer serves nobody yet
    + run: the run that asks
    """
    if not (state.is_executing and wanted()):
        host.noop("nobody is to be drained")
        return
    found = host.get_fact(BalancerFacts, kind=balancer.kind)
    try:
        old = take_over(found.old_site, run, now())
        there = old.state if old else states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    if there is None:
        host.noop("it serves nobody yet")
        return
    # What an earlier version drained ends with its own takeover.
    back = _without_drains(there, serving(), owner) if old is None else there
    note(back)
    if back == there:
        host.noop("nothing is to be taken back")
        return
    yield from _write_state(balancer, found, back)


def _without_drains(
    there: states.BalancerState, serving: Mapping[str, Sequence[Member]], owner: Owner
) -> states.BalancerState:
    ids = [member.id for members in serving.values() for member in members]
    return states.undrain(there, ids, owner, serving)


@operation()
def drain(
    balancer: Balancer,
    replicas: Callable[[], Collection[str]],
    owner: Owner,
    run: str,
    interrupted: Callable[[], Collection[str]],
    note_kept: Callable[[Collection[str]], None],
):
    """
    Send no new requests to these replicas, until their `owner` takes its drain back.

    + replicas: their ids ("gpu1/qwen-0", or "gpu1/*" for all of a host), asked when the operation
      is executed
    + owner: who has them out; others have drains of their own
    + run: the run that does so
    + interrupted: services that may be left without a member, because that was announced
    + note_kept: takes the ids of those that stay in

    Elsewhere the last healthy member of an upstream stays in. It ends when no connection that was
    open before gets a request to them any more.
    """

    def change(old: states.BalancerState, ids: Collection[str]) -> states.BalancerState:
        new, refused = states.drain(old, ids, owner, run, now(), interrupted())
        note_kept(refused)
        for id in refused:
            warn(f"{id} stays in: no other replica would be left")
        return new

    yield from _change_drains(balancer, replicas, run, change)


@operation()
def undrain(
    balancer: Balancer,
    replicas: Callable[[], Collection[str]],
    owner: Owner,
    run: str,
    proved: Callable[[], Mapping[str, Sequence[Member]]],
):
    """
    Take the owner's drains of these replicas back; they get requests unless others have them out.

    + replicas: their ids, asked when the operation is executed
    + owner: whose drains end, whichever run began them: one may have been killed
    + run: the run that does so
    + proved: those of them that have moved and given a completion, by service, as they are now
    """

    def change(old: states.BalancerState, ids: Collection[str]) -> states.BalancerState:
        return states.undrain(old, ids, owner, proved())

    yield from _change_drains(balancer, replicas, run, change)


def _change_drains(
    balancer: Balancer,
    replicas: Callable[[], Collection[str]],
    run: str,
    change: Callable[[states.BalancerState, Collection[str]], states.BalancerState],
) -> Iterator[PyinfraCommand]:
    ids = replicas() if state.is_executing else ()
    if not ids:
        host.noop("nothing to do here" if state.is_executing else "decided when executed")
        return
    found = host.get_fact(BalancerFacts, kind=balancer.kind)
    try:
        if adoption := _takeover_command(found, run):
            yield adoption
            found = host.get_fact(BalancerFacts, kind=balancer.kind)
        old = states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    if old is None and balancer.site in found.files:
        yield failing(
            f"nothing can be drained: {balancer.site} is there, but no {states.STATE}; deploy to "
            f"this host alone (--limit {host.name}), which writes it"
        )
        return
    if old is None:
        host.noop("it serves nobody yet")
        return
    yield from _write_state(balancer, found, change(old, ids))


def _write_state(
    balancer: Balancer, found: FoundBalancer, new: states.BalancerState
) -> Iterator[PyinfraCommand]:
    """Write and load a state; nothing where it is there."""
    files = balancer.upstream_files(new)
    changed = changed_files(files, found.files)
    # What a killed run wrote and did not load is loaded now.
    load = not found.loaded or any(file.path != states.STATE for file in changed)
    if not changed and not load:
        host.noop("nothing changes here")
        return
    then = _reload_if_active(balancer) if load else ""
    yield _installation(files, changed, balancer.check() if changed and load else None, (), then)


def _takeover_command(found: FoundBalancer, run: str) -> StringCommand | None:
    """The command that takes over what an earlier version deployed; None where nothing is.

    Members, keys and everything else stay as they are; only the upstream moves into a file of its
    own, and a drain of an earlier version becomes one with an owner. ValueError where its site
    cannot be read.
    """
    old = take_over(found.old_site, run, now())
    if old is None:
        return None
    upstreams, remembered = NGINX.upstream_files(old.state)
    # The state comes last: where it is, nginx reads what follows from it.
    files = [upstreams, HostFile(paths.SITE, old.site), remembered]
    then = f"{keys_script(old.service)}\n{_reload_if_active(NGINX)}"
    return _installation(files, files, NGINX.check(), (), then)


def _reload_if_active(balancer: Balancer) -> str:
    # One that does not run sends nothing to anybody; it is started further on.
    return f"if systemctl is-active --quiet {balancer.kind}; then {balancer.reload_script()}; fi"


def _installation(
    files: Sequence[HostFile],
    changed: Sequence[HostFile],
    check: str | None,
    leftover: Sequence[str],
    then: str = "",
) -> StringCommand:
    """One command that writes files that the program takes, and then does something more."""
    script = f"{install_script(files, changed, check, leftover)}\n{then}"
    return StringCommand("sh", "-c", shlex.quote(script), _stdin=archive(files))


def _shell(script: str) -> StringCommand:
    return StringCommand("sh", "-c", shlex.quote(script))
