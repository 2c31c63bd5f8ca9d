"""How roles speak of a host, and how they fail it, and no other."""

import shlex
from collections.abc import Sequence

import click
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, State
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from roles.checks import Check, clean, failed, printable
from roles.checks.deploy import report_of
from roles.host.terminal import MAX_SHOWN_LENGTH, MAX_SHOWN_LINES, shown

# What replicas of a host are at, by name, while a command there says so: in pyinfra's data of it.
PHASES = "llm_phases"


def say(text: str) -> None:
    """Print something about this host."""
    # As pyinfra does: its stdout is for JSON alone.
    click.echo(f"{host.print_prefix}{shown(text)}", err=True)


def ssh_command(host: Host) -> str:
    """The command that connects to a host as pyinfra does, to be pasted into a shell; "" for a
    host that is not reached by ssh ("@local")."""
    if host.name.startswith("@"):
        return ""
    data = host.data
    user, address = data.get("ssh_user"), str(data.get("ssh_hostname") or host.name)
    options = []
    if port := data.get("ssh_port"):
        options += ["-p", str(port)]
    if key := data.get("ssh_key"):
        options += ["-i", str(key)]
    if known := data.get("ssh_known_hosts_file"):
        options += ["-o", f"UserKnownHostsFile={known}"]
    return shlex.join(["ssh", *options, f"{user}@{address}" if user else address])


def warn(text: str) -> None:
    """Print a warning about this host."""
    host.log_styled(printable(text), fg="yellow", log_func=logger.warning)


def failing(why: str) -> FunctionCommand:
    """A command to be yielded: it fails this host alone, with the reason in print.

    An exception in an operation would end the run for every host.
    """
    return FunctionCommand(fail, (why,), {})


def failing_checks(checks: Sequence[Check], stage: str) -> FunctionCommand:
    """A command to be yielded: it fails this host alone, and names the checks that failed."""
    return failing(
        "\n".join(
            clean(f"{stage} failed: {check.subject} {check.name}: {check.evidence}")
            for check in failed(checks)
        )
    )


def stop(why: str) -> None:
    """Stop this host alone while the run prepares; nothing was changed on it."""
    # The host itself: pyinfra's `host` is another one in another context.
    this_host = ctx_host.get()
    assert this_host is not None
    fail(this_host.state, this_host, why, "stopped, nothing was changed here: ")
    this_host.state.fail_hosts({this_host})


def fail(state: State, host: Host, why: str, heading: str = "") -> bool:
    """Print why a host fails and note it for the report; False, which in an operation's function
    makes pyinfra fail the host."""
    for line in f"{heading}{why}".splitlines()[:MAX_SHOWN_LINES]:
        host.log_styled(printable(line[:MAX_SHOWN_LENGTH]), fg="red", log_func=logger.error)
    report_of(state).stop(host.name, why)
    # pyinfra does so itself, but for --no-wait, where the exit status would be 0.
    state.failed_hosts.add(host)
    return False
