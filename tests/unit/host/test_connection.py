"""A connection that breaks fails its own host, never the run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from paramiko import SSHException
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector

from roles.host.connection import make_robust, without_phases
from roles.host.outcome import PHASES, TRUST, UNTRUSTED
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


@pytest.mark.parametrize(
    ("strict", "there", "raised", "says"),
    [
        ("yes", False, "", "known is not there"),
        ("yes", True, "No host key for 10.0.0.1 found in known_hosts", "No host key for 10.0.0.1"),
        ("yes", True, "timed out", None),
        ("accept-new", False, "timed out", None),
    ],
)
def test_a_host_whose_key_nobody_recorded_names_the_command_that_does(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    strict: str,
    there: bool,
    raised: str,
    says: str | None,
):
    def connect(self: SSHConnector) -> None:
        raise ConnectError(raised)

    file = tmp_path / "known"
    if there:
        file.touch()
    monkeypatch.setattr(SSHConnector, "_robust", False, raising=False)
    monkeypatch.setattr(SSHConnector, "run_shell_command", SSHConnector.run_shell_command)
    monkeypatch.setattr(SSHConnector, "connect", connect)
    make_robust()
    connector = SSHConnector.__new__(SSHConnector)
    data = {"ssh_known_hosts_file": str(file), "ssh_strict_host_key_checking": strict}
    connector.host = SimpleNamespace(data=data, connector_data={})  # type: ignore[assignment]
    with pytest.raises(ConnectError, match=says or raised) as error:
        connector.connect()
    assert (TRUST in str(error.value)) is (says is not None)
    assert connector.host.connector_data == ({UNTRUSTED: True} if says else {})


def test_what_replicas_are_at_is_heard_and_is_no_output():
    printed = [f"{PROGRESS}a-0 load\n", b"put back\n", f"{PROGRESS}a-0 first token\n".encode()]
    host = SimpleNamespace(connector_data={PHASES: {}})
    assert list(without_phases(printed, host)) == [b"put back\n"]
    assert host.connector_data[PHASES] == {"a-0": "first token"}


@pytest.mark.parametrize("host", [None, SimpleNamespace(connector_data={})])
def test_without_a_command_that_says_so_all_is_output(host: object):
    printed = [f"{PROGRESS}a-0 load\n", "text\n"]
    assert list(without_phases(printed, host)) == printed


def test_a_host_cannot_say_too_much():
    host = SimpleNamespace(connector_data={PHASES: {}})
    printed = (f"{PROGRESS}{number}{'x' * 999} {'y' * 999}\n" for number in range(999))
    assert list(without_phases(printed, host)) == []
    phases = host.connector_data[PHASES]
    assert len(phases) <= 64 and all(len(k) + len(v) <= 120 for k, v in phases.items())
