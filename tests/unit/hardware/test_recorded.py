import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import (
    Gpu,
    Hardware,
    completed,
    declared_hardware,
    entry,
    read_recording,
    recorded_hardware,
    recording,
)

L40S = Hardware(
    tuple(
        Gpu(
            i,
            "NVIDIA L40S",
            46068,
            compute_capability=8.9,
            pci_address=f"0000:{i + 1:02x}:00.0",
            numa_node=i // 2,
        )
        for i in range(3)
    ),
    ((0, 1, "PHB"), (0, 2, "SYS"), (1, 2, "SYS")),
    None,
    "595.80",
)
LABELS = st.sampled_from(["NV18", "NV1", "PIX", "PXB", "PHB", "NODE", "SYS", "XGMI", "?"])


def test_a_recording_is_made_to_be_read():
    assert recording({"gpu-2": entry(Hardware(L40S.gpus[:1])), "gpu-1": entry(L40S)}) == (
        "# Recorded by deploys/discover.py: a deploy stops a host whose hardware is another.\n"
        "gpu-1:\n"
        "  driver_version: '595.80'\n"
        "  gpus:\n"
        "  - {name: NVIDIA L40S, memory_mib: 46068, compute_capability: 8.9, "
        "pci_address: '0000:01:00.0', numa_node: 0}\n"
        "  - {name: NVIDIA L40S, memory_mib: 46068, compute_capability: 8.9, "
        "pci_address: '0000:02:00.0', numa_node: 0}\n"
        "  - {name: NVIDIA L40S, memory_mib: 46068, compute_capability: 8.9, "
        "pci_address: '0000:03:00.0', numa_node: 1}\n"
        "  links:\n"
        "  - X PHB SYS\n"
        "  - PHB X SYS\n"
        "  - SYS SYS X\n"
        "gpu-2:\n"
        "  gpus:\n"
        "  - {name: NVIDIA L40S, memory_mib: 46068, compute_capability: 8.9, "
        "pci_address: '0000:01:00.0', numa_node: 0}\n"
    )


@st.composite
def hardware(draw: st.DrawFn) -> Hardware:
    indexes = draw(st.lists(st.integers(0, 20), min_size=1, max_size=6, unique=True))
    gpus = tuple(
        Gpu(
            index,
            draw(st.sampled_from(["NVIDIA L40S", "Tesla V100-SXM2-32GB", "NVIDIA A100 MIG 1g"])),
            draw(st.integers(1, 300_000)),
            numa_node=draw(st.none() | st.integers(0, 7)),
            mig_profile=draw(st.none() | st.just("1g.5gb")),
        )
        for index in sorted(indexes)
    )
    pairs = [(a.index, b.index) for a in gpus for b in gpus if a.index < b.index]
    known = tuple((i, j, label) for i, j in pairs if (label := draw(LABELS)) != "?")
    links = known if len(gpus) > 1 else None
    return Hardware(gpus, links, None, draw(st.none() | st.sampled_from(["580.95.05", "595.80"])))


@given(hardware())
def test_what_is_recorded_is_read_back(found: Hardware):
    entries = read_recording(recording({"a": entry(found), "b": entry(L40S)}))
    assert recorded_hardware(entries["a"]) == found
    assert recorded_hardware(entries["b"]) == L40S


def test_identifiers_are_recorded_where_asked():
    made = entry(L40S, {1: {"uuid": "GPU-1", "serial": "7"}})
    assert "uuid" not in made["gpus"][0] and made["gpus"][1]["serial"] == "7"
    assert recorded_hardware(made) == L40S


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gpus": "2x L40S"}, "gpus"),
        ({"gpus": [{"name": "NVIDIA L40S"}]}, "gpus.0.memory_mib"),
        ({"gpus": [{"name": "NVIDIA L40S", "memory_mib": "46068"}]}, "gpus.0.memory_mib"),
        ({"gpus": [{"name": "NVIDIA L40S", "memory_mib": 46068, "bus": 1}]}, "gpus.0.bus"),
        ({"links": ["X PHB SYS", "PHB X SYS"]}, "links: needs a row and a column"),
        ({"links": ["X PHB SYS", "PIX X SYS", "SYS SYS X"]}, "contradicts"),
        ({"links": ["PHB PHB SYS", "PHB X SYS", "SYS SYS X"]}, "contradicts"),
        ({"links": ["X NVLINK PHB", "NVLINK X PHB", "PHB PHB X"]}, "'NVLINK' is no label"),
        ({"p2p": ["X OK YES", "OK X OK", "YES OK X"]}, "'YES' is no label"),
        ({"driver": "595.80"}, "driver"),
        ({"driver_version": "595.80\x1b[2J"}, "driver_version"),
        ({"gpus": []}, "gpus"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "compute_capability": math.nan}]}, "capability"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "index": i} for i in (0, 0)]}, "0 stands behind"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "index": i} for i in (2, 1)]}, "1 stands behind"),
    ],
)
def test_a_damaged_entry_is_refused_with_its_place(change: dict, told: str):
    with pytest.raises(ValueError, match=told):
        recorded_hardware({**entry(L40S), **change})


@pytest.mark.parametrize(
    "text",
    ["- a\n", "1: {}\n", "a: {", "just words", "a: " + "[" * 5000, "a: 2024-99-99"],
)
def test_a_file_that_is_no_recording_is_refused(text: str):
    with pytest.raises(ValueError, match=r"not YAML|must map hosts"):
        read_recording(text)


def test_a_host_that_is_recorded_twice_is_refused():
    with pytest.raises(ValueError, match="has gpu-1 twice"):
        read_recording("gpu-1: {gpus: []}\ngpu-2: {gpus: []}\ngpu-1: {gpus: []}\n")


def test_an_empty_recording():
    assert read_recording(recording({})) == {}


def test_a_declaration_is_completed_by_what_is_recorded_of_the_same_gpus():
    declared = declared_hardware("3x L40S")
    assert completed(declared, L40S) == L40S
    assert completed(declared, replace(L40S, gpus=L40S.gpus[:2])) == declared
    assert completed(declared, None) == declared
    linked = declared_hardware("3x L40S", "pcie")
    assert completed(linked, L40S) == replace(L40S, links=linked.links)
