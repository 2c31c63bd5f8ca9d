"""What the operations do by what a host says; no host is contacted."""

from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_host

from roles.reboot import Boot
from roles.reboot.operations import CurrentBoot, RebootNeed, Reboots, check_reboot, reboot


class Host:
    """Answers one fact, and keeps what was not done."""

    def __init__(self, executing: bool = True, over_ssh: bool = True, boot: Boot | None = None):
        self.name = "gpu1"
        self.print_prefix = "gpu1: "
        self.state: Any = SimpleNamespace(is_executing=executing, failed_hosts=set())
        self.connector = SSHConnector.__new__(SSHConnector) if over_ssh else object()
        self.boot = boot or Boot("old")
        self.noops: list[str] = []
        self.output: list[str] = []

    def get_fact(self, fact: Any, **_: Any) -> Any:
        assert fact is CurrentBoot
        return self.boot

    def noop(self, why: str) -> None:
        self.noops.append(why)

    def log_styled(self, text: str, **_: Any) -> None:
        self.output.append(text)


def run(host: Host, operation: Any, **arguments: Any) -> list[Any]:
    with ctx_host.use(host):
        return list(operation._inner(**arguments))


def reboots(host: Host) -> Reboots:
    return Reboots()


def batch(in_batch: bool = True, left: str = "", done: list[str] | None = None) -> dict[str, Any]:
    """What a host does in a batch; `done` takes a word once it is over."""
    noted = [] if done is None else done
    return {
        "in_batch": lambda: in_batch,
        "skip_reason": lambda: left,
        "on_done": lambda: noted.append("done"),
        "timeout_s": 9,
        "start_timeout_s": 9,
    }


def need(why: tuple[str, ...] = (), allowed: bool = True, **more: Any) -> RebootNeed:
    return RebootNeed(
        allowed,
        lambda: why,
        lambda: more.get("recommended", ()),
        lambda: more.get("blocker", ""),
        lambda: more.get("waits", False),
        lambda: more.get("drain_problem", ""),
    )


def ask(host: Host, why: tuple[str, ...], allowed: bool) -> tuple[Reboots, list[Any]]:
    known = reboots(host)
    return known, run(host, check_reboot, need=need(why, allowed), reboots=known)


def failure(host: Host, commands: list[Any]) -> str:
    (command,) = commands
    assert isinstance(command, FunctionCommand)
    assert command.function(host.state, host, *command.args) is False
    return host.output[0]


def test_nothing_is_rebooted_that_needs_none():
    host = Host()
    known, commands = ask(host, (), True)
    assert commands == [] and host.noops == ["no reboot is needed"]
    assert run(host, reboot, reboots=known, **batch()) == []


def test_a_dry_run_asks_nothing():
    host = Host(executing=False)
    known, commands = ask(host, ("nouveau is loaded",), True)
    assert commands == [] and not known.reasons


def test_a_reboot_that_is_not_allowed_fails_the_host_with_the_setting():
    host = Host()
    known, commands = ask(host, ("nouveau is loaded",), False)
    message = failure(host, commands)
    assert "nouveau is loaded" in message and 'driver.reboot = "when-needed"' in message
    assert not known.restarting


def test_the_machine_of_the_run_itself_is_not_rebooted():
    host = Host(over_ssh=False)
    assert "this run is on that host itself" in failure(
        host, ask(host, ("nouveau is loaded",), True)[1]
    )


@pytest.mark.parametrize("replicas", [(), ("m-0", "m-1")])
def test_a_host_in_turn_is_rebooted_and_waited_for(replicas: tuple[str, ...]):
    host = Host(boot=Boot("old", replicas=replicas))
    known, _ = ask(host, ("nouveau is loaded",), True)
    commands = run(host, reboot, reboots=known, **batch())
    assert "systemctl reboot" in str(commands[0])
    assert isinstance(commands[1], FunctionCommand)
    assert len(commands) == 2 + bool(replicas)
    assert known.done == {"gpu1"}


def test_a_host_that_fails_on_the_way_stays_out_of_the_balancers():
    host = Host()
    known, _ = ask(host, ("nouveau is loaded",), True)
    done: list[str] = []
    with ctx_host.use(host):
        commands = iter(reboot._inner(reboots=known, **batch(done=done)))
        next(commands)
        next(commands)
    assert not known.done and not done


