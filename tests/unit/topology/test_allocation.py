import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Gpu, Hardware, declared_hardware
from roles.topology.allocation import allocate

EIGHT = declared_hardware("8x NVIDIA L40S", "pcie")


def indexes(hardware: Hardware, shares: dict, pinned: dict | None = None) -> dict:
    parts = allocate(hardware, shares, pinned)
    return {name: [gpu.index for gpu in part.gpus] for name, part in parts.items()}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": None}, {"a": [*range(8)]}),
        ({"a": None, "b": None}, {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}),
        ({"a": 0.25, "b": 0.75}, {"a": [0, 1], "b": [2, 3, 4, 5, 6, 7]}),
        ({"a": 0.25, "b": None}, {"a": [0, 1], "b": [2, 3, 4, 5, 6, 7]}),
        ({"a": None, "b": None, "c": None}, {"a": [0, 1, 2], "b": [3, 4, 5], "c": [6, 7]}),
        ({"a": 0.5}, {"a": [0, 1, 2, 3]}),
    ],
)
def test_shares_in_whole_gpus(shares: dict, expected: dict):
    assert indexes(EIGHT, shares) == expected


def test_pinned_gpus_are_nobody_elses():
    assert indexes(EIGHT, {"a": None, "b": None}, {"b": [0, 7]}) == {
        "a": [1, 2, 3, 4, 5, 6],
        "b": [0, 7],
    }


def test_near_gpus_stay_together():
    gpus = tuple(Gpu(i, "card", 24576, numa_node=i % 2) for i in range(4))
    assert indexes(Hardware(gpus), {"a": None, "b": None}) == {"a": [0, 2], "b": [1, 3]}


def test_a_part_keeps_its_links():
    part = allocate(EIGHT, {"a": 0.25, "b": None})["a"]
    assert part.links == ((0, 1, "PCIE"),)


@pytest.mark.parametrize(
    ("pinned", "message"),
    [
        ({"c": [0]}, "c is no service; it is one of a, b"),
        ({"a": [9]}, "a: the host has no GPU 9"),
        ({"a": [1], "b": [1]}, "b: GPU 1 is pinned to a too"),
        ({"a": [1, 1]}, "a names GPU 1 twice; remove one"),
    ],
)
def test_wrong_pins_are_refused(pinned: dict, message: str):
    with pytest.raises(ValueError, match=message):
        allocate(EIGHT, {"a": None, "b": None}, pinned)


@given(
    st.integers(0, 12),
    st.lists(st.none() | st.floats(0.01, 0.25), min_size=1, max_size=4),
)
def test_no_gpu_has_two_owners(count: int, shares: list):
    hardware = Hardware(tuple(Gpu(i, "card", 24576) for i in range(count)))
    parts = indexes(hardware, {str(i): share for i, share in enumerate(shares)})
    used = [index for own in parts.values() for index in own]
    assert len(used) == len(set(used)) and set(used) <= set(range(count))
    if None in shares:
        assert len(used) == count
