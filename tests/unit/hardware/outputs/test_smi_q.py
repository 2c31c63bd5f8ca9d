import re

import pytest

from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.smi_q import parse_smi_q
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text

H200 = "smi-q/linux-x86_64_nvidia-h200_590.48.01.txt"


def test_a_whole_log():
    read = parse_smi_q(text(H200))
    assert (read.driver_version, read.cuda_version, read.attached_gpus) == ("590.48.01", "13.1", 1)
    assert read.gpus == (
        GpuRecord(
            index=0,
            name="NVIDIA H200",
            memory_total_mib=143771,
            memory_used_mib=0,
            memory_free_mib=143158,
            memory_reserved_mib=614,
            uuid="GPU-00000000-0000-0000-0000-000000000000",
            serial="0000000000000",
            pci_address="0000:83:00.0",
            pci_device_id="10de:2335",
            driver_version="590.48.01",
            architecture="Hopper",
            pcie_generation=5,
            pcie_generation_max=5,
            pcie_generation_card=5,
            pcie_width=16,
            pcie_width_max=16,
            persistence_mode=True,
            compute_mode="Default",
            ecc_mode=True,
            ecc_uncorrected=0,
            sram_threshold_exceeded=False,
            channel_repair_pending=False,
            tpc_repair_pending=False,
            unrepairable_memory=False,
            remapped_rows_correctable=0,
            remapped_rows_uncorrectable=0,
            remapped_rows_pending=False,
            remapped_rows_failed=False,
            recovery_action="None",
            fabric_state="Completed",
            fabric_status="Success",
            mig_mode=False,
            power_limit_w=700.0,
            temperature_c=28,
            utilization_percent=0,
        ),
    )


@pytest.mark.parametrize(
    ("file", "driver", "cuda", "names", "memory", "power"),
    [
        ("duaneya_nvidia-smi-query", "440.31", "10.2", ["GeForce RTX 2080 Ti"] * 4, 11019, 260.0),
        ("marwank270_nvidia-smi-query", "510.73.08", "11.6", ["Quadro K2200"], 4096, 39.5),
        ("gh200-480gb-550_full", "550.127.05", "12.4", ["NVIDIA GH200 480GB"], 97871, 700.0),
        ("linux-x86_64_nvidia-geforce-rtx-2080-super_610.57.04", "610.57.04", "13.3",
         ["NVIDIA GeForce RTX 2080 SUPER"], 8192, 250.0),
        ("linux-x86_64_nvidia-geforce-rtx-4080-super_595.71.05", "595.71.05", "13.2",
         ["NVIDIA GeForce RTX 4080 SUPER"], 16376, 320.0),
        ("linux-x86_64_nvidia-h100-80gb-hbm3_590.48.01", "590.48.01", "13.1",
         ["NVIDIA H100 80GB HBM3"], 81559, 700.0),
        ("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86", "591.86", "13.1",
         ["NVIDIA GeForce RTX 2080 SUPER"], 8192, 250.0),
        ("windows-x86_64_nvidia-geforce-rtx-2080-super_610.62", "610.62", "13.3",
         ["NVIDIA GeForce RTX 2080 SUPER"], 8192, 250.0),
        ("azurehpc_bad_nvsmi8_output", "535.86.10", "12.2", [None] * 8, None, None),
        ("azurehpc_orig_nvsmi8_output", "535.86.10", "12.2", [None] * 8, None, None),
        ("ecc-row-remapper-pending-unknown-error", "550.90.07", "12.4", [None], None, None),
        ("stas00_debug_2", "510.73.08", "11.6", ["NVIDIA A100-SXM4-80GB"], None, None),
        ("stas00_debug_4", None, None, [None], None, None),
    ],
)  # fmt: skip
def test_what_planning_needs(file, driver, cuda, names, memory, power):
    read = parse_smi_q(text(f"smi-q/{file}.txt"))
    assert (read.driver_version, read.cuda_version) == (driver, cuda)
    assert [gpu.name for gpu in read.gpus] == names
    assert {gpu.memory_total_mib for gpu in read.gpus} == {memory}
    assert {gpu.power_limit_w for gpu in read.gpus} == {power}


def test_the_index_is_told_only_where_every_gpu_is_shown():
    whole = parse_smi_q(text("smi-q/azurehpc_bad_nvsmi8_output.txt"))
    assert [gpu.index for gpu in whole.gpus] == list(range(8))
    one_of_eight = parse_smi_q(text("smi-q/ecc-row-remapper-pending-unknown-error.txt"))
    assert one_of_eight.attached_gpus == 8
    assert [gpu.index for gpu in one_of_eight.gpus] == [None]
    assert parse_smi_q(text("smi-q/stas00_debug_4.txt")).gpus[0].index is None


