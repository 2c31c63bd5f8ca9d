from itertools import combinations

import pytest

from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.outputs.record import GpuRecord
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.host_outputs import output

BUSES = {
    "amdsmi_changelog_topology.txt": ["0c", "22", "38", "5c", "9f", "af", "bf", "df"],
    "rocm-blogs_readme_11_topology.txt": ["05", "26", "46", "65", "85", "a6", "c6", "e5"],
    "rocm-blogs_readme_12_xgmi.txt": ["05", "26", "46", "65", "85", "a6", "c6", "e5"],
}


def test_a_gpu_without_a_name_in_the_summary_has_none():
    report = parse_amd_smi(
        SUMMARY.replace("0000:0c:00.0 AMD Radeon RX 7900 XTX", f"{'0000:0c:00.0':32} N/A")
    )
    assert [gpu.name for gpu in report.gpus] == ["AMD Radeon RX 7900 XTX", None]


@pytest.mark.parametrize(
    ("file", "gpus"),
    [
        ("rocm-blogs_readme_3_metric.txt", [GpuRecord(index=0, utilization_percent=100)]),
        (
            "amdsmi_changelog_3_metric-usage.txt",
            [GpuRecord(index=i, utilization_percent=0) for i in range(2)],
        ),
        (
            "list-rx-7900-xtx.txt",
            [
                GpuRecord(
                    index=0,
                    pci_address="0000:01:00.0",
                    uuid="7100744c-0000-1000-8014-cfa91e2d70bd",
                )
            ],
        ),
        (
            "list-strix-halo.txt",
            [
                GpuRecord(
                    index=0,
                    pci_address="0000:c5:00.0",
                    uuid="00ff1586-0000-1000-8000-000000000000",
                )
            ],
        ),
        (
            "rocm-blogs_readme_2_static.txt",
            [
                GpuRecord(
                    index=0,
                    name="MI300X-O",
                    pci_address="0000:05:00.0",
                    pci_device_id="1002:74a1",
                )
            ],
        ),
        (
            "readme.md_amd-smi-static.txt",
            [
                GpuRecord(
                    index=i,
                    name="MI300A",
                    memory_total_mib=64289,
                    pci_address=f"000{i}:01:00.0",
                    pci_device_id="1002:74a0",
                    driver_version="6.9.0-rc5+",
                    power_limit_w=550,
                    numa_node=i,
                )
                for i in range(4)
            ],
        ),
        *[
            (file, [GpuRecord(index=i) for i in range(count)])
            for file, count in (
                ("amdsmi_changelog_1_metric-throttle.txt", 2),
                ("amdsmi_changelog_2_monitor-violation.txt", 16),
                ("device-metrics-exporter_metricsmap_5_ras-cper.txt", 1),
                ("device-metrics-exporter_metricsmap_6_process-g-0.txt", 0),
                ("partition-4gpu-na_legacy-rocm-4477.txt", 4),
                ("rocm-blogs_readme_5_process.txt", 2),
                ("rocm-blogs_readme_6_process-csv.txt", 8),
                ("rocm-blogs_readme_7_process-csv-column-t-s.txt", 8),
                ("rocm-blogs_readme_8_static-json-jq-.-0-vram.json", 0),
            )
        ],
        *[
            (
                file,
                [GpuRecord(index=i, pci_address=f"0000:{bus}:00.0") for i, bus in enumerate(buses)],
            )
            for file, buses in BUSES.items()
        ],
    ],
)
def test_gpus(file: str, gpus: list[GpuRecord]):
    assert parse_amd_smi(output(f"amd-smi/{file}")).gpus == tuple(gpus)


def test_static_as_json():
    file = "amd-smi/rocm-device-metrics-exporter_mi210-static-json.json"
    (gpu,) = parse_amd_smi(output(file)).gpus
    assert (gpu.index, gpu.name, gpu.memory_total_mib) == (0, "AMD Instinct MI210", 65520)
    assert (gpu.pci_device_id, gpu.pci_address) == ("1002:740f", None)
    assert (gpu.numa_node, gpu.power_limit_w, gpu.serial) == (1, 300, None)


def test_topology_tables():
    report = parse_amd_smi(output("amd-smi/amdsmi_changelog_topology.txt"))
    pairs = list(combinations(range(8), 2))
    assert report.links == tuple((i, j, "XGMI") for i, j in pairs)
    assert report.weights == tuple((i, j, 15) for i, j in pairs)
    assert report.hops == tuple((i, j, 1) for i, j in pairs)


def test_a_topology_that_is_cut_says_less():
    report = parse_amd_smi(output("amd-smi/rocm-blogs_readme_11_topology.txt"))
    assert report.links == ()
    assert len(report.weights) == 28


def test_topology_as_json_with_parts_left_out():
    report = parse_amd_smi(output("amd-smi/amdsmi_changelog_topology-json-2.txt"))
    addresses = [(gpu.index, gpu.pci_address) for gpu in report.gpus]
    assert addresses == [(0, "0000:01:00.0"), (1, "0001:01:00.0")]
    assert (report.links, report.weights, report.hops) == (
        ((0, 1, "XGMI"),),
        ((0, 1, 15),),
        ((0, 1, 1),),
    )


