"""The stand-ins for drivers behave like the real things, by hand: no role is used."""

from collections.abc import Iterator

import pytest

from tests.lab import debs, driver_faults, drivers, hosts
from tests.lab.conftest import Fleet
from tests.lab.driver_faults import Mirror

OLD, NEW, NEXT = drivers.VERSIONS
URL = f"http://10.99.0.1:8080/{drivers.PATH_OF_DRIVERS}/"
APT = "sudo DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends"
KEYRING = "/usr/share/keyrings/nvidia.asc"
BLOCK = "echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/block.conf && sudo update-initramfs -u"


def knows_mirror(name: str) -> None:
    """Make a host know the driver repository and its key."""
    with debs.REPOSITORY_KEY.open() as key:
        assert hosts.ssh(name, f"sudo tee {KEYRING}", stdin=key).returncode == 0
    line = f"deb [signed-by={KEYRING}] {URL} /"
    command = f"echo '{line}' | sudo tee /etc/apt/sources.list.d/nvidia.list && {APT} update"
    done = hosts.ssh(name, command)
    assert done.returncode == 0, done.stdout + done.stderr


def at(version: str, *extra: str) -> str:
    """apt-get's arguments for a whole driver of this version."""
    packages = [*driver_faults.LIBRARIES, *driver_faults.PROGRAMS, "firmware-nvidia-gsp"]
    wanted = " ".join(
        f"{name}={version}-1" for name in (*packages, "nvidia-kernel-open-dkms", *extra)
    )
    return f"{APT} install --allow-downgrades {wanted} linux-headers-$(uname -r)"


@pytest.fixture(scope="module")
def bare(bare_lab: Fleet) -> Iterator[Fleet]:
    """The lab with both bare hosts, fresh."""
    with hosts.booted("bare1", "bare2"):
        for name in ("bare1", "bare2"):
            knows_mirror(name)
        yield bare_lab


def failed(name: str, command: str) -> tuple[int, str]:
    """Status and output of a command that has to fail."""
    done = hosts.ssh(name, command)
    assert done.returncode, done.stdout
    return done.returncode, done.stdout + done.stderr


def loaded(fleet: Fleet, name: str) -> set[str]:
    return set(fleet.ssh(name, "ls /sys/module").split())


def test_a_bare_host_has_gpus_and_no_driver(bare: Fleet):
    assert "nouveau" in loaded(bare, "bare1") and not loaded(bare, "bare2")
    assert bare.ssh("bare1", "lsmod").split()[4] == "nouveau"
    assert failed("bare1", "nvidia-smi")[0] == 127
    devices = bare.ssh("bare2", "cat /sys/bus/pci/devices/*/device").split()
    assert devices.count("0x2330") == 8 and devices.count("0x22a3") == 4
    assert bare.ssh("bare1", "systemctl is-system-running").strip() == "running"


def test_the_repository_is_refused_without_its_key(bare: Fleet):
    # Any key but that one: the machine's own Debian keys.
    swap = (
        f"sudo mv {KEYRING} {KEYRING}.aside && sudo cp /etc/apt/trusted.gpg.d/*12-stable* {KEYRING}"
    )
    printed = hosts.ssh(
        "bare2", f"{swap} && sudo rm -r /var/lib/apt/lists/*Packages* ; {APT} update"
    )
    assert "NO_PUBKEY" in printed.stderr
    bare.ssh("bare2", f"sudo mv {KEYRING}.aside {KEYRING} && {APT} update")


