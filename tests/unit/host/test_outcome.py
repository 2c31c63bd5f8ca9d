"""How a host is failed, and no other; no host is contacted."""

from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host

from roles.checks import Check
from roles.checks.deploy import report_of
from roles.host.outcome import failing, failing_checks, ssh_command, stop


class State:
    """What a run knows of its hosts."""

    def __init__(self) -> None:
        self.failed_hosts: set[Any] = set()
        self.stopped: set[Any] = set()

    def fail_hosts(self, hosts: set[Any]) -> None:
        self.stopped |= hosts


class Host:
    """Keeps what was printed of it."""

    name = "gpu1"

    def __init__(self) -> None:
        self.state = State()
        self.printed: list[str] = []

    def log_styled(self, text: str, fg: str, **_: Any) -> None:
        assert fg == "red"
        self.printed.append(text)


def test_a_failure_is_printed_line_by_line_and_is_in_the_report():
    host = Host()
    command = failing("no driver\ninstall one")
    assert command.function(host.state, host, *command.args) is False
    assert host.printed == ["no driver", "install one"]
    assert host.state.failed_hosts == {host}
    assert report_of(host.state).reasons == {"gpu1": "no driver\ninstall one"}  # type: ignore[arg-type]


def test_of_checks_the_failed_ones_are_named():
    host = Host()
    checks = [
        Check("completion", "chat-0", "fail", "HTTP 500:\x1b dead"),
        Check("load", "chat-0", "pass", "9 completions"),
        Check("stream", "chat-0", "fail", "0 chunks"),
    ]
    command = failing_checks(checks, "Validation")
    assert command.function(host.state, host, *command.args) is False
    assert host.printed == [
        "Validation failed: chat-0 completion: HTTP 500:  dead",
        "Validation failed: chat-0 stream: 0 chunks",
    ]


def test_a_host_is_stopped_while_the_run_prepares():
    host = Host()
    with ctx_host.use(host):  # type: ignore[arg-type]
        stop("no sudo")
    assert host.printed == ["stopped, nothing was changed here: no sudo"]
    assert host.state.stopped == {host}
    assert report_of(host.state).reasons == {"gpu1": "no sudo"}  # type: ignore[arg-type]


def test_each_run_has_one_report():
    one, other = SimpleNamespace(), SimpleNamespace()
    report = report_of(one)  # type: ignore[arg-type]
    assert report_of(one) is report  # type: ignore[arg-type]
    assert report_of(other) is not report  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [
        ("gpu1", {}, "ssh gpu1"),
        ("gpu1", {"ssh_hostname": "10.0.0.1", "ssh_user": "deploy"}, "ssh deploy@10.0.0.1"),
        (
            "gpu1",
            {"ssh_port": 2222, "ssh_key": "a key", "ssh_known_hosts_file": "known"},
            "ssh -p 2222 -i 'a key' -o UserKnownHostsFile=known gpu1",
        ),
        ("@local", {}, ""),
    ],
)
def test_a_host_is_reached_by_a_command_that_can_be_pasted(
    name: str, data: dict[str, Any], command: str
):
    host: Any = SimpleNamespace(name=name, data=data)
    assert ssh_command(host) == command
