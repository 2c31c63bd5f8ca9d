from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.nvlink import NvlinkGpu, NvlinkLink, parse_nvlink
from roles.hardware.outputs.text import OutputError

OUTPUTS = Path(__file__).parents[3] / "data" / "gpu-outputs" / "nvlink"


@pytest.mark.parametrize(
    ("file", "index", "name", "message"),
    [
        ("azurehpc_bad_nvlink_status", 6, "NVIDIA A100-SXM4-80GB",
         "NVML: Unable to retrieve NVLink information as all links are inactive"),
        ("linux-x86_64_nvidia-geforce-rtx-2080-super_595.71.05", 0, "NVIDIA GeForce RTX 2080 SUPER",
         "NVML: Unable to retrieve Nvlink information as all links are inActive"),
        ("linux-x86_64_nvidia-geforce-rtx-4080-super_595.71.05", 0, "NVIDIA GeForce RTX 4080 SUPER",
         "Device does not have or support Nvlink"),
        ("linux-x86_64_nvidia-l40s_595.80", 0, "NVIDIA L40S",
         "Device does not have or support Nvlink"),
        ("linux-x86_64_nvidia-h200-mig_590.48.01", 0, "NVIDIA H200",
         "Nvlink queries are not supported for Devices in MIG mode"),
    ],
)  # fmt: skip
def test_real_outputs_without_links(file: str, index: int, name: str, message: str):
    status = parse_nvlink((OUTPUTS / f"{file}.txt").read_text("utf-8"))
    assert [(gpu.index, gpu.name, gpu.message) for gpu in status.gpus] == [(index, name, message)]
    assert status.links == ()


@pytest.mark.parametrize(
    ("file", "name", "numbers"),
    [
        ("linux-x86_64_nvidia-h100-80gb-hbm3_590.48.01", "NVIDIA H100 80GB HBM3", range(18)),
        ("linux-x86_64_nvidia-h200_590.48.01", "NVIDIA H200", range(18)),
        ("stas00_debug_21", "NVIDIA H100 80GB HBM3", [0, 17]),
    ],
)
def test_real_outputs_with_links(file: str, name: str, numbers: list[int]):
    status = parse_nvlink((OUTPUTS / f"{file}.txt").read_text("utf-8"))
    assert [(gpu.index, gpu.name, gpu.message) for gpu in status.gpus] == [(0, name, None)]
    assert status.links == tuple(NvlinkLink(0, n, 26.562, True) for n in numbers)


def test_several_gpus_and_links_that_are_down():
    text = (
        "$ nvidia-smi nvlink -s\n"
        "GPU 0: Tesla V100-SXM2-16GB (UUID: GPU-a)\n\t Link 0: 25.781 GB/s\n"
        "\t Link 1: <inactive>\nGPU 1: Tesla V100-SXM2-16GB (UUID: GPU-b)\n\t Link 0: 50 GB/s\n"
    )
    status = parse_nvlink(text)
    assert status.gpus == (
        NvlinkGpu(0, "Tesla V100-SXM2-16GB", "GPU-a", None),
        NvlinkGpu(1, "Tesla V100-SXM2-16GB", "GPU-b", None),
    )
    assert status.links == (
        NvlinkLink(0, 0, 25.781, True),
        NvlinkLink(0, 1, None, False),
        NvlinkLink(1, 0, 50.0, True),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no NVLink state"),
        ("GPU 0: NVIDIA L4 (UUID: GPU-a)\n", "no NVLink state"),
        ("Link 0: 25 GB/s\n", "line 1: .*before any 'GPU"),
        ("GPU 0: A\n Link 0: 25 GB/s\n Link 0: 25 GB/s\n", "line 3: .*second time"),
        ("GPU 0: A\n Link 0: 25 GB/s\nGPU 0: A\n Link 0: 25 GB/s\n", "line 3: .*second time"),
        ("GPU 0: A\n Link 0, P2P is supported: true\n", "line 2: .*without '<speed> GB/s'"),
        ("GPU 0: A\n Link 0: 26.5", "line 2: .*without '<speed> GB/s'"),
    ],
)
def test_what_is_no_status_is_refused(text: str, problem: str):
    with pytest.raises(OutputError, match=problem):
        parse_nvlink(text)


@given(st.text(alphabet="GPULinkB 01:<>./s\n\tvact"))
def test_any_text_is_a_status_or_an_output_error(text: str):
    try:
        status = parse_nvlink(text)
    except OutputError:
        return
    assert all(link.active == (link.gb_s is not None) for link in status.links)
