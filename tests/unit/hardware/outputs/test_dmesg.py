import pytest

from roles.hardware.outputs.dmesg import KernelFault, Sxid, Xid, parse_dmesg
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.host_outputs import output


@pytest.mark.parametrize(
    ("file", "xids"),
    [
        ("duaneya_xid13.txt", [("0000:03:00", 13)] * 60),
        ("fallen-off-bus-no-xid_nvsentinel-155.txt", []),
        ("gcm_xid31_48.txt", [("000d:00:00", 31), ("000d:00:00", 48)]),
        ("gpud_xid13_43_iso_time.txt", [("0000:38:00", 13)] * 16 + [("0000:38:00", 43)]),
        ("rminitadapter-failed-5090_open-gpu-862.txt", []),
        ("stas00_debug_0.txt", [("0000:10:1c", 63)]),
        ("xid13-109-ctime_gpud-46.txt", [("0000:cb:00", 13)] * 3 + [("0000:cb:00", 109)]),
        ("xid13-2017.txt", [("0000:01:00", 13)]),
        ("xid145-b200.txt", [("0000:5f:00", 145)]),
        ("xid38-syslog-trailing-comma.txt", [("0000:01:00", 38)]),
        ("xid43-2017.txt", [("0000:01:00", 43)]),
        (
            "xid43-31-94_akash-244.txt",
            [("0000:00:05", 43), ("0000:00:05", 43), ("0000:00:07", 31), ("0000:00:08", 94)],
        ),
        (
            "xid45-caused-by-previous-149_open-gpu-1150.txt",
            [(f"0000:{bus}:00", 45) for bus in ("dc", "ed", "ba", "97", "dc", "ba", "ed", "97")],
        ),
        ("xid48-63-94-chain.txt", [("0000:52:00", xid) for xid in (48, 63, 94)]),
        ("xid48-old-dbe.txt", [("0000:8a:00", 48)]),
        ("xid48-physaddr.txt", [("0000:07:00", 48)]),
        ("xid63_syslog_p4de.txt", [("0000:10:1c", 63)]),
        ("xid74-kernel-prefix.txt", [("0000:c1:00", 74)]),
        ("xid79-arm64-domain-0004.txt", [("0004:01:00", 79)]),
        ("xid79-gtx1080-2017.txt", [("0000:06:00", 79)]),
        ("xid79_journal.txt", [("0000:01:00", 79)]),
        ("xid79_sxid_nvswitch_gpud.txt", [("0000:91:00", 79)]),
        ("xid94-format-examples_driver-source.txt", [("0000:01:00", 94), ("0000:01:00", 94)]),
    ],
)
def test_xids_of_real_logs(file: str, xids: list[tuple[str, int]]):
    assert [(xid.pci, xid.xid) for xid in parse_dmesg(output(f"dmesg/{file}")).xids] == xids


@pytest.mark.parametrize(
    ("file", "number", "xid"),
    [
        (
            "xid13-109-ctime_gpud-46.txt",
            3,
            Xid(
                pci="0000:cb:00",
                xid=109,
                message="Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x58005",
                pid=1797828,
                process="pt_main_thread",
                time="Fri Aug 30 11:43:14 2024",
            ),
        ),
        (
            "duaneya_xid13.txt",
            0,
            Xid(
                pci="0000:03:00",
                xid=13,
                message="Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): "
                "Illegal Instruction Encoding",
                pid=10635,
                time="Nov 15 12:43:10",
            ),
        ),
        (
            "gpud_xid13_43_iso_time.txt",
            16,
            Xid(
                pci="0000:38:00",
                xid=43,
                message="Ch 00000008",
                pid=2924364,
                process="pt_main_thread",
                time="2025-01-21T04:41:44,287197+00:00",
            ),
        ),
        (
            "xid48-63-94-chain.txt",
            2,
            Xid(
                pci="0000:52:00",
                xid=94,
                message="Contained: SM (0x1). RST: No, D-RST: No",
                time="430954.533994",
            ),
        ),
        (
            "xid94-format-examples_driver-source.txt",
            0,
            Xid(
                pci="0000:01:00",
                xid=94,
                message="Contained: CE User Channel (0x9). RST: No, D-RST: No",
                pid=7194,
                gpu_instance_id=5,
            ),
        ),
        (
            "xid38-syslog-trailing-comma.txt",
            0,
            Xid(pci="0000:01:00", xid=38, message="", pid=1659, time="Feb 01 14:25:31"),
        ),
        (
            "xid45-caused-by-previous-149_open-gpu-1150.txt",
            0,
            Xid(
                pci="0000:dc:00",
                xid=45,
                message="Ch 00000001 caused by previous Xid 149",
                pid=1818990,
                process="python3",
            ),
        ),
    ],
)
def test_what_an_xid_says(file: str, number: int, xid: Xid):
    assert parse_dmesg(output(f"dmesg/{file}")).xids[number] == xid


