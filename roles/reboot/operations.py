"""Operations that decide on a reboot, reboot a host, and wait until it serves again."""

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
from roles.host.outcome import PhasedCommand, fail, failing, warn
from roles.reboot.waiting import BOOT_COMMAND, Boot, RebootWatch, parse_boot, wait

COMMAND_TIMEOUT_S = 40


@dataclass
class Reboots:
    """The reboots of one run, shared by its hosts.

    `restarting` are hosts that take part in the rolling update of reboots, `reasons` why a host
    needs a reboot, `done` the hosts that were rebooted.
    """

    restarting: set[str] = field(default_factory=set)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


class CurrentBoot(FactBase[Boot | None]):
    """The current boot of a host, and the replicas that run."""

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
    Note whether a host needs a reboot; fails a host that needs one and may not have it. Changes
    nothing.

    + need: whether and why the host needs a reboot
    + reboots: the reboots of this run
    + in_batch: whether this batch has the host; None before the first batch. What was deferred to
      the host's batch has been done by then
    """
    if not host.state.is_executing:
        host.noop("asked when the run executes")
        return
    at_own_batch = in_batch is not None
    if in_batch is not None and not in_batch():
        host.noop("not in this batch")
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
        # Only one of the two calls warns: the one in its batch where the host was deferred to it.
        if need.deferred() == at_own_batch:
            warn(f"serves, but should be rebooted ({message}){refusal}")
        host.noop("no reboot is needed")
        return
    if refusal:
        yield failing(f"needs a reboot ({message}){refusal}")
        return
    reboots.restarting.add(host.name)
    if not deferred:
        reboots.reasons[host.name] = (*reasons, *recommended)
    host.noop(f"waits for its batch: {message}" if deferred else f"needs a reboot: {message}")


def _refusal(need: RebootNeed, deferred: bool) -> str:
    """Why this run does not reboot the host, and what to do, as the end of a sentence; or ""."""
    if not deferred and (blocker := need.blocker()):
        return f", and would not serve after it: {blocker}; run again"
    if not isinstance(host.connector, SSHConnector):
        instead = "stop its replicas (systemctl stop 'llm-engine@*')" if deferred else "reboot it"
        return f", and this run is on that host itself: {instead}, run again"
    if not need.allowed:
        # A driver that is deferred to the host's batch is not installed yet.
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
    Reboot a host that needs it, and wait until it is back and its replicas serve again.

    + reboots: the reboots of this run
    + in_batch: whether this batch has the host; called when the run executes
    + skip_reason: why the rolling update skips the host, or ""
    + on_done: called once the host's replicas serve as before
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
            host.noop("not in this batch")
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
        task = {
            "names": boot_before.replicas,
            "start_timeout_s": start_timeout_s,
            "progress": True,
        }
        program = bundle([PROBE, SERVING, LEGACY, AWAIT_SERVING], task)
        yield PhasedCommand("python3", "-", _stdin=program)
    # These lines are reached only if nothing failed: else balancers must not send requests here.
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
        "Look at its console, or raise driver.reboot_timeout_s. Balancers send it no requests "
        "until a deploy finds it serving",
    )


def _observe_boot(host: Host) -> Boot | str:
    """The host's boot, or why it cannot be read; by a new connection, as the old one may hang."""
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
