"""Prints messages about a host, and fails one host without failing others."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from pyinfra import host, logger
from pyinfra.api import FunctionCommand, State, StringCommand
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from roles.checks import Check, clean, failed, printable
from roles.checks.deploy import report_of
from roles.host.terminal import MAX_SHOWN_LENGTH, MAX_SHOWN_LINES, shown

# Key in a host's pyinfra data: the phase of each replica or engine by name, while a command
# reports it.
PHASES = "llm_phases"
# Marks a host whose key nobody recorded, in pyinfra's data of it; the command records it.
UNTRUSTED = "llm_untrusted"
TRUST = "python -m roles.fleet trust"


@contextmanager
def hearing_phases(host: Host) -> Iterator[None]:
    """Store the phases that a command on a host reports meanwhile; see `connection`."""
    host.connector_data[PHASES] = {}
    try:
        yield
    finally:
        host.connector_data.pop(PHASES, None)


class PhasedCommand(StringCommand):
    """A command that reports its phases, in lines of their own on its standard output."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        """Run it on a host."""
        with hearing_phases(host):
            return super().execute(state, host, connector_arguments)


def say(text: str) -> None:
    """Print something about this host."""
    # As pyinfra does: its stdout is for JSON alone.
    click.echo(f"{host.print_prefix}{shown(text)}", err=True)


def ssh_command(host: Host) -> str:
    """The shell command that connects to a host as pyinfra does.

    "" for a host that is not reached by ssh ("@local").
    """
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
    """A command for an operation to yield: it prints the reason and fails this host alone.

    An exception in an operation would end the run for every host.
    """
    return FunctionCommand(fail, (why,), {})


def failing_checks(checks: Sequence[Check], stage: str) -> FunctionCommand:
    """A command for an operation to yield: it fails this host alone and names the failed checks."""
    return failing(
        "\n".join(
            clean(f"{stage} failed: {check.subject} {check.name}: {check.evidence}")
            for check in failed(checks)
        )
    )


def stop(why: str) -> None:
    """Stop this host alone while the run prepares, before anything changes on it."""
    # The host itself: pyinfra's `host` is a proxy that follows the context.
    this_host = ctx_host.get()
    assert this_host is not None
    fail(this_host.state, this_host, why, "stopped, nothing was changed here: ")
    this_host.state.fail_hosts({this_host})


def fail(state: State, host: Host, why: str, heading: str = "") -> bool:
    """Print why a host fails and record it for the report.

    Returns False: from an operation's function that makes pyinfra fail the host.
    """
    for line in f"{heading}{why}".splitlines()[:MAX_SHOWN_LINES]:
        host.log_styled(printable(line[:MAX_SHOWN_LENGTH]), fg="red", log_func=logger.error)
    report_of(state).stop(host.name, why)
    # With --no-wait pyinfra does not do this itself, and the exit status would be 0.
    state.failed_hosts.add(host)
    return False
