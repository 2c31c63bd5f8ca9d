"""What a host reports of its GPUs, and the script that asks it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError
from pyinfra_cli.util import json_encode

from roles.hardware import Gpu, HardwareReport, entry, recorded_hardware
from roles.hardware.facts import Hardware as HardwareFact
from roles.hardware.facts import HostReport as HostReportFact
from tests.unit.hardware.hosts import (
    AMD_STATIC,
    AMD_TOPOLOGY,
    NO_DRIVER,
    data,
    kinds,
    output,
    process,
    query,
    row,
)


def test_a_healthy_host():
    report = process()
    assert report.passwordless_sudo and not report.root
    assert report.hardware is not None and report.presumed is None
    assert [(gpu.index, gpu.name, gpu.memory_mib) for gpu in report.hardware.gpus] == [
        (0, "NVIDIA L40S", 46068),
        (1, "NVIDIA L40S", 46068),
    ]
    assert report.hardware.driver_version == "580.95.05"
    assert report.hardware.gpus[1].pci_address == "0000:02:00.0"
    assert report.system.os == "ubuntu 24.04"
    assert (report.system.numa_nodes, report.system.ram_mib) == (2, 257666)
    assert report.system.dev_shm_mib == 128833
    assert report.system.secure_boot is False and report.system.driver_open is True
    assert report.faults == ()


def test_no_sudo_and_a_banner():
    lines = ["Welcome to the cluster", *output(sudo="")]
    assert not HostReportFact().process(lines).passwordless_sudo


def test_a_real_answer_with_every_field_that_the_driver_knows():
    report = process(
        query=data("query-gpu-csv/linux-x86_64_nvidia-l40s_595.80.txt"),
        version=data("smi-version/linux-x86_64_nvidia-l40s_595.80.txt"),
        nvidia_loaded="595.80",
        nvidia_installed="595.80",
    )
    assert report.hardware is not None and len(report.hardware.gpus) == 1
    gpu = report.hardware.gpus[0]
    assert (gpu.name, gpu.memory_mib, gpu.compute_capability) == ("NVIDIA L40S", 46068, 8.9)
    assert gpu.pci_device_id == "10de:26b9"
    assert report.answers.cuda_version == "13.2"
    assert report.blocking_faults == ()


def test_links_and_numa_nodes():
    rows = [row(i, "NVIDIA GeForce RTX 4090", total="24564") for i in range(8)]
    numa = "\n".join(
        f"0000:{i + 1:02x}:00.0 0x030000 0x10de 0x2684 numa={i // 4} driver=nvidia width=16/16"
        for i in range(8)
    )
    topo = data("topo/8x-rtx-4090_sglang-1076.txt")
    report = process(query=query(*rows), topo=topo, pci=numa)
    assert report.hardware is not None and report.hardware.links is not None
    assert len(report.hardware.links) == 28
    assert (0, 1, "PIX") in report.hardware.links and (0, 7, "SYS") in report.hardware.links
    assert [gpu.numa_node for gpu in report.hardware.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {gpu.pci_device_id for gpu in report.hardware.gpus} == {"10de:2684"}


def test_mig_slices_are_devices_of_their_own():
    name = "NVIDIA A100-SXM4-80GB"
    modes = ["Enabled", "Disabled", "Disabled", "Disabled"]
    rows = [row(i, name, total="81920", capability="8.0", mig=mode) for i, mode in enumerate(modes)]
    listing = data("smi-L/4x-a100-mixed-mig_telegraf-5812.txt")
    report = process(query=query(*rows), list=listing)
    assert report.hardware is not None
    gpus = report.hardware.gpus
    assert [gpu.index for gpu in gpus] == list(range(7))
    assert [gpu.mig_profile for gpu in gpus] == ["1g.20gb"] * 4 + [None] * 3
    assert [gpu.mig_parent for gpu in gpus[:4]] == [0] * 4
    assert all(18_000 < gpu.memory_mib < 20_480 for gpu in gpus[:4])
    assert report.devices[1] == "MIG-a45882f0-9215-5733-a0c1-49286ab31cb5"
    # The whole GPUs behind the slices are not what CUDA calls 4, 5 and 6.
    assert report.devices[4] == "GPU-00000001-0000-0000-0000-000000000000"
    assert set(report.devices) == set(range(7))
    assert report.identifiers[1] == {"uuid": report.devices[1], "serial": "0000000000000"}
    assert report.identifiers[6]["serial"] == "0000000000003"
    assert report.hardware.links is None
    # Of the matrix the links between the whole GPUs 1, 2 and 3 are left, as devices 4, 5 and 6.
    topo = "\n".join(
        (
            "\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity",
            "GPU0\t X \tNV12\tNV4\tSYS\t0-63\t0",
            "GPU1\tNV12\t X \tNV8\tPHB\t0-63\t0",
            "GPU2\tNV4\tNV8\t X \tPIX\t0-63\t0",
            "GPU3\tSYS\tPHB\tPIX\t X \t0-63\t0",
        )
    )
    linked = process(query=query(*rows), list=listing, topo=topo)
    assert linked.hardware is not None
    assert linked.hardware.links == ((4, 5, "NV8"), (4, 6, "PHB"), (5, 6, "PIX"))


def test_slices_count_although_another_gpu_is_lost():
    listing = data("smi-L/linux-x86_64_nvidia-h200-mig_590.48.01.txt")
    lost = "Unable to determine the device handle for GPU1: 0000:02:00.0: GPU is lost."
    report = process(
        query=f"{query(row(0, 'NVIDIA H200', total='143771', mig='Enabled'))}\n{lost}",
        query_status="15",
        list=f"{listing}\n{lost}",
        list_status="15",
    )
    assert report.hardware is not None
    profiles = [gpu.mig_profile for gpu in report.hardware.gpus]
    assert profiles == ["1c.3g.71gb", "2c.3g.71gb", "2g.35gb", "1g.18gb", "1g.18gb"]
    # Of 71, 35 and 18 GB a little less is there.
    assert [gpu.memory_mib // 1024 for gpu in report.hardware.gpus] == [67, 67, 33, 17, 17]
    assert kinds(report) == ["gpu-lost"]


def test_slices_count_although_only_root_is_told_their_gpus_memory():
    listing = data("smi-L/linux-x86_64_nvidia-h200-mig_590.48.01.txt")
    denied = row(0, "NVIDIA H200", total="[Insufficient Permissions]", mig="Enabled")
    report = process(query=query(denied), list=listing)
    assert report.hardware is not None
    assert [gpu.mig_profile for gpu in report.hardware.gpus][2:] == ["2g.35gb"] + ["1g.18gb"] * 2
    assert report.faults == ()


def test_a_slice_without_any_known_memory_is_left_out_and_named():
    listing = (
        "GPU 0: NVIDIA L40S (UUID: GPU-00000000-0000-0000-0000-000000000000)\n"
        "  MIG unknown  Device  0: (UUID: MIG-11111111-0000-0000-0000-000000000000)"
    )
    report = process(query=query(row(0)), list=listing)
    assert report.hardware is not None and report.hardware.gpus == ()
    assert kinds(report) == ["gpu-incomplete"]


def test_a_gpu_whose_memory_nobody_knows_is_left_out_and_named():
    orin = row(1, "Orin (nvgpu)", total="[N/A]", reserved="[N/A]", capability="8.7")
    report = process(query=query(row(0), orin))
    assert report.hardware is not None and [gpu.index for gpu in report.hardware.gpus] == [0]
    (fault,) = report.faults
    assert (fault.kind, fault.severity, fault.gpu) == ("gpu-incomplete", "warning", 1)
    assert "GPU 1 (Orin (nvgpu)) does not say its memory" in str(fault)
    denied = process(query=query(row(0), row(1, total="[Insufficient Permissions]")))
    assert kinds(denied) == ["gpu-incomplete"]


def test_unified_memory_counts_as_the_gpus():
    gb10 = row(0, "NVIDIA GB10", total="[N/A]", reserved="[N/A]", capability="12.1")
    report = process(query=query(gb10), lspci="", lspci_status="missing")
    assert report.hardware is not None
    assert [(gpu.name, gpu.memory_mib) for gpu in report.hardware.gpus] == [("NVIDIA GB10", 257666)]


def test_an_amd_host():
    report = process(
        query="",
        query_status="missing",
        modules="amdgpu",
        nvidia_loaded="",
        nvidia_installed="",
        nvidia_license="",
        lspci="",
        lspci_status="missing",
        amd_smi=AMD_STATIC,
        amd_topology=AMD_TOPOLOGY,
    )
    assert report.hardware is not None
    assert [gpu.memory_mib for gpu in report.hardware.gpus] == [196592, 196592]
    assert report.hardware.links == ((0, 1, "XGMI"),)
    assert report.faults == ()


def test_processors_with_gpus_share_the_hosts_memory():
    bus = "\n".join(
        f"000{n}:01:00.0 0x120000 0x1002 0x74a0 numa={n} driver= width=16/16" for n in range(4)
    )
    report = process(**NO_DRIVER, modules="", lspci="", pci=bus)
    assert report.presumed is not None
    assert [gpu.memory_mib for gpu in report.presumed.gpus] == [257666 // 4] * 4


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("Navi 31 [Radeon RX 7900 XT/7900 XTX]", "Navi 31 [Radeon RX 7900 XT/7900 XTX]"),
        ("AMD Radeon\u2122 PRO W7900", "AMD Radeon PRO W7900"),
    ],
)
def test_whatever_a_card_is_called_its_recording_can_be_read(printed: str, name: str):
    rocm = f"GPU[0]\t\t: Card Series: \t\t{printed}\nGPU[0]\t\t: VRAM Total Memory (B): 25753026560"
    report = process(**NO_DRIVER, lspci="", lspci_status="missing", rocm_smi=rocm)
    assert report.hardware is not None
    assert [gpu.name for gpu in report.hardware.gpus] == [name]
    assert recorded_hardware(entry(report.hardware)).gpus == report.hardware.gpus


def test_without_a_driver_the_bus_tells_the_cards():
    report = process(**NO_DRIVER)
    assert report.hardware is None and report.presumed is not None
    assert [(gpu.name, gpu.memory_mib) for gpu in report.presumed.gpus] == [
        ("NVIDIA L40S", 46068),
        ("NVIDIA L40S", 46068),
    ]


def test_a_card_on_the_bus_goes_by_the_name_that_its_driver_will_print():
    bus = "0000:3b:00.0 0x030000 0x10de 0x2206 numa=1 driver= width=16/16"
    report = process(**NO_DRIVER, lspci="", lspci_status="missing", pci=bus)
    assert report.presumed is not None
    assert [(gpu.name, gpu.memory_mib) for gpu in report.presumed.gpus] == [
        ("NVIDIA GeForce RTX 3080", 10240)
    ]


@pytest.mark.parametrize("device", ["0x25b6", "0x2d04"])
def test_cards_that_share_a_pci_id_are_not_guessed(device: str):
    # 25b6 is the A2 and the A16, 2d04 the RTX 5060 Ti with 8 and with 16 GB.
    bus = f"0000:3b:00.0 0x030000 0x10de {device} numa=1 driver= width=16/16"
    report = process(**NO_DRIVER, lspci="", lspci_status="missing", pci=bus)
    assert report.presumed is None


def test_without_lspci_sysfs_tells_the_cards():
    bus = "0000:3b:00.0 0x030200 0x10de 0x26b9 numa=1 driver= width=16/16"
    report = process(**NO_DRIVER, lspci="", lspci_status="missing", pci=bus)
    assert report.presumed is not None
    assert report.presumed.gpus == (
        Gpu(
            0,
            "NVIDIA L40S",
            46068,
            compute_capability=8.9,
            pci_address="0000:3b:00.0",
            pci_device_id="10de:26b9",
            numa_node=1,
            pcie_width=16,
            pcie_width_max=16,
        ),
    )


@pytest.mark.parametrize(
    ("device", "name", "memory_mib"),
    [
        # Cards of several sizes under one name are one size each on the bus.
        ("220a", "NVIDIA GeForce RTX 3080", 12288),
        # Its memory is the host's.
        ("2e12", "NVIDIA GB10", 257666),
    ],
)
def test_the_bus_tells_what_the_driver_will_say(device: str, name: str, memory_mib: int):
    bus = f"0000:3b:00.0 0x030200 0x10de 0x{device} numa=1 driver= width=16/16"
    report = process(**NO_DRIVER, lspci="", lspci_status="missing", pci=bus)
    assert report.presumed is not None
    assert [(gpu.name, gpu.memory_mib) for gpu in report.presumed.gpus] == [(name, memory_mib)]
    assert recorded_hardware(entry(report.presumed)) == report.presumed


@pytest.mark.parametrize("lines", [output()[:-2], output()[:9], ["sudo: a password is required"]])
def test_a_report_that_is_cut_short_fails_the_host_alone(lines: list[str]):
    with pytest.raises(FactProcessError, match=r"cut short|no answer"):
        HostReportFact().process(lines)


@given(st.integers(0, 400), st.text(max_size=30))
def test_no_garbage_ends_a_run(at: int, garbage: str):
    lines = output()
    lines[at % len(lines)] = garbage
    try:
        report = HostReportFact().process(lines)
    except FactProcessError:
        return
    for gpu in report.hardware.gpus if report.hardware else ():
        assert gpu.name in garbage or (gpu.name, gpu.memory_mib) == ("NVIDIA L40S", 46068)


def test_the_fact_for_a_person_is_json():
    found = HardwareFact().process(output())
    shown = json.loads(json.dumps(found, default=json_encode))
    assert shown["hardware"]["gpus"][0]["name"] == "NVIDIA L40S"
    assert shown["faults"] == [] and shown["system"]["kernel"] == "6.8.0-60-generic"


def run_script(folder: Path) -> HardwareReport:
    """The report of the script, with the programs in `folder` found before the machine's own."""
    script = f'PATH="{folder}:$PATH"\n' + HostReportFact().command()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0 and done.stderr == ""
    return HostReportFact().process(done.stdout.splitlines())


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_script_on_this_machine(tmp_path: Path):
    assert run_script(tmp_path).system.os


