"""When a host counts as back, and what is said of one that is not."""

import subprocess

import pytest

from roles.reboot.waiting import BOOT_COMMAND, Boot, RebootWatch, parse_boot, wait

OLD, NEW = Boot("old"), Boot("new")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(*looks: Boot | str, timeout_s: float = 100) -> tuple[bool, RebootWatch, int]:
    clock, waiting, left = Clock(), RebootWatch("old"), list(looks)

    def look() -> Boot | str:
        return left.pop(0) if len(left) > 1 else left[0]

    back = wait(waiting, look, timeout_s, clock, clock.sleep)
    return back, waiting, round(clock.now)


def test_only_another_boot_that_has_settled_counts():
    back, _, seconds = waited(OLD, "refused", Boot("new", "starting", ("a.service",)), NEW)
    assert back and seconds == 6


@pytest.mark.parametrize("system", ["running", "degraded", "maintenance"])
def test_a_degraded_system_is_back_too(system: str):
    assert waited(Boot("new", system))[0]


@pytest.mark.parametrize(
    "message", ["", "unknown", "offline", "initializing", "stopping", "Failed to connect to bus: x"]
)
def test_a_boot_whose_systemd_does_not_say_that_it_is_up_is_looked_at_again(message: str):
    look = parse_boot(["boot new", f"system {message}"])
    back, waiting, _ = waited(look)
    assert not back
    assert f"it is booting (systemd says {message or 'nothing'})" in waiting.last_seen()
    assert waited(look, NEW)[0]


def test_what_was_last_seen_is_told_with_its_time():
    stopping = Boot("old", "stopping", ("docker.service",))
    back, waiting, _ = waited(OLD, stopping, stopping, "Could not connect (timed out)")
    assert not back
    assert waiting.last_seen() == (
        "after 0 s: it is still in its old boot (systemd says running); "
        "after 2 s: it is still in its old boot (systemd says stopping, waiting for "
        "docker.service); after 6 s: Could not connect (timed out)"
    )


def test_a_host_that_never_answers_has_one_line():
    back, waiting, seconds = waited("SSH error (no route)", timeout_s=10)
    assert (back, seconds) == (False, 10)
    assert waiting.last_seen() == "after 0 s: SSH error (no route)"


def test_a_look_is_read():
    lines = ["boot 1-2", "system starting", "job a.service", "unit llm-engine@m-0.service", "x"]
    assert parse_boot(lines) == Boot("1-2", "starting", ("a.service",), ("m-0",))


def test_a_look_without_systemd_is_read():
    assert parse_boot(["boot 1-2", "system "]) == Boot("1-2", "nothing")
    with pytest.raises(ValueError, match="no boot id"):
        parse_boot(["system running"])


def test_the_look_runs_here():
    done = subprocess.run(["sh", "-c", BOOT_COMMAND], capture_output=True, text=True, timeout=300)
    assert parse_boot(done.stdout.splitlines()).boot_id
