"""What the operations do where a driver is there already, and where it serves replicas."""

from typing import Any

import pytest

from roles.driver import operations, scripts
from roles.driver.decision import DriverRequest
from roles.driver.facts import DriverReport
from roles.driver.job import Job

from .hosts import DEBIAN, installed, request, state
from .operating import APT, KNOWN, MIRROR, OFFERED, STEPS, Host, available, on, run

LOST: dict[str, str] = {"module": "", "modules": "", "open_modules": ""}
REPLICAS = {"replicas": "llm-engine@a.service"}


def test_a_module_that_was_lost_is_built_again_even_under_replicas():
    host = Host(state(installed(), **LOST, **REPLICAS))
    (script,) = run(host, request())
    assert "dkms install -m" in script and "apt-get" not in script
    job = Job(request())
    with on(host):
        list(operations.possible._inner(job=job))
        # It needs no turn, nor any reboot.
        assert not job.to_do and job.reboot_reasons() == ()


def check_driver(seen: Any, wanted: DriverRequest, offered: Any = None) -> tuple[Job, Host]:
    host, job = Host(seen, AvailablePackages=available(offered)), Job(wanted)
    with on(host):
        assert list(operations.possible._inner(job=job)) == []
    return job, host


def test_what_needs_no_turn_under_replicas():
    """Else the host would be drained, or refused where it must not be rebooted."""
    newest = {name: ["580.95.05-1"] for name in OFFERED if name.startswith("nvidia")}
    newest |= {"linux-image-amd64": ["6.1.140-1"]}
    serving = state(installed(), **KNOWN, **REPLICAS)
    assert not check_driver(serving, request(upgrade=True, **MIRROR), newest)[0].to_do
    assert check_driver(serving, request(upgrade=True, **MIRROR))[0].to_do
    # What a repository has that is not set up yet is not known.
    unknown = state(installed(), **REPLICAS)
    assert check_driver(unknown, request(upgrade=True, **MIRROR), newest)[0].to_do
    # A fabric manager is put beside a driver that stays.
    switches = state(installed(), **REPLICAS, switches="0000:05:00.0")
    assert not check_driver(switches, request("8x NVIDIA H100 80GB HBM3"))[0].to_do


def test_no_driver_is_replaced_where_the_next_kernel_gets_none():
    """After the reboot that it needs the host would have no driver at all."""
    loadable_version = {"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64"}
    old = state(installed("570.172.08"), **KNOWN, **loadable_version)
    message = run(Host(old, AvailablePackages=available()), request(**MIRROR), "installed")
    assert message[0].startswith("driver: kernel 6.1.0-40-amd64 boots next, and no repository of")
    # A newer kernel comes with its headers, though it is held.
    names = ("linux-image-amd64", "linux-headers-amd64")
    offered = OFFERED | {name: ["6.1.153-1"] for name in names}
    (script,) = run(Host(old, AvailablePackages=available(offered)), request(**MIRROR), "installed")
    assert f"{APT} linux-image-amd64 linux-headers-amd64" in script
    assert "run apt-mark unhold libcuda1 linux-image-amd64 nvidia-driver-cuda" in script
    # Where nothing is loaded no reboot is needed.
    bare = Host(state(DEBIAN, **KNOWN, **loadable_version), AvailablePackages=available())
    assert "nvidia-driver-cuda=" in run(bare, request(**MIRROR), "installed")[0]


def test_a_driver_that_was_replaced_by_half_is_not_made_whole_under_replicas():
    another = {"module": "580.105.08", "modules": f"{DEBIAN['kernel']} 580.105.08"}
    packages = installed()["packages"].replace("open-dkms 580.95.05", "open-dkms 580.105.08")
    seen = state(installed(), **KNOWN, **another, **REPLICAS, packages=packages)
    host = Host(seen, AvailablePackages=available())
    (message,) = run(host, request(**MIRROR), *STEPS[:5])
    assert message.startswith(
        "driver: 580.95.05 is loaded and serves, and its module on the disk is 580.105.08;"
    )
    done = run(host, request(**MIRROR, reboot="when-needed"), *STEPS[:5])
    assert "nvidia-driver-cuda=580.105.08-1" in done[0]


