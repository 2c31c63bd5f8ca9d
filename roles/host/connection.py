"""Connections that break: pyinfra 3.10 does not know all the ways.

paramiko raises EOFError where a host goes away in the middle, which pyinfra does not expect around
commands: it would end the run for all hosts. It also sets no keepalive, so a connection that is
silent while a model loads can be dropped by a firewall on the way, and a run hangs.
"""

from typing import Any

from paramiko import SSHException
from pyinfra.connectors.ssh import SSHConnector

from roles.host.terminal import make_plain

KEEPALIVE_S = 30


def make_robust() -> None:
    """Have every SSH connection of this process fail for its own host alone, and stay alive."""
    if getattr(SSHConnector, "_robust", False):
        return
    make_plain()
    run, connect = SSHConnector.run_shell_command, SSHConnector.connect

    def run_shell_command(self: SSHConnector, *arguments: Any, **options: Any) -> Any:
        try:
            return run(self, *arguments, **options)
        except EOFError as error:
            raise SSHException("the connection was lost") from error

    def connect_and_keep(self: SSHConnector) -> None:
        connect(self)
        transport = self.client.get_transport() if self.client else None
        if transport:
            transport.set_keepalive(KEEPALIVE_S)

    SSHConnector.run_shell_command = run_shell_command
    SSHConnector.connect = connect_and_keep
    SSHConnector._robust = True  # type: ignore[attr-defined]
