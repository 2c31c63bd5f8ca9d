import pytest

from roles.hardware.outputs.lspci import PciGpu, parse_lspci
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.host_outputs import output


@pytest.mark.parametrize(
    ("file", "buses", "name", "device_id", "revision", "driver"),
    [
        (
            "3x-p100-pcie.txt",
            ["3b", "86", "d8"],
            "GP100GL [Tesla P100 PCIe 16GB]",
            None,
            "a1",
            None,
        ),
        (
            "8x-rtx-pro-6000_2bb5-aspeed_verbose-headers.txt",
            ["06", "07", "75", "76", "84", "85", "f4", "f5"],
            "Device 2bb5",
            "10de:2bb5",
            "a1",
            None,
        ),
        (
            "940mx-920mx-3d-controller_antergos-18.txt",
            ["01"],
            "GM108M [GeForce 920MX]",
            None,
            "a2",
            None,
        ),
        ("980m_antergos-15.txt", ["01"], "GM204M [GeForce GTX 980M]", "10de:1617", "a1", None),
        (
            "deepops_virtual_14.txt",
            ["08", "0a", "18", "1a", "89", "8b", "92", "94"],
            "Device",
            "10de:1db1",
            "a1",
            None,
        ),
        (
            "deepops_virtual_19.txt",
            ["08", "0a", "18", "1a", "89", "8b", "92", "94"],
            "Device",
            "10de:1db1",
            "a1",
            "vfio-pci",
        ),
        ("duaneya_lspci-nn-full.txt", ["02", "03", "83", "84"], "GV102", "10de:1e07", "a1", None),
        ("gtx960-audio-preinstall.txt", ["04"], "GM206 [GeForce GTX 960]", None, "a1", None),
        (
            "h100-4x_stackhpc.txt",
            ["06", "0c", "46", "4c"],
            "GH100 [H100 SXM5 80GB]",
            "10de:2330",
            "a1",
            None,
        ),
        (
            "h100-iommu-group-prefix.txt",
            ["41", "44", "11", "12", "bb", "be", "86"],
            "GH100 [H100 SXM5 80GB]",
            "10de:2330",
            "a1",
            None,
        ),
        ("l40s-2x_dnnk-subsystem.txt", ["01", "82"], "AD102GL [L40S]", "10de:26b9", "a1", None),
        (
            "marwank270_lspci-nn-full.txt",
            ["01"],
            "GM107GL [Quadro K2200]",
            "10de:13ba",
            "a2",
            None,
        ),
        ("multi-rtx-5090-unnamed.txt", ["c1", "c2"], "Device 2b85", "10de:2b85", "a1", None),
        (
            "rtx-4090-audio_gevulot.txt",
            ["01"],
            "AD102 [GeForce RTX 4090]",
            "10de:2684",
            "a1",
            None,
        ),
        (
            "rtx-5090-laptop-wrapped_open-gpu-935.txt",
            ["02"],
            "GB203M / GN22 [GeForce RTX 5090 Max-Q / Mobile]",
            "10de:2c18",
            "a1",
            None,
        ),
    ],
)
def test_real_outputs(
    file: str,
    buses: list[str],
    name: str,
    device_id: str | None,
    revision: str,
    driver: str | None,
):
    gpus = parse_lspci(output(f"lspci/{file}")).gpus
    assert [gpu.pci_address for gpu in gpus] == [f"0000:{bus}:00.0" for bus in buses]
    assert {
        (g.name, g.pci_device_id, g.revision, g.kernel_driver, g.vendor, g.index) for g in gpus
    } == {(name, device_id, revision, driver, "NVIDIA", None)}


def test_numbers_without_names():
    assert parse_lspci(output("lspci/lspci-n-numeric-a100_gcp-10.txt")).gpus == (
        PciGpu(
            pci_address="0000:00:04.0",
            pci_device_id="10de:20b0",
            vendor="NVIDIA",
            pci_class="0302",
            revision="a1",
        ),
    )


