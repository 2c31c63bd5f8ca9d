"""What stops a host, and what a person should know of its GPUs: faults and warnings of a report."""

import pytest

from tests.unit.hardware.hosts import (
    AMD_STATIC,
    FABRIC_MANAGER,
    HEADER,
    NO_DRIVER,
    SWITCHES,
    data,
    kinds,
    process,
    query,
    row,
)

ON_BUS = "0000:0c:00.0 0x120000 0x1002 0x74a1 numa=0 driver= width=16/16"
GROUPS = "User is missing the following required groups: render, video. Please add user to these"


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        # What ROCm 7.0 says to a login outside of the groups, and amdsmi without its module.
        (
            {
                "modules": "amdgpu",
                "amd_smi": f"Traceback (most recent call last):\nRuntimeError: WARNING: {GROUPS}",
                "amd_smi_status": "1",
            },
            "driver-fails",
            "usermod -aG render,video USER",
        ),
        (
            {"modules": "", "amd_smi": "ERROR:root:Unable to detect", "amd_smi_status": "255"},
            "driver-not-loaded",
            "modprobe amdgpu",
        ),
        (
            {"modules": "amdgpu", "amd_smi": "Segmentation fault", "amd_smi_status": "139"},
            "driver-fails",
            "status 139): 'Segmentation fault'",
        ),
        ({"modules": "amdgpu", "amd_smi_status": "hung"}, "driver-hangs", "reboot the host"),
        # Of a traceback the last line tells; older hosts have the older tool.
        (
            {
                "modules": "amdgpu",
                "amd_smi": "Traceback (most recent call last):\nOSError: libamd_smi.so",
                "amd_smi_status": "1",
            },
            "driver-fails",
            "amd-smi lists no GPU (status 1): 'OSError: libamd_smi.so'",
        ),
        (
            {"modules": "amdgpu", "rocm_smi": "no", "rocm_smi_status": "2"},
            "driver-fails",
            "rocm-smi lists no GPU (status 2)",
        ),
        (
            {"modules": "amdgpu", "rocm_smi_status": "124", "rocm_smi": ""},
            "driver-hangs",
            "rocm-smi",
        ),
    ],
)
def test_an_amd_tool_that_lists_no_gpu(parts: dict[str, str], kind: str, message: str):
    report = process(**NO_DRIVER, lspci="", pci=ON_BUS, **{"amd_smi": "", **parts})
    (fault,) = report.faults
    assert (fault.kind, fault.severity) == (kind, "stop")
    assert message in str(fault)


def test_graphics_are_known_by_the_bus_where_the_tool_does_not_tell_the_id():
    """rocm-smi tells names, memory and addresses."""
    rocm = (
        "GPU[0]\t\t: Card Series: \t\tAMD Radeon Graphics\nGPU[0]\t\t: PCI Bus: 0000:7A:00.0\n"
        "GPU[0]\t\t: VRAM Total Memory (B): 536870912"
    )
    graphics = "0000:7a:00.0 0x030000 0x1002 0x164e numa=0 driver=amdgpu width=16/16"
    report = process(**NO_DRIVER, modules="amdgpu", lspci="", pci=graphics, rocm_smi=rocm)
    assert report.hardware is None


def test_amds_tool_does_not_speak_for_nvidias_cards():
    """A processor whose graphics were given 8 GiB."""
    bus = ON_BUS.replace("0x1002 0x74a1", "0x10de 0x26b9")
    large = GRAPHICS.replace("512", "8192")
    report = process(**NO_DRIVER, modules="amdgpu", lspci="", pci=bus, amd_smi=large)
    assert report.hardware is None and report.presumed is not None
    assert [gpu.name for gpu in report.presumed.gpus] == ["NVIDIA L40S"]


def test_an_accelerator_of_amd_that_the_table_lacks_is_on_the_bus():
    report = process(**NO_DRIVER, modules="", lspci="", pci=ON_BUS.replace("74a1", "74b5"))
    assert kinds(report) == ["driver-missing"]


def test_blackwell_with_the_proprietary_modules_is_told_of_the_open_ones():
    bus = ON_BUS.replace("0x1002 0x74a1", "0x10de 0x2b85")
    silent = {"query": "No devices were found", "query_status": "6", "lspci": "", "pci": bus}
    (fault,) = process(**silent, nvidia_license="NVIDIA").faults
    assert fault.kind == "driver-kind" and "needs the open ones" in str(fault)
    assert kinds(process(**silent)) == ["no-devices"]
    # Installed they are, and a reboot has to load them.
    loaded = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23"
    assert kinds(process(**silent, nvidia_loaded_kind=loaded)) == ["driver-kind"]


def test_an_nvidia_host_without_its_driver_is_told_of_that_one():
    """Whatever amd-smi says of the graphics of its processor."""
    bus = ON_BUS.replace("0x1002 0x74a1", "0x10de 0x2684")
    for output in (
        {"amd_smi": "[]"},
        {"amd_smi": GRAPHICS},
        {"amd_smi": "x", "amd_smi_status": "1"},
    ):
        report = process(**NO_DRIVER, modules="amdgpu", lspci="", pci=bus, **output)
        assert [str(fault) for fault in report.faults if "the NVIDIA driver is not" in str(fault)]


