"""From bare hosts to GPUs that are ready to serve, and back from what goes wrong on the way."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import debs, driver_faults, drivers, hosts, keys
from tests.lab.conftest import Fleet, Run
from tests.lab.driver_faults import Mirror
from tests.lab.inventories import bare_inventory
from tests.lab.paths import LOGIN

OLD, NEW, NEXT = drivers.VERSIONS
MIRROR = "http://10.99.0.1:8080/cuda/repos"
GPUS = {"bare1": "2x NVIDIA L40S", "bare2": "8x NVIDIA H100 80GB HBM3"}
READY = {
    "bare1": "GPUs are ready: 2x NVIDIA L40S (46068 MiB), driver {} (open modules)",
    "bare2": "GPUs are ready: 8x NVIDIA H100 80GB HBM3 (81559 MiB), driver {0} (open modules), "
    "fabric manager {0}",
}


class Bare:
    """Both bare hosts, and the deploy that makes them ready."""

    def __init__(self, lab: Fleet, folder: Path):
        self.lab, self.folder = lab, folder
        self.is_ready = False
        """Whether a test has left both hosts with the old driver that serves."""

    def inventory(
        self,
        *names: str,
        ssh: dict[str, Any] | None = None,
        tuning: dict[str, Any] | None = None,
        gpus: bool = True,
        **settings: Any,
    ) -> Path:
        """An inventory of these hosts behind lb3, with settings of the driver and the tuning.

        Without `gpus` the hosts' GPUs have to be recorded.
        """
        driver = {
            "mirror": MIRROR,
            "mirror_key_file": str(debs.REPOSITORY_KEY),
            "version": OLD,
            "reboot": "when-needed",
        } | settings
        declared = {name: GPUS[name] if gpus else None for name in names or GPUS}
        return bare_inventory(
            self.folder / "bare.py", declared, driver, ssh=ssh, tuning=tuning or {}
        )

    def deploy(self, *names: str, upgrade: bool = False, **settings: Any) -> Run:
        """`pyinfra INVENTORY deploys/drivers.py -y` over these hosts."""
        more = ["--data", "upgrade_driver=true"] if upgrade else []
        file = self.inventory(*names, **settings)
        return self.lab.pyinfra(file, "deploys/drivers.py", "-y", *more)

    def well(self, run: Run, version: str, *names: str) -> None:
        """See that the run made these hosts ready, and what they say themselves."""
        assert run.status == 0, run.text
        for name in names or GPUS:
            message = re.findall(r"GPUs are ready: .*", run.text)
            assert READY[name].format(version) in message, run.text
            smi = "nvidia-smi --query-gpu=driver_version,persistence_mode --format=csv,noheader"
            assert set(self.lab.ssh(name, smi).splitlines()) == {f"{version}, Enabled"}

    def installed(self, name: str) -> dict[str, str]:
        """Versions of NVIDIA's packages on a host."""
        show = "dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n'"
        found = [line.split() for line in self.lab.ssh(name, show).splitlines()]
        return {name: version for state, name, version in found if state == "installed"}


@pytest.fixture(scope="module")
def bare(bare_lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """Bare hosts beside the lab's others."""
    with hosts.booted(*GPUS):
        yield Bare(bare_lab, tmp_path_factory.mktemp("bare"))
        driver_faults.mirror(Mirror.WELL)


@pytest.fixture(scope="module")
def first(bare: Bare) -> Run:
    """The first run over bare hosts, which may not reboot them."""
    return bare.deploy(reboot="never")


@pytest.fixture
def ready(bare: Bare, first: Run, request: pytest.FixtureRequest) -> Iterator[Bare]:
    """Both hosts with the old driver that serves, which each test sees to at its end.

    They are made ready again only where that test failed.
    """
    if not bare.is_ready:
        bare.well(bare.deploy(), OLD)
    bare.is_ready, failed = False, request.session.testsfailed
    yield bare
    bare.is_ready = request.session.testsfailed == failed


def test_what_cannot_be_is_refused_before_a_host_is_touched(bare: Bare):
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"version": None, "branch": 577},
            "driver.branch: branch 577 does not exist; there are 535",
        ),
        ({"version": "570.86.15"}, "driver.version: 570.86.15 is older than vllm 0.33.0 needs"),
    ]
    for settings, message in cases:
        run = bare.deploy(**settings)
        assert run.status == 1 and message in run.text and "Connecting" not in run.text, run.text


