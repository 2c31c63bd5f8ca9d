"""What is read of a host's driver, of hosts with apt and with dnf, and why it needs a reboot."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from roles.driver import facts
from roles.driver.reboot import reboot_blocker, reboot_reasons, reboot_recommendations
from roles.driver.state import SystemdUnit

from .hosts import DEBIAN, ROCKY, installed, output, state


def test_a_debian_host_with_a_driver():
    found = state(
        installed(),
        free="/dev/sda2 3145728 /\n/dev/sda1 204800 /boot\n/dev/sda2 3145728 /",
        nvidia_fabricmanager="LoadState=not-found\nActiveState=inactive\nUnitFileState=",
        fabric_manager_version="",
        secure_boot="SecureBoot disabled",
        sources="/etc/apt/sources.list:deb http://deb.debian.org/debian bookworm main",
        files="644 root root abc /etc/modprobe.d/llm-nouveau.conf",
    )
    assert (found.system.name, found.kernel) == ("debian 12 (x86_64)", "6.1.0-37-amd64")
    assert found.packages["nvidia-driver-cuda"] == "580.95.05-1"
    assert found.driver_packages["libcuda1"] == "580.95.05"
    assert "linux-image-amd64" in found.held and not found.interrupted
    assert (found.module, found.loaded, found.answers) == ("580.95.05",) * 3
    assert found.modules == {"6.1.0-37-amd64": "580.95.05"}
    assert found.persistence == SystemdUnit(True, True, True)
    assert found.fabric_manager == SystemdUnit()
    assert found.free_mib == {"/usr": ("/", 3072), "/boot": ("/boot", 200), "/var": ("/", 3072)}
    assert not found.secure_boot and not found.unpackaged
    assert found.files == {"/etc/modprobe.d/llm-nouveau.conf": "644 root root abc"}


def test_a_rocky_host_with_a_driver():
    found = state(
        ROCKY,
        next="5.14.0-611.5.1.el9_7.x86_64",
        packages="kernel-core 5.14.0-570.12.1.el9_6 ii\nkernel-core 5.14.0-611.5.1.el9_7 ii\n"
        "nvidia-driver-cuda 580.95.05-1.el9 ii\nkmod-nvidia-open-dkms 580.95.05-1.el9 ii",
        held="# Added locks\nnvidia-driver-cuda-3:580.95.05-1.el9.*\nkernel-core-0:5.14.0-1.el9.*",
        answers="580.95.05",
        nvidia_fabricmanager="LoadState=loaded\nActiveState=failed\nUnitFileState=enabled",
        fabric_manager_version="Fabric Manager version is : 580.82.07",
        switches="0000:05:00.0\n0000:06:00.0",
        secure_boot="   6   0   0   0   1",
        own_key="/var/lib/dkms/mok.pub is already enrolled",
    )
    assert found.packages["kernel-core"] == "5.14.0-611.5.1.el9_7"
    assert found.held == {"nvidia-driver-cuda", "kernel-core"}
    assert found.next_kernel == "5.14.0-611.5.1.el9_7.x86_64"
    assert (found.fabric_manager.active, found.fabric_manager_version) == (False, "580.82.07")
    assert (found.nvswitches, found.secure_boot, found.own_key_enrolled) == (2, True, True)


@pytest.mark.parametrize(
    ("parts", "half"),
    [
        ({"packages": "nvidia-driver-cuda 580.95.05-1 iU "}, ("nvidia-driver-cuda",)),
        ({"packages": "nvidia-driver-cuda 580.95.05-1 iHR"}, ("nvidia-driver-cuda",)),
        ({"packages": "nvidia-kernel-open-dkms 580.95.05-1 iF "}, ("nvidia-kernel-open-dkms",)),
        ({"dpkg_audit": "The following packages are only half configured"}, ()),
        ({"interrupted": "unmet dependencies"}, ()),
        ({"interrupted": "0001"}, ()),
    ],
)
def test_an_interrupted_installation_is_seen(parts: dict[str, str], half: tuple[str, ...]):
    found = state(**parts)
    assert found.interrupted
    assert found.half == half


def test_removed_packages_do_not_count():
    found = state(packages="nvidia-driver-cuda 535.1-1 rc \nlibcuda1:amd64 580.95.05-1 ii ")
    assert found.packages == {"libcuda1": "580.95.05-1"}


@pytest.mark.parametrize(
    "parts",
    [
        {"outside": "/usr/bin/nvidia-uninstall"},
        {"module": "550.54.15", "modules": "6.1.0-37-amd64 550.54.15"},
        {"answers": "550.54.15"},
    ],
)
def test_a_driver_without_packages_is_seen(parts: dict[str, str]):
    assert state(**parts).unpackaged


def test_the_newest_kernel_boots_next():
    assert state(kernels="6.1.0-9-amd64\n6.1.0-37-amd64\n6.1.0-10-amd64").next_kernel == (
        "6.1.0-37-amd64"
    )
    assert state(kernels="").next_kernel == DEBIAN["kernel"]


@pytest.mark.parametrize(
    ("last", "message"), [("@@ kernels", "driver is cut short: next,"), ("@@@ driver", "no answer")]
)
def test_a_cut_report_fails_its_host_alone(last: str, message: str):
    lines = output()
    with pytest.raises(FactProcessError, match=message):
        facts.DriverReport().process(lines[: lines.index(last) + 1])
    with pytest.raises(FactProcessError, match="cannot be read"):
        facts.DriverReport().process(["@@ end"])


@given(st.dictionaries(st.sampled_from([*sorted(DEBIAN), "free", "keys"]), st.text()))
def test_whatever_a_host_prints_is_read_or_refused(parts: dict[str, str]):
    with contextlib.suppress(FactProcessError):
        facts.DriverReport().process(output(DEBIAN, **parts))


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        ({}, ()),
        (
            {"in_kernel": "nouveau ", "loaded": "", "answers": ""},
            ("the kernel's nouveau driver still holds the GPUs",),
        ),
        (
            {"loaded": "570.172.08", "answers": ""},
            ("driver 570.172.08 is loaded, 580.95.05 is installed",),
        ),
        (
            {"library": "580.105.08", "answers": ""},
            ("driver 580.95.05 is loaded, its libraries are 580.105.08",),
        ),
        (
            {
                "module": "",
                "modules": "6.1.0-40-amd64 580.95.05",
                "kernels": "6.1.0-40-amd64\n6.1.0-37-amd64",
                "loaded": "",
                "answers": "",
                "in_kernel": "",
            },
            (
                "the driver is built for kernel 6.1.0-40-amd64, which boots next, and not for "
                "6.1.0-37-amd64, which runs",
            ),
        ),
        (
            {
                "answers": "",
                "loaded_kind": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue",
            },
            ("its proprietary kernel modules are loaded, the open ones are installed",),
        ),
        (
            {
                "answers": "",
                "loaded_kind": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05",
            },
            (),
        ),
        # Whatever else lies there, a reboot would not make a driver that answers any better: an old
        # display card on nouveau, a module or a library of another version.
        ({"in_kernel": "nouveau \nnvidia "}, ()),
        ({"module": "580.105.08", "modules": "6.1.0-37-amd64 580.105.08"}, ()),
        ({"library": "580.105.08"}, ()),
        # What answers goes on serving until somebody reboots the host.
        (
            {
                "module": "",
                "modules": "6.1.0-40-amd64 580.95.05",
                "kernels": "6.1.0-40-amd64\n6.1.0-37-amd64",
            },
            (),
        ),
        # It only has to be loaded.
        ({"loaded": "", "answers": "", "in_kernel": ""}, ()),
        # A driver that serves does so on the kernel that runs: a newer one is only wished.
        ({"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64", "kernel_upgraded": "6.1.0-40-amd64"}, ()),
        # Nothing is installed: no reboot helps.
        (
            {"module": "", "modules": "", "loaded": "", "in_kernel": "nouveau ", "answers": ""},
            (),
        ),
        (
            {"reboot_required": "nvidia-driver-cuda\nlinux-image-amd64", "answers": ""},
            ("nvidia-driver-cuda asked for a reboot",),
        ),
    ],
)
def test_reboot_reasons(parts: dict[str, str], reasons: tuple[str, ...]):
    assert reboot_reasons(state(installed(), **parts)) == reasons


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/kernel/drivers/gpu/amdgpu.ko",
                "in_kernel": "amdgpu ",
            },
            (),
        ),
        ({"amdgpu_modules": "6.1.0-37-amd64 (builtin)", "in_kernel": "amdgpu "}, ()),
        # RHEL's DKMS has a place of its own.
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/extra/amdgpu.ko.xz",
                "in_kernel": "amdgpu ",
            },
            ("another amdgpu is loaded than amdgpu-dkms has installed",),
        ),
        (
            {
                "kernels": "6.1.0-40-amd64\n6.1.0-37-amd64",
                "amdgpu_modules": "6.1.0-40-amd64 /lib/modules/y/updates/dkms/amdgpu.ko\n"
                "6.1.0-37-amd64 /lib/modules/x/kernel/drivers/gpu/amdgpu.ko",
                "in_kernel": "amdgpu ",
            },
            (
                "amdgpu is built for kernel 6.1.0-40-amd64, which boots next, and not for "
                "6.1.0-37-amd64, which runs",
            ),
        ),
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "in_kernel": "amdgpu ",
            },
            ("another amdgpu is loaded than amdgpu-dkms has installed",),
        ),
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "in_kernel": "amdgpu ",
                "amd_answers": "8",
            },
            (),
        ),
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "in_kernel": "amdgpu ",
                "rocm_smi": "/opt/rocm/bin/rocm-smi",
                "kfd": "29857 206141652992",
            },
            (),
        ),
        # A lost card, or a tool that fails once, is no matter of another driver.
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "amdgpu_source": "A5",
                "amdgpu_loaded": "A5",
                "in_kernel": "amdgpu ",
                "amd_answers": "0",
            },
            (),
        ),
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "in_kernel": "amdgpu ",
                "amd_answers": "0",
                "kfd": "29857 206141652992",
            },
            (),
        ),
        # The graphics of the processor are all that the kernel's own knows.
        (
            {
                "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
                "in_kernel": "amdgpu ",
                "amd_answers": "1",
                "kfd": "5056 536870912",
            },
            ("another amdgpu is loaded than amdgpu-dkms has installed",),
        ),
    ],
)
def test_reboot_reasons_of_amd(parts: dict[str, str], reasons: tuple[str, ...]):
    assert reboot_reasons(state(**parts), amd_gpus=1) == reasons


UPGRADED_AMDGPU = {
    "amdgpu_modules": "6.1.0-37-amd64 /lib/modules/x/updates/dkms/amdgpu.ko",
    "amdgpu_source": "A6",
    "amdgpu_loaded": "A5",
    "amdgpu_upgraded": "1:6.16.13-1",
    "in_kernel": "amdgpu ",
    "amd_answers": "2",
}


@pytest.mark.parametrize(
    ("parts", "wishes"),
    [
        ({}, ()),
        # One that waits since before is nobody's business here.
        ({"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64"}, ()),
        (
            {"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64", "kernel_upgraded": "6.1.0-40-amd64"},
            ("kernel 6.1.0-40-amd64 was installed with the driver, 6.1.0-37-amd64 runs",),
        ),
        (UPGRADED_AMDGPU, ("amdgpu 1:6.16.13-1 was installed, and the one before it is loaded",)),
        # Whoever else upgraded it, or loads another from the initramfs, is asked for no reboot.
        (UPGRADED_AMDGPU | {"amdgpu_upgraded": ""}, ()),
        (UPGRADED_AMDGPU | {"amdgpu_loaded": "A6"}, ()),
        (UPGRADED_AMDGPU | {"amdgpu_loaded": ""}, ()),
        # Where it is needed it is message once.
        (UPGRADED_AMDGPU | {"amd_answers": "1"}, ()),
        (UPGRADED_AMDGPU | {"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64"}, ()),
    ],
)
def test_wishes_are_no_needs(parts: dict[str, str], wishes: tuple[str, ...]):
    assert reboot_recommendations(state(installed(), **parts), amd_gpus=2) == wishes


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, ""),
        ({"modules": ""}, ""),
        ({"kernels": "6.1.0-40-amd64"}, "kernel 6.1.0-40-amd64 boots next, and there is no module"),
        (
            {
                "kernels": "6.1.0-40-amd64",
                "modules": "6.1.0-37-amd64 580.95.05\n6.1.0-40-amd64 580.95.05",
            },
            "",
        ),
    ],
)
def test_no_reboot_into_a_kernel_without_the_driver(parts: dict[str, str], message: str):
    found = reboot_blocker(state(installed(), **parts))
    assert found.startswith(message) and bool(found) is bool(message)


def test_what_runs_and_what_can_be_asked():
    found = state(
        installed(),
        replicas="llm-engine@a.service\nllm-engine@b.service",
        # A card, a processor's graphics, one without a size, and Strix Halo.
        kfd="29857 206141652992\n5056 536870912\n65535 \n5510 536870912",
        amd_answers="4",
    )
    assert found.replicas == ("llm-engine@a.service", "llm-engine@b.service")
    assert (found.kfd_gpus, found.amd_gpus) == (3, 3)
    assert (found.has_nvidia_smi, found.has_rocm_smi) == (True, False)
