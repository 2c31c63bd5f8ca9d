import pytest

from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.smi_table import parse_smi_table
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text


def _read(file):
    return parse_smi_table(text(f"smi-table/{file}.txt"))


@pytest.mark.parametrize(
    ("file", "driver", "cuda", "names", "memory"),
    [
        ("a100-err-gpu5_lambda", None, None, ["NVIDIA A100-SXM...", None], 81920),
        ("azhpc_inforom-warning-v100", "460.32.03", "11.2", ["Tesla V100-SXM2..."] * 8, 32510),
        ("gb10_not-supported_arctictraining-345", "580.126.09", "13.0", ["NVIDIA GB10"], None),
        ("linux-x86_64_nvidia-geforce-rtx-2080-super_610.57.04", "610.57.04", "13.3",
         ["NVIDIA GeForce RTX 2080 ..."], 8192),
        ("linux-x86_64_nvidia-h100-80gb-hbm3_590.48.01", "590.48.01", "13.1",
         ["NVIDIA H100 80GB HBM3"], 81559),
        ("linux-x86_64_nvidia-h200-mig_590.48.01", "590.48.01", "13.1", ["NVIDIA H200"], 143771),
        ("stas00_debug_33", "550.90.12", "12.4", ["NVIDIA A100 80GB PCIe"], 81920),
        ("stelline_asus-esc8000a-e12_10", "575.51.03", "12.9",
         ["NVIDIA RTX 6000 Ada Gene..."] * 4, 49140),
        ("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86", "591.86", "13.1",
         ["NVIDIA GeForce RTX 2080 ..."], 8192),
    ],
)  # fmt: skip
def test_what_planning_needs(file, driver, cuda, names, memory):
    read = _read(file)
    assert (read.driver_version, read.cuda_version) == (driver, cuda)
    assert [gpu.name for gpu in read.gpus] == names
    assert {gpu.memory_total_mib for gpu in read.gpus} == {memory}
    first = 4 if file.startswith("a100-err") else 0
    assert [gpu.index for gpu in read.gpus] == list(range(first, first + len(names)))


def test_a_dead_gpu_in_a_fragment():
    well, dead = _read("a100-err-gpu5_lambda").gpus
    assert well == GpuRecord(
        index=4,
        name="NVIDIA A100-SXM...",
        memory_total_mib=81920,
        memory_used_mib=0,
        pci_address="0000:8c:00.0",
        persistence_mode=True,
        compute_mode="Default",
        ecc_mode=True,
        ecc_uncorrected=0,
        mig_mode=False,
        power_limit_w=400.0,
        temperature_c=34,
        utilization_percent=0,
    )
    assert (dead.index, dead.pci_address, dead.ecc_uncorrected) == (5, "0000:91:00.0", None)
    assert len(dead.unreadable) == 6
    assert "name: ERR!" in dead.unreadable


def test_special_cells():
    (gb10,) = _read("gb10_not-supported_arctictraining-345").gpus
    assert gb10 == GpuRecord(
        index=0,
        name="NVIDIA GB10",
        pci_address="000f:01:00.0",
        driver_version="580.126.09",
        persistence_mode=True,
        compute_mode="Default",
        temperature_c=36,
        utilization_percent=0,
    )
    ada = _read("stelline_asus-esc8000a-e12_10").gpus[2]
    assert (ada.ecc_mode, ada.ecc_uncorrected, ada.pci_address) == (False, None, "0000:c1:00.0")
    (windows,) = _read("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86").gpus
    assert windows.persistence_mode is None
    warned = _read("azhpc_inforom-warning-v100")
    assert warned.messages == ("WARNING: infoROM is corrupted at gpu 0008:00:00.0",)
    assert warned.gpus[7].pci_address == "0008:00:00.0"


def test_mig_devices():
    (gpu,) = _read("linux-x86_64_nvidia-h200-mig_590.48.01").gpus
    assert (gpu.mig_mode, gpu.ecc_mode, gpu.utilization_percent) == (True, True, None)
    assert gpu.mig_devices == (
        MigDevice(0, memory_total_mib=71424, gpu_instance_id=2, compute_instance_id=0),
        MigDevice(1, memory_total_mib=71424, gpu_instance_id=2, compute_instance_id=1),
        MigDevice(2, memory_total_mib=33280, gpu_instance_id=3, compute_instance_id=0),
        MigDevice(3, memory_total_mib=16384, gpu_instance_id=9, compute_instance_id=0),
        MigDevice(4, memory_total_mib=16384, gpu_instance_id=10, compute_instance_id=0),
    )


def test_processes():
    read = _read("linux-x86_64_nvidia-geforce-rtx-4080-super_595.71.05")
    assert [(it.pid, it.used_memory_mib) for it in read.processes] == [
        (2165, 25),
        (2496, 200),
        (2620, 4),
        (2954, 120),
        (3527, 3),
    ]
    windows = _read("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86").processes
    assert len(windows) == 10
    assert windows[1] == Process(
        gpu_pci_address="0000:0c:00.0",
        pid=4680,
        name="...e Experience\\NVIDIA Share.exe",
        gpu_index=0,
    )


# As drivers before 450 print it: two lines a GPU, processes without instances.
OLD = """
| NVIDIA-SMI 418.87.00    Driver Version: 418.87.00    CUDA Version: 10.1     |
|   0  Tesla V100-SXM2...  On   | 00000000:06:00.0 Off |                    2 |
| N/A   41C    P0    58W / 300W |   1234MiB / 16130MiB |     37%   E. Process |
+-------------------------------+----------------------+----------------------+
|   1  GeForce 840M       WDDM  | 0000:03:00.0     Off |                  N/A |
| N/A   37C    P8    N/A /  N/A |     52MiB /  2048MiB |      0%      Default |
+-------------------------------+----------------------+----------------------+
|   2  Tesla V100-SXM2...  On   | 00000000:08:00.0 Off |                    0 |
| N/A   41C    P0 Unknown Error | Unknown Error        | Unknown Error        |
+-----------------------------------------------------------------------------+
| Processes:                                                       GPU Memory |
|  GPU       PID   Type   Process name                             Usage      |
|=============================================================================|
|    0     31337      C   python3 train.py                            1223MiB |
+-----------------------------------------------------------------------------+
"""


def test_the_old_layout():
    read = parse_smi_table(OLD)
    v100, mobile, dead = read.gpus
    assert (v100.ecc_uncorrected, v100.compute_mode) == (2, "Exclusive_Process")
    assert (v100.memory_used_mib, v100.memory_total_mib, v100.mig_mode) == (1234, 16130, None)
    assert (mobile.pci_address, mobile.power_limit_w) == ("0000:03:00.0", None)
    assert (mobile.memory_total_mib, mobile.temperature_c) == (2048, 37)
    assert (dead.memory_total_mib, dead.compute_mode) == (None, None)
    assert dead.unreadable == ("memory: Unknown Error", "utilization: Unknown Error")
    assert read.processes == (
        Process(None, "0000:06:00.0", 31337, "python3 train.py", 1223, gpu_index=0),
    )


def test_of_repeated_tables_the_last_counts():
    once = text("smi-table/linux-x86_64_nvidia-h100-80gb-hbm3_590.48.01.txt")
    read = parse_smi_table(once + once.replace("41C", "66C"))
    assert [gpu.temperature_c for gpu in read.gpus] == [66]
    rows = [line for line in once.split("\n") if "H100" in line]
    with pytest.raises(OutputError, match="twice"):
        parse_smi_table("\n".join(rows * 2))
