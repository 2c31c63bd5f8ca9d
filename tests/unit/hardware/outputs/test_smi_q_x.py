import pytest

from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.smi_q_x import parse_smi_q_x
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text


@pytest.mark.parametrize(
    ("file", "driver", "cuda", "names", "memory", "power"),
    [
        ("nvidia-hw_a100", "570.148.08", "12.8", ["NVIDIA A100-SXM4-40GB"], 40960, 400.0),
        ("nvidia-hw_b200", "580.105.08", "13.0", ["NVIDIA B200"] * 8, 183359, 1000.0),
        ("nvidia-hw_gb300", "580.173.02", "13.0", ["NVIDIA GB300"] * 4, 284208, 1400.0),
        ("nvidia-hw_l40s", "595.91.07", "13.2", ["NVIDIA L40S"], 46068, 350.0),
        ("nvidia-hw_t4", "595.91.07", "13.2", ["Tesla T4"], 15360, 70.0),
        ("nvml-mock_qx-gb200-healthy", "580.65.06", "13.0", ["NVIDIA GB200"] * 2, 196608, 1000.0),
        ("telegraf_a100-sxm4-v12", "535.54.03", "12.2", ["NVIDIA A100-SXM4-80GB"], 81920, 500.0),
        ("telegraf_gtx-1070-ti", None, None, ["GeForce GTX 1070 Ti"], 4096, None),
        ("telegraf_gtx-1660-ti", "418.43", "10.1", ["Graphics Device"], 5912, 130.0),
        ("netdata_rtx-pro-6000-driver-580", None, None, ["NVIDIA RTX PRO 6000 Blackwell"], None,
         None),
        ("netdata_rtx-2080-win", "516.59", "11.7", ["NVIDIA GeForce RTX 2080"], 8192, 275.0),
        ("netdata_tesla-p100", "510.47.03", "11.6", ["Tesla P100-PCIE-16GB"], 16384, 250.0),
    ],
)  # fmt: skip
def test_what_planning_needs(file, driver, cuda, names, memory, power):
    read = parse_smi_q_x(text(f"smi-q-x/{file}.xml"))
    assert (read.driver_version, read.cuda_version) == (driver, cuda)
    assert [gpu.name for gpu in read.gpus] == names
    assert {gpu.memory_total_mib for gpu in read.gpus} == {memory}
    assert {gpu.power_limit_w for gpu in read.gpus} == {power}


def test_one_gpu_of_eight():
    gpus = parse_smi_q_x(text("smi-q-x/nvidia-hw_b200.xml")).gpus
    assert [gpu.pci_address for gpu in gpus] == [
        f"0000:{bus}:00.0" for bus in ("8f", "90", "96", "97", "c4", "c5", "cb", "cc")
    ]
    assert gpus[4] == GpuRecord(
        index=4,
        name="NVIDIA B200",
        memory_total_mib=183359,
        memory_used_mib=0,
        memory_free_mib=gpus[4].memory_free_mib,
        memory_reserved_mib=gpus[4].memory_reserved_mib,
        uuid="GPU-00000004-0000-0000-0000-000000000004",
        serial=gpus[4].serial,
        pci_address="0000:c4:00.0",
        pci_device_id="10de:2901",
        driver_version="580.105.08",
        architecture="Blackwell",
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_generation_card=5,
        pcie_width=16,
        pcie_width_max=16,
        persistence_mode=False,
        compute_mode="Default",
        ecc_mode=True,
        ecc_uncorrected=0,
        sram_threshold_exceeded=False,
        channel_repair_pending=False,
        tpc_repair_pending=False,
        remapped_rows_correctable=0,
        remapped_rows_uncorrectable=0,
        remapped_rows_pending=False,
        remapped_rows_failed=False,
        recovery_action="None",
        fabric_state="Completed",
        fabric_status="Success",
        fabric_health="Healthy",
        mig_mode=False,
        power_limit_w=1000.0,
        temperature_c=gpus[4].temperature_c,
        utilization_percent=0,
    )
    domains = parse_smi_q_x(text("smi-q-x/nvidia-hw_gb300.xml")).gpus
    assert domains[3].pci_address == "0019:06:00.0"