def test_the_script_on_a_host_with_gpus(tmp_path: Path):
    program(tmp_path, "sudo", '[ "$1 $2" = "-n true" ]')
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "nvidia-smi", f"cat <<'END'\n{query(row(0))}\nEND")
    program(tmp_path, "lspci", f"cat <<'END'\n{data('lspci/l40s-2x_dnnk-subsystem.txt')}\nEND")
    report = run_script(tmp_path)
    assert (report.passwordless_sudo, report.root) == (True, False)
    assert report.hardware is not None
    assert [gpu.name for gpu in report.hardware.gpus] == ["NVIDIA L40S"]
    assert len(report.answers.pci_gpus) == 2


def test_amd_smi_is_asked_as_root_where_the_login_may(tmp_path: Path):
    program(tmp_path, "nvidia-smi", "exit 127")
    static, topology = f"cat <<'END'\n{AMD_STATIC}\nEND", f"cat <<'END'\n{AMD_TOPOLOGY}\nEND"
    answer = f'case "$1" in static) {static}\n;; topology) {topology}\n;; esac'
    program(tmp_path, "amd-smi", f'if [ -z "$AS_ROOT" ]; then exit 1; fi\n{answer}')
    assert run_script(tmp_path).hardware is None
    program(tmp_path, "sudo", 'shift; AS_ROOT=yes exec "$@"')
    report = run_script(tmp_path)
    assert report.hardware is not None
    assert [gpu.name for gpu in report.hardware.gpus] == ["AMD Instinct MI300X"] * 2
    assert report.hardware.links == ((0, 1, "XGMI"),)


