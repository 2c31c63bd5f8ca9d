import subprocess
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from roles.hardware import Gpu, HostReport, parse_report
from roles.hardware.facts import HostReport as HostReportFact
from roles.hardware.report import SCRIPT

DATA = Path(__file__).parent / "data"
LSPCI = (DATA / "l40s-2x_dnnk-subsystem.txt").read_text()
ROWS = "0, NVIDIA L40S, 46068, 595.80\n1, NVIDIA L40S, 46068, 595.80"


def output(smi: str = ROWS, status: str = "0", lspci: str = LSPCI, sudo: str = "yes") -> list[str]:
    text = (
        f"@@ user\n1000\n@@ sudo\n{sudo}\n@@ os\nubuntu 24.04\n@@ nvidia-smi\n{smi}\n\n"
        f"@@ nvidia-smi-status\n{status}\n@@ lspci\n{lspci}\n@@ end"
    )
    return text.split("\n")


def process(**parts: str) -> HostReport:
    return HostReportFact().process(output(**parts))


def test_a_healthy_host():
    report = process()
    assert report.passwordless_sudo and not report.root
    assert report.os == "ubuntu 24.04"
    assert report.gpus == (Gpu(0, "NVIDIA L40S", 46068), Gpu(1, "NVIDIA L40S", 46068))
    assert report.driver_version == "595.80"
    assert [gpu.device_id for gpu in report.pci_gpus] == ["10de:26b9", "10de:26b9"]
    assert report.faults == ()


def test_no_sudo_and_a_banner():
    report = parse_report(["Welcome to the cluster", *output(sudo="")])
    assert not report.passwordless_sudo


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"smi": "", "status": "missing"}, "the NVIDIA driver is not installed"),
        ({"smi": "", "status": "missing", "lspci": ""}, "no NVIDIA GPU on the PCI bus"),
        ({"smi": "", "status": "missing", "lspci": "missing"}, "pciutils"),
        ({"smi": "", "status": "124"}, "gave no answer in 30 s"),
        ({"smi": "", "status": "137"}, "the driver hangs"),
        (
            {"smi": "Failed to initialize NVML: Driver/library version mismatch", "status": "18"},
            "reboot the host",
        ),
        (
            {"smi": (DATA / "smi-error" / "couldnt-communicate.txt").read_text(), "status": "9"},
            "kernel module is not loaded",
        ),
        ({"smi": "Segmentation fault", "status": "139"}, "failed with status 139"),
        ({"smi": "", "status": "255"}, "failed with status 255"),
    ],
)
def test_a_driver_that_cannot_be_asked(parts: dict[str, str], fault: str):
    report = process(**parts)
    assert report.gpus is None and report.driver_version is None
    assert len(report.faults) == 1 and fault in report.faults[0]


def test_a_driver_without_gpus():
    report = process(smi="No devices were found", status="6")
    assert report.gpus == () and "sees no GPU" in report.faults[0]


def test_an_answer_with_a_bad_status_is_a_fault():
    report = process(status="15")
    assert report.gpus is not None and len(report.gpus) == 2
    assert "status 15" in report.faults[0]


@pytest.mark.parametrize(
    "lines", [output(smi="nonsense"), output()[:-1], output()[:5], ["sudo: a password"]]
)
def test_what_cannot_be_read_fails_the_host_alone(lines: list[str]):
    with pytest.raises(FactProcessError):
        HostReportFact().process(lines)


def test_a_host_that_failed_still_has_a_report():
    report = HostReportFact.default()
    assert report.gpus is None and report.faults


def run_script(folder: Path) -> HostReport:
    """The report of the script, with the programs in `folder` found before the machine's own."""
    script = f'PATH="{folder}:$PATH"\n' + HostReportFact().command()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    return HostReportFact().process(done.stdout.splitlines())


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_script_on_this_machine(tmp_path: Path):
    assert run_script(tmp_path).os


def test_the_script_on_a_host_with_gpus(tmp_path: Path):
    program(tmp_path, "sudo", '[ "$1 $2" = "-n true" ]')
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "nvidia-smi", "printf '0, NVIDIA L40S, 46068, 595.80'")
    program(tmp_path, "lspci", f"cat <<'END'\n{LSPCI}\nEND")
    report = run_script(tmp_path)
    assert (report.passwordless_sudo, report.root, report.driver_version) == (True, False, "595.80")
    assert report.gpus == (Gpu(0, "NVIDIA L40S", 46068),)
    assert len(report.pci_gpus) == 2


def test_the_script_on_a_host_whose_tools_fail(tmp_path: Path):
    program(tmp_path, "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "nvidia-smi", "echo 'Unknown failure' >&2; exit 3")
    program(tmp_path, "lspci", "exit 1")
    report = run_script(tmp_path)
    assert not report.passwordless_sudo and report.gpus is None
    assert "status 3" in report.faults[0] and "Unknown failure" in report.faults[0]


def test_a_program_that_reads_its_input_does_not_wait(tmp_path: Path):
    program(tmp_path, "nvidia-smi", "cat; echo '0, NVIDIA L40S, 46068, 595.80'")
    assert run_script(tmp_path).gpus == (Gpu(0, "NVIDIA L40S", 46068),)


def test_the_script_is_posix():
    assert SCRIPT.isascii() and "[[" not in SCRIPT