def test_a_processors_own_gpu_is_told_by_its_vendor():
    card, integrated = parse_lspci(output("lspci/rtx-5070ti-plus-amd-igpu.txt")).gpus
    assert (card.vendor, card.name, card.pci_device_id) == ("NVIDIA", "Device 2c05", "10de:2c05")
    assert (integrated.vendor, integrated.pci_device_id) == ("AMD", "1002:13c0")
    assert integrated.pci_class == "VGA compatible controller"


def test_a_line_that_is_cut_still_shows_a_gpu():
    *_, cut = parse_lspci(output("lspci/v100-device-1db6-domain_bigdata-133.txt")).gpus
    assert cut == PciGpu(pci_address="0000:62:00.0", vendor="NVIDIA", pci_class="3D controller")


@pytest.mark.parametrize(
    ("line", "address", "device_id", "name"),
    [
        (
            "c1:00.0 Display controller [0380]: Advanced Micro Devices, Inc. [AMD/ATI] "
            "Aldebaran/MI200 [Instinct MI210] [1002:740f] (rev 02)",
            "0000:c1:00.0",
            "1002:740f",
            "Aldebaran/MI200 [Instinct MI210]",
        ),
        (
            "10000:05:00.0 Processing accelerators [1200]: Advanced Micro Devices, Inc. [AMD/ATI] "
            "Aqua Vanjaram [Instinct MI300X] [1002:74a1]",
            "10000:05:00.0",
            "1002:74a1",
            "Aqua Vanjaram [Instinct MI300X]",
        ),
        (
            "08:00.0 VGA compatible controller [0300]: NVIDIA Corporation Device [10de:2b85] "
            "(rev a1) (prog-if 00 [VGA controller])\r",
            "0000:08:00.0",
            "10de:2b85",
            "Device",
        ),
        (
            "$ lspci | grep VGA\n1:05:00.0 VGA compatible controller: ATI Technologies Inc RV770 "
            "[Radeon HD 4870]",
            "0000:05:00.0",
            None,
            "RV770 [Radeon HD 4870]",
        ),
    ],
)
def test_single_lines(line: str, address: str, device_id: str | None, name: str):
    (gpu,) = parse_lspci(line).gpus
    assert (gpu.pci_address, gpu.pci_device_id, gpu.name) == (address, device_id, name)


def test_the_driver_is_that_of_its_own_device():
    text = (
        "01:00.0 VGA compatible controller: NVIDIA Corporation AD102\n"
        "\tKernel modules: nvidiafb, nouveau\n"
        "01:00.1 Audio device: NVIDIA Corporation AD102 High Definition Audio Controller\n"
        "\tKernel driver in use: snd_hda_intel\n"
        "02:00.0 VGA compatible controller: NVIDIA Corporation AD102\n"
        "\tKernel driver in use: nouveau\n"
    )
    assert [gpu.kernel_driver for gpu in parse_lspci(text).gpus] == [None, "nouveau"]


@pytest.mark.parametrize(
    "line",
    [
        "03:00.0 VGA compatible controller [0300]: ASPEED Technology, Inc. ASPEED [1a03:2000]",
        "03:00.0 VGA compatible controller: Matrox Electronics Systems Ltd. G200eW3 (rev 04)",
        "00:02.0 VGA compatible controller: Intel Corporation UHD Graphics 630 (rev 02)",
        "01:00.1 Audio device [0403]: NVIDIA Corporation AD102 Audio [10de:22ba] (rev a1)",
        "05:00.0 Bridge [0680]: NVIDIA Corporation GH100 [H100 NVSwitch] [10de:22a3] (rev a1)",
        "05:00.0 Bridge: NVIDIA Corporation GH100 [H100 NVSwitch] (rev a1)",
        "81:00.0 Infiniband controller [0207]: Mellanox MT2910 [15b3:1021]",
        "c5:00.1 Processing accelerators: Advanced Micro Devices, Inc. [AMD] Device 1502",
        "0b:00.0 1200: 1d0f:7364 (rev 01)",
    ],
)
def test_other_devices_are_no_gpus(line: str):
    assert parse_lspci(line).gpus == ()


@pytest.mark.parametrize("text", ["missing", "lspci: Unknown option", "0000:01:00.0", "01:00.0 "])
def test_texts_without_a_device_are_errors(text: str):
    with pytest.raises(OutputError, match="no output of lspci"):
        parse_lspci(text)
