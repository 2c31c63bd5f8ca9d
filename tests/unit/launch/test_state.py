"""What launch has to do on a host."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from roles.engine import VllmSettings
from roles.host.question import parse_answers
from roles.launch import on_host
from roles.launch.facts import LaunchFacts
from roles.launch.state import (
    UNFINISHED,
    LaunchState,
    ReplicaUnit,
    parse_state,
    previous_ports,
    read_manifest,
)
from tests.unit.launch.assignments import KEY, launch

WANTED = launch()
ENTRIES = {one.name: one.entry for one in WANTED.replicas}
GOOD = LaunchState(
    units={name: ReplicaUnit("active", "enabled", one["digest"]) for name, one in ENTRIES.items()},
    manifest=ENTRIES,
    shared=WANTED.shared,
    firewall=True,
)


def with_unit(unit: ReplicaUnit) -> LaunchState:
    return replace(GOOD, units={**GOOD.units, "qwen-0": unit})


def found(state: LaunchState) -> list[tuple[str, str]]:
    return [(change.kind, change.subject) for change in WANTED.changes(state)]


DIGEST = ENTRIES["qwen-0"]["digest"]


def test_nothing_to_do_where_all_is_as_planned():
    assert WANTED.changes(GOOD) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (with_unit(ReplicaUnit("failed", "enabled", None)), [("start", "qwen-0")]),
        (with_unit(ReplicaUnit("active", "disabled", DIGEST)), [("move", "qwen-0")]),
        (with_unit(ReplicaUnit("active", "enabled", "0ld")), [("move", "qwen-0")]),
        # A replica of before the numbered folders.
        (with_unit(ReplicaUnit("active", "enabled", None)), [("move", "qwen-0")]),
        (replace(GOOD, manifest={"qwen-1": ENTRIES["qwen-1"]}), [("move", "qwen-0")]),
        (replace(GOOD, units={**GOOD.units, "q": ReplicaUnit("active", "enabled", None)}),
         [("retire", "q")]),
        (replace(GOOD, firewall=False), [("shared", "the firewall")]),
        (replace(GOOD, shared={**WANTED.shared, "/etc/llm/firewall.nft": "0ld"}),
         [("shared", "/etc/llm/firewall.nft")]),
        (replace(GOOD, shared={**WANTED.shared, UNFINISHED: "0ld"}),
         [("shared", "an earlier run")]),
        (replace(GOOD, units={}), [("start", "qwen-0"), ("start", "qwen-1")]),
    ],
)  # fmt: skip
def test_each_difference_is_seen(state: LaunchState, expected: list[tuple[str, str]]):
    assert found(state) == expected


@pytest.mark.parametrize(
    ("requirement", "key_digest", "expected"),
    [
        ("vllm==0.31.0", hashlib.sha256(b"another key").hexdigest(), True),
        ("vllm==0.31.0", hashlib.sha256(KEY.encode()).hexdigest(), False),
        # A replica of before the numbered folders.
        ("vllm==0.31.0", None, False),
        # It takes both.
        ("vllm==0.32.0", hashlib.sha256(b"another key").hexdigest(), False),
    ],
)
def test_another_key_of_an_engine_that_takes_one_is_seen(
    requirement: str, key_digest: str | None, expected: bool
):
    wanted = launch(VllmSettings(requirement=requirement))
    units = {name: ReplicaUnit("active", "enabled", "0ld", key_digest) for name in ENTRIES}
    found = wanted.changes(replace(GOOD, units=units))
    assert [change.replaces_only_key for change in found if change.kind == "move"] == [expected] * 2


def test_a_firewall_that_is_no_longer_wanted_is_seen():
    open_host = launch(settings=type(WANTED.settings)(firewall=False))
    state = replace(GOOD, units={}, manifest={})
    assert ("shared", "the firewall") in [(c.kind, c.subject) for c in open_host.changes(state)]


def test_the_answer_of_a_host_is_read():
    manifest = json.dumps({"schema": 1, "replicas": list(ENTRIES.values())})
    lines = [
        *("@@@ launch", "@@ units", f"q-0 active enabled {DIGEST} 4b1d", "q-1 failed enabled - -"),
        *("q-2 active enabled - -", "q-3 active enabled - -", "q-4 active enabled - -"),
        *("@@ ready", "q-0 200", "q-2 503", "q-3 500"),
        *("@@ manifest", manifest),
        *("@@ shared", "0f0f /etc/systemd/system/llm-engine@.service"),
        *("@@ firewall", "up", "@@ legacy", "8005", "8006", "@@ end"),
    ]
    state = parse_state(parse_answers(lines)["launch"])
    assert state.units == {
        "q-0": ReplicaUnit("active", "enabled", DIGEST, "4b1d", ready=True),
        "q-1": ReplicaUnit("failed", "enabled", None),
        "q-2": ReplicaUnit("active", "enabled", None, ready=False),
        "q-3": ReplicaUnit("active", "enabled", None),
        "q-4": ReplicaUnit("active", "enabled", None),
    }
    sights = [unit.sight for unit in state.units.values()]
    assert sights == ["serves", "down", "loading", None, None]
    assert state.manifest == ENTRIES
    assert state.shared == {"/etc/systemd/system/llm-engine@.service": "0f0f"}
    assert state.firewall
    assert state.serving
    # Until the last of them has moved, nobody but balancers may reach what an earlier plan runs.
    ports = {one.port for one in WANTED.replicas}
    assert set(previous_ports(state)) == {*ports, 8005, 8006}
    guarded = WANTED.firewall(state)["/etc/llm/firewall.nft"]
    assert "8005" in guarded and "8006" in guarded


def test_a_host_and_a_run_know_what_is_unfinished_by_the_same_file():
    assert on_host.UNFINISHED == UNFINISHED


LABELS = ("units", "ready", "manifest", "shared", "firewall", "legacy", "end")


def test_a_host_without_any_of_it_has_nothing():
    assert parse_state(dict.fromkeys(LABELS, "")) == LaunchState()
    assert not LaunchState().serving


@pytest.mark.parametrize("missing", LABELS)
def test_an_answer_that_is_cut_short_is_no_bare_host(missing: str):
    answer = {label: "" for label in LABELS if label != missing}
    with pytest.raises(ValueError, match=f"its replicas is cut short: {missing} missing"):
        parse_state(answer)


def test_no_answer_is_no_bare_host():
    with pytest.raises(FactProcessError, match="no answer about its replicas"):
        LaunchFacts().process(["@@@ sudo", "@@ errors", "sudo: a password is required", "@@ end"])


@pytest.mark.parametrize("text", ["{", "[]", '{"replicas": [{}]}', '{"replicas": 1}', "1"])
def test_a_damaged_manifest_is_refused_with_what_to_do(text: str):
    with pytest.raises(ValueError, match=r"/etc/llm/manifest\.json is damaged"):
        read_manifest(text)


@given(st.text(max_size=60))
def test_any_manifest_is_read_or_refused(text: str):
    try:
        assert isinstance(read_manifest(text), dict)
    except ValueError as error:
        assert "delete it and deploy again" in str(error)
