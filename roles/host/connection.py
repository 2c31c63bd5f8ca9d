"""Makes SSH connections robust where pyinfra 3.10 does not.

paramiko raises EOFError when a host disappears during a command. pyinfra does not expect that and
would end the run for all hosts. It also sets no keepalive: while a model loads the connection is
silent, a firewall may drop it, and the run hangs.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from paramiko import SSHException
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors import ssh, util
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_host

from roles.host.outcome import PHASES, TRUST, UNTRUSTED
from roles.host.serving import PROGRESS
from roles.host.terminal import bounded, sanitize_output

KEEPALIVE_S = 30
# Bounds of what a host may report.
_MAX_PHASES, _PHASE_LENGTH = 64, 60


def make_robust() -> None:
    """Make an SSH connection of this process fail for its own host alone, and keep it alive."""
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
        _see_known_hosts(self.host)
        try:
            connect(self)
        except ConnectError as error:
            if "No host key for" in str(error):
                raise ConnectError(_untrusted(self.host, str(error))) from None
            raise
        transport = self.client.get_transport() if self.client else None
        if transport:
            transport.set_keepalive(KEEPALIVE_S)

    SSHConnector.run_shell_command = run_shell_command
    SSHConnector.connect = connect_with_keepalive
    SSHConnector._robust = True  # type: ignore[attr-defined]
    _read_phases()


def _see_known_hosts(host: Any) -> None:
    """ConnectError where host keys are checked and the file of known hosts does not exist: paramiko
    continues as if it were empty."""
    file = host.data.get("ssh_known_hosts_file")
    strict = host.data.get("ssh_strict_host_key_checking") == "yes"
    if file and strict and not Path(file).expanduser().exists():
        raise ConnectError(_untrusted(host, f"{file} is not there"))


def _untrusted(host: Any, why: str) -> str:
    host.connector_data[UNTRUSTED] = True
    return f"{why}: record the hosts' keys once with `{TRUST} INVENTORY`"


def _read_phases() -> None:
    """Read the phases of replicas while a command runs: pyinfra returns output only at its end."""
    read = util.read_output_buffers

    def read_with_phases(stdout: Any, stderr: Any, **options: Any) -> Any:
        return read(without_phases(bounded(stdout), ctx_host.get()), stderr, **options)

    # The ssh module has imported the function under its own name.
    util.read_output_buffers = ssh.read_output_buffers = read_with_phases


def without_phases(lines: Iterable[Any], host: Any) -> Iterator[Any]:
    """The lines of a host's command without those that report a replica's phase; stores the
    phases."""
    phases = host.connector_data.get(PHASES) if host is not None else None
    for line in lines:
        text = line.decode(errors="replace") if isinstance(line, bytes) else line
        if phases is None or not text.startswith(PROGRESS):
            yield line
            continue
        name, _, phase = text.removeprefix(PROGRESS).strip().partition(" ")
        if name in phases or len(phases) < _MAX_PHASES:
            phases[name[:_PHASE_LENGTH]] = phase[:_PHASE_LENGTH]
