"""Operations that set a balancer up, and those that drain; each needs few round trips."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from pyinfra.api.command import PyinfraCommand
from pyinfra.api.operation import operation
from pyinfra.context import host, state
from pyinfra.operations import apt

from roles.balancer import state as states
from roles.balancer.balancer import Balancer
from roles.balancer.certificate import make_script
from roles.balancer.commands import (
    installation,
    replacement_script,
    serving_program,
    shell,
    takeover_command,
    write_state,
)
from roles.balancer.deployment import BalancerDeployment, now
from roles.balancer.drains import Drain, Owner
from roles.balancer.facts import BalancerFacts, Completions
from roles.balancer.routes import Member
from roles.host import SecretInput, changed_files
from roles.host.outcome import failing, warn


@operation()
def install(deployment: BalancerDeployment):
    """
    Find out about the balancer, take it over from an earlier version of this project, and install
    missing packages. Package lists are refreshed only if a package is missing.

    + deployment: stores what is found
    """
    balancer = deployment.balancer
    deployment.results, deployment.changed = {}, False
    found = deployment.found = host.get_fact(BalancerFacts, kind=balancer.kind)
    serving, there = serving_program(balancer, found)
    if serving is not balancer:
        warn(
            f"{serving.kind} serves here: at the end of this deploy {balancer.kind} takes its "
            "place; answers under way are cut off, and clients are refused for some seconds"
        )
    try:
        if adoption := takeover_command(serving, there, deployment.run_id):
            yield adoption
            found = deployment.found = host.get_fact(BalancerFacts, kind=balancer.kind)
        deployment.old = states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    deployment.inherited = there.certificate
    if deployment.old:
        deployment.note(deployment.old)
    missing = [package for package in balancer.packages if package not in found.packages]
    if not missing:
        host.noop("all packages are installed")
        return
    yield from apt.packages._inner(packages=missing, update=True, no_recommends=True)
    if balancer.installed_script and not found.has_main_file:
        yield balancer.installed_script


@operation()
def probe_members(
    deployment: BalancerDeployment,
    seen: Callable[[Collection[str], bool], None] = lambda ids, serve: None,
):
    """
    Ask every member that is not drained for a token, when the run executes: engines have started by
    then.

    + deployment: stores the results; in a dry run all members count as healthy
    + seen: takes the ids of members that gave a token, and then of those that gave none
    """
    host.noop("asking changes nothing")
    if state.is_executing:
        found = host.get_fact(Completions, _stdin=SecretInput(deployment.probe_program))
        deployment.results = {answers.service: answers for answers in found}
        for answers in found:
            seen(answers.asked - answers.failed.keys(), True)
            seen(answers.failed.keys(), False)
        for message in deployment.warnings:
            warn(message)
    return
    yield


@operation()
def make_certificate(deployment: BalancerDeployment, names: Collection[str]):
    """
    Make a self-signed certificate if there is none for these names, or if it expires soon.

    + deployment: this deploy of the balancer
    + names: the subject's alternative names, as OpenSSL writes them
    """
    if deployment.nothing_answers:
        host.noop("the certificate stays as it is")
    elif deployment.found.certificate == frozenset(names):
        host.noop("the certificate is valid")
    elif deployment.inherited == frozenset(names) and deployment.replaced:
        # Clients may know the one of the program that serves.
        deployment.changed = True
        there, here = deployment.replaced[0].self_signed, deployment.balancer.self_signed
        yield shell(f"install -D -m 600 {shlex.quote(there)} {shlex.quote(here)}")
    else:
        deployment.changed = True
        yield shell(make_script(deployment.balancer.self_signed, names))


@operation()
def write_site(deployment: BalancerDeployment):
    """
    Write the balancer's files, so that members that gave a token get requests; remove our files
    that are no longer used.

    + deployment: its routes are those of the whole inventory, whatever --limit says
    """
    if deployment.nothing_answers:
        host.noop("the site stays as it is")
        return
    if problem := deployment.replacement_problem:
        yield failing(problem)
        return
    for message in deployment.last_resort_warnings:
        warn(message)
    files, leftover = deployment.files, deployment.unused_files
    changed = changed_files(files, deployment.found.files)
    if not changed and not leftover:
        host.noop("all files are up to date")
        return
    deployment.changed |= bool(leftover) or any(file.path != states.STATE for file in changed)
    yield installation(files, changed, deployment.balancer.check(), leftover)


@operation()
def run_program(deployment: BalancerDeployment):
    """
    Enable and start the balancer, and load its present files.

    + deployment: where no service answers, a running balancer keeps what it has loaded
    """
    found, balancer = deployment.found, deployment.balancer
    if deployment.replaced:
        if deployment.nothing_answers:
            host.noop("the other program goes on")
        else:
            yield shell(replacement_script(balancer, deployment.replaced))
        return
    loaded = (found.loaded and not deployment.changed) or deployment.nothing_answers
    if found.enabled and found.active and loaded:
        host.noop("it is running with these files")
        return
    if not found.enabled:
        yield balancer.enable_script()
    if not found.active:
        yield shell(balancer.start_script())
    elif not loaded:
        yield shell(balancer.reload_script())


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
    End drains that a killed run of the owner left behind, and report which replicas get requests.

    + wanted: whether anything is to be drained; called when the operation is executed
    + serving: returns the members that serve as planned and do not move, by service
    + owner: the owner whose drains of these members end, whichever run began them
    + note: takes the state afterwards; not called if the balancer serves nothing yet
    + run: the id of this run
    """
    if not (state.is_executing and wanted()):
        host.noop("nothing is to be drained")
        return
    balancer, found = serving_program(balancer, host.get_fact(BalancerFacts, kind=balancer.kind))
    try:
        old = balancer.take_over(found.old_site, run, now())
        there = old.state if old else states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    if there is None:
        host.noop("it serves nobody yet")
        return
    # Drains of an earlier version of this project end when its balancer is taken over.
    back = _without_drains(there, serving(), owner) if old is None else there
    note(back)
    if back == there:
        host.noop("no drain is left to end")
        return
    yield from write_state(balancer, found, back)


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
    Send no new requests to these replicas, until their `owner` undrains them. The last healthy
    member of an upstream is not drained. The operation ends when no open connection can send these
    replicas a request any more.

    + replicas: returns their ids ("gpu1/qwen-0", or "gpu1/*" for all of a host); called when the
      operation is executed
    + owner: the owner of these drains; other owners have their own
    + run: the id of this run
    + interrupted: returns services that may lose their last member, because that was announced
    + note_kept: takes the ids of replicas that are not drained
    """

    def change(old: states.BalancerState, ids: Collection[str]) -> states.BalancerState:
        new, refused = states.drain(old, ids, owner, run, now(), interrupted())
        note_kept(refused)
        for id in refused:
            warn(f"{id} is not drained: no other replica would be left")
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
    End the owner's drains of these replicas; they get requests unless other owners drain them.

    + replicas: returns their ids; called when the operation is executed
    + owner: the owner whose drains end, whichever run began them: a run may have been killed
    + run: the id of this run
    + proved: returns those of them that moved and answered a completion, by service, as members now
    """

    def change(old: states.BalancerState, ids: Collection[str]) -> states.BalancerState:
        return states.undrain(old, ids, owner, proved())

    yield from _change_drains(balancer, replicas, run, change)


