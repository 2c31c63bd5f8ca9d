from itertools import combinations

import pytest

from roles.hardware.outputs.record import GpuRecord
from roles.hardware.outputs.rocm_smi import parse_rocm_smi
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.host_outputs import output

MI300A = "Aqua Vanjaram [Instinct MI300A]"
MI100 = "Arcturus GL-XL [Instinct MI100]"


@pytest.mark.parametrize(
    ("file", "gpus"),
    [
        (
            "concise-strix-halo.txt",
            [
                GpuRecord(
                    index=0,
                    pci_device_id="1002:1586",
                    temperature_c=39,
                    utilization_percent=0,
                )
            ],
        ),
        (
            "rocm_smi_lib_changelog_1_rocm-smi.txt",
            [
                GpuRecord(
                    index=0,
                    pci_device_id="1002:73bf",
                    temperature_c=43,
                    power_limit_w=150,
                    utilization_percent=0,
                ),
                GpuRecord(
                    index=1,
                    pci_device_id="1002:73a3",
                    temperature_c=34,
                    power_limit_w=213,
                    utilization_percent=0,
                ),
            ],
        ),
        (
            # 21458059264 and 27856896 bytes.
            "rx7900xt-csv_marimo-9237.txt",
            [
                GpuRecord(
                    index=0,
                    name="Radeon RX 7900 XT",
                    memory_total_mib=20464,
                    memory_used_mib=27,
                    architecture="gfx1100",
                )
            ],
        ),
        (
            "telegraf_vega-10-xt.json",
            [
                GpuRecord(
                    index=0,
                    memory_total_mib=16368,
                    memory_used_mib=17,
                    uuid="0x2150e7d042a1124",
                    pci_address="0000:04:00.0",
                    pci_device_id="1002:6861",
                    power_limit_w=170,
                    numa_node=0,
                )
            ],
        ),
        (
            "rocm_smi_lib_changelog_11_-showbus.txt",
            [GpuRecord(index=i, pci_address=f"0000:01:00.{i}") for i in range(4)],
        ),
        (
            "rocm_smi_lib_changelog_4_-i.txt",
            [GpuRecord(index=i, name=MI300A, pci_device_id="1002:74a0") for i in range(4)],
        ),
        (
            "rocm_smi_lib_changelog_5_-showproduct.txt",
            [GpuRecord(index=i, name=MI300A, architecture="gfx942") for i in range(4)],
        ),
        (
            "rocm_smi_lib_changelog_2_-showhw.txt",
            [
                GpuRecord(index=i, pci_address=f"000{i // 3}:01:00.0", pci_device_id="1002:74a0")
                for i in range(12)
            ],
        ),
        (
            "rocm_smi_lib_changelog_10_-opt-rocm-bin-setextremum-max-sclk-210.txt",
            [GpuRecord(index=i) for i in range(4)],
        ),
        (
            "showtoponuma-8gpu_legacy-rocm-4740.txt",
            [GpuRecord(index=i, numa_node=i // 4) for i in range(8)],
        ),
    ],
)
def test_gpus(file: str, gpus: list[GpuRecord]):
    assert parse_rocm_smi(output(f"rocm-smi/{file}")).gpus == tuple(gpus)


@pytest.mark.parametrize(
    ("file", "addresses", "numa_nodes", "uuid"),
    [
        (
            "telegraf_mi100_rocm571.json",
            ["1e", "22", "3f", "43", "46", "49"],
            [0, 0, 0, 0, 0, 0],
            None,
        ),
        (
            "telegraf_mi100_rocm602.json",
            ["83", "a3", "c3", "e3"],
            [1, 1, 1, 1],
            "0x79ccd55167a2124a",
        ),
    ],
)
def test_whole_dumps(file: str, addresses: list[str], numa_nodes: list[int], uuid: str | None):
    report = parse_rocm_smi(output(f"rocm-smi/{file}"))
    assert [gpu.pci_address for gpu in report.gpus] == [f"0000:{bus}:00.0" for bus in addresses]
    assert [gpu.numa_node for gpu in report.gpus] == numa_nodes
    assert {(gpu.name, gpu.memory_total_mib) for gpu in report.gpus} == {(MI100, 32752)}
    assert report.gpus[0].uuid == uuid
    pairs = combinations(range(len(addresses)), 2)
    assert report.links == tuple((i, j, "PCIE") for i, j in pairs)


@pytest.mark.parametrize(
    ("file", "numa_nodes"),
    [
        ("showtopo_mi100_vllm-7374.txt", [0, 0, 0, 0]),
        ("showtopo_mi210_vllm-10855.txt", [1]),
        ("showtopo_mi250x_vllm-11232.txt", [0, 0, 0, 0, 1, 1, 1, 1]),
        ("showtopo_mi250x_vllm-12572.txt", [3, 3, 1, 1, 0, 0, 2, 2]),
        ("showtopo_mi250x_vllm-19367.txt", [3, 3, 2, 2, 7, 7, 6, 6]),
        ("showtopo_mi300a_vllm-17875.txt", [0, 1, 2, 3]),
        ("showtopo_mi300x_vllm-16474.txt", [0, 0, 0, 0, 1, 1, 1, 1]),
        ("showtopo_radeon-graphics-_vllm-20069.txt", [0]),
        ("showtopo_radeon-rx-7900-xtx-_vllm-19052.txt", [0]),
        ("showtopotype_amd-instinct-mi300a_sglang-5386.txt", [None, None]),
        ("showtopotype_amd-radeon-rx-6800-xt_sglang-3200.txt", [None]),
    ],
)
def test_topologies(file: str, numa_nodes: list[int | None]):
    report = parse_rocm_smi(output(f"rocm-smi/{file}"))
    assert [(gpu.index, gpu.numa_node) for gpu in report.gpus] == list(enumerate(numa_nodes))
    # In all of these machines every pair of GPUs is linked by XGMI.
    pairs = combinations(range(len(numa_nodes)), 2)
    assert report.links == tuple((i, j, "XGMI") for i, j in pairs)


def test_weights_and_hops():
    report = parse_rocm_smi(output("rocm-smi/showtopo_mi250x_vllm-11232.txt"))
    weights = {(i, j): weight for i, j, weight in report.weights}
    assert [weights[0, j] for j in range(1, 8)] == [15, 15, 30, 30, 30, 15, 30]
    assert (weights[1, 7], weights[3, 5], weights[6, 7]) == (45, 45, 15)
    assert {hops for _, _, hops in report.hops} == {1}


OLD_TABLE = """\
========================ROCm System Management Interface========================
================================================================================
GPU  Temp   AvgPwr  SCLK    MCLK    Fan     Perf  PwrCap  VRAM%  GPU%
0    31.0c  N/A     852Mhz  167Mhz  28.63%  auto  220.0W   0%   97%
1    N/A    N/A     N/A     N/A     0%      N/A   N/A      N/A  N/A
================================================================================
==============================End of ROCm SMI Log ==============================
"""
NAMED_TABLE = """\
========================== ROCm System Management Interface ==========================
==================================== Concise Info ====================================
Device  [Model : Revision]    Temp        Power     Partitions      SCLK    MCLK    Fan
        Name (20 chars)       (Junction)  (Socket)  (Mem, Compute)
======================================================================================
0       [0x74a1 : 0x00]       35.0°C      133.0W    NPS1, SPX       131Mhz  900Mhz  0%
        AMD Instinct MI300X
1       [0x74a1 : 0x00]       38.0°C      137.0W    NPS1, SPX       131Mhz  900Mhz  0%
        AMD Instinct MI300X
======================================================================================
"""
MEMORY = """\
============================ ROCm System Management Interface ============================
GPU[0]\t\t: VRAM Total Memory (B): 103079215104
GPU[0]\t\t: VRAM Total Used Memory (B): 1048576
GPU[1]\t\t: vram Total Memory (B): 17163091968
"""


def test_tables_of_older_versions():
    old, lost = parse_rocm_smi(OLD_TABLE).gpus
    assert (old.temperature_c, old.power_limit_w, old.utilization_percent) == (31, 220, 97)
    assert lost == GpuRecord(index=1)
    named = parse_rocm_smi(NAMED_TABLE).gpus
    assert [(gpu.index, gpu.name) for gpu in named] == [
        (0, "AMD Instinct MI300X"),
        (1, "AMD Instinct MI300X"),
    ]


def test_memory():
    first, second = parse_rocm_smi(MEMORY).gpus
    assert (first.memory_total_mib, first.memory_used_mib) == (98304, 1)
    assert (second.memory_total_mib, second.memory_used_mib) == (16368, None)


UNTITLED_MATRIX = """\
============================ ROCm System Management Interface ============================
================================ Weight between two GPUs =================================
get_link_weight_topology, Not supported on the given system
ERROR: GPU[1]   : Cannot read Link Weight: Not supported on this machine

       GPU0         GPU1         GPU2
GPU0   0            XGMI         XGMI
GPU1   XGMI         0            XXXX
GPU2   XGMI         XXXX         0

======================================= Numa Nodes =======================================
GPU[0]          : (Topology) Numa Node: 0
"""


def test_link_types_below_another_title():
    report = parse_rocm_smi(UNTITLED_MATRIX)
    assert [(gpu.index, gpu.numa_node) for gpu in report.gpus] == [(0, 0), (1, None), (2, None)]
    assert report.links == ((0, 1, "XGMI"), (0, 2, "XGMI"))
    assert report.weights == ()


def test_an_output_may_name_no_gpu():
    version = "ROCM-SMI version: 2.0.0+8e78352\nROCM-SMI-LIB version: 6.0.0"
    assert parse_rocm_smi(version).gpus == ()
    text = MEMORY.splitlines()[0] + "\nWARNING: No AMD GPUs specified\n"
    assert parse_rocm_smi(text).gpus == ()


def test_a_cut_matrix_keeps_its_whole_rows():
    text = output("rocm-smi/showtopo_mi100_vllm-7374.txt")
    cut = text[: text.index("GPU3   XGMI") + len("GPU3   XGM")]
    assert len(parse_rocm_smi(cut).links) == 6


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("GPU2   XGMI ", "GPU2   ", "3 values for 4 GPUs"),
        ("GPU2   XGMI", "GPU2   PCIE", "GPU 2 to 0 is PCIE, but back XGMI"),
        ("GPU2   XGMI", "GPU2   XG?I", "is no type of link"),
        ("GPU[1]\t\t: (Topology) Numa Node: 0", "GPU[1]\t\t: (Topology) Numa Node: O", "'O' is no"),
        (
            "GPU[1]\t\t: (Topology) Numa Node: 0",
            "GPU[0]\t\t: (Topology) Numa Node: 1",
            "two values",
        ),
    ],
)
def test_contradictions_are_errors(before: str, after: str, problem: str):
    text = output("rocm-smi/showtopo_mi100_vllm-7374.txt")
    assert before in text
    with pytest.raises(OutputError, match=problem):
        parse_rocm_smi(text.replace(before, after, 1))
