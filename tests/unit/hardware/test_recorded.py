import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import (
    Gpu,
    Hardware,
    LinkVerdict,
    completed_from_recording,
    declared_hardware,
    entry,
    keep_verdicts,
    read_recording,
    recorded_hardware,
    recording,
    recording_with,
    with_verdicts,
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
            draw(st.integers(1, 80_000)),
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
    ("change", "message"),
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
        ({"gpus": [{"name": "NVIDIA L40S", "memory_mib": 46068}] * 257}, "gpus: .*at most 256"),
        ({"gpus": [{"name": "NVIDIA L40S", "memory_mib": 2**21}]}, "gpus.0.memory_mib"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "pci_address": "slot 3"}]}, "pci_address"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "pci_device_id": "L40S"}]}, "pci_device_id"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "mig_profile": "half"}]}, "mig_profile"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "uuid": "GPU-1\n"}]}, "uuid"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "serial": ""}]}, "serial"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "serial": "9" * 200}]}, "serial"),
        ({"links": ["X " * 5000] * 3}, "links.0"),
        ({"links": ["X"] * 500}, "links: "),
        ({"format": 2}, "format"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "compute_capability": math.nan}]}, "capability"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "index": i} for i in (0, 0)]}, "0 stands behind"),
        ({"gpus": [{"name": "A", "memory_mib": 1, "index": i} for i in (2, 1)]}, "1 stands behind"),
    ],
)
def test_a_damaged_entry_is_refused_with_its_place(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        recorded_hardware({**entry(L40S), **change})


@pytest.mark.parametrize(
    "text",
    ["- a\n", "[]", "0", "1: {}\n", "a: {", "just words", "a: " + "[" * 5000, "a: 2024-99-99"],
)
def test_a_file_that_is_no_recording_is_refused(text: str):
    with pytest.raises(ValueError, match=r"no YAML|cannot be read|must map hosts"):
        read_recording(text)


def test_a_host_that_is_recorded_twice_is_refused():
    with pytest.raises(ValueError, match="has gpu-1 twice"):
        read_recording("gpu-1: {gpus: []}\ngpu-2: {gpus: []}\ngpu-1: {gpus: []}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        recording({}),
        recording({"b": entry(L40S), "c": entry(L40S)}),
        recording({"b": entry(L40S), "c": entry(L40S)}) + "\n# by hand\nd: {gpus: []}\n",
        "c: {gpus: []}\nb: &b {gpus: []}\nd: *b\n",
        "c: 'two\n\n  lines'\nb: {gpus: []}\n",
        recording({"c": "two\n\nlines", "b": "# none"}),
    ],
)
def test_an_entry_stands_beside_those_of_other_hosts(text: str):
    others = read_recording(text)
    for name in ("a", "b", "e"):
        new = recording_with(text, {name: entry(L40S)})
        assert new == recording(others | {name: entry(L40S)})
        assert read_recording(new) == others | {name: entry(L40S)}


def test_nothing_is_put_into_a_file_that_is_no_recording():
    text = recording({"a": entry(L40S)})
    for wrong in (text + recording({"a": entry(L40S)}), text + "- a\n", text + "b: {\n"):
        with pytest.raises(ValueError, match=r"twice|no YAML"):
            recording_with(wrong, {"c": entry(L40S)})


def test_an_empty_recording():
    assert read_recording(recording({})) == {}


def test_a_declaration_is_completed_by_what_is_recorded_of_the_same_gpus():
    declared = declared_hardware("3x L40S")
    assert completed_from_recording(declared, L40S) == L40S
    assert completed_from_recording(declared, replace(L40S, gpus=L40S.gpus[:2])) == declared
    assert completed_from_recording(declared, None) == declared
    linked = declared_hardware("3x L40S", "pcie")
    assert completed_from_recording(linked, L40S) == replace(L40S, links=linked.links)


HANGS = LinkVerdict(
    (0, 1), True, "hangs", None, None, "nccl 2.30.7", "595.80", "vllm-0.33.0-cuda-0", "not done"
)
WORKS = LinkVerdict((0, 1), False, "works", 11.3, "SHM/direct/direct", "nccl 2.30.7", "595.80", "v")


def test_a_verdict_stands_in_a_line():
    text = recording({"gpu1": with_verdicts(entry(L40S), L40S, [WORKS, HANGS])})
    assert text.endswith(
        "  interconnect:\n"
        "  - {gpus: [0, 1], p2p: true, outcome: hangs, library: nccl 2.30.7, "
        "driver_version: '595.80', engine: vllm-0.33.0-cuda-0, detail: not done}\n"
        "  - {gpus: [0, 1], p2p: false, outcome: works, gb_s: 11.3, transport: SHM/direct/direct, "
        "library: nccl 2.30.7, driver_version: '595.80', engine: v}\n"
    )
    assert recorded_hardware(read_recording(text)["gpu1"]) == replace(
        L40S, interconnect=(HANGS, WORKS)
    )


def test_verdicts_change_nothing_else_of_an_entry():
    identifiers = {0: {"uuid": "GPU-1"}}
    before = entry(L40S, identifiers)
    once = with_verdicts(before, L40S, [HANGS])
    assert {key: once[key] for key in before} == before
    assert with_verdicts(once, L40S, []) == before
    assert entry(replace(L40S, interconnect=(HANGS,))) == with_verdicts(entry(L40S), L40S, [HANGS])


@pytest.mark.parametrize("data", [None, entry(Hardware(L40S.gpus[:1], driver_version="1"))])
def test_a_declared_host_gets_an_entry_that_pins_no_driver(data: dict | None):
    declared = declared_hardware("3x NVIDIA L40S")
    made = with_verdicts(data, replace(declared, driver_version="595.80"), [WORKS])
    assert "driver_version" not in made
    assert completed_from_recording(declared, recorded_hardware(made)) == replace(
        declared, interconnect=(WORKS,)
    )


def test_found_hardware_keeps_verdicts_of_the_same_gpus_alone():
    known = replace(L40S, interconnect=(WORKS,))
    newer = replace(L40S, driver_version="600.10")
    assert keep_verdicts(newer, known) == replace(newer, interconnect=(WORKS,))
    assert keep_verdicts(newer, None) == newer
    fewer = Hardware(L40S.gpus[:2])
    assert keep_verdicts(fewer, known) == fewer


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ({"gpus": [0]}, "interconnect.0.gpus"),
        ({"gpus": [1, 0]}, r"interconnect\[0\].gpus: \[1, 0\] are not in ascending order"),
        ({"gpus": [0, 0]}, "not in ascending order"),
        ({"gpus": [0, 7]}, "the host has no GPU 7"),
        ({"outcome": "good"}, "interconnect.0.outcome"),
        ({"p2p": "yes"}, "interconnect.0.p2p"),
        ({"gb_s": -1.0}, "interconnect.0.gb_s"),
        ({"detail": "a\nb"}, "interconnect.0.detail"),
        ({"speed": 3}, "interconnect.0.speed"),
    ],
)
def test_verdicts_are_read_strictly(verdict: dict, why: str):
    data = entry(L40S) | {
        "interconnect": [{"gpus": [0, 1], "p2p": True, "outcome": "works"} | verdict]
    }
    with pytest.raises(ValueError, match=why):
        recorded_hardware(data)


def test_a_group_and_way_has_one_verdict():
    twice = [{"gpus": [0, 1], "p2p": True, "outcome": "works"}] * 2
    with pytest.raises(ValueError, match="is there twice"):
        recorded_hardware(entry(L40S) | {"interconnect": twice})