def test_faults():
    _, degraded = parse_smi_q_x(text("smi-q-x/nvml-mock_qx-gb200-fabric-degraded.xml")).gpus
    assert (degraded.fabric_state, degraded.fabric_health) == ("Completed", "Unhealthy")
    injected, _ = parse_smi_q_x(text("smi-q-x/nvml-mock_qx-gb200-ecc-injected.xml")).gpus
    assert (injected.ecc_uncorrected, injected.remapped_rows_uncorrectable) == (8, 1)
    assert (injected.remapped_rows_failed, injected.remapped_rows_pending) == (True, False)
    _, lost = parse_smi_q_x(text("smi-q-x/nvml-mock_qx-gb200-lost.xml")).gpus
    assert (lost.index, lost.name, lost.pci_address) == (1, "NVIDIA GB200", "0000:0b:00.0")
    assert (lost.memory_total_mib, lost.ecc_uncorrected, lost.fabric_state) == (None, None, None)
    assert len(lost.unreadable) == 29
    assert lost.unreadable[0] == "fb_memory_usage/total: GPU is lost"
    assert "remapped_rows: GPU is lost" in lost.unreadable


def test_mig_devices_and_an_excerpt_of_four_gpus():
    (gpu,) = parse_smi_q_x(text("smi-q-x/telegraf_a100-sxm4-v12.xml")).gpus
    assert gpu.index is None
    assert (gpu.memory_used_mib, gpu.mig_mode, gpu.reset_required) == (50, True, False)
    assert gpu.mig_devices == tuple(
        MigDevice(index, memory_total_mib=19968, gpu_instance_id=3 + index, compute_instance_id=0)
        for index in range(4)
    )


def test_processes():
    windows = parse_smi_q_x(text("smi-q-x/netdata_rtx-2080-win.xml")).processes
    assert len(windows) == 26
    assert (windows[0].pid, windows[0].used_memory_mib) == (7724, None)
    assert parse_smi_q_x(text("smi-q-x/telegraf_tesla-t4.xml")).processes[1] == Process(
        gpu_uuid="GPU-d37e67a5-91dd-3774-a5cb-99096249601a",
        gpu_pci_address="0000:00:1e.0",
        pid=5762,
        name="python",
        used_memory_mib=1005,
        gpu_index=0,
    )


def test_lines_of_warning_and_a_second_document():
    plain = text("smi-q-x/nvml-mock_qx-gb200-healthy.xml")
    warned = "WARNING: infoROM is corrupted at gpu 0000:0A:00.0\n" + plain
    assert parse_smi_q_x(warned).messages == ("WARNING: infoROM is corrupted at gpu 0000:0A:00.0",)
    lost = text("smi-q-x/nvml-mock_qx-gb200-lost.xml")
    twice = parse_smi_q_x(plain + "\n" + lost).gpus
    assert twice[1].unreadable == parse_smi_q_x(lost).gpus[1].unreadable
    with pytest.raises(OutputError, match="different GPUs"):
        parse_smi_q_x(plain + "\n" + text("smi-q-x/nvidia-hw_t4.xml"))


BOMB = """<?xml version="1.0"?>
<!DOCTYPE nvidia_smi_log [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<nvidia_smi_log><gpu id="00000000:01:00.0"><product_name>&b;</product_name></gpu></nvidia_smi_log>
"""


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (BOMB, "defines nothing of its own"),
        ("<nvidia_smi_log>\n<gpu></gpu>\n", "line 2.*cut"),
        ("<nvidia_smi_log>\n<gpu><a></gpu>\n</nvidia_smi_log>\n", "line 2.*broken"),
        ("<nvidia_smi_log>\n&x;\n</nvidia_smi_log>\n", "line 2.*broken"),
        ("<nvidia_smi_log>\n</nvidia_smi_log>\n", "no GPU"),
        ("<?xml version='1.0'?>\n<html></html>\n", "line 2.*expected the XML"),
    ],
)
def test_xml_that_is_cut_broken_or_foreign_is_refused(output, problem):
    with pytest.raises(OutputError, match=problem):
        parse_smi_q_x(output)


def test_deep_nesting_is_read_or_refused():
    deep = "<a>" * 20000 + "</a>" * 20000
    log = f'<nvidia_smi_log><gpu id="00000000:01:00.0">{deep}</gpu></nvidia_smi_log>'
    assert len(parse_smi_q_x(log).gpus) == 1
