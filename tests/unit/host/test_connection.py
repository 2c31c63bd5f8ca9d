"""A connection that breaks fails its own host, never the run."""

from types import SimpleNamespace

import pytest
from paramiko import SSHException
from pyinfra.api import StringCommand
from pyinfra.connectors.ssh import SSHConnector

from roles.host.connection import make_robust, without_phases
from roles.host.outcome import PHASES
from roles.host.serving import PROGRESS


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


def test_what_replicas_are_at_is_heard_and_is_no_output():
    said = [f"{PROGRESS}a-0 load\n", b"put back\n", f"{PROGRESS}a-0 first token\n".encode()]
    host = SimpleNamespace(connector_data={PHASES: {}})
    assert list(without_phases(said, host)) == [b"put back\n"]
    assert host.connector_data[PHASES] == {"a-0": "first token"}


@pytest.mark.parametrize("host", [None, SimpleNamespace(connector_data={})])
def test_without_a_command_that_says_so_all_is_output(host: object):
    said = [f"{PROGRESS}a-0 load\n", "text\n"]
    assert list(without_phases(said, host)) == said


def test_a_host_cannot_say_too_much():
    host = SimpleNamespace(connector_data={PHASES: {}})
    said = (f"{PROGRESS}{number}{'x' * 999} {'y' * 999}\n" for number in range(999))
    assert list(without_phases(said, host)) == []
    phases = host.connector_data[PHASES]
    assert len(phases) <= 64 and all(len(k) + len(v) <= 120 for k, v in phases.items())
