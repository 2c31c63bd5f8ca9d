"""What the operations do, by what a host says; no host is contacted."""

import base64
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyinfra.api import FunctionCommand
from pyinfra.context import ctx_host, ctx_state

from roles.driver import operations, scripts
from roles.driver.decision import Request
from roles.driver.facts import AvailablePackages, DriverReport, FetchedKey, Refusal
from roles.driver.job import IB_UMAD, NOUVEAU, Job
from roles.driver.packages import nvidia_repository
from roles.files import HostFile

from .hosts import (
    DEBIAN,
    KEY_FILE,
    KEY_FINGERPRINT,
    NEEDS,
    ROCKY,
    UBUNTU,
    installed,
    request,
    state,
)

STEPS = (
    "possible",
    "finished",
    "rebuilt",
    "repository",
    "installed",
    "nouveau_blocked",
    "held",
    "loaded",
)
MIRROR: dict[str, Any] = {"mirror": "http://m/repos", "mirror_key_file": KEY_FILE}
OFFERED = {
    name: ["580.105.08-1", "580.95.05-1", "570.172.08-1"]
    for name in (
        *("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"),
        "nvidia-fabricmanager",
    )
} | {"dkms": ["3.0.10-8"], "linux-headers-6.1.0-37-amd64": ["6.1.140-1"]}


class Host:
    """Answers facts by their class, and keeps what was not done and what was asked."""

    def __init__(self, seen: Any, **facts: Any):
        self.name, self.state = "gpu1", State()
        self.facts = {DriverReport: seen, **{globals()[name]: f for name, f in facts.items()}}
        self.noops: list[str] = []
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.errors: list[str] = []

    def get_fact(self, fact: Any, **arguments: Any) -> Any:
        self.asked.append((fact, arguments))
        return self.facts[fact]

    def noop(self, why: str) -> None:
        self.noops.append(why)

    def log_styled(self, text: str, **_: Any) -> None:
        self.errors.append(text)


class State:
    def __init__(self) -> None:
        self.is_executing = True


@contextmanager
def on(host: Host) -> Iterator[None]:
    with ctx_host.use(host), ctx_state.use(host.state):  # type: ignore[arg-type]
        yield


def run(host: Host, wanted: Request, *steps: str) -> list[str]:
    """The commands of all operations, or of some; a failure as what it tells."""
    job, done = Job(wanted), []
    with on(host):
        for step in steps or (*STEPS, "serving"):
            for command in getattr(operations, step)._inner(job=job):
                if isinstance(command, FunctionCommand):
                    assert command.function(host.state, host, *command.args) is False
                    return [*done, *host.errors]
                done.append(script_of(command))
    return done


def script_of(command: Any) -> str:
    """What of a shell command differs from the others: without the part that tells errors."""
    shell, option, script = shlex.split(str(command))
    assert (shell, option) == ("sh", "-c")
    assert subprocess.run(["dash", "-n"], input=script.encode()).returncode == 0
    lines = script.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("run()"))
    return "\n".join(lines[start + 1 :])


def available(offered: Any = None, errors: str = "") -> Any:
    return (OFFERED if offered is None else offered, errors)