def test_nobody_is_rebooted_after_one_was_lost():
    host = Host()
    known, _ = ask(host, ("nouveau is loaded",), True)
    left = batch(in_batch=False, left="the update of s stopped when gpu0 failed")
    message = failure(host, run(host, reboot, reboots=known, **left))
    assert message.startswith("not rebooted: the update of s stopped when gpu0 failed")


def test_a_host_waits_for_its_own_batch():
    host = Host()
    known, _ = ask(host, ("nouveau is loaded",), True)
    assert run(host, reboot, reboots=known, **batch(in_batch=False)) == []
    assert host.noops[-1] == "not in this batch"


def test_a_wish_is_told_where_reboots_are_not_allowed_and_done_where_they_are():
    host, newer = Host(), ("kernel 6.2 waits",)
    known = reboots(host)
    assert run(host, check_reboot, need=need(allowed=False, recommended=newer), reboots=known) == []
    expected_message = "serves, but should be rebooted (kernel 6.2 waits)"
    (message,) = host.output
    assert message.startswith(expected_message) and 'driver.reboot = "when-needed"' in message
    # Once: it is asked again at its turn.
    assert (
        run(
            host,
            check_reboot,
            need=need(allowed=False, recommended=newer),
            reboots=known,
            in_batch=lambda: True,
        )
        == []
    )
    assert len(host.output) == 1 and not known.reasons
    assert run(host, check_reboot, need=need(recommended=newer), reboots=known) == []
    assert known.reasons == {"gpu1": newer}


@pytest.mark.parametrize(
    ("over_ssh", "more", "expected_message"),
    [
        (True, {"drain_problem": "add --limit lb1"}, "(kernel 6.2 waits): add --limit lb1"),
        (
            True,
            {"blocker": "no module"},
            "(kernel 6.2 waits), and would not serve after it: no module;",
        ),
        (
            False,
            {},
            "(kernel 6.2 waits), and this run is on that host itself: reboot it, run again",
        ),
    ],
)
def test_a_wish_that_cannot_be_had_fails_no_host(over_ssh: bool, more: Any, expected_message: str):
    host = Host(over_ssh=over_ssh)
    known = reboots(host)
    wishing = need(recommended=("kernel 6.2 waits",), **more)
    assert run(host, check_reboot, need=wishing, reboots=known) == []
    assert host.output[0].startswith("serves, but should be rebooted " + expected_message)
    assert not known.restarting and not known.reasons


def test_a_host_that_serves_waits_for_its_turn():
    host = Host()
    known = reboots(host)
    waiting = need(("driver 1 is loaded, 2 is installed",), waits=True)
    assert run(host, check_reboot, need=waiting, reboots=known) == []
    assert known.restarting == {"gpu1"} and not known.reasons
    assert run(host, check_reboot, need=waiting, reboots=known, in_batch=lambda: True) == []
    assert known.reasons == {"gpu1": ("driver 1 is loaded, 2 is installed",)}


def test_a_host_that_nobody_would_pass_by_is_not_rebooted():
    host = Host()
    alone = need(("nouveau is loaded",), drain_problem="it serves, and …: add --limit lb1")
    output = failure(host, run(host, check_reboot, need=alone, reboots=reboots(host)))
    assert output == "needs a reboot (nouveau is loaded): it serves, and …: add --limit lb1"


def test_what_would_come_of_a_reboot_is_told_instead():
    host = Host()
    commands = run(
        host, check_reboot, need=need(("why",), blocker="no module"), reboots=reboots(host)
    )
    assert "would not serve after it: no module" in failure(host, commands)


def test_a_wish_is_only_told_where_the_reboot_would_do_harm():
    host = Host()
    wished = need((), recommended=("a newer kernel",), blocker="no module")
    assert run(host, check_reboot, need=wished, reboots=reboots(host)) == []
    assert host.noops == ["no reboot is needed"] and "a newer kernel" in host.output[0]


def test_a_host_whose_driver_waits_is_not_told_to_reboot_itself():
    host = Host()
    waiting = need((), allowed=False, waits=True)
    expected_message = failure(host, run(host, check_reboot, need=waiting, reboots=reboots(host)))
    assert expected_message.startswith(
        "needs a reboot (its driver has to be changed). Allow it with"
    )
    assert "yourself" not in expected_message