def test_a_processors_graphics_beside_amds_cards_are_no_gpu():
    """As amd-smi lists a Ryzen's after two cards."""
    static = f"{AMD_STATIC.removesuffix(']')}, {GRAPHICS[1:]}"
    report = process(**NO_DRIVER, modules="amdgpu", lspci="", amd_smi=static)
    assert report.hardware is not None and report.hardware.driver_version is None
    assert [gpu.index for gpu in report.hardware.gpus] == [0, 1]
    assert report.faults == ()
    # The kernel's own amdgpu may know nothing but them: the cards are as the bus shows them.
    alone = process(**NO_DRIVER, modules="amdgpu", lspci="", pci=ON_BUS, amd_smi=GRAPHICS)
    assert alone.hardware is None and alone.presumed is not None
    assert [gpu.name for gpu in alone.presumed.gpus] == ["AMD Instinct MI300X"]
    assert kinds(alone) == ["driver-missing"]


def test_what_amd_smi_says_before_its_json_is_passed_over():
    """ROCm 6.4 warns so, 7.1 and newer name the devices; both go on."""
    for output in (
        f"WARNING: {GROUPS}",
        "Permission needed to access required GPU device node(s):",
    ):
        report = process(**NO_DRIVER, modules="amdgpu", lspci="", amd_smi=f"{output}\n{AMD_STATIC}")
        assert report.hardware is not None and len(report.hardware.gpus) == 2
        assert report.faults == ()


GRAPHICS = """[
 {"gpu": 2, "asic": {"market_name": "Granite Ridge [Radeon Graphics]", "device_id": "0x13c0"},
  "bus": {"bdf": "0000:7a:00.0"}, "vram": {"size": {"value": 512, "unit": "MB"}},
  "driver": {"name": "amdgpu", "version": "AMDSMI_STATUS_FILE_ERROR - Problem accessing a file"}}
]"""
HGX = [row(i, "NVIDIA H100 80GB HBM3", total="81559", capability="9.0") for i in range(8)]


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        (NO_DRIVER, "driver-missing", "the NVIDIA driver is not installed"),
        (NO_DRIVER | {"lspci": "00:00.0 Host bridge [0600]: X [1022:14a4]"}, "no-gpu", "its GPUs"),
        (NO_DRIVER | {"lspci": "", "lspci_status": "missing"}, "driver-missing", "pciutils"),
        ({"query": "", "query_status": "124"}, "driver-hangs", "gave no answer in 30 s"),
        ({"query": "", "query_status": "137"}, "driver-hangs", "reboot the host"),
        ({"query": "", "query_status": "hung"}, "driver-hangs", "reboot the host"),
        (
            {
                "query": "Failed to initialize NVML: Driver/library version mismatch",
                "query_status": "18",
            },
            "driver-library-mismatch",
            "reboot the host",
        ),
        (
            {"query": data("smi-error/couldnt-communicate.txt"), "query_status": "9"},
            "driver-not-loaded",
            "install",
        ),
        ({"query": "Segmentation fault", "query_status": "139"}, "driver-fails", "status 139"),
        ({"query": "", "query_status": "255"}, "driver-fails", "status 255"),
        ({"query": "No devices were found", "query_status": "6"}, "no-devices", ""),
        ({"query": query(row(0), row(1, recovery="Reset"))}, "gpu-recovery", "--gpu-reset -i 1"),
        ({"query": query(row(0), row(1, total="[GPU is lost]"))}, "gpu-lost", "GPU 1 "),
        ({"query": query(row(0, total="[GPU requires reset]"))}, "gpu-requires-reset", "GPU 0 "),
        ({"query": query(row(0, total="[Unknown Error]"))}, "gpu-unreadable", "GPU 0 "),
        ({"query": query(row(0, failure="Yes"))}, "row-remap-failed", "exchanged"),
        ({"query": query(row(0), row(1, mig="Enabled"))}, "mig-without-slices", "-i 1 -mig 0"),
        ({"query": query(row(0, fabric="In Progress"))}, "fabric-manager-down", "is absent"),
        ({"modules": "nouveau", **NO_DRIVER}, "nouveau-loaded", "blacklist"),
        ({"query": query(*HGX), "pci": SWITCHES}, "fabric-manager-down", "is absent"),
        (
            {
                "query": query(*HGX),
                "pci": SWITCHES,
                "fabric_manager": FABRIC_MANAGER.format("failed", "580.95.05"),
            },
            "fabric-manager-down",
            "is failed",
        ),
        (
            {
                "query": query(*HGX),
                "pci": SWITCHES,
                "fabric_manager": FABRIC_MANAGER.format("active", "580.65.06"),
            },
            "fabric-manager-version",
            "580.65.06",
        ),
        # NVSwitches of HGX B200 and of a rack are not on the host's own bus.
        (
            {
                "query": query(row(0, fabric="In Progress")),
                "fabric_manager": FABRIC_MANAGER.format("active", "580.95.05"),
            },
            "fabric-not-ready",
            "wait for their NVLink fabric (in progress)",
        ),
        (
            {"query": query(row(0, fabric="Not Started"))},
            "fabric-manager-down",
            "wait for their NVLink fabric (not started), and nvidia-fabricmanager is absent",
        ),
        (
            {
                "query": f"{HEADER}, fabric.status\n"
                f"{row(0, fabric='Completed')}, Insufficient Resources",
            },
            "fabric-failed",
            "could not join its NVLink fabric: Insufficient Resources",
        ),
    ],
)
def test_what_stops_a_host_is_named(parts: dict[str, str], kind: str, message: str):
    report = process(**parts)
    fault = next(fault for fault in report.faults if fault.kind == kind)
    assert fault.severity == "stop" and message in str(fault)
    assert report.blocking_faults


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ({"nvidia_installed": "580.105.08"}, "driver-not-reloaded", "580.105.08 is installed"),
        ({"query": query(row(0), row(1, persistence="Disabled"))}, "persistence-off", "on GPU 1"),
        ({"query": query(row(0, pending="Yes"))}, "row-remap-pending", "--gpu-reset -i 0"),
        ({"query": query(row(0, width="4"), row(1))}, "slow-slot", "PCIe 4 x4"),
        ({"query": query(row(0, gen="3"), row(1))}, "slow-slot", "PCIe 3 x16"),
        (
            {"kernel_log": "NVRM: Xid (PCI:0000:01:00): 79, pid=77, GPU has fallen off the bus."},
            "xid-79",
            "0000:01:00",
        ),
        (
            {
                "kernel_log": "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from "
                "0x0 (None) to 0x2 (Node Reboot Required)"
            },
            "xid-154",
            "(reboot); it says 'GPU recovery action changed",
        ),
        (
            {"kernel_log": data("dmesg/rminitadapter-failed-5090_open-gpu-862.txt")},
            "init-failed",
            "GPU at 0000:01:00.0: NVRM: GPU 0000:01:00.0: rm_init_adapter failed",
        ),
        (
            {
                "apps": "gpu_uuid, pid, process_name, used_gpu_memory [MiB]\n"
                "GPU-00000000-0000-0000-0000-000000000000, 4242, python3, 20000"
            },
            "foreign-process",
            "process 4242 (python3) uses GPU 0 with 20000 MiB",
        ),
        ({"topo": "GPU0 GPU1\nGPU0 X"}, "unreadable-output", "topo"),
    ],
)
def test_what_a_person_should_know_is_a_warning(parts: dict[str, str], kind: str, message: str):
    report = process(**parts)
    fault = next(fault for fault in report.faults if fault.kind == kind)
    assert fault.severity == "warning" and message in str(fault)
    assert report.blocking_faults == ()