APT = f"run {scripts.APT} install --no-install-recommends --allow-downgrades"
REPOSITORY = nvidia_repository(state().system, "http://m/repos", own_key=True)
KNOWN = {
    "files": f"{HostFile(REPOSITORY.path, REPOSITORY.content).state} {REPOSITORY.path}",
    "keys": f"{REPOSITORY.key_path} {base64.b64encode(KEY_FILE.read_bytes()).decode()}",
}


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
    assert [told for fact, told in host.asked if fact is AvailablePackages] == [
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


def considered(seen: Any, wanted: Request, offered: Any = None) -> tuple[Job, Host]:
    host, job = Host(seen, AvailablePackages=available(offered)), Job(wanted)
    with on(host):
        assert list(operations.possible._inner(job=job)) == []
    return job, host


def test_what_needs_no_turn_under_replicas():
    """Else the host would be drained, or refused where it must not be rebooted."""
    newest = {name: ["580.95.05-1"] for name in OFFERED if name.startswith("nvidia")}
    newest |= {"linux-image-amd64": ["6.1.140-1"]}
    serving = state(installed(), **KNOWN, **REPLICAS)
    assert not considered(serving, request(upgrade=True, **MIRROR), newest)[0].to_do
    assert considered(serving, request(upgrade=True, **MIRROR))[0].to_do
    # What a repository has that is not set up yet is not known.
    unknown = state(installed(), **REPLICAS)
    assert considered(unknown, request(upgrade=True, **MIRROR), newest)[0].to_do
    # A fabric manager is put beside a driver that stays.
    switches = state(installed(), **REPLICAS, switches="0000:05:00.0")
    assert not considered(switches, request("8x NVIDIA H100 80GB HBM3"))[0].to_do


def test_no_driver_is_replaced_where_the_next_kernel_gets_none():
    """After the reboot that it needs the host would have no driver at all."""
    waiting = {"kernels": "6.1.0-40-amd64\n6.1.0-37-amd64"}
    old = state(installed("570.172.08"), **KNOWN, **waiting)
    told = run(Host(old, AvailablePackages=available()), request(**MIRROR), "installed")
    assert told[0].startswith("driver: kernel 6.1.0-40-amd64 boots next, and no repository of")
    # A newer kernel comes with its headers, though it is held.
    names = ("linux-image-amd64", "linux-headers-amd64")
    offered = OFFERED | {name: ["6.1.153-1"] for name in names}
    (script,) = run(Host(old, AvailablePackages=available(offered)), request(**MIRROR), "installed")
    assert f"{APT} linux-image-amd64 linux-headers-amd64" in script
    assert "run apt-mark unhold libcuda1 linux-image-amd64 nvidia-driver-cuda" in script
    # Where nothing is loaded no reboot is needed.
    bare = Host(state(DEBIAN, **KNOWN, **waiting), AvailablePackages=available())
    assert "nvidia-driver-cuda=" in run(bare, request(**MIRROR), "installed")[0]


def test_an_amdgpu_that_is_too_old_for_its_cards_is_upgraded():
    packages = "amdgpu-dkms 1:6.3.6-1 ii \namd-smi-lib 26 ii "
    same = {"amdgpu_source": "A5", "amdgpu_loaded": "A5", "in_kernel": "amdgpu "}
    module = f"{UBUNTU['kernel']} /lib/modules/x/updates/dkms/amdgpu.ko"
    seen = state(UBUNTU, packages=packages, amdgpu_modules=module, headers=UBUNTU["kernel"], **same)
    offered = {"amdgpu-dkms": ["1:6.16.13-1"], "amd-smi-lib": ["26"]}
    names = "linux-headers-6.8.0-79-generic", "linux-modules-extra-6.8.0-79-generic"
    host = Host(seen, AvailablePackages=available(offered | {name: ["1"] for name in names}))
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.startswith("echo 1:6.16.13-1 >/run/llm-amdgpu-upgraded\n")
    assert "amdgpu-dkms=1:6.16.13-1" in script and "amd-smi-lib" not in script
    # Headers may be there without the rest of what it takes.
    assert f"{APT} linux-modules-extra-6.8.0-79-generic" in script
    # Where that is the newest, nothing is done.
    for other in ("1:6.3.6-1", "1:6.3.5-9"):
        newest = Host(seen, AvailablePackages=available(offered | {"amdgpu-dkms": [other]}))
        assert run(newest, request("8x AMD Instinct MI300X", upgrade=True), "installed") == []


def test_a_driver_that_was_replaced_by_half_is_not_made_whole_under_replicas():
    another = {"module": "580.105.08", "modules": f"{DEBIAN['kernel']} 580.105.08"}
    packages = installed()["packages"].replace("open-dkms 580.95.05", "open-dkms 580.105.08")
    seen = state(installed(), **KNOWN, **another, **REPLICAS, packages=packages)
    host = Host(seen, AvailablePackages=available())
    (told,) = run(host, request(**MIRROR), *STEPS[:5])
    assert told.startswith(
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
    mend = f"{scripts.APT} -f install --no-remove {options}"
    assert done[0].splitlines() == [
        f'{configure} >"$log" 2>&1 </dev/null || :',
        "run apt-mark unhold libcuda1 nvidia-driver-cuda nvidia-kernel-open-dkms "
        "nvidia-persistenced",
        f'{mend} >"$log" 2>&1 </dev/null || :',
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


@pytest.mark.parametrize(
    ("seen", "wanted", "told"),
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
def test_a_host_that_cannot_be_helped_is_stopped_first(seen: Any, wanted: Request, told: str):
    (error,) = run(Host(seen), wanted)
    assert error.startswith(told)


@pytest.mark.parametrize(
    ("fetched", "told"),
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
def test_a_key_that_is_not_nvidias_is_refused(fetched: tuple[bool, str], told: str):
    (error,) = run(Host(state(), FetchedKey=fetched), request(mirror="http://m"))
    assert told in error


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


UBUNTU_OFFERED = {
    name: ["580.95.05-0ubuntu0.24.04.1"]
    for name in (
        *("nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"),
        "nvidia-dkms-580-server-open",
    )
} | {"linux-headers-6.8.0-79-generic": ["6.8.0-79.79"]}
SIGNED = {
    f"linux-modules-nvidia-580-server-open-{end}": ["6.8.0-79.79"]
    for end in ("6.8.0-79-generic", "generic")
}


def ubuntu(
    offered: dict[str, list[str]],
    secure_boot: str = "SecureBoot disabled",
    refusal: str | None = None,
    **settings: Any,
):
    seen = state(UBUNTU, secure_boot=secure_boot)
    host = Host(seen, AvailablePackages=available(offered), Refusal=refusal)
    return run(host, request(**settings), *STEPS[:5])


def test_ubuntu_gets_the_signed_modules_of_its_own_repository():
    (script,) = ubuntu(UBUNTU_OFFERED | SIGNED, "SecureBoot enabled")
    assert script.splitlines()[0] == (
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-utils-580-server=580.95.05-0ubuntu0.24.04.1 "
        "linux-modules-nvidia-580-server-open-6.8.0-79-generic "
        "linux-modules-nvidia-580-server-open-generic"
    )


def test_ubuntu_builds_modules_where_there_are_none_for_the_kernel():
    (script,) = ubuntu(UBUNTU_OFFERED)
    assert script.splitlines()[:2] == [
        f"{APT} linux-headers-6.8.0-79-generic",
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-utils-580-server=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1",
    ]
    for more in ({"secure_boot": "SecureBoot enabled"}, {"packaging": "precompiled"}):
        (error,) = ubuntu(UBUNTU_OFFERED, **more)
        assert error.startswith(
            "driver: the distribution has no signed modules for kernel 6.8.0-79-generic "
        )


# The modules of a kernel that is not current fit the driver of their time.
REFUSAL = "linux-modules-nvidia-580-server-open-6.8.0-79-generic : Depends: nvidia-kernel-common"


def test_modules_are_built_where_the_signed_ones_fit_an_older_driver():
    (script,) = ubuntu(UBUNTU_OFFERED | SIGNED, refusal=REFUSAL)
    assert script.splitlines()[1].endswith(
        " nvidia-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1"
    )
    for more in ({"secure_boot": "SecureBoot enabled"}, {"packaging": "precompiled"}):
        (error,) = ubuntu(UBUNTU_OFFERED | SIGNED, refusal=REFUSAL, **more)
        assert REFUSAL in error
        assert "(apt-get install linux-image-generic linux-headers-generic), reboot, and" in error


def signed(version: str = "580.95.05", kind: str = "generic", **more: str) -> dict[str, str]:
    """An Ubuntu host that serves with the distribution's signed modules."""
    kernel = UBUNTU["kernel"]
    end = "580-server-open"
    names = [f"{name} {version}-0ubuntu1 ii " for name in UBUNTU_OFFERED if "dkms-580" not in name]
    names = [name for name in names if not name.startswith("linux")]
    names.append(f"nvidia-headless-no-dkms-{end} {version}-0ubuntu1 ii ")
    modules = (f"linux-modules-nvidia-{end}-{kernel}", f"linux-modules-nvidia-{end}-{kind}")
    names += [f"{name} 6.8.0-79.79 ii " for name in (*modules, f"linux-image-{kind}")]
    return {
        **UBUNTU,
        "packages": "\n".join([*names, f"linux-image-{kernel} 6.8.0-79.79 ii "]),
        "nvidia-smi": "/usr/bin/nvidia-smi",
        **{"module": version, "modules": f"{kernel} {version}", "loaded": version},
        **{"library": version, "answers": version, "in-kernel": "nvidia "},
        **{name.replace("_", "-"): text for name, text in more.items()},
    }


NEWER = {
    name: ["580.105.08-0ubuntu1"]
    for name in ("nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server")
}


@pytest.mark.parametrize("kind", ["generic", "generic-hwe-24.04"])
def test_signed_modules_are_upgraded_with_kernel_and_driver(kind: str):
    modules = f"linux-modules-nvidia-580-server-open-{kind}"
    offered = NEWER | {modules: ["6.8.0-85.85"], f"linux-image-{kind}": ["6.8.0-85.85"]}
    host = Host(state(signed(kind=kind)), AvailablePackages=available(offered), Refusal=None)
    (script,) = run(host, request(upgrade=True), "installed")
    lines = script.splitlines()
    # One go: the modules of one kernel fit one version of the driver.
    assert lines[0] == (
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.105.08-0ubuntu1 "
        f"nvidia-utils-580-server=580.105.08-0ubuntu1 {modules} linux-image-{kind}"
    )
    assert "/run/llm-kernel-upgraded" in lines[1]
    assert "for kernel $n, which boots next" in lines[-1]


def test_a_newer_driver_for_the_same_kernel_comes_with_its_modules():
    ends = ("6.8.0-79-generic", "generic")
    modules = {f"linux-modules-nvidia-580-server-open-{end}": ["6.8.0-79.79+1"] for end in ends}
    host = Host(state(signed()), AvailablePackages=available(NEWER | modules), Refusal=None)
    (script,) = run(host, request(upgrade=True), "installed")
    assert script.splitlines()[0].endswith(" ".join(["", *modules]))
    host = Host(
        state(signed()), AvailablePackages=available(NEWER | modules), Refusal="does not fit"
    )
    # Signed modules are never given up for built ones.
    (error,) = run(host, request(upgrade=True), "installed")
    assert "(does not fit); upgrade the kernel (apt-get install linux-image-generic" in error


def test_modules_that_were_built_stay_so():
    names = {**UBUNTU_OFFERED, "dkms": [""]}
    packages = "\n".join(f"{name} {(v or ['1'])[0] or 1} ii " for name, v in names.items())
    seen = state(
        UBUNTU,
        packages=packages,
        module="580.95.05",
        modules="6.8.0-79-generic 580.95.05",
        nouveau_blocked="/usr/lib/modprobe.d/nvidia.conf",
    )
    assert run(Host(seen), request(), *STEPS[:5]) == []


def test_rocky_gets_a_stream_with_epel_and_version_locks():
    kernel = "5.14.0-570.12.1.el9_6.x86_64"
    repository = nvidia_repository(state(ROCKY).system, "http://m/repos", own_key=True)
    known = {
        "files": f"{HostFile(repository.path, repository.content).state} {repository.path}",
        "keys": f"{repository.key_path} {base64.b64encode(KEY_FILE.read_bytes()).decode()}",
    }
    names = ("nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced")
    offered: dict[str, list[str]] = {name: ["580.95.05-1.el9", "570.1.1-1.el9"] for name in names}
    headers = (f"kernel-devel-{kernel}",)
    offered |= {name: ["5.14.0-570.12.1.el9_6"] for name in headers} | {"dkms": ["3.1-1.el9"]}
    host = Host(state(ROCKY, **known), AvailablePackages=available(offered))
    (script,) = run(host, request(**MIRROR), *STEPS[:5])
    assert host.asked[-1][1]["stream"] == "nvidia-driver:580-open"
    assert script.splitlines()[2:4] == [
        f"run {scripts.DNF} install {' '.join(headers)}",
        f"run {scripts.DNF} install --setopt=install_weak_deps=False --allowerasing "
        "nvidia-driver-cuda-580.95.05-1.el9 kmod-nvidia-open-dkms-580.95.05-1.el9 "
        "nvidia-persistenced-580.95.05-1.el9 dkms",
    ]
    there = "\n".join(f"{name} 580.95.05-1.el9 ii" for name in names)
    seen = state(
        ROCKY,
        packages=f"{ROCKY['packages']}\n{there}\ndkms 3 ii",
        module="580.95.05",
        modules=f"{kernel} 580.95.05",
        loaded="580.95.05",
        in_kernel="nvidia ",
        answers="580.95.05",
        held="kernel-0:5.14.0-570.12.1.el9_6.*",
        **known,
    )
    (script,) = run(Host(seen), request(**MIRROR))
    assert script.splitlines()[-1] == (
        f"run {scripts.DNF} versionlock add kernel-core kmod-nvidia-open-dkms nvidia-driver-cuda "
        "nvidia-persistenced"
    )


def test_amd_gets_its_driver_where_amd_smi_does_not_list_the_gpus():
    offered = {name: ["1"] for name in ("amdgpu-dkms", "amd-smi-lib")} | {
        name: ["1"] for name in ("linux-headers-6.8.0-79-generic",)
    }
    offered["linux-modules-extra-6.8.0-79-generic"] = ["1"]
    host = Host(state(UBUNTU), AvailablePackages=available(offered))
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.splitlines() == [
        f"{APT} linux-headers-6.8.0-79-generic linux-modules-extra-6.8.0-79-generic",
        f"{APT} amdgpu-dkms=1 amd-smi-lib=1",
    ]
    # The kernel's own driver does as well.
    served = state(UBUNTU, amd_answers="8", in_kernel="amdgpu ")
    assert run(Host(served), request("8x AMD Instinct MI300X")) == []


def test_amd_smi_comes_alone_where_amdgpu_offers_the_gpus():
    kfd = "\n".join(["29857 206141652992"] * 8)
    host = Host(
        state(UBUNTU, in_kernel="amdgpu ", kfd=kfd),
        AvailablePackages=available({"amd-smi-lib": ["1"]}),
    )
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.splitlines() == [f"{APT} amd-smi-lib=1"]
    there = f"{UBUNTU['packages']}\namd-smi-lib 1 ii "
    seen = state(UBUNTU, in_kernel="amdgpu ", kfd=kfd, packages=there)
    assert run(Host(seen), request("8x AMD Instinct MI300X"), *STEPS[:5]) == []


def test_a_host_without_gpus_or_without_a_word_is_left_alone():
    assert run(Host(state()), Request(request().settings, NEEDS, ())) == []
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
        DriverReport().command(["/etc/a b"]),
    ):
        done = subprocess.run(["dash", "-n"], input=command.encode(), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
    assert FetchedKey().process(["key QQ=="]) == (True, "QQ==")
    assert FetchedKey().process(["failed 404  Not Found "]) == (False, "404  Not Found")


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
            assert list(getattr(operations, step)._inner(job=job, turn=lambda: False)) == []
        assert host.asked == []
        assert list(operations.installed._inner(job=job, turn=lambda: True))