def test_nouveau_gives_way_at_the_boot_after_it_was_blocked(bare: Fleet):
    newest = bare.ssh("bare1", "apt-cache policy nvidia-driver-cuda | grep Candidate")
    assert NEXT in newest
    # The branch's package makes apt keep to it.
    bare.ssh("bare1", f"{APT} install nvidia-driver-pinning-580")
    bare.ssh("bare1", f"{APT} install linux-headers-$(uname -r) nvidia-kernel-open-dkms")
    bare.ssh("bare1", f"{APT} install nvidia-driver-cuda")
    assert f"nvidia/{NEW}" in bare.ssh("bare1", "sudo dkms status")
    assert bare.ssh("bare1", "/sbin/modinfo -F version nvidia").strip() == NEW
    assert bare.ssh("bare1", "/sbin/modinfo -F license nvidia").strip() == "Dual MIT/GPL"
    status, printed = failed("bare1", "nvidia-smi")
    assert status == 9 and "couldn't communicate with the NVIDIA driver" in printed
    assert "No such device" in failed("bare1", "sudo modprobe nvidia")[1]
    hosts.reboot("bare1")
    assert loaded(bare, "bare1") == {"nouveau"}
    bare.ssh("bare1", BLOCK)
    hosts.reboot("bare1")
    assert "nouveau" not in loaded(bare, "bare1")
    assert bare.ssh("bare1", "nvidia-smi -L").count("NVIDIA L40S") == 2
    asked = "nvidia-smi --query-gpu=driver_version,persistence_mode --format=csv,noheader -i 0"
    assert bare.ssh("bare1", asked).strip() == f"{NEW}, Disabled"
    bare.ssh("bare1", "sudo systemctl start nvidia-persistenced")
    assert bare.ssh("bare1", asked).strip() == f"{NEW}, Enabled"


def test_a_partial_upgrade_ends_in_a_mismatch_until_the_reboot(bare: Fleet):
    bare.ssh("bare1", at(OLD))
    hosts.reboot("bare1")
    assert OLD in bare.ssh("bare1", "nvidia-smi --version")
    driver_faults.partial_upgrade("bare1", NEW)
    status, printed = failed("bare1", "nvidia-smi -L")
    assert status == 18 and "Driver/library version mismatch" in printed
    assert "580.105" in printed
    assert bare.ssh("bare1", "/sbin/modinfo -F version nvidia").strip() == OLD
    bare.ssh("bare1", at(NEW))
    # The module on disk is right now, the loaded one is still the old.
    assert failed("bare1", "nvidia-smi -L")[0] == 18
    hosts.reboot("bare1")
    assert NEW in bare.ssh("bare1", "nvidia-smi --version")


def test_the_fabric_needs_a_manager_of_the_drivers_version(bare: Fleet):
    bare.ssh("bare2", at(NEW, "nvidia-fabricmanager"))
    bare.ssh("bare2", "sudo modprobe nvidia")
    state = "nvidia-smi --query-gpu=fabric.state,fabric.status --format=csv,noheader -i 0"
    assert bare.ssh("bare2", state).strip() == "In Progress, N/A"
    bare.ssh("bare2", "sudo systemctl enable --now nvidia-fabricmanager")
    assert bare.ssh("bare2", state).strip() == "Completed, Success"
    assert "NV18" in bare.ssh("bare2", "nvidia-smi topo -m")
    assert bare.ssh("bare2", "nvidia-smi nvlink -s").count("26.562 GB/s") == 144
    printed = bare.ssh("bare2", "nv-fabricmanager --version").strip()
    assert printed == f"Fabric Manager version is : {NEW}"
    assert "in use" in failed("bare2", "sudo modprobe -r nvidia")[1]
    driver_faults.fabric_manager("bare2", OLD)
    assert failed("bare2", "systemctl is-active nvidia-fabricmanager")[1].strip() == "failed"
    assert bare.ssh("bare2", state).strip() == "In Progress, N/A"
    # The unit has failed before the journal has taken what it said.
    bare.ssh("bare2", "sudo journalctl --sync")
    log = bare.ssh("bare2", "sudo journalctl -u nvidia-fabricmanager -o cat")
    assert f"interface version {OLD} don't match with driver version {NEW}" in log
    driver_faults.fabric_manager("bare2", None)
    assert failed("bare2", "nv-fabricmanager --version")[0] == 127
    driver_faults.fabric_manager("bare2", NEW)
    assert bare.ssh("bare2", state).strip() == "Completed, Success"
    hosts.reboot("bare2")
    assert bare.ssh("bare2", state).strip() == "Completed, Success"


