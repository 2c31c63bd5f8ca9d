"""Commands by which operations change a balancer's files, and reload it."""

import shlex
from collections.abc import Iterator, Sequence

from pyinfra.api.command import PyinfraCommand, StringCommand
from pyinfra.context import host

from roles.balancer import state as states
from roles.balancer.balancer import Balancer
from roles.balancer.deployment import now
from roles.balancer.facts import BalancerFacts
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import KINDS
from roles.host import HostFile, archive, changed_files
from roles.host.operations import install_script


def write_state(
    balancer: Balancer, found: FoundBalancer, new: states.BalancerState
) -> Iterator[PyinfraCommand]:
    """Write and load a state, if it is not written and loaded already."""
    files = balancer.upstream_files(new)
    changed = changed_files(files, found.files)
    # A killed run may have written files and not loaded them.
    load = not found.loaded or any(file.path != states.STATE for file in changed)
    if not changed and not load:
        host.noop("nothing changes here")
        return
    then = _reload_if_active(balancer) if load else ""
    yield installation(files, changed, balancer.check() if changed and load else None, (), then)


def serving_program(balancer: Balancer, found: FoundBalancer) -> tuple[Balancer, FoundBalancer]:
    """The program that serves here, and what is found of it: another one than planned until the end
    of the deploy that changes it."""
    if not found.others:
        return balancer, found
    other = KINDS[found.others[0]]
    return other, host.get_fact(BalancerFacts, kind=other.kind)


def takeover_command(balancer: Balancer, found: FoundBalancer, run: str) -> StringCommand | None:
    """The command that takes over a balancer of an earlier version of this project, or None.

    ValueError where the old site cannot be read.
    """
    old = balancer.take_over(found.old_site, run, now())
    if old is None:
        return None
    then = f"{old.script}\n{_reload_if_active(balancer)}"
    return installation(old.files, old.files, balancer.check(), (), then)


def _reload_if_active(balancer: Balancer) -> str:
    # A stopped balancer sends no requests, and is started later in the deploy.
    return f"if systemctl is-active --quiet {balancer.kind}; then {balancer.reload_script()}; fi"


def installation(
    files: Sequence[HostFile],
    changed: Sequence[HostFile],
    check: str | None,
    leftover: Sequence[str],
    then: str = "",
) -> StringCommand:
    """One command that checks and writes files, removes leftovers and then runs a script."""
    script = f"{install_script(files, changed, check, leftover)}\n{then}"
    return StringCommand("sh", "-c", shlex.quote(script), _stdin=archive(files))


def shell(script: str) -> StringCommand:
    """One command that runs a script."""
    return StringCommand("sh", "-c", shlex.quote(script))


def replacement_script(balancer: Balancer, replaced: Sequence[Balancer]) -> str:
    """A script that stops programs and starts another; where it does not start they come back."""
    units = " ".join(one.kind for one in replaced)
    removed = "\n".join(one.remove_script() for one in replaced)
    return f"""set -e
systemctl disable --now {units}
if ( {balancer.enable_script()}
{balancer.start_script()} )
then {removed}
else systemctl disable --now {balancer.kind}; systemctl enable --now {units}; exit 1
fi"""
