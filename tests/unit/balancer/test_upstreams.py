from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.balancer import Drain, Upstream
from roles.balancer.drains import Owner
from roles.balancer.upstreams import COMMENT_LENGTH, Server, healthy, one_line, servers

from .fleets import member, members, route, state

CHAT = state(route()).upstreams[0]
IDS = [one.id for one in CHAT.members]
OWNERS: tuple[Owner, ...] = ("inventory", "operator", "rolling-update", "watchdog")


def drain(id: str, owner: Owner = "operator", interruption: bool = False) -> Drain:
    return Drain(id, owner, "run", "2026-01-01", interruption)


def outs(upstream: Upstream, *drains: Drain) -> list[str]:
    """The ids of those that get no requests."""
    return [server.member.id for server in servers(upstream, drains) if server.out]


def kept(upstream: Upstream, *drains: Drain) -> list[str]:
    return [server.member.id for server in servers(upstream, drains) if server.kept]


def test_every_member_in_its_order():
    found = servers(CHAT, [])
    assert [(server.member.id, server.member.endpoint) for server in found] == [
        ("gpu1/chat-0", "10.0.0.1:8000"),
        ("gpu1/chat-1", "10.0.0.1:8001"),
        ("gpu2/chat-0", "10.0.0.2:8000"),
        ("gpu3/chat-0", "[fd00::3]:8000"),
    ]
    assert [server.comment for server in found] == IDS


def test_out_are_the_drained_and_those_whose_completion_failed():
    upstream = replace(CHAT, failures={"gpu2/chat-0": "HTTP 500"})
    found = servers(upstream, [drain("gpu1/chat-0"), drain("gpu1/chat-0", "watchdog")])
    assert [server.out for server in found] == [
        "drained",
        None,
        "its completion failed: HTTP 500",
        None,
    ]


def test_a_member_is_out_while_any_owner_has_it_out():
    assert outs(CHAT, drain(IDS[0]), drain(IDS[0], "watchdog")) == [IDS[0]]
    assert outs(CHAT, drain(IDS[0], "watchdog")) == [IDS[0]]
    assert outs(CHAT) == []


def test_the_failed_are_kept_where_all_others_are_drained():
    upstream = replace(CHAT, failures={IDS[2]: "timed out"})
    drains = [drain(id) for id in IDS if id != IDS[2]]
    assert kept(upstream, *drains) == [IDS[2]]
    assert servers(upstream, drains)[2].comment == (
        "gpu2/chat-0: kept as nothing else is left, its completion failed: timed out"
    )


def test_the_drained_are_kept_where_all_are_drained_unless_the_interruption_is_announced():
    drains = [drain(id) for id in IDS]
    assert kept(CHAT, *drains) == IDS
    announced = [*drains[1:], drain(IDS[0], "rolling-update", interruption=True)]
    assert outs(CHAT, *announced) == IDS
    # A drain of another upstream says nothing.
    assert kept(CHAT, *drains, drain("gpu9/other-0", interruption=True)) == IDS


@given(
    drained=st.sets(st.tuples(st.sampled_from([*IDS, "gpu9/x-0"]), st.sampled_from(OWNERS))),
    failures=st.dictionaries(st.sampled_from([*IDS, "gpu9/x-0"]), st.text()),
)
def test_laws(drained: set[tuple[str, Owner]], failures: dict[str, str]):
    upstream = replace(CHAT, failures=failures)
    drains = [drain(id, owner) for id, owner in sorted(drained)]
    found = servers(upstream, drains)
    assert [server.member.id for server in found] == IDS, "all are there, in order"
    assert any(server.out is None for server in found), "never empty"
    reasons = failures.keys() | {id for id, _ in drained}
    for server in found:
        assert server.out is None or server.kept is None
        assert server.member.id in reasons or not (server.out or server.kept)
    assert healthy(upstream, drains) == set(IDS) - reasons


@given(st.text())
def test_a_comment_is_one_short_plain_line(text: str):
    comment = Server(member("gpu1/r0"), out=text or "x").comment
    assert comment.isascii() and comment.isprintable() and len(comment) <= COMMENT_LENGTH
    assert not set(comment) & set("\n\r;{}#$'\"\\`")
    assert one_line(comment) == comment


def test_a_comment_cannot_hold_configuration():
    text = "bad\n}\r\nserver 6.6.6.6:80; # `id` $(id)"
    assert one_line(text) == "bad server 6.6.6.6:80 id (id)"


@pytest.mark.parametrize("address", ["gpu1.example.com", "10.0.0.1; down", "fe80::1%eth0", "x"])
def test_an_address_that_is_no_ip(address: str):
    with pytest.raises(ValueError, match="gpu1: its address"):
        member("gpu1/chat-0", address=address)


def test_a_route_without_members():
    with pytest.raises(ValueError, match="the plan of chat has no replica"):
        replace(route(), members=members())
