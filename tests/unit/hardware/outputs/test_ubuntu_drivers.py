import pytest

from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.ubuntu_drivers import Driver, parse_ubuntu_drivers
from tests.unit.hardware.outputs.host_outputs import output


@pytest.mark.parametrize(
    ("file", "address", "device_id", "model", "count", "recommended"),
    [
        (
            "azure-t4-vmbus-path.txt",
            "0001:00:00.0",
            "10de:1eb8",
            "TU104GL [Tesla T4]",
            6,
            Driver("nvidia-driver-535", 535, False, False, True, False, True),
        ),
        (
            "gtx-1050-mobile-egpu-long-path.txt",
            "0000:04:00.0",
            "10de:1c8d",
            "GP107M [GeForce GTX 1050 Mobile]",
            3,
            Driver("nvidia-driver-580", 580, False, False, True, False, True),
        ),
        (
            "gtx-1070-mobile-vendor-first-no-model.txt",
            "0000:01:00.0",
            "10de:1ba1",
            None,
            8,
            Driver("nvidia-430", 430, False, False, True, True, False),
        ),
        (
            "gtx-1650-super.txt",
            "0000:0b:00.0",
            "10de:2187",
            "TU116 [GeForce GTX 1650 SUPER]",
            5,
            Driver("nvidia-driver-460", 460, False, False, True, False, False),
        ),
        (
            "gtx-650ti-server-recommended_u-d-c-48.txt",
            "0000:01:00.0",
            "10de:11c6",
            "GK106 [GeForce GTX 650 Ti]",
            8,
            Driver("nvidia-driver-450-server", 450, False, True, True, False, True),
        ),
        (
            "rtx-5070ti-closed-recommended-but-needs-open.txt",
            "0000:01:00.0",
            "10de:2c05",
            None,
            9,
            Driver("nvidia-driver-580", 580, False, False, True, False, True),
        ),
        (
            "rtx-5090-580-590-udevadm-noise.txt",
            "0000:02:00.0",
            "10de:2b85",
            None,
            13,
            Driver("nvidia-driver-580-open", 580, True, False, True, False, True),
        ),
        (
            "rtx-5090-ppa-third-party.txt",
            "0000:01:00.0",
            "10de:2b85",
            None,
            9,
            Driver("nvidia-driver-580-open", 580, True, False, True, False, False),
        ),
        (
            "titan-xp-deep-path-no-model.txt",
            "0000:09:00.0",
            "10de:1b02",
            None,
            7,
            Driver("nvidia-430", 430, False, False, True, True, False),
        ),
    ],
)
def test_real_outputs(
    file: str, address: str, device_id: str, model: str | None, count: int, recommended: Driver
):
    found = parse_ubuntu_drivers(output(f"ubuntu-drivers/{file}"))
    (device,) = found.devices
    assert (device.pci_address, device.pci_device_id) == (address, device_id)
    assert (device.vendor, device.model) == ("NVIDIA Corporation", model)
    assert found.drivers == device.drivers
    assert len(found.drivers) == count
    assert [driver for driver in found.drivers if driver.recommended] == [recommended]
    (nouveau,) = (driver for driver in found.drivers if driver.branch is None)
    assert (nouveau.name, nouveau.free) == ("xserver-xorg-video-nouveau", True)


def test_open_and_server_variants():
    text = output("ubuntu-drivers/rtx-5070ti-closed-recommended-but-needs-open.txt")
    variants = {
        (d.branch, d.open, d.server) for d in parse_ubuntu_drivers(text).drivers if d.branch
    }
    assert variants == {
        (branch, is_open, is_server)
        for branch in (570, 580)
        for is_open in (True, False)
        for is_server in (True, False)
    }


def test_a_host_without_nvidia():
    found = parse_ubuntu_drivers(output("ubuntu-drivers/no-nvidia-microcode-broadcom.txt"))
    assert (found.devices, found.drivers) == ((), ())


def test_two_gpus_are_offered_a_driver_once():
    text = output("ubuntu-drivers/gtx-1050-mobile-egpu-long-path.txt")
    found = parse_ubuntu_drivers(text + text.replace("0000:04:00.0 ==", "0000:05:00.0 =="))
    assert [device.pci_address for device in found.devices] == ["0000:04:00.0", "0000:05:00.0"]
    assert len(found.drivers) == 3


def test_a_driver_that_cannot_be_read_is_an_error_but_a_cut_one_is_none():
    text = output("ubuntu-drivers/gtx-1050-mobile-egpu-long-path.txt").rstrip()
    assert len(parse_ubuntu_drivers(text[: text.index(" - distro free")]).drivers) == 2
    with pytest.raises(OutputError, match=r"line 5: .*no driver"):
        parse_ubuntu_drivers(text.replace(" - distro non-free recommended", " + distro", 1))
