"""What the operations do, by what a host says; no host is contacted."""

import base64
import subprocess
from typing import Any

import pytest

from roles.driver import operations
from roles.driver.decision import DriverRequest
from roles.driver.facts import AvailablePackages, DriverReport, FetchedKey, Refusal
from roles.driver.files import IB_UMAD, NOUVEAU
from roles.driver.job import Job

from .hosts import DEBIAN, KEY_FILE, KEY_FINGERPRINT, NEEDS, installed, request, state
from .operating import (
    APT,
    KNOWN,
    MIRROR,
    OFFERED,
    REPOSITORY,
    STEPS,
    Host,
    available,
    on,
    run,
    script_of,
)


def test_a_bare_host_gets_repository_packages_and_what_keeps_nouveau_away():
    host = Host(state(), AvailablePackages=available())
    wanted = request(**MIRROR)
    job = Job(wanted)
    with on(host):
        assert list(operations.possible._inner(job=job)) == []
        assert list(operations.finished._inner(job=job)) == []
        (command,) = operations.repository._inner(job=job)
        put = script_of(command)
        assert f'install -D -m 644 "$STAGE"{REPOSITORY.path}' in put
        assert 'update -o Dir::Etc::SourceList="$STAGE/check.list"' in put
        (command,) = operations.installed._inner(job=job)
        assert script_of(command).splitlines()[5:7] == [
            f"{APT} linux-headers-6.1.0-37-amd64",
            f"{APT} nvidia-driver-cuda=580.105.08-1 nvidia-kernel-open-dkms=580.105.08-1 "
            "nvidia-persistenced=580.105.08-1 dkms",
        ]
    # The index was just read for the repository: it is not read again.
    assert [message for fact, message in host.asked if fact is AvailablePackages] == [
        {
            "packages": [
                *("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"),
                *("dkms", "linux-headers-6.1.0-37-amd64"),
                *("linux-image-amd64", "linux-headers-amd64"),
            ],
            "stream": None,
            "refresh": False,
        }
    ]


def test_what_was_installed_is_blocked_held_and_loaded():
    seen = state(
        installed(held=False),
        loaded="",
        in_kernel="",
        answers="",
        nvidia_persistenced="LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled",
    )
    done = run(Host(seen), request(**MIRROR))
    assert len(done) == 4
    assert NOUVEAU.path in done[0] and done[0].endswith("run update-initramfs -u -k all")
    assert done[1:] == [
        "run apt-mark hold libcuda1 linux-image-6.1.0-37-amd64 linux-image-amd64 "
        "nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced",
        "run modprobe nvidia; modprobe nvidia-uvm >/dev/null 2>&1; true",
        # The module is not seen to be loaded yet.
        "run systemctl enable nvidia-persistenced",
    ]


@pytest.mark.parametrize("more", [MIRROR, {}, {"install": "never"}, {"branch": 580}])
def test_a_second_run_does_nothing_and_asks_once(more: dict[str, Any]):
    host = Host(state(installed()))
    assert run(host, request(**more)) == []
    assert [fact for fact, _ in host.asked] == [DriverReport]


def test_a_driver_that_waits_for_its_reboot_is_left_alone():
    files = f"{KNOWN['files']}\n{NOUVEAU.state} {NOUVEAU.path}"
    seen = state(
        installed(),
        loaded="",
        in_kernel="nouveau ",
        answers="",
        files=files,
        keys=KNOWN["keys"],
        nvidia_persistenced="LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled",
    )
    assert run(Host(seen), request(**MIRROR)) == []


@pytest.mark.parametrize(
    ("host", "done"),
    [
        # The image's own driver is good enough: it is held, and its daemon runs.
        (
            installed(
                held=False,
                nvidia_persistenced="LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled",
            ),
            [
                "run apt-mark hold libcuda1 linux-image-6.1.0-37-amd64 linux-image-amd64 "
                "nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced",
                "run systemctl enable nvidia-persistenced\nrun systemctl start nvidia-persistenced",
            ],
        ),
        # So is one that no package brought.
        (
            DEBIAN
            | {"outside": "/usr/bin/nvidia-uninstall", "module": "580.95.05"}
            | {"answers": "580.95.05", "loaded": "580.95.05", "in-kernel": "nvidia "},
            [],
        ),
    ],
)
def test_a_driver_that_serves_stays(host: dict[str, str], done: list[str]):
    assert run(Host(state(host)), request()) == done