def test_an_old_driver_is_unheld_and_replaced():
    seen = state(installed("570.172.08"), **KNOWN)
    done = run(Host(seen, AvailablePackages=available()), request(**MIRROR), *STEPS[:5])
    assert len(done) == 1
    lines = done[0].splitlines()
    assert lines[5:7] == [
        "run apt-mark unhold libcuda1 nvidia-driver-cuda nvidia-kernel-open-dkms "
        "nvidia-persistenced",
        f"{APT} nvidia-driver-cuda=580.105.08-1 nvidia-kernel-open-dkms=580.105.08-1 "
        "nvidia-persistenced=580.105.08-1",
    ]


def test_a_half_done_upgrade_is_brought_to_its_end():
    packages = "\n".join(
        (
            "libcuda1 580.105.08-1 ii ",
            "nvidia-driver-cuda 580.105.08-1 iU ",
            "nvidia-kernel-open-dkms 580.95.05-1 ii ",
            "nvidia-persistenced 580.95.05-1 ii ",
            "dkms 3 ii ",
        )
    )
    offered = {
        name: [*versions, "580.126.09-1"] if name.startswith("nvidia") else versions
        for name, versions in OFFERED.items()
    }
    seen = state(installed(), packages=packages, answers="", **KNOWN)
    done = run(Host(seen, AvailablePackages=available(offered)), request(**MIRROR), *STEPS[:5])
    assert len(done) == 2
    configure = "dpkg --force-confdef --force-confold --configure -a"
    # Of the modules that the libraries recommend the first are the proprietary ones.
    options = "--no-install-recommends --allow-downgrades"
    repair = f"{scripts.APT} -f install --no-remove {options}"
    assert done[0].splitlines() == [
        f'{configure} >"$log" 2>&1 </dev/null || :',
        "run apt-mark unhold libcuda1 nvidia-driver-cuda nvidia-kernel-open-dkms "
        "nvidia-persistenced",
        f'{repair} >"$log" 2>&1 </dev/null || :',
        f"run {configure}",
    ]
    # To the version that was begun, not to the newest.
    assert "nvidia-kernel-open-dkms=580.105.08-1" in done[1]


def test_what_somebody_else_left_undone_is_no_matter_of_a_driver_that_serves():
    assert run(Host(state(installed(), interrupted="vim")), request()) == []


def upgrade(offered: dict[str, list[str]] | None = None, errors: str = "", **more: str):
    seen = state(installed(), **KNOWN, **more)
    host = Host(seen, AvailablePackages=available(offered, errors))
    return run(host, request(upgrade=True, **MIRROR), "installed"), host


def test_driver_and_kernel_are_upgraded_together_on_request():
    kernel = {"linux-image-amd64": ["6.1.147-1", "6.1.140-1"]}
    (script,), host = upgrade(OFFERED | kernel)
    lines = script.splitlines()
    assert lines[5] == (
        "run apt-mark unhold libcuda1 linux-image-amd64 nvidia-driver-cuda "
        "nvidia-kernel-open-dkms nvidia-persistenced"
    )
    assert lines[6].startswith(f"{APT} nvidia-driver-cuda=580.105.08-1 ")
    assert lines[6].endswith(" linux-image-amd64")
    assert "/run/llm-kernel-upgraded" in lines[7]
    assert host.asked[-1][1]["refresh"] is True


def test_a_newer_kernel_comes_with_its_headers():
    kernel = {name: ["6.1.147-1", "6.1.140-1"] for name in ("linux-image-amd64",)}
    (script,), _ = upgrade(OFFERED | kernel | {"linux-headers-amd64": ["6.1.147-1"]})
    lines = script.splitlines()
    assert lines[6] == f"{APT} linux-headers-amd64"
    assert lines[7].endswith(" linux-image-amd64")


def test_a_kernel_that_boots_next_gets_its_headers_too():
    two = {"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64"}
    offered = OFFERED | {"linux-headers-6.1.0-40-amd64": ["6.1.153-1"]}
    host = Host(state(DEBIAN, **two, **KNOWN), AvailablePackages=available(offered))
    (script,) = run(host, request(**MIRROR), "installed")
    assert f"{APT} linux-headers-6.1.0-37-amd64 linux-headers-6.1.0-40-amd64" in script
    # A module for the running kernel alone is not enough where another can be built.
    both = "6.1.0-37-amd64\n6.1.0-40-amd64"
    idle = {**two, "loaded": "", "in_kernel": "", "answers": ""}
    seen = state(installed(), **idle, headers=both, **KNOWN)
    assert run(Host(seen, AvailablePackages=available()), request(**MIRROR), "installed")
    seen = state(installed(), **idle, **KNOWN)
    assert not run(Host(seen, AvailablePackages=available()), request(**MIRROR), "installed")


