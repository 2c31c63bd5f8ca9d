import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.balancer import Server, replica_id, servers
from roles.balancer.upstream import COMMENT_LENGTH, DRAINED, plain

from .fleets import plan

FLEET = plan(gpu1=[8000, 8001], gpu2=[8000], gpu3=[8000])
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "gpu3": "fd00:0::3"}
IDS = [replica_id(replica) for replica in FLEET.replicas]


def test_every_replica_of_the_plan_in_its_order():
    found = servers(FLEET, ADDRESSES, [], {})
    assert [(server.name, server.endpoint) for server in found] == [
        ("gpu1/r0", "10.0.0.1:8000"),
        ("gpu1/r1", "10.0.0.1:8001"),
        ("gpu2/r0", "10.0.0.2:8000"),
        ("gpu3/r0", "[fd00::3]:8000"),
    ]
    assert {server.comment for server in found} == set(IDS)


def test_out_are_the_drained_and_those_whose_completion_failed():
    found = servers(FLEET, ADDRESSES, ["gpu1"], {"gpu2/r0": "HTTP 500"})
    assert {server.name: server.out for server in found} == {
        "gpu1/r0": DRAINED,
        "gpu1/r1": DRAINED,
        "gpu2/r0": "its completion failed: HTTP 500",
        "gpu3/r0": None,
    }


def test_the_failed_stay_where_all_others_are_drained():
    found = servers(FLEET, ADDRESSES, ["gpu1", "gpu3"], {"gpu2/r0": "timed out"})
    assert [server.name for server in found if server.out is None] == ["gpu2/r0"]
    assert found[2].kept == "its completion failed: timed out"
    assert found[2].comment == (
        "gpu2/r0: kept as nothing else is left, its completion failed: timed out"
    )


def test_the_drained_stay_where_all_are_drained():
    found = servers(FLEET, ADDRESSES, ["gpu1", "gpu2", "gpu3"], {})
    assert all(server.out is None and server.kept == DRAINED for server in found)


@given(
    drained=st.sets(st.sampled_from(["gpu1", "gpu2", "gpu3", "no such host"])),
    failures=st.dictionaries(st.sampled_from([*IDS, "gpu9/r0"]), st.text()),
)
def test_laws(drained: set[str], failures: dict[str, str]):
    found = servers(FLEET, ADDRESSES, drained, failures)
    assert [server.name for server in found] == IDS, "all are there, in the plan's order"
    assert any(server.out is None for server in found), "never empty"
    for server in found:
        assert server.out is None or server.kept is None
        declared = server.name in failures or server.name.split("/")[0] in drained
        assert declared or server.out is None, "nothing else takes a replica out"
        if server.kept == DRAINED:
            assert drained >= {"gpu1", "gpu2", "gpu3"}


def test_no_replica():
    with pytest.raises(ValueError, match="the plan of chat has no replica"):
        servers(plan(gpu1=[]), ADDRESSES, [], {})


@pytest.mark.parametrize("address", ["", "gpu1.example.com", "10.0.0.1; down", "fe80::1%eth0"])
def test_an_address_that_is_no_ip(address: str):
    with pytest.raises(ValueError, match=r"gpu1: its address .* is no IP address"):
        servers(plan(gpu1=[8000]), {"gpu1": address}, [], {})


@given(st.text())
def test_a_comment_is_one_short_plain_line(text: str):
    comment = Server("gpu1/r0", "10.0.0.1", 8000, out=text or "x").comment
    assert comment.isascii() and comment.isprintable() and len(comment) <= COMMENT_LENGTH
    assert not set(comment) & set("\n\r;{}#$'\"\\`")
    assert plain(comment) == comment


def test_a_comment_cannot_hold_configuration():
    text = "bad\n}\r\nserver 6.6.6.6:80; # `id` $(id)"
    assert plain(text) == "bad server 6.6.6.6:80 id (id)"
