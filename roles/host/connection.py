"""Connections that break: pyinfra 3.10 does not know all the ways.

paramiko raises EOFError where a host goes away in the middle, which pyinfra does not expect around
commands: it would end the run for all hosts. It also sets no keepalive, so a connection that is
silent while a model loads can be dropped by a firewall on the way, and a run hangs.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from paramiko import SSHException
from pyinfra.connectors import ssh, util
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_host

from roles.host.outcome import PHASES
from roles.host.serving import PROGRESS
from roles.host.terminal import bounded, sanitize_output

KEEPALIVE_S = 30
# A host may say anything.
_MAX_PHASES, _PHASE_LENGTH = 64, 60


def make_robust() -> None:
    """Have every SSH connection of this process fail for its own host alone, and stay alive."""
    if getattr(SSHConnector, "_robust", False):
        return
    sanitize_output()
    run, connect = SSHConnector.run_shell_command, SSHConnector.connect

    def run_shell_command(self: SSHConnector, *arguments: Any, **options: Any) -> Any:
        try:
            return run(self, *arguments, **options)
        except EOFError as error:
            raise SSHException("the connection was lost") from error

    def connect_with_keepalive(self: SSHConnector) -> None:
        connect(self)
        transport = self.client.get_transport() if self.client else None
        if transport:
            transport.set_keepalive(KEEPALIVE_S)

    SSHConnector.run_shell_command = run_shell_command
    SSHConnector.connect = connect_with_keepalive
    SSHConnector._robust = True  # type: ignore[attr-defined]
    _read_phases()


def _read_phases() -> None:
    """Take what a command says of replicas' phases as it comes; pyinfra hands output on at its
    end."""
    read = util.read_output_buffers

    def read_with_phases(stdout: Any, stderr: Any, **options: Any) -> Any:
        return read(without_phases(bounded(stdout), ctx_host.get()), stderr, **options)

    # ssh has a name of its own for it.
    util.read_output_buffers = ssh.read_output_buffers = read_with_phases


def without_phases(lines: Iterable[Any], host: Any) -> Iterator[Any]:
    """The lines that a command on a host prints, but for those that say what a replica is at."""
    phases = host.connector_data.get(PHASES) if host is not None else None
    for line in lines:
        text = line.decode(errors="replace") if isinstance(line, bytes) else line
        if phases is None or not text.startswith(PROGRESS):
            yield line
            continue
        name, _, phase = text.removeprefix(PROGRESS).strip().partition(" ")
        if name in phases or len(phases) < _MAX_PHASES:
            phases[name[:_PHASE_LENGTH]] = phase[:_PHASE_LENGTH]
