from dataclasses import replace

import pytest

from roles.hardware import (
    Gpu,
    Hardware,
    bus_difference,
    declared_hardware,
    difference,
    findings,
    parse_report,
    summary,
)
from tests.unit.hardware.hosts import query, row, sections

DECLARED = declared_hardware("2x NVIDIA L40S")
L40S = DECLARED.gpus[0]
RECORDED = Hardware(
    tuple(Gpu(i, "NVIDIA L40S", 46068, pci_address=f"0000:{i + 1:02x}:00.0") for i in range(4)),
    tuple((i, j, "PHB" if i // 2 == j // 2 else "SYS") for i in range(4) for j in range(i + 1, 4)),
    None,
    "580.95.05",
)


def differences(expected: Hardware, observed: Hardware) -> list[str]:
    return list(findings(expected, observed))


def test_equal_hardware_differs_in_nothing():
    assert difference(DECLARED, parse_report(sections())) is None
    assert differences(RECORDED, RECORDED) == []


@pytest.mark.parametrize("memory_mib", [46068 - 460, 46068 + 460])
def test_memory_may_differ_by_one_percent(memory_mib: int):
    found = (replace(L40S, memory_mib=memory_mib), DECLARED.gpus[1])
    assert differences(DECLARED, Hardware(found)) == []


def test_a_missing_gpu_shows_both_sides():
    assert difference(DECLARED, parse_report(sections(query=query(row(0))))) == (
        "2x NVIDIA L40S (46068 MiB) in the inventory; the host reports: "
        "1x NVIDIA L40S (46068 MiB) — GPU 1 is missing. Repair the host, or take its new state: "
        "change gpus in the inventory where they are declared there, or deploy with "
        "--data accept_hardware=true where they are recorded."
    )


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        ((), ["GPU 0 is missing", "GPU 1 is missing"]),
        ((*DECLARED.gpus, Gpu(2, "NVIDIA L4", 23034)), ["GPU 2 (NVIDIA L4) is new"]),
        ((L40S, Gpu(1, "NVIDIA L4", 23034)), ["GPU 1 is NVIDIA L4, not NVIDIA L40S"]),
        ((L40S, Gpu(1, "NVIDIA L40S", 45607)), ["GPU 1 has 45607 MiB, not 46068 MiB"]),
        ((replace(L40S, index=1),), ["GPU 0 is missing"]),
    ],
)
def test_each_kind_of_difference(found: tuple[Gpu, ...], finding: list[str]):
    assert differences(DECLARED, Hardware(found)) == finding


def test_a_lost_gpu_is_named_by_its_place_not_by_its_number():
    left = [gpu for gpu in RECORDED.gpus if gpu.index != 1]
    found = tuple(replace(gpu, index=index) for index, gpu in enumerate(left))
    assert differences(RECORDED, Hardware(found, driver_version="580.95.05")) == [
        "GPU 1 (NVIDIA L40S at 0000:02:00.0) is missing"
    ]


def test_a_missing_partition_is_seen_although_all_share_one_address():
    partitions = tuple(
        Gpu(i, "AMD Instinct MI300X", 24576, pci_address="0000:0c:00.0") for i in range(8)
    )
    assert differences(Hardware(partitions), Hardware(partitions[:7])) == [
        "GPU 7 (AMD Instinct MI300X at 0000:0c:00.0) is missing"
    ]


def test_gpus_in_other_slots_are_the_same_gpus():
    moved = tuple(replace(gpu, pci_address=f"0000:8{gpu.index}:00.0") for gpu in RECORDED.gpus)
    assert differences(RECORDED, replace(RECORDED, gpus=moved)) == []


def test_changed_links_and_drivers():
    links = tuple((i, j, "SYS") for i in range(4) for j in range(i + 1, 4))
    assert differences(RECORDED, replace(RECORDED, links=links, driver_version="595.80")) == [
        "GPUs 0 and 1 are linked by SYS, not PHB",
        "GPUs 2 and 3 are linked by SYS, not PHB",
        "the driver is 595.80, not 580.95.05",
    ]
    assert differences(RECORDED, replace(RECORDED, links=None)) == []


def test_many_changed_links_are_counted():
    every = tuple((i, j, "NODE") for i in range(4) for j in range(i + 1, 4))
    assert (
        differences(RECORDED, replace(RECORDED, links=every))[-1] == "and 2 more links have changed"
    )


