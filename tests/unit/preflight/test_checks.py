"""All checks of a host together: what a healthy one gets, and how the host is asked."""

from dataclasses import replace
from typing import Any

from roles.preflight import without_engine
from roles.preflight.checks import checks
from tests.unit.hardware.hosts import query
from tests.unit.hardware.hosts import row as gpu_row
from tests.unit.preflight.hosts import (
    all_checks,
    answers,
    balancer,
    needs,
    not_passed,
    report,
)

Parts = dict[str, Any]

ROCKY, JAMMY = {"os": "rocky 9.4"}, {"os": "ubuntu 22.04"}


def test_a_healthy_host_has_nothing_to_mend():
    found = all_checks()
    assert not_passed() == {}
    assert {name for name, check in found.items() if check.outcome == "pass"} >= {
        *("os", "sudo", "umask", "systemd", "clock-difference", "clock-synchronised", "python"),
        *("glibc", "disk-engine", "mounts", "inodes", "memory", "reach-index", "reach-hub-1"),
        *("reach-distribution", "gpus", "driver", "compute-capability", "gpu-health", "ports"),
        *("firewall", "selinux", "denials", f"weights:{'Qwen/Qwen2.5-7B-Instruct'}"),
    }
    named = [(one.name, one.subject) for one in checks(answers(), report(), needs(), 0.0)]
    assert len(named) == len(set(named)), "each name once"


def test_a_healthy_balancer_is_asked_less():
    found = all_checks(wanted=balancer())
    assert not_passed(wanted=balancer()) == {}
    assert {
        "os",
        "sudo",
        "clock-difference",
        "disk-balancer",
        "ports",
        "reach-distribution",
    } <= set(found)
    assert not {"glibc", "python", "gpus", "driver", "reach-index", "disk-engine"} & set(found)


def test_without_sudo_all_else_is_told():
    found = not_passed(
        report(sudo=""),
        sudo=False,
        root_errors="sudo: a password is required",
        reach_index="curl 7 000",
        listening="asked\nLISTEN 0 5 0.0.0.0:8001 0.0.0.0:*",
    )
    assert set(found) == {"sudo", "reach-index", "port:8001"}
    outcome, evidence, _ = found["port:8001"]
    assert outcome == "warn" and "qwen-0" in evidence and "sudo" in evidence


def test_a_run_that_ends_with_the_driver_asks_no_more_than_that():
    alone = without_engine(replace(needs(), balancer=balancer().balancer))
    assert not_passed(report(**ROCKY), alone, missing_packages="@no-dpkg") == {}
    assert "reach-index" not in all_checks(wanted=alone)
    old = {"query": query(gpu_row(0, driver="535.1.1"), gpu_row(1, driver="535.1.1"))}
    assert not_passed(report(**old), alone)["driver"][1].startswith(
        "driver 535.1.1 is loaded, 580 or newer is needed"
    )