def test_sxids():
    found = parse_dmesg(output("dmesg/xid79_sxid_nvswitch_gpud.txt"))
    assert [(s.switch, s.pci, s.sxid, s.fatal, s.link) for s in found.sxids] == [
        (1, "0000:06:00.0", 20034, True, 48),
        (0, "0000:05:00.0", 20034, True, 63),
        (2, "0000:07:00.0", 20034, None, None),
        (0, "0000:05:00.0", 20034, None, None),
        (2, "0000:07:00.0", 20034, True, 37),
    ]
    (sxid,) = parse_dmesg("SXid (PCI:0000:C1:00.0): 24007, Non-fatal, Link 3 sourcetrack").sxids
    assert sxid == Sxid("0000:c1:00.0", 24007, "Non-fatal, Link 3 sourcetrack", fatal=False, link=3)


def test_uuids():
    found = parse_dmesg(output("dmesg/xid43-31-94_akash-244.txt"))
    assert found.uuids == (
        ("0000:00:05", "GPU-efbdfde9-5798-a6e7-4c46-12518fa15375"),
        ("0000:00:07", "GPU-3b6ec030-5adc-1847-e155-79f635584b4e"),
        ("0000:00:08", "GPU-c24840ec-8de1-83d5-b126-08000173ae32"),
    )


@pytest.mark.parametrize(
    ("file", "faults"),
    [
        (
            "fallen-off-bus-no-xid_nvsentinel-155.txt",
            [("fallen-off-bus", "0000:b3:00.0", "1843.308145")],
        ),
        (
            "rminitadapter-failed-5090_open-gpu-862.txt",
            [("init-failed", "0000:01:00.0", "Jul 01 22:55:07")],
        ),
        # The Xid says it already.
        ("xid79_sxid_nvswitch_gpud.txt", []),
        ("xid79_journal.txt", []),
    ],
)
def test_faults_without_an_xid(file: str, faults: list[tuple[str, str, str]]):
    found = parse_dmesg(output(f"dmesg/{file}")).nvidia_faults
    assert [(fault.kind, fault.pci, fault.time) for fault in found] == faults


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (0000:03:00): 14, Channel 00000001",
        "> Oct  3 08:00:01 node kernel: NVRM: Xid (PCI:0000:03:00): 14, pid=1, Channel 00000001",
        "`[ 12.345678] NVRM: Xid (PCI:0000:03:00): 14, name=x, pid='<unknown>', Channel 00000001`",
        "2026-01-02T03:04:05.678901+00:00 node kernel: NVRM: Xid (PCI:0000:03:00): 14, Channel 0",
    ],
)
def test_other_forms_of_a_line(line: str):
    assert [(xid.pci, xid.xid) for xid in parse_dmesg(line).xids] == [("0000:03:00", 14)]


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (PCI:0000:03:00): 7",
        "NVRM: Xid (PCI:0000:03",
        "NVRM: krcRcAndNotifyAllChannels_IMPL: RC all channels for critical error 79.",
        "[    0.000000] Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115)",
        "Linux version 6.8.0-45-generic",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01",
    ],
)
def test_kernel_lines_without_an_xid(line: str):
    found = parse_dmesg(line)
    assert (found.xids, found.nvidia_faults, found.amd_faults) == ((), (), ())


AMDGPU = """\
[37937.168911] [drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring gfx_0.0.0 timeout, signaled seq=1
[37937.169164] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!
[37938.000000] amdgpu 0000:03:00.0: amdgpu: GPU reset succeeded, trying to resume
[37939.000000] amdgpu 0000:03:00.0: amdgpu: GPU reset(2) failed
[37940.000000] amdgpu 0000:0B:00.0: amdgpu: socket: 0 2 uncorrectable hardware errors detected in
[37941.000000] amdgpu 0000:0b:00.0: amdgpu: 104856 correctable hardware errors detected in umc block
[37942.000000] amdgpu 0000:0b:00.0: amdgpu: no uncorrectable hardware errors detected in umc block
[37943.000000] amdgpu 0000:0b:00.0: amdgpu: 0 uncorrectable hardware errors detected in umc block
[37944.000000] amdgpu 0000:0b:00.0: amdgpu: [gfxhub0] no-retry page fault (src_id:0 ring:24)
"""


def test_faults_of_amdgpu():
    faults = parse_dmesg(AMDGPU).amd_faults
    assert [(fault.kind, fault.pci) for fault in faults] == [
        ("ring-timeout", None),
        ("reset", "0000:03:00.0"),
        ("reset-failed", "0000:03:00.0"),
        ("ras-uncorrectable", "0000:0b:00.0"),
        ("page-fault", "0000:0b:00.0"),
    ]
    assert faults[1] == KernelFault(
        "reset", "0000:03:00.0", "amdgpu 0000:03:00.0: amdgpu: GPU reset begin!", "37937.169164"
    )


def test_an_empty_log_is_an_error():
    with pytest.raises(OutputError, match="empty"):
        parse_dmesg("\n")
