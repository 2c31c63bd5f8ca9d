"""A connection that breaks fails its own host, never the run."""

import pytest
from paramiko import SSHException
from pyinfra.api import StringCommand
from pyinfra.connectors.ssh import SSHConnector

from roles.host.connection import make_robust


def test_a_host_that_goes_away_is_an_error_that_pyinfra_knows(monkeypatch: pytest.MonkeyPatch):
    def gone(*arguments: object, **options: object) -> None:
        raise EOFError

    monkeypatch.setattr(SSHConnector, "_robust", False, raising=False)
    monkeypatch.setattr(SSHConnector, "run_shell_command", gone)
    monkeypatch.setattr(SSHConnector, "connect", lambda self: None)
    make_robust()
    connector = SSHConnector.__new__(SSHConnector)
    with pytest.raises(SSHException, match="the connection was lost"):
        connector.run_shell_command(StringCommand("true"))
    # Twice changes nothing more.
    patched = SSHConnector.run_shell_command
    make_robust()
    assert SSHConnector.run_shell_command is patched