@pytest.mark.parametrize(
    ("seen", "wanted", "message"),
    [
        (
            state(DEBIAN, secure_boot="SecureBoot enabled"),
            request(),
            "driver: Secure Boot is on, and the kernel would reject modules",
        ),
        (
            state(DEBIAN, outside="/usr/bin/nvidia-uninstall", answers="550.54.15"),
            request(),
            "driver: 550.54.15 was installed outside of packages (NVIDIA's .run installer or by "
            "hand) and is older than vllm 0.33.0 needs (580); packages must not be installed over "
            "it. Remove it with nvidia-uninstall, reboot, and deploy again",
        ),
        (
            state(DEBIAN, free="/dev/sda1 409600 /\n/dev/sda1 409600 /\n/dev/sda1 409600 /"),
            request(),
            "driver: 400 MiB are free on / (/usr, /boot, /var), and the driver needs 2300; make "
            "room (apt-get clean, old kernels, logs) and deploy again",
        ),
        (
            state(DEBIAN, free="/dev/sda2 9999999 /\n/dev/sda1 51200 /boot\n/dev/sda2 9999999 /"),
            request(),
            "driver: 50 MiB are free on /boot (/boot), and the driver needs 100; make room "
            "(apt-get clean, old kernels, logs) and deploy again",
        ),
        (
            state(DEBIAN, os="fedora 42 x86_64"),
            request(),
            "driver: fedora 42 (x86_64) is not supported",
        ),
    ],
)
def test_a_host_that_cannot_be_helped_is_stopped_first(
    seen: Any, wanted: DriverRequest, message: str
):
    (error,) = run(Host(seen), wanted)
    assert error.startswith(message)


@pytest.mark.parametrize(
    ("fetched", "message"),
    [
        ((False, "404 Not Found"), "3bf863cc.pub could not be fetched: 404 Not Found; check"),
        ((True, "PGh0bWw+"), "3bf863cc.pub: not a signing key"),
        (
            (True, base64.b64encode(KEY_FILE.read_bytes()).decode()),
            f"3bf863cc.pub has the key {KEY_FINGERPRINT}, EB693B3035CD5710E231E123A4B469963BF863CC "
            "was expected; nothing is installed from there",
        ),
    ],
)
def test_a_key_that_is_not_nvidias_is_refused(fetched: tuple[bool, str], message: str):
    (error,) = run(Host(state(), FetchedKey=fetched), request(mirror="http://m"))
    assert message in error


def test_a_version_that_nobody_offers_is_refused_with_what_there_is():
    seen = state(installed("570.172.08"), **KNOWN)
    offered = {name: ["570.172.08-1"] for name in OFFERED if name.startswith("nvidia")}
    (error,) = run(Host(seen, AvailablePackages=available(offered)), request(**MIRROR), *STEPS[:5])
    assert error == (
        "driver.branch: http://m/repos/debian12/x86_64 has no version of branch 580 of all "
        "packages of the driver; it has nvidia-driver-cuda: 570.172.08; nvidia-kernel-open-dkms: "
        "570.172.08; nvidia-persistenced: 570.172.08. Choose one of these, or another "
        "driver.source or driver.mirror"
    )


def test_without_headers_of_the_running_kernel_the_newest_kernel_comes():
    kernel = {"linux-image-amd64": ["6.1.147-1"], "linux-headers-amd64": ["6.1.147-1"]}
    offered = {name: v for name, v in OFFERED.items() if not name.startswith("linux-")} | kernel
    host = Host(state(DEBIAN, **KNOWN), AvailablePackages=available(offered))
    (script,) = run(host, request(**MIRROR), "installed")
    assert f"{APT} linux-image-amd64 linux-headers-amd64" in script.splitlines()
    host = Host(
        state(DEBIAN, **KNOWN),
        AvailablePackages=available({**offered, **{name: [] for name in kernel}}),
    )
    (error,) = run(host, request(**MIRROR), "installed")
    assert error.startswith("driver: no repository of this host has linux-headers-6.1.0-37-amd64")


SWITCHES = {"switches": "0000:05:00.0\n0000:06:00.0"}
FABRIC = "LoadState=loaded\nActiveState={}\nUnitFileState=enabled"


@pytest.mark.parametrize(
    ("parts", "done"),
    [
        (SWITCHES, ["nvidia-fabricmanager=580.95.05-1"]),
        # Another version than the driver's does not start.
        (
            {
                **SWITCHES,
                "nvidia-fabricmanager": FABRIC.format("active"),
                "fabric-manager-version": "Fabric Manager version is : 580.105.08",
            },
            ["nvidia-fabricmanager=580.95.05-1", "run systemctl try-restart nvidia-fabricmanager"],
        ),
        (
            {
                **SWITCHES,
                "nvidia-fabricmanager": FABRIC.format("active"),
                "fabric-manager-version": "Fabric Manager version is : 580.95.05",
            },
            [],
        ),
        (
            {
                **SWITCHES,
                "nvidia-fabricmanager": FABRIC.format("failed"),
                "fabric-manager-version": "Fabric Manager version is : 580.95.05",
            },
            ["run systemctl start nvidia-fabricmanager"],
        ),
        # Only hosts with NVSwitches get one.
        ({}, []),
    ],
)
def test_a_fabric_manager_of_the_drivers_version(parts: dict[str, str], done: list[str]):
    seen = state(installed() | parts, **KNOWN)
    host = Host(seen, AvailablePackages=available())
    found = run(host, request("8x NVIDIA H100 80GB HBM3", **MIRROR))
    lines = [line for script in found for line in script.splitlines()]
    assert len(found) == bool(done)
    for part in done:
        assert any(line == part or line.endswith(f" {part}") for line in lines)
    assert not any("nvidia-driver-cuda" in line for line in lines)


