from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import PciGpu, parse_lspci

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("file", "count", "first"),
    [
        (
            "l40s-2x_dnnk-subsystem.txt",
            2,
            PciGpu("0000:01:00.0", "10de:26b9", "NVIDIA Corporation AD102GL [L40S]"),
        ),
        (
            "rtx-4090-audio_gevulot.txt",
            1,
            PciGpu("0000:01:00.0", "10de:2684", "NVIDIA Corporation AD102 [GeForce RTX 4090]"),
        ),
        (
            "h100-iommu-group-prefix.txt",
            7,
            PciGpu("0000:41:00.0", "10de:2330", "NVIDIA Corporation GH100 [H100 SXM5 80GB]"),
        ),
        (
            "duaneya_lspci-nn-full.txt",
            4,
            PciGpu("0000:02:00.0", "10de:1e07", "NVIDIA Corporation GV102"),
        ),
    ],
)
def test_real_outputs(file: str, count: int, first: PciGpu):
    gpus = parse_lspci((DATA / file).read_text())
    assert len(gpus) == count
    assert gpus[0] == first


def test_bridges_and_subsystems_are_no_gpus():
    gpus = parse_lspci((DATA / "deepops_virtual_19.txt").read_text())
    assert {gpu.device_id for gpu in gpus} == {"10de:1db1"}


@pytest.mark.parametrize(
    ("line", "device_id"),
    [
        (
            "c1:00.0 Display controller [0380]: Advanced Micro Devices, Inc. [AMD/ATI] "
            "Aldebaran/MI200 [Instinct MI210] [1002:740f] (rev 02)",
            "1002:740f",
        ),
        (
            "10000:05:00.0 Processing accelerators [1200]: Advanced Micro Devices, Inc. [AMD/ATI] "
            "Aqua Vanjaram [Instinct MI300X] [1002:74a1]",
            "1002:74a1",
        ),
        (
            "08:00.0 VGA compatible controller [0300]: NVIDIA Corporation Device [10de:2b85] "
            "(rev a1) (prog-if 00 [VGA controller])\r",
            "10de:2b85",
        ),
    ],
)
def test_single_lines(line: str, device_id: str):
    (gpu,) = parse_lspci(line)
    assert gpu.device_id == device_id


@pytest.mark.parametrize(
    "line",
    [
        "03:00.0 VGA compatible controller [0300]: ASPEED Technology, Inc. ASPEED [1a03:2000]",
        "01:00.1 Audio device [0403]: NVIDIA Corporation AD102 Audio [10de:22ba] (rev a1)",
        "81:00.0 Infiniband controller [0207]: Mellanox MT2910 [15b3:1021]",
        "missing",
        "",
    ],
)
def test_other_devices_are_passed_over(line: str):
    assert parse_lspci(line) == ()


@given(st.text())
def test_any_text_is_read(text: str):
    parse_lspci(text)
