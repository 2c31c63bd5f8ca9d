"""Checks of the system: distribution, libraries, sudo, clock."""

from typing import Any

import pytest

from roles.engine import LlamaCppSettings, engine_needs
from roles.preflight.checks import checks, clock_difference
from tests.unit.preflight.hosts import (
    REPORTED,
    all_checks,
    answers,
    assert_only,
    needs,
    not_passed,
    report,
    two_builds,
)

Parts = dict[str, Any]

ROCKY, JAMMY = {"os": "rocky 9.4"}, {"os": "ubuntu 22.04"}
NEWER = "python python3\nversion 3.12.3\nvenv yes\n"


SYSTEM = [
    (
        {},
        {"machine": "aarch64"},
        "architecture",
        "warn",
        ("aarch64",),
    ),
    (
        {},
        {"machine": "ppc64le"},
        "architecture",
        "fail",
        ("ppc64le", "x86_64"),
    ),
    (
        {},
        {"glibc": "glibc 2.17"},
        "glibc",
        "fail",
        ("2.17", "0.33.0", "2.28"),
    ),
    (
        {},
        {"python": "python python3\nversion 3.10.12\nvenv yes"},
        "python",
        "fail",
        ("python3", "3.10.12", "0.33.0", "python3.11-venv"),
    ),
    (
        JAMMY,
        {"python": ""},
        "python",
        "fail",
        ("python3", "3.10", "0.33.0", "python3.11-venv"),
    ),
    (
        {},
        {"init": "tini", "systemd": ""},
        "systemd",
        "fail",
        ("tini",),
    ),
    (
        {},
        {"systemd": "systemd 239 (239-78.el8)"},
        "systemd",
        "fail",
        ("239", "247"),
    ),
    (
        {"sudo": ""},
        {},
        "sudo",
        "fail",
        ("/etc/sudoers.d",),
    ),
    (
        {"sudo": ""},
        {"root_errors": "sudo: sorry, you must have a tty to run sudo"},
        "sudo",
        "fail",
        ("/etc/sudoers.d",),
    ),
    (
        {"sudo": "", "user": "0"},
        {},
        "sudo",
        "fail",
        ("apt-get install sudo",),
    ),
    (
        {},
        {"root_errors": "sudo: unable to resolve host gpu1: Name or service not known"},
        "host-name",
        "warn",
        ("127.0.1.1", "/etc/hosts"),
    ),
    (
        {},
        {"umask": "0077"},
        "umask",
        "fail",
        ("0077", "/etc/sudoers.d"),
    ),
    (
        {},
        {"deploys": "431 12 20261130T032409Z-4f2a\n412 345 20261130T032409Z-4f2a"},
        "other-deploy",
        "fail",
        ("pid 412", "345 s", "20261130T032409Z-4f2a", "wait for it, then run again"),
    ),
    (
        {},
        {"deploys": "412"},
        "other-deploy",
        "fail",
        ("pid 412",),
    ),
    (
        ROCKY,
        {},
        "os",
        "fail",
        ("9.4", "12"),
    ),
    (
        {"os": "ubuntu 25.10"},
        {},
        "os",
        "warn",
        ("25.10", "12"),
    ),
    (
        {"os": "arch"},
        {},
        "os",
        "fail",
        ("arch", "Debian 12"),
    ),
    (
        {},
        {"synchronised": "NTPSynchronized=no"},
        "clock-synchronised",
        "warn",
        ("timedatectl set-ntp",),
    ),
    (
        {},
        {"dpkg_audit": "The following packages are only half configured: nvidia-dkms-580"},
        "package-manager",
        "warn",
        ("nvidia-dkms-580",),
    ),
    (
        {},
        {"reboot_required": "yes\nlinux-image-6.8"},
        "reboot-pending",
        "warn",
        ("linux-image-6.8",),
    ),
    (
        {"os": "rocky 8.10"},
        {},
        "os",
        "fail",
        ("8.10", "12"),
    ),
]


@pytest.mark.parametrize(("host", "parts", "name", "outcome", "mentions"), SYSTEM)
def test_system(host: Parts, parts: Parts, name: str, outcome: str, mentions: tuple[str, ...]):
    reported = {name: text for name, text in parts.items() if name in REPORTED}
    found = not_passed(report(**host | reported), **parts, sudo=host.get("sudo", "yes") == "yes")
    assert_only(found, name, outcome, mentions)


