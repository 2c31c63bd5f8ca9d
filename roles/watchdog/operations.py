"""Sets a host's watchdog up, or removes it."""

import shlex
from collections.abc import Callable, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.host import archive
from roles.host.outcome import failing, say, warn
from roles.watchdog.facts import WatchdogFacts, WatchdogStatus
from roles.watchdog.quarantine import lift_script
from roles.watchdog.render import HostWatch, watchdog_files
from roles.watchdog.scripts import change_script
from roles.watchdog.state import WatchdogState


@operation()
def watched(
    watch: Callable[[], HostWatch],
    found: Callable[[], WatchdogState | None],
):
    """
    Install and start the watchdog of a host, or remove it where it has nothing to watch.

    + watch: returns what it is to know; called when the run executes
    + found: returns the watchdog's state if this run knows it; otherwise the host is asked
    """
    state, wanted = found() or host.get_fact(WatchdogFacts), watch()
    # pyinfra goes on here after a failed fact, with its default: a host without a watchdog.
    if host in host.state.failed_hosts:
        return
    for one in state.quarantines:
        warn(f"{one}; deploys/quarantine.py lifts it")
    files = watchdog_files(wanted)
    script = change_script(files, state, wanted.settings.metrics_dir)
    if not script:
        host.noop("the watchdog is as planned" if files else "there is nothing to watch")
        return
    yield StringCommand("sh", "-c", shlex.quote(script), _stdin=archive(files) or "\n")


@operation()
def lifted(replica: str):
    """
    Show a host's quarantined replicas, and let one of them start again.

    + replica: the one to be lifted, or ""
    """
    if not host.state.is_executing:
        host.noop("shown when the run executes")
        return
    state = host.get_fact(WatchdogFacts)
    if host in host.state.failed_hosts:
        return
    for one in state.quarantines:
        say(str(one))
    if not state.quarantines:
        say("no replica is quarantined")
    if not replica:
        host.noop("no quarantine is lifted")
    elif replica not in [one.replica for one in state.quarantines]:
        yield failing(f"{replica} is not quarantined here")
    else:
        yield StringCommand("sh", "-c", shlex.quote(lift_script(replica)))


@operation()
def shown(port: int, notes: Sequence[str]):
    """
    Print a host's replicas as its watchdog sees them, and those that are quarantined.

    + port: the watchdog's agent port
    + notes: what else is to be said of the host
    """
    if not host.state.is_executing:
        host.noop("shown when the run executes")
        return
    found = host.get_fact(WatchdogStatus, port=port)
    state = host.get_fact(WatchdogFacts)
    if host not in host.state.failed_hosts:
        for line in (*notes, *found.lines, *map(str, state.quarantines)):
            say(line)
    host.noop("nothing is changed")
    # pyinfra wants a generator.
    yield from ()
