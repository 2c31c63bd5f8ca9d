"""The servers of HAProxy's backends, by the members of an upstream."""

from dataclasses import replace

import pytest

from roles.balancer import BalancerState, Upstream
from roles.balancer.haproxy.template import frontends
from roles.balancer.haproxy.upstreams import backends, drain_commands
from roles.balancer.sites import Location, Site
from roles.balancer.state import drain, dump_state, parse_state

from .fleets import members, state

MEMBERS = members(gpu1=[8000, 8001], gpu2=[8000])
IDS = [member.id for member in MEMBERS]


def of(*found: object, **values: object) -> BalancerState:
    return BalancerState((Upstream("chat", "llm_chat", found, **values),))  # type: ignore


def options(state: BalancerState) -> list[str]:
    (backend,) = backends(state)
    return [server.options.strip() for server in backend.servers]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([1, 3, 256], [1, 3, 256]),
        ([1, 100, 1000], [1, 26, 256]),
        ([256000, 512000, 512000], [128, 256, 256]),
    ],
)
def test_weights(given: list[int], shown: list[int]):
    found = [replace(member, weight=weight) for member, weight in zip(MEMBERS, given, strict=True)]
    (backend,) = backends(of(*found))
    assert [server.weight for server in backend.servers] == shown


@pytest.mark.parametrize(
    ("drained", "failures", "shown", "retries"),
    [
        ([], {}, ["check", "check", "check"], 4),
        ([0], {}, ["disabled", "check", "check"], 2),
        ([0], {1: "HTTP 500"}, ["disabled", "disabled", ""], 0),
        # Nobody else is left, so the failed ones stay.
        ([0], {1: "HTTP 500", 2: "HTTP 500"}, ["disabled", "check", "check"], 2),
    ],
)
def test_the_only_one_that_is_in_is_never_marked_as_down(
    drained: list[int], failures: dict[int, str], shown: list[str], retries: int
):
    before = of(*MEMBERS, failures={IDS[number]: why for number, why in failures.items()})
    found, _ = drain(before, [IDS[number] for number in drained], "operator", "r", "s", ["chat"])
    assert options(found) == shown
    assert backends(found)[0].retries == retries


def test_an_agent_is_asked_where_a_host_has_one_and_the_member_is_in():
    found = of(*(replace(member, agent_port=8090) for member in MEMBERS[1:]), MEMBERS[0])
    names = [one.id.partition("/")[2] for one in MEMBERS]
    asked, other, first = (
        f'agent-check agent-port 8090 agent-inter 2s agent-send "{name}\\n"'
        for name in (*names[1:], names[0])
    )
    assert options(found) == [f"check {asked}", f"check {other}", "check"]
    # Its `ready` would end the drain.
    assert options(drain(found, IDS[1:2], "operator", "r", "s")[0])[0] == "disabled"
    assert options(of(replace(MEMBERS[0], agent_port=8090))) == [first]


def test_an_agents_port_is_remembered_and_one_that_is_none_is_not_written():
    found = of(replace(MEMBERS[0], agent_port=8090), *MEMBERS[1:])
    assert parse_state(dump_state(found)) == found
    assert dump_state(found).count("agent_port") == 1


def test_old_workers_are_told_who_is_out():
    found, _ = drain(state(), ["gpu2/*"], "operator", "r", "s")
    assert drain_commands(found) == "set server llm_chat/gpu2:chat-0 state maint\n"
    assert drain_commands(state()) == ""


def test_more_exact_names_come_later():
    names = ["llm.example.com", "a.example.com", "*.example.com", "*.b.example.com"]
    sites = [Site(443, n, False, (Location("/v1/", n, f"llm_{n}"),)) for n in names]
    own = Site(8443, "llm.example.com", False, ())
    first, second = frontends([*sites, own])
    assert [site.server_name for site in first.sites] == [names[n] for n in (0, 2, 3, 1)]
    assert (second.port, second.sites) == (8443, (own,))