def test_a_gpu_that_does_not_answer_is_absent_and_the_others_go_by_their_uuids():
    lost = (
        "Unable to determine the device handle for GPU0: 0000:01:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU"
    )
    report = process(query=f"{lost}\n{query(row(1))}", query_status="15")
    (fault,) = report.faults
    assert (fault.kind, fault.severity, fault.gpu, fault.absent) == ("gpu-lost", "warning", 0, True)
    assert "reboot the host" in fault.remedy
    assert report.hardware is not None and [gpu.index for gpu in report.hardware.gpus] == [1]
    assert report.devices == {1: "GPU-00000001-0000-0000-0000-000000000000"}


def test_what_only_root_may_see_is_no_fault():
    header, first = query(row(0)).split("\n")
    report = process(
        query=f"{header}, memory.used [MiB]\n{first}, [Insufficient Permissions]",
    )
    assert report.hardware is not None and report.faults == ()


def test_what_amdgpu_repeats_is_said_once():
    ring = "[ 94.68{}] amdgpu 0000:0c:00.0: amdgpu: ring sdma0 timeout, signaled seq=1"
    report = process(kernel_log="\n".join(ring.format(f"{n:04}") for n in range(9)))
    assert kinds(report) == ["ring-timeout"]


def test_a_replica_of_ours_is_no_foreign_process():
    report = process(
        apps="gpu_uuid, pid, process_name, used_gpu_memory [MiB]\n"
        "GPU-00000000-0000-0000-0000-000000000000, 4242, VLLM::EngineCore, 20000",
        owners="4242 0::/llm.slice/llm-engine.slice/llm-engine@chat-0.service",
    )
    assert report.faults == ()


def test_a_host_with_nvswitches_and_their_manager_is_well():
    manager = FABRIC_MANAGER.format("active", "580.95.05")
    assert process(query=query(*HGX), pci=SWITCHES, fabric_manager=manager).faults == ()