SUMMARY = """\
+------------------------------------------------------------------------------+
| AMD-SMI 26.2.2+unknown       amdgpu version: Linuxver ROCm version: N/A      |
| Platform: Linux Baremetal                                                    |
|-------------------------------------+----------------------------------------|
| BDF                        GPU-Name | Mem-Uti   Temp   UEC       Power-Usage |
| GPU  HIP-ID  OAM-ID  Partition-Mode | GFX-Uti    Fan               Mem-Usage |
|=====================================+========================================|
| 0000:03:00.0 AMD Radeon RX 7900 XTX | 29 %     93 °C   0           280/327 W |
|   0       0     N/A             N/A | 100 %   51.76            7608/24560 MB |
|-------------------------------------+----------------------------------------|
| 0000:0c:00.0 AMD Radeon RX 7900 XTX | N/A        N/A   0          N/A/1400 W |
|   1       1       7        SPX/NPS1 | N/A        N/A              30/24560 MB |
+-------------------------------------+----------------------------------------+
"""
MONITOR = """\
GPU  POWER  GPU_TEMP  MEM_TEMP  VRAM_USED  VRAM_TOTAL   PCIE_BW
  0  137 W     37 °C     31 °C     285 MB   196300 MB       N/A
  1  136 W     36 °C       N/A     283 MB   196300 MB  12 Mb/s
  2  136 W
"""
METRIC = """\
GPU: 0
    MEM_USAGE:
        TOTAL_VRAM: 196592 MB
        USED_VRAM: 283 MB
        FREE_VRAM: 196309 MB
    LIMIT:
        PPT0:
            SOCKET_POWER_LIMIT: 750 W
"""
LIST_CSV = """\
gpu,gpu_bdf,gpu_uuid,kfd_id,node_id,partition_id
0,0000:0C:00.0,c0ff74a1-0000-1000-80b1-06985c515c91,12345,1,0
1,0000:22:00.0,xxxxxxxx-0000,12346,2,0
"""


def test_the_summary():
    first, second = parse_amd_smi(SUMMARY).gpus
    assert first == GpuRecord(
        index=0,
        name="AMD Radeon RX 7900 XTX",
        memory_total_mib=24560,
        memory_used_mib=7608,
        pci_address="0000:03:00.0",
        power_limit_w=327,
    )
    assert (second.index, second.pci_address) == (1, "0000:0c:00.0")
    assert (second.memory_used_mib, second.power_limit_w) == (30, 1400)


def test_monitor():
    memory = [(gpu.memory_used_mib, gpu.memory_total_mib) for gpu in parse_amd_smi(MONITOR).gpus]
    # The last row is cut.
    assert memory == [(285, 196300), (283, 196300), (None, None)]


def test_monitor_with_the_limit_of_power_and_rounded_memory():
    power = "GPU  POWER  PWR_CAP\n  0  148 W    750 W\n  1  156 W    N/A\n...\n"
    assert [gpu.power_limit_w for gpu in parse_amd_smi(power).gpus] == [750, None]
    memory = "GPU  XCP  POWER      VRAM_USAGE\n  0    0   12 W    0.2/ 25.4 GB\n"
    assert parse_amd_smi(memory).gpus == (GpuRecord(index=0),)


def test_metric():
    (gpu,) = parse_amd_smi(METRIC).gpus
    assert (gpu.memory_total_mib, gpu.memory_used_mib) == (196592, 283)
    assert (gpu.memory_free_mib, gpu.power_limit_w) == (196309, 750)


def test_list_as_csv():
    first, second = parse_amd_smi(LIST_CSV).gpus
    assert first.pci_address == "0000:0c:00.0"
    assert first.uuid == "c0ff74a1-0000-1000-80b1-06985c515c91"
    assert (second.index, second.uuid) == (1, None)


def test_partitions_of_one_gpu_share_its_address():
    text = (
        "LINK TYPE TABLE:\n"
        "             0000:0c:00.0 0000:0c:00.0 0000:22:00.0\n"
        "0000:0c:00.0 SELF         XGMI         PCIE\n"
        "0000:0c:00.0 XGMI         SELF         PCIE\n"
        "0000:22:00.0 PCIE         PCIE         SELF\n"
    )
    report = parse_amd_smi(text)
    assert len(report.gpus) == 3
    assert report.links == ((0, 1, "XGMI"), (0, 2, "PCIE"), (1, 2, "PCIE"))


@pytest.mark.parametrize(
    "text",
    [
        "AMDSMI Tool: 26.2.2 | ROCm version: 7.2.1",
        "CPU: 0\n    SMU:",
        "EVENT LISTENING:\n\nPress q",
    ],
)
def test_an_output_may_name_no_gpu(text: str):
    assert parse_amd_smi(text).gpus == ()


def test_cut_json_keeps_its_whole_lines():
    text = output("amd-smi/rocm-device-metrics-exporter_mi210-static-json.json")
    (gpu,) = parse_amd_smi(text[: text.index('"value": 65520') + len('"value": 65')]).gpus
    assert (gpu.name, gpu.memory_total_mib) == ("AMD Instinct MI210", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (METRIC.replace("196592 MB", "1965?2 MB"), r"line 3: .*'1965\?2 MB' is no memory"),
        (METRIC + METRIC.replace("196592", "65520"), "line 11: .*two values of memory_total_mib"),
        (LIST_CSV + "2,0000:38:00.0\n", "line 4: .*2 values for 6 columns"),
        (LIST_CSV.replace("0000:22:00.0", "0000:zz:00.0"), "line 3: .*no PCI address"),
        ('[{"gpu": 0, "gpu": 1, "vram": {}}]', "a key twice"),
        ('[{"gpu": 0, "bdf": }]', "this is no JSON"),
    ],
)
def test_what_cannot_be_true_is_an_error(text: str, problem: str):
    with pytest.raises(OutputError, match=problem):
        parse_amd_smi(text)