@operation()
def ask_drains(balancer: Balancer, note: Callable[[states.BalancerState], None]):
    """
    Ask a balancer for its state; changes nothing.

    + note: takes the state; not called if the balancer serves nothing yet
    """
    if not state.is_executing:
        host.noop("asked when executed")
        return
    _, found = serving_program(balancer, host.get_fact(BalancerFacts, kind=balancer.kind))
    try:
        there = states.parse_state(found.state)
    except ValueError as error:
        yield failing(str(error))
        return
    if there is not None:
        note(there)
    host.noop("nothing is changed")


@operation()
def drain_by_person(balancer: Balancer, wanted: Drain, refusal: Callable[[], str], run: str):
    """
    Send no new requests to what a person drains, until a person undrains it.

    + wanted: the drain
    + refusal: returns why it may not be, or ""; called when the operation is executed
    + run: the id of this run
    """
    if state.is_executing and (why := refusal()):
        yield failing(why)
        return

    def change(old: states.BalancerState, targets: Collection[str]) -> states.BalancerState:
        return states.drained_by_person(old, wanted)[0]

    yield from _change_drains(balancer, lambda: [wanted.replica], run, change)


@operation()
def undrain_by_person(balancer: Balancer, target: str, refusal: Callable[[], str], run: str):
    """
    End a person's drain; its members get requests unless other owners drain them.

    + target: what the drain names
    + refusal: returns why it may not be, or ""; called when the operation is executed
    + run: the id of this run
    """
    if state.is_executing and (why := refusal()):
        yield failing(why)
        return

    def change(old: states.BalancerState, targets: Collection[str]) -> states.BalancerState:
        return states.undrained_by_person(old, target)

    yield from _change_drains(balancer, lambda: [target], run, change)


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
    balancer, found = serving_program(balancer, host.get_fact(BalancerFacts, kind=balancer.kind))
    try:
        if adoption := takeover_command(balancer, found, run):
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
    yield from write_state(balancer, found, change(old, ids))
