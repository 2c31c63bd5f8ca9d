"""What a run costs that has nothing to do: SSH commands a host, and time against the first run."""

import time

from tests.lab.conftest import Fleet, Run

MOST_COMMANDS = 25


def test_ssh_commands_and_time(lab: Fleet, capsys):
    started = time.monotonic()
    first: Run = lab.deploy("--data", "validate=false")
    first_s = time.monotonic() - started
    assert first.status == 0, first.text
    started = time.monotonic()
    second = lab.deploy("--data", "validate=false", "-vv")
    second_s = time.monotonic() - started
    assert (second.status, second.changes) == (0, 0), second.text
    commands = {host: second.ssh_commands(host) for host in ("gpu1", "gpu2", "gpu3", "lb1")}
    with capsys.disabled():
        print(f"\nSSH commands of a no-change run: {commands}, at most {MOST_COMMANDS} allowed")
        print(f"no-change run / first run: {second_s:.1f} s / {first_s:.1f} s = "
              f"{second_s / first_s:.3f}")  # fmt: skip
    assert all(count <= MOST_COMMANDS for count in commands.values())
