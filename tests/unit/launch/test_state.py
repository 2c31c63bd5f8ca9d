"""What launch has to do on a host, and in which batches hosts roll."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.host import HostFile
from roles.launch.facts import Launched
from roles.launch.state import LaunchState, batches, to_do

FILE = HostFile("/etc/llm/replicas/q-0.env", "A=1\n")
GOOD = LaunchState(
    files={FILE.path: FILE.state},
    engine="vllm-1",
    units={"q-0": "active enabled"},
    applied={"q-0": "d"},
    firewall=True,
)


def reasons(state: LaunchState) -> list[str]:
    return to_do(state, [FILE], {"q-0": "d"}, "vllm-1", True)


def test_nothing_to_do_where_all_is_as_planned():
    assert reasons(GOOD) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"files": {}}, "/etc/llm/replicas/q-0.env differs"),
        ({"engine": "vllm-0"}, "the engine is vllm-0, not vllm-1"),
        ({"engine": None}, "the engine is none, not vllm-1"),
        ({"units": {"q-0": "failed enabled"}}, "q-0 is failed enabled"),
        ({"units": {"q-0": "active disabled"}}, "q-0 is active disabled"),
        ({"units": {}}, "q-0 is not there"),
        ({"applied": {}}, "q-0 runs from other settings"),
        ({"applied": {"q-0": "old"}}, "q-0 runs from other settings"),
        ({"firewall": False}, "the firewall's rules are not loaded"),
        ({"units": {"q-0": "active enabled", "q-1": "active enabled"}}, "q-1 is not in the plan"),
    ],
)
def test_each_difference_is_seen(change: dict, expected: str):
    assert reasons(dataclasses.replace(GOOD, **change)) == [expected]


def test_the_fact_reads_what_its_command_prints():
    state = Launched().process(
        [
            "file 644 root root 0f0f /etc/llm/a b.env",
            "engine vllm-1",
            "unit q-0 active enabled",
            "unit q-1 failed ",
            "applied q-0 d",
            "firewall",
        ]
    )
    assert state == LaunchState(
        {"/etc/llm/a b.env": "644 root root 0f0f"},
        "vllm-1",
        {"q-0": "active enabled", "q-1": "failed"},
        {"q-0": "d"},
        True,
    )
    assert state.serving
    assert Launched().process(["engine "]) == LaunchState()


@given(st.integers(0, 200), st.integers(1, 20))
def test_batches_hold_every_host_once_in_at_most_so_many(hosts: int, most: int):
    names = [f"h{number}" for number in range(hosts)]
    found = batches(names, most)
    assert [name for batch in found for name in batch] == names
    assert len(found) <= most
    if hosts <= most:
        assert all(len(batch) == 1 for batch in found)