@pytest.mark.parametrize(
    ("python", "outcome", "text"),
    [
        ("python python3.10\nversion 3.10.4\nvenv yes", "pass", "python3.10 3.10.4 with venv"),
        ("", "fail", "no python3.10"),
        ("python python3.10\nversion 3.9.1", "fail", "python3.10 is 3.9.1, vllm 0.19.1 needs 3.10"),
        ("python python3.10", "fail", "python3.10 does not run"),
        ("python python3.10\nversion 3.10.4", "fail", "python3.10 has no module venv or ensurepip"),
    ],
)
def test_each_builds_python_is_held_to_its_own_build(python: str, outcome: str, text: str):
    own = "folder /srv/wheels\nwheels 5"
    found = all_checks(wanted=two_builds(python="python3.10", wheelhouse="/srv/wheels"),
                 python=NEWER + python, wheelhouse=own)  # fmt: skip
    assert found["python"].evidence == "python3 3.12.3 with venv"
    assert found["reach-wheelhouse"].evidence == "5 wheels in /srv/wheels"
    assert (found["python:python3.10"].outcome, found["python:python3.10"].evidence) == (
        outcome,
        text,
    )


def test_builds_on_one_python_ask_for_it_once():
    assert "python:python3" not in all_checks(wanted=two_builds())
    found = not_passed(wanted=two_builds(), python="python python3\nversion 3.9.2\nvenv yes")
    # Of two that share it, the one that needs more decides.
    assert found["python"][1] == "python3 is 3.9.2, vllm 0.33.0 needs 3.11"


def test_sudo_that_hangs():
    assert not_passed(sudo=False, hung_root="") == {
        "sudo": (
            "fail",
            "sudo does not run every command: no answer in time",
            "allow every command: USER ALL=(ALL) NOPASSWD: ALL",
        )
    }


@pytest.mark.parametrize(
    ("asked", "answered", "difference"),
    [
        (1700000000.5, 1700000002.5, 0),
        # A slow way is no difference.
        (1699999960.0, 1700000060.0, 0),
        (1700000500.0, 1700000503.0, -499),
        (1699999000.0, 1699999003.0, 999),
    ],
)
def test_the_clock(asked: float, answered: float, difference: float):
    assert clock_difference(asked, answered, answers()) == difference


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(0, "pass"), (-59, "pass"), (61, "warn"), (-301, "fail")]
)
def test_a_clock_that_is_wrong(seconds: float, outcome: str):
    found = checks(answers(), report(), needs(), seconds)
    own = {check.name: check for check in found}["clock-difference"]
    assert own.outcome == outcome
    if outcome == "fail":
        assert own.evidence == "301 s behind this machine's clock: TLS would fail"


@pytest.mark.parametrize(
    ("umask", "outcome"), [("0002", "pass"), ("0070", "pass"), ("0027", "fail")]
)
def test_only_what_others_may_counts(umask: str, outcome: str):
    """Engines run as a user of their own, who is in no group of root's."""
    assert all_checks(umask=umask)["umask"].outcome == outcome


def test_a_container_has_the_clock_of_its_machine():
    alone: Parts = {"synchronised": "NTPSynchronized=no"}
    of_lxc = report(virtualization="lxc")
    assert all_checks(of_lxc, **alone)["clock-synchronised"].outcome == "skipped"
    assert all_checks(report(virtualization="kvm"), **alone)["clock-synchronised"].remedy


def test_what_is_built_on_the_host_is_said_before():
    archive = "https://example.com/llama-b11434-bin-ubuntu-cuda-12.8-x64.tar.gz"
    given = {
        "archive": archive,
        "sha256": "a" * 64,
        "source": "/srv/s.tgz",
        "source_sha256": "b" * 64,
    }
    wanted = needs(engines=(engine_needs(LlamaCppSettings.model_validate(given)),))
    old, new = (
        all_checks(wanted=wanted, glibc=f"glibc {version}")["glibc"] for version in ("2.36", "2.39")
    )
    assert {old.outcome, new.outcome} == {"pass"}
    assert old.evidence == (
        "2.36; llama.cpp b11434 is built from its source, as its archive needs 2.39"
    )
    assert new.evidence == "2.39"
