"""Reboots a host and waits until it is back and serves what it served before."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paramiko import SSHException
from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, State, StringCommand, operation
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.connectors.ssh import SSHConnector

from roles.host import AWAIT_SERVING, LEGACY, PROBE, SERVING, bundle
from roles.host.facts import reading
from roles.host.outcome import fail, failing, warn
from roles.reboot.waiting import BOOT_COMMAND, Boot, RebootWatch, parse_boot, wait

COMMAND_TIMEOUT_S = 40


@dataclass
class Reboots:
    """What all hosts of a run know of its reboots: who waits for its turn, who needs a reboot and
    why, and who had one."""

    restarting: set[str] = field(default_factory=set)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


class CurrentBoot(FactBase[Boot | None]):
    """Which boot a host is in, and which replicas run."""

    @staticmethod
    def default() -> Boot | None:
        return None

    def command(self) -> str:
        return BOOT_COMMAND

    def process(self, output: list[str]) -> Boot:
        with reading("the host's boot"):
            return parse_boot(output)


@dataclass
class RebootNeed:
    """Whether one host needs a reboot; each function is called when an operation is executed.

    - `allowed`: whether the inventory allows this run to reboot it
    - `reasons`: why the host cannot serve without a reboot
    - `recommended`: why a reboot is better, though the host serves without one
    - `blocker`: why the host would not serve after a reboot, or ""
    - `deferred`: whether its driver is changed in its own batch only, and may need a reboot then
    - `drain_problem`: why balancers would go on sending it requests, or "" (also if it serves
      nothing)
    """

    allowed: bool
    reasons: Callable[[], Sequence[str]]
    recommended: Callable[[], Sequence[str]]
    blocker: Callable[[], str]
    deferred: Callable[[], bool]
    drain_problem: Callable[[], str]


@operation()
def check_reboot(need: RebootNeed, reboots: Reboots, in_batch: Callable[[], bool] | None = None):
    """
    Note whether a host needs a reboot; changes nothing, and fails a host that must not have one.

    + need: whether it does
    + reboots: what the hosts of this run know of each other
    + in_batch: whether it is the host's turn, where all that waited for it is done by now
    """
    if not host.state.is_executing:
        host.noop("asked when the run executes")
        return
    at_own_batch = in_batch is not None
    if in_batch is not None and not in_batch():
        host.noop("not its turn")
        return
    deferred = need.deferred() and not at_own_batch
    reasons = () if deferred else tuple(need.reasons())
    recommended = () if deferred else tuple(need.recommended())
    if not (deferred or reasons or recommended):
        host.noop("no reboot is needed")
        return
    message = "; ".join((*reasons, *recommended)) or "its driver has to be changed"
    refusal = _refusal(need, deferred)
    if refusal and not (deferred or reasons):
        # Told once: at its turn, of a host that waited for it.
        if need.deferred() == at_own_batch:
            warn(f"serves, and had better be rebooted ({message}){refusal}")
        host.noop("no reboot is needed")
        return
    if refusal:
        yield failing(f"needs a reboot ({message}){refusal}")
        return
    reboots.restarting.add(host.name)
    if not deferred:
        reboots.reasons[host.name] = (*reasons, *recommended)
    host.noop(f"waits for its turn: {message}" if deferred else f"needs a reboot: {message}")


def _refusal(need: RebootNeed, deferred: bool) -> str:
    """Why this host is not rebooted by this run, and what to do; the end of a sentence, or ""."""
    if not deferred and (blocker := need.blocker()):
        return f", and must not have it: {blocker}; run again"
    if not isinstance(host.connector, SSHConnector):
        instead = "stop its replicas (systemctl stop 'llm-engine@*')" if deferred else "reboot it"
        return f", and this run is on it: {instead}, run again"
    if not need.allowed:
        # What waits for the host's turn is not installed yet.
        by_hand = "" if deferred else ", or reboot the host yourself"
        return f'. Allow it with driver.reboot = "when-needed"{by_hand}, and run again'
    problem = need.drain_problem()
    return f": {problem}" if problem else ""


@operation(is_idempotent=False)
def reboot(
    reboots: Reboots,
    in_batch: Callable[[], bool],
    skip_reason: Callable[[], str],
    on_done: Callable[[], None],
    timeout_s: int,
    start_timeout_s: int,
):
    """
    Reboot a host that needs it, wait until it is back, and until its replicas serve again.

    + reboots: what the hosts of this run know of each other
    + in_batch: whether it is the host's turn, asked when the run executes
    + skip_reason: why the host is left as it is instead, or ""
    + on_done: is called once the host serves again what it served before
    + timeout_s: seconds until the host must be back
    + start_timeout_s: seconds until a replica that ran before must answer a completion
    """
    if not host.state.is_executing or host.name not in reboots.restarting:
        host.noop("not rebooted")
        return
    if not in_batch():
        if reason := skip_reason():
            yield failing(f"not rebooted: {reason}; see there, run again")
        else:
            host.noop("not its turn")
        return
    if host.name not in reboots.reasons:
        host.noop("no reboot is needed any more")
        on_done()
        return
    boot_before = host.get_fact(CurrentBoot)
    if boot_before is None:
        return
    logger.info(f"{host.print_prefix}is rebooted: {'; '.join(reboots.reasons[host.name])}")
    # Detached, so that the command ends before the connection does.
    yield StringCommand("sh", "-c", "'(sleep 1; systemctl reboot) </dev/null >/dev/null 2>&1 &'")
    yield FunctionCommand(_await_boot, (boot_before, timeout_s), {})
    if boot_before.replicas:
        task = {"names": boot_before.replicas, "start_timeout_s": start_timeout_s}
        program = bundle([PROBE, SERVING, LEGACY, AWAIT_SERVING], task)
        yield StringCommand("python3", "-", _stdin=program)
    # Where anything went wrong on the way, nobody is sent to a host that is away.
    reboots.done.add(host.name)
    on_done()


def _await_boot(state: State, host: Host, boot_before: Boot, timeout_s: int) -> bool:
    waiting = RebootWatch(boot_before.boot_id)
    start = time.monotonic()
    is_back = wait(waiting, lambda: _observe_boot(host), timeout_s, time.monotonic, time.sleep)
    if is_back:
        host.connected = True
        logger.info(f"{host.print_prefix}is back after {time.monotonic() - start:.0f} s")
        return True
    return fail(
        state,
        host,
        f"did not come back within {timeout_s} s of its reboot. Last seen: {waiting.last_seen()}. "
        "Look at its console, or raise driver.reboot_timeout_s. Balancers send it nothing until a "
        "deploy finds it serving",
    )


def _observe_boot(host: Host) -> Boot | str:
    """One look through a new connection: the old one may hang for as long as TCP does."""
    try:
        _close(host)
        host.connector.connect()
        ok, output = host.run_shell_command(
            StringCommand(BOOT_COMMAND), _timeout=COMMAND_TIMEOUT_S, _shell_executable="sh"
        )
        return parse_boot(output.stdout_lines) if ok else "it does not answer a command"
    except ConnectError as error:
        return str(error)
    except (SSHException, EOFError, OSError, ValueError) as error:
        return f"the connection was lost ({str(error) or type(error).__name__})"


def _close(host: Host) -> None:
    client: Any = getattr(host.connector, "client", None)
    if client is not None:
        client.close()
    host.connector.disconnect()
