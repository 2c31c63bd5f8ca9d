from collections.abc import Mapping

import pytest
from pyinfra.api.exceptions import FactProcessError

from roles.balancer.facts import BalancerFacts, Completions

SECTIONS = {
    "state": ['{"schema": 1,', "}"],
    "old site": [],
    "packages": ["nginx installed", "openssl not-installed"],
    "known": ["/etc/nginx/nginx.conf"],
    "service": ["enabled", "active", "ab12", "ab12"],
    "others": ["haproxy"],
    "certificate": ["X509v3 …:", "    DNS:a, IP Address:10.0.0.1"],
    "shares": ["active", "enabled"],
    "virtual address": ["644 root root ab /etc/llm/balancer/keepalived.conf"],
    "files": ["644 root root cd34 /etc/nginx/conf.d/llm.conf"],
}


def output(**others: list[str]) -> list[str]:
    return [line for name, part in (SECTIONS | others).items() for line in (f"@@ {name}", *part)]


def test_a_standing():
    found = BalancerFacts().process(output())
    assert found.state == '{"schema": 1,\n}'
    assert found.packages == {"nginx"} and found.has_main_file
    assert found.certificate == {"DNS:a", "IP:10.0.0.1"}
    assert found.others == ("haproxy",)
    assert found.shares and found.virtual_address == {
        "/etc/llm/balancer/keepalived.conf": "644 root root ab"
    }
    assert found.files == {"/etc/nginx/conf.d/llm.conf": "644 root root cd34"}


@pytest.mark.parametrize(
    ("lines", "standing"),
    [
        (["enabled", "active", "ab12", "ab12"], (True, True, True)),
        (["disabled", "inactive", "ab12", "cd34"], (False, False, False)),
        (["", "", "ab12", ""], (False, False, False)),
        (["enabled", "active", "ab12"], (True, True, False)),
    ],
)
def test_what_runs(lines: list[str], standing: tuple[bool, bool, bool]):
    found = BalancerFacts().process(output(service=lines))
    assert (found.enabled, found.active, found.loaded) == standing


@pytest.mark.parametrize("others", [{"service": []}, {"files": ["x"]}, {"service": ["enabled"]}])
def test_what_is_no_standing(others: Mapping[str, list[str]]):
    with pytest.raises(FactProcessError, match="not the answer of a balancer"):
        BalancerFacts().process(output(**others))
    with pytest.raises(FactProcessError):
        BalancerFacts().process(["sh: not found"])


def test_an_old_site():
    found = BalancerFacts().process(output(**{"old site": ["a", "", "b"]}))
    assert found.old_site == "a\n\nb\n"
    assert BalancerFacts().process(output()).old_site == ""


def test_completions():
    (found,) = Completions().process(
        [
            "a warning",
            '[{"service": "chat", "keeps_key": true, "results": {"gpu1/chat-0": {"ok": true}}}]',
        ]
    )
    assert (found.service, found.keeps_key, found.asked) == ("chat", True, {"gpu1/chat-0"})


@pytest.mark.parametrize(
    "output",
    [
        [],
        ["Traceback"],
        ["7"],
        ["{}x"],
        ['[{"a": 1}]'],
        ['[{"service": "a", "keeps_key": false, "results": {"b": {"ok": false}}}]'],
    ],
)
def test_completions_of_another_form(output: list[str]):
    with pytest.raises(FactProcessError, match="could not be asked"):
        Completions().process(output)
