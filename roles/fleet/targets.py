"""What `--data` of a drain or of a quarantine names: whether the inventory has it. Pure."""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from roles.balancer import gpu_target, host_target, in_words
from roles.declaration import BALANCERS, GPU_HOSTS, Declaration
from roles.fleet.command_line import DRAIN, LIFT, TARGETS, UNDRAIN, Command, hosts_of
from roles.fleet.fleet import Fleet
from roles.fleet.routing import members_by_service


def named_target(kind: str, value: str) -> str:
    """What a drain is of, by the kind and the value of `--data`, which are well written."""
    if kind == "host":
        return host_target(value)
    if kind == "gpu":
        name, _, gpu = value.rpartition("/")
        return gpu_target(name, int(gpu))
    return value


def target_problems(
    command: Command, declaration: Declaration, fleet: Fleet, parsed: Callable[[str], Any]
) -> Iterator[str]:
    """Names in `--data` that the inventory lacks, or that the run does not reach; `parsed` reads a
    value as pyinfra does."""
    run = hosts_of(command, declaration)
    if {DRAIN, UNDRAIN}.intersection(command.deploys):
        yield from _balancer_problems(fleet, run)
    for word in command.data:
        name, _, value = word.partition("=")
        value = str(parsed(value))
        if name in TARGETS and DRAIN in command.deploys:
            yield from (f"--data {word}: {one}" for one in _drain_problems(fleet, name, value))
        elif name == LIFT:
            host = value.partition("/")[0]
            yield from (f"--data {word}: {one}" for one in _lift_problems(fleet, host, run))


def _balancer_problems(fleet: Fleet, run: set[str]) -> Iterator[str]:
    balancers = fleet.with_role(BALANCERS)
    if fleet.settings.balancer is None or not balancers:
        yield "the inventory has no balancer, so nothing can be drained"
    elif missing := [f"--limit {host.name}" for host in balancers if host.name not in run]:
        yield f"balancers are not in this run: add {' '.join(missing)}"


def _drain_problems(fleet: Fleet, kind: str, value: str) -> Iterator[str]:
    target = named_target(kind, value)
    hosts = fleet.with_role(GPU_HOSTS)
    known = {host_target(host.name) for host in hosts}
    known |= {one.id for members in members_by_service(fleet).values() for one in members}
    for host in hosts:
        gpus = host.hardware.gpus if host.hardware else ()
        known |= {gpu_target(host.name, gpu.index) for gpu in gpus}
    if target not in known:
        close = get_close_matches(target, sorted(known), n=1)
        near = f"did you mean {in_words(close[0])}?" if close else "name what the plan has"
        yield f"{in_words(target)} is not in the plan of this inventory; {near}"


def _lift_problems(fleet: Fleet, host: str, run: set[str]) -> Iterator[str]:
    known = [one.name for one in fleet.with_role(GPU_HOSTS)]
    if host not in known:
        close = get_close_matches(host, known, n=1)
        near = f"did you mean {close[0]}?" if close else f"known: {', '.join(known[:20])}"
        yield f"the inventory has no GPU host {host!r}; {near}"
    elif host not in run:
        yield f"{host} is not in this run: add --limit {host}"
