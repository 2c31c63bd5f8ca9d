"""AMD hosts: from the kernel's own amdgpu, or none that knows the cards, to GPUs that are ready."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import amd, debs, driver_faults, hosts
from tests.lab.conftest import Fleet, Run
from tests.lab.inventories import bare_inventory

GPUS = {"bare3": "2x AMD Instinct MI300X", "bare4": "2x AMD Radeon AI PRO R9700"}
SIZES = {"bare3": 196592, "bare4": 32624}
MIRROR = {
    "mirror": "http://10.99.0.1:8080/amd",
    "mirror_key_file": str(debs.REPOSITORY_KEY),
}
NEEDS_A_REBOOT = "another amdgpu is loaded than amdgpu-dkms has installed"


class Amd:
    """Both AMD hosts, and the deploy that makes them ready."""

    def __init__(self, lab: Fleet, folder: Path):
        self.lab, self.folder = lab, folder

    def deploy(self, *options: str, **settings: Any) -> Run:
        """`pyinfra INVENTORY deploys/drivers.py -y OPTIONS` over these hosts."""
        engines = {"vllm": {"device": "rocm", "allow_unhashed": True}}
        file = bare_inventory(self.folder / "amd.py", GPUS, MIRROR | settings, engines=engines)
        return self.lab.pyinfra(file, "deploys/drivers.py", "-y", *options)


@pytest.fixture(scope="module")
def fleet(bare_lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amd]:
    """A server whose cards its kernel does not know, a desktop whose own graphics it does."""
    with hosts.booted(*GPUS):
        yield Amd(bare_lab, tmp_path_factory.mktemp("amd"))


def ready(run: Run, name: str) -> None:
    printed = (
        f"[{name}] GPUs are ready: {GPUS[name]} ({SIZES[name]} MiB), driver {amd.MODULE_VERSION}"
    )
    assert [line.strip() for line in run.text.splitlines() if printed in line] == [printed], (
        run.text
    )


def test_amdgpu_is_installed_loaded_and_asked_as_root(fleet: Amd):
    run = fleet.deploy()
    assert run.status == 1, run.text
    # Nothing was loaded there: no reboot is needed.
    ready(run, "bare3")
    assert f"[bare4] needs a reboot ({NEEDS_A_REBOOT})" in run.text, run.text
    # The login is in no group of the devices, which amd-smi refuses.
    assert hosts.ssh("bare3", "/opt/rocm/bin/amd-smi list").returncode == 1
    assert fleet.lab.ssh("bare3", "sudo /opt/rocm/bin/amd-smi list").count("GPU:") == 2


def test_a_reboot_puts_it_in_place_of_the_kernels_own(fleet: Amd):
    before = {name: hosts.boot_id(name) for name in GPUS}
    run = fleet.deploy(reboot="when-needed")
    assert run.status == 0, run.text
    for name in GPUS:
        ready(run, name)
    assert f"[bare4] is rebooted: {NEEDS_A_REBOOT}" in run.text
    assert hosts.boot_id("bare3") == before["bare3"] and hosts.boot_id("bare4") != before["bare4"]
    again = fleet.deploy(reboot="when-needed")
    assert (again.status, again.changes) == (0, 0), again.text


def test_driver_and_kernel_are_held_together(fleet: Amd):
    for name in GPUS:
        held = fleet.lab.ssh(name, "apt-mark showhold").split()
        assert {"amdgpu-dkms", "amd-smi-lib", "linux-image-amd64"} <= set(held)


def test_a_driver_that_is_not_loaded_is_loaded_again(fleet: Amd):
    fleet.lab.ssh("bare3", "sudo rmmod amdgpu")
    run = fleet.deploy(reboot="when-needed")
    assert run.status == 0, run.text
    ready(run, "bare3")


def test_an_upgrade_comes_when_it_is_asked_for_and_serves_after_a_reboot(fleet: Amd):
    older = " ".join(
        f"{name}={amd.OLD_PACKAGE}" for name in ("amdgpu-dkms", "amdgpu-dkms-firmware")
    )
    install = "sudo apt-get -q -y --allow-downgrades --allow-change-held-packages install"
    fleet.lab.ssh("bare3", f"{install} {older} && sudo rmmod amdgpu && sudo modprobe amdgpu")
    kept = fleet.deploy(reboot="when-needed")
    assert kept.status == 0 and f"driver {amd.OLD_MODULE_VERSION}" in kept.text, kept.text

    upgrade = ("--data", "upgrade_driver=true")
    output = f"amdgpu {amd.PACKAGE} was installed, and the one before it is loaded"
    run = fleet.deploy(*upgrade)
    assert run.status == 0, run.text
    assert run.text.count(f"[bare3] serves, but should be rebooted ({output}). Allow it") == 1
    run = fleet.deploy(reboot="when-needed")
    assert run.status == 0 and f"[bare3] is rebooted: {output}" in run.text, run.text
    ready(run, "bare3")
    again = fleet.deploy(*upgrade, reboot="when-needed")
    assert (again.status, again.changes) == (0, 0), again.text


def test_a_kernel_that_knows_the_cards_keeps_its_amdgpu(fleet: Amd):
    hosts.remove("bare3")
    hosts.add("bare3")
    driver_faults.newer_amdgpu("bare3")
    hosts.power_off("bare3")
    hosts.power_on("bare3")
    run = fleet.deploy()
    assert run.status == 0, run.text
    assert f"[bare3] GPUs are ready: {GPUS['bare3']} ({SIZES['bare3']} MiB)" in run.text
    packages = fleet.lab.ssh("bare3", "dpkg-query -W -f '${Package} '").split()
    assert "amd-smi-lib" in packages and "amdgpu-dkms" not in packages
    assert fleet.deploy().changes == 0