@pytest.mark.parametrize(
    ("expected_message", "label", "differs"),
    [
        ("nvlink", "NV18", False),
        ("nvlink", "XGMI", False),
        ("nvlink", "PHB", True),
        ("pcie", "SYS", False),
        ("pcie", "PIX", False),
        ("pcie", "NV4", True),
    ],
)
def test_declared_links_are_compared_in_kind(expected_message: str, label: str, differs: bool):
    declared = declared_hardware("2x NVIDIA L40S", expected_message)
    found = Hardware(declared.gpus, ((0, 1, label),))
    assert bool(differences(declared, found)) == differs


def test_the_order_of_kinds_counts():
    mixed = declared_hardware("1x L4 + 1x L40S")
    assert differences(mixed, declared_hardware("1x L40S + 1x L4"))


def test_faults_of_the_driver_are_named():
    lost = (
        "Unable to determine the device handle for GPU1: 0000:02:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU"
    )
    report = parse_report(sections(query=f"{query(row(0))}\n{lost}", query_status="15"))
    message = difference(DECLARED, report)
    assert message is not None and "GPU 1 is missing. Unable to determine" in message
    assert "reboot the host" in message


def test_without_a_driver_the_pci_bus_is_shown():
    report = parse_report(sections(query="", query_status="missing"))
    message = difference(declared_hardware("2x L4"), report)
    assert message is not None
    assert "its PCI bus shows 2x NVIDIA L40S (46068 MiB)" in message
    assert "the NVIDIA driver is not installed: install it" in message


def test_summary_keeps_the_order():
    hardware = declared_hardware("1x L4 + 2x L40S + 1x L4")
    assert summary(hardware.gpus) == (
        "1x NVIDIA L4 (23034 MiB) + 2x NVIDIA L40S (46068 MiB) + 1x NVIDIA L4 (23034 MiB)"
    )
    assert summary(()) == "no GPU"


@pytest.mark.parametrize(
    ("declared", "differences"),
    [
        ("2x NVIDIA L40S", None),
        ("3x NVIDIA L40S", "2 GPUs are on the bus, not 3"),
        ("2x NVIDIA L4", "GPU 0 is NVIDIA L40S by its PCI id, not NVIDIA L4"),
    ],
)
def test_a_host_without_a_driver_is_compared_by_its_bus(declared: str, differences: str | None):
    report = parse_report(sections(query="", query_status="missing"))
    assert report.hardware is None
    found = bus_difference(declared_hardware(declared), report)
    assert found is None if differences is None else differences in (found or "")


def test_a_slice_stands_for_its_gpu_on_the_bus():
    slices = tuple(
        Gpu(n, "NVIDIA L40S", 20000, mig_profile="3g.20gb", mig_parent=n // 2, mig_index=n % 2)
        for n in range(4)
    )
    report = parse_report(sections(query="", query_status="missing"))
    assert bus_difference(Hardware(slices), report) is None


def test_whole_gpus_beside_slices_stand_for_themselves_on_the_bus():
    # Devices are counted anew behind slices: the third GPU is device 3, and so on.
    whole, half = Gpu(0, "NVIDIA L40S", 46068), Gpu(0, "NVIDIA L40S", 20000, mig_profile="3g.20gb")
    bus = "\n".join(
        f"0000:0{n}:00.0 0x030200 0x10de 0x26b9 numa=0 driver= width=16/16" for n in range(1, 4)
    )
    report = parse_report(sections(query="", query_status="missing", lspci="", pci=bus))
    for parents in ([0, 0, None, 2, 2], [0, 0, None, None], [None, 1, 1, None]):
        devices = tuple(
            replace(whole, index=n) if parent is None else replace(half, index=n, mig_parent=parent)
            for n, parent in enumerate(parents)
        )
        assert bus_difference(Hardware(devices), report) is None


def test_a_device_that_no_table_knows_may_be_any_card():
    bus = "\n".join(
        f"0000:0{n}:00.0 0x030200 0x10de 0xffff numa=0 driver= width=16/16" for n in (1, 2)
    )
    report = parse_report(sections(query="", query_status="missing", lspci="", pci=bus))
    assert bus_difference(DECLARED, report) is None
    assert "not 1" in (bus_difference(declared_hardware("1x NVIDIA L40S"), report) or "")
