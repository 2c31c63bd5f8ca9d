"""Checks of what is in the way: ports in use, firewalls, SELinux, denials."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.preflight.hosts import (
    LISTENER,
    OUR_UNIT,
    all_checks,
    assert_only,
    balancer,
    balancer_host,
    needs,
    not_passed,
)

Parts = dict[str, Any]


ACCESS = [
    (
        {"listeners": LISTENER.format(8001, "python3", 77), "owners": "77 0::/user.slice"},
        "port:8001",
        "fail",
        ("8001", "qwen-0", "python3", "services[].first_port"),
    ),
    (
        {"listeners": LISTENER.format(29050, "java", 5), "owners": "5 0::/system.slice/x.service"},
        "port:29050",
        "warn",
        ("29050", "29000-29199", "launch.internal_ports_from"),
    ),
    (
        {"firewall": "ufw active", "firewall_rules": "ufw 8001/tcp ALLOW 10.0.0.1"},
        "firewall",
        "warn",
        ("8002", "8002/tcp"),
    ),
    (
        {
            "firewall_rules": "nft table inet pyinfra_llm {\nnft \tchain input {\n"
            "nft \t\ttype filter hook input priority filter; policy drop;\n"
            "nft table inet filter {\nnft \tchain input {\n"
            "nft \t\ttype filter hook input priority filter; policy drop;"
        },
        "firewall",
        "warn",
        ("8001",),
    ),
    (
        {"selinux": "1"},
        "selinux",
        "warn",
        ("audit2why",),
    ),
    (
        {"denials": 'kernel: audit: apparmor="DENIED" name="/opt/llm/engines/x"'},
        "denials",
        "warn",
        ("apparmor=", "name=", "/opt/llm/engines/x", "audit2why"),
    ),
]


@pytest.mark.parametrize(("parts", "name", "outcome", "mentions"), ACCESS)
def test_access(parts: Parts, name: str, outcome: str, mentions: tuple[str, ...]):
    assert_only(not_passed(**parts), name, outcome, mentions)


def test_ports_of_our_own_are_no_strangers():
    ours = LISTENER.format(8001, "vllm", 7) + "\n" + LISTENER.format(29001, "vllm", 7)
    assert not_passed(listeners=ours, owners=f"7 {OUR_UNIT}", engine="installed") == {}
    nginx: Parts = {"listeners": LISTENER.format(443, "nginx", 9)}
    assert not_passed(wanted=balancer(), sites="nginx", **nginx) == {}
    assert not_passed(wanted=balancer(), **nginx)["port:443"][:2] == (
        "fail",
        "port 443, planned for the balancer, is used by nginx (process 9)",
    )


def test_a_service_has_a_port_of_its_own_on_the_balancer():
    ports = {443: "balancer.port", 8443: "services[].route.port"}
    wanted = replace(balancer(), balancer=balancer_host(ports))
    found = not_passed(wanted=wanted, listeners=LISTENER.format(8443, "caddy", 9))["port:8443"]
    assert found[:2] == (
        "fail",
        "port 8443, planned for the balancer, is used by caddy (process 9)",
    )
    assert "services[].route.port" in found[2]


@pytest.mark.parametrize("given", ["1024\t65535", "32768\t65535", "15000\t60999"])
def test_engines_on_several_hosts_listen_where_the_firewall_closes(given: str):
    wanted = needs(given_ports=(32768, 60999))
    found = not_passed(wanted=wanted, given_ports=given)
    evidence = given.replace("\t", " ")
    assert_only(found, "given-ports", "fail", (evidence, "32768-60999", "sysctl"))
    # Nothing else listens there that a replica of one host needs closed.
    assert not_passed(given_ports=given) == {}


@pytest.mark.parametrize("given", ["32768\t60999", "40000\t50000"])
def test_the_kernels_usual_ports_are_closed(given: str):
    wanted = needs(given_ports=(32768, 60999))
    assert all_checks(wanted=wanted, given_ports=given)["given-ports"].outcome == "pass"


@pytest.mark.parametrize("answer", ["", "what", "1 2 3", "9" * 40 + " 1"])
def test_a_host_that_does_not_say_its_ports_is_not_judged(answer: str):
    wanted = needs(given_ports=(32768, 60999))
    assert all_checks(wanted=wanted, given_ports=answer)["given-ports"].outcome == "skipped"
