"""What a deploy is told by `--data`, and how it speaks of a host."""

from collections.abc import Iterable

import click
from pyinfra import host
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError

from roles.hardware import Fault

# Why hosts of a run were stopped, for its report.
stopped: dict[State, dict[str, str]] = {}


def wants(name: str, default: bool) -> bool:
    """What `--data NAME=true` or `=false` says; PyinfraError for anything else."""
    said = host.data.get(name, default)
    if not isinstance(said, bool):
        raise PyinfraError(f"--data {name}={said}: say true or false")
    return said


def say(text: str) -> None:
    """Tell something of this host."""
    click.echo(f"{host.print_prefix}{text}")


def warn(faults: Iterable[Fault]) -> None:
    """Tell what is not well on this host."""
    for fault in faults:
        say(f"{click.style('warning', 'yellow')}: {fault}")


def stop(why: str) -> None:
    """Stop this host alone; nothing was changed on it."""
    stopped.setdefault(host.state, {})[host.name] = f"stopped by {why}"
    click.echo(
        f"{host.print_prefix}{click.style('stopped, nothing was changed here', 'red')}: {why}",
        err=True,
    )
    host.state.fail_hosts({host})