def test_a_host_that_must_not_reboot_says_that_it_needs_it(bare: Bare, first: Run):
    assert first.status == 1
    message = (
        "[bare1] needs a reboot (the kernel's nouveau driver still holds the GPUs). Allow it with"
    )
    assert message in first.text, first.text
    # A Hopper is none of nouveau's: its module is loaded at once.
    assert READY["bare2"].format(OLD) in first.text, first.text


def test_a_reboot_when_it_is_allowed_makes_it_ready_and_a_second_run_changes_nothing(bare: Bare):
    before = {name: hosts.boot_id(name) for name in GPUS}
    run = bare.deploy()
    bare.well(run, OLD)
    assert "[bare1] is rebooted: the kernel's nouveau driver still holds the GPUs" in run.text
    assert hosts.boot_id("bare1") != before["bare1"] and hosts.boot_id("bare2") == before["bare2"]
    again = bare.deploy()
    bare.well(again, OLD)
    assert again.changes == 0, again.text


def test_each_host_has_what_it_needs_and_no_more(ready: Bare):
    packages = ready.installed("bare1")
    assert "nvidia-fabricmanager" not in packages
    assert ready.installed("bare2")["nvidia-fabricmanager"] == f"{OLD}-1"
    held = set(ready.lab.ssh("bare1", "apt-mark showhold").split())
    assert {
        "nvidia-driver-cuda",
        "nvidia-kernel-open-dkms",
        f"linux-image-{drivers.KERNEL}",
    } <= held
    assert "nouveau" not in ready.lab.ssh("bare1", "ls /sys/module")


def test_an_upgrade_comes_when_it_is_asked_for(ready: Bare):
    assert ready.deploy(version=None, branch=580).changes == 0
    ready.well(ready.deploy(version=None, branch=580, upgrade=True), NEW)
    assert ready.installed("bare2")["nvidia-fabricmanager"] == f"{NEW}-1"
    assert ready.deploy(version=None, branch=580).changes == 0
    ready.well(ready.deploy(), OLD)


def test_a_partial_upgrade_is_brought_to_its_end(ready: Bare):
    driver_faults.partial_upgrade("bare1", NEW)
    assert hosts.ssh("bare1", "nvidia-smi").returncode
    ready.well(ready.deploy("bare1"), OLD, "bare1")


@pytest.mark.parametrize("version", [None, NEW])
def test_a_fabric_manager_that_is_missing_or_another_is_made_the_drivers(
    ready: Bare, version: str | None
):
    driver_faults.fabric_manager("bare2", version)
    ready.well(ready.deploy("bare2"), OLD, "bare2")
    assert ready.installed("bare2")["nvidia-fabricmanager"] == f"{OLD}-1"


def test_a_power_cut_in_an_upgrade_and_a_host_that_does_not_come_back_from_one(ready: Bare):
    # bare1 is lost in its reboot, bare2 in the middle of its upgrade.
    driver_faults.nouveau("bare1")
    hosts.reboot("bare1")
    driver_faults.no_boot("bare1")
    driver_faults.pause_install("bare2")
    # It must be long enough for the host to go down, which is all that it is given.
    file = ready.inventory(version=NEW, reboot_timeout_s=40)
    run = ready.lab.start(file, "deploys/drivers.py", "-y")
    driver_faults.wait_for_pause("bare2")
    hosts.power_off("bare2")
    output, _ = run.communicate(timeout=900)
    assert run.returncode == 1 and "Traceback" not in output, output
    message = re.search(
        r"\[bare1\] did not come back within 40 s of its reboot. Last seen: (.*)", output
    )
    assert message and re.search(r"after \d+ s: Could not connect", message[1]), output
    driver_faults.boots("bare1")
    hosts.power_on("bare2")
    hosts.wait_for_boot("bare1", "")
    ready.well(ready.deploy(version=NEW), NEW)
    ready.well(ready.deploy(), OLD)


def test_a_full_disk_is_named_and_the_old_driver_goes_on(ready: Bare):
    driver_faults.full_disk("bare1", "/usr/src")
    try:
        run = ready.deploy("bare1", version=NEW)
    finally:
        driver_faults.disk_free("bare1", "/usr/src")
    assert run.status == 1 and "the disk is full" in run.text, run.text
    ready.well(ready.deploy("bare1", version=NEW), NEW, "bare1")
    ready.well(ready.deploy("bare1"), OLD, "bare1")