def test_a_full_disk_stops_dpkg_and_can_be_mended(bare: Fleet):
    driver_faults.full_disk("bare1", "/usr/src", free_kib=256)
    assert "No space left on device" in failed("bare1", at(OLD))[1]
    driver_faults.disk_free("bare1", "/usr/src")
    bare.ssh("bare1", f"{APT} install -f && {at(OLD)}")
    assert bare.ssh("bare1", "/sbin/modinfo -F version nvidia").strip() == OLD


def test_power_lost_in_the_middle_of_an_upgrade(bare: Fleet):
    driver_faults.pause_install("bare1")
    bare.ssh("bare1", f"nohup sh -c '{at(NEW)}' >/dev/null 2>&1 </dev/null &")
    driver_faults.wait_for_pause("bare1")
    hosts.power_off("bare1")
    hosts.power_on("bare1")
    audit = bare.ssh("bare1", "sudo dpkg --audit")
    assert "nvidia-kernel-open-dkms" in audit
    assert not loaded(bare, "bare1")
    bare.ssh("bare1", f"sudo dpkg --configure -a && {at(NEW)} && sudo modprobe nvidia")
    assert NEW in bare.ssh("bare1", "nvidia-smi --version")
    assert bare.ssh("bare1", "sudo dpkg --audit") == ""


@pytest.mark.parametrize("state, words", [("missing", "404"), ("refused", "refused")])
def test_a_mirror_that_does_not_serve(bare: Fleet, state: str, words: str):
    driver_faults.mirror(state)
    try:
        asked = hosts.ssh("bare1", f"{APT} -o Acquire::Retries=0 update")
        assert words in asked.stdout + asked.stderr
    finally:
        driver_faults.mirror(Mirror.WELL)
    bare.ssh("bare1", f"{APT} -o APT::Update::Error-Mode=any update")


def test_held_kernels_stay(bare: Fleet):
    wanted = bare.ssh("bare1", f"{APT} -s dist-upgrade")
    assert f"Inst linux-image-{drivers.NEWER_KERNEL}" in wanted
    bare.ssh("bare1", "sudo apt-mark hold linux-image-amd64")
    assert "linux-image" not in bare.ssh("bare1", f"{APT} -s dist-upgrade | grep ^Inst || true")


def test_secure_boot_refuses_modules_without_a_signature(bare: Fleet):
    driver_faults.secure_boot("bare1")
    hosts.reboot("bare1")
    variable = "od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-*"
    assert bare.ssh("bare1", variable).split() == ["6", "0", "0", "0", "1"]
    assert "Key was rejected" in failed("bare1", "sudo modprobe nvidia")[1]
    driver_faults.secure_boot("bare1", False)
    hosts.reboot("bare1")
    assert "nvidia" in loaded(bare, "bare1")


def test_a_host_that_does_not_come_back_and_one_that_is_slow(bare: Fleet):
    before = hosts.boot_id("bare1")
    driver_faults.no_boot("bare1")
    hosts.ssh("bare1", "sudo systemctl reboot")
    options = ["-o", "ConnectTimeout=2"]
    line = hosts.ssh_command("bare1")
    while hosts.run_inside([*line[:-1], *options, line[-1], "true"]).returncode == 0:
        pass
    driver_faults.slow_boot("bare1", 1)
    driver_faults.boots("bare1")
    hosts.wait_for_boot("bare1", before)
    assert hosts.boot_id("bare1") != before


def test_the_balancer_can_be_a_jump_host(bare: Fleet):
    line = hosts.ssh_command("bare1")
    inner = " ".join(hosts.ssh_command("lb3")[:-1])
    proxy = f"{inner} -W %h:%p {hosts.ssh_command('lb3')[-1]}"
    done = hosts.run_inside(
        [*line[:-1], "-o", f"ProxyCommand={proxy}", line[-1], "echo $SSH_CLIENT"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(f"{hosts.host('lb3').address} "), done.stderr
