from dataclasses import replace

import pytest

from roles.hardware import (
    Gpu,
    HostReport,
    PciGpu,
    declared_hardware,
    difference,
    summary,
)

DECLARED = declared_hardware("2x NVIDIA L40S")
L40S = DECLARED.gpus[0]
REPORT = HostReport(True, False, "ubuntu 24.04", DECLARED.gpus, "595.80", (), ())


def test_equal_hardware_differs_in_nothing():
    assert difference(DECLARED, REPORT) is None
    assert difference(DECLARED, DECLARED.gpus) is None


@pytest.mark.parametrize("memory_mib", [46068 - 460, 46068 + 460])
def test_memory_may_differ_by_one_percent(memory_mib: int):
    found = (replace(L40S, memory_mib=memory_mib), DECLARED.gpus[1])
    assert difference(DECLARED, found) is None


def test_a_missing_gpu_shows_both_sides():
    assert difference(DECLARED, (L40S,)) == (
        "declared: 2x NVIDIA L40S (46068 MiB); the host reports: 1x NVIDIA L40S (46068 MiB) — "
        "GPU 1 is missing. Mend the host or change gpus in the inventory."
    )


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        ((), "the host reports: no GPU — GPU 0 is missing; GPU 1 is missing"),
        ((*DECLARED.gpus, Gpu(2, "NVIDIA L4", 23034)), "GPU 2 is not declared"),
        ((L40S, Gpu(1, "NVIDIA L4", 23034)), "GPU 1 is NVIDIA L4, not NVIDIA L40S"),
        ((L40S, Gpu(1, "NVIDIA L40S", 45607)), "GPU 1 has 45607 MiB, not 46068 MiB"),
        ((replace(L40S, index=1),), "GPU 0 is missing"),
    ],
)
def test_each_kind_of_difference(found: tuple[Gpu, ...], finding: str):
    message = difference(DECLARED, found)
    assert message is not None and finding in message


def test_the_order_of_kinds_counts():
    mixed = declared_hardware("1x L4 + 1x L40S")
    other = declared_hardware("1x L40S + 1x L4")
    assert difference(mixed, other.gpus) is not None


def test_faults_of_the_driver_are_named():
    report = replace(REPORT, gpus=(L40S,), faults=("GPU 1 is lost: reboot the host",))
    message = difference(DECLARED, report)
    assert message is not None and "GPU 1 is lost: reboot the host. Mend the host" in message


def test_without_a_driver_the_pci_bus_is_shown():
    pci = (PciGpu("0000:01:00.0", "10de:26b9", "AD102GL [L40S]"),)
    report = replace(REPORT, gpus=None, pci_gpus=pci, faults=("no nvidia-smi: install it",))
    message = difference(DECLARED, report)
    assert message is not None
    assert "AD102GL [L40S] [10de:26b9] at 0000:01:00.0" in message
    assert "no nvidia-smi: install it. Mend the host" in message


def test_summary_keeps_the_order():
    hardware = declared_hardware("1x L4 + 2x L40S + 1x L4")
    assert summary(hardware.gpus) == (
        "1x NVIDIA L4 (23034 MiB) + 2x NVIDIA L40S (46068 MiB) + 1x NVIDIA L4 (23034 MiB)"
    )
    assert summary(()) == "no GPU"