def test_a_driver_that_serves_and_has_lost_its_module_is_made_whole(ready: Bare):
    """As the packages of an upgrade leave it that was cut off before it came to the libraries."""
    driver_faults.lose_module("bare1", OLD)
    before = hosts.boot_id("bare1")
    assert hosts.ssh("bare1", "modinfo nvidia").returncode
    ready.well(ready.deploy("bare1"), OLD, "bare1")
    assert hosts.boot_id("bare1") == before
    assert ready.deploy("bare1").changes == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (Mirror.MISSING, "HTTP 404"),
        (Mirror.REFUSED, "the connection was refused"),
    ],
)
def test_a_repository_that_does_not_answer_is_named_and_the_old_driver_goes_on(
    ready: Bare, state: Mirror, message: str
):
    driver_faults.mirror(state)
    try:
        run = ready.deploy("bare1", version=NEW)
        same = ready.deploy("bare1")
    finally:
        driver_faults.mirror(Mirror.WELL)
    assert run.status == 1 and message in run.text and MIRROR in run.text, run.text
    # Who wants nothing new needs no repository.
    ready.well(same, OLD, "bare1")


def test_a_version_that_the_repository_lacks_is_refused_with_those_that_it_has(ready: Bare):
    run = ready.deploy("bare1", version="580.65.06")
    assert run.status == 1 and OLD in run.text and NEW in run.text, run.text
    ready.well(ready.deploy("bare1"), OLD, "bare1")


def test_hosts_behind_a_jump_host_are_rebooted_too(ready: Bare):
    address = hosts.host("lb3").address
    config = ready.folder / "ssh_config"
    config.write_text(
        textwrap.dedent(
            f"""\
            Host {hosts.host("bare1").address}
                ProxyJump jump
            Host jump
                HostName {address}
                User {LOGIN}
                IdentityFile {keys.LOGIN_KEY}
                UserKnownHostsFile {keys.KNOWN_HOSTS}
            """
        )
    )
    driver_faults.nouveau("bare1")
    hosts.reboot("bare1")
    before = hosts.boot_id("bare1")
    run = ready.deploy("bare1", ssh={"ssh_config_file": str(config)})
    ready.well(run, OLD, "bare1")
    assert hosts.boot_id("bare1") != before


def test_a_recorded_host_gets_its_driver_and_its_record(ready: Bare):
    hosts.remove("bare1")
    hosts.add("bare1")
    file = ready.inventory("bare1", gpus=False)
    record = file.parent / "hardware" / "bare.yaml"
    found = ready.lab.pyinfra(file, "deploys/discover.py", "-y")
    assert found.status == 0 and "driver not installed" in found.text, found.text
    assert "driver_version" not in record.read_text()
    planned = ready.lab.pyinfra(file, "deploys/plan.py", "-y")
    assert planned.status == 0 and "no nvidia-smi" in planned.text, planned.text
    ready.well(ready.deploy("bare1", gpus=False), OLD, "bare1")
    text = record.read_text()
    assert f"driver_version: {OLD}" in text and "links:" in text
    assert ready.deploy("bare1", gpus=False).changes == 0
    assert record.read_text() == text
    record.unlink()


def test_slices_and_power_limits_are_set_kept_over_a_boot_and_taken_back(ready: Bare):
    sliced = {"mig": {0: ["3g.40gb", "3g.40gb"]}, "power_limit_w": 500}
    run = ready.deploy("bare2", tuning=sliced)
    assert run.status == 0, run.text
    limits = "nvidia-smi --query-gpu=power.limit --format=csv,noheader"
    for is_rebooted in (False, True):
        if is_rebooted:
            hosts.reboot("bare2")
        listed = ready.lab.ssh("bare2", "nvidia-smi -L")
        assert listed.count("MIG 3g.40gb") == 2, listed
        assert set(ready.lab.ssh("bare2", limits).splitlines()) == {"500.00 W"}
        again = ready.deploy("bare2", tuning=sliced)
        assert again.status == 0 and again.changes == 0, again.text
    run = ready.deploy("bare2", tuning=sliced | {"power_limit_w": 1900})
    assert run.status == 1 and re.search(r"power.*1900.*\d+.*\d+", run.text), run.text
    run = ready.deploy("bare2", tuning={"mig": sliced["mig"]})
    assert run.status == 0, run.text
    assert set(ready.lab.ssh("bare2", limits).splitlines()) == {"700.00 W"}


def test_secure_boot_stops_a_host_with_the_steps(bare: Bare):
    driver_faults.secure_boot("bare1")
    hosts.remove("bare1")
    hosts.add("bare1")
    driver_faults.secure_boot("bare1")
    hosts.reboot("bare1")
    run = bare.deploy("bare1")
    assert run.status == 1 and "Secure Boot" in run.text and "mokutil" in run.text, run.text
    assert not [name for name in bare.installed("bare1") if "nvidia" in name]