def test_an_upgrade_that_finds_nothing_newer_does_nothing():
    same = {name: ["580.95.05-1"] for name in OFFERED if name.startswith("nvidia")}
    done, host = upgrade(same | {"linux-image-amd64": ["6.1.140-1"]})
    assert done == []
    assert host.noops == ["the driver's packages are the newest"]


def test_an_upgrade_never_installs_an_older_version():
    older = {name: ["580.82.07-1"] for name in OFFERED if name.startswith("nvidia")}
    done, host = upgrade(older | {"linux-image-amd64": ["6.1.147-1"]})
    assert (done, host.noops) == ([], ["the driver's packages are the newest"])


def test_an_upgrade_whose_index_cannot_be_read_says_so():
    errors = "E: Failed to fetch http://m/repos/debian12/x86_64/InRelease  404  Not Found"
    done, _ = upgrade(None, errors)
    assert done[0] == "driver: http://m/repos/debian12/x86_64/InRelease cannot be read"
    assert done[1] == errors
    assert "HTTP 404" in done[2]


UNIT = "llm-engine@a.service"
OLD = installed("570.172.08")


@pytest.mark.parametrize(
    ("parts", "settings", "stopped"),
    [
        ({"replicas": UNIT}, {}, True),
        # Where nothing of ours runs, the installation goes ahead; a reboot is asked for later.
        ({}, {}, False),
        ({"replicas": UNIT}, {"reboot": "when-needed"}, False),
        # Nothing is loaded that could not be swapped.
        ({"replicas": UNIT, "loaded": "", "in_kernel": "", "answers": ""}, {}, False),
        ({"replicas": UNIT, "answers": ""}, {}, True),
    ],
)
def test_a_driver_in_use_is_not_replaced(parts: dict[str, str], settings: Any, stopped: bool):
    host = Host(state(OLD, **parts, **KNOWN), AvailablePackages=available())
    done = run(host, request(**MIRROR, **settings), *STEPS[:5])
    assert len(done) == 1
    assert done[0].startswith("driver: 570.172.08 is loaded and is older than vllm") is stopped
    if stopped:
        assert 'driver.reboot: "when-needed"' in done[0] and UNIT in done[0]
        assert [fact for fact, _ in host.asked] == [DriverReport]


def test_an_upgrade_of_a_driver_in_use_is_refused_where_there_is_a_newer_one():
    (error,), _ = upgrade(OFFERED, replicas=UNIT)
    assert error.startswith("driver: 580.95.05 is loaded and is not the newest, which upgrade_dr")
    same = {name: ["580.95.05-1"] for name in OFFERED if name.startswith("nvidia")}
    done, host = upgrade(same, replicas=UNIT)
    assert (done, host.noops) == ([], ["the driver's packages are the newest"])


@pytest.mark.parametrize(
    ("parts", "settings", "to_do"),
    [
        (installed(), {}, False),
        (installed(), {"upgrade": True}, True),
        (OLD, {}, True),
        (DEBIAN, {}, True),
        # It has only to be loaded.
        (installed(loaded="", in_kernel="", answers=""), {}, False),
        (installed(loaded="", in_kernel="nouveau ", answers=""), {}, True),
        # A newer kernel had better boot, which takes no change of the driver.
        (
            installed(
                kernels="6.1.0-40-amd64",
                kernel_upgraded="6.1.0-40-amd64",
                modules="6.1.0-37-amd64 580.95.05\n6.1.0-40-amd64 580.95.05",
            ),
            {"reboot": "when-needed"},
            False,
        ),
    ],
)
def test_what_is_to_do_is_known_before(parts: dict[str, str], settings: Any, to_do: bool):
    host, job = Host(state(parts)), Job(request(**settings))
    with on(host):
        assert list(operations.possible._inner(job=job)) == []
    assert job.to_do is to_do


def test_nothing_is_done_before_a_hosts_turn():
    host = Host(state(OLD, **KNOWN), AvailablePackages=available())
    job, steps = Job(request(**MIRROR)), [*STEPS[1:], "serving"]
    steps.remove("rebuilt")
    with on(host):
        for step in steps:
            assert list(getattr(operations, step)._inner(job=job, may_change=lambda: False)) == []
        assert host.asked == []
        assert list(operations.installed._inner(job=job, may_change=lambda: True))