def test_preferences_come_with_the_repository_of_a_fabric_manager():
    host = Host(state(installed() | SWITCHES))
    wanted = request("8x NVIDIA H100 80GB HBM3", **MIRROR)
    (script,) = run(host, wanted, "repository")
    lines = script.splitlines()
    pinned = next(n for n, line in enumerate(lines) if line == "Pin: version 580.95.05-*")
    put = f'install -D -m 644 "$STAGE"{REPOSITORY.path} '
    assert "/etc/apt/preferences.d/llm-nvidia" in script
    assert pinned < next(n for n, line in enumerate(lines) if line.startswith(put))


def test_b200_gets_its_subnet_manager_too():
    offered = OFFERED | {name: ["1"] for name in ("nvlsm", "infiniband-diags", "libibumad3")}
    seen = state(installed(), **KNOWN)
    wanted = request("8x NVIDIA B200", **MIRROR)
    script, *_ = run(Host(seen, AvailablePackages=available(offered)), wanted)
    assert f"{APT} nvidia-fabricmanager=580.95.05-1 nvlsm infiniband-diags libibumad3" in script
    there = installed()
    there["packages"] += "\nnvidia-fabricmanager 580.95.05-1 ii \nnvlsm 1 ii "
    there["nvidia-fabricmanager"] = FABRIC.format("active")
    (script,) = run(Host(state(there, **KNOWN)), wanted, "serving")
    assert IB_UMAD.path in script and "modprobe ib_umad" in script


def test_a_host_without_gpus_or_without_a_word_is_left_alone():
    assert run(Host(state()), DriverRequest(request().settings, NEEDS, ())) == []
    assert run(Host(None), request()) == []


def test_a_dry_run_fetches_nothing():
    host = Host(state())
    host.state.is_executing = False
    job = Job(request())
    with on(host):
        for step in STEPS:
            next(iter(getattr(operations, step)._inner(job=job)), None)
    assert {fact for fact, _ in host.asked} == {DriverReport}


def test_a_host_is_asked_again_when_the_run_executes():
    host = Host(state(installed()))
    host.state.is_executing = False
    job = Job(request())
    with on(host):
        list(operations.possible._inner(job=job))
        host.state.is_executing = True
        list(operations.possible._inner(job=job))
        list(operations.held._inner(job=job))
    assert len(host.asked) == 2


APT_LISTS = [
    "error E: Failed to fetch http://m/  404",
    "nvidia-driver-cuda | 580.95.05-1 | http://m/repos/debian12/x86_64  Packages",
    "nvidia-driver-cuda | 580.105.08-1 | http://m/repos/debian12/x86_64  Packages",
    "asked",
]


DNF_LISTS = [
    "kernel-devel | 5.14.0-570.12.1.el9_6 | x86_64",
    "nvidia-driver-cuda | 580.95.05-1.el9 | x86_64",
    "asked",
]


def test_the_versions_that_repositories_have():
    found, errors = AvailablePackages().process(APT_LISTS)
    assert found["nvidia-driver-cuda"] == ["580.105.08-1", "580.95.05-1"]
    assert errors == "E: Failed to fetch http://m/  404"
    found, errors = AvailablePackages().process(DNF_LISTS)
    assert found["kernel-devel-5.14.0-570.12.1.el9_6.x86_64"] == ["5.14.0-570.12.1.el9_6"]
    assert (found["nvidia-driver-cuda"], errors) == (["580.95.05-1.el9"], "")
    assert AvailablePackages().process(["asked"]) == ({}, "")


def test_the_facts_commands_are_of_a_posix_shell():
    for command in (
        AvailablePackages().command(["a", "b"], "nvidia-driver:580-open", True),
        AvailablePackages().command(["a"]),
        FetchedKey().command("https://m/key?a b"),
        Refusal().command(["a=1", "b"]),
        DriverReport().command(),
    ):
        done = subprocess.run(["dash", "-n"], input=command.encode(), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
    assert FetchedKey().process(["key QQ=="]) == (True, "QQ==")
    assert FetchedKey().process(["failed 404  Not Found "]) == (False, "404  Not Found")
