"""What slows GPUs that work together over PCIe is said where something can be done about it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from roles.hardware import HardwareReport
from roles.hardware.facts import HostReport as HostReportFact
from tests.unit.hardware.hosts import output, query, row

# Two GPUs below one switch, and one at a root port of its own.
PATHS = """\
0000:01:00.0 iommu={iommu} /sys/devices/pci0000:00/0000:00:01.1/0000:10:00.0/0000:11:00.0/0000:01:00.0
0000:02:00.0 iommu={iommu} /sys/devices/pci0000:00/0000:00:01.1/0000:10:00.0/0000:11:01.0/0000:02:00.0
0000:03:00.0 iommu={iommu} /sys/devices/pci0000:40/0000:40:01.1/0000:03:00.0
"""  # noqa: E501
# As lspci -vv prints it of a root port whose IOMMU is on (nccl issue 631 and kernel mails).
ON = "\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-"
OFF = ON.replace("+", "-")
TOPO = """\
\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \t{link}\t0-63\t0\t\tN/A
GPU1\t{link}\t X \t0-63\t0\t\tN/A
"""


def process(name: str = "NVIDIA L40S", gpus: int = 2, **parts: str) -> HardwareReport:
    printed = {
        "query": query(*(row(i, name) for i in range(gpus))),
        "topo": TOPO.format(link="PIX") if gpus == 2 else "",
        "virtualization": "none",
        "paths": PATHS.format(iommu="identity"),
        "numa_balancing": "0",
    }
    return HostReportFact().process(output(**printed | parts))


def kinds(report: HardwareReport) -> list[str]:
    return [fault.kind for fault in report.faults]


def acs(*bridges: str, message: str = ON) -> str:
    return "\n".join(f"{bridge} {message}" for bridge in bridges)


def test_a_bridge_between_two_gpus_that_redirects_is_named():
    report = process(acs=acs("0000:00:01.1", "0000:11:00.0", "0000:11:01.0", "0000:40:01.1"))
    (fault,) = report.faults
    assert (fault.kind, fault.severity) == ("acs-redirects", "warning")
    # Neither the port above both nor that of another GPU.
    assert fault.problem.endswith("at 0000:11:00.0, 0000:11:01.0")
    assert "for b in 0000:11:00.0 0000:11:01.0; do setpci -s $b ECAP_ACS+0x6.w=0000" in fault.remedy


@pytest.mark.parametrize("iommu", ["DMA", "DMA-FQ"])
def test_an_iommu_that_translates_is_named(iommu: str):
    (fault,) = process(paths=PATHS.format(iommu=iommu)).faults
    assert fault.kind == "iommu-translates" and "iommu=pt" in fault.remedy
    assert "at 0000:01:00.0, 0000:02:00.0," in fault.problem


EVERYTHING: dict[str, Any] = {"acs": acs("0000:11:00.0"), "paths": PATHS.format(iommu="DMA")}


@pytest.mark.parametrize(
    "more",
    [
        {"virtualization": "kvm"},
        {"virtualization": ""},
        {"topo": TOPO.format(link="NV12")},
        {"name": "NVIDIA GeForce RTX 4090"},
        {"topo_p2p": " \tGPU0\tGPU1\n GPU0\tX\tCNS\n GPU1\tCNS\tX\n"},
        {"gpus": 1},
    ],
    ids=["virtual", "unknown", "NVLink", "no P2P by kind", "no P2P by the driver", "one GPU"],
)
def test_where_it_does_not_matter_nothing_is_said(more: dict[str, Any]):
    assert kinds(process(**EVERYTHING)) == ["acs-redirects", "iommu-translates"]
    assert kinds(process(**EVERYTHING | more)) == []


def test_bridges_that_let_requests_through():
    assert kinds(process(acs=acs("0000:11:00.0", message=OFF))) == []
    only_source = OFF.replace("SrcValid-", "SrcValid+")
    assert kinds(process(acs=acs("0000:11:00.0", message=only_source))) == []
    assert kinds(
        process(acs=acs("0000:11:00.0", message=OFF.replace("CmpltRedir-", "CmpltRedir+")))
    )


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({}, True),
        ({"virtualization": "kvm"}, True),
        ({"numa_balancing": "2"}, False),
        ({"numa": "/sys/devices/system/node/node0"}, False),
        ({"gpus": 1}, False),
    ],
)
def test_numa_balancing_of_several_nodes(more: dict[str, Any], named: bool):
    printed: dict[str, Any] = {"numa_balancing": "1", **more}
    assert kinds(process(**printed)) == ["numa-balancing"] * named


def test_an_older_report_says_less():
    assert HostReportFact().process(output()).faults == ()


def test_the_script_asks_the_bridges_above_gpus(tmp_path: Path):
    devices = tmp_path / "devices"
    devices.mkdir()
    for line in PATHS.format(iommu="DMA-FQ").splitlines():
        address, iommu, path = line.split()
        folder = tmp_path / path.removeprefix("/sys/devices/")
        (folder / "iommu_group").mkdir(parents=True)
        (folder / "iommu_group/type").write_text(f"{iommu.removeprefix('iommu=')}\n")
        (folder / "class").write_text("0x030200\n")
        (devices / address).symlink_to(folder)
    tools = {
        "sudo": 'shift; exec "$@"',
        "lspci": f"case $3 in -s) echo \"$4 PCI bridge: X\"; printf '%s\\n' '{ON}' ;; esac",
        "systemd-detect-virt": "echo none; exit 1",
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = HostReportFact().command().replace("/sys/bus/pci/devices", str(devices))
    message = subprocess.run(
        ["dash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    system = HostReportFact().process(message.stdout.splitlines()).system
    assert system.virtualization == "none"
    assert system.gpu_paths[1].bridges[-3:] == ("0000:00:01.1", "0000:10:00.0", "0000:11:01.0")
    assert {path.iommu for path in system.gpu_paths} == {"DMA-FQ"}
    asked = ("0000:00:01.1", "0000:10:00.0", "0000:11:00.0", "0000:11:01.0", "0000:40:01.1")
    assert system.redirecting == asked
