"""Which replicas leave the rotation, and which are restarted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.watchdog.on_host.breaker import (
    Member,
    agent_word,
    is_closed,
    others_of,
    refusal,
    serves,
)
from roles.watchdog.on_host.judge import STATES, View


def view(state: str, held: bool = False) -> View:
    return View(state, 0, "a", 0, 0, held=held)


@pytest.mark.parametrize(
    ("state", "held", "was_closed", "others_serve", "closed"),
    [
        ("serving", False, True, True, False),
        ("out", False, False, True, True),
        ("out", False, True, False, True),
        # The last one that is in stays in.
        ("out", False, False, False, False),
        # It comes back by a completion, whether its unit was restarted or not.
        ("restarting", False, True, True, True),
        ("starting", False, True, True, True),
        ("starting", False, False, True, False),
        # A deploy is at work: what was closed stays so, nothing else is closed.
        ("out", True, False, True, False),
        ("out", True, True, True, True),
        ("quarantined", False, True, True, False),
    ],
)
def test_whose_port_is_closed(
    state: str, held: bool, was_closed: bool, others_serve: bool, closed: bool
):
    assert is_closed(view(state, held), was_closed, others_serve) is closed


@pytest.mark.parametrize(
    ("state", "closed", "held", "word"),
    [
        ("serving", False, False, "up 100%"),
        ("serving", False, True, "up 100%"),
        ("out", True, False, "down"),
        # The last one stays in for HAProxy, too.
        ("out", False, False, "up 100%"),
        ("restarting", False, False, "down"),
        ("quarantined", False, False, "down"),
        # Balancers' own checks find out when it serves; a deploy may have proved it already.
        ("starting", False, False, ""),
        ("starting", True, False, "down"),
    ],
)
def test_what_balancers_are_told(state: str, closed: bool, held: bool, word: str):
    assert agent_word(state, closed, held) == word


def members(*rows: tuple[str, str] | tuple[str, str, bool] | tuple[str, str, bool, float]):
    """Replicas q-0, q-1 … of hosts, with their states."""
    found = []
    for number, (host, state, *more) in enumerate(rows):
        intends = bool(more[0]) if more else False
        since_s = float(more[1]) if len(more) > 1 else 0.0
        found.append(Member(host, f"q-{number}", state, intends, since_s))
    return found


HUNG, WELL = ("a", "out", True), ("b", "serving")


@pytest.mark.parametrize(
    ("me", "all_members", "asked", "unasked", "reason"),
    [
        (0, members(HUNG), 0, 0, ""),
        (0, members(HUNG, WELL), 1, 0, ""),
        (0, members(HUNG, WELL, ("c", "restarting")), 2, 0, "q-2 restarts"),
        # One in ten of 20: two at once.
        (0, members(HUNG, ("c", "restarting"), *[WELL] * 18), 2, 0, ""),
        (0, members(HUNG, *[("c", "restarting")] * 2, *[WELL] * 17), 2, 0, "q-1, q-2 restarts"),
        # Both of two hosts decide at once.
        (0, members(HUNG, ("b", "out", True), ("c", "serving")), 2, 0, ""),
        (1, members(HUNG, ("b", "out", True), ("c", "serving")), 2, 0, "q-0 goes first"),
        # A host that cannot be asked counts as out, not as restarting.
        (0, members(HUNG, ("b", "unknown"), ("c", "serving")), 1, 1, ""),
        (0, members(HUNG, ("b", "unknown"), ("c", "unknown")), 0, 2, "2 of 2 other hosts cannot "
            "be asked"),
        (0, members(HUNG, WELL, ("c", "unknown"), ("d", "unknown")), 1, 2, "2 of 3 other hosts "
            "cannot be asked"),
        # All hang at once.
        (0, members(HUNG, ("b", "out", True)), 1, 0, ""),
        (1, members(HUNG, ("b", "out", True)), 1, 0, "no replica serves, and q-0 goes first"),
        (1, members(("a", "restarting"), ("b", "out", True)), 1, 0, "q-0 restarts"),
        (1, members(("a", "restarting"), *[("b", "out", True)] * 19), 1, 0,
            "no replica serves, and q-0 restarts first"),
        (1, members(("a", "quarantined", False, 60), ("b", "out", True)), 1, 0,
            "no replica serves, and q-0 is quarantined: a person must look"),
        # An old quarantine had another cause.
        (1, members(("a", "quarantined", False, 7200), ("b", "out", True)), 1, 0, ""),
    ],
)  # fmt: skip
def test_who_is_restarted(
    me: int, all_members: list[Member], asked: int, unasked: int, reason: str
):
    assert refusal(all_members[me], all_members, asked, unasked) == reason


def grouped(*rows: tuple[str, str, str]) -> list[Member]:
    """Members by host, state and group; those that are out are about to be restarted."""
    return [
        Member(host, f"q-{number}", state, state == "out", 0.0, group)
        for number, (host, state, group) in enumerate(rows)
    ]


BROKEN, OTHER = [("a", "out", "g0"), ("b", "out", "g0")], [("c", "serving", "g1")]


@pytest.mark.parametrize(
    ("me", "rows", "reason"),
    [
        # Both parts of one replica are restarted together.
        (0, [*BROKEN, *OTHER], ""),
        (1, [*BROKEN, *OTHER], ""),
        (1, [("a", "restarting", "g0"), ("b", "out", "g0"), *OTHER], ""),
        # Another replica waits for it.
        (2, [*BROKEN, ("c", "out", "g1"), ("d", "serving", "g2")], "g0 goes first"),
        (2, [("a", "restarting", "g0"), ("b", "restarting", "g0"), ("c", "out", "g1"),
            ("d", "serving", "")], "g0 restarts"),
        # Half a replica serves nobody.
        (2, [("a", "serving", "g0"), ("b", "out", "g0"), ("c", "out", "g1")],
            "no replica serves, and g0 goes first"),
        # Of 19 replicas, 38 parts, one restarts at once; of 20 two.
        (2, [("a", "restarting", "g0"), ("b", "restarting", "g0"), ("c", "out", "g1"),
            *[("d", "serving", f"h{n % 17}") for n in range(35)]], "g0 restarts"),
        (2, [("a", "restarting", "g0"), ("b", "restarting", "g0"), ("c", "out", "g1"),
            *[("d", "serving", f"h{n % 18}") for n in range(36)]], ""),
    ],
)  # fmt: skip
def test_a_replica_over_hosts_counts_as_one(me: int, rows: list[tuple[str, str, str]], reason: str):
    members = grouped(*rows)
    assert refusal(members[me], members, 3, 0) == reason


def test_parts_of_one_replica_keep_nothing_in_for_each_other():
    parts = grouped(("a", "serving", "g0"), ("b", "out", "g0"))
    assert not serves(others_of(parts[1], parts))
    assert serves(others_of(parts[1], [*parts, *grouped(("c", "serving", ""))]))
    assert not serves(parts)


fleets = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([*STATES, "unknown"]), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(fleets)
def test_never_more_than_one_or_a_tenth_restart(rows: list[tuple[str, str, bool]]):
    """All that decide at the same time know the same: what they start together stays within it."""
    known = members(*[(h, s, i and s == "out") for h, s, i in rows])
    wishing = [one for one in known if one.intends]
    begun = [one for one in wishing if not refusal(one, known, 3, 0)]
    restarting = sum(one.state == "restarting" for one in known)
    limit = max(1, len(known) // 10)
    assert len(begun) <= max(0, limit - restarting)
    if begun and len(known) > 1 and not any(one.state == "serving" for one in known):
        assert len(begun) == 1