def test_an_older_driver_is_asked_for_less(tmp_path: Path):
    old = "index, name, uuid, pci.bus_id, memory.total [MiB], memory.used [MiB], driver_version"
    program(
        tmp_path,
        "nvidia-smi",
        'case "$*" in\n'
        f"*persistence_mode*) echo 'Field \"persistence_mode\" is not a valid field to query.'; "
        "exit 2 ;;\n"
        f"--query-gpu=*) echo '{old}'; echo '0, Tesla V100, GPU-1, 00000000:01:00.0, 32510, 0, "
        "418.43' ;;\n*) exit 1 ;;\nesac",
    )
    report = run_script(tmp_path)
    assert report.hardware is not None
    assert [(gpu.name, gpu.memory_mib) for gpu in report.hardware.gpus] == [("Tesla V100", 32510)]


def test_a_host_without_room_for_the_answers_says_so(tmp_path: Path):
    program(tmp_path, "mktemp", "exit 1")
    with pytest.raises(FactProcessError, match="neither /dev/shm nor /tmp takes a file"):
        run_script(tmp_path)


def test_a_tool_that_prints_without_end_is_cut(tmp_path: Path):
    program(tmp_path, "lspci", "yes | head -c 9000000; exit 3")
    script = f'PATH="{tmp_path}:$PATH"\n' + HostReportFact().command()
    output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=90).stdout
    assert 4_000_000 < len(output) < 4_100_000
    lines = output.splitlines()
    at = lines.index("@@ lspci")
    assert next(line for line in lines[at:] if line.startswith("@@= ")) == "@@= 3"


def test_the_host_says_so_when_its_driver_hangs(tmp_path: Path):
    # The limit is for real hosts; the wait is all that is shortened here.
    program(tmp_path, "nvidia-smi", "exec sleep 60")
    program(tmp_path, "timeout", 'shift 2; shift; "$@" & sleep 0.2; kill $!; exit 124')
    report = run_script(tmp_path)
    assert "driver-hangs" in kinds(report)


def test_equal_reports_are_equal():
    assert process() == replace(process())
    assert process(query=query(row(0), row(1))) != process(query=query(row(0)))
    assert replace(process(), root=True) != process()