def test_faults_of_memory():
    bad = parse_smi_q(text("smi-q/azurehpc_bad_nvsmi8_output.txt")).gpus
    assert [gpu.retired_pages_single_bit for gpu in bad] == [60, 2, 0, 6, 0, 20, 0, 8]
    assert [gpu.retired_pages_double_bit for gpu in bad] == [5, 61, 0, 0, 0, 45, 0, 56]
    assert [gpu.index for gpu in bad if gpu.retired_pages_pending] == [1, 3, 5, 7]
    (remarked,) = parse_smi_q(text("smi-q/ecc-row-remapper-pending-unknown-error.txt")).gpus
    assert remarked == GpuRecord(
        pci_address="0000:52:00.0",
        driver_version="550.90.07",
        remapped_rows_correctable=0,
        remapped_rows_uncorrectable=1,
        remapped_rows_pending=True,
        remapped_rows_failed=False,
        unreadable=("ecc mode/current: Unknown Error", "ecc mode/pending: Unknown Error"),
    )
    (gh200,) = parse_smi_q(text("smi-q/gh200-480gb-550_full.txt")).gpus
    assert (gh200.ecc_uncorrected, gh200.pcie_width, gh200.reset_required) == (1, 1, False)
    (excerpt,) = parse_smi_q(text("smi-q/stas00_debug_2.txt")).gpus
    assert (excerpt.pci_address, excerpt.ecc_uncorrected) == ("0000:10:1c.0", 0)
    assert (excerpt.remapped_rows_correctable, excerpt.remapped_rows_pending) == (1, True)
    (fragment,) = parse_smi_q(text("smi-q/stas00_debug_4.txt")).gpus
    assert fragment == GpuRecord(
        retired_pages_single_bit=2, retired_pages_double_bit=0, retired_pages_pending=True
    )


def test_processes():
    read = parse_smi_q(text("smi-q/duaneya_nvidia-smi-query.txt"))
    assert [(it.gpu_index, it.pid, it.used_memory_mib) for it in read.processes] == [
        (0, 5578, 9229),
        (2, 5578, 9201),
        (3, 5578, 10995),
    ]
    windows = parse_smi_q(text("smi-q/windows-x86_64_nvidia-geforce-rtx-2080-super_610.62.txt"))
    assert windows.processes[0] == Process(
        gpu_uuid="GPU-00000000-0000-0000-0000-000000000000",
        gpu_pci_address="0000:0c:00.0",
        pid=2140,
        name="C:\\Windows\\System32\\dwm.exe",
        gpu_index=0,
    )


MIG = """
Attached GPUs                             : 1
GPU 00000000:3B:00.0
    Product Name                          : NVIDIA A30
    MIG Mode
        Current                           : Enabled
        Pending                           : Enabled
    MIG Device
        Index                             : 0
        GPU Instance ID                   : 3
        Compute Instance ID               : 0
        Device Attributes
            Shared
                Multiprocessor count      : 14
        ECC Errors
            Volatile
                SRAM Uncorrectable        : 4
        FB Memory Usage
            Total                         : 5952 MiB
            Used                          : 3 MiB
    MIG Device
        Index                             : 1
        GPU Instance ID                   : 5
        Compute Instance ID               : 1
        Shared FB Memory Usage
            Total                         : 11968 MiB
    FB Memory Usage
        Total                             : 24576 MiB
    ECC Errors
        Volatile
            SRAM Uncorrectable            : 1
            DRAM Uncorrectable            : 2
    Power Readings
        Power Limit                       : GPU is lost
"""


def test_mig_devices_are_apart_from_their_gpu():
    (gpu,) = parse_smi_q(MIG).gpus
    assert gpu.mig_devices == (
        MigDevice(0, memory_total_mib=5952, gpu_instance_id=3, compute_instance_id=0),
        MigDevice(1, memory_total_mib=11968, gpu_instance_id=5, compute_instance_id=1),
    )
    assert (gpu.mig_mode, gpu.memory_total_mib, gpu.ecc_uncorrected) == (True, 24576, 3)
    assert gpu.unreadable == ("power readings/power limit: GPU is lost",)


def test_of_repeated_logs_the_newest_counts():
    first = text(H200)
    second = first.replace("28 C", "71 C").replace("143158 MiB", "N/A")
    (gpu,) = parse_smi_q(first + second).gpus
    assert (gpu.index, gpu.temperature_c, gpu.memory_free_mib) == (0, 71, 143158)
    with pytest.raises(OutputError, match="different GPUs"):
        parse_smi_q(first + first.replace("00000000:83", "00000000:84"))


def test_remarks_and_foreign_lines_change_nothing():
    plain = text("smi-q/gh200-480gb-550_full.txt")
    remarked = re.sub(r"(Reset Required .*: No)", r"\1   <-- fine", plain)
    noted = remarked.replace("    FB Memory", "[... see below!]\n    FB Memory")
    assert noted != remarked != plain
    assert parse_smi_q(noted) == parse_smi_q(plain)
    warned = "WARNING: infoROM is corrupted at gpu 0000:DD:00.0\n" + plain
    assert parse_smi_q(warned).gpus == parse_smi_q(plain).gpus
    assert parse_smi_q(warned).messages == ("WARNING: infoROM is corrupted at gpu 0000:DD:00.0",)
